"""What docs/findings.rst says of networks on designed grids, of the shipped table of the study `grids`."""

from __future__ import annotations

import numpy as np
from wording import Arrays, bullet, held, interval, pct, spaced

from neural.studies.grids import network_grids

__all__ = ["designed"]

_SHOWN = ("karras", "karras-tuned", "landings")
_WORDS = {"karras": "EDM's grid", "karras-tuned": "EDM's tuned", "landings": "landings"}
_OTHERS = ("gaussian", "path-kl", "rescaled-entropy", "own-path-kl", "own-rescaled-entropy")


def designed(a: Arrays) -> str:
    """Of each network and solver: EDM's grid, the tuned one and the landings grid, then the others."""
    found = network_grids()
    models = found["models"].tolist()
    rows = [_verdict(found, model) for model in models]
    for model in models:
        for place, solver in enumerate(found[f"{model}_solvers"].tolist()):
            rows += [_shares(found, model, place, solver), _distances(found, model, place, solver)]
        rows.append(_others(found, model))
    return "\n".join(map(bullet, rows))


def _verdict(found: dict[str, np.ndarray], model: str) -> str:
    """Of the solvers of one call a step, in 4 to 8 calls."""
    grids, calls = found[f"{model}_grids"].tolist(), found[f"{model}_calls"]
    one = found[f"{model}_solvers"] != "heun"
    few = found[f"{model}_own_same"][one][:, calls <= 8]
    landings, tuned, edm = (few[:, :, grids.index(name)] for name in ("landings", "karras-tuned", "karras"))
    if model == "digits":
        held(
            bool((landings[..., 1] > tuned[..., 2]).all()), "landings beat EDM's tuned grid, with their intervals apart"
        )
    else:
        held(bool((landings[..., 1] <= tuned[..., 2]).all()), "landings are not told from EDM's tuned grid on images")
    held(bool((landings[..., 1] > edm[..., 2]).all()), "landings beat EDM's grid, with their intervals apart")
    every = found[f"{model}_own_same"]
    best = every[:, :, grids.index("landings"), 2]
    others = every[:, :, [grids.index(name) for name in _OTHERS], 1]
    held(bool((others <= best[..., None]).all()), "no other design beats landings with the intervals apart")
    more, still = (100 * (landings - other)[..., 0] for other in (edm, tuned))
    solvers, flow = spaced(found[f"{model}_solvers"][one].tolist()), pct(found[f"{model}_flow"])
    return (
        f"- {model}, {solvers}, 4 to 8 calls: on the landings grid "
        f"{more.min():.0f} to {more.max():.0f} points more noises end on the network's own end than on EDM's grid, and "
        f"{still.min():.0f} to {still.max():.0f} more than on EDM's tuned; {flow} of its own ends are "
        "the exact flow's."
    )


def _shares(found: dict[str, np.ndarray], model: str, place: int, solver: str) -> str:
    grids, values = found[f"{model}_grids"].tolist(), found[f"{model}_own_same"][place]
    gain = found[f"{model}_own_same_change"][place]
    parts = []
    for nfe, shares, change in zip(found[f"{model}_nfe"][place].tolist(), values, gain, strict=True):
        at = [pct(shares[grids.index(name)]) for name in _SHOWN]
        value, low, high = 100 * change[grids.index("landings")]
        parts.append(f"{nfe} calls {', '.join(at)}, {value:+.0f} points [{low:+.0f}, {high:+.0f}]")
    head = ", ".join(_WORDS[name] for name in _SHOWN)
    return f"- {model}, {solver}, on its own end ({head}; landings less EDM's, paired): {'; '.join(parts)}."


def _distances(found: dict[str, np.ndarray], model: str, place: int, solver: str) -> str:
    grids, values = found[f"{model}_grids"].tolist(), found[f"{model}_wasserstein"][place]
    parts = []
    for nfe, distances in zip(found[f"{model}_nfe"][place].tolist(), values, strict=True):
        at = [interval(distances[grids.index(name)], _short) for name in _SHOWN]
        parts.append(f"{nfe} calls {', '.join(at)}")
    own, draws = (interval(found[f"{model}_{name}"], _short) for name in ("ends", "draws"))
    return (
        f"- {model}, {solver}, W2 to the data, the same grids: {'; '.join(parts)}; its own ends {own}, as many draws "
        f"of the data {draws}."
    )


def _others(found: dict[str, np.ndarray], model: str) -> str:
    """Of the last solver."""
    grids, values = found[f"{model}_grids"].tolist(), found[f"{model}_own_same"][-1]
    solver = found[f"{model}_solvers"].tolist()[-1]
    parts = []
    for name in (name for name in _OTHERS if name in grids):
        shares = [f"{100 * share:.0f}%" for share in values[:, grids.index(name), 0].tolist()]
        parts.append(f"{name} {spaced(shares)}")
    calls = spaced([str(nfe) for nfe in found[f"{model}_nfe"][-1].tolist()])
    return f"- {model}, {solver}, on its own end in {calls} calls on other grids: {'; '.join(parts)}."


def _short(value: float) -> str:
    return f"{value:.2g}" if value < 100 else f"{value:.0f}"
