"""Which of several theories is nearest to a network, as one answer: tables, sentences and pages are made of it.

At one noise level, F the network, D the optimum and T the theory of least E‖F − T‖²:

    optimum     E‖F − D‖² is less than a thousandth of E‖D − ȳ‖²: there is nothing to account for
    none        T does not surely account for a twentieth of E‖F − D‖²; the optimum may be as near as can be told
    nearest     T, and those that cannot be told from it
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from optimal.intervals import Interval, mean_interval

__all__ = ["LEAST", "LITTLE", "OPTIMUM", "Verdict", "listed", "nearest_of", "needed_to_tell", "whole_percent"]

OPTIMUM = "optimum"
LEAST = 1e-3
"""Share below which a level is left out of the verdict: the network is the optimum there but for a thousandth."""
LITTLE = 0.05
"""Of the deviation: what accounts for less is no explanation."""
_FAR = 100


@dataclass(frozen=True)
class Verdict:
    """The answer at one noise level.

    Attributes:
        kind: of the module.
        names: the theories that no other is surely nearer than, the nearest first; of "none" the optimum may be one.
        share: of the deviation that the first accounts for, with an interval that allows for the choice; 0 is in it
            where the optimum is among the names.
    """

    kind: Literal["optimum", "none", "nearest"]
    names: tuple[str, ...]
    share: Interval

    @property
    def words(self) -> str:
        """What a sentence says of the level."""
        if self.kind == "optimum":
            return "the network is the optimum, but for less than a thousandth of what the optimum says"
        if self.kind == "none":
            return "no theory surely accounts for a twentieth of the deviation"
        others = f", as near as can be told {listed(self.names[1:])}" if self.names[1:] else ""
        return f"nearest is {self.names[0]}{others}"


def nearest_of(misses: Mapping[str, Tensor], level: float) -> list[str]:
    """Whose mean is least, first, and who is not surely above it.

    The one of K whose mean is least in truth is among them with the probability `level`, as far as an interval of a
    mean holds it: of the intervals of the differences from the first, over pairs, each has the (K − 1)-th part of what
    may go wrong. With intervals that allow for no others, one that is in truth the least of eleven that are all but
    alike was left out 14 times in 100, now 2 (measured, 2,000 repetitions with 256 draws).

    Args:
        misses: name -> squares of the same draws, (n,) float64.
        level: of the answer.
    """
    order = sorted(misses, key=lambda name: float(misses[name].mean()))
    first, each = misses[order[0]], _each(level, len(order))
    return order[:1] + [n for n in order[1:] if not float(mean_interval(misses[n] - first, each).low) > 0]


def needed_to_tell(near: Tensor, far: Tensor, level: float, count: int) -> str:
    """About how many draws would tell the one from the other among `count`, were all like those that were made.

    (z s/m)² with m and s the mean and standard deviation of the differences and z the normal quantile that
    `nearest_of` holds each pair to; two digits, and "more than" a hundred times the draws where it is.
    """
    from scipy.stats import norm

    differences, n = far - near, len(near)
    mean, spread = float(differences.mean()), float(differences.std())
    quantile = float(norm.ppf((1 + _each(level, count)) / 2))
    most = _FAR * n
    needed = (quantile * spread / mean) ** 2 if mean else math.inf
    if not needed < most:
        return f"more than {most:,}"
    return f"about {int(float(f'{max(needed, n + 1):.2g}')):,}"


def listed(names: Sequence[str]) -> str:
    """a; a and b; a, b and c."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def whole_percent(low: float, high: float) -> str:
    """A range of shares: 18 to 44%, 99%."""
    first, last = f"{100 * low:z.0f}", f"{100 * high:z.0f}"
    return f"{first}%" if first == last else f"{first} to {last}%"


def _each(level: float, count: int) -> float:
    """Of the interval of one difference out of count − 1."""
    return 1 - (1 - level) / max(count - 1, 1)
