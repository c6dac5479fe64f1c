"""Whether networks are known to have been trained on the data that they are held to; a page must not say so otherwise.

A run's checkpoint has the fingerprint of its data, an optimum has its data. Of diffusers' and of a user's own networks
nothing is known.
"""

from __future__ import annotations

from collections.abc import Sequence

from optimal import Dataset, OptimalDenoiser

from .. import checkpoint
from ..model import Model
from ..saved import model_path

__all__ = ["fingerprint_of", "trained_on"]


def fingerprint_of(model: Model) -> str | None:
    """Of the data that it was trained on, or is the optimum of; None where that is not known."""
    if isinstance(model.denoiser, OptimalDenoiser):
        return model.denoiser.data.fingerprint if isinstance(model.denoiser.data, Dataset) else None
    if model.run is None:
        return None
    return checkpoint.about(checkpoint.latest(model_path(model.run)))["fingerprint"]


def trained_on(models: Sequence[Model], *data: str | None) -> bool:
    """Whether all were, on data of one of these fingerprints: those measured, and those that they are a class of."""
    known = {fingerprint for fingerprint in data if fingerprint is not None}
    return all(fingerprint_of(model) in known for model in models)
