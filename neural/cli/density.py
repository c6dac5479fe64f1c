"""`python -m neural likelihood`: the density of a network beside the optimum's."""

from __future__ import annotations

from typing import Any

from optimal import OptimalDenoiser
from optimal.cli import announce, as_json, in_words, plain, suffixed, writable
from optimal.cli.run import say

from ..commands import Likelihood
from ..convention import question
from ..densities import densities, planned
from ..measures import save_table
from ..named import opened
from ..wanted import Wanted
from .words import as_words, dataset_of, held_out_of

__all__ = ["likelihood"]


def likelihood(command: Likelihood) -> None:
    """Nats and bits of a network's density at noisy points, a row a point."""
    wanted = Wanted.of(command)
    (model,), data, _ = opened(
        [command.model],
        dataset_of(command),
        device=command.device,
        batch=command.batch,
        wanted=wanted,
        say=say,
    )
    held_out = held_out_of(command, data)
    D = OptimalDenoiser(data)
    options: dict[str, Any] = {
        "sigma_min": command.sigma_min,
        "sigma_max": command.sigma_max,
        "probes": command.probes,
        "tolerance": command.tolerance,
    }
    seconds = planned(model, D, n=command.n, places=1 if held_out is None else 2, **options)
    if command.dry_run:
        where = "of the data" if held_out is None else "each of the data and of the held-out ones"
        about = f"{model.name} at sigma = {command.sigma_min:g}, {command.n} points {where}; about {in_words(seconds)}"
        told = as_json({"dataset": data.name, "fingerprint": data.fingerprint, "plan": about, "seconds": seconds})
        print(told if command.json else f"{data.describe()}\n{about}; nothing was computed")
        return
    out = writable(command.out, "likelihood", ".csv", ".json")
    announce(seconds, say)
    question([model], D, say, seed=command.seed)
    found = densities(
        model,
        D,
        held_out=held_out,
        n=command.n,
        seed=command.seed,
        progress=True,
        **options,
    )
    about = {
        "dataset": data.name,
        "fingerprint": data.fingerprint,
        "summary": [plain(each.summary()) for each in found],
        "sentences": [each.sentence() for each in found],
        "remarks": [f"{each.on}: {remark}" for each in found for remark in each.remarks],
        "command": as_words(command),
    }
    path = suffixed(out, "")
    save_table([plain(row) for each in found for row in each.rows()], path, about)
    files = [f"{path}.csv", f"{path}.json"]
    if command.json:
        print(as_json(about | {"files": files}))
    else:
        print("\n".join([data.describe(), *about["sentences"], *about["remarks"], ", ".join(files)]))
