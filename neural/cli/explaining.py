"""`python -m neural explain`: what a network does instead of the optimum, as tables and one page."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import torch

from optimal import OptimalDenoiser, seeking_refining_border
from optimal.cli import announce, as_json, as_table, in_words, plain, seconds_of_a_row, suffixed, writable
from optimal.cli.estimate import around, pace_of, seconds_of_the_border
from optimal.cli.run import say
from optimal.denoiser import Denoiser
from optimal.devices import require_room
from optimal.query import level_list
from optimal.storage import replacing

from ..commands import QUICK_DRAWS, Explain
from ..ended import Endings, endings
from ..explained import OPTIMUM, Explained, explain
from ..heldout import check_held_out
from ..measures import evaluate, save_table
from ..model import Model
from ..named import opened
from ..places import STEPS, default_sigmas, range_of, require_range
from ..theories import MODES, Fitted, families, theories_of, with_parameter, with_windows_of_local
from ..wanted import Wanted
from .words import as_words, dataset_of, held_out_of

__all__ = ["explain_command"]

_QUICK_NOISES, _CALLS = 8, 35
_PASSES = 30
"""Of the data, that mixtures take."""
_WITHIN = 0.2
"""Seconds in which a theory is timed."""


def explain_command(command: Explain) -> None:
    """Tables and a page of a network beside theories."""
    # It loads what draws.
    from ..report.accounted import accounted_page

    draws = min(command.draws, QUICK_DRAWS) if command.quick else command.draws
    noises = min(command.n, _QUICK_NOISES) if command.quick else command.n
    for name, value, least in (("draws", draws, 2), ("tried", command.tried, 1)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if noises == 1 or noises < 0:
        raise ValueError(f"n must be 0, or at least 2, got {noises}")
    (model,), data, _ = opened(
        [command.model], dataset_of(command), device=command.device, batch=command.batch, wanted=Wanted(), say=say
    )
    held_out = held_out_of(command, data)
    D = OptimalDenoiser(data)
    # x0, ε, x and three answers.
    for name, value in (("draws", draws), ("tried", command.tried), ("n", noises)):
        require_room(name, value, 6 * D.points.dim)
    # All that may be refused before all that takes long.
    given = None if command.sigmas is None else level_list(command.sigmas)
    if given is not None:
        require_range(given, range_of(model))
    out = Path(command.out) if command.dry_run else writable(command.out, "explanation", *_endings_of(noises))
    places = ["data", *(["held-out"] if held_out is not None else []), "trajectory"]
    levels = len(default_sigmas(D, 1.0) if given is None else given)
    seconds = _planned(model, D, levels, len(places), draws, command.tried, noises)
    if command.dry_run:
        effort = f"{levels} levels, {draws} draws on {', '.join(places)}, {noises} noises"
        plan = f"{model.name}: {effort}; about {in_words(seconds)}"
        told = as_json({"dataset": data.name, "fingerprint": data.fingerprint, "plan": plan, "seconds": seconds})
        print(told if command.json else f"{data.describe()}\n{plan}; nothing was computed")
        return
    announce(seconds, say)
    apart = None if held_out is None else check_held_out(D, held_out, progress=True)
    border = seeking_refining_border(D, progress=True)
    sigmas = default_sigmas(D, border.sigma, range_of(model)) if given is None else given
    known = families(D, progress=True)
    options: dict[str, Any] = {"sigmas": sigmas, "seed": command.seed, "progress": True}
    found: list[Explained] = []
    chosen: list[str] = []
    theories: dict[str, Any] = {}
    fitted: dict[str, dict[str, Denoiser]] = {}
    for place in places:
        going = place == "trajectory"
        if going or not theories:
            theories = theories_of(model, D, known=known, trajectory=going, draws=command.tried, **options)
            fitted[place] = theories
            chosen += _chosen(theories, place)
        on: Any = place if going else apart if place == "held-out" else None
        found.append(explain(model, D, theories, on=on, draws=draws, **options))
    last = endings(model, D, theories, n=noises, seed=command.seed, progress=True) if noises else None
    about = {"dataset": data.name, "fingerprint": data.fingerprint, "command": as_words(command), "chosen": chosen}
    about["sentences"] = [sentence for each in found for sentence in each.sentences()]
    about["sentences"] += [] if last is None else [last.sentence()]
    files = [suffixed(out, ".html"), suffixed(out, "-theories"), suffixed(out, "-endings")]
    save_table([plain(row) for each in found for row in each.rows()], files[1], about)
    if last is not None:
        save_table([plain(row) for row in last.rows()], files[2], about)
    with replacing(files[0]) as temporary:
        temporary.write_text(accounted_page(found, last, data, border, fitted), encoding="utf-8")
    named = [str(suffixed(out, ending)) for ending in _endings_of(noises)]
    if command.json:
        print(as_json(about | {"theories": [row for each in found for row in each.rows()], "files": named}))
    else:
        print("\n".join([data.describe(), *_tables(found), *_endings(last), *about["sentences"], ", ".join(named)]))


def _endings_of(noises: int) -> list[str]:
    """What follows the name in the files that are written."""
    tables = ["theories", "endings"] if noises else ["theories"]
    return [".html", *(f"-{table}.{kind}" for table in tables for kind in ("csv", "json"))]


def _planned(model: Model, D: OptimalDenoiser, levels: int, places: int, draws: int, tried: int, noises: int) -> float:
    """Seconds, about: the network, the optimum and theories of a parameter, that from the middle of its values, are
    timed at one level. What is made of the data first, the border and the mixtures, is not made for that."""
    sigma = min(max(D.standard_deviation or 1.0, range_of(model)[0]), range_of(model)[1])
    asked, fits = places * levels * draws + _CALLS * noises, 1 + (places > 1)
    x = next(around(D, max(draws, noises), [sigma]))[0]
    total = seconds_of_a_row(model, x[: model.batch], sigma) * (asked + 2 * STEPS * draws)
    mixtures = sum(modes for modes in MODES if len(D) >= 10 * modes)
    optimum = pace_of(D.posterior, [(x, sigma)])
    total += seconds_of_the_border(D) + optimum.seconds(_PASSES * mixtures + asked, _PASSES)
    known = with_parameter(D)
    sample = torch.ones(1, dtype=torch.float64)
    timed: dict[str, Denoiser] = {
        name: Fitted(family.make, sample, (family.values[len(family.values) // 2],), D.event)
        for name, family in known.items()
    }
    for name, theory in with_windows_of_local(D, timed).items():
        # What has no values that are tried may take half a second for a row.
        some = x[:tried] if name in known else x[:1]
        row = pace_of(partial(evaluate, theory), [(some, sigma)], within=_WITHIN).seconds(len(some)) / len(some)
        values = len(known[name].values) if name in known else 0
        total += row * (fits * levels * tried * values + asked)
    return total


def _chosen(theories: dict[str, Any], place: str) -> list[str]:
    """The parameters that suit the network, a sentence a theory."""
    lines: list[str] = []
    for name, theory in theories.items():
        if isinstance(theory, Fitted):
            pairs = zip(theory.sigmas.tolist(), theory.values, strict=True)
            values = ", ".join(
                f"{value:.3g}{' (the last tried)' if value in theory.cut else ''} at {sigma:.3g}"
                for sigma, value in reversed(list(pairs))
            )
            lines.append(f"{name} on {place}, by σ: {values}")
    return lines


def _tables(found: list[Explained]) -> list[str]:
    """What each theory accounts for, in percent, a column a theory."""
    lines: list[str] = []
    for each in found:
        names = each.theories
        rows: list[list[str]] = []
        for sigma in reversed(each.sigmas):
            share = float(each.at(sigma, OPTIMUM).columns["gap_share"].value)
            cells = (float(each.at(sigma, name).columns["accounted"].value) for name in names)
            told = ("-" if math.isnan(c) else f"{100 * c:z.0f}" for c in cells)
            rows.append([f"{sigma:.3g}", f"{100 * share:.3g}", *told])
        head = "the gap, in % of the data's spread, and % of its deviation from the optimum that each accounts for"
        lines += ["", f"{each.name} on {each.on}: {head}"]
        lines.append(as_table(["sigma", "gap", *names], rows))
    return [*lines, ""]


def _endings(last: Endings | None) -> list[str]:
    if last is None:
        return []

    def interval(row: dict[str, Any], name: str) -> str:
        return f"{row[name]:z.3g} [{row[f'{name}_low']:z.3g}, {row[f'{name}_high']:z.3g}]"

    rows = [
        [row["theory"], *(interval(row, name) for name in ("pearson", "r_square", "distance"))] for row in last.rows()
    ]
    return [as_table(["same noises under", "median Pearson with the network's", "mean R²", "distance"], rows), ""]
