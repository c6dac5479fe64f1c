"""What docs/findings.rst says of networks on designed grids, of the shipped table of the study `grids`."""

from __future__ import annotations

import numpy as np
from wording import Arrays, bullet, held, interval, pct, spaced

from neural.studies.grids import network_grids

__all__ = ["designed", "helped"]

_SHOWN = ("karras", "karras-tuned", "landings")
_WORDS = {"karras": "EDM's grid", "karras-tuned": "EDM's tuned", "landings": "landings"}
_LESS, _SOLVER = "less_karras-tuned", "dpm_solver_pp 3"
_OTHERS = ("gaussian", "path-kl", "rescaled-entropy", "own-path-kl", "own-rescaled-entropy")


def helped(a: Arrays) -> str:
    """Of each network: the last solver in 8 calls on EDM's grid, the tuned one and the landings grid."""
    found = network_grids()
    parts = []
    for model in _first(found):
        grids, place = found[f"{model}_grids"].tolist(), found[f"{model}_calls"].tolist().index(8)
        assert found[f"{model}_solvers"].tolist()[-1] == _SOLVER
        edm, tuned, landings = (found[f"{model}_own_same"][-1, place, grids.index(name)] for name in _SHOWN)
        less = found[f"{model}_own_same_{_LESS}"][-1, place, grids.index("landings")]
        held(bool(landings[1] > edm[2]), "landings beat EDM's grid, with their intervals apart")
        parts.append(
            f"{model} {pct(landings)}, on EDM's grid {pct(edm)}, and on EDM's with the best of seven last levels "
            f"{pct(tuned)} ({_points(less)} points)"
        )
    many = []
    for model in (name for name in found["models"].tolist() if name not in _first(found)):
        place, grids = found[f"{model}_calls"].tolist().index(18), found[f"{model}_grids"].tolist()
        change = found[f"{model}_own_same_change"][-1, place, grids.index("landings")]
        held(bool(change[1] < 0.03), "landings are not much better than EDM's grid in 18 calls")
        many.append(f"{found[f'{model}_network']} {_points(change)}")
    return (
        "Does a schedule designed on the optimum help a network? In few calls it does, in many it does not. Sampled "
        "with 8 calls of DPM-Solver++ 3M on the "
        "landings grid, so many noises end on the data point where many steps take them (landings less tuned, paired): "
        f"{'; '.join(parts)}. In 18 calls, landings less EDM's: {spaced(many)} points. Whole tables: "
        '"Designed grids and networks" in [the findings](findings.rst).'
    )


def designed(a: Arrays) -> str:
    """Of each network and solver: EDM's grid, the tuned one and the landings grid, then the others."""
    found = network_grids()
    models = found["models"].tolist()
    rows = [_verdict(found, model) for model in _first(found)]
    for model in models:
        for place, solver in enumerate(found[f"{model}_solvers"].tolist()):
            rows += [_shares(found, model, place, solver), _distances(found, model, place, solver)]
        rows.append(_others(found, model))
    return "\n".join(map(bullet, rows))


def _first(found: dict[str, np.ndarray]) -> list[str]:
    """The cells of few calls, one a network."""
    return [model for model in found["models"].tolist() if model == str(found[f"{model}_network"])]


def _verdict(found: dict[str, np.ndarray], model: str) -> str:
    """Of the solvers of one call a step, in 4 to 8 calls."""
    grids, calls = found[f"{model}_grids"].tolist(), found[f"{model}_calls"]
    one = found[f"{model}_solvers"] != "heun"
    few = found[f"{model}_own_same"][one][:, calls <= 8]
    landings, edm = (few[:, :, grids.index(name)] for name in ("landings", "karras"))
    less = found[f"{model}_own_same_{_LESS}"][one][:, calls <= 8, grids.index("landings")]
    held(bool((landings[..., 1] > edm[..., 2]).all()), "landings beat EDM's grid, with their intervals apart")
    every = found[f"{model}_own_same"]
    best = every[:, :, grids.index("landings"), 2]
    others = every[:, :, [grids.index(name) for name in _OTHERS], 1]
    held(bool((others <= best[..., None]).all()), "no other design beats landings with the intervals apart")
    more, still = 100 * (landings - edm)[..., 0], 100 * less[..., 0]
    apart, worse = int((less[..., 1] > 0).sum()), int((less[..., 2] < 0).sum())
    held(worse == 0, "landings are nowhere worse than EDM's tuned grid, paired")
    solvers, flow = spaced(found[f"{model}_solvers"][one].tolist()), pct(found[f"{model}_flow"])
    gains, others = (f"{each.min():z.0f} to {each.max():z.0f}" for each in (more, still))
    return (
        f"- {model}, {solvers}, 4 to 8 calls: on the landings grid "
        f"{gains} points more noises end on the network's own end than on EDM's grid, and "
        f"{others} more than on EDM's tuned, of which {apart} of {less[..., 0].size} are "
        f"more with 95%, paired; {flow} of its own ends are the exact flow's."
    )


def _shares(found: dict[str, np.ndarray], model: str, place: int, solver: str) -> str:
    grids, values = found[f"{model}_grids"].tolist(), found[f"{model}_own_same"][place]
    changes = [found[f"{model}_own_same_{word}"][place, :, grids.index("landings")] for word in ("change", _LESS)]
    parts = []
    for nfe, shares, *gains in zip(found[f"{model}_nfe"][place].tolist(), values, *changes, strict=True):
        at = [pct(shares[grids.index(name)]) for name in _SHOWN]
        parts.append(f"{nfe} calls {', '.join(at)}, {' and '.join(map(_points, gains))} points")
    head = ", ".join(_WORDS[name] for name in _SHOWN)
    return f"- {model}, {solver}, on its own end ({head}; landings less EDM's and tuned, paired): {'; '.join(parts)}."


def _points(change: np.ndarray) -> str:
    value, low, high = 100 * change
    return f"{value:+z.0f} [{low:+z.0f}, {high:+z.0f}]"


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
