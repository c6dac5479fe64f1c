"""The figures there are, drawn one by one or as many at a time as there are cores."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from types import ModuleType

from tqdm import tqdm

from neural.report.pictures import plain_style
from optimal.cli.estimate import announce
from optimal.cli.run import say

from . import (
    border,
    difficulty,
    distilled,
    explore,
    fewstep,
    fig1,
    generalise,
    grids,
    guidance,
    measurements,
    prop4,
    samples,
    schedules,
    steps,
    students,
    theories,
    trained,
    trajectories,
)
from .config import Config
from .output import save
from .waiting import seconds
from .workers import begin, finished

__all__ = ["FIGURES", "PAGES", "foretell", "make", "make_together"]

FIGURES: dict[str, ModuleType] = {
    "fig1": fig1,
    "border": border,
    "trajectories": trajectories,
    "steps": steps,
    "schedules": schedules,
    "distilled": distilled,
    "prop4": prop4,
    "grids": grids,
    "trained": trained,
    "generalise": generalise,
    "students": students,
    "difficulty": difficulty,
    "samples": samples,
    "fewstep": fewstep,
    "guidance": guidance,
    "measurements": measurements,
    "theories": theories,
}
PAGES: dict[str, ModuleType] = {"explore": explore}
"""Pages of their own, which draw themselves."""


def make(name: str, config: Config) -> str:
    """Draw a figure; what there is to say about it."""
    start = time.perf_counter()
    module = (FIGURES | PAGES)[name]
    arrays = module.compute(config)
    lines = []
    for part in ("toy_", ""):
        if f"{part}dataset" in arrays:
            data, size, event, mark = (arrays[part + key] for key in ("dataset", "size", "event", "fingerprint"))
            lines.append(f"{data}: N = {int(size):,}, shape {event}, fingerprint {mark}")
    if name in PAGES:
        path = module.write(config, arrays)
    else:
        with plain_style():
            path = save(name, module.TITLE, config, arrays, module.draw(arrays))
    return "\n".join([*lines, f"{name}: {path} ({time.perf_counter() - start:.0f} s)"])


def foretell(names: list[str], config: Config, together: int = 1) -> None:
    """Say how long figures will take, if that is long, drawn so many at a time."""
    announce(sum(seconds(name, (FIGURES | PAGES)[name], config) for name in names) / together, say)


def make_together(names: list[str], config: Config, tell: Callable[[str], object] = tqdm.write) -> None:
    """In this order, as many at a time as there are cores, on one thread each: most of it is too small for two."""
    # The command line's own class is known to no other process.
    plain = Config(**{field.name: getattr(config, field.name) for field in dataclasses.fields(Config)})
    jobs = [(name, plain) for name in names]
    left, workers = [name for name, _ in jobs], min(len(jobs), os.cpu_count() or 1)
    # Each has one core: what is known of two takes about one and a half times as long.
    foretell(names, config, together=max(1, round(workers / 1.5)))
    with tqdm(total=len(jobs), desc="figures", unit="figure") as bar:
        for done in finished(_made, jobs, workers, _begin):
            for name, text in done:
                left.remove(name)
                tell(text)
                bar.update()
            bar.set_postfix_str(f"left: {', '.join(left)}" if left else "")


def _begin() -> None:
    # The parent is interrupted too, and ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Bars of several processes would write over each other; what they warn of is still to be seen.
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    warnings.showwarning = lambda message, *_, **__: say(f"warning: {message}", file=sys.__stderr__)
    begin()


def _made(job: tuple[str, Config]) -> tuple[str, str]:
    name, config = job
    return name, make(name, config)
