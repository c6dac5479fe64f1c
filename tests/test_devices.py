"""Everything runs where x and the points are, to the numbers of the CPU: on a second device that the CPU plays."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from second_device import DEVICE, second_device
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from optimal import (
    FlowMap,
    OptimalDenoiser,
    basins,
    capture,
    certify,
    forward_statistics,
    karras,
    landing_statistics,
    sample,
    sample_in_span,
    seeking_refining_border,
    trajectory,
)
from optimal.devices import block_bytes
from optimal.draws import draw_pairs
from optimal.points import leads

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # torch.func.jvp's own.

SIGMA = 1.5
PLACES = {"x": (False, True), "points": (True, False), "both": (True, True)}
"""What is on the second device: the points, x."""


@dataclass(frozen=True)
class Problem:
    """Points, and x near six of them; `method` sums."""

    data: Tensor
    method: str
    x: Tensor

    @classmethod
    def of(cls, data: Tensor, method: str = "auto") -> Problem:
        start = OptimalDenoiser(data).take(torch.arange(6)).double()
        return cls(data, method, (start + SIGMA * torch.randn(start.shape, generator=seeded(2))).float())

    def denoiser(self, there: bool = False) -> OptimalDenoiser:
        return OptimalDenoiser(self.data.to(DEVICE) if there else self.data, method=self.method)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=seeded(0), dtype=dtype)


def images(count: int) -> Tensor:
    return torch.randint(0, 256, (count, 3, 8, 8), generator=seeded(0), dtype=torch.uint8)


PROBLEMS = {
    "many of three values": Problem.of(normal(2500, 3)),
    "floats": Problem.of(normal(60, 1, 10, 10)),
    "few floats": Problem.of(normal(20, 1, 10, 10)),
    "float64": Problem.of(normal(50, 70, dtype=torch.float64)),
    "bytes": Problem.of(images(30)),
    "screened": Problem.of(images(300), "screened"),
}


def posterior(D: OptimalDenoiser, x: Tensor) -> list[Tensor]:
    return tensors(D.posterior(x, SIGMA)) + tensors(D.posterior(x, 0.02)) + tensors(D.posterior(x.double(), SIGMA))


def gradients(D: OptimalDenoiser, x: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    sigma = torch.full((len(x),), SIGMA, device=x.device, dtype=torch.float64, requires_grad=True)
    post = D.posterior(x, sigma)
    (post.mean.sum() + post.entropy.sum() + post.variance.sum() + post.log_density.sum()).backward()
    assert x.grad is not None
    assert sigma.grad is not None
    tangent = torch.func.jvp(lambda y: D(y, SIGMA), (x.detach(),), (torch.ones_like(x),))[1]
    return [x.grad, sigma.grad, tangent]


def products(D: OptimalDenoiser, x: Tensor) -> list[Tensor]:
    return [D(x, SIGMA), D.score(x, SIGMA), D.weights(x, SIGMA), D.covariance_product(x, SIGMA, torch.ones_like(x))]


def nearest(D: OptimalDenoiser, x: Tensor) -> list[Tensor]:
    index = torch.arange(len(x), device=x.device)
    pairs = D.query(x, SIGMA)[0], index + 1, index, (index + 3) % len(D)
    return [D.nearest(x), *D.neighbours(x, 2), *tensors(leads(D.points, *pairs))]


def certificates(D: OptimalDenoiser, x: Tensor) -> list[Tensor]:
    states = trajectory(D, x, karras(8, sigma_max=3.0))
    return tensors(certify(D, x, 0.3)) + tensors(capture(D, states))


def landings(D: OptimalDenoiser, x: Tensor) -> list[Tensor]:
    on_grid = FlowMap(D, karras(5, sigma_max=3.0))
    found = tensors(FlowMap(D).land(x, SIGMA)) + tensors(on_grid.land(x, SIGMA))
    return [*found, FlowMap(D).flow(x, SIGMA, 0.5), on_grid.flow(x, 3.0, 0.0)]


def samples(D: OptimalDenoiser, x: Tensor) -> list[Tensor]:
    options: dict[str, dict[str, Any]] = {
        "euler": {},
        "heun": {},
        "dpm_solver": {},
        "dpm_solver_pp": {},
        "unipc": {},
        "sde_dpm_solver_pp": {"generator": seeded(5)},
        "consistency": {"generator": seeded(5)},
        "edm_stochastic": {"S_churn": 1.0, "generator": seeded(5)},
        "reverse_sde": {"generator": seeded(5)},
    }
    return [sample(D, x, karras(6, sigma_max=3.0), solver=name, **each) for name, each in options.items()]


def in_the_span(D: OptimalDenoiser, x: Tensor) -> list[Tensor]:
    found = sample_in_span(D, 3 * x, karras(6, sigma_max=5.0), rank=16)
    return [found.x, found.index]


FOLLOWED = certificates, landings, samples
"""Asked of few problems: they ask the same sums many times."""
ASKED: dict[str, Callable[[OptimalDenoiser, Tensor], list[Tensor]]] = {
    each.__name__: each for each in (posterior, gradients, products, nearest, *FOLLOWED, in_the_span)
}
CASES = [(name, asked) for name in PROBLEMS for asked, ask in ASKED.items() if ask not in FOLLOWED or name == "bytes"]


def tensors(result: Any) -> list[Tensor]:
    return [value for value in vars(result).values() if isinstance(value, Tensor)]


@functools.cache
def on_the_cpu(name: str, asked: str) -> list[Tensor]:
    return ASKED[asked](PROBLEMS[name].denoiser(), PROBLEMS[name].x)


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-6, atol=1e-6, equal_nan=True)


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("name", "asked"), CASES)
def test_answers_are_where_x_is_and_those_of_the_cpu(name: str, asked: str, place: str) -> None:
    problem, ask, expected = PROBLEMS[name], ASKED[asked], on_the_cpu(name, asked)
    points_there, x_there = PLACES[place]
    with second_device():
        found = ask(problem.denoiser(points_there), problem.x.to(DEVICE) if x_there else problem.x)
        assert {each.device.type for each in found} == {DEVICE.type if x_there else "cpu"}
        assert_same(found, expected)


@pytest.mark.parametrize("name", PROBLEMS)
def test_what_the_points_hold_is_where_they_are(name: str) -> None:
    problem = PROBLEMS[name]
    D, index = problem.denoiser(), torch.arange(3)
    expected = [D.take(index), D.mean, D.first_copies(), *draw_pairs(D, None, 9, seeded(1))]
    with second_device():
        there = problem.denoiser(there=True)
        assert there.standard_deviation == D.standard_deviation
        for at in (index, index.to(DEVICE)):
            found = [there.take(at), there.mean, there.first_copies(), *draw_pairs(there, None, 9, seeded(1))]
            assert_same(found, expected)
        assert [each.device.type for each in found] == [DEVICE.type, DEVICE.type, "cpu", DEVICE.type, DEVICE.type]
        held_out = draw_pairs(there, problem.data, 9, seeded(1))
        assert_same(list(held_out), expected[-2:])


@pytest.mark.slow
def test_statistics_are_those_of_the_cpu() -> None:
    def asked(D: OptimalDenoiser) -> list[Tensor]:
        levels = torch.tensor([0.3, 2.0], dtype=torch.float64)
        found = tensors(forward_statistics(D, levels, draws=16, derivative=True))
        found += tensors(landing_statistics(D, levels, draws=4))
        for start in ("prior", "data"):
            found += tensors(basins(D, 6, seeded(1), sigma_max=5.0, start=start))
        border = seeking_refining_border(D, draws=16)
        return [*found, torch.tensor([border.sigma, border.low, border.high], dtype=torch.float64)]

    problem = PROBLEMS["few floats"]
    expected = asked(problem.denoiser())
    with second_device():
        found = asked(problem.denoiser(there=True))
        assert_same(found, expected)


def test_two_places_at_once_are_refused() -> None:
    """The second device is no better than a real one."""
    here = torch.ones(3, 3)
    with second_device():
        there = here.to(DEVICE)
        assert there.device == DEVICE
        for mixed in (
            lambda: here + there,
            lambda: here @ there,
            lambda: here[there[0].long()],
            lambda: torch.cat([here, there]),
            lambda: here.index_select(0, there[0].long()),
        ):
            with pytest.raises(RuntimeError, match="expected all tensors to be on the same device"):
                mixed()
        with pytest.raises((RuntimeError, TypeError), match="numpy"):
            there.numpy()
        assert_same([there[torch.tensor([0])], there + torch.tensor(1.0)], [here[:1], here + 1])


@pytest.mark.parametrize(("name", "asked"), CASES)
def test_the_default_device_changes_nothing(name: str, asked: str) -> None:
    """A device on which nothing can be read: what forgets to name its own is noticed at once."""
    problem, expected = PROBLEMS[name], on_the_cpu(name, asked)
    with torch.device("meta"):
        assert_same(ASKED[asked](problem.denoiser(), problem.x), expected)


class Launches(TorchDispatchMode):
    """How many operations were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.slow
def test_a_gpu_is_given_large_blocks() -> None:
    data = torch.randint(256, (60_000, 192), generator=seeded(3), dtype=torch.uint8)
    x, counts = 20 * normal(64, 192), []
    with second_device():
        for device in (torch.device("cpu"), DEVICE):
            D = OptimalDenoiser(data.to(device), method="dense")
            D(x.to(device), 30.0)  # What is made once, made.
            with Launches() as launches:
                D(x.to(device), 30.0)
            counts.append(launches.count)
    assert counts[1] < 0.5 * counts[0]
    assert block_bytes(1000, torch.device("cpu")) == 1000
