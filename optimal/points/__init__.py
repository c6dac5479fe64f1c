"""The empirical distribution: N data points, each with probability 1/N, and what may be asked of them (`D.points`)."""

from .empirical import Points, evenly

__all__ = ["Points", "evenly"]
