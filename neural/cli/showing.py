"""`python -m neural audit` and `report`: what is written to be looked at."""

from __future__ import annotations

from optimal.cli import parse_options, writable
from optimal.cli.run import say

from ..commands import Audit, Report
from .words import QUICK_DRAWS, QUICK_SAMPLES, dataset_of, held_out_of

__all__ = ["audit", "report"]


def audit(command: Audit) -> None:
    """A table of copies, its summary, and a sheet of the closest."""
    # What draws is not loaded by commands that draw nothing.
    from ..report.audited import audited

    found, files = audited(
        command.data,
        command.samples,
        writable(command.out, "audit"),
        data_options=parse_options(command.option),
        sample_options=parse_options(command.sample_option),
        near=command.near,
        say=say,
    )
    print(f"{found.sentence()}\n{', '.join(map(str, files))}")


def report(command: Report) -> None:
    """A page with pictures, and the tables behind it."""
    from ..report.reported import reported
    from ..report.study import Effort

    found, files = reported(
        command.models,
        dataset_of(command),
        writable(command.out, "report", folder=True),
        label=command.label,
        held_out=held_out_of(command),
        sigmas=command.sigmas,
        steps=command.steps,
        effort=Effort(
            min(command.draws, QUICK_DRAWS) if command.quick else command.draws,
            min(command.n, QUICK_SAMPLES) if command.quick else command.n,
        ),
        device=command.device,
        batch=command.batch,
        seed=command.seed,
        say=say,
    )
    print("\n".join([*(network.sentence() for network in found.networks), str(files[0])]))
