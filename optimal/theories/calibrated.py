"""Which window at which noise level: without a network, by the risk on images that are left out; or by a network.

    without:  k(σ) = argmin_k E‖D_k^{−j}(y_j + σ ε, σ) − y_j‖²      D_k^{−j} the theory of all images but y_j
    by F:     k(σ) = argmin_k E‖D_k(x, σ) − F(x, σ)‖²               x = x0 + σ ε, or where F's own trajectory is

Every window is tried at every level, on the same draws; none is taken to be larger where σ is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from ..denoiser import Denoiser, OptimalDenoiser
from ..draws import draw_indexed, draw_pairs
from ..intervals import Interval, positive_interval
from ..numbers import is_whole
from ..query import Levels, level_list
from ..randomness import generator_of
from ..samplers import trajectory
from ..shown import in_short
from .local import LocalDenoiser, local_score
from .moments import require_optimum

__all__ = ["Windows", "window_by_network", "window_by_risk"]

Theory = Callable[[OptimalDenoiser, int], LocalDenoiser]


@dataclass(frozen=True)
class Windows:
    """The window of every level, and what it was chosen by. Called with a σ, the window of the nearest level in log σ.

    Attributes:
        sigmas: (S,) float64, decreasing.
        windows: (K,) those that were tried.
        cost: (S, K), mean and 95% interval of what was to be small.
        best: (S,) int64, the window of least cost; the smallest of equals.
        unlike: (S,) float64, the share of the draws that would have chosen another window each for itself.
    """

    sigmas: Tensor
    windows: tuple[int, ...]
    cost: Interval
    best: Tensor
    unlike: Tensor

    __repr__ = in_short

    def __call__(self, sigma: float) -> int:
        return int(self.best[(self.sigmas.log() - math.log(sigma)).abs().argmin()])

    def __str__(self) -> str:
        lines = [f"{'sigma':>10}  window  {'cost':>10}  95% interval"]
        for row, sigma in enumerate(self.sigmas.tolist()):
            at = self.windows.index(int(self.best[row]))
            value, low, high = (float(part[row, at]) for part in (self.cost.value, self.cost.low, self.cost.high))
            lines.append(f"{sigma:10.4g}  {self.windows[at]:6d}  {value:10.4g}  {low:.4g} to {high:.4g}")
        return "\n".join(lines)


def window_by_risk(
    D: OptimalDenoiser,
    windows: Sequence[int],
    sigmas: Levels,
    draws: int = 64,
    generator: torch.Generator | None = None,
    *,
    theory: Theory = local_score,
    progress: bool = False,
) -> Windows:
    """The window of least leave-one-out risk at every level: E‖D_k^{−j}(y_j + σ ε, σ) − y_j‖².

    The image is left out of the theory's sums, so that no part of the data has to be kept aside. Copies of it stay.

    Args:
        D: the optimum of images.
        windows: those that are tried: odd whole numbers, or sizes for `patch_posterior`.
        sigmas: (S,) noise levels, > 0.
        draws: pairs (y_j, ε), the same for every window and level; at least 2.
        generator: source of randomness; without one, a fresh generator with a fixed seed.
        theory: (D, window) -> the theory, one of which an image can be left out: `local_score`, `patch_posterior`,
            `equivariant_local_score`, `boundary_local_score`.
        progress: whether a bar is drawn on stderr.

    Returns:
        What may be given as `window` to the theory.

    Raises:
        ValueError: no window, one that is no whole number, or that the theory refuses; fewer than two draws; data of
            one point; a D that is no `OptimalDenoiser`.

    Example:
        >>> D = OptimalDenoiser(torch.tensor([[[[-1.0, -1.0]]], [[[1.0, 1.0]]], [[[-1.0, 1.0]]], [[[1.0, -1.0]]]]))
        >>> window_by_risk(D, [1, 3], [0.5])(0.4)          # independent pixels: of an image that is left out
        1
    """
    require_optimum(D, "a risk on images that are left out")
    levels, tried = _levels(sigmas), _tried(windows, draws)
    index, x0, eps = draw_indexed(D, None, draws, generator)
    x0, eps = x0.double(), eps.double()
    made = [theory(D, window).without(index) for window in tried]
    queries = ((sigma, x0 + sigma * eps, x0) for sigma in levels.tolist())
    return _chosen(levels, tried, made, queries, progress)


def window_by_network(
    model: Denoiser,
    D: OptimalDenoiser,
    windows: Sequence[int],
    sigmas: Levels,
    draws: int = 64,
    generator: torch.Generator | None = None,
    *,
    on: str = "forward",
    theory: Theory = local_score,
    progress: bool = False,
) -> Windows:
    """The window with which the theory is closest to a denoiser at every level: E‖D_k(x, σ) − F(x, σ)‖².

    Args:
        model: F, any denoiser.
        D, windows, sigmas, draws, generator, theory, progress: as for `window_by_risk`.
        on: "forward", x = x0 + σ ε; or "trajectory", the states of F's own Heun sampler, which begins with noise at the
            largest level and goes through all of them.

    Raises:
        ValueError: as for `window_by_risk`; another `on`; answers of the denoiser of another shape than x's, or not
            finite.

    References:
        Kamb, Ganguli 2024, "An analytic theory of creativity in convolutional diffusion models", on its trajectory.
    """
    require_optimum(D, "a local theory")
    levels, tried = _levels(sigmas), _tried(windows, draws)
    made = [theory(D, window) for window in tried]
    if on == "forward":
        x0, eps = draw_pairs(D, None, draws, generator)
        queries = ((sigma, x := x0 + sigma * eps, model(x, sigma).detach()) for sigma in levels.tolist())
    elif on == "trajectory":
        source = generator_of(generator)
        eps = torch.randn(draws, *D.event, generator=source, dtype=torch.float32, device=source.device)
        start = (levels[0] * eps).to(D.points.device, torch.float32)
        states = trajectory(model, start, [*levels.tolist(), 0.0])
        queries = ((state.sigma, state.x, state.denoised) for state in states if state.sigma > 0)
    else:
        raise ValueError(f'on must be "forward" or "trajectory", got {on!r}')
    return _chosen(levels, tried, made, queries, progress)


def _levels(sigmas: Levels) -> Tensor:
    return level_list(sigmas).cpu().unique().flip(0)


def _tried(windows: Sequence[int], draws: int) -> tuple[int, ...]:
    if len(windows) == 0:
        raise ValueError("windows must be at least one, got none")
    if not is_whole(draws) or draws < 2:
        raise ValueError(f"draws must be a whole number of at least 2, for an interval, got {draws!r}")
    for window in windows:
        if not hasattr(window, "__float__") or not float(window).is_integer():
            raise ValueError(f"windows must be whole numbers, got {window!r}")
    return tuple(dict.fromkeys(int(window) for window in windows))


def _chosen(
    levels: Tensor,
    windows: tuple[int, ...],
    theories: list[LocalDenoiser],
    queries: Iterable[tuple[float, Tensor, Tensor]],
    progress: bool,
) -> Windows:
    """Of the least mean square between the theories' answers and what is wanted, (sigma, x, wanted) level by level."""
    found = []
    with tqdm(total=len(levels) * len(windows), desc="windows", leave=False, disable=not progress) as bar:
        for sigma, x, wanted in queries:
            if wanted.shape != x.shape or not torch.isfinite(wanted).all():
                raise ValueError(f"answers of the denoiser must be finite and like x, at σ = {sigma:.3g} they are not")
            row = []
            for theory in theories:
                off = theory(x, sigma).double() - wanted.double()
                row.append(off.flatten(1).square().sum(1).cpu())
                bar.update()
            found.append(torch.stack(row))
    squares = torch.stack(found)
    cost = positive_interval(squares)
    order = sorted(range(len(windows)), key=lambda at: windows[at])
    at = torch.tensor(order)[cost.value[:, order].argmin(1)]
    single = squares.argmin(1)
    return Windows(levels, windows, cost, torch.tensor(windows)[at], (single != at[:, None]).double().mean(1))
