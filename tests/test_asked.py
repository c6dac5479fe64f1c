"""The one way to ask a network: its precision, its device, its mode, what it answers with and how it is called."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from problems import small_unet
from second_device import DEVICE, second_device
from torch import Tensor, nn

from neural import (
    MLP,
    Preconditioned,
    UNet,
    from_ddpm,
    from_edm,
    from_edm_raw,
    from_flow,
    from_prediction,
    from_times,
    from_unet,
    open_model,
)
from optimal import OptimalDenoiser, karras, load, sample
from optimal.process import VP, CosineVP

KEPT = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
ALL: dict[str, Callable[..., Any]] = {
    "prediction": lambda net, **given: from_prediction(net, "eps", **given),
    "flow": lambda net, **given: from_flow(net, **given),
    "ddpm": lambda net, **given: from_ddpm(net, KEPT, **given),
    "edm": lambda net, **given: from_edm(net, **given),
    "raw": lambda net, **given: from_edm_raw(net, **given),
    "times": lambda net, **given: from_times(net, lambda t: (1 - 0.99 * t, t + 1e-3), **given),
}


def sigma_of(step: int) -> float:
    return float(((1 - KEPT[step]) / KEPT[step]).sqrt())


class Seeing(nn.Module):
    """What it is asked at, in a precision of its own."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones((), dtype=dtype))
        self.levels: list[float] = []
        self.dtypes: list[torch.dtype] = []

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        self.levels.append(float(level.flatten()[0]))
        self.dtypes.append(level.dtype)
        assert x.dtype == self.weight.dtype
        return 0 * x


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_levels_are_not_rounded_to_the_weights(dtype: torch.dtype) -> None:
    """bfloat16 was asked at 500, 936 and 1000; EDM's 1.003 at 1.0 and 12.345 at 12.375; VP's 258.8 at 258."""
    net, x = Seeing(dtype), torch.zeros(1, 1, 8, 8)
    for step in (501, 937, 998):
        from_ddpm(net, KEPT)(x, sigma_of(step))
        assert net.levels[-1] == pytest.approx(step, abs=1e-4)
    for step in (501, 937, 998):
        from_flow(net, time_scale=1000)(x, step / (1000 - step))
        assert net.levels[-1] == pytest.approx(step, abs=1e-4)
    for sigma in (1.003, 12.345):
        from_edm(net)(x, sigma)
        assert net.levels[-1] == pytest.approx(sigma, rel=1e-7)
        for F in (from_edm_raw(net), Preconditioned(net, 0.5)):
            F(x, sigma)
            assert net.levels[-1] == pytest.approx(math.log(sigma) / 4, rel=1e-6)
    t = 258.8 / 999
    from_prediction(net, "eps", process=VP(), time_scale=999)(x, float(VP().sigma(t)))
    assert net.levels[-1] == pytest.approx(258.8, abs=1e-3)
    assert set(net.dtypes) == {torch.float64 if dtype == torch.float64 else torch.float32}


def test_a_whole_step_is_whole_to_the_last_bit() -> None:
    net, x = Seeing(torch.bfloat16), torch.zeros(1, 1, 8, 8)
    for step in range(1000):
        from_ddpm(net, KEPT)(x, sigma_of(step))
    assert net.levels == list(range(1000))


def test_a_network_in_half_precision_is_its_float32_self(normal: Callable[..., Tensor]) -> None:
    """Within what its own rounding of weights and activations explains: none of it from the noise level."""
    for make, event in ((lambda: MLP((2,), 32, 2), (2,)), (lambda: UNet((1, 8, 8), (16, 32), 1), (1, 8, 8))):
        torch.manual_seed(0)
        net = make()
        with torch.no_grad():
            for p in net.parameters():
                p.copy_(p + 0.05 * torch.randn(p.shape))
        half = copy.deepcopy(net).bfloat16()
        same = copy.deepcopy(half).float()
        for sigma in (0.01, 0.937, 12.345, 79.0):
            x = normal(16, *event).float() * (1 + sigma)
            with torch.no_grad():
                expected, found = (Preconditioned(each, 0.5)(x, sigma) for each in (same, half))
            size = expected.norm() if sigma > 0.5 else x.norm()
            assert float((found - expected).norm() / size) < 0.03, sigma


class Embedded(nn.Module):
    """An embedding in one precision before a convolution in another; the embedding comes first."""

    def __init__(self, first: torch.dtype, second: torch.dtype) -> None:
        super().__init__()
        self.embedding = nn.Linear(1, 4, dtype=first)
        self.convolution = nn.Conv2d(1, 1, 3, padding=1, dtype=second)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        level = self.embedding(t.view(-1, 1).to(self.embedding.weight.dtype)).mean(1).view(-1, 1, 1, 1)
        return self.convolution(x) + level.to(x.dtype)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.bfloat16),
        (torch.float32, torch.float16),
        (torch.float64, torch.float32),
    ],
)
def test_weights_in_two_precisions(first: torch.dtype, second: torch.dtype, normal: Callable[..., Tensor]) -> None:
    torch.manual_seed(0)
    net = Embedded(first, second)
    x = normal(3, 1, 4, 4).float()
    single = copy.deepcopy(net).float()
    torch.testing.assert_close(from_flow(net)(x, 1.5), from_flow(single)(x, 1.5), rtol=0.05, atol=0.05)


def test_a_level_is_rounded_for_the_precision_that_computes() -> None:
    """Most weights are float32, which is tried first; those that x meets are float64."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.names = nn.Embedding(10, 10)
            self.convolution = nn.Conv2d(1, 1, 1, dtype=torch.float64)
            self.levels: list[float] = []

        def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
            out = self.convolution(x)
            self.levels.append(float(sigma[0]))
            return out

    net = Two()
    from_edm(net)(torch.zeros(1, 1, 4, 4, dtype=torch.float64), 1.003)
    assert net.levels == [1.003]


class Stored(nn.Module):
    """Weights kept in eight bits and computed with in bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1,), 0.5).to(torch.float8_e4m3fn), requires_grad=False)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.weight.to(torch.bfloat16).view(1, 1, 1, 1))


def test_weights_kept_in_eight_bits() -> None:
    x = torch.full((2, 1, 4, 4), 3.0)
    torch.testing.assert_close(from_edm(Stored())(x, 1.0), x / 2)


class Backward(nn.Module):
    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return x / t.view(-1, *[1] * (x.ndim - 1))


@pytest.mark.parametrize("adapt", ["flow", "prediction", "ddpm", "edm", "raw", "times"])
def test_networks_called_as_t_x(adapt: str, normal: Callable[..., Tensor]) -> None:
    def forward(x: Tensor, t: Tensor) -> Tensor:
        return Backward()(t, x)

    x = normal(3, 1, 8, 8)
    torch.testing.assert_close(ALL[adapt](Backward(), order="tx")(x, 1.5), ALL[adapt](forward)(x, 1.5))
    with pytest.raises(ValueError, match=r'the network is called as \(t, x\): say order="tx"'):
        ALL[adapt](Backward())


def test_a_failed_call_is_one_sentence() -> None:
    class Nameless(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.convolution(b)

    with pytest.raises(ValueError, match=r"Nameless failed on points of shape \(1, 8, 8\): .*order=\"tx\"") as caught:
        from_flow(Nameless())(torch.zeros(2, 1, 8, 8), 1.0)
    assert "\n" not in str(caught.value)

    def full(x: Tensor, sigma: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(ValueError, match="7 rows at once do not fit the memory of cpu: give a smaller batch"):
        from_edm(full)(torch.zeros(7, 3), 1.0)

    class Strict(nn.Module):
        """It multiplies its level with its weights, and does not cast."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1, 3, dtype=torch.bfloat16)

        def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
            return x + self.layer(sigma[:, None])

    with pytest.raises(ValueError, match="noise levels stay in float32: a network in bfloat16 casts what it makes of"):
        from_edm(Strict())(torch.zeros(2, 3), 1.0)


ANSWERS: dict[str, Callable[[Tensor], Any]] = {
    "tuple": lambda x: (x, None),
    "list": lambda x: [x],
    "dictionary": lambda x: {"sample": x},
    "dictionary of one": lambda x: {"whatever": x, "loss": None},
    "output": lambda x: SimpleNamespace(sample=x),
    "posterior": lambda x: SimpleNamespace(mean=x),
    "dictionary in a tuple": lambda x: ({"x0": x},),
    "mean and variance": lambda x: torch.cat([x, 9 + x], 1),
    "mean and variance in an output": lambda x: SimpleNamespace(sample=torch.cat([x, 9 + x], 1)),
}


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("adapt", ALL)
def test_what_networks_answer_with(adapt: str, answer: str, normal: Callable[..., Tensor]) -> None:
    x = normal(3, 2, 4, 4)
    found = ALL[adapt](lambda x, level: ANSWERS[answer](x.cos()))(x, 1.5)
    torch.testing.assert_close(found, ALL[adapt](lambda x, level: x.cos())(x, 1.5))


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (lambda x: torch.complex(x, x), "must return real numbers, got complex64"),
        (lambda x: None, r"must return the shape of x, \(2, 4\), got NoneType"),
        (lambda x: {}, r"must return the shape of x, \(2, 4\), got dict"),
        (lambda x: [], r"must return the shape of x, \(2, 4\), got list"),
        (lambda x: x[:1], r"must return the shape of x, \(2, 4\), got \(1, 4\)"),
        (lambda x: torch.cat([x, x], 1), r"must return the shape of x, \(2, 4\), got \(2, 8\)"),
    ],
)
def test_what_is_no_answer(answer: Callable[[Tensor], Any], sentence: str) -> None:
    for F in (from_edm(lambda x, sigma: answer(x)), from_flow(lambda x, t: answer(x))):
        with pytest.raises(ValueError, match=sentence):
            F(torch.zeros(2, 4), 1.0)


def test_arguments_of_a_call(normal: Callable[..., Tensor]) -> None:
    """Class labels and others go through every adapter, at every call."""

    def net(x: Tensor, level: Tensor, class_labels: Tensor | None = None, shift: float = 0.0) -> Tensor:
        out = x.sin() + shift
        return out if class_labels is None else out + class_labels.view(-1, *[1] * (x.ndim - 1))

    x = normal(3, 1, 4, 5)
    labels = torch.tensor([3, 0, 9])
    for adapt in ALL.values():
        each = [adapt(net, class_labels=int(c), shift=2.0)(x[i : i + 1], 1.5) for i, c in enumerate(labels)]
        torch.testing.assert_close(adapt(net)(x, 1.5, class_labels=labels, shift=2.0), torch.cat(each))


def test_clip_of_every_adapter(normal: Callable[..., Tensor]) -> None:
    x = 3 * normal(3, 2, 4)
    for adapt in ALL.values():
        free = adapt(lambda x, level: 2 * x)(x, 1.5)
        torch.testing.assert_close(adapt(lambda x, level: 2 * x, clip=0.7)(x, 1.5), free.clamp(-0.7, 0.7))
        torch.testing.assert_close(adapt(lambda x, level: 2 * x, clip=(-0.1, 2))(x, 1.5), free.clamp(-0.1, 2))


def straight(t: Tensor) -> tuple[Tensor, Tensor]:
    return 1 - 0.99 * t, t + 1e-3


@pytest.mark.parametrize("adapt", ALL)
def test_pickled_and_copied(adapt: str, normal: Callable[..., Tensor]) -> None:
    net, x = Embedded(torch.float32, torch.float32), normal(3, 1, 4, 4)
    F = from_times(net, straight, clip=1.0) if adapt == "times" else ALL[adapt](net, clip=1.0)
    for again in (pickle.loads(pickle.dumps(F)), copy.deepcopy(F)):
        assert torch.equal(again(x, 1.5), F(x, 1.5))


def test_what_libraries_have_is_not_refused() -> None:
    """CosineVP(s=0) is the cosine schedule of three of them."""
    F = from_prediction(lambda x_t, t: x_t, "x0", process=CosineVP(s=0.0))
    assert F(torch.ones(1, 2), 1.0).shape == (1, 2)


# Devices: a tensor left on the wrong one fails on the second device as it does on a GPU.


class Placed(nn.Module):
    """x and its level have to be where the weights are."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((1,), 0.5))
        self.names = nn.Embedding(10, 1)

    def forward(self, x: Tensor, level: Tensor, class_labels: Tensor | None = None) -> Tensor:
        shape = (-1, *[1] * (x.ndim - 1))
        out = self.scale * x + 0.1 * (self.scale * level).view(shape).cos()
        return out if class_labels is None else out + self.names(class_labels).view(shape)


@pytest.mark.parametrize("adapt", ALL)
@pytest.mark.parametrize("there", ["network", "network and x"])
def test_a_network_on_another_device(adapt: str, there: str, normal: Callable[..., Tensor]) -> None:
    torch.manual_seed(0)
    net, x, sigma = Placed(), normal(5, 1, 4, 4).float(), torch.linspace(0.1, 3, 5)
    labels = torch.arange(5)
    expected = ALL[adapt](copy.deepcopy(net), clip=2.0)(x, sigma, class_labels=labels)
    with second_device():
        moved = net.to(DEVICE)
        F = ALL[adapt](moved, clip=2.0)
        place = DEVICE if there == "network and x" else torch.device("cpu")
        for level in (sigma, sigma.to(place)):
            found = F(x.to(place), level, class_labels=labels)
            assert found.device == place
            torch.testing.assert_close(found.cpu(), expected)


@pytest.mark.parametrize("place", ["cpu", "elsewhere"])
def test_a_model_stays_on_its_device(place: str, normal: Callable[..., Tensor]) -> None:
    torch.manual_seed(0)
    net, x = Placed(), normal(7, 1, 4, 4).float()
    start = 80 * x
    plain = open_model(from_ddpm(copy.deepcopy(net), KEPT), batch=3).given(torch.arange(7))
    expected, ends = (
        plain(x, 1.5),
        sample(plain, 0.1 * start, **plain.sampling(4) | {"sigmas": karras(4, sigma_min=0.1, sigma_max=8.0)}),
    )
    with second_device():
        model = open_model(from_ddpm(net, KEPT), device=DEVICE, batch=3).given(torch.arange(7))
        assert all(p.device == DEVICE for p in net.parameters())
        where = DEVICE if place == "elsewhere" else torch.device("cpu")
        found = model(x.to(where), 1.5)
        assert found.device == where
        torch.testing.assert_close(found.cpu(), expected)
        landed = sample(
            model, 0.1 * start.to(where), **model.sampling(4) | {"sigmas": karras(4, sigma_min=0.1, sigma_max=8.0)}
        )
        torch.testing.assert_close(landed.cpu(), ends)


def test_auto_is_where_a_module_is() -> None:
    with second_device():
        model = open_model(from_edm(Placed().to(DEVICE)))
        assert model.device == DEVICE
        assert open_model(model).device == DEVICE


def test_a_tensor_that_was_left_behind_is_seen() -> None:
    """The test of these tests: a network with a constant on the CPU fails here as on a GPU."""

    class Left(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.shift = nn.Parameter(torch.ones(1)), torch.ones(4)

        def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
            return self.scale * x + self.shift

    with second_device():
        F = from_edm(Left().to(DEVICE))
        with pytest.raises(
            ValueError, match=r"Left failed on points of shape .* expected all tensors to be on the same"
        ):
            F(torch.zeros(2, 4), 1.0)


def test_a_diffusers_network_on_another_device(normal: Callable[..., Tensor]) -> None:
    from diffusers import DDIMScheduler

    net, x = small_unet(), normal(3, 1, 8, 8).float()
    expected = from_unet(net, DDIMScheduler())(x, torch.tensor([0.3, 1.0, 5.0]))
    with second_device():
        F = from_unet(copy.deepcopy(net).to(DEVICE), DDIMScheduler())
        torch.testing.assert_close(F(x, torch.tensor([0.3, 1.0, 5.0])), expected)


def test_measuring_a_model_on_another_device() -> None:
    from neural import agreement

    D = OptimalDenoiser(load("digits"))
    torch.manual_seed(0)
    net = Preconditioned(MLP(D.event, 16, 1), 0.5)
    expected = agreement(open_model(copy.deepcopy(net)), D, [0.5, 2.0], draws=32).gap
    with second_device():
        found = agreement(open_model(net, device=DEVICE, batch=8), D, [0.5, 2.0], draws=32).gap
    torch.testing.assert_close(found, expected)


def test_the_order_is_named_only_where_it_is_the_cause() -> None:
    weights = torch.nn.Linear(4, 4)
    x, wrong = torch.zeros(2, 4), torch.zeros(2, 3)
    turned = from_edm(lambda a, b: weights(b) + 0 * a[:, None])
    with pytest.raises(ValueError, match=r'it answers where it is called as \(t, x\): say order="tx"'):
        turned(x, 1.0)
    for F in (turned, from_edm(lambda x, sigma: weights(x))):
        with pytest.raises(ValueError, match=r"failed on points of shape \(3,\): .*multiplied[^;]*$") as caught:
            F(wrong, 1.0)
        assert "order" not in str(caught.value)
