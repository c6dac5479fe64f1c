"""Soft labels: the posterior that guidance is said to sample, exactly, and where it goes instead.

Let every data point y_j have probabilities p(c | y_j) of its classes, none of them 0. Then the tilted distribution

    p_w(x0) ∝ p(x0) p(c | x0)^w

has the points of the data with log-weights a_j = log π_j + w log p(c | y_j), so that its optimum is one line (`tilted`)
and that of the class at w = 1. Guidance takes D + w (D_c − D) with this D_c. Its score is that of no p_w, for

    ∇ log p(x) + w ∇ log Σ_j w_j(x) p(c | y_j)   is not   ∇ log p(x) + ∇ log Σ_j w_j(x) p(c | y_j)^w,

the power of the mean in place of the mean of the power; they meet at σ → 0, where one point is left. The exact flow of
`tilted` from a noise far above the data lands on point j with the probability e^{a_j}; `landing_shares` measures where
any denoiser goes.

Soft labels can come from a classifier of clean points, or from the data alone (`soft_labels`): a point's class as its
neighbours have it at noise level σ, P_{−j}(c | y_j; σ), the exact classifier of noisy points that has not seen y_j.

References:
    Ho, Salimans 2022, "Classifier-Free Diffusion Guidance".
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ..denoiser import Denoiser, OptimalDenoiser
from ..numbers import require_whole
from ..randomness import RowNoise, generator_of
from ..samplers import Solver, sample
from ..schedule import grid

__all__ = ["landing_shares", "soft_labels", "tilted"]


def tilted(D: OptimalDenoiser, log_probabilities: Float[Tensor, " N"], weight: float = 1.0) -> OptimalDenoiser:
    """The optimum of p_w(x0) ∝ p(x0) p(c | x0)^w; of the class at w = 1, of all data at w = 0.

    Args:
        D: the optimum of the data, under its own prior.
        log_probabilities: (N,), log p(c | y_j) of one class c, finite; hard labels, of 0 and 1, are `given`.
        weight: w, finite.

    Raises:
        ValueError: log-probabilities of another length, or not finite, or above 0; a weight that is not finite.

    Example:
        >>> D = OptimalDenoiser(torch.tensor([[-1.0], [1.0]]))
        >>> log_p = torch.tensor([0.2, 0.8], dtype=torch.float64).log()
        >>> tilted(D, log_p, 2.0).log_weights.exp()        # 0.2² and 0.8² over their sum
        tensor([0.0588, 0.9412], dtype=torch.float64)
    """
    values = torch.as_tensor(log_probabilities).detach().double()
    if values.shape != (len(D),):
        raise ValueError(
            f"log_probabilities must be one a data point, {len(D)} of them, got shape {tuple(values.shape)}"
        )
    wrong = ~(values.isfinite() & (values <= 0))
    if wrong.any():
        raise ValueError(
            f"log_probabilities must be finite and at most 0, got {float(values[wrong][0]):g}: give D.given(label) for "
            "hard labels"
        )
    if not math.isfinite(weight):
        raise ValueError(f"weight must be finite, got {weight:g}")
    return D.weighted(weight * values)


def soft_labels(D: OptimalDenoiser, sigma: float) -> Float[Tensor, "N C"]:
    """log P_{−j}(c | y_j; σ), (N, C) float64, on the CPU: what the other points say of the class of each, exactly.

    The kernel classifier of bandwidth σ, leaving the point out; a copy of it in another class counts. Columns are
    `D.classes`; a class of which the point itself is all has −∞.

    Args:
        D: the optimum of data with labels; all points have a probability.
        sigma: noise level that the neighbours are seen at, > 0: labels are hard far below the data's distances.

    Raises:
        ValueError: data without labels, or of one class; as for `OptimalDenoiser.posterior`.

    Example:
        >>> from optimal import Dataset
        >>> points, labels = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]]), torch.tensor([0, 0, 1, 1])
        >>> soft_labels(OptimalDenoiser(Dataset("four", points.numpy(), labels.numpy())), 2.0).exp()
        tensor([[0.6574, 0.3426],
                [0.4866, 0.5134],
                [0.5134, 0.4866],
                [0.3426, 0.6574]], dtype=torch.float64)
    """
    labels, classes = D.labels, D.classes
    if len(classes) < 2:
        raise ValueError(f"soft labels are of two classes or more, the data have {len(classes)}")
    prior = D.log_weights.cpu()
    logits = torch.full((len(D), len(classes)), -torch.inf, dtype=torch.float64)
    for column, label in enumerate(classes.tolist()):
        own, of_class = (labels == label).nonzero().squeeze(1), D.given(label)
        own = own[prior[own] > -torch.inf]
        others = (labels != label).nonzero().squeeze(1)
        seen = of_class.posterior(D.take(others).double(), sigma).log_density.cpu()
        logits[others, column] = seen + prior[own].logsumexp(0)
        if len(own) > 1:
            left = of_class.without(own).posterior(D.take(own).double(), sigma).log_density.cpu()
            points = of_class.points
            rest = points.log_share_without(points.inner(own.to(points.device))).cpu()
            logits[own, column] = left + prior[own].logsumexp(0) + rest
    return logits.log_softmax(1)


def landing_shares(
    denoiser: Denoiser,
    D: OptimalDenoiser,
    sigmas: Tensor,
    *,
    draws: int = 1024,
    solver: str | Solver = "heun",
    generator: torch.Generator | None = None,
) -> Float[Tensor, " N"]:
    """The share of noises that a denoiser takes nearest to each data point, (N,) float64, on the CPU.

    Args:
        denoiser: that is sampled, guided say.
        D: the optimum of the data, whose points are counted; of copies the first counts.
        sigmas: (n + 1,) decreasing noise levels, the last 0.
        draws: noises at the first of them.
        solver: one that draws no noise.
        generator: of the noises; without one, a fresh generator with a fixed seed.

    Raises:
        ValueError: draws below 1; an end that is not finite.

    Example:
        >>> from optimal import karras
        >>> D = OptimalDenoiser(torch.tensor([[-1.0], [1.0]]))
        >>> landing_shares(D, D, karras(18), draws=4000)
        tensor([0.4928, 0.5072], dtype=torch.float64)
    """
    draws = require_whole("draws", draws)
    noises = RowNoise(generator_of(generator)).draw((draws, *D.event)).to(D.points.device)
    ends = sample(denoiser, (float(grid(sigmas)[0]) * noises).float(), sigmas, solver=solver)
    if not torch.isfinite(ends).all():
        raise ValueError("the ends of the denoiser are not finite")
    index = D.first_copies()[D.nearest(ends).cpu()]
    return index.bincount(minlength=len(D)).double() / draws
