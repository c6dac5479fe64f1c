"""What a reader of the table by noise level is to know of it, a sentence each."""

from __future__ import annotations

from torch import Tensor

__all__ = ["listed", "remarks_on"]

_FEW_DRAWS = 64
"""Below which 95% intervals of the gap's share were seen to hold as little as 0.8."""
_NAMED = 4
"""How many levels are named one by one."""


def listed(sigmas: list[float]) -> str:
    """Where something holds.

    Example:
        >>> listed([0.5]), listed([0.5, 20.0]), listed([0.1, 0.2, 0.3, 0.4, 0.5])
        ('at σ = 0.5', 'at σ = 0.5 and 20', 'at 5 levels from σ = 0.1 to 0.5')
    """
    if len(sigmas) > _NAMED:
        return f"at {len(sigmas)} levels from σ = {min(sigmas):.3g} to {max(sigmas):.3g}"
    *most, last = (f"{sigma:.3g}" for sigma in sigmas)
    return "at σ = " + (f"{', '.join(most)} and {last}" if most else last)


def remarks_on(levels: Tensor, carriers: Tensor, draws: int, dim: int, level: float) -> tuple[str, ...]:
    """Of intervals that hold less than they say, and of columns without numbers.

    Args:
        levels: (S,) noise levels.
        carriers: (S,) int64, see `neural.measuring.Measured`.
        draws: at each level, independent.
        dim: number of values of a point.
        level: of the intervals.
    """
    found = []
    if draws < _FEW_DRAWS:
        found.append(
            f"{draws} draws are fewer than {_FEW_DRAWS}: 95% intervals hold as little as 80% where the gap is uneven"
        )
    few = levels[(carriers == 1) | (carriers == 2)].tolist()
    if few:
        found.append(
            f"one or two draws carry half of the gap {listed(few)}: its intervals hold less than they say there"
        )
    alike = levels[carriers == 0].tolist()
    if alike:
        # With probability 1 − level no draw would show a share of x as large: (1 − share)^n, 3/n for 95%.
        share = 1 - (1 - level) ** (1 / draws)
        where = f"at all {len(levels)} levels" if len(alike) == len(levels) > 1 else listed(alike)
        found.append(
            f"{where} none of {draws:,} draws shows a difference beyond rounding; up to {100 * share:.2g}% of x may "
            f"have one ({100 * level:g}%)"
        )
    lacking = {1: "explained_variance, r_square, pearson and pearson_square are", 2: "explained_variance is"}
    if dim in lacking:
        found.append(f"{lacking[dim]} not defined for points of {dim} value{'s' if dim > 1 else ''}")
    return tuple(found)
