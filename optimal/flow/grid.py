"""The flow map on a grid: the steps of a solver composed from x's level to 0 (Eq. 55).

A row between two levels starts with a step to the next level below. Rows at different levels are followed together: in
an interval of the grid each level has a step of its own, and what these steps ask the denoiser is asked in one call.
A step is a pure function of the denoiser's answers, so it is run until it asks for one that is not there yet, and run
again from its start when it is.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..denoiser import Denoiser, OptimalDenoiser
from ..process import EDM
from ..query import Levels, per_row
from ..samplers import Solver, Step, solver_of
from ..schedule import grid, on_grid
from .landing import Called, Landing

__all__ = ["GridFlow"]


class GridFlow:
    """The discrete flow of any denoiser; a `Way`.

    Args:
        D: the denoiser.
        sigmas: (n + 1,) decreasing noise levels, the last 0.
        solver, options: as for `FlowMap`.

    Raises:
        ValueError: a bad grid, solver or option; a solver whose step depends on earlier steps or draws noise.
    """

    def __init__(
        self, D: Denoiser, sigmas: Tensor | Sequence[float], solver: str | Solver | None, options: dict[str, Any]
    ):
        self.D, self.sigmas = D, grid(sigmas)
        self.solver = solver_of("heun" if solver is None else solver, options)
        name = type(self.solver).__name__
        if self.solver.memory or self.solver.keeps:
            raise ValueError(f"a flow map composes single steps (Eq. 55), {name} builds on earlier ones")
        if self.solver.draws(max(len(self.sigmas) - 1, 2)):
            raise ValueError(f"a flow map is a function of x, {name} draws noise")
        self.solver.check(self.sigmas.tolist())

    def levels(self, x: Tensor, sigma: Levels) -> Tensor:
        return on_grid(self.sigmas, per_row("sigma", sigma, len(x), x.device), len(x))

    def ends(self, sigma_end: Levels, x: Tensor, levels: Tensor) -> Tensor:
        if torch.as_tensor(sigma_end, device="cpu").ndim:
            raise ValueError("with a grid, sigma_end is one level for all rows")
        asked = per_row("sigma_end", sigma_end, len(x), x.device)
        usable = (asked >= 0) & (asked <= levels)
        if not usable.all():
            raise ValueError(
                f"on a grid the flow map goes down only, sigma_end must lie between 0 and sigma, got "
                f"{float(asked[~usable][0]):g} from {float(levels[~usable][0]):g}: optimal.samplers.invert takes its "
                f"steps up"
            )
        ends = on_grid(self.sigmas, asked, len(x))
        if not torch.isin(ends, self.sigmas.to(ends)).all():
            raise ValueError(f"sigma_end must be a level of the grid, got {float(ends[0]):g}")
        return ends

    def jump(self, x: Tensor, levels: Tensor) -> Tensor:
        return self._steps(x, levels, 0.0, _silent)[0]

    def land(self, x: Tensor, levels: Tensor, called: Called) -> Landing:
        landed, nfe = self._steps(x, levels, 0.0, called)
        index = self.D.nearest(landed) if isinstance(self.D, OptimalDenoiser) else torch.full_like(nfe, -1)
        return Landing(landed, index, nfe, torch.full_like(levels, torch.nan))

    def flow(self, x: Tensor, levels: Tensor, ends: Tensor) -> Tensor:
        return self._steps(x, levels, float(ends[0]) if len(ends) else 0.0, _silent)[0]

    def _steps(self, x: Tensor, levels: Tensor, end: float, called: Called) -> tuple[Tensor, Tensor]:
        """The solver's steps from each row's level to `end`, and the denoiser calls that they took, (B,)."""
        state, level = x.detach().to(torch.float64, copy=True), levels.clone()
        nfe = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        for index, (high, low) in enumerate(itertools.pairwise(self.sigmas.tolist())):
            if low < end:
                break
            # All rows at `high`, and those of each level between it and `low`.
            starts = level[(level > low) & (level <= high)].unique().tolist()
            groups = [(level == sigma).nonzero().squeeze(1) for sigma in starts]
            steps = [
                _Pending(self.solver, state[rows], sigma, low, index, len(self.sigmas) - 1)
                for rows, sigma in zip(groups, starts, strict=True)
            ]
            while asked := [step for step in steps if not step.done]:
                self._answer(asked, x.dtype, called)
            for rows, step in zip(groups, steps, strict=True):
                state[rows], level[rows] = step.after, low
                nfe[rows] += len(step.answers)
        return state.to(x.dtype), nfe

    def _answer(self, asked: list[_Pending], dtype: torch.dtype, called: Called) -> None:
        """One call of the denoiser, in the precision of the start, for all steps that wait for it."""
        x = torch.cat([step.x for step in asked])
        levels = [torch.full((len(step.x),), step.sigma, dtype=torch.float64, device=x.device) for step in asked]
        sigma = levels[0][0] if len(asked) == 1 else torch.cat(levels)
        called()
        with torch.no_grad():
            # Copies: a denoiser may write into its argument, or answer every call in the same buffer.
            out = self.D(x.to(dtype, copy=True), sigma)
        if out.shape != x.shape:
            raise ValueError(f"a denoiser must return the shape of x, {tuple(x.shape)}, got {tuple(out.shape)}")
        out = out.to(torch.float64, copy=True)
        for step, answer in zip(asked, out.split([len(step.x) for step in asked]), strict=True):
            step.go_on(answer)


class _Asked(Exception):
    """A step asks for the denoiser at (x, sigma)."""

    def __init__(self, x: Tensor, sigma: float):
        self.x, self.sigma = x, sigma


class _Pending:
    """One step of rows at one level, on its way.

    Attributes:
        x, sigma: what it asks the denoiser next.
        answers: the denoiser's outputs so far.
        done: whether the end of the step is reached.
        after: (rows, *event), the state there; until then, that at the start.
    """

    def __init__(self, solver: Solver, x: Tensor, sigma: float, sigma_next: float, index: int, steps: int):
        self._solver, self._start, self._ends, self._place = solver, x, (sigma, sigma_next), (index, steps)
        self.x, self.sigma = x, sigma
        self.answers: list[Tensor] = []
        self.done, self.after = False, x

    def go_on(self, answer: Tensor) -> None:
        """Take the denoiser's output and go on to the next question, or to the end."""
        self.answers.append(answer)
        # Copies: a solver that writes into what it is given must not change what the next run starts from.
        first, *later = [output.clone() for output in self.answers]
        known = iter(later)

        def evaluate(x: Tensor, sigma: float) -> Tensor:
            for output in known:
                return output
            raise _Asked(x, sigma)

        step = Step(evaluate, self._start.clone(), *self._ends, first, *self._place, _no_noise, EDM(math.inf))
        try:
            self.after, self.done = self._solver(step), True
        except _Asked as asked:
            self.x, self.sigma = asked.x, asked.sigma


def _no_noise() -> Tensor:
    raise AssertionError("a flow map draws no noise")


def _silent() -> None:
    """Nobody is told of the calls."""
