"""`compare` on a device: the optimum's data lie beside the network where they fit, and the numbers are the CPU's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from second_device import DEVICE, second_device
from torch import Tensor, nn

from neural import teachers
from neural.answers import Compared, Plan, compared
from neural.model import open_model
from neural.named import opened
from neural.teachers import optimum_of
from optimal import OptimalDenoiser, load

PLAN = Plan(on=("data", "trajectory"), sigmas=(0.5, 2.0), draws=16, n=16, steps=(2,), seed=3)


class Shrink(nn.Module):
    """x0_hat of data that lie about 0."""

    def __init__(self) -> None:
        super().__init__()
        self.size = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return x * (self.size**2 / (self.size**2 + sigma.view(-1, 1) ** 2)).to(x)


def silent(_: str) -> None:
    pass


def numbers(found: Compared) -> list[dict[str, Any]]:
    rows = [*found.denoisers, *found.samplers]
    return [{k: v for k, v in row.items() if isinstance(v, float)} for row in rows]


def asked_where(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Where the optimum's points and x are, call by call."""
    places: list[tuple[str, str]] = []
    posterior: Callable[..., Any] = OptimalDenoiser.posterior

    def kept(self: OptimalDenoiser, x: Tensor, sigma: Any) -> Any:
        places.append((self.points.device.type, x.device.type))
        return posterior(self, x, sigma)

    monkeypatch.setattr(OptimalDenoiser, "posterior", kept)
    return places


@pytest.mark.slow
@pytest.mark.parametrize(("most", "place"), [(2**33, DEVICE.type), (1, "cpu")])
def test_the_optimum_lies_beside_the_network_where_it_fits(
    most: int, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load("ring", n=50)
    # Landings are not in question, and take most of the time there.
    here = numbers(compared([open_model(Shrink(), name="net", device="cpu")], data, PLAN, say=silent))
    monkeypatch.setattr(teachers, "_ON_DEVICE", most)
    places = asked_where(monkeypatch)
    with second_device():
        model = open_model(Shrink(), name="net", device=DEVICE)
        assert model.device.type == DEVICE.type
        there = numbers(compared([model], data, PLAN, say=silent))
    assert {points for points, _ in places} == {place}
    assert {x for _, x in places} == {place}
    assert len(here) == len(there) > 4
    for a, b in zip(here, there, strict=True):
        assert b == pytest.approx(a, rel=1e-4, abs=1e-5, nan_ok=True)


def test_the_optimum_by_name_is_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    data = load("five-deltas")
    with second_device():
        (model,), _, _ = opened(["optimum"], data, device=str(DEVICE), say=silent)
        assert isinstance(model.denoiser, OptimalDenoiser)
        assert model.denoiser.points.device.type == DEVICE.type
        x = torch.linspace(-3, 3, 7).view(-1, 1)
        torch.testing.assert_close(model(x, 1.0), OptimalDenoiser(data)(x, 1.0))
    for kind in ("cpu", "mps"):
        assert optimum_of(data, kind).points.device.type == "cpu"
