"""When a solver's way ends on a point: how near to it D must be for every later output to be it, too.

A step of a solver is a linear map of the state and the denoiser outputs. If all outputs were the data point y, every
state at which D is asked, at a level s, would lie on the line x_s = y + (s/σ)(x − y). On it y's leads over the others
only grow: with a = ‖y − y_j‖, t = 1/s and e the unit vector along y − y_j, the lead is g_j = t a (t a/2 + e·u), u =
(x − y)/σ the same all along the line. An output y + r moves the state off the line by β r, β its coefficient in the
step, so that at level s

    g_j(s) >= g_j(σ) + (t' − t) (g_j(σ)/t + a² t'/2) − t'² a B,     B = Σ |β| ‖r‖,  t = 1/σ,  t' = 1/s

and no lead falls, whatever a, if B² <= 2 g (s/σ) (σ − s)² where g is the smallest lead. Leads that do not fall leave
‖r‖ <= ρ = Σ_j e^{−g_j} ‖y − y_j‖ for the outputs to come, so one condition on ρ and g covers all steps that are left:

    ρ <= limit · √g,    limit = min over the states to come of (σ − s) √(2 s/σ) / Σ |β|

This is proven, in exact arithmetic, for outputs that are posterior means; σ is the level of the step that the state
belongs to. The coefficients are not looked up but measured: each step is run once on unit vectors, so the condition
holds for any linear solver, single or multistep, and a step that is not linear is found out by random vectors.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..process import EDM
from ..randomness import fixed_generator
from ..samplers import Solver, Step

__all__ = ["Line", "line_of"]

_MOST = 64
"""Denoiser calls of a step, at most."""
_SAME = 1e-9


@dataclass(frozen=True)
class Line:
    """What a solver does on a grid.

    Attributes:
        calls: denoiser calls of all steps.
        limits: of every step, from its start on: the limit of ρ/√g; −1 where the way is no line.
        memory: how many outputs of steps before count, too.
    """

    calls: int
    limits: list[float]
    memory: int


def line_of(solver: Solver, levels: list[float]) -> Line | None:
    """The line of a solver that draws no noise; None where its steps are not linear.

    Args:
        levels: the grid, decreasing, the last 0.
    """
    if solver.keeps:
        return None
    limits, calls = [], 0
    for index, (sigma, sigma_next) in enumerate(itertools.pairwise(levels)):
        past = [levels[i] for i in range(index - 1, max(-1, index - 1 - solver.memory), -1)]
        probe = _Probe(solver, sigma, sigma_next, index, len(levels) - 1, past)
        asked = probe.asked()
        if asked is None:
            return None
        calls += len(asked)
        limits.append(min(_limit(sigma, level, coefficients) for level, coefficients in asked))
    # From its start to the end of the grid.
    reversed_limits = itertools.accumulate(reversed(limits), min)
    return Line(calls, list(reversed_limits)[::-1], solver.memory)


def _limit(sigma: float, level: float, coefficients: Tensor) -> float:
    """Of one state: its coefficients are of x first, then of outputs."""
    share, of_outputs = float(coefficients[0]), coefficients[1:]
    size = float(of_outputs.abs().sum())
    on_line = abs(share - level / sigma) <= _SAME and abs(float(of_outputs.sum()) - (1 - level / sigma)) <= _SAME * (
        1 + size
    )
    if not on_line:
        return -1.0
    if level == 0:
        return math.inf  # The end is not asked about any more.
    return (sigma - level) * math.sqrt(2 * level / sigma) / size if size > 0 else -1.0


@dataclass
class _Probe:
    """One step, run on vectors instead of states."""

    solver: Solver
    sigma: float
    sigma_next: float
    index: int
    steps: int
    past: list[float] = field(default_factory=list)

    def asked(self) -> list[tuple[float, Tensor]] | None:
        """(level, coefficients) of every state that D is asked about after the step's start, its end included.

        The number of states is the number of calls, for the end is where the next step starts.
        """
        known = 2 + len(self.past)
        size = known + _MOST
        states = self._run(list(torch.eye(size, dtype=torch.float64, device="cpu")[:, None]))
        draws = torch.randn(size, 1, 8, generator=fixed_generator(), dtype=torch.float64, device="cpu")
        draws *= torch.logspace(-3, 3, 8, dtype=torch.float64, device="cpu")
        again = None if states is None else self._run(list(draws))
        if states is None or again is None or len(states) != len(again):
            return None
        for (level, row), (level_again, combined) in zip(states, again, strict=True):
            expected = row @ draws[:, 0]
            if level != level_again or not torch.allclose(combined, expected, rtol=1e-7, atol=1e-10):
                return None
        return [(level, row[0]) for level, row in states]

    def _run(self, vectors: list[Tensor]) -> list[tuple[float, Tensor]] | None:
        """The states, for these vectors instead of x, D(x), the outputs before, and those to come."""
        states: list[tuple[float, Tensor]] = []
        known = 2 + len(self.past)

        def evaluate(x: Tensor, sigma: float) -> Tensor:
            states.append((float(sigma), x.clone()))
            return vectors[known + len(states) - 1].clone()

        def none() -> Tensor:
            raise RuntimeError("a solver that draws no noise asked for some")

        x, level = self.solver.perturb(vectors[0].clone(), self.sigma, index=self.index, steps=self.steps, noise=none)
        if level != self.sigma or not torch.equal(x, vectors[0]):
            return None
        before = [(sigma, vectors[2 + i].clone()) for i, sigma in enumerate(self.past)]
        step = Step(
            evaluate, x, self.sigma, self.sigma_next, vectors[1].clone(), self.index, self.steps, none,
            EDM(math.inf), before,
        )  # fmt: skip
        states.append((self.sigma_next, self.solver(step)))
        return states
