"""Figures whose arrays take minutes to compute, held to arrays that were made up."""

from __future__ import annotations

from collections.abc import Callable

import matplotlib
import numpy as np
import pytest
from drawn import differences, faults
from series import shown

from figures.gallery import FIGURES
from figures.steps import PARTS, SOLVERS
from neural.config import TECHNIQUES

matplotlib.use("Agg")

Arrays = dict[str, np.ndarray]


def of_steps(source: np.random.Generator) -> Arrays:
    count = len(SOLVERS)
    arrays: Arrays = {"dataset": np.array("digits"), "size": np.array(400), "event": np.array("1×8×8")}
    arrays |= {"solvers": np.array(list(SOLVERS)), "border": np.array(0.9), "high": np.array(86.0)}
    arrays |= {"trajectories": np.array(30), "uncaptured": np.array(2)}
    for part in PARTS:
        arrays[f"{part}_nfe"] = np.array([1.0, 2, 3, 4, 6, 8, 12, 16]) * source.integers(1, 3, (count, 1))
        arrays |= {f"{part}_{name}": 1.3**i * source.random((count, 8)) for i, name in enumerate(("other", "distance"))}
    return arrays


def of_students(source: np.random.Generator) -> Arrays:
    sigmas, jump = np.geomspace(0.05, 10, 61), np.linspace(-240, 240, 1201)
    arrays: Arrays = {"sigmas": sigmas, "x": np.linspace(-4, 4, 61), "techniques": np.array(TECHNIQUES)}
    arrays |= {name: source.random((61, 61)) for name in ("flow", "student")}
    arrays |= {"borders": np.outer(np.sqrt(1 + sigmas**2), [-1.0, -0.3, 0.3, 1.0]), "jump_x": jump}
    for name in ("flow", *TECHNIQUES):
        arrays[f"jump_{name}"] = 2 * np.sign(jump) * source.random() + 0.1 * source.random(1201)
    for prefix in ("", "digits_"):
        arrays[f"{prefix}curve_sigmas"] = np.geomspace(80, 0.1, 13)
        for kind in ("same", "distance"):
            arrays[f"{prefix}one_{kind}"] = source.random(4)
            arrays |= {f"{prefix}{kind}_{name}": source.random(13) for name in ("consistency", "multistep")}
    return arrays


def of_fewstep(source: np.random.Generator) -> Arrays:
    methods = [f"{who}, {solver}" for who in ("optimum", "network") for solver in ("euler", "heun")]
    methods += [f"{name} student" for name in TECHNIQUES]
    arrays: Arrays = {"names": np.array(["toy", "digits"]), "methods": np.array(methods)}
    for i in (0, 1):
        arrays |= {f"{i}_draws": np.array(500 + i), f"{i}_floor": np.array(0.02)}
        for k in range(len(methods)):
            arrays[f"{i}_{k}_nfe"] = np.array([1, 2, 4])
            arrays |= {f"{i}_{k}_{name}": 0.05 + 0.9 * source.random(3) for name in ("same", "wasserstein")}
    return arrays


@pytest.mark.parametrize(("name", "make"), [("steps", of_steps), ("students", of_students), ("fewstep", of_fewstep)])
def test_it_shows_its_arrays(name: str, make: Callable[[np.random.Generator], Arrays]) -> None:
    arrays = make(np.random.default_rng(0))
    panels, legend, unseen = shown(name, arrays)
    assert not unseen
    figure = FIGURES[name].draw(arrays)
    assert differences(figure, panels, legend) == []
    assert faults(figure) == []
