"""Words about grids that are made for the data."""

from __future__ import annotations

import numpy as np
from wording import Arrays, pct, table

_SHOWN = (3, 4, 5, 6, 8, 10)


def schedules(a: Arrays) -> str:
    names, calls = a["schedules/grids"].tolist(), a["schedules/calls"].tolist()
    wrong = a["schedules/wrong"]
    shown = [n for n in _SHOWN if n in calls]
    rows = [
        [name, *("" if np.isnan(wrong[i, calls.index(n), 0]) else pct(wrong[i, calls.index(n)]) for n in shown)]
        for i, name in enumerate(names)
    ]
    return table(["calls", *map(str, shown)], rows)
