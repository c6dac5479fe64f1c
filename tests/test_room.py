"""What does not fit into memory is refused before any work, by what it needs."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from neural.config import Network, Optimisation
from neural.networks import build
from neural.presets import PRESETS
from neural.report.plan import Effort, Plan, seconds_of
from neural.room import held_by_a_row, require_room_for_a_batch
from neural.run import fit
from optimal import OptimalDenoiser, forward_statistics, load, seeking_refining_border
from optimal.devices import main_memory, require_room
from optimal.theories import estimate_errors, nearest_proposal

FIVE = OptimalDenoiser(load("five-deltas"))
HUGE = 10**12


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of a megabyte."""
    monkeypatch.setattr("optimal.devices.main_memory", lambda: 2**20)


def test_what_fits_exactly_is_taken(memory: None) -> None:
    require_room("n", 2**18)
    require_room("n", 2**8, 2**10)
    with pytest.raises(ValueError, match="n must be at most 262,144, as many as fit into this machine's memory, got 2"):
        require_room("n", 2**18 + 1)
    with pytest.raises(ValueError, match="n must be at most 256, as many of 1,024 values as fit into this"):
        require_room("n", 2**8 + 1, 2**10)


def test_a_gpu_has_its_own(memory: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=2**30))
    require_room("batch", 2**28, device=torch.device("cuda", 0))
    with pytest.raises(ValueError, match="batch must be at most 268,435,456, as many as fit into the GPU's memory"):
        require_room("batch", 2**28 + 1, device=torch.device("cuda", 0))


def test_a_machine_that_does_not_say_takes_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optimal.devices.main_memory", lambda: None)
    require_room("n", HUGE, HUGE)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: nearest_proposal(FIVE, k=2, n=10**9 * 10**3), "n"),
        (lambda: estimate_errors(FIVE, lambda draw: FIVE, 1.0, n=HUGE), "n"),
        (lambda: seeking_refining_border(FIVE, draws=HUGE), "draws"),
        (lambda: forward_statistics(FIVE, [1.0], draws=HUGE), "draws"),
        (lambda: seconds_of([], FIVE, Plan(effort=Effort(draws=HUGE))), "draws"),
        (lambda: seconds_of([], FIVE, Plan(effort=Effort(samples=HUGE))), "n"),
        (lambda: Plan(steps=HUGE), "steps"),
    ],
)
def test_the_library_refuses_too(call: Any, name: str) -> None:
    assert main_memory() is not None
    with pytest.raises(ValueError, match=rf"^{name} must be at most [\d,]+, as many.* fit into this machine's memory"):
        call()


def test_a_proposal_holds_the_points_that_it_reads(memory: None) -> None:
    """Of one value each, in float64 beside a uniform number, all at once: not the numbers alone."""
    assert len(FIVE.event) == 1
    nearest_proposal(FIVE, k=2, n=2**18 // 6)
    with pytest.raises(ValueError, match="n must be at most 43,690"):
        nearest_proposal(FIVE, k=2, n=2**17)


def test_a_row_holds_what_every_layer_gives() -> None:
    """Of a net of no blocks; outputs of layers, which autograd keeps, are counted by its own hooks."""
    event, width = (3,), 16
    model = build(Network(kind="mlp", width=width, depth=2), event, 1.0)
    saved: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        model(torch.zeros(64, *event), 1.0).sum()
    weights = sum(p.numel() for p in model.parameters())
    kept = (sum(saved) - weights) / 64
    assert 0.3 < held_by_a_row(model, event) / kept < 3


def test_parts_of_a_batch_are_held_one_at_a_time(memory: None) -> None:
    model, event = build(Network(kind="mlp", width=8, depth=0), (1,), 1.0), (1,)
    most = 2**18 // held_by_a_row(model, event)
    options = Optimisation(batch=2 * most)
    with pytest.raises(ValueError, match=f"batch must be at most {most:,}, as many of"):
        require_room_for_a_batch(model, event, options, torch.device("cpu"))
    require_room_for_a_batch(model, event, dataclasses.replace(options, accumulate=4), torch.device("cpu"))


def test_a_training_is_refused_before_its_first_step(memory: None) -> None:
    toy = PRESETS["toy"]
    config = dataclasses.replace(toy, optimisation=Optimisation(batch=10**6, steps=1))
    with pytest.raises(ValueError, match="batch must be at most"):
        fit(config, load("five-deltas"), None, device="cpu")
