"""The optimum itself, spoken in every convention that is tried and asked in every other one: its own is named."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from neural import from_ddpm, sanity
from neural.spoken import UNITS, conventions
from optimal import OptimalDenoiser, load
from optimal.process import EDM, VP, Process

Network = Callable[[Tensor, Tensor], Tensor]
KEPT = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
LOGS = ((1 - KEPT) / KEPT).log() / 2
POINTS = load("digits").points[:60].double()
D = OptimalDenoiser(POINTS)
SIZES = sorted({0.5, 1.0, float(f"{D.standard_deviation:.3g}")})


def wide(value: Tensor, x: Tensor) -> Tensor:
    return value.view(-1, *[1] * (x.ndim - 1))


def spoken(E: OptimalDenoiser, x_t: Tensor, signal: Tensor, noise: Tensor, kind: str) -> Tensor:
    sigma = noise / signal
    x = x_t.double() / wide(signal, x_t)
    x0 = E(x, sigma)
    eps = (x - x0) / wide(sigma, x)
    return {
        "x0": x0,
        "eps": eps,
        "v": wide(signal, x) * eps - wide(noise, x) * x0,
        "score": -eps / wide(noise, x),
        "flow": eps - x0,
    }[kind].to(x_t)


def on_table(E: OptimalDenoiser, kind: str) -> Network:
    def net(x_t: Tensor, step: Tensor) -> Tensor:
        at = step.double().flatten().clamp(0, 999)
        low = at.floor().long().clamp_max(998)
        sigma = (LOGS[low] + (at - low) * (LOGS[low + 1] - LOGS[low])).exp()
        signal = (1 + sigma**2).rsqrt()
        return spoken(E, x_t, signal, sigma * signal, kind)

    return net


def on_flow(E: OptimalDenoiser, backward: bool, scale: int) -> Network:
    def net(x_t: Tensor, t: Tensor) -> Tensor:
        at = (t.double().flatten() / scale).clamp(1e-6, 1 - 1e-6)
        at = 1 - at if backward else at
        out = spoken(E, x_t, 1 - at, at, "flow")
        return -out if backward else out

    return net


def on_process(E: OptimalDenoiser, kind: str, process: Process) -> Network:
    def net(x_t: Tensor, t: Tensor) -> Tensor:
        at = t.double().flatten().clamp(1e-6, min(process.t_max, 1e6))
        return spoken(E, x_t, process.scale(at), process.std(at), kind)

    return net


def denoiser(E: OptimalDenoiser) -> Network:
    return lambda x, sigma: E(x.double(), sigma.double().flatten().clamp(1e-6, 1e6)).to(x)


def raw(E: OptimalDenoiser, size: float) -> Network:
    def net(given: Tensor, c: Tensor) -> Tensor:
        sigma = (4 * c.double().flatten()).clamp(-12, 12).exp()
        w = wide(sigma, given)
        total = (w**2 + size**2).sqrt()
        x = given.double() * total
        return ((E(x, sigma) - size**2 / total**2 * x) * total / (size * w)).to(given)

    return net


def truths(E: OptimalDenoiser) -> dict[str, Network]:
    """By the names that `conventions` has."""
    found = {f'from_ddpm(net, alphas_cumprod, "{kind}")': on_table(E, kind) for kind in ("eps", "v", "x0")}
    found |= {
        "from_flow(net)": on_flow(E, False, 1),
        "from_flow(net, data_at=1)": on_flow(E, True, 1),
        "from_flow(net, time_scale=1000)": on_flow(E, False, 1000),
        "from_flow(net, data_at=1, time_scale=1000)": on_flow(E, True, 1000),
        "from_edm(net)": denoiser(E),
    }
    found |= {f"from_edm_raw(net, sigma_data={size:g})": raw(E, size) for size in SIZES}
    for process, said, kinds in (
        (VP(), "VP()", ("eps", "score", "v", "x0")),
        (EDM(math.inf), "EDM(math.inf)", ("eps", "score")),
    ):
        found |= {f'from_prediction(net, "{kind}", process={said})': on_process(E, kind, process) for kind in kinds}
    return found


OURS = truths(D)
CLOSE = {f"from_edm_raw(net, sigma_data={size:g})" for size in SIZES if size != 1}
"""So near to each other that neither is questioned of the other's network."""


def named(line: str | None) -> str | None:
    """The convention that a line names."""
    return None if line is None or "fits best of" not in line else line.split("? ")[1].split(" fits best of")[0]


def test_every_convention_that_is_tried_is_spoken_here() -> None:
    tried = {name for name, _ in conventions(lambda x, t: x, D) if "value_range" not in name}
    assert tried == set(OURS) | {f"{factor:g} sigma" for factor in UNITS}


@pytest.mark.slow
@pytest.mark.parametrize("true", OURS)
def test_its_own_convention_is_named_whatever_it_is_asked_in(true: str) -> None:
    """In its own and in every sixth of the others: in all of them it takes minutes."""
    asked = [(name, make) for name, make in conventions(OURS[true], D) if name in OURS]
    assert len(asked) == len(OURS)
    start = list(OURS).index(true)
    for place, (name, make) in enumerate(asked):
        if (place - start) % 6 or {name, true} == CLOSE:
            continue
        line = sanity(make(), D)
        assert (line is None) if name == true else (named(line) == true), (name, line)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the values of the data")
@pytest.mark.parametrize("true", OURS)
def test_the_range_of_its_values_is_named(true: str) -> None:
    """Asked in its own convention but for the range, and in another one too."""
    if "raw" in true and "0.5)" not in true:
        pytest.skip("σ_d is in the network's own values, where others are tried")
    for half, said in ((0.5, "(0, 1)"), (127.5, "(0, 255)")):
        net = truths(OptimalDenoiser((1 + POINTS) * half))[true]
        for name in {true, "from_edm(net)"} if half < 1 else {true}:
            F = dict(conventions(net, D))[name]()
            assert named(sanity(F, D)) == f"{true[:-1]}, value_range={said})"


def test_a_table_of_ones_own_is_tried_with_the_other_kinds() -> None:
    steps = torch.arange(1, 301, dtype=torch.float64) / 301
    kept = (steps * math.pi / 2).cos().square()
    logs = ((1 - kept) / kept).log() / 2

    def net(x_t: Tensor, step: Tensor) -> Tensor:
        assert not step.is_floating_point()
        sigma = logs[step.clamp(0, 299)].exp()
        return spoken(D, x_t, (1 + sigma**2).rsqrt(), sigma * (1 + sigma**2).rsqrt(), "v")

    assert named(sanity(from_ddpm(net, kept, "eps", whole_steps=True), D)) == 'from_ddpm(net, alphas_cumprod, "v")'


class HardlyTrained(nn.Module):
    """ε with an error of a tenth, which is more than the mean's in x0 at high noise."""

    def __init__(self) -> None:
        super().__init__()
        self.exact = OURS['from_ddpm(net, alphas_cumprod, "eps")']

    def forward(self, x_t: Tensor, step: Tensor) -> Tensor:
        return self.exact(x_t, step) + 0.3 * (40 * x_t).sin()


def test_a_right_convention_is_not_blamed_for_a_short_training() -> None:
    line = sanity(from_ddpm(HardlyTrained(), KEPT), D)
    assert line is not None
    assert line.startswith("worse than the mean of the data at sigma = ")
    assert line.endswith("it is far from the optimum there, hardly trained or trained on other data")
    for kind in ("x0", "v"):
        wrong = sanity(from_ddpm(HardlyTrained(), KEPT, kind), D)
        assert named(wrong) == 'from_ddpm(net, alphas_cumprod, "eps")'
