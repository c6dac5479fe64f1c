"""Two closed formulas for when diffusion changes its regime (Biroli, Bonnaire, de Bortoli, Mézard 2024).

Their forward process is Ornstein–Uhlenbeck, x_t = e^{−t} x0 + √(1 − e^{−2t}) ε, so that σ² = e^{2t} − 1.

Speciation, when trajectories commit to a class: the top eigenvalue Λ of the data's covariance meets the noise,

    Λ e^{−2 t_S} = 1,    t_S = ½ ln Λ,    σ_S = √(Λ − 1)

Collapse, when they commit to a training point, for n Gaussian points of variance s² in each of d dimensions:

    t_C = ½ ln(1 + s²/(n^{2/d} − 1)),    σ_C = s/√(n^{2/d} − 1)

The first is stated in units in which the stationary noise has variance 1 (its scale-free form, √Λ, is the same where
Λ is large); the second assumes that all d directions carry variance, which images do not: `collapse_border` measures
it on the data themselves.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from .arithmetic import ours
from .denoiser import OptimalDenoiser
from .numbers import require_whole
from .randomness import fixed_generator

__all__ = ["collapse_sigma", "speciation_sigma", "top_eigenvalue"]


def speciation_sigma(eigenvalue: float) -> float:
    """σ_S = √(Λ − 1), 0 where Λ <= 1: the data are within the noise from the start.

    Args:
        eigenvalue: Λ, the top eigenvalue of the data's covariance.

    Raises:
        ValueError: Λ negative or not finite.

    References:
        Biroli, Bonnaire, de Bortoli, Mézard 2024, "Dynamical Regimes of Diffusion Models", t_S = ½ ln Λ.

    Example:
        >>> round(speciation_sigma(60.52), 3)
        7.715
    """
    if not 0 <= eigenvalue < math.inf:
        raise ValueError(f"an eigenvalue of a covariance is finite and not negative, got {eigenvalue:g}")
    return math.sqrt(max(eigenvalue - 1, 0.0))


def collapse_sigma(n: int, d: int, s: float = 1.0) -> float:
    """σ_C = s/√(n^{2/d} − 1) of n Gaussian points; inf for a single point, which everything runs to.

    Args:
        n: number of points.
        d: their dimension.
        s: standard deviation of each coordinate.

    Raises:
        ValueError: n < 1, d < 1, s negative or not finite.

    References:
        Biroli, Bonnaire, de Bortoli, Mézard 2024, "Dynamical Regimes of Diffusion Models".

    Example:
        >>> round(collapse_sigma(50_000, 3_072), 3), round(collapse_sigma(70_000, 12_288), 3)
        (11.894, 23.457)
    """
    require_whole("n", n)
    require_whole("d", d)
    if not 0 <= s < math.inf:
        raise ValueError(f"a standard deviation is finite and not negative, got {s:g}")
    return s / math.sqrt(math.expm1(2 * math.log(n) / d)) if n > 1 else math.inf


@ours()
def top_eigenvalue(D: OptimalDenoiser) -> float:
    """Λ, the largest eigenvalue of the covariance Σ π_j (y_j − ȳ)(y_j − ȳ)ᵀ of D, π_j = 1/N without a prior.

    Lanczos iterations on blocks of the data, about twenty passes; for events of up to 1,024 values, two passes.

    Example:
        >>> D = OptimalDenoiser(torch.tensor([[-2.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))
        >>> round(top_eigenvalue(D), 6)
        2.0
    """
    points = D.points
    covariance = points.covariance()
    if covariance is not None:
        return float(torch.linalg.eigvalsh(covariance)[-1].clamp_min(0))
    mean, total = points.offset, float(points.size)
    shares = torch.empty(0, device=points.device)
    if points.log_weights is not None:
        shares, total = points.log_weights.exp().float(), 1.0

    def product(v: np.ndarray) -> np.ndarray:
        direction = torch.from_numpy(v.reshape(-1)).to(mean)
        out = torch.zeros_like(mean)
        for start, block in points.blocks(points.few_rows, points.device, dtype=torch.float32):
            along = block @ direction.float()
            if points.log_weights is not None:
                along *= shares[start : start + len(block)]
            out += (block.T @ along).double()
        return (out / total - mean * (mean @ direction)).cpu().numpy()

    start = torch.randn(points.dim, generator=fixed_generator(), dtype=torch.float64, device="cpu").numpy()
    if not product(start).any():
        return 0.0
    from scipy.sparse.linalg import LinearOperator, eigsh

    operator = LinearOperator((points.dim, points.dim), matvec=product, dtype=np.float64)  # pyright: ignore[reportCallIssue]
    values = eigsh(operator, k=1, which="LA", tol=1e-5, v0=start, return_eigenvectors=False)  # pyright: ignore[reportArgumentType]
    return max(float(values[0]), 0.0)
