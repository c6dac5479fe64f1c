"""Other priors on the points of an optimum: `OptimalDenoiser`'s methods that give another one, of the same data.

Any prior π_j ∝ e^{a_j} (`weighted`), a class (`given`), all points but one (`without`), and what a measurement leaves
(`measured`, `observed`). The mathematics and the answers of each stand in `optimal.points.prior`, `optimal.rowwise`,
`optimal.measurement` and `optimal.kernel`.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Literal, cast, overload

import numpy as np
import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from .datasets import Dataset
from .evaluate import Evaluator
from .evaluate.left_out import LeftOutEvaluator
from .evaluate.sharded import ShardedEvaluator
from .kernel import Smoothed, Tempered
from .measured_rows import GivenMeasurements
from .measurement import GivenMeasurement, Operator, gaussian_log_likelihood
from .points import Points, checked_log_weights
from .query import Levels
from .rowwise import ByClass, GivenLabels, LeaveOneOut, by_class, of_class, whole_numbers

if TYPE_CHECKING:
    from .denoiser import OptimalDenoiser

__all__ = ["OtherPriors"]

One = int | np.integer[Any]
"""A class, or a data point."""


class OtherPriors:
    """The part of `OptimalDenoiser` that goes on to other priors; nothing else is one.

    Attributes:
        data, points, evaluator: see there.
        knows_observation: whether the prior has the likelihood of an observation in it: `measured`, `observed`. It is
            that of the points as they lie, and says nothing of their images under a group.
    """

    knows_observation: bool = False

    data: Dataset | Tensor | np.ndarray
    points: Points
    evaluator: Evaluator

    @property
    def _optimum(self) -> OptimalDenoiser:
        return cast("OptimalDenoiser", self)

    def weighted(self, log_weights: Float[Tensor, " N"] | np.ndarray) -> OptimalDenoiser:
        """The optimum under another prior: point j has the probability π_j ∝ e^{a_j} where it had 1/N.

        w_j ∝ exp(a_j − ‖x − y_j‖²/2σ²). A constant added to all a_j changes nothing, a_j + log 2 is point j listed
        twice, and −inf takes it away; `log_density` is that of the normalised prior. The data, their norms and the
        budget are shared with this denoiser. Everything that says which point it is counts in the data, as ever.

        Args:
            log_weights: (N,), a_j, of any real dtype; taken as float64.

        Raises:
            ValueError: log-weights of another length, nan or beyond 1e150; no point is left.

        Example:
            >>> from optimal import OptimalDenoiser
            >>> D = OptimalDenoiser(torch.tensor([[-1.0], [1.0]])).weighted(torch.tensor([0.0, 1.0]))
            >>> D(torch.tensor([[0.0]]), 1.0)              # tanh(1/2)
            tensor([[0.4621]])
        """
        out = copy.copy(self._optimum)
        out.evaluator = self.evaluator.weighted(checked_log_weights(log_weights, self.points.of))
        out.points = out.evaluator.points
        return out

    @property
    def labels(self) -> Int[Tensor, " N"]:
        """The class of every data point, (N,) int64, on the CPU.

        Raises:
            ValueError: data without labels, or with labels that are no classes.
        """
        if not isinstance(self.data, Dataset):
            raise ValueError("data without labels have no classes: give a Dataset that has them")
        return torch.from_numpy(self.data.classes)

    @property
    def classes(self) -> Int[Tensor, " C"]:
        """The labels that points with a probability have, (C,) int64, increasing."""
        return self.labels[self.log_weights.cpu() > -torch.inf].unique()

    @overload
    def given(self, labels: One) -> OptimalDenoiser: ...
    @overload
    def given(self, labels: Int[Tensor, "B"] | np.ndarray) -> GivenLabels: ...
    def given(self, labels: One | Int[Tensor, "B"] | np.ndarray) -> OptimalDenoiser | GivenLabels:
        """The class-conditional optimum, E[x0 | x, c]: of the points of class c alone.

        Args:
            labels: one class, for an `OptimalDenoiser` of its points; or (B,) whole numbers, for a denoiser of B rows
                that each have their own. Each row takes the points of its class only.

        Raises:
            ValueError: data without labels, a label that no point has.

        Example:
            >>> from optimal import OptimalDenoiser, load
            >>> D = OptimalDenoiser(load("digits"))
            >>> seven = D.given(7)
            >>> D.labels[seven.nearest(torch.zeros(1, 1, 8, 8))]
            tensor([7])
        """
        wanted = whole_numbers("labels", labels)
        return of_class(self._optimum, wanted) if isinstance(wanted, int) else GivenLabels(self._optimum, wanted)

    def by_class(self, x: Num[Tensor, "B *event"], sigma: Levels) -> ByClass:
        """P(c | x) and D_c(x, σ) for all classes c, in one pass over the data: D = Σ_c P(c | x) D_c.

        Raises:
            ValueError: as for a call; data without labels.
        """
        return by_class(self._optimum, x, sigma)

    def class_log_probabilities(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, "B C"]:
        """log P(c | x) of every class of `classes`, (B, C) float64: the exact classifier of noisy points.

        Its gradient to x is (D_c − D)/σ².

        Raises:
            ValueError: as for `by_class`.
        """
        return by_class(self._optimum, x, sigma).log_probabilities

    @overload
    def without(self, index: One) -> OptimalDenoiser: ...
    @overload
    def without(self, index: Int[Tensor, "B"] | np.ndarray) -> LeaveOneOut: ...
    def without(self, index: One | Int[Tensor, "B"] | np.ndarray) -> OptimalDenoiser | LeaveOneOut:
        """The optimum that does not know a data point: D_{−j} = (D − w_j y_j)/(1 − w_j), summed and not subtracted.

        Only that entry of the data is left out; copies of it, if there are any, stay.

        Args:
            index: one data point, for an `OptimalDenoiser` of all others; or (B,), for a denoiser of B rows of which
                row b does not know point index[b], in one pass over the data.

        Raises:
            ValueError: no whole numbers from 0 to N − 1; no point with a probability is left.
        """
        wanted = whole_numbers("index", index)
        one = isinstance(wanted, int)
        places = torch.tensor([wanted]) if one else wanted
        wrong = (places < 0) | (places >= self.points.of)
        if wrong.any():
            raise ValueError(f"index must lie between 0 and {self.points.of - 1}, got {int(places[wrong][0])}")
        if one:
            a = torch.zeros(self.points.of, dtype=torch.float64)
            a[places] = -torch.inf
            return self.weighted(a)
        own = self.points.inner(places.to(self.points.device))
        if self.points.size == 1 and (own >= 0).any():
            raise ValueError("index must leave at least one point with a probability, there is one only")
        out = copy.copy(self._optimum)
        if isinstance(self.evaluator, ShardedEvaluator):
            out.evaluator = self.evaluator.without(own)
        else:
            out.evaluator = LeftOutEvaluator(self.points, self.evaluator.accuracy, own)
        return LeaveOneOut(out, places, self.points.log_share_without(own))

    @overload
    def measured(
        self, operator: Operator, observation: Tensor | np.ndarray, noise: float, *, rows: Literal[False] = False
    ) -> GivenMeasurement: ...
    @overload
    def measured(
        self, operator: Operator, observation: Tensor | np.ndarray, noise: float, *, rows: Literal[True]
    ) -> GivenMeasurements: ...
    def measured(
        self, operator: Operator, observation: Tensor | np.ndarray, noise: float, *, rows: bool = False
    ) -> GivenMeasurement | GivenMeasurements:
        """E[x0 | x, y] given a measurement of x0: y = A(x0) + η, η ~ N(0, noise² I).

        Each data point's log-likelihood, −‖y − A(y_j)‖²/2 noise², is added to its prior: one pass over the data. With
        A = 1 it is the optimum of one observation of noise level (1/σ² + 1/noise²)^−½.

        Args:
            operator: A, one of three: a mask, bool, of the shape of a point, True where x0 is seen; a matrix (m, D) on
                the flattened point; or any function of batches, (B, *event) float64 -> (B, *out), linear or not.
            observation: y. Under a mask of the shape of a point, what it hides not looked at; of a matrix (m,); (*out).
            noise: standard deviation of each value of η, in units of the observation, > 0. An exact observation is for
                `observed`: 0 for the points that agree with it and −inf for others. Noise that is correlated, η = L ε,
                is that of the operator L⁻¹A and the observation L⁻¹y, with noise 1.
            rows: whether there is an observation for every row, (B, *out), for a denoiser of B rows that each know
                their own.

        Raises:
            ValueError: an operator or observation of another shape, or not finite; a noise that is not positive.

        Example:
            >>> from optimal import OptimalDenoiser
            >>> D = OptimalDenoiser(torch.tensor([[-1.0, 2.0], [1.0, 3.0]]))
            >>> M = D.measured(torch.tensor([True, False]), torch.tensor([0.5, torch.nan]), noise=1.0)
            >>> M.log_weights.exp()                        # (1 ± tanh(0.5))/2
            tensor([0.2689, 0.7311], dtype=torch.float64)
        """
        found = gaussian_log_likelihood(self._optimum, operator, observation, noise, rows=rows)
        return GivenMeasurements(self._optimum, found) if rows else GivenMeasurement(self._optimum, found)

    @overload
    def observed(
        self, log_likelihood: Float[Tensor, " N"] | np.ndarray, *, rows: Literal[False] = False
    ) -> GivenMeasurement: ...
    @overload
    def observed(
        self, log_likelihood: Float[Tensor, "B N"] | np.ndarray, *, rows: Literal[True]
    ) -> GivenMeasurements: ...
    def observed(
        self, log_likelihood: Float[Tensor, "*B N"] | np.ndarray, *, rows: bool = False
    ) -> GivenMeasurement | GivenMeasurements:
        """E[x0 | x, y] of any observation y that is independent of x given x0, by its log-likelihood.

        Args:
            log_likelihood: (N,), log p(y | y_j) of every data point; −inf where it excludes the point. A constant that
                is left out changes `log_evidence` and `log_probability` by itself, and nothing else.
            rows: whether there is an observation for every row: (B, N).

        Raises:
            ValueError: as for `weighted`.
        """
        given = GivenMeasurements if rows else GivenMeasurement
        return given(self._optimum, log_likelihood)

    def smoothed(self, bandwidth: float) -> Smoothed:
        """The optimum of the data convolved with N(0, bandwidth² I): a kernel density estimate, or data with noise.

        Raises:
            ValueError: a bandwidth that is negative or not finite.
        """
        return Smoothed(self._optimum, bandwidth)

    def tempered(self, temperature: float) -> Tempered:
        """The optimum with its logits over `temperature`: D(x, σ√T).

        Raises:
            ValueError: a temperature that is not positive and finite.
        """
        return Tempered(self._optimum, temperature)

    @property
    def log_weights(self) -> Float[Tensor, " N"]:
        """log π_j, (N,) float64, normalised: −log N unless `weighted`, −inf of points that have been taken away."""
        own = self.points.log_weight(torch.arange(self.points.size, device=self.points.device))
        if self.points.size == self.points.of:
            return own
        out = torch.full((self.points.of,), -torch.inf, dtype=torch.float64, device=own.device)
        out[self.points.outer(torch.arange(self.points.size, device=own.device))] = own
        return out
