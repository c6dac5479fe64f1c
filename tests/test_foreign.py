"""Networks of other libraries as they are: understood, or one sentence that names the adapter. Nothing is installed."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from problems import small_unet
from torch import Tensor, nn

from neural import from_ddpm, from_edm, open_model

KEPT = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)


class Raw(nn.Module):
    """net(x, time)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, time: Tensor, x_self_cond: Tensor | None = None) -> Tensor:
        return self.weight * (x + 0.01 * time.view(-1, 1, 1, 1)).sin()


class GaussianDiffusion(nn.Module):
    """What lucidrains' holds."""

    def __init__(self, objective: str) -> None:
        super().__init__()
        self.model, self.objective, self.channels, self.image_size = Raw(), objective, 1, (4, 4)
        self.register_buffer("alphas_cumprod", KEPT.float())


class Wrapped(nn.Module):
    """k-diffusion's DiscreteEpsDDPMDenoiser."""

    def __init__(self) -> None:
        super().__init__()
        self.inner_model = Raw()
        self.register_buffer("sigmas", ((1 - KEPT) / KEPT).sqrt().float())

    @property
    def sigma_min(self) -> Tensor:
        return self.sigmas[0]

    @property
    def sigma_max(self) -> Tensor:
        return self.sigmas[-1]

    def forward(self, input: Tensor, sigma: Tensor, **extra: Any) -> Tensor:
        low = (self.sigmas[None] <= sigma[:, None]).sum(1).sub(1).clamp(0, 998)
        w = (sigma.log() - self.sigmas[low].log()) / (self.sigmas[low + 1].log() - self.sigmas[low].log())
        wide = sigma.view(-1, 1, 1, 1)
        return input - wide * self.inner_model(input / (wide**2 + 1).sqrt(), low + w)


class KarrasDenoiser(nn.Module):
    """azula's: an answer with a mean, x_t = cos x + sin eps."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.schedule = Raw(), lambda t: ((1.5 * t).cos(), (1.5 * t).sin() + 1e-3)

    def forward(self, x_t: Tensor, t: Tensor, **extra: Any) -> SimpleNamespace:
        signal, noise = (part.view(-1, 1, 1, 1) for part in self.schedule(t))
        size = signal**2 + noise**2
        inner = self.backbone(x_t / size.sqrt(), (noise / signal).log().flatten())
        return SimpleNamespace(mean=signal / size * x_t + noise / size.sqrt() * inner)


class EDMPrecond(nn.Module):
    """NVlabs' network: one-hot labels, its own range and size."""

    def __init__(self) -> None:
        super().__init__()
        self.label_dim, self.img_resolution, self.img_channels, self.sigma_min, self.sigma_max = (
            10,
            4,
            1,
            0,
            float("inf"),
        )
        self.map = nn.Linear(10, 1, bias=False)
        self.seen: Tensor | None = None

    def forward(self, x: Tensor, sigma: Tensor, class_labels: Tensor | None = None, force_fp32: bool = False) -> Tensor:
        assert class_labels is not None
        self.seen = class_labels.to(torch.float32).reshape(-1, self.label_dim)
        return x * self.map(self.seen).view(-1, 1, 1, 1)


@pytest.mark.parametrize(("objective", "kind"), [("pred_noise", "eps"), ("pred_x0", "x0"), ("pred_v", "v")])
def test_lucidrains(objective: str, kind: str, normal: Callable[..., Tensor]) -> None:
    source = GaussianDiffusion(objective)
    model = open_model(source)
    x = normal(3, 1, 4, 4)
    torch.testing.assert_close(
        model(x, 1.7), from_ddpm(source.model, KEPT, kind)(x, 1.7).clamp(-1, 1), rtol=0, atol=1e-5
    )
    assert model.event == (1, 4, 4)
    with pytest.raises(ValueError, match=r"made for points of shape \(1, 4, 4\), x has \(1, 6, 6\)"):
        model(normal(3, 1, 6, 6), 1.7)


def test_k_diffusion(normal: Callable[..., Tensor]) -> None:
    source, x = Wrapped(), normal(3, 1, 4, 4)
    model = open_model(source)
    torch.testing.assert_close(model(x, 1.7), from_ddpm(source.inner_model, KEPT)(x, 1.7), rtol=0, atol=1e-5)
    assert 0.01 < model.sigma_min < 0.0101
    with pytest.raises(ValueError, match=r"sigma must lie between 0\.01.* and 157"):
        model(x, 300.0)


def test_azula(normal: Callable[..., Tensor]) -> None:
    """Its denoiser depends on x and σ alone, whatever its schedule."""
    source, x = KarrasDenoiser(), normal(5, 1, 4, 4)
    model, sigma = open_model(source), torch.linspace(0.05, 10, 5, dtype=torch.float64)
    wide = sigma.view(-1, 1, 1, 1)
    inner = source.backbone((x / (1 + wide**2).sqrt()).float(), sigma.log().float()).double()
    expected = x / (1 + wide**2) + wide / (1 + wide**2).sqrt() * inner
    torch.testing.assert_close(model(x, sigma), expected.detach(), rtol=0, atol=1e-5)


def test_edm_with_labels(normal: Callable[..., Tensor]) -> None:
    """Whole numbers were reshaped to rows of ten: ten of them made one row, in silence."""
    source, x = EDMPrecond(), normal(20, 1, 4, 4)
    labels = torch.arange(20) % 10
    out = open_model(source).given(labels)(x, 1.0)
    assert source.seen is not None
    assert torch.equal(source.seen.argmax(1), labels)
    torch.testing.assert_close(out, x * source.map.weight[0].detach().double()[labels].view(-1, 1, 1, 1))
    for wrong, sentence in (
        (None, "class-conditional, with 10 classes: give labels"),
        (10, r"labels must lie in 0 … 9, the classes of the network, got 10"),
        (torch.zeros(20, 3), r"one-hot labels of this network have 10 entries, got shape \(20, 3\)"),
        (torch.arange(3), "labels must be one, or one a row: 3 of them for 20 rows"),
    ):
        with pytest.raises(ValueError, match=sentence):
            open_model(source).given(wrong)(x, 1.0)


def test_a_pipeline_in_memory(normal: Callable[..., Tensor]) -> None:
    from diffusers import DDPMScheduler

    from neural import from_unet

    unet, scheduler, x = small_unet(), DDPMScheduler(), normal(2, 1, 8, 8)
    model = open_model(SimpleNamespace(unet=unet, scheduler=scheduler))
    torch.testing.assert_close(model(x, 1.0), from_unet(unet, scheduler)(x, 1.0))
    with pytest.raises(ValueError, match="has a vqvae: its network does not work on images"):
        open_model(SimpleNamespace(unet=unet, scheduler=scheduler, vqvae=nn.Identity()))


def of_deepinv() -> nn.Module:
    kind = type("DRUNet", (nn.Identity,), {"__module__": "deepinv.models.drunet"})
    return kind()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (small_unet, r"UNet2DModel is called with \(sample, timestep\).*from_unet\(net, scheduler\), from_ddpm"),
        (Raw, r"Raw is called with \(x, time\), and neither its noise levels nor what it predicts"),
        (of_deepinv, r"deepinv's DRUNet is for values in \[0, 1\]: from_edm\(net, value_range=\(0, 1\)\)"),
        (lambda: nn.Bilinear(1, 1, 1), r"Bilinear is called with \(input1, input2\).*from_edm\(net\) if"),
        (lambda: GaussianDiffusion("pred_score"), "objective 'pred_score' of GaussianDiffusion is not understood"),
        (
            lambda: SimpleNamespace(alphas_cumprod=KEPT, model_mean_type=1),
            r"holds the table, not the network: from_ddpm\(network, it.alphas_cumprod\)",
        ),
    ],
)
def test_what_does_not_say_enough_is_one_sentence(make: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        open_model(make())
    assert "\n" not in str(caught.value)


def test_values_in_another_range(normal: Callable[..., Tensor]) -> None:
    """The optimum of one point at 0.2 in [0, 1] is that at −0.6 in [−1, 1]; a Gaussian's says that sigma halves."""
    x = normal(4, 3)
    one = from_edm(lambda u, sigma: torch.full_like(u, 0.2), value_range=(0, 1))
    torch.testing.assert_close(one(x, 1.0), torch.full_like(x, -0.6))
    gauss = from_edm(lambda u, sigma: 0.5 + (u - 0.5) / (1 + 4 * sigma.view(-1, 1) ** 2), value_range=(0, 1))
    torch.testing.assert_close(gauss(x, 3.0), x / 10)
