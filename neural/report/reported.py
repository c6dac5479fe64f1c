"""`python -m neural report MODEL… --dataset DATA --out FOLDER`: the page, its pictures and its tables."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optimal import Dataset
from optimal.cli import announce, plain
from optimal.cli.estimate import Say
from optimal.storage import replacing

from ..measures import save_table
from ..model import Model
from ..named import of_label, opened
from .audited import sheet
from .charts import DARK, LIGHT, drawn, gap_chart, points_chart, ratio_chart
from .page import html
from .plan import Plan
from .study import Study, study

__all__ = ["about", "prepared", "reported", "write"]


def prepared(
    models: Sequence[str],
    data: Dataset | None,
    *,
    label: int | None = None,
    held_out: Dataset | None = None,
    device: str = "auto",
    batch: int | None = None,
    say: Say,
) -> tuple[list[Model], Dataset, Dataset | None]:
    """Open networks by their names; they, their training data and the held-out points.

    Args:
        models: as for `neural.named.opened`, "optimum" among them.
        data: the training data; None takes those of the first run among the models.
        label: the class that networks are asked for; the data, and held_out, are then those of it.
        held_out: points that were not trained on.
        device, batch: as for `neural.open_model`.
        say: told what a user is to know while waiting.

    Raises:
        ValueError: no model; as for `opened`; held-out points of another shape.
    """
    if not models:
        raise ValueError("name at least one network: the folder of a run, diffusers:FOLDER, python:… or optimum")
    networks, training = opened(models, data, device=device, batch=batch, label=label, say=say)
    if held_out is not None and held_out.event != training.event:
        raise ValueError(f"held-out points must have the shape of the data, {training.event}, got {held_out.event}")
    if held_out is not None and label is not None:
        held_out = of_label(held_out, label)
    return networks, training, held_out


def reported(
    networks: Sequence[Model], training: Dataset, plan: Plan, out: str | Path, *, say: Say
) -> tuple[Study, list[Path]]:
    """Measure networks, and write the report.

    Args:
        networks, training: as `prepared` gives them.
        plan: what is asked for.
        out: folder of the report.
        say: told what a user is to know while waiting.

    Returns:
        What was measured, and the files, the page first.

    Raises:
        ValueError: as for `study` and `write`.
    """
    found = study(
        networks,
        training,
        held_out=plan.held_out,
        sigmas=plan.sigmas,
        steps=plan.steps,
        effort=plan.effort,
        seed=plan.seed,
        level=plan.level,
        progress=True,
        say=lambda seconds: announce(seconds, say),
        tell=say,
    )
    return found, write(found, out)


def write(study: Study, out: str | Path) -> list[Path]:
    """Write index.html, gap.csv, .json and .png, ratio.png, and samples-NAME.csv, .json and .png of every network.

    Args:
        study: what was measured.
        out: folder, made if it is not there.

    Returns:
        The files, index.html first.

    Raises:
        ValueError: the folder cannot be written.
    """
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        charts = {"gap": gap_chart, "ratio": ratio_chart}
        if not study.data.is_image and math.prod(study.data.event) <= 2:
            charts["points"] = points_chart
        pictures = {name: (drawn(draw, study, LIGHT), drawn(draw, study, DARK)) for name, draw in charts.items()}
        files = _tables(study, folder)
        for name, (light, _) in pictures.items():
            files.append(folder / f"{name}.png")
            with replacing(files[-1]) as temporary:
                temporary.write_bytes(light)
        page = html(study, pictures, [path.name for path in files])
        with replacing(folder / "index.html") as temporary:
            temporary.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ValueError(f"the report could not be written to {folder}: {error.strerror or error}") from error
    return [folder / "index.html", *files]


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
        "fingerprint": study.data.fingerprint,
        "held_out": study.held_out,
        "border": plain({"sigma": border.sigma, "low": border.low, "high": border.high}),
        "draws": study.effort.draws,
        "seed": study.seed,
        "level": study.level,
        "sentences": [network.sentence() for network in study.networks],
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
