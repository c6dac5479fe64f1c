"""What the README and the gallery say of grids made for the data, of the arrays "schedules/NAME" that are drawn."""

from __future__ import annotations

import numpy as np
from wording import Arrays, held, pct, table

_SHOWN = (3, 4, 5, 6, 8, 9, 10, 24)
_ALLOWED = 0.05


def thesis(a: Arrays) -> str:
    """The paper's claim, in two sentences, of the same arrays."""
    names, calls, wrong = a["schedules/grids"].tolist(), a["schedules/calls"].tolist(), a["schedules/wrong"]
    four = wrong[names.index("the same, calibrated"), calls.index(4)]
    edm, own, begun = (_range(a, name) for name in ("EDM (ρ = 7)", "landings", "landings, from the Gaussian"))
    return (
        f"The paper says that samplers need many steps to get through the mode-seeking part, and hopes for 1 to 4. On "
        f"digits DPM-Solver++ 3M ends on the exact flow's image, but for at most 5%, in {edm} calls on EDM's grid, in "
        f"{own} on levels made for digits, in {begun} begun where their Gaussian leads; calibrated, {pct(four)} are "
        "wrong in 4."
    )


def _range(a: Arrays, name: str) -> str:
    """Calls needed, and by the ends of the interval."""
    value, low, high = (_needed(a, name, end) for end in range(3))
    return f"{value} [{low}, {high}]"


def _needed(a: Arrays, name: str, end: int = 0) -> int:
    """Calls from which on the share, or the low or the high end of its interval, is at most 5%."""
    names, calls, wrong = a["schedules/grids"].tolist(), a["schedules/calls"].tolist(), a["schedules/wrong"]
    shares = wrong[names.index(name), :, end]
    kept = [(n, share) for n, share in zip(calls, shares, strict=True) if np.isfinite(share)]
    late = [n for i, (n, _) in enumerate(kept) if all(share <= _ALLOWED for _, share in kept[i:])]
    held(bool(late), f"{name} reaches 5%")
    return late[0]


def schedules(a: Arrays) -> str:
    names, calls, wrong = a["schedules/grids"].tolist(), a["schedules/calls"].tolist(), a["schedules/wrong"]
    shown = [n for n in _SHOWN if n in calls]

    def at(name: str, n: int) -> np.ndarray:
        return wrong[names.index(name), calls.index(n)]

    rows = [[name, *("" if np.isnan(at(name, n)[0]) else pct(at(name, n)) for n in shown)] for name in names]
    own, begun, numbers = "landings", "landings, from the Gaussian", "the same, calibrated"
    held(_needed(a, begun) <= _needed(a, own) < _needed(a, "EDM (ρ = 7)"), "designed grids need fewer calls")
    of = f"{int(a['schedules/judged_on']):,} starts on which none of them was designed"
    return (
        f"Shares of wrong landings on digits, of {of}:\n\n"
        + table(["calls", *map(str, shown)], rows)
        + f"\n\nFor at most 5% DPM-Solver++ 3M needs {_range(a, 'EDM (ρ = 7)')} calls on EDM's grid (of those tried; "
        "brackets by the ends of the 95% interval of the share), "
        f"{_range(a, own)} on levels made for the data, and {_range(a, begun)} of them where the flow of the data's "
        "Gaussian goes the first part in no call. The paper's hope is 1 to 4 calls: where the numbers of every step "
        f"are calibrated, too, 4 leave {pct(at(numbers, 4))} and 5 {pct(at(numbers, 5))}, 3 {pct(at(numbers, 3))} and "
        f"2 {pct(at(numbers, 2))}."
    )
