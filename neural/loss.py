"""Objectives: what a network is trained for, as draws and as a loss of each sample.

`draw` makes the random part of the batch of one process, from streams of its own; `loss` is applied to any part of it.
So a step has one outcome, however many parts it is accumulated in.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from optimal import Dataset
from optimal.denoiser import Denoiser
from optimal.process import VP
from optimal.query import beside

from .adapters.labels import NONE
from .classes import labels_of
from .config import Optimisation
from .streams import Streams

__all__ = [
    "NOISES",
    "WEIGHTINGS",
    "Batch",
    "Denoising",
    "Objective",
    "Regression",
    "Source",
    "draw_sigma",
    "root_mean_square",
    "weighted",
    "weighting",
]

NOISES = ("log_normal", "log_uniform", "uniform_t")
WEIGHTINGS = ("edm", "none", "snr", "snr1")

Batch = tuple[Tensor, ...]

_IN_MEMORY = 2**28
"""Data up to so many bytes as float32 are converted once."""


class Objective(Protocol):
    """A loss with its draws."""

    def draw(self, count: int, streams: Streams) -> Batch:
        """Tensors of `count` rows each, from the streams alone, on any device."""
        ...

    def loss(self, student: Denoiser, average: Denoiser, batch: Batch) -> tuple[Tensor, Tensor]:
        """The weighted loss of every row, (B,), with gradients to the student, and its noise level, (B,).

        The student is in training mode; the average of its weights is in evaluation mode, whoever asks. Either runs
        under autocast where the training says so, and nothing else does: the batch is on their device.
        """
        ...


class Source:
    """Clean points, drawn uniformly with replacement, from a store of any size.

    Args:
        data: `Dataset`; a memory map is read by rows.
        flip: whether images are mirrored left to right, each with probability ½.

    Raises:
        ValueError: flip, and points that are no images.
    """

    def __init__(self, data: Dataset, flip: bool = False):
        if flip and not data.is_image:
            raise ValueError(f"flip mirrors images, {data.name} has points of shape {data.event}")
        self.data, self.flip, self.event = data, flip, data.event
        self._points = data.points if 4 * data.array.size <= _IN_MEMORY else None

    def draw(self, count: int, streams: Streams) -> Tensor:
        """(count, *event) float32, on the CPU."""
        return self.draw_indexed(count, streams)[1]

    def at(self, index: Tensor) -> Tensor:
        """The points of these numbers, (n, *event) float32, on the CPU."""
        return self._points[index] if self._points is not None else self.data[index.numpy()]

    def draw_indexed(self, count: int, streams: Streams) -> tuple[Tensor, Tensor]:
        """Which points they are, (count,), and the points, (count, *event) float32, on the CPU."""
        index = streams.rows(len(self.data), count)
        x0 = self.at(index)
        if self.flip:
            mirrored = streams.rows(2, count) == 1
            x0 = torch.where(beside(mirrored, x0), x0.flip(-1), x0)
        return index, x0


def draw_sigma(count: int, options: Optimisation, streams: Streams) -> Tensor:
    """Noise levels, (count,) float64, as `options.noise` says.

    log_normal: exp(P_mean + P_std ε). log_uniform: even in ln σ. uniform_t: even in the time of linear VP, between the
    times of sigma_min and sigma_max (Eq. 26 with t ~ U).

    Raises:
        ValueError: another name.
    """
    if options.noise == "log_normal":
        return (options.P_mean + options.P_std * streams.normal(count).double()).exp()
    u = streams.uniform(count)
    if options.noise == "log_uniform":
        low, high = math.log(options.sigma_min), math.log(options.sigma_max)
        return (low + u * (high - low)).exp()
    if options.noise == "uniform_t":
        process = VP()
        low, high = process.time(options.sigma_min), process.time(options.sigma_max)
        return process.sigma(low + u * (high - low))
    raise ValueError(f"noise must be one of {', '.join(NOISES)}, got {options.noise!r}")


def weighting(name: str, sigma: Tensor, sigma_data: float) -> Tensor:
    """λ(σ), like sigma: what the squared error of x0 is multiplied by.

    edm: (σ² + σ_d²)/(σ σ_d)² = 1/c_out², so that F's error weighs the same everywhere (Karras et al. 2022, Table 1).
    none: 1 (Eq. 26). snr: 1/σ², the error of ε. snr1: max(1, 1/σ²) (Salimans, Ho 2022).

    Raises:
        ValueError: another name.
    """
    if name == "edm":
        return 1 / sigma.square() + 1 / sigma_data**2
    if name == "none":
        return torch.ones_like(sigma)
    if name == "snr":
        return 1 / sigma.square()
    if name == "snr1":
        return (1 / sigma.square()).clamp_min(1)
    raise ValueError(f"weighting must be one of {', '.join(WEIGHTINGS)}, got {name!r}")


class Denoising:
    """Eq. 26: λ(σ) ‖x0 − x_θ(x0 + σ ε, σ)‖²/dim, whose minimum is E[x0 | x] at every (x, σ), whatever λ > 0 is.

    Args:
        data: what to train on.
        options: noise levels, weighting, flips.
        sigma_data: σ_d of the edm weighting.
        classes: of the network; with any it is given the labels of the data, but for `options.label_dropout` of them.

    Raises:
        ValueError: data without labels for these classes.
    """

    def __init__(self, data: Dataset, options: Optimisation, sigma_data: float, classes: int = 0):
        self.source, self.options, self.sigma_data = Source(data, options.flip), options, sigma_data
        self.labels = labels_of(data, classes) if classes else None
        draw_sigma(0, options, Streams(0))
        weighting(options.weighting, torch.ones(0), sigma_data)

    def draw(self, count: int, streams: Streams) -> Batch:
        index, x0 = self.source.draw_indexed(count, streams)
        batch = x0, draw_sigma(count, self.options, streams), streams.normal(*x0.shape)
        if self.labels is None:
            return batch
        dropped = streams.uniform(count).cpu() < self.options.label_dropout
        return *batch, torch.where(dropped, NONE, self.labels[index])

    def loss(self, student: Callable[..., Tensor], average: Denoiser, batch: Batch) -> tuple[Tensor, Tensor]:
        x0, sigma, eps, *labels = batch
        x = x0 + beside(sigma.to(x0.dtype), x0) * eps
        return weighted(student(x, sigma, **_given(labels)) - x0, sigma, self.options.weighting, self.sigma_data), sigma


class Regression:
    """λ(σ) ‖D(x, σ) − x_θ(x, σ)‖²/dim at x = x0 + σ ε, whose minimum is D at every (x, σ), whatever λ > 0 is.

    With D = E[x0 | x], the optimum of the data, its gradient is the mean of Eq. 26's over x0 given x, and its value the
    gap: Eq. 26's less λ(σ) mmse(σ)/dim. It is drawn exactly as `Denoising` draws.

    Args:
        data: what x0 is drawn from.
        D: any denoiser; asked without gradient, on the device of the network, by label where the network has classes.
        options: noise levels, weighting, flips.
        sigma_data: σ_d of the edm weighting.
        classes: of the network, as for `Denoising`.
    """

    def __init__(
        self, data: Dataset, D: Callable[..., Tensor], options: Optimisation, sigma_data: float, classes: int = 0
    ):
        self.denoising, self.D = Denoising(data, options, sigma_data, classes), D
        self.options, self.sigma_data = options, sigma_data

    def draw(self, count: int, streams: Streams) -> Batch:
        return self.denoising.draw(count, streams)

    def loss(self, student: Callable[..., Tensor], average: Denoiser, batch: Batch) -> tuple[Tensor, Tensor]:
        x0, sigma, eps, *labels = batch
        x, given = x0 + beside(sigma.to(x0.dtype), x0) * eps, _given(labels)
        with torch.no_grad():
            target = self.D(x, sigma, **given)
        return weighted(student(x, sigma, **given) - target, sigma, self.options.weighting, self.sigma_data), sigma


def _given(labels: list[Tensor]) -> dict[str, Tensor]:
    """The labels of a batch, where it has any, as a network is asked."""
    return {"class_labels": labels[0]} if labels else {}


def weighted(difference: Tensor, sigma: Tensor, name: str, sigma_data: float) -> Tensor:
    """λ(σ) · mean square of each row's difference, (B,)."""
    return weighting(name, sigma, sigma_data).to(difference) * difference.flatten(1).square().mean(1)


def root_mean_square(data: Dataset) -> float:
    """σ_d: √(E x²) over all values of at most 4,096 points spread evenly over the data."""
    some = data[np.arange(0, len(data), max(1, -(-len(data) // 4096)))]
    return float(some.double().square().mean().sqrt()) or 1.0
