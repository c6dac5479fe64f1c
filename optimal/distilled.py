"""The optima of the other distillations: progressive, knowledge, multi-step knowledge (section C of the paper).

Teacher and student are both optimal here: the teacher is the denoiser D itself, the student whatever minimises the
loss. Each loss regresses on a target that is a function of what the student is given, so that its minimum is that
target, or its average where several inputs are the same to the student.

Progressive (Eq. 38–40). One DDIM step of the student, x̂ + (σ'/σ)(x − x̂), is to do what two steps of its teacher do,
or, unrolled down to D, what K = 2^stage steps of D do over the levels σ_0 > σ_1 > … > σ_K. Solving Eq. 40 for x̂,

    x̂ = (x_K − (σ_K/σ_0) x)/(1 − σ_K/σ_0) = Σ_i a_i D_i / Σ_i a_i,    a_i = 1/σ_{i+1} − 1/σ_i,    D_i = D(x_i, σ_i)

a weighted mean of the teacher's outputs on the way: the second form cancels nothing, stays in the convex hull of the
data, and is finite where the first is 0/0. At σ_K = 0 the last weight is infinite, and x̂ = x_K (the text's s_{t_{n−2}}
= 0); at equal levels all weights are 0, and the limit is D(x, σ). So stage 0 is D, and as the stage grows the student
goes from the posterior mean to the flow map on the teacher's grid, which it is as soon as its step reaches 0.

Knowledge (Eq. 41). x̂ at (x, t_N) is where the teacher's N steps take x: the flow map, at that one noise level.

Multi-step knowledge (Eq. 42). Trained also at the points that its own DDIM steps reach from x_N ~ p_{t_N}. With r =
σ/σ_N these lie on the straight line from x_N to its end, whatever the steps in between,

    x = r x_N + (1 − r) f(x_N),    target f(x_N)                                                                (*)

so the optimum at (x, σ) is E[f(x_N) | x], over those x_N whose line passes x. In one dimension f is monotone and there
is at most one. In more, we know of no proof and have met no x with two; what is returned solves (*). Off these lines
the loss says nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Num
from torch import Tensor

from .denoiser import Denoiser, OptimalDenoiser
from .flow import FlowMap
from .samplers import Solver
from .schedule import grid, on_grid

__all__ = [
    "KnowledgeOptimum",
    "MultistepKnowledgeOptimum",
    "ProgressiveOptimum",
    "ddim_target",
    "knowledge_optimum",
    "multistep_knowledge_optimum",
    "progressive_optimum",
]

_CHAIN = 2
"""Ends that are tried as what the last one tried led to; then come the data points nearest to x."""
_CANDIDATES = 32
"""Data points that are tried. On digits the end was among the 19 nearest for 64 of 64 starts, at every σ."""
_EQUAL = 1e-5
"""Ends closer than this, in units of the data's standard deviation times √dim, are the same end."""


def ddim_target(D: Denoiser, x: Num[Tensor, "B *event"], levels: Tensor | Sequence[float]) -> Float[Tensor, "B *event"]:
    """The x̂ with which one DDIM step from levels[0] to levels[-1] does what D does in K (Eq. 40 for K = 2).

    Args:
        D: the teacher.
        x: (B, *event) at noise level levels[0].
        levels: (K + 1,) or (K + 1, B), K >= 1, not increasing, positive but for the last, which may be 0. Equal levels
            are steps that stand still.

    Returns:
        (B, *event), like x, with gradients only if D gives them; finite in all these cases.

    Raises:
        ValueError: levels of another shape, increasing, negative, or 0 before the last.

    Example:
        >>> D = OptimalDenoiser(torch.tensor([[-1.0], [1.0]]))
        >>> x = torch.tensor([[0.5]])
        >>> ddim_target(D, x, [1.0, 1.0, 1.0]) == D(x, 1.0), ddim_target(D, x, [1.0, 0.5, 0.0])
        (tensor([[True]]), tensor([[0.9583]]))
    """
    steps = torch.as_tensor(levels, dtype=torch.float64, device=x.device).detach()
    if steps.ndim not in (1, 2) or len(steps) < 2 or (steps.ndim == 2 and steps.shape[1] != len(x)):
        raise ValueError(f"levels must have shape (K + 1,) or (K + 1, B), got {tuple(steps.shape)} with B = {len(x)}")
    steps = (steps[:, None] if steps.ndim == 1 else steps).expand(-1, len(x))
    if not ((steps[:-1] > 0).all() and (steps[-1] >= 0).all() and (steps.diff(dim=0) <= 0).all()):
        raise ValueError("levels must not increase, and be positive but for the last, which may be 0")
    event = (-1, *[1] * (x.ndim - 1))
    state, target = x.double(), torch.zeros_like(x, dtype=torch.float64)
    mass = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for i, (level, following) in enumerate(itertools.pairwise(steps)):
        denoised = D(state.to(x.dtype), level).double()
        weight = 1 / following - 1 / level
        mass = mass + weight
        share = torch.where(following == 0, 1.0, torch.where(mass > 0, weight / mass, float(i == 0)))
        target = target + share.view(event) * (denoised - target)
        state = denoised + (following / level).view(event) * (state - denoised)
    return target.to(x.dtype)


def progressive_optimum(D: Denoiser, sigmas: Tensor | Sequence[float], stage: int) -> ProgressiveOptimum:
    """The optimal student of `stage` progressive distillations of D's DDIM sampler on the grid (Eq. 38–40).

    One of its DDIM steps does 2^stage of the teacher's: `sample(student, x, student.sigmas, solver="euler")` is
    `sample(D, x, sigmas, solver="euler")` in 2^stage times fewer calls.

    Args:
        D: the teacher, any denoiser.
        sigmas: (n + 1,) its grid.
        stage: how often distilled; 0 is D itself. Where fewer than 2^stage steps are left, the student's step ends at
            0.

    Raises:
        ValueError: a bad grid, or a stage that is negative or no whole number.

    Example:
        >>> from optimal import OptimalDenoiser, karras, progressive_optimum, sample
        >>> D = OptimalDenoiser(torch.tensor([[-1.0], [1.0]]))
        >>> student = progressive_optimum(D, karras(16), stage=3)
        >>> x = torch.tensor([[20.0], [-3.0]], dtype=torch.float64)
        >>> len(student.sigmas) - 1, sample(student, x, student.sigmas, solver="euler").tolist()
        (2, [[1.0], [-1.0]])
    """
    return ProgressiveOptimum(D, grid(sigmas), stage)


def knowledge_optimum(
    D: Denoiser, sigmas: float | Tensor | Sequence[float], solver: str | Solver | None = None, **options: Any
) -> KnowledgeOptimum:
    """The optimal student of knowledge distillation: the flow map at σ_N, the one level it is trained at (Eq. 41).

    Args:
        D: the teacher.
        sigmas: (n + 1,) the grid of the teacher's sampler; or σ_N alone, a float, for the exact flow of an
            `OptimalDenoiser`.
        solver, options: of the teacher's sampler, as for `FlowMap`.

    Raises:
        ValueError: as for `FlowMap`; σ_N not positive.

    Example:
        >>> from optimal import OptimalDenoiser, knowledge_optimum
        >>> student = knowledge_optimum(OptimalDenoiser(torch.tensor([[-1.0], [1.0]])), 80.0)
        >>> student(torch.tensor([[20.0], [-3.0]]), 80.0).tolist()
        [[1.0], [-1.0]]
    """
    return KnowledgeOptimum(*_teacher(D, sigmas, solver, options))


def multistep_knowledge_optimum(
    D: OptimalDenoiser, sigmas: float | Tensor | Sequence[float], solver: str | Solver | None = None, **options: Any
) -> MultistepKnowledgeOptimum:
    """The optimal student of multi-step knowledge distillation, on its own intermediate points (Eq. 42).

    Its DDIM sampler, with any number of steps, ends where the teacher does in one jump.

    Args:
        D: the teacher.
        sigmas, solver, options: as for `knowledge_optimum`. A grid must be fine enough to end on the data: the search
            for the end, at intermediate levels, is among the data points.

    Raises:
        ValueError: as for `knowledge_optimum`; D not an `OptimalDenoiser`.

    Example:
        >>> from optimal import OptimalDenoiser, karras, multistep_knowledge_optimum, sample
        >>> student = multistep_knowledge_optimum(OptimalDenoiser(torch.tensor([[-1.0], [1.0]])), 80.0)
        >>> sample(student, torch.tensor([[20.0], [-3.0]]), karras(3), solver="euler").tolist()
        [[1.0], [-1.0]]
    """
    if not isinstance(D, OptimalDenoiser):
        raise ValueError(f"the search for ends among the data needs an OptimalDenoiser, got {type(D).__name__}")
    return MultistepKnowledgeOptimum(*_teacher(D, sigmas, solver, options))


class ProgressiveOptimum:
    """See `progressive_optimum`. A `Denoiser`, at every σ of the teacher's range.

    Attributes:
        sigmas: the student's own grid: every 2^stage-th level of the teacher's, and 0.
    """

    def __init__(self, D: Denoiser, teacher_sigmas: Tensor, stage: int):
        if not hasattr(stage, "__index__") or stage < 0:
            raise ValueError(f"stage must be a whole number from 0 on, got {stage!r}")
        self.D, self.stage = D, stage
        self._teacher = teacher_sigmas
        self.stride = min(2**stage, len(teacher_sigmas) - 1)
        self.sigmas = torch.cat([teacher_sigmas[:-1][:: self.stride], teacher_sigmas[-1:]])

    def __repr__(self) -> str:
        return f"ProgressiveOptimum({self.D!r}, {len(self._teacher) - 1} steps, stage={self.stage})"

    def __call__(self, x: Num[Tensor, "B *event"], sigma: float | Tensor) -> Float[Tensor, "B *event"]:
        """x̂, (B, *event). A σ between levels starts with a step to the next level below.

        Args:
            x: (B, *event) noisy points.
            sigma: float, () or (B,), on the grid's range, or 0, where x̂ = x.

        Raises:
            ValueError: sigma out of range or of another shape.
        """
        levels = on_grid(self._teacher, sigma, len(x)).to(x.device)
        teacher = self._teacher.to(x.device)
        # Of each row: the first level below its own, and how many steps the student's one step stands for.
        below = (teacher >= levels[:, None]).sum(1)
        steps = torch.minimum(len(teacher) - below, torch.tensor(self.stride, device=x.device))
        out = x.detach().clone()
        for count in steps[levels > 0].unique().tolist():
            rows = ((steps == count) & (levels > 0)).nonzero().squeeze(1)
            following = teacher[below[rows] + torch.arange(count, device=x.device)[:, None]]
            with torch.no_grad():
                out[rows] = ddim_target(self.D, out[rows], torch.cat([levels[rows][None], following]))
        return out


class KnowledgeOptimum:
    """See `knowledge_optimum`. A `Denoiser`, at σ_N only.

    Attributes:
        sigma_max: σ_N.
        teacher: its `FlowMap`.
    """

    def __init__(self, teacher: FlowMap, sigma_max: float):
        self.teacher, self.sigma_max = teacher, sigma_max
        self._level = torch.tensor([sigma_max, 0.0], dtype=torch.float64)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.teacher!r}, sigma_max={self.sigma_max:g})"

    def __call__(self, x: Num[Tensor, "B *event"], sigma: float | Tensor) -> Float[Tensor, "B *event"]:
        """f(x, σ_N), (B, *event).

        Raises:
            ValueError: a sigma other than σ_N (0, where x̂ = x, is let pass).
        """
        return self.teacher(x, on_grid(self._level, sigma, len(x)))


class MultistepKnowledgeOptimum:
    """See `multistep_knowledge_optimum`. A `Denoiser`, at every σ from 0 to σ_N.

    Attributes:
        sigma_max: σ_N.
        teacher: its `FlowMap`.
    """

    def __init__(self, teacher: FlowMap, sigma_max: float):
        assert isinstance(teacher.D, OptimalDenoiser)
        self.teacher, self.sigma_max, self._data = teacher, sigma_max, teacher.D
        self._equal = _EQUAL * (self._data.standard_deviation or 1.0) * self._data._points.dim**0.5

    def __repr__(self) -> str:
        return f"MultistepKnowledgeOptimum({self.teacher!r}, sigma_max={self.sigma_max:g})"

    def __call__(self, x: Num[Tensor, "B *event"], sigma: float | Tensor) -> Float[Tensor, "B *event"]:
        """x̂, (B, *event): f(x_N) of the x_N whose line passes x, see `reached`; off these lines f(x, σ).

        Raises:
            ValueError: sigma above σ_N, negative or of another shape, or for a teacher on a grid below its last level
                above 0.
        """
        return self._search(x, sigma)[0]

    def reached(self, x: Num[Tensor, "B *event"], sigma: float | Tensor) -> Tensor:
        """Whether x is a point that the student's own steps reach, so that Eq. 42 says what its output is; (B,) bool.

        Said to be so if the search finds an end: the one that the flow from (x, σ) leads to, what that leads to in
        turn, and the data points nearest to x, 32 at most.
        """
        return self._search(x, sigma)[1]

    def intermediate(self, x: Num[Tensor, "B *event"], sigma: float | Tensor) -> tuple[Tensor, Tensor]:
        """Where the student's steps take x from σ_N, and its output there: Eq. 42's pairs, without a search.

        Args:
            x: (B, *event), at σ_N.
            sigma: float, () or (B,), from 0 to σ_N.

        Returns:
            r x + (1 − r) f(x), and f(x).
        """
        levels = self._levels(sigma, x)
        ends = self.teacher(x, self.sigma_max)
        r = (levels / self.sigma_max).view(-1, *[1] * (x.ndim - 1))
        return (ends + r * (x.double() - ends)).to(x.dtype), ends

    def _levels(self, sigma: float | Tensor, x: Tensor) -> Tensor:
        levels = torch.as_tensor(sigma, dtype=torch.float64, device=x.device).detach()
        if levels.shape not in ((), (len(x),)):
            raise ValueError(f"sigma must have shape () or (B,), got {tuple(levels.shape)} with B = {len(x)}")
        usable = (levels >= 0) & (levels <= self.sigma_max * (1 + 1e-6))
        if not usable.all():
            wrong = float(levels[~usable].reshape(-1)[0])
            raise ValueError(f"sigma must lie between 0 and sigma_max = {self.sigma_max:g}, got {wrong:g}")
        return levels.clamp_max(self.sigma_max).expand(len(x)).contiguous()

    def _search(self, x: Tensor, sigma: float | Tensor) -> tuple[Tensor, Tensor]:
        levels, x = self._levels(sigma, x), x.detach()
        out = self.teacher(x, levels)
        found = (levels == self.sigma_max) | (levels == 0)
        end = out.clone()
        for _ in range(_CHAIN):
            self._try(x, levels, end, out, found)
        rows = (~found).nonzero().squeeze(1)
        if len(rows) == 0:
            return out, found
        count = min(_CANDIDATES, len(self._data))
        nearest = torch.cat(
            [self._data.weights(x[row : row + 1], levels[row : row + 1]).topk(count).indices for row in rows.tolist()]
        )
        for column in nearest.T:
            if found[rows].all():
                break
            end[rows] = self._data.take(column).to(x)
            self._try(x, levels, end, out, found)
        return out, found

    def _try(self, x: Tensor, levels: Tensor, end: Tensor, out: Tensor, found: Tensor) -> None:
        """Go up the line through `end` to σ_N and see where the flow leads from there; in place."""
        rows = (~found).nonzero().squeeze(1)
        if len(rows) == 0:
            return
        tried = end[rows].double()
        ratio = (self.sigma_max / levels[rows]).view(-1, *[1] * (x.ndim - 1))
        start = tried + ratio * (x[rows].double() - tried)
        led = self.teacher(start, self.sigma_max).double()
        # The line through what it led to is the one that x is on; `tried` may differ from it by rounding.
        same = (led - tried).flatten(1).norm(dim=1) <= self._equal
        out[rows[same]] = led[same].to(x.dtype)
        found[rows[same]] = True
        end[rows] = led.to(x.dtype)


def _teacher(
    D: Denoiser, sigmas: float | Tensor | Sequence[float], solver: str | Solver | None, options: dict[str, Any]
) -> tuple[FlowMap, float]:
    if isinstance(sigmas, int | float) or (isinstance(sigmas, Tensor) and sigmas.ndim == 0):
        if not 0 < float(sigmas) < float("inf"):
            raise ValueError(f"sigma_max must be positive and finite, got {float(sigmas):g}")
        return FlowMap(D, None, solver, **options), float(sigmas)
    levels = grid(sigmas)
    return FlowMap(D, levels, solver, **options), float(levels[0])
