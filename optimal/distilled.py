"""The optima of progressive and of knowledge distillation (section C of the paper); multi-step: `optimal.multistep`.

Teacher and student are both optimal here: the teacher is the denoiser D itself, the student whatever minimises the
loss. Each loss regresses on a target that is a function of what the student is given, so that its minimum is that
target.

Progressive (Eq. 38–40). One DDIM step of the student, x̂ + (σ'/σ)(x − x̂), is to do what two steps of its teacher do,
or, unrolled down to D, what K = 2^stage steps of D do over the levels σ_0 > σ_1 > … > σ_K. Solving Eq. 40 for x̂,

    x̂ = (x_K − (σ_K/σ_0) x)/(1 − σ_K/σ_0) = Σ_i a_i D_i / Σ_i a_i,    a_i = 1/σ_{i+1} − 1/σ_i,    D_i = D(x_i, σ_i)

a weighted mean of the teacher's outputs on the way: the second form cancels nothing, stays in the convex hull of the
data, and is finite where the first is 0/0. At σ_K = 0 the last weight is infinite, and x̂ = x_K (the text's s_{t_{n−2}}
= 0); at equal levels all weights are 0, and the limit is D(x, σ). So stage 0 is D, and as the stage grows the student
goes from the posterior mean to the flow map on the teacher's grid, which it is as soon as its step reaches 0.

Knowledge (Eq. 41). x̂ at (x, t_N) is where the teacher's N steps take x: the flow map, at that one noise level.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch
from jaxtyping import Float, Num
from torch import Tensor

from .denoiser import Denoiser
from .flow import FlowMap
from .numbers import is_whole
from .query import Levels, beside, levels, require_points
from .samplers import Solver
from .schedule import grid, on_grid

__all__ = [
    "KnowledgeOptimum",
    "ProgressiveOptimum",
    "ddim_target",
    "knowledge_optimum",
    "progressive_optimum",
    "teacher_map",
]


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
        >>> from optimal import OptimalDenoiser
        >>> D = OptimalDenoiser(torch.tensor([[-1.0], [1.0]]))
        >>> x = torch.tensor([[0.5]])
        >>> ddim_target(D, x, [1.0, 1.0, 1.0]) == D(x, 1.0), ddim_target(D, x, [1.0, 0.5, 0.0])
        (tensor([[True]]), tensor([[0.9583]]))
    """
    require_points(x)
    steps = torch.as_tensor(levels, dtype=torch.float64, device=x.device).detach()
    if steps.ndim not in (1, 2) or len(steps) < 2 or (steps.ndim == 2 and steps.shape[1] != len(x)):
        raise ValueError(f"levels must have shape (K + 1,) or (K + 1, B), got {tuple(steps.shape)} with B = {len(x)}")
    steps = (steps[:, None] if steps.ndim == 1 else steps).expand(-1, len(x))
    usable = (steps[:-1] > 0).all(0) & (steps[-1] >= 0) & (steps.diff(dim=0) <= 0).all(0)
    if not usable.all():
        wrong = ", ".join(f"{float(level):g}" for level in steps[:, ~usable][:, 0])
        raise ValueError(f"levels must not increase, and be positive but for the last, which may be 0, got {wrong}")
    state, target = x.double(), torch.zeros_like(x, dtype=torch.float64)
    mass = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for i, (level, following) in enumerate(itertools.pairwise(steps)):
        denoised = D(state.to(x.dtype), level).double()
        weight = 1 / following - 1 / level
        mass = mass + weight
        share = torch.where(following == 0, 1.0, torch.where(mass > 0, weight / mass, float(i == 0)))
        target = target + beside(share, x) * (denoised - target)
        state = denoised + beside(following / level, x) * (state - denoised)
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
    return KnowledgeOptimum(*teacher_map(D, sigmas, solver, options))


class ProgressiveOptimum:
    """See `progressive_optimum`. A `Denoiser`, at every σ of the teacher's range.

    Attributes:
        sigmas: the student's own grid: every 2^stage-th level of the teacher's, and 0.
    """

    def __init__(self, D: Denoiser, teacher_sigmas: Tensor, stage: int):
        if not is_whole(stage) or stage < 0:
            raise ValueError(f"stage must be a whole number from 0 on, got {stage!r}")
        self.D, self.stage = D, stage
        self._teacher = teacher_sigmas
        self.stride = min(2**stage, len(teacher_sigmas) - 1)
        self.sigmas = torch.cat([teacher_sigmas[:-1][:: self.stride], teacher_sigmas[-1:]])

    def __repr__(self) -> str:
        return f"ProgressiveOptimum({self.D!r}, {len(self._teacher) - 1} steps, stage={self.stage})"

    def __call__(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, "B *event"]:
        """x̂, (B, *event). A σ between levels starts with a step to the next level below.

        Args:
            x: (B, *event) noisy points.
            sigma: float, () or (B,), on the grid's range, or 0, where x̂ = x.

        Raises:
            ValueError: sigma out of range or of another shape.
        """
        require_points(x)
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

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.teacher!r}, sigma_max={self.sigma_max:g})"

    def __call__(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, "B *event"]:
        """f(x, σ_N), (B, *event).

        Raises:
            ValueError: a sigma other than σ_N (0, where x̂ = x, is let pass).
        """
        require_points(x)
        values = levels(sigma, len(x), x.device, zero=True)
        own = (values - self.sigma_max).abs() <= 1e-6 * self.sigma_max
        wrong = ~own & (values != 0)
        if wrong.any():
            raise ValueError(
                f"knowledge distillation trains the student at sigma_max = {self.sigma_max:g} only (Eq. 41), "
                f"got {float(values[wrong][0]):g}: sample it in one step"
            )
        return self.teacher(x, torch.where(own, self.sigma_max, values))


def teacher_map(
    D: Denoiser, sigmas: float | Tensor | Sequence[float], solver: str | Solver | None, options: dict[str, Any]
) -> tuple[FlowMap, float]:
    """The teacher's flow map and its σ_N, from what `knowledge_optimum` takes."""
    if isinstance(sigmas, Real) or (isinstance(sigmas, Tensor) and sigmas.ndim == 0):
        sigma_max = float(sigmas)
        if not 0 < sigma_max < math.inf:
            raise ValueError(f"sigma_max must be positive and finite, got {sigma_max:g}")
        return FlowMap(D, None, solver, **options), sigma_max
    levels = grid(sigmas)  # pyright: ignore[reportArgumentType]
    return FlowMap(D, levels, solver, **options), float(levels[0])
