"""Whether a network of a run has seen points in training that it is measured on as held-out ones."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Any

import torch

from optimal import Dataset
from optimal.draws import Data, points_at, size_of
from optimal.posterior import Optimum

from . import checkpoint
from .config import experiment_of
from .saved import load_model, model_path

__all__ = ["seen_in_training"]

_ROWS = 1024
_MOST = 2**31
"""Bytes of training data that are read for this."""


def seen_in_training(model: Any, D: Optimum, held_out: Data) -> tuple[str, ...]:
    """A sentence where the network was trained on some of the held-out points, value by value in float32; else none.

    Args:
        model: a `Model` of a run, whose folder says what it was trained on. Of others nothing is known.
        D: the optimum of what counts as the training data. Where the network was trained on these, nothing is read.
        held_out: points of the shape of D's.
    """
    run = getattr(model, "run", None)
    if run is None:
        return ()
    about = checkpoint.about(checkpoint.latest(model_path(run)))
    fingerprint, count = about["fingerprint"], size_of(D, held_out)
    if isinstance(D.data, Dataset) and D.data.fingerprint == fingerprint:
        return ()
    if isinstance(held_out, Dataset) and held_out.fingerprint == fingerprint:
        seen = count
    else:
        seen = 0
        # Data that are not to be had any more say nothing.
        with contextlib.suppress(ValueError, OSError):
            own = experiment_of(load_model(run)[1]).load()
            if own.fingerprint == fingerprint and own.event == D.event and own.array.nbytes <= _MOST:
                known = set(_digests(D, own))
                seen = sum(digest in known for digest in _digests(D, held_out))
    if not seen:
        return ()
    return (f"{model.name} was trained on {seen:,} of the {count:,} held-out points, on {about['name']}",)


def _digests(D: Optimum, data: Data) -> Iterator[bytes]:
    """8 bytes a point."""
    for index in torch.arange(size_of(D, data)).split(_ROWS):
        for row in points_at(D, data, index).float().cpu().numpy():
            # The two zeros are one number.
            yield hashlib.blake2b((row + 0.0).tobytes(), digest_size=8).digest()
