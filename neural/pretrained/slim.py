"""A run without what only its training needs: the averaged network of every stage, in half precision if that will do.

What is left is the folder of a run like any other, which everything that opens runs can open; only training cannot go
on from it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from torch import Tensor

from .. import checkpoint
from ..config import Distillation, Experiment
from ..saved import STUDENT, is_distillation

__all__ = ["HALF", "slim"]

HALF = torch.float16
_LOGS = ("metrics.csv", "gap.csv")
_ROWS = 200
"""Rows of a log that are kept, evenly spread: a curve needs no more."""


def slim(run: str | Path, into: str | Path, *, half: bool, stages: tuple[int, ...] | None = None) -> int:
    """Write the networks of a run into a folder, which is made anew.

    Args:
        run: the folder of a finished training or distillation.
        into: the folder to write.
        half: whether weights are kept in half precision.
        stages: of progressive distillation, the steps of those that are kept; None: all.

    Returns:
        the bytes of all its files.

    Raises:
        ValueError: no run, a damaged one, or a folder that cannot be written.
    """
    run, into = Path(run), Path(into)
    parts = [run]
    if is_distillation(run):
        parts = sorted(path for path in run.glob("*/") if checkpoint.checkpoints(path))
        if stages is not None:
            parts = [path for path in parts if path.name in {f"steps-{steps}" for steps in stages}]
    if not parts or not checkpoint.checkpoints(parts[0]):
        raise ValueError(f"{run} holds no finished training")
    try:
        shutil.rmtree(into, ignore_errors=True)
        into.mkdir(parents=True)
        if is_distillation(run):
            shutil.copyfile(run / STUDENT, into / STUDENT)
        for part in parts:
            _network(part, into / part.relative_to(run), half)
    except OSError as error:
        raise ValueError(f"{into} cannot be written: {error.strerror or error}") from error
    return sum(path.stat().st_size for path in into.rglob("*") if path.is_file())


def _network(part: Path, into: Path, half: bool) -> None:
    path = checkpoint.latest(part)
    kind = Distillation if checkpoint.kind(path) == "Distillation" else Experiment
    tensors, step, config = checkpoint.read(path, kind)
    kept = {name: _as_kept(value, half) for name, value in tensors.items() if name.startswith("average.")}
    checkpoint.write(into, step, kept, config, checkpoint.about(path))
    for name in _LOGS:
        if (part / name).exists():
            checkpoint.replace_text(into / name, _thinned((part / name).read_text()))


def _as_kept(value: Tensor, half: bool) -> Tensor:
    return value.to(HALF) if half and value.dtype == torch.float32 else value


def _thinned(text: str) -> str:
    """The head, and at most so many steps, the last one among them; rows of one step stay together."""
    head, *rows = text.splitlines()
    steps = list(dict.fromkeys(row.partition(",")[0] for row in rows))
    stride = -(-len(steps) // _ROWS)
    chosen = set(steps[::-1][:: max(stride, 1)])
    return "\n".join([head, *(row for row in rows if row.partition(",")[0] in chosen)]) + "\n"
