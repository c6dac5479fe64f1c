"""The empirical distribution: N data points, each with probability 1/N, and what may be asked of them (`D.points`)."""

from .differences import Leads, leads
from .empirical import Points, Summary
from .rows import evenly

__all__ = ["Leads", "Points", "Summary", "evenly", "leads"]
