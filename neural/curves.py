"""How much a network does not know at every noise level: the curve that grids are designed from, of any denoiser.

`optimal.schedules.curve_of` has E‖x0 − D(x, σ)‖² of the optimum. Of a network F it is the denoising loss,

    E‖x0 − F(x, σ)‖² = mmse(σ) + E‖F − D‖²        x = x0 + σ ε

since F − D is a function of x, and x0 − D has mean 0 given x. The right side is measured: it is the left one with the
noise of x0 given x averaged out, so the optimum's own curve comes out exactly, and no network's lies below it.
"""

from __future__ import annotations

import math

import torch
from scipy.optimize import isotonic_regression
from torch import Tensor
from tqdm import tqdm

from optimal import OptimalDenoiser
from optimal.denoiser import Denoiser
from optimal.draws import draw_pairs
from optimal.schedules import Curve, start_level

from .measures import evaluate

__all__ = ["loss_curve", "near_level"]


def loss_curve(
    F: Denoiser,
    D: OptimalDenoiser,
    *,
    sigma_max: float | None = None,
    sigma_min: float = 0.002,
    nodes: int = 64,
    draws: int = 128,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> Curve:
    """The denoising loss of a denoiser on the data of D, level by level, as `path_kl_grid` and `entropic_grid` take it.

    The same pairs (x0, ε) serve every level; falls are taken out by isotonic regression, as in `curve_of`.

    Args:
        F: any denoiser.
        D: the optimum of its data.
        sigma_max, sigma_min: the range; up to `start_level(D)`, down to EDM's 0.002 unless given. A network's loss does
            not vanish where the optimum's does, so its ∫ loss σ⁻³ dσ grows without end as sigma_min falls: grids need a
            sigma_min of their own, `near_level` say.
        nodes: levels, even in log σ.
        draws: pairs (x0, ε) at each.
        generator: source of randomness; without one, a fresh generator with a fixed seed.
        progress: whether a progress bar is drawn on stderr.

    Returns:
        A curve without entropy.

    Raises:
        ValueError: fewer than 8 levels, draws < 1, sigma_min that is not below sigma_max or not positive; an answer
            that is not finite or of another shape.

    Example:
        >>> D = OptimalDenoiser(torch.tensor([[-1.0], [1.0]]))
        >>> mean = loss_curve(lambda x, sigma: 0 * x, D, sigma_max=80.0, nodes=8)     # E x0² = 1 at every level
        >>> mean.mmse.round(decimals=3).tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    if nodes < 8:
        raise ValueError(f"a curve takes at least 8 levels, got {nodes}")
    high = start_level(D) if sigma_max is None else sigma_max
    if not 0 < sigma_min < high < math.inf:
        raise ValueError(f"a curve needs 0 < sigma_min < sigma_max, got {sigma_min:g} and {high:g}")
    levels = torch.logspace(math.log10(sigma_min), math.log10(high), nodes, dtype=torch.float64, device="cpu")
    levels[0], levels[-1] = sigma_min, high
    x0, eps = draw_pairs(D, None, draws, generator)
    losses = []
    for sigma in tqdm(levels.tolist(), desc="losses", unit="level", leave=False, disable=not progress):
        losses.append(_loss(F, D, x0 + sigma * eps, sigma))
    measured = torch.stack(losses)
    if not torch.isfinite(measured).all():
        at = float(levels[~torch.isfinite(measured)][0])
        raise ValueError(f"the answers of a denoiser must be finite, they are not at sigma = {at:g}")
    return Curve(levels, torch.as_tensor(isotonic_regression(measured.numpy()).x.copy()))


def near_level(curve: Curve, rms: float) -> float:
    """The highest level of a curve at which √mmse is at most `rms`; its lowest where there is none.

    A grid may end there: what its last call answers is that near to x0, root mean square over the event.
    """
    within = (curve.mmse.sqrt() <= rms).nonzero()
    return float(curve.sigmas[within.max()]) if len(within) else curve.low


def _loss(F: Denoiser, D: OptimalDenoiser, x: Tensor, sigma: float) -> Tensor:
    post = D.posterior(x, sigma)
    answer = post.mean if F is D else evaluate(F, x, sigma)
    gap = (answer.double() - post.mean.double()).flatten(1).square().sum(1)
    return (post.variance.double().clamp_min(0) + gap).mean().cpu()
