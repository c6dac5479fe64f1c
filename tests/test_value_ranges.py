"""value_range= means the same in every adapter: an exact network of images in [0, 1] or of bytes has no gap."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import test_adapters as spoken
import torch
from torch import Tensor

from neural import agreement, from_ddpm, from_edm, from_edm_raw, from_flow, from_prediction, from_times, from_unet
from neural.adapters import Adapted
from optimal import OptimalDenoiser, karras
from optimal.process import VP

DATA, KEPT = spoken.DATA, spoken.KEPT
D = OptimalDenoiser(DATA)
LEVELS = (0.02, 0.5, 3.0)


def raw(theirs: OptimalDenoiser, size: float = 0.5) -> Callable[[Tensor, Tensor], Tensor]:
    """F of EDM's preconditioning."""

    def net(given: Tensor, c: Tensor) -> Tensor:
        sigma = spoken.wide((4 * c).exp(), given)
        total = (sigma**2 + size**2).sqrt()
        x = given * total
        return (theirs(x, sigma.flatten()) - size**2 / total**2 * x) * total / (size * sigma)

    return net


def timed(theirs: OptimalDenoiser) -> Callable[[Tensor, Tensor], Tensor]:
    def net(x_t: Tensor, t: Tensor) -> Tensor:
        signal, noise = schedule(t)
        return theirs(x_t / spoken.wide(signal, x_t), noise / signal)

    return net


def schedule(t: Tensor) -> tuple[Tensor, Tensor]:
    return 1 - 0.99 * t, t + 1e-3


MAKERS: dict[str, Callable[[OptimalDenoiser, Any], Adapted]] = {
    "edm": lambda theirs, where: from_edm(theirs, value_range=where),
    "raw": lambda theirs, where: from_edm_raw(raw(theirs), value_range=where),
    "ddpm": lambda _, where: from_ddpm(spoken.on_table("eps"), KEPT, value_range=where),
    "ddpm, score": lambda _, where: from_ddpm(spoken.on_table("score"), KEPT, "score", value_range=where),
    "prediction": lambda _, where: from_prediction(
        spoken.on_process("v", VP(), 1.0), "v", process=VP(), value_range=where
    ),
    "flow": lambda _, where: from_flow(spoken.flow(1, 1000.0), data_at=1, time_scale=1000.0, value_range=where),
    "times": lambda theirs, where: from_times(timed(theirs), schedule, value_range=where),
}


@pytest.mark.parametrize("where", [(0, 1), (0, 255), (-1, 1), (-3.0, 1.0)])
@pytest.mark.parametrize("name", MAKERS)
def test_an_exact_network_of_other_values_has_no_gap(
    name: str, where: tuple[float, float], normal: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    low, high = where
    theirs = OptimalDenoiser(low + (DATA + 1) / 2 * (high - low))
    monkeypatch.setattr(spoken, "D", theirs)
    F = MAKERS[name](theirs, where)
    levels = [level for level in LEVELS if F.sigma_min <= level <= F.sigma_max]
    assert levels
    for level in levels:
        x = DATA + level * normal(*DATA.shape)
        # What the table's and the process's own units round, in float32 of x_t where they are large.
        assert (F(x, level) - D(x, level)).abs().max() < 2e-5
        if where != (-1, 1):
            assert (MAKERS[name](theirs, (-1, 1))(x, level) - D(x, level)).abs().max() > 1e-2
    share = agreement(F, D, levels, draws=64).gap_share
    assert float(share.max()) < 1e-8


def test_levels_grids_and_cuts_are_in_the_right_values() -> None:
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDIMScheduler(clip_sample=True)

    def net(x_t: Tensor, step: Tensor) -> Tensor:
        return 0 * x_t - 30.0

    ours, theirs = from_unet(net, scheduler), from_unet(net, scheduler, value_range=(0, 1))
    assert (theirs.sigma_min, theirs.sigma_max) == pytest.approx((2 * ours.sigma_min, 2 * ours.sigma_max))
    assert ours.grid is not None
    assert theirs.grid is not None
    torch.testing.assert_close(theirs.grid(5), 2 * ours.grid(5))
    x = torch.zeros(1, 1, 2, 2)
    # The scheduler cuts the network's images at ±1: ours are (±1 − ½)/½.
    assert theirs(x, 50.0).unique().tolist() == [1.0]
    assert from_unet(lambda x_t, step: 0 * x_t + 30, scheduler, value_range=(0, 1))(x, 50.0).unique().tolist() == [-3.0]
    cut = from_unet(lambda x_t, step: 0 * x_t + 30, scheduler, value_range=(0, 1), clip=1.0)
    assert cut(x, 50.0).unique().tolist() == [-1.0]
    for again in (copy.deepcopy(cut), theirs.of_values((0, 255)).of_values((0, 1))):
        assert (again.sigma_min, again.sigma_max) == pytest.approx((theirs.sigma_min, theirs.sigma_max))


def test_a_consistency_function_is_cut_in_its_own_values_before_it_is_mixed() -> None:
    diffusers = pytest.importorskip("diffusers")
    x = torch.full((1, 1, 2, 2), 7.0)
    found = [
        from_unet(lambda x_t, step: 0 * x_t + 30, diffusers.LCMScheduler(**said), value_range=(0, 1), **given)(x, 20.0)
        for said, given in (
            ({"clip_sample": True}, {}),
            ({}, {"clip": (-3.0, 1.0)}),
            ({}, {"clip": (-1.0, 1.0)}),
        )
    ]
    torch.testing.assert_close(found[0], found[1])
    assert float((found[2] - found[1]).abs().max()) > 1


def test_it_can_be_pickled() -> None:
    F = from_edm(torch.nn.Identity(), value_range=(0, 1))
    assert pickle.loads(pickle.dumps(F)).values == (0.5, 0.5)


@pytest.mark.parametrize("wrong", [(1, 0), (0, 0), 3, ("a", "b"), (0, float("inf")), (0, 1, 2)])
@pytest.mark.parametrize("name", MAKERS)
def test_what_is_no_range_is_refused(name: str, wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"value_range must be \(low, high\), two rising numbers, got"):
        MAKERS[name](D, wrong)


def test_a_sampler_ends_on_the_data(normal: Callable[..., Tensor]) -> None:
    from optimal import sample

    theirs = OptimalDenoiser((DATA + 1) / 2)
    x = 80 * normal(8, *D.event)
    ends = [sample(F, x, karras(18), solver="heun") for F in (from_edm(theirs, value_range=(0, 1)), D)]
    torch.testing.assert_close(*ends, atol=1e-3, rtol=0)
