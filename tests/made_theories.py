"""Every theory of `optimal.theories`, made of any optimum of images: what is promised of all is asked of all."""

from __future__ import annotations

from collections.abc import Callable

from optimal import OptimalDenoiser
from optimal.denoiser import Denoiser
from optimal.theories import (
    Mixture,
    Wiener,
    boundary_local_score,
    equivariant_local_score,
    flexible_patch_posterior,
    golden_subset,
    local_score,
    nearest,
    nearest_proposal,
    patch_posterior,
    pca_locality,
    score_smoothed,
    subsampled,
    switch,
)

__all__ = ["MAKE", "UNDERIVED"]

MAKE: dict[str, Callable[[OptimalDenoiser], Denoiser]] = {
    "Wiener": Wiener,
    "Wiener, rank 5": lambda D: Wiener(D, rank=5),
    "Mixture": lambda D: Mixture(D, 5, floor=0.0),
    "Mixture, EM": lambda D: Mixture(D, 3, floor=0.01, em=2),
    "smoothed": lambda D: D.smoothed(0.3),
    "tempered": lambda D: D.tempered(2.0),
    "switch": lambda D: switch(Wiener(D), D, 1.0),
    "score_smoothed": lambda D: score_smoothed(D, 0.3, 4),
    "nearest": lambda D: nearest(D, 7),
    "golden_subset": golden_subset,
    "nearest_proposal": lambda D: nearest_proposal(D, 7, 40),
    "subsampled": lambda D: subsampled(D, min(50, len(D) - 1)),
    "local_score": lambda D: local_score(D, 3),
    "equivariant_local_score": lambda D: equivariant_local_score(D, 3),
    "boundary_local_score": lambda D: boundary_local_score(D, 3),
    "patch_posterior": lambda D: patch_posterior(D, 3),
    "flexible_patch_posterior": lambda D: flexible_patch_posterior(D, 0.7),
    "pca_locality": lambda D: pca_locality(D, 0.05),
    "golden_subset, PCA": lambda D: golden_subset(D, threshold=0.05),
    "equivariant_local_score, part": lambda D: equivariant_local_score(D, 3, wrap=False, subset=10),
}
UNDERIVED = {
    *("nearest", "nearest_proposal", "golden_subset", "golden_subset, PCA"),
    *("local_score", "equivariant_local_score", "equivariant_local_score, part", "boundary_local_score"),
    *("patch_posterior", "flexible_patch_posterior", "pca_locality"),
}
"""Those that have no derivative, and say so."""
