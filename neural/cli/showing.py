"""`python -m neural audit` and `report`: what is written to be looked at."""

from __future__ import annotations

from typing import Any

from optimal.cli import as_json, in_words, parse_options, plain, writable
from optimal.cli.run import say

from ..commands import QUICK_DRAWS, QUICK_SAMPLES, Audit, Report
from ..wanted import Wanted
from .words import dataset_of, held_out_of

__all__ = ["audit", "report"]


def audit(command: Audit) -> None:
    """A table of copies, its summary, and a sheet of the closest."""
    # What draws is not loaded by commands that draw nothing.
    from ..report.audited import about, audited, both, planned

    options: Any = {
        "data_options": parse_options(command.option),
        "sample_options": parse_options(command.sample_option),
    }
    if command.dry_run:
        training, drawn = both(command.data, command.samples, **options)
        said = about(training, drawn) | {"samples": len(drawn), "seconds": planned(training, drawn)}
        text = f"{training.describe()}\n{len(drawn):,} samples of {drawn.name}; about {in_words(said['seconds'])}"
        print(as_json(said) if command.json else f"{text}; nothing was audited")
        return
    out = writable(command.out, "audit", ".csv", ".json", ".png")
    found, said, files = audited(command.data, command.samples, out, near=command.near, say=say, **options)
    names = [str(file) for file in files]
    if command.json:
        print(as_json({"sentence": found.sentence()} | said | found.summary() | {"files": names}))
    else:
        print(f"{found.sentence()}\n{', '.join(names)}")


def report(command: Report) -> None:
    """A page with pictures, and the tables behind it."""
    from ..report.plan import Effort, Plan
    from ..report.reported import about, prepared, provided, reported
    from ..report.study import planned

    effort = Effort(command.draws, command.n)
    if command.quick:
        effort = Effort(min(command.draws, QUICK_DRAWS), min(command.n, QUICK_SAMPLES), likelihood=0)
    given = prepared(
        command.models,
        dataset_of(command),
        wanted=Wanted.of(command),
        held_out=held_out_of(command),
        device=command.device,
        batch=command.batch,
        say=say,
    )
    sigmas = None if command.sigmas is None else list(command.sigmas)
    plan = Plan(given.held_out, sigmas, command.steps, effort, command.seed)
    if command.dry_run:
        data, names = given.data, [model.name for model in given.networks]
        seconds = planned(given.networks, data, plan)
        said: dict[str, Any] = {"dataset": data.name, "fingerprint": data.fingerprint, "models": names}
        text = f"{data.describe()}\n{', '.join(names)}; about {in_words(seconds)}; nothing was measured"
        print(as_json(said | {"seconds": seconds}) if command.json else text)
        return
    found, files = reported(given, plan, provided(command.out), say=say)
    if command.json:
        rows = [plain(row) for row in found.rows()]
        print(as_json(about(found) | {"rows": rows, "files": [str(file) for file in files]}))
    else:
        print("\n".join([*(sentence for network in found.networks for sentence in network.sentences()), str(files[0])]))
