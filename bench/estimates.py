"""What commands say that they will take, and what they take: every estimate of time, held to a run.

    .venv/bin/python bench/estimates.py [--only border report] [--most 300]

Every command runs in a process of its own, from an empty folder, and is told to say its time however short it is. What
it took is counted from there to its end; what came before, reading the data and timing a few rows, has a column of its
own. Two of each kind: data that are small, and data where the sums over them are what takes the time. The promise is a
ratio between 0.5 and 2 where a time is said at all, from ten seconds on.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from optimal.cli import estimate

COMMANDS = (
    "optimal info digits",
    "optimal info faces",
    "optimal denoise faces @0 --sigma 1 --add-noise",
    "optimal where digits @0 --sigma 1 --add-noise",
    "optimal where faces @0 --sigma 1 --add-noise",
    "optimal where emoji @0 --sigma 1 --add-noise",
    "optimal border digits",
    "optimal border faces",
    "optimal border digits --orbit flip",
    "optimal sample digits -n 1000",
    "optimal sample digits -n 500 --solver reverse_sde --steps 50",
    "optimal sample digits -n 300 --solver consistency --steps 4",
    "optimal sample faces -n 64",
    "optimal sample emoji -n 64",
    "optimal schedule digits -n 8",
    "optimal schedule digits -n 8 --objective entropy",
    "optimal schedule faces -n 8 --objective gaussian",
    "optimal schedule faces -n 4 --quick",
    "neural sample pretrained:digits -n 2000",
    "neural sample pretrained:faces -n 64",
    "neural compare pretrained:digits --quick",
    "neural compare pretrained:digits",
    "neural compare pretrained:faces --quick",
    "neural audit digits digits",
    "neural audit faces faces",
    "neural report pretrained:digits",
    "neural report pretrained:digits --quick",
    "neural report pretrained:faces --quick",
    "neural report pretrained:digits-consistency --quick",
    "neural explain pretrained:toy",
    "neural explain pretrained:digits --draws 16 --tried 4 -n 2",
    "neural explain pretrained:faces --draws 4 --tried 2 -n 2",
    "neural explain pretrained:digits --quick",
    "neural likelihood pretrained:digits",
    "neural likelihood pretrained:toy -n 16",
    "neural train toy --steps 2000",
    "neural train digits --steps 300",
    "neural distill toy --steps 1000",
    "figures border",
    "figures border --quick",
    "figures grids --quick",
    "figures steps",
    "figures fig1",
)


@dataclass
class Config:
    """What is timed."""

    only: tuple[str, ...] = ()
    """Words that a command must contain, one of them."""
    most: float = 600.0
    """Seconds after which a command is stopped, and has no ratio."""


def main(config: Config) -> list[dict[str, float | str | None]]:
    """Prints a row a command: seconds before anything was said, seconds said, seconds taken, said over taken."""
    rows = []
    print(f"{'command':68} {'before':>7} {'said':>7} {'took':>7} {'ratio':>6}")
    for command in COMMANDS:
        if config.only and not any(word in command for word in config.only):
            continue
        row = measured(command, config.most)
        rows.append(row)
        cells = [f"{row[name]:7.1f}" if isinstance(row[name], float) else f"{'-':>7}" for name in _COLUMNS]
        said, took = row["said"], row["took"]
        ratio = f"{said / took:6.2f}" if isinstance(said, float) and isinstance(took, float) else f"{'-':>6}"
        print(f"{command:68} {' '.join(cells)} {ratio}", flush=True)
    return rows


_COLUMNS = ("before", "said", "took")


def measured(command: str, most: float) -> dict[str, float | str | None]:
    """One command in a process of its own."""
    root = Path(__file__).parents[1]
    surroundings = os.environ | {"PYTHONPATH": str(root)}
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, str(Path(__file__).resolve()), _ALONE, *command.split()]
        try:
            done = subprocess.run(words, cwd=folder, env=surroundings, capture_output=True, text=True, timeout=most)
        except subprocess.TimeoutExpired:
            return {"command": command, "before": None, "said": None, "took": None}
    if done.returncode != 0:
        raise SystemExit(f"{command}: {done.stderr[-2000:]}")
    return {"command": command} | json.loads(done.stdout.splitlines()[-1])


_ALONE = "--one-command"


def _alone(package: str, words: list[str]) -> None:
    """Runs one command in this process, and prints what it said and took as JSON."""
    told: list[tuple[float, float]] = []

    def noted(seconds: float) -> str:
        told.append((float(seconds), time.perf_counter()))
        return f"{seconds:g}"

    run = importlib.import_module(f"{package}.__main__").main
    estimate.LONG, estimate.in_words = 0.0, noted
    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        code = run(words)
    ended = time.perf_counter()
    if code:
        raise SystemExit(code)
    said, when = told[0] if told else (None, began)
    print(json.dumps({"before": when - began, "said": said, "took": ended - when}))


if __name__ == "__main__":
    if sys.argv[1:2] == [_ALONE]:
        _alone(sys.argv[2], sys.argv[3:])
    else:
        main(tyro.cli(Config))
