"""Networks, preconditioning, objectives, configurations and checkpoints, each for itself."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from contracts import check_denoiser
from problems import small_unet
from torch import Tensor, nn

from neural import (
    MLP,
    PRESETS,
    Distillation,
    Experiment,
    Network,
    Optimisation,
    Preconditioned,
    UNet,
    fit,
    from_diffusers,
    measure,
)
from neural.checkpoint import checkpoints, latest, read, require_same, write
from neural.config import differing, from_json, key, to_json
from neural.loss import Denoising, Regression, Source, draw_sigma, root_mean_square, weighting
from neural.networks import build
from neural.run import new_training
from neural.streams import Streams
from neural.training import train
from optimal import Dataset, OptimalDenoiser, load, uniform_t

Normal = Callable[..., Tensor]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Answer(nn.Module):
    """F = value, with what it was asked kept."""

    def __init__(self, value: float = 0.0):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        self.asked = x, c_noise
        return self.value.expand(x.shape)


# Preconditioning.


def test_limits_of_the_preconditioning(normal: Normal) -> None:
    """σ → 0: x, whatever F says. σ → ∞: σ_d F. F always sees inputs of size 1, and ¼ ln σ."""
    F = Answer(0.7)
    D, x = Preconditioned(F, 0.5), normal(1000, 2)
    torch.testing.assert_close(D(x, 1e-6), x, rtol=0, atol=1e-5)
    assert torch.equal(D(x, 0.0), x)
    torch.testing.assert_close(D(1e6 * x, 1e6), torch.full_like(x, 0.35), rtol=0, atol=1e-5)
    for sigma in (0.01, 0.5, 80.0):
        D(0.5 * x + sigma * normal(1000, 2), sigma)
        seen, c_noise = F.asked
        assert abs(float(seen.std()) - 1) < 0.06
        torch.testing.assert_close(c_noise, torch.full((1000,), math.log(sigma) / 4))
    # What is asked of F is of size 1, too: (x0 − c_skip x)/c_out.
    for sigma in torch.tensor([0.01, 0.5, 80.0], dtype=torch.float64):
        c_skip, c_out, _ = D.coefficients(sigma)
        x0 = 0.5 * normal(5000)
        assert abs(float(((x0 - c_skip * (x0 + sigma * normal(5000))) / c_out).std()) - 1) < 0.05


def test_no_preconditioning_is_the_network_itself(normal: Normal) -> None:
    F = Answer(0.7)
    x = normal(3, 2)
    assert torch.equal(Preconditioned(F, 0.5, "none")(x, 3.0), torch.full_like(x, 0.7).float().double())
    torch.testing.assert_close(F.asked[0], x.float())


@pytest.mark.parametrize("event", [(3,), (1, 8, 8)])
def test_a_network_is_a_denoiser(event: tuple[int, ...], normal: Normal) -> None:
    D = build(Network(width=16, depth=1), event, 0.5)
    for parameter in D.parameters():
        nn.init.normal_(parameter, std=0.3, generator=seeded(3))
    with torch.no_grad():
        # In float64 throughout: float32 products depend on the batch by more than the battery lets pass.
        check_denoiser(D.double().eval(), event)


def test_errors_of_the_preconditioning(normal: Normal) -> None:
    x = normal(2, 3)
    with pytest.raises(ValueError, match="precondition must be one of edm, none, got 'vp'"):
        Preconditioned(Answer(), 0.5, "vp")
    with pytest.raises(ValueError, match="sigma_data must be positive and finite, got 0"):
        Preconditioned(Answer(), 0.0)
    for sigma, sentence in ((-1.0, "got -1"), (math.nan, "got nan"), (torch.ones(3), r"got \(3,\) with B = 2")):
        with pytest.raises(ValueError, match=sentence):
            Preconditioned(Answer(), 0.5)(x, sigma)
    with pytest.raises(ValueError, match="the network must return the shape of x"):
        Preconditioned(_Wrong(), 0.5)(x, 1.0)


class _Wrong(nn.Module):
    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        return x[:, :1]


# Networks.


@pytest.mark.parametrize("event", [(1, 28, 28), (1, 25, 25), (3, 25, 31), (1, 8, 8), (3, 16, 16), (3, 32, 32)])
def test_a_unet_takes_any_image(event: tuple[int, ...], normal: Normal) -> None:
    """The sizes at which UNet2DModel's defaults crash; 0 at the start, trainable, sensitive to σ in float."""
    net = build(Network(kind="unet", channels=(16, 32, 32), layers=1, attention=(8,)), event, 0.5).net
    x, c_noise = normal(2, *event).float(), torch.tensor([0.1, -0.2])
    out = net(x, c_noise)
    assert out.shape == x.shape
    assert not out.any()
    (net(x, c_noise) - x).square().mean().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in net.parameters())
    nn.init.normal_(net.net.conv_out.weight, std=0.1, generator=seeded(1))
    with torch.no_grad():
        # Levels 1e-4 apart in ln σ are told apart, smoothly.
        near = net(x, c_noise + 2.5e-5)
        assert 0 < (near - net(x, c_noise)).abs().amax() < 1e-2


@pytest.mark.parametrize(("name", "side"), [("ffhq-64", 64), ("cifar-32", 32)])
def test_configurations_of_edms_size_are_constructed(name: str, side: int) -> None:
    """DDPM++ in size; their training needs a GPU and was not tested. Shapes only, forward and back."""
    preset = PRESETS[name].network
    with torch.device("meta"):
        net = UNet((3, side, side), preset.channels, preset.layers, preset.attention)
        out = net(torch.empty(2, 3, side, side), torch.empty(2))
        out.square().mean().backward()
    assert out.shape == (2, 3, side, side)
    assert 5e7 < sum(math.prod(p.shape) for p in net.parameters()) < 1.2e8
    assert all(p.grad is not None and p.grad.shape == p.shape for p in net.parameters())


@pytest.mark.parametrize("event", [(3, 16, 16), (1, 25, 25), (3, 12, 17)])
@pytest.mark.parametrize("patch", [2, 4])
def test_a_dit_takes_any_image(event: tuple[int, ...], patch: int, normal: Normal) -> None:
    """0 at the start, trainable, sensitive to σ in float; every pixel of x reaches every pixel of the answer."""
    net = build(Network(kind="dit", width=32, depth=2, patch=patch), event, 0.5).net
    x, c_noise = normal(2, *event).float(), torch.tensor([0.1, -0.2])
    out = net(x, c_noise)
    assert out.shape == x.shape
    assert not out.any()
    (net(x, c_noise) - x).square().mean().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in net.parameters())
    for i, weight in enumerate(net.parameters()):
        nn.init.normal_(weight, std=0.1, generator=seeded(i))
    with torch.no_grad():
        near = net(x, c_noise + 2.5e-5)
        assert 0 < (near - net(x, c_noise)).abs().amax() < 1e-2
        corner = x.clone()
        corner[..., 0, 0] += 1
        assert (net(corner, c_noise) - net(x, c_noise))[..., -1, -1].abs().min() > 0
    # In training too, an answer has nothing random in it: labels are dropped where they are drawn.
    assert torch.equal(net.train()(x, c_noise), net(x, c_noise))
    sizes = {tuple(matrix.shape) for matrix in net.matrices()}
    assert sizes == {(32, 32), (128, 32), (32, 128)}


@pytest.mark.slow
def test_a_dit_approaches_the_optimum_by_muon() -> None:
    """150 steps on eight images, whose mean, a share of 1, it has left behind: 0.59 where this was written."""
    data = load("emoji", size=16, n=8)
    options = Optimisation(steps=150, batch=64, optimizer="muon", lr=4e-3, warmup=10, noise="log_normal", P_mean=1.0)
    options = dataclasses.replace(options, P_std=0.5, target="posterior")
    F = fit(Experiment(network=Network(kind="dit", width=64, depth=2, patch=4), optimisation=options), data)
    share = measure(F, OptimalDenoiser(data), sigmas=3.0, draws=128).columns["gap_share"]
    assert float(share.high[0]) < 0.75


def test_weights_depend_on_the_seed_alone() -> None:
    state = torch.random.get_rng_state()
    a, b, c = (build(Network(width=8), (2,), 0.5, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert not all(torch.equal(p, q) for p, q in zip(a.parameters(), c.parameters(), strict=True))
    assert not MLP((2,), 8)(torch.ones(3, 2), torch.ones(3)).any()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Network(kind="transformer"), "network.kind must be mlp, unet or dit, got transformer"),
        (lambda: Network(width=0), "width must be at least 1, got 0"),
        (lambda: Network(layers=0), "layers must be at least 1, got 0"),
        (lambda: Optimisation(clip=-1), "clip must be positive and finite, got -1"),
        (lambda: Optimisation(lr=float("nan")), "lr must be positive and finite, got nan"),
        (lambda: Optimisation(warmup=-5), "warmup must not be negative, got -5"),
        (lambda: Optimisation(P_std=-1), "P_std must be finite and not negative, got -1"),
        (lambda: Optimisation(sigma_min=10, sigma_max=1), "sigma_max must lie above sigma_min, got 1"),
        (lambda: Optimisation(sigma_min=0), "sigma_min must be positive and finite, got 0"),
        (lambda: Optimisation(seed=10**20), "seed must fit into 64 bits"),
        (lambda: Distillation("magic"), "technique must be one of consistency, .*, got 'magic'"),
        (lambda: Distillation(solver="foo"), "solver must be euler or heun, got 'foo'"),
        (lambda: Distillation("progressive", levels=1), "levels must be at least 2, got 1"),
        (lambda: Distillation(pairs=-3), "pairs must not be negative, got -3"),
    ],
)
def test_configurations_that_cannot_be(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make()


def test_errors_of_the_networks() -> None:
    for config, event, sentence in (
        (Network(kind="unet"), (2,), r"a UNet works on images, events of shape \(C, H, W\), got \(2,\)"),
        (Network(kind="dit"), (2,), r"a DiT works on images, events of shape \(C, H, W\), got \(2,\)"),
        (Network(kind="dit", width=48), (1, 8, 8), "the width of a DiT must be a multiple of 32, got 48"),
        (Network(kind="dit", depth=0), (1, 8, 8), "a DiT needs depth >= 1, got 0"),
        (Network(kind="unet", channels=(30,)), (1, 8, 8), r"channels of a UNet must be multiples of 4, got \(30,\)"),
    ):
        with pytest.raises(ValueError, match=sentence):
            build(config, event, 0.5)


def test_a_diffusers_checkpoint_is_a_denoiser(tmp_path: Path, normal: Normal) -> None:
    """Saved as pipelines are; the same predictions as the network's own at whole steps."""
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    net = small_unet()
    for kind in ("epsilon", "sample", "v_prediction"):
        folder = tmp_path / kind
        scheduler = DDPMScheduler(prediction_type=kind)
        net.save_pretrained(folder / "unet")
        scheduler.save_pretrained(folder / "scheduler")
        D, unclipped = from_diffusers(folder), from_diffusers(folder, clip=False)
        for t in (3, 500, 990):
            kept = scheduler.alphas_cumprod[t].double()
            sigma = float(((1 - kept) / kept).sqrt())
            x = normal(2, 1, 8, 8) * (1 + sigma)
            x_t = kept.sqrt() * x
            with torch.no_grad():
                value = net(x_t.float(), torch.tensor(float(t))).sample.double()
            expected = {
                "epsilon": (x_t - (1 - kept).sqrt() * value) / kept.sqrt(),
                "sample": value,
                "v_prediction": kept.sqrt() * x_t - (1 - kept).sqrt() * value,
            }[kind]
            torch.testing.assert_close(unclipped(x, sigma), expected, rtol=1e-4, atol=1e-4)
            # As the scheduler does by default.
            torch.testing.assert_close(D(x, sigma), expected.clamp(-1, 1), rtol=1e-4, atol=1e-4)
        assert D(x, torch.tensor([1.0, 2.0])).shape == x.shape
        with pytest.raises(ValueError, match=r"sigma must lie between 0\.01.* and 15"):
            D(x, 200.0)
        with pytest.raises(ValueError, match=r"made for points of shape \(1, 8, 8\), x has \(3, 8, 8\)"):
            D(normal(2, 3, 8, 8), 1.0)
    with pytest.raises(ValueError, match="holds no unconditional diffusers checkpoint"):
        from_diffusers(tmp_path)


# Objectives.


def test_noise_levels_by_name() -> None:
    options = Optimisation(sigma_min=0.01, sigma_max=10.0, P_mean=-1.0, P_std=0.5)
    normal = draw_sigma(20_000, dataclasses.replace(options, noise="log_normal"), Streams(0)).log()
    assert abs(float(normal.mean()) + 1) < 0.02
    assert abs(float(normal.std()) - 0.5) < 0.02
    uniform = draw_sigma(20_000, options, Streams(0)).log()
    low, high = math.log(0.01), math.log(10.0)
    assert low <= uniform.amin() < low + 0.01 < high - 0.01 < uniform.amax() <= high
    assert abs(float(uniform.mean()) - (low + high) / 2) < 0.05
    times = draw_sigma(20_000, dataclasses.replace(options, noise="uniform_t"), Streams(0))
    # Quantiles even in the time of linear VP: those of its grid.
    from optimal.process import VP

    grid = uniform_t(5, t_min=float(VP().time(0.01)), t_max=float(VP().time(10.0)))[:-1].flip(0)
    torch.testing.assert_close(times.quantile(torch.linspace(0, 1, 5).double())[1:4], grid[1:4], rtol=0.05, atol=0)
    with pytest.raises(ValueError, match="noise must be one of log_normal, log_uniform, uniform_t, got 'cosine'"):
        draw_sigma(1, dataclasses.replace(options, noise="cosine"), Streams(0))


def test_weightings_by_name() -> None:
    sigma = torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64)
    D = Preconditioned(Answer(), 0.5)
    torch.testing.assert_close(weighting("edm", sigma, 0.5), D.coefficients(sigma)[1] ** -2)
    assert weighting("none", sigma, 0.5).tolist() == [1, 1, 1]
    torch.testing.assert_close(weighting("snr", sigma, 0.5), sigma**-2)
    torch.testing.assert_close(weighting("snr1", sigma, 0.5), (sigma**-2).clamp_min(1))
    with pytest.raises(ValueError, match="weighting must be one of edm, none, snr, snr1, got 'min_snr'"):
        weighting("min_snr", sigma, 0.5)


def test_the_optimum_has_the_least_denoising_loss() -> None:
    """Eq. 26: its loss is MMSE, as the posterior says; any other function's is larger."""
    data = load("five-deltas")
    D = OptimalDenoiser(data)
    options = Optimisation(weighting="none", sigma_min=0.3, sigma_max=3.0)
    objective = Denoising(data, options, 1.0)
    batch = objective.draw(20_000, Streams(0))

    class Module(nn.Module):
        def __init__(self, function: Callable):
            super().__init__()
            self.function = function

        def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
            return self.function(x, sigma)

    losses, sigma = objective.loss(Module(D), Module(D), batch)
    x = batch[0] + sigma.float()[:, None] * batch[2]
    excess = losses - D.posterior(x, sigma).variance
    assert abs(float(excess.mean())) < 4 * float(excess.std()) / math.sqrt(20_000)
    for other in (lambda x, s: D(x, s) + 0.1, lambda x, s: D(x, 1.1 * s), lambda x, s: x):
        assert objective.loss(Module(other), Module(other), batch)[0].mean() > losses.mean() + 0.001


def test_the_exact_target_has_the_same_minimum_and_no_noise() -> None:
    """The same draws and mean gradient as Eq. 26's, at less than half of its variance; the optimum's loss is 0."""
    data = load("digits")
    D = OptimalDenoiser(data)
    options = Optimisation(noise="log_normal", P_mean=0.0, P_std=0.5, weighting="none")
    plain, exact = Denoising(data, options, 1.0), Regression(data, D, options, 1.0)
    batch = exact.draw(4096, Streams(0))
    for mine, theirs in zip(batch, plain.draw(4096, Streams(0)), strict=True):
        assert torch.equal(mine, theirs)
    losses, sigma = exact.loss(D, D, batch)
    assert torch.equal(sigma, batch[1])
    assert float(losses.max()) == 0
    gradients = []
    for objective in (plain, exact):
        factor = torch.full((4096, 1, 1, 1), 0.9, requires_grad=True)
        objective.loss(lambda x, s, by=factor: by * D(x, s), D, batch)[0].sum().backward()
        assert factor.grad is not None
        gradients.append(factor.grad.flatten().double())
    noise = gradients[0] - gradients[1]
    assert abs(float(noise.mean())) < 4 * float(noise.std()) / math.sqrt(4096)
    assert float(gradients[1].var()) < 0.5 * float(gradients[0].var())
    for target, kind in (("x0", Denoising), ("posterior", Regression)):
        few = dataclasses.replace(options, batch=64, target=target)
        chosen = Experiment("digits", network=Network(width=8, depth=1), optimisation=few)
        training, objective = new_training(chosen, data, device="cpu")
        assert isinstance(objective, kind)
        assert next(train(training, objective)).step == 1
    with pytest.raises(ValueError, match="target must be x0, batch or posterior, got 'mean'"):
        Optimisation(target="mean")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="load the data with xflip=True, not flip, got True"):
        Optimisation(target="posterior", flip=True)


def test_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory-mapped and in memory the same draws; half of the images mirrored where asked."""
    array = np.arange(6 * 1 * 2 * 3, dtype=np.uint8).reshape(6, 1, 2, 3)
    data = Dataset("six", array)
    source, flipping = Source(data), Source(data, flip=True)
    drawn = source.draw(1000, Streams(0))
    with monkeypatch.context() as patch:
        patch.setattr("neural.loss._IN_MEMORY", 0)
        assert torch.equal(drawn, Source(data).draw(1000, Streams(0)))
    mirrored = (flipping.draw(1000, Streams(0)) != drawn).flatten(1).any(1)
    assert 400 < mirrored.sum() < 600
    assert torch.equal(flipping.draw(1000, Streams(0))[mirrored], drawn[mirrored].flip(-1))
    with pytest.raises(ValueError, match="flip mirrors images, five-deltas has points of shape"):
        Source(load("five-deltas"), flip=True)
    assert root_mean_square(Dataset("x", np.array([[3.0, 4.0]], np.float32))) == pytest.approx(math.sqrt(12.5))


# Configurations and checkpoints.


def test_configurations_survive_json() -> None:
    for preset in PRESETS.values():
        assert from_json(Experiment, to_json(preset)) == preset
    config = Distillation("progressive", levels=8, experiment=PRESETS["faces"])
    assert from_json(Distillation, to_json(config)) == config
    other = dataclasses.replace(config, experiment=PRESETS["digits"], levels=9)
    assert {"levels", "experiment.dataset", "experiment.network.kind"} <= set(differing(config, other))
    assert key(config) != key(other)
    with pytest.raises(ValueError, match="Experiment has no field 'datset'; it has dataset"):
        from_json(Experiment, json.dumps({"datset": "digits"}))


def test_checkpoints_are_whole_or_not_there(tmp_path: Path) -> None:
    config = Experiment()
    tensors = {"a": torch.arange(3.0), "b": torch.zeros((), dtype=torch.uint8)}
    for step in (1, 20, 3):
        write(tmp_path, step, tensors, config, {})
    (tmp_path / ".step-000000099.safetensors.1").write_bytes(b"half")
    (tmp_path / "step-99.safetensors").write_bytes(b"foreign")
    assert [path.name[5:14] for path in checkpoints(tmp_path)] == ["000000001", "000000003", "000000020"]
    found, step, read_config = read(latest(tmp_path), Experiment)
    assert step == 20
    assert read_config == config
    assert torch.equal(found["a"], tensors["a"])
    assert found["b"].dtype == torch.uint8
    assert from_json(Experiment, (tmp_path / "config.json").read_text()) == config
    other = dataclasses.replace(config, optimisation=Optimisation(lr=0.5))
    with pytest.raises(ValueError, match=r"another configuration: optimisation\.lr: 0\.001 there, 0\.5 here"):
        require_same(latest(tmp_path), read_config, other)
    with pytest.raises(ValueError, match="is a checkpoint of a Experiment, not of a Distillation"):
        read(latest(tmp_path), Distillation)
    damaged = tmp_path / "step-000000030.safetensors"
    damaged.write_bytes(latest(tmp_path).read_bytes()[:200])
    with pytest.raises(ValueError, match="is no checkpoint, or a damaged one"):
        read(damaged, Experiment)
    with pytest.raises(ValueError, match="no checkpoint"):
        latest(tmp_path / "nowhere")
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(ValueError, match="the checkpoint could not be written to"):
        write(blocked, 1, tensors, config, {})
