"""`python -m neural train | distill | sample | compare | audit | report | explain | likelihood | pretrain | study`."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

# Before torch starts its threads: beside another busy process they would spin for each other.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from torch import distributed

from optimal.cli.run import run

from . import cli
from .commands import Audit, Compare, Distill, Explain, Likelihood, Pretrain, Report, Sample, Study, Train

__all__ = ["main"]

_DOES: dict[type, Callable[[Any], None]] = {
    Train: cli.train,
    Distill: cli.distill,
    Sample: cli.draw,
    Compare: cli.compare,
    Audit: cli.audit,
    Report: cli.report,
    Explain: cli.explain_command,
    Likelihood: cli.likelihood,
    Pretrain: cli.pretrain,
    Study: cli.study,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code, see `optimal.cli.run`."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    told = "interrupted"
    if words[:1] in (["train"], ["distill"]):
        told += "; what has a checkpoint goes on with --resume"
    elif words[:1] in (["pretrain"], ["study"]):
        told += "; the same command goes on"
    return run(lambda: _do(words), interrupted=told)


def _do(words: list[str]) -> None:
    command = cli.command_of(words, __doc__)
    with _processes():
        _DOES[type(command)](command)


@contextlib.contextmanager
def _processes() -> Iterator[None]:
    """Those that torchrun has started, as a group."""
    launched = "RANK" in os.environ and "WORLD_SIZE" in os.environ and not distributed.is_initialized()
    if not launched:
        yield
        return
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        yield
    finally:
        # What an exception still holds of the group would end the process.
        gc.collect()
        distributed.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
