"""Solvers of the probability-flow ODE in coordinates of the data: the same landings, many times faster."""

from .basis import Basis, basis_of
from .few import FewPoints, are_few, few_points
from .sample import SpanSample, landed, sample_in_span, way_of

__all__ = [
    "Basis",
    "FewPoints",
    "SpanSample",
    "are_few",
    "basis_of",
    "few_points",
    "landed",
    "sample_in_span",
    "way_of",
]
