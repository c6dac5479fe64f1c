"""Noise grids designed from the exact optimum; `optimal.schedule` has the published ones.

| objective | what is least | needs |
|---|---|---|
| "landings" | the share of starts that end on another point than the exact flow | exact trajectories |
| "path-kl" | the KL of the ancestral sampler's path | one curve, mmse by level |
| "entropy", "rescaled-entropy" | even steps of H, or of ∫ σ dH | one curve |
| "gaussian" | W2 of a solver's end if the data were Gaussian | the eigenvalues of their covariance |
"""

from .ancestral import path_kl, path_kl_grid
from .calibration import calibrated
from .curve import Curve, curve_of, start_level
from .designed import Objective, design
from .entropic import entropic_grid
from .gaussian import gaussian_grid, gaussian_ratios
from .landings import Landed, Starts, landed_right, starts_of, wrong_landings
from .search import landings_grid

__all__ = [
    "Curve",
    "Landed",
    "Objective",
    "Starts",
    "calibrated",
    "curve_of",
    "design",
    "entropic_grid",
    "gaussian_grid",
    "gaussian_ratios",
    "landed_right",
    "landings_grid",
    "path_kl",
    "path_kl_grid",
    "start_level",
    "starts_of",
    "wrong_landings",
]
