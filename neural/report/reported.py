"""`python -m neural report MODEL… --dataset DATA --out FOLDER`: the page, its pictures and its tables."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optimal import Dataset, OptimalDenoiser
from optimal.cli import announce
from optimal.cli.estimate import Say
from optimal.storage import replacing

from ..convention import question
from ..measures import save_table
from ..named import of_label, opened
from .audited import sheet
from .charts import DARK, LIGHT, drawn, gap_chart, points_chart, ratio_chart
from .page import html
from .study import Effort, Study, study

__all__ = ["reported", "write"]


def reported(
    models: Sequence[str],
    data: Dataset | None,
    out: str | Path,
    *,
    label: int | None = None,
    held_out: Dataset | None = None,
    sigmas: Sequence[float] | None = None,
    steps: int | None = None,
    effort: Effort | None = None,
    device: str = "auto",
    batch: int | None = None,
    seed: int = 0,
    say: Say,
) -> tuple[Study, list[Path]]:
    """Open networks by their names, measure them, and write the report.

    Args:
        models: as for `neural.named.opened`, "optimum" among them.
        data: the training data; None takes those of the first run among the models.
        out: folder of the report.
        label: the class that networks are asked for; the data, and held_out, are then those of it.
        held_out: points that were not trained on.
        sigmas, steps, effort, seed: as for `neural.report.study.study`.
        device, batch: as for `neural.open_model`.
        say: told what a user is to know while waiting.

    Returns:
        What was measured, and the files, the page first.

    Raises:
        ValueError: as for `opened`, `study` and `write`.
    """
    if not models:
        raise ValueError("name at least one network: the folder of a run, diffusers:FOLDER, python:… or optimum")
    networks, training = opened(models, data, device=device, batch=batch, label=label, say=say)
    if held_out is not None and held_out.event != training.event:
        raise ValueError(f"held-out points must have the shape of the data, {training.event}, got {held_out.event}")
    if held_out is not None and label is not None:
        held_out = of_label(held_out, label)
    question(networks, OptimalDenoiser(training), say, seed=seed)
    found = study(
        networks,
        training,
        held_out=held_out,
        sigmas=None if sigmas is None else list(sigmas),
        steps=steps,
        effort=effort,
        seed=seed,
        progress=True,
        say=lambda seconds: announce(seconds, say),
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
    about = _about(study)
    save_table([_plain(row) for row in study.rows()], folder / "gap", about)
    files = [folder / "gap.csv", folder / "gap.json"]
    for network, name in zip(study.networks, _slugs([each.name for each in study.networks]), strict=True):
        if network.found is None:
            continue
        path = folder / f"samples-{name}"
        network.found.save(path, about | {"network": network.name, "nfe": network.nfe, "sigma_max": network.first})
        files += [path.with_name(f"{path.name}.csv"), path.with_name(f"{path.name}.json")]
        if study.data.is_image:
            samples = Dataset(network.name, network.samples.float().cpu().numpy())
            files.append(sheet(network.found, samples, study.D, path.with_name(f"{path.name}.png")))
    return files


def _about(study: Study) -> dict[str, Any]:
    border = study.border
    return {
        "dataset": study.data.name,
        "fingerprint": study.data.fingerprint,
        "held_out": study.held_out,
        "border": _plain({"sigma": border.sigma, "low": border.low, "high": border.high}),
        "draws": study.effort.draws,
        "seed": study.seed,
        "level": study.level,
        "sentences": [network.sentence() for network in study.networks],
    }


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """JSON has neither infinity nor nan."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


def _slugs(names: Sequence[str]) -> list[str]:
    """File names of names, all different."""
    out: list[str] = []
    for name in names:
        slug = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[-60:] or "network"
        while slug in out:
            slug += "-"
        out.append(slug)
    return out
