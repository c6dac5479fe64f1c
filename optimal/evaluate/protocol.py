"""What every way to sum over the data takes and returns."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from torch import Tensor

from ..numbers import is_number
from ..points import Points
from .moments import Moments

__all__ = ["METHODS", "Accuracy", "Method", "MethodName", "Tilt"]

MethodName = Literal["auto", "dense", "keops", "screened"]
METHODS: tuple[str, ...] = get_args(MethodName)


@dataclass(frozen=True)
class Accuracy:
    """How the sums are to be made.

    Attributes:
        method: which way; "auto" lets `Evaluator.choose` decide.
        memory: budget in bytes for the temporaries of one call.
        tolerance: largest proven bound on the relative error of the mean, for methods that prove one.
        certified: whether that bound must hold.

    Raises:
        ValueError: unknown method, a budget of no bytes, a tolerance not positive.
    """

    method: str = "auto"
    memory: int = 2**30
    tolerance: float = 1e-3
    certified: bool = True

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, got {self.method!r}")
        if not (is_number(self.memory) and 0 < self.memory < math.inf):
            raise ValueError(f"memory must be a positive number of bytes, got {self.memory!r}")
        if not (is_number(self.tolerance) and 0 < self.tolerance < math.inf):
            raise ValueError(f"tolerance must be positive and finite, got {self.tolerance!r}")


@dataclass(frozen=True)
class Tilt:
    """The coefficients c_j = ⟨direction, y_j − D⟩ + by_log_weight·log w_j + by_distance·‖y_j − D‖² of a gradient.

    Attributes:
        top: (B,) logit of the leader, from `moments`.
        top_weight: (B,) its weight. Apart from `top`, whose rounding can be larger than the weight's logarithm.
        mean: (B, D) float64, D − c.
        direction: (B, D) float64.
        by_log_weight, by_distance: (B,) float64.
    """

    top: Tensor
    top_weight: Tensor
    mean: Tensor
    direction: Tensor
    by_log_weight: Tensor
    by_distance: Tensor

    def at(self, part: slice | Tensor) -> Tilt:
        """Of some of the queries."""
        return Tilt(*(getattr(self, field.name)[part] for field in dataclasses.fields(self)))


class Method(Protocol):
    """A way to sum over the data: a module with these two functions.

    z: (B, D) float64, x − c; sigma: (B,) float64; single: whether float32 products may be used, whose rounding the
    method must then repair.
    """

    __name__: str

    def moments(self, points: Points, z: Tensor, sigma: Tensor, *, single: bool, accuracy: Accuracy) -> Moments:
        """The running sums of `Moments` over the whole data."""
        ...

    def tilt(self, points: Points, z: Tensor, sigma: Tensor, tilt: Tilt, *, single: bool, accuracy: Accuracy) -> Tensor:
        """Σ_j w_j c_j (y_j − D), (B, D), with the c_j of `Tilt`; the gradient of any posterior quantity."""
        ...
