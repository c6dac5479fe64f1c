"""Fewer calls than extrapolation allows: the numbers of a solver, found on exact landings by gradients.

`Calibrated` has, beside its levels, a gain a level and a share for every earlier value of r: about n²/2 numbers for n
calls. They are moved by Adam to where the expected share of wrong landings is least,

    E[1 − w_k(x, σ)],   k where the exact flow ends, x and σ the last state above 0,

through the optimum itself. It begins at the exponential integrator on the grid that `landings_grid` finds for it. The
best state is kept, by starts that no gradient has seen; the first grid has, so what it reaches is judged on others.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor
from tqdm import tqdm

from ..numbers import require_whole
from ..randomness import stream
from ..samplers.calibrated import Calibrated
from ..samplers.gaussian_exponential import GaussianExponential, adams
from ..samplers.gaussian_start import Linear, carried
from .coordinates import linear_on
from .landings import Starts
from .search import landings_grid, log_weight_of

__all__ = ["calibrated"]

_RATE = 0.01
_BATCH = 256
_EVERY = 100
"""Steps between looks at the starts that are kept out."""
_KEPT = 0.125
"""Share of the starts that are kept out."""
_DESIGN = 512
"""Starts on which the first grid is found."""


def calibrated(
    starts: Starts,
    n: int,
    gaussian: Linear,
    *,
    order: int = 3,
    steps: int = 1500,
    seed: int = 0,
    progress: bool = False,
) -> Calibrated:
    """The solver of n calls with the fewest wrong landings on these starts, as far as it was found.

    Args:
        starts: from `starts_of`, thousands of them, with another purpose or seed than those it is judged on.
        n: denoiser calls, at least 1.
        gaussian: the linear part, `Wiener(starts.D)`.
        order: how many values of r a step uses, at most.
        steps: of Adam.
        seed: of the order in which the starts are used.
        progress: whether progress bars are drawn on stderr.

    Returns:
        The solver; its grid is `[*solver.levels, 0]`, and `solver.start` takes noise to its first level.

    Raises:
        ValueError: n, order or steps < 1, fewer than 64 starts.
    """
    if len(starts) < 64:
        raise ValueError(f"calibration takes at least 64 starts, got {len(starts)}")
    n, steps = require_whole("n", n), require_whole("steps", steps)
    first = GaussianExponential(gaussian, order)
    levels = landings_grid(starts.first(_DESIGN), n, solver=first, progress=progress)[:-1]
    # Whatever mode the caller is in: it takes gradients, and no tensor that was made without them.
    with torch.inference_mode(False), torch.enable_grad():
        own = replace(starts, x=starts.x.clone())
        run = _Run(gaussian, linear_on(starts.D, starts.span, gaussian), levels.log(), order)
        return _found(run, own, steps, seed, progress)


def _found(run: _Run, starts: Starts, steps: int, seed: int, progress: bool) -> Calibrated:
    """The best state of a run on starts that are kept out of it."""
    kept = max(32, int(_KEPT * len(starts)))
    shown, judged = starts.part(slice(kept, None)), starts.first(kept)
    optimiser = torch.optim.Adam(run.numbers, lr=_RATE)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(steps, 1))
    source = stream(seed, "design", 1)
    best, solver = math.inf, run.solver()
    with tqdm(total=steps, desc="calibration", unit="step", leave=False, disable=not progress) as bar:
        for step in range(steps + 1):
            if step % _EVERY == 0 or step == steps:
                with torch.no_grad():
                    share = float(torch.cat([run.wrong(part) for part in judged.split(_BATCH)]).mean())
                bar.set_postfix(wrong=f"{share:.3f}")
                if share < best and run.descends_from(starts.sigma):
                    best, solver = share, run.solver()
            if step == steps:
                break
            rows = torch.randint(len(shown), (min(_BATCH, len(shown)),), generator=source)
            loss = run.wrong(shown.part(rows)).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            rates.step()
            bar.update()
    return solver


class _Run:
    """The solver with its numbers as tensors.

    Args:
        given: the linear part, as the solver is to have it.
        gaussian: the same, in the coordinates of the starts.

    Attributes:
        numbers: (n,) log levels, (n,) log gains, (n − 1, order) shares.
    """

    def __init__(self, given: Linear, gaussian: Linear, logs: Tensor, order: int):
        n = len(logs)
        self.given, self.gaussian, self.order = given, gaussian, order
        zeros = (torch.zeros(size, dtype=torch.float64) for size in ((n,), (n - 1, order)))
        self.numbers = [part.requires_grad_() for part in (logs.clone(), *zeros)]

    def solver(self) -> Calibrated:
        """With the numbers as they are now."""
        logs, gains, shares = (part.detach() for part in self.numbers)
        rows = tuple(tuple(row[: place + 1].tolist()) for place, row in enumerate(shares))
        return Calibrated(self.given, tuple(logs.exp().tolist()), tuple(gains.exp().tolist()), rows)

    def descends_from(self, sigma: float) -> bool:
        """Whether the levels are a grid's still, below sigma."""
        logs = self.numbers[0].detach()
        return bool((logs.diff() < 0).all()) and float(logs[0]) <= math.log(sigma)

    def wrong(self, starts: Starts) -> Tensor:
        """1 − w_k at the last state above 0, (B,), with its graph."""
        logs, gains, shares = self.numbers
        log, x = math.log(starts.sigma), starts.x
        residuals: list[tuple[Tensor, Tensor]] = []
        for place, end in enumerate(logs):
            moved = carried(self.gaussian, x, log, end, gains[place].exp())
            known = [level for level, _ in residuals]
            for at, (_, earlier) in enumerate(residuals):
                moved = moved + self.gaussian.spectral(
                    earlier,
                    lambda values, at=at, log=log, end=end, place=place, known=known: (
                        adams(values, end, known, at) + shares[place - 1, at] * (log - end)
                    ),
                )
            x, log = moved, end
            if place < len(logs) - 1:
                residual = starts.D(x, end.exp()) - self.gaussian(x, end.exp())
                residuals = [(end, residual), *residuals][: self.order]
        sigma = logs[-1].exp()
        return 1 - log_weight_of(starts, x, sigma, starts.D.posterior(x, sigma).log_density).exp()
