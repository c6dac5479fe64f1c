"""Optima whose rows know different points: each those of its own class, or all but its own point.

With labels c_j of the points, π_c = Σ_{c_j = c} π_j and D_c the optimum of the points of class c alone,

    P(c | x) = π_c p_c(x; σ)/p(x; σ),    D = Σ_c P(c | x) D_c,    ∇ log P(c | x) = (D_c − D)/σ²,

P(c | x) the exact classifier of noisy points. The classes part the data, so that one scan of them, with sums for
every class, gives all D_c and all P(c | x), and rows of different classes the sums of their own (`evaluate.parted`).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from .evaluate.parted import EachPart, OwnPart, Parts, Shared
from .masks import refuse_mask
from .posterior import Posterior
from .query import Levels, require_rows

if TYPE_CHECKING:
    from .denoiser import OptimalDenoiser

__all__ = ["ByClass", "GivenLabels", "LeaveOneOut", "by_class", "log_weights_of_class", "of_class", "whole_numbers"]

_CLASSES: WeakKeyDictionary[OptimalDenoiser, dict[int, OptimalDenoiser]] = WeakKeyDictionary()
"""The optima of classes that have been asked for."""


@dataclass(frozen=True)
class ByClass:
    """All classes at once.

    Attributes:
        classes: (C,) int64, their labels.
        log_probabilities: (B, C) float64, log P(c | x); gradients flow to x and σ.
        means: (B, C, *event), D_c(x, σ), in the dtype of x.
    """

    classes: Tensor
    log_probabilities: Tensor
    means: Tensor


def whole_numbers(name: str, value: object) -> int | Tensor:
    """A whole number as an int, also one of NumPy and a tensor or array (); several, (B,), as int64.

    Raises:
        ValueError: anything else.
    """
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return int(value)
    refuse_mask(name, value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "iu":
        value = torch.from_numpy(value.astype(np.int64))
    if not isinstance(value, Tensor) or value.dtype == torch.bool or value.is_floating_point() or value.is_complex():
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{name} must be a whole number, or a tensor or array (B,) of them, got {kind}")
    if value.ndim == 0:
        return int(value)
    if value.ndim != 1:
        raise ValueError(f"{name} must be one, or one a row, (B,), got shape {tuple(value.shape)}")
    return value.detach().long()


def of_class(D: OptimalDenoiser, label: int) -> OptimalDenoiser:
    """The optimum of the points of D of one class, made once.

    Raises:
        ValueError: data without labels, or without this one.
    """
    known = _CLASSES.setdefault(D, {})
    if label not in known:
        # Normal tensors: what is kept may be asked for gradients later.
        with torch.inference_mode(False), torch.no_grad():
            known[label] = D.weighted(log_weights_of_class(D.labels, label, D.classes))
    return known[label]


def log_weights_of_class(labels: Int[Tensor, " N"], label: int, classes: Int[Tensor, " C"]) -> Float[Tensor, " N"]:
    """0 for the points of one class and −inf for all others, (N,) float64.

    Args:
        labels: of all points.
        label: the class.
        classes: those that there are, for the message.

    Raises:
        ValueError: there is no such class.
    """
    if label not in classes.tolist():
        few = ", ".join(map(str, classes[:10].tolist())) + (", …" if len(classes) > 10 else "")
        raise ValueError(f"there are no points of class {label}, the classes are {few}")
    return torch.where(labels == label, 0.0, -torch.inf).double()


def by_class(D: OptimalDenoiser, x: Num[Tensor, "B *event"], sigma: Levels) -> ByClass:
    """P(c | x) and D_c(x, σ) of every class: one scan of the data."""
    parts, shares = _parts(D), _log_shares(D)
    shared, optima = Shared(parts), [copy.copy(of_class(D, label)) for label in D.classes.tolist()]
    for place, own in enumerate(optima):
        own.evaluator = EachPart(parts, place, shared)
    with D.points.rows.checked_once():
        posts = [own.posterior(x, sigma) for own in optima]
    logits = torch.stack([post.log_density for post in posts], 1) + shares.to(x.device)
    return ByClass(D.classes, logits.log_softmax(1), torch.stack([post.mean for post in posts], 1))


def _parts(D: OptimalDenoiser) -> Parts:
    """The points of every class, those of `D.classes`."""
    return Parts(D.evaluator, [of_class(D, label).evaluator for label in D.classes.tolist()])


def _log_shares(D: OptimalDenoiser) -> Tensor:
    """log π_c of every class, (C,) float64, on the CPU."""
    labels, log_weights = D.labels, D.log_weights.cpu()
    return torch.stack([log_weights[labels == label].logsumexp(0) for label in D.classes.tolist()])


class GivenLabels:
    """E[x0 | x, c] with a label for every row, a `Denoiser` of B rows: see `OptimalDenoiser.given`.

    Attributes:
        D: the optimum of all classes.
        labels: (B,) int64.
        event: shape of one point.
    """

    def __init__(self, D: OptimalDenoiser, labels: Int[Tensor, " B"]):
        self.D, self.event, self.labels = D, D.event, labels
        for label in self.labels.unique().tolist():
            of_class(D, label)
        own = torch.searchsorted(D.classes, labels.cpu().contiguous())
        self._log_share = _log_shares(D)[own]
        self._own = copy.copy(D)
        self._own.evaluator = OwnPart(_parts(D), own)

    def __repr__(self) -> str:
        return f"{self.D!r}.given({len(self.labels)} labels)"

    def __len__(self) -> int:
        return len(self.D)

    def __call__(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, "B *event"]:
        """Row b is D_c(x_b, σ_b), c its label.

        Raises:
            ValueError: as for `OptimalDenoiser`; another number of rows than of labels.
        """
        require_rows(x, self.event, len(self.labels), "labels")
        return self._own(x, sigma)

    def score(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, "B *event"]:
        """∇ log p(x | c; σ) = (D_c − x)/σ², (B, *event)."""
        require_rows(x, self.event, len(self.labels), "labels")
        return self._own.score(x, sigma)

    def posterior(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Posterior:
        """p(x0 | x, c) of every row; `top_index` counts in the data, `log_density` is log p(x | c; σ)."""
        require_rows(x, self.event, len(self.labels), "labels")
        post = self._own.posterior(x, sigma)
        return replace(post, log_density=post.log_density - self._log_share.to(x.device))


class LeaveOneOut:
    """E[x0 | x] where row b does not know one point, a `Denoiser` of B rows: see `OptimalDenoiser.without`.

    Args:
        D: the optimum whose sums leave them out.
        index: (B,) int64, which points, counted in the data.
        log_share: (B,) float64, log of the probability of all others.

    Attributes:
        index: as given.
        event: shape of one point.
    """

    def __init__(self, D: OptimalDenoiser, index: Int[Tensor, " B"], log_share: Float[Tensor, " B"]):
        self._D, self.event, self.index, self._log_share = D, D.event, index, log_share

    def __repr__(self) -> str:
        return f"{self._D!r}.without({len(self.index)} points)"

    def __len__(self) -> int:
        return len(self._D)

    def __call__(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, "B *event"]:
        """Row b is E[x0 | x_b] over all points but its own.

        Raises:
            ValueError: as for `OptimalDenoiser`; another number of rows than of points left out.
        """
        require_rows(x, self.event, len(self.index), "index")
        return self._D(x, sigma)

    def score(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, "B *event"]:
        """∇ log p(x; σ) = (D − x)/σ² without the points, (B, *event)."""
        require_rows(x, self.event, len(self.index), "index")
        return self._D.score(x, sigma)

    def posterior(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Posterior:
        """p(x0 | x) without the points; `log_density` is that of the others, normalised."""
        require_rows(x, self.event, len(self.index), "index")
        post = self._D.posterior(x, sigma)
        return replace(post, log_density=post.log_density - self._log_share.to(x.device))
