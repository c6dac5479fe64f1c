"""The empirical distribution: N data points, each with probability 1/N, and what may be asked of them (`D.points`)."""

from .differences import Leads, leads
from .empirical import Points
from .ranges import in_range
from .rows import evenly
from .summary import Summary

__all__ = ["Leads", "Points", "Summary", "evenly", "in_range", "leads"]
