"""The empirical distribution: N data points, of equal probability or under a prior, and what they may be asked."""

from .differences import Leads, leads
from .empirical import Points
from .prior import Prior
from .prior import checked as checked_log_weights
from .prior import drawn as drawn_places
from .ranges import in_range
from .rows import evenly
from .summary import Summary

__all__ = ["Leads", "Points", "Prior", "Summary", "checked_log_weights", "drawn_places", "evenly", "in_range", "leads"]
