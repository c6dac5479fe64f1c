"""`python -m neural compare`: tables of networks beside the optimum."""

from __future__ import annotations

import math
from typing import Any

from optimal.cli import as_json, as_table, in_words, plain, suffixed, writable
from optimal.cli.run import say

from ..answers import Compared, Plan, compared, planned
from ..commands import QUICK_DRAWS, QUICK_SAMPLES, Compare
from ..measures import save_table
from ..named import opened
from ..teachers import optimum_of
from ..wanted import Wanted
from .words import as_words, dataset_of, held_out_of

__all__ = ["compare"]

_ABOVE = (
    "* above 1: worse there than a network that always answers the mean of the data; so is a student, which answers "
    "one point and not the mean of those that x may have come from"
)
_GAPS = (
    "gap: E‖F − D‖² between network and optimum. share: over E‖D − mean of the data‖², 0 is the optimum, 1 the mean. "
    "Last column: its weight in dx/dσ = (x − F)/σ"
)
_SAMPLES = (
    "same: end on the data point of the exact flow, or nearest to it. distance: root mean square, to that point. "
    "wasserstein: to the data. memorised: nearer to one point than a third of the distance to the second. coverage: "
    "different nearest points, over those of as many perfect draws"
)
_WIDER = (
    "coverage above 1: the samples are nearest to more different data points than as many perfect draws are on average"
)


def compare(command: Compare) -> None:
    """Tables of networks beside the optimum, as denoisers and as samplers."""
    if not command.models:
        raise ValueError("name at least one model to compare with the optimum")
    plan = Plan(
        on=command.on,
        sigmas=command.sigmas,
        draws=min(command.draws, QUICK_DRAWS) if command.quick else command.draws,
        n=min(command.n, QUICK_SAMPLES) if command.quick else command.n,
        steps=command.steps,
        solver=command.solver,
        sigma_min=command.sigma_min,
        sigma_max=command.sigma_max,
        seed=command.seed,
    )
    wanted = Wanted.of(command)
    options: dict[str, Any] = {"device": command.device, "batch": command.batch, "wanted": wanted}
    models, data, guided = opened(command.models, dataset_of(command), say=say, **options)
    held_out = held_out_of(command, data)
    if command.dry_run:
        seconds = planned(models, optimum_of(data, models[0].device), plan, plan.places(held_out))
        names = ", ".join(model.name for model in models)
        effort = f"optimum, {names}; {_effort(plan)}; about {in_words(seconds)}"
        told = as_json({"dataset": data.name, "fingerprint": data.fingerprint, "plan": effort, "seconds": seconds})
        print(told if command.json else f"{data.describe()}\n{effort}; nothing was compared")
        return
    out = writable(command.out, "comparison", *(f"-{k}.{s}" for k in ("denoiser", "samplers") for s in ("csv", "json")))
    found = compared(models, data, plan, held_out=held_out, guided=guided, say=say)
    about = found.about | wanted.told() | {"held_to": wanted.sentences()}
    about |= {"sentences": found.sentences(), "remarks": found.remarks(), "command": as_words(command)}
    files = []
    for kind, rows in (("denoiser", found.denoisers), ("samplers", found.samplers)):
        path = suffixed(out, f"-{kind}")
        save_table([plain(row) for row in rows], path, about)
        files += [f"{path}.csv", f"{path}.json"]
    if command.json:
        print(as_json(about | {"denoisers": found.denoisers, "samplers": found.samplers, "files": files}))
    else:
        head = [data.describe(), *wanted.sentences(), _effort(plan), ""]
        print("\n".join([*head, *_tables(found), "", ", ".join(files)]))


def _effort(plan: Plan) -> str:
    return f"{plan.draws:,} draws at every noise level, {plan.n:,} samples of every method"


def _tables(found: Compared) -> list[str]:
    """What is read first: how far each network is from the optimum, where most, and what its samples are."""
    lines = []
    for each in found.measured:
        rows = []
        for row in each.rows():
            gap = _interval(row, "gap_per_value")
            share = _interval(row, "gap_share") + ("*" if row["gap_share"] > 1 else "")
            weight = row["gap_per_value"] / row["sigma"] ** 2
            rows.append([f"{row['sigma']:.4g}", gap, share, f"{weight:.3g}"])
        lines += [
            f"{each.name} on {each.on}",
            as_table(["sigma", "gap per value", "share", "gap per value/sigma²"], rows),
        ]
        if any(row["gap_share"] > 1 for row in each.rows()):
            lines.append(_ABOVE)
        lines += [each.sentence(), ""]
    lines += [*found.remarks(), ""] if found.remarks() else []
    lines[-1:] = [_GAPS, ""]
    head = ["method", "calls", "same", "distance", "wasserstein", "memorised", "coverage"]
    own = any("same_pairs" in row for row in found.samplers)
    rows = [
        [
            row["method"],
            str(row["nfe"]),
            _interval(row, "same"),
            *(_interval(row, name) for name in ("distance", "wasserstein", "memorised", "coverage")),
            *([_interval(row, "same_pairs")] if own else []),
        ]
        for row in found.samplers
    ]
    lines += [as_table(head + (["same on own pairs"] if own else []), rows), _SAMPLES]
    # As it is printed: all of five points are 1.0008 of what 32 draws reach.
    if any(float(f"{row['coverage']:.3g}") > 1 for row in found.samplers):
        lines.append(_WIDER)
    return lines


def _interval(row: dict[str, Any], name: str) -> str:
    value = row[name]
    return f"{value:.3g} [{row[f'{name}_low']:.3g}, {row[f'{name}_high']:.3g}]" if math.isfinite(value) else "-"
