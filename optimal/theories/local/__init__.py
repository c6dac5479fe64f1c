"""Theories of locality: each pixel from a part of x, one posterior a pixel or a patch."""

from .denoiser import LocalDenoiser, LocalPosterior
from .moved import boundary_local_score, equivariant_local_score
from .named import flexible_patch_posterior, local_score, patch_posterior, pca_locality

__all__ = [
    "LocalDenoiser",
    "LocalPosterior",
    "boundary_local_score",
    "equivariant_local_score",
    "flexible_patch_posterior",
    "local_score",
    "patch_posterior",
    "pca_locality",
]
