"""Other weights on the same points: mirrors and shifts, and guidance between two optima."""

from .base import Orbit as Orbit
from .guidance import Guided as Guided
from .guidance import guided as guided
from .orbits import Group as Group
from .orbits import orbit as orbit
