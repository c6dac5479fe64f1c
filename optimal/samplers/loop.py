"""The loop under every solver: it counts the denoiser calls, keeps the state in float64, and draws the noise."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from tqdm import tqdm

from ..denoiser import Denoiser
from ..process import EDM, Process
from ..query import require_points
from ..randomness import generator_of
from ..schedule import grid
from ..shown import in_short
from .solver import Solver, Step
from .solvers import solver_of

__all__ = ["Counted", "Noise", "State", "follow", "sample", "trajectory"]

Noise = Sequence[Tensor] | Callable[[int], Tensor]


@dataclass(frozen=True)
class State:
    """Where a trajectory is.

    Attributes:
        x: (B, *event), x_t of the process, in the dtype of the start.
        sigma: its noise level.
        denoised: (B, *event), D(x/scale, sigma); x itself where sigma = 0. With churn, D after it.
        nfe: denoiser calls per sample so far, that of `denoised` included.
        scale: signal scale of the process there.
    """

    x: Tensor
    sigma: float
    denoised: Tensor
    nfe: int
    scale: float = 1.0

    __repr__ = in_short


def trajectory(
    D: Denoiser,
    x: Tensor,
    sigmas: Tensor | Sequence[float],
    *,
    solver: str | Solver = "heun",
    process: Process | None = None,
    generator: torch.Generator | None = None,
    noise: Noise | None = None,
    dtype: torch.dtype = torch.float64,
    grad: bool = False,
    **options: Any,
) -> Iterator[State]:
    """Follow x from sigmas[0] to 0, state by state.

    D is called with x_t/s_t in the dtype of the start x and with sigma as a () tensor, without gradients unless asked
    for; between the calls the state is kept in `dtype`.

    Args:
        D: any denoiser (for "consistency", a consistency function).
        x: (B, *event), the start at noise level sigmas[0], in the coordinates of the process: s_t (x0 + sigma eps).
        sigmas: (n + 1,) decreasing noise levels, the last 0.
        solver: a name of `SOLVERS`, with its options by keyword, or a `Solver`.
        process: whose x_t come in and out; EDM (s_t = 1) unless given. Only "reverse_sde" depends on it beyond scale.
        generator: source of the noise of stochastic solvers, drawn for all rows at once: what a row gets depends on how
            many there are. None is assumed: the same noise in every call would make batches alike.
        noise: pins it instead: noise[i] or noise(i) is the (B, *event) used in step i, counted from 0. With
            draw = RowNoise(generator).draw, `lambda i: draw(x.shape)` gives every row a stream of its own.
        dtype: of the state.
        grad: whether gradients flow from the states to x and to the parameters of D. Every call of D is then made again
            on the way back, so that of all its calls only x and D are kept, and the inner values of one at a time. D
            must be the same function both times. Networks of `neural` need `with neural.derivatives():`, also around
            `backward`.

    Yields:
        n + 1 states, from the start to sigma = 0.

    Raises:
        ValueError: a bad grid, solver, option or start; a stochastic solver without generator or noise. At the call,
            before the first state. With grad, at the call of a D whose answer has no gradients.

    References:
        Karras, Aittala, Aila, Laine 2022, Section 2 and Appendix C.

    Example:
        >>> from optimal import OptimalDenoiser, karras, trajectory
        >>> D = OptimalDenoiser(torch.tensor([[-1.0], [1.0]]))
        >>> for state in trajectory(D, torch.tensor([[40.0]]), karras(3), solver="euler"):
        ...     print(f"{state.sigma:g} {float(state.x):.4f} {state.nfe}")
        80 40.0000 1
        2.51522 1.2637 2
        0.002 0.1980 3
        0 1.0000 3
    """
    levels = grid(sigmas).tolist()
    chosen = solver_of(solver, options)
    chosen.check(levels)
    require_points(x, name="the start x")
    if generator is not None:
        generator_of(generator)
    if chosen.draws(len(levels) - 1) and generator is None and noise is None:
        raise ValueError(f"{type(chosen).__name__} draws noise: give generator=torch.Generator() or noise=")
    return follow(D, x, levels, chosen, process, dtype, grad, generator, noise)


def sample(
    D: Denoiser,
    x: Tensor,
    sigmas: Tensor | Sequence[float],
    *,
    solver: str | Solver = "heun",
    callback: Callable[[State], object] | None = None,
    progress: bool = False,
    **options: Any,
) -> Tensor:
    """Where x lands: the last state of `trajectory`, whose arguments it takes.

    Args:
        callback: called with every `State`, the start and the end included.
        progress: whether a progress bar is drawn on stderr.

    Returns:
        (B, *event), like x; with grad=True, with gradients to x and D.

    Example:
        >>> from optimal import OptimalDenoiser, karras, sample
        >>> D = OptimalDenoiser(torch.tensor([[-1.0], [1.0]]))
        >>> sample(D, torch.tensor([[-9.0], [40.0]]), karras(18)).tolist()
        [[-1.0], [1.0]]
    """
    states = trajectory(D, x, sigmas, solver=solver, **options)
    state = None
    for state in tqdm(states, total=len(sigmas), desc="sampling", unit="level", leave=False, disable=not progress):
        if callback is not None:
            callback(state)
    assert state is not None
    return state.x


def follow(
    D: Denoiser,
    x: Tensor,
    levels: list[float],
    solver: Solver,
    process: Process | None = None,
    dtype: torch.dtype = torch.float64,
    grad: bool = False,
    generator: torch.Generator | None = None,
    noise: Noise | None = None,
) -> Iterator[State]:
    """The states at all levels, down or up, the start included: what is left to do once all is checked.

    Args:
        levels: n + 1, the way; where the last is above 0, D is asked there too.
        solver: takes the steps.
        D, x, process, dtype, grad, generator, noise: as for `trajectory`.
    """
    process = process or EDM(math.inf)
    scales = [float(process.scale_at(level)) for level in levels]
    start = x.to(dtype) if grad else x.detach().to(dtype)
    source = _Drawn(x, dtype, generator, noise)
    return _states(Counted(D, x.dtype, grad), start, levels, scales, solver, process, source, x.dtype)


def _states(
    evaluate: Counted,
    x: Tensor,
    levels: list[float],
    scales: list[float],
    solver: Solver,
    process: Process,
    source: _Drawn,
    dtype: torch.dtype,
) -> Iterator[State]:
    past: list[tuple[float, Tensor]] = []
    kept: dict[str, Any] = {}
    x = x / scales[0]
    steps = len(levels) - 1
    for index, (sigma, sigma_next) in enumerate(itertools.pairwise(levels)):
        draw = source.of_step(index)
        raised, raised_sigma = solver.perturb(x, sigma, index=index, steps=steps, noise=draw)
        denoised = evaluate(raised, raised_sigma)
        yield State((scales[index] * x).to(dtype), sigma, denoised.to(dtype, copy=True), evaluate.calls, scales[index])
        step = Step(evaluate, raised, raised_sigma, sigma_next, denoised, index, steps, draw, process, past, kept)
        x = solver(step)
        past = [(raised_sigma, denoised), *past][: solver.memory]
    end = (scales[-1] * x).to(dtype)
    last = evaluate(x, levels[-1]).to(dtype) if levels[-1] > 0 else end
    yield State(end, levels[-1], last, evaluate.calls, scales[-1])


class Counted:
    """The denoiser in the precision of the start, counting its calls; with `grad`, made again on the way back."""

    def __init__(self, D: Denoiser, dtype: torch.dtype, grad: bool = False):
        self.D, self.dtype, self.grad, self.calls = D, dtype, grad, 0

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        self.calls += 1
        if self.grad:
            out = checkpoint(self._asked, x, sigma, use_reentrant=False)
            if x.requires_grad and torch.is_grad_enabled() and not out.requires_grad:
                raise ValueError(f"D must have gradients to x, the answer of {type(self.D).__name__} has none")
        else:
            with torch.no_grad():
                out = self._asked(x, sigma)
        return out

    def _asked(self, x: Tensor, sigma: float) -> Tensor:
        level = torch.tensor(sigma, dtype=torch.float64, device=x.device)
        # Copies: a denoiser may write into its argument, or answer every call in the same buffer.
        out = self.D(x.to(self.dtype, copy=True), level)
        if out.shape != x.shape:
            raise ValueError(
                f"a denoiser must return the shape of x, {tuple(x.shape)}, got {tuple(out.shape)} at sigma = {sigma:g}"
            )
        return out.to(x.dtype, copy=True)


class _Drawn:
    """Standard Gaussian noise for step i: pinned, or drawn when first asked for."""

    def __init__(self, x: Tensor, dtype: torch.dtype, generator: torch.Generator | None, noise: Noise | None):
        self.shape, self.device, self.dtype = x.shape, x.device, dtype
        self.generator, self.noise = generator, noise

    def of_step(self, index: int) -> Callable[[], Tensor]:
        return lambda: self._draw(index)

    def _draw(self, index: int) -> Tensor:
        if self.noise is not None:
            if not callable(self.noise) and index >= len(self.noise):
                raise ValueError(f"step {index} draws noise, and noise= ends with that of step {len(self.noise) - 1}")
            pinned = self.noise(index) if callable(self.noise) else self.noise[index]
            if pinned.shape != self.shape:
                raise ValueError(
                    f"noise of step {index} must have the shape of x, {tuple(self.shape)}, got {tuple(pinned.shape)}"
                )
            return pinned.detach().to(device=self.device, dtype=self.dtype)
        assert self.generator is not None
        drawn = torch.randn(self.shape, generator=self.generator, dtype=self.dtype, device=self.generator.device)
        return drawn.to(self.device)
