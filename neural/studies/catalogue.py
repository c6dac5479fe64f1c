"""The studies that there are."""

from __future__ import annotations

import difflib

from .difficulty import DIFFICULTY
from .generalise import GENERALISE
from .grids import GRIDS
from .plan import Study
from .theories import THEORIES

__all__ = ["STUDIES", "study"]

STUDIES: dict[str, Study] = {each.name: each for each in (GENERALISE, DIFFICULTY, GRIDS, THEORIES)}
"""By name."""


def study(name: str) -> Study:
    """A study by its name.

    Raises:
        ValueError: there is none.
    """
    if name not in STUDIES:
        near = difflib.get_close_matches(name, STUDIES, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"there is no study {name!r}; {hint}there are {', '.join(STUDIES)}")
    return STUDIES[name]
