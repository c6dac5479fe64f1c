"""The processes of one `torchrun`: collectives that check what they are given and say what failed.

Every message is preceded by 128 bytes that say which call it belongs to and sum up its arguments, so that ranks that
were given different queries, or make different calls, are told so before a pass over the data rather than after it.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed

from ..storage import running

__all__ = ["Ranks"]

_CALLS = ("posterior", "gradient or covariance_product", "gradient to sigma", "weights", "nearest")
_ARGUMENTS = 5
_SAME = 1e-9
"""Arguments that differ by less, relative to their norm, are the same: ranks on unlike processors round differently."""
_GOLDEN = (5**0.5 - 1) / 2
_GRACE = 0.2
"""Seconds that the system may take to record the end of a process whose connections it has closed."""


class Ranks:
    """This process among those that share the data.

    The process group is the one that is there, else that of torchrun's environment (gloo for tensors on the CPU, nccl
    for CUDA), else there is none and this process is alone. With one rank nothing is sent.

    Args:
        timeout: seconds that a rank waits for the others, for a group that is made here.

    Attributes:
        rank, count: of this process, and how many there are.

    Raises:
        ValueError: timeout not positive.
        RuntimeError: the others were not found in time; and, from every method, a rank died or did not answer.
    """

    def __init__(self, timeout: float):
        if not timeout > 0:
            raise ValueError(f"timeout must be a positive number of seconds, got {timeout:g}")
        self.rank, self.count = 0, 1
        self._processes: list[tuple[str, int]] = []
        if not distributed.is_available():
            return
        if not distributed.is_initialized() and {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys():
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            with self._guarded("meeting of the ranks"):
                distributed.init_process_group(backend, timeout=timedelta(seconds=timeout))
            # Left to the end of the interpreter, gloo's threads can abort a process that is done.
            atexit.register(_leave)
        if distributed.is_initialized():
            self.rank, self.count = distributed.get_rank(), distributed.get_world_size()
            self._processes = self.objects((socket.gethostname(), os.getpid()), "meeting of the ranks")

    def objects(self, mine: Any, what: str) -> list[Any]:
        """What every rank has to say, in the order of ranks."""
        everyone: list[Any] = [mine]
        if self.count > 1:
            everyone = [None] * self.count
            with self._guarded(what):
                distributed.all_gather_object(everyone, mine)
        return everyone

    def gather(self, mine: Tensor, what: str) -> Tensor:
        """(R, *shape) for tensors of one shape on all ranks."""
        if self.count == 1:
            return mine[None]
        parts = [torch.empty_like(mine) for _ in range(self.count)]
        with self._guarded(what):
            distributed.all_gather(parts, mine.contiguous())
        return torch.stack(parts)

    def sum(self, values: Tensor, what: str) -> Tensor:
        """Σ over ranks, in the memory of `values`."""
        return self._reduce(values, what, "SUM")

    def maximum(self, values: Tensor, what: str) -> Tensor:
        """max over ranks, in the memory of `values`."""
        return self._reduce(values, what, "MAX")

    def agree(self, call: str, device: torch.device, **arguments: Tensor) -> None:
        """Check that all ranks make this call with these arguments.

        Raises:
            ValueError: they do not; on all ranks.
        """
        if self.count == 1:
            return
        summary = torch.zeros(1 + 3 * _ARGUMENTS, dtype=torch.float64, device="cpu")
        summary[0] = _CALLS.index(call)
        for place, values in enumerate(arguments.values()):
            summary[1 + 3 * place : 4 + 3 * place] = _summary(values)
        everyone = self.gather(summary.to(device), f"check of the arguments of {call}").cpu()
        for rank, other in enumerate(everyone):
            if other[0] != everyone[0, 0]:
                one, two = (_CALLS[int(row[0])] for row in (everyone[0], other))
                raise ValueError(
                    "all ranks must make the same calls in the same order: "
                    f"rank 0 asks for {one}, rank {rank} for {two}"
                )
        for place, name in enumerate(arguments):
            size, norm, projection = everyone[:, 1 + 3 * place : 4 + 3 * place].T
            apart = (projection - projection[0]).abs() > _SAME * norm[0]
            apart |= (size != size[0]) | (norm.isnan() != norm[0].isnan())
            if apart.any():
                raise ValueError(
                    f"all ranks must be given the same {name}: that of rank {int(apart.nonzero()[0])} differs from "
                    "that of rank 0 (with a seeded generator every rank draws the same noise)"
                )

    def _reduce(self, values: Tensor, what: str, operation: str) -> Tensor:
        if self.count > 1:
            with self._guarded(what):
                distributed.all_reduce(values, getattr(distributed.ReduceOp, operation))
        return values

    @contextlib.contextmanager
    def _guarded(self, what: str) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            gone = self._gone()
            reason = f"{gone} died" if gone else "a rank died or did not answer in time"
            raise RuntimeError(
                f"rank {self.rank} of {self.count} cannot go on, the {what} failed: {reason} "
                f"({str(error).splitlines()[0]})"
            ) from error

    def _gone(self) -> str:
        """The ranks on this machine whose process is no more, in words; nothing where that cannot be told."""
        here, until = socket.gethostname(), time.monotonic() + _GRACE
        local = {rank: pid for rank, (host, pid) in enumerate(self._processes) if host == here}
        while local:
            gone = [f"rank {rank} (process {pid} on {here})" for rank, pid in local.items() if not running(pid)]
            if gone or time.monotonic() > until:
                return " and ".join(gone)
            time.sleep(0.01)
        return ""


def _summary(values: Tensor) -> Tensor:
    """Size, norm scaled for the tolerance, and a projection that no exchange of entries leaves the same, (3,)."""
    flat = values.detach().double().flatten()
    direction = torch.arange(1, len(flat) + 1, dtype=torch.float64, device=flat.device).mul_(_GOLDEN).frac_().sub_(0.5)
    norm = flat.norm() * direction.norm()
    return torch.stack([torch.full_like(norm, float(len(flat))), norm, (flat * direction).sum()]).cpu()


def _leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()
