"""Optima whose rows know different points: each those of its own class, or all but its own point.

With labels c_j of the points, π_c = Σ_{c_j = c} π_j and D_c the optimum of the points of class c alone,

    P(c | x) = π_c p_c(x; σ)/p(x; σ),    D = Σ_c P(c | x) D_c,    ∇ log P(c | x) = (D_c − D)/σ²,

P(c | x) the exact classifier of noisy points. The classes part the data, so that one pass over them, class by class,
gives all D_c and all P(c | x); and rows of different classes take what their own classes take.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from .posterior import Posterior
from .query import Levels, per_row, require_rows

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


def whole_numbers(name: str, value: object) -> Tensor:
    """value, (B,), as int64.

    Raises:
        ValueError: no tensor of whole numbers with one axis.
    """
    if not isinstance(value, Tensor) or value.dtype == torch.bool or value.is_floating_point() or value.is_complex():
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{name} must be a whole number, or a tensor (B,) of them, got {kind}")
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
    """P(c | x) and D_c(x, σ) of every class: one pass over the data."""
    labels, log_weights = D.labels, D.log_weights.cpu()
    parts = [(label, of_class(D, label)) for label in D.classes.tolist()]
    shares = torch.stack([log_weights[labels == label].logsumexp(0) for label, _ in parts])
    with D.points.rows.checked_once():
        posts = [own.posterior(x, sigma) for _, own in parts]
    logits = torch.stack([post.log_density for post in posts], 1) + shares.to(x.device)
    return ByClass(D.classes, logits.log_softmax(1), torch.stack([post.mean for post in posts], 1))


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

    def __repr__(self) -> str:
        return f"{self.D!r}.given({len(self.labels)} labels)"

    def __len__(self) -> int:
        return len(self.D)

    def __call__(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, "B *event"]:
        """Row b is D_c(x_b, σ_b), c its label.

        Raises:
            ValueError: as for `OptimalDenoiser`; another number of rows than of labels.
        """
        with self.D.points.rows.checked_once():
            return self._joined([D(*part) for D, part in self._parts(x, sigma)], x)

    def score(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, "B *event"]:
        """∇ log p(x | c; σ) = (D_c − x)/σ², (B, *event)."""
        with self.D.points.rows.checked_once():
            return self._joined([D.score(*part) for D, part in self._parts(x, sigma)], x)

    def posterior(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Posterior:
        """p(x0 | x, c) of every row; `top_index` counts in the data, `log_density` is log p(x | c; σ)."""
        with self.D.points.rows.checked_once():
            posts = [D.posterior(*part) for D, part in self._parts(x, sigma)]
        if not posts:
            return self.D.posterior(x, sigma)
        names = (field.name for field in fields(Posterior) if field.name != "method")
        parts = {name: self._joined([getattr(post, name) for post in posts], x) for name in names}
        return Posterior(**parts, method=", ".join(dict.fromkeys(post.method for post in posts)))

    def _parts(self, x: Tensor, sigma: Levels) -> list[tuple[OptimalDenoiser, tuple[Tensor, Tensor]]]:
        """The optimum of each class that has rows, with them and their levels."""
        require_rows(x, self.event, len(self.labels), "labels")
        levels, labels = per_row("sigma", sigma, len(x), x.device, graph=True), self.labels.to(x.device)
        rows = [(label, (labels == label).nonzero().squeeze(1)) for label in labels.unique().tolist()]
        return [(of_class(self.D, label), (x[at], levels[at])) for label, at in rows]

    def _joined(self, parts: list[Tensor], x: Tensor) -> Tensor:
        if not parts:
            return x
        back = self.labels.to(x.device).argsort(stable=True).argsort()
        return torch.cat(parts)[back]


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
