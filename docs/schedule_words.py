"""What the gallery says of grids that are made for the data, of the arrays "schedules/NAME" that are drawn."""

from __future__ import annotations

import numpy as np
from wording import Arrays, held, pct, table

_SHOWN = (3, 4, 5, 6, 8, 9, 10, 24)
_ALLOWED = 0.05


def schedules(a: Arrays) -> str:
    names, calls, wrong = a["schedules/grids"].tolist(), a["schedules/calls"].tolist(), a["schedules/wrong"]
    shown = [n for n in _SHOWN if n in calls]

    def at(name: str, n: int) -> np.ndarray:
        return wrong[names.index(name), calls.index(n)]

    def needed(name: str) -> int:
        """Calls from which on the share is at most 5%."""
        kept = [
            (n, share) for n, share in zip(calls, wrong[names.index(name), :, 0], strict=True) if np.isfinite(share)
        ]
        late = [n for i, (n, _) in enumerate(kept) if all(share <= _ALLOWED for _, share in kept[i:])]
        held(bool(late), f"{name} reaches 5%")
        return late[0]

    rows = [[name, *("" if np.isnan(at(name, n)[0]) else pct(at(name, n)) for n in shown)] for name in names]
    own, begun, numbers = "landings", "landings, from the Gaussian", "the same, calibrated"
    held(needed(begun) <= needed(own) < needed("EDM (ρ = 7)"), "designed grids need fewer calls")
    of = f"{int(a['schedules/judged_on']):,} starts on which none of them was designed"
    return (
        f"Shares of wrong landings on digits, of {of}:\n\n"
        + table(["calls", *map(str, shown)], rows)
        + f"\n\nFor at most 5% DPM-Solver++ 3M needs {needed('EDM (ρ = 7)')} calls on EDM's grid (of those tried), "
        f"{needed(own)} on levels made for the data, and {needed(begun)} of them where the flow of the data's Gaussian "
        "goes the first part in no call. The paper's hope is 1 to 4 calls: where the numbers of every step are "
        f"calibrated, too, 4 leave {pct(at(numbers, 4))} and 5 {pct(at(numbers, 5))}, 3 {pct(at(numbers, 3))} and 2 "
        f"{pct(at(numbers, 2))}."
    )
