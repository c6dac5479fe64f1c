"""What others answer where the optimum does: guidance towards the source's class, theories, and a network."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from neural.measures import evaluate
from neural.model import Model, open_model
from optimal import Dataset, OptimalDenoiser, guided
from optimal.denoiser import Denoiser
from optimal.theories import Wiener, local_score

from ..config import Config

__all__ = ["answers", "network_of"]

_WEIGHT, _WINDOW = 3, 5
_GAUSSIAN, _LOCAL = 50_000_000, 1_000_000
"""Values of the data up to which the covariance, and the local score, take seconds."""


def network_of(config: Config, data: Dataset) -> Model | None:
    """The network that is asked for; of digits as they come, the one that comes with the toolkit.

    Raises:
        ValueError: none of that name, or of points of another shape.
    """
    named = config.network or ("pretrained:digits" if config.dataset is None else None)
    if named is None:
        return None
    model = open_model(named)
    model.require_event(data.event, data.name)
    return model


def answers(
    D: OptimalDenoiser, data: Dataset, model: Model | None, source: Tensor, noisy: Tensor, sigmas: Tensor
) -> Iterator[tuple[str, Tensor]]:
    """Each by name, (M, K, *event): at x = `noisy`, (M, K, *event), of M sources (index, (M,)) and K levels."""

    def asked(denoiser: Denoiser) -> Tensor:
        return torch.stack([evaluate(denoiser, noisy[:, k], float(sigma)) for k, sigma in enumerate(sigmas)], 1)

    size = len(D) * noisy[0, 0].numel()
    if data.labels is not None:
        classes = D.labels[source].tolist()
        rows = [guided(D.given(c), D, _WEIGHT)(at, sigmas) for c, at in zip(classes, noisy, strict=True)]
        yield f"guided,\nw = {_WEIGHT}", torch.stack(rows)
    if size <= _GAUSSIAN:
        yield "Gaussian\ntheory", asked(Wiener(D))
    if size <= _LOCAL and min(D.event[1:]) >= _WINDOW:
        yield f"local score,\n{_WINDOW}×{_WINDOW}", asked(local_score(D, _WINDOW))
    if model is not None:
        yield f"network\n{model.name.removeprefix('pretrained:')}", asked(model)
