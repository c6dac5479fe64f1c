"""`python -m neural sample`: samples into files, and what they are."""

from __future__ import annotations

from typing import Any

import numpy as np

from optimal.cli import Tile, as_json, in_words, parse_options, save_sheet, suffixed, writable
from optimal.cli.run import say
from optimal.storage import replacing

from ..answers import drawing, drawn, expected
from ..commands import Sample
from ..named import OPTIMUM, opened
from ..wanted import Wanted
from .words import as_words, dataset_of

__all__ = ["draw"]


def draw(command: Sample) -> None:
    """Samples of a model: arrays, what they are and, of images, a grid."""
    if command.orbit is not None and command.model != OPTIMUM:
        raise ValueError(f"--orbit is of the model optimum: {command.model} is sampled as it was trained")
    options: dict[str, Any] = {"device": command.device, "batch": command.batch, "wanted": Wanted.of(command)}
    (model,), data, _ = opened([command.model], dataset_of(command), say=say, **options)
    how = drawing(
        model,
        command.n,
        command.steps,
        command.solver,
        options=parse_options(command.solver_option),
        sigma_min=command.sigma_min,
        sigma_max=command.sigma_max,
        seed=command.seed,
    )
    if command.dry_run:
        found = how.about() | {"seconds": expected(how, data.event)}
        plan = f"{_samples(found)}; about {in_words(found['seconds'])}"
        print(as_json(found) if command.json else f"{data.describe()}\n{plan}; nothing was drawn")
        return
    out = writable(command.out, "samples", ".npz", ".json", *([".png"] if data.is_image else []))
    arrays, found = drawn(how, data.event, say=say)
    files = [suffixed(out, ".npz"), suffixed(out, ".json")]
    with replacing(files[0]) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **{name: value.numpy() for name, value in arrays.items()})
    if data.is_image:
        files.append(save_sheet([Tile(image) for image in arrays["samples"]], suffixed(out, ".png")))
    names = [str(file) for file in files]
    found = {"dataset": data.name, "fingerprint": data.fingerprint} | Wanted.of(command).told() | found
    with replacing(files[1]) as temporary:
        temporary.write_text(as_json(found | {"command": as_words(command)}) + "\n")
    if command.json:
        print(as_json(found | {"files": names}))
    else:
        print(f"{_samples(found)}, {found['nfe']} calls each: {', '.join(names)}")


def _samples(found: dict[str, Any]) -> str:
    return f"{found['n']} samples, {found['steps']} steps of {found['solver']} from sigma = {found['sigma_max']:g}"
