"""`python -m neural report MODEL… --dataset DATA --out FOLDER`: the page, its pictures and its tables."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from optimal import Dataset, Guided
from optimal.cli import announce, no_empty_folder, plain, writable
from optimal.cli.estimate import Say
from optimal.storage import remove_abandoned, temporary_folder

from ..heldout import require_held_out_event
from ..measures import save_table
from ..model import Model
from ..named import ALL, OPTIMUM, opened
from ..wanted import Wanted
from .audited import sheet
from .charts import DARK, LIGHT, drawn, gap_chart, points_chart, ratio_chart
from .origin import fingerprint_of, trained_on
from .page import html
from .plan import Plan
from .study import Study, study

__all__ = ["Prepared", "about", "prepared", "provided", "reported", "write"]

_OWN = re.compile(r"samples-.+\.(csv|json|png)|points\.png")
"""Files that a report need not write over: those of networks that it does not show."""


@dataclass(frozen=True)
class Prepared:
    """What a report is made of.

    Attributes:
        networks: opened.
        data: the training data, of the class that was asked for.
        held_out: points that were not trained on, of the same class.
        trained: whether all networks are known to have been trained on the data.
        notes: what was told while they were opened.
        wanted: the class, guidance and group that all are asked for.
        guided: the guided optimum that guided networks are held to.
    """

    networks: list[Model]
    data: Dataset
    held_out: Dataset | None
    trained: bool
    notes: tuple[str, ...]
    wanted: Wanted = ALL
    guided: Guided | None = None


def prepared(
    models: Sequence[str],
    data: Dataset | None,
    *,
    wanted: Wanted = ALL,
    held_out: Dataset | None = None,
    device: str = "auto",
    batch: int | None = None,
    say: Say,
) -> Prepared:
    """Open networks by their names.

    Args:
        models: as for `neural.named.opened`, "optimum" among them.
        data: the training data; None takes those of the first run among the models.
        wanted: the class, guidance and group that networks and the optimum are asked for.
        held_out: points that were not trained on, of the class.
        device, batch: as for `neural.open_model`.
        say: told what a user is to know while waiting.

    Raises:
        ValueError: no model; as for `opened`; held-out points of another shape.
    """
    if not models:
        raise ValueError(
            "name at least one network: the folder of a run, pretrained:NAME, diffusers:FOLDER, python:… or optimum"
        )
    notes: list[str] = []

    def told(text: str) -> None:
        notes.append(text.removeprefix("warning: "))
        say(text)

    networks, training, guided = opened(models, data, device=device, batch=batch, wanted=wanted, say=told)
    if held_out is not None:
        require_held_out_event(held_out, training.event)
    # Of a class, runs know the data that it is of; where none are given, these are those of the first run.
    runs = [network for network in networks if network.name != OPTIMUM]
    whole = training.fingerprint if wanted == ALL else fingerprint_of(runs[0]) if data is None else data.fingerprint
    return Prepared(
        networks, training, held_out, trained_on(runs, training.fingerprint, whole), tuple(notes), wanted, guided
    )


def reported(given: Prepared, plan: Plan, out: str | Path, *, say: Say) -> tuple[Study, list[Path]]:
    """Measure networks, and write the report.

    Args:
        given: as `prepared` gives it.
        plan: what is asked for.
        out: folder of the report.
        say: told what a user is to know while waiting.

    Returns:
        What was measured, and the files, the page first.

    Raises:
        ValueError: as for `study` and `write`.
    """
    found = study(
        given.networks,
        given.data,
        held_out=plan.held_out,
        guided=given.guided,
        sigmas=plan.sigmas,
        steps=plan.steps,
        effort=plan.effort,
        seed=plan.seed,
        level=plan.level,
        progress=True,
        say=lambda seconds: announce(seconds, say),
        tell=say,
    )
    found = dataclasses.replace(found, trained=given.trained, notes=given.notes, wanted=given.wanted)
    files = write(found, out)
    written = {path.name for path in files}
    older = sorted(path.name for path in Path(out).iterdir() if _OWN.fullmatch(path.name) and path.name not in written)
    if older:
        say(f"{out} also has {', '.join(older)} of an earlier report, which this page does not show")
    return found, files


def provided(out: str | Path) -> Path:
    """A folder for a report, tried before any work: written to, and taken away again where it was not there.

    Raises:
        ValueError: nothing can be written there.
    """
    return writable(out, "report", folder=True)


def write(study: Study, out: str | Path) -> list[Path]:
    """Write index.html, gap.csv, .json and .png, ratio.png, and samples-NAME.csv, .json and .png of every network.

    All are written beside their places first, and moved there when there are all, the page last: what is interrupted
    while they are written changes nothing.

    Args:
        study: what was measured.
        out: folder, made if it is not there.

    Returns:
        The files, index.html first.

    Raises:
        ValueError: the folder cannot be written.
    """
    folder = Path(out)
    charts = {"gap": gap_chart, "ratio": ratio_chart}
    if not study.data.is_image and math.prod(study.data.event) <= 2:
        charts["points"] = points_chart
    pictures = {
        name: (drawn(partial(draw, study), LIGHT), drawn(partial(draw, study), DARK)) for name, draw in charts.items()
    }
    try:
        with _placed(folder) as building:
            files = _tables(study, building)
            for name, (light, _) in pictures.items():
                files.append(building / f"{name}.png")
                files[-1].write_bytes(light)
            names = [path.name for path in files]
            (building / "index.html").write_text(html(study, pictures, names), encoding="utf-8")
    except (OSError, ValueError) as failed:
        error = failed if isinstance(failed, OSError) else failed.__cause__
        if not isinstance(error, OSError):
            raise
        raise ValueError(f"the report could not be written to {folder}: {error.strerror or error}") from error
    return [folder / name for name in ("index.html", *names)]


@contextlib.contextmanager
def _placed(folder: Path) -> Iterator[Path]:
    """A folder within `folder` whose files are moved there when the block ends well, the page last; else none is."""
    with no_empty_folder(folder):
        folder.mkdir(parents=True, exist_ok=True)
        remove_abandoned(folder)
        building = temporary_folder(folder)
        try:
            yield building
            files = sorted(building.iterdir(), key=lambda path: path.name == "index.html")
            for path in files:
                with path.open("rb+") as file:
                    os.fsync(file.fileno())
            for path in files:
                os.replace(path, folder / path.name)
        finally:
            shutil.rmtree(building, ignore_errors=True)


def _tables(study: Study, folder: Path) -> list[Path]:
    said = about(study)
    save_table([plain(row) for row in study.rows()], folder / "gap", said)
    files = [folder / "gap.csv", folder / "gap.json"]
    for network, name in zip(study.networks, _slugs([each.name for each in study.networks]), strict=True):
        if network.found is None:
            continue
        path = folder / f"samples-{name}"
        network.found.save(path, said | {"network": network.name, "nfe": network.nfe, "sigma_max": network.first})
        files += [path.with_name(f"{path.name}.csv"), path.with_name(f"{path.name}.json")]
        if study.data.is_image:
            samples = Dataset(network.name, network.samples.float().cpu().numpy())
            files.append(sheet(network.found, samples, study.D, path.with_name(f"{path.name}.png")))
    return files


def about(study: Study) -> dict[str, Any]:
    """What the JSON files say beside their rows: data, border, what was drawn, and all that has no table of its own."""
    border = study.border
    return {
        "dataset": study.data.name,
        "trained": study.trained,
        **study.wanted.told(),
        "held_to": study.wanted.sentences(),
        "notes": list(study.notes),
        "fingerprint": study.data.fingerprint,
        "held_out": study.held_out,
        "border": plain({"sigma": border.sigma, "low": border.low, "high": border.high}),
        "draws": study.effort.draws,
        "seed": study.seed,
        "level": study.level,
        "sentences": [sentence for network in study.networks for sentence in network.sentences()],
        "networks": [
            {
                "name": network.name,
                "steps": network.steps,
                "nfe": network.nfe,
                "doubt": network.doubt,
                "remarks": network.remarks(),
                "likelihood": [plain(each.row()) for each in network.densities],
                "pairs": None if network.pairs is None else plain(network.pairs),
            }
            for network in study.networks
        ],
    }


def _slugs(names: Sequence[str]) -> list[str]:
    """File names of names, all different."""
    out: list[str] = []
    for name in names:
        slug = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[-60:] or "network"
        while slug in out:
            slug += "-"
        out.append(slug)
    return out
