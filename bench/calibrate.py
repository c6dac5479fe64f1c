"""Solvers of few calls for digits, calibrated on exact landings: `python bench/calibrate.py`, about ten minutes.

Their numbers are kept in figures/calibrated.json, from where the figure `schedules` takes them and judges them on other
starts.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from optimal import OptimalDenoiser, load
from optimal.schedules import calibrated, starts_of
from optimal.theories import Wiener

FILE = Path(__file__).parents[1] / "figures" / "calibrated.json"
CALLS, STARTS, STEPS, SEED = (2, 3, 4, 5, 6), 8192, 1500, 1


def main() -> None:
    data = load("digits")
    D = OptimalDenoiser(data)
    linear = Wiener(D)
    starts = starts_of(D, STARTS, SEED, purpose="design", progress=True)
    solvers = []
    for n in CALLS:
        numbers = dataclasses.asdict(calibrated(starts, n, linear, steps=STEPS, progress=True))
        solvers.append({name: numbers[name] for name in ("levels", "gains", "shares")})
    about = {"dataset": data.name, "fingerprint": data.fingerprint, "seed": SEED, "starts": STARTS, "steps": STEPS}
    FILE.write_text(json.dumps(about | {"solvers": solvers}, indent=1) + "\n")


if __name__ == "__main__":
    main()
