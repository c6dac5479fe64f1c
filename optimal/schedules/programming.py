"""The cheapest way of n steps along exact trajectories, by dynamic programming over many levels.

A step from σ_i to σ_j begins on the exact trajectory and costs E‖step(x(σ_i)) − x(σ_j)‖²/σ_j², what its end has in
noise that the flow has not. The step is the solver's first one, which has no earlier outputs: of multistep methods that
is Euler's, as in GITS. An error counts c times more for every step that comes after it.

References:
    Chen, Zhou, Wang, Shen, Lyu 2024, "On the Trajectory Regularity of ODE-based Diffusion Sampling" (GITS; c = 1.15).
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..denoiser import OptimalDenoiser
from ..flow import FlowMap
from ..process import EDM
from ..samplers import Solver, Step

__all__ = ["cheapest_levels", "step_costs"]

_DISCOUNT = 1.15


def step_costs(
    D: OptimalDenoiser, x: Tensor, nodes: Tensor, solver: Solver, *, progress: bool = False
) -> tuple[np.ndarray, Tensor]:
    """Costs of steps between nodes, and the exact trajectories.

    Args:
        D: the optimal denoiser.
        x: (B, *event), at nodes[0].
        nodes: (K,) decreasing levels, all above 0.
        solver: one that draws no noise.

    Returns:
        (K, K), inf where a step would not go down, and the trajectories (K, B, *event).
    """
    flow = FlowMap(D)
    levels = nodes.tolist()
    states = [x]
    for high, low in itertools.pairwise(levels):
        states.append(flow.flow(states[-1], high, low))
    outputs = [D(state, level) for state, level in zip(states, levels, strict=True)]
    costs = np.full((len(levels), len(levels)), math.inf)
    pairs = list(itertools.combinations(range(len(levels)), 2))
    for i, j in tqdm(pairs, desc="steps between levels", unit="step", leave=False, disable=not progress):
        step = Step(_asked(D), states[i], levels[i], levels[j], outputs[i], 0, 2, _none, EDM(math.inf))
        costs[i, j] = _mean_square(solver(step) - states[j]) / levels[j] ** 2
    return costs, torch.stack(states)


def cheapest_levels(costs: np.ndarray, last: np.ndarray, n: int, first: np.ndarray | None = None) -> list[int]:
    """Which nodes n steps start from, so that the sum of their costs is least; n at most the number of nodes.

    Args:
        costs: (K, K), from `step_costs`.
        last: (K,) what it costs to end at each node, by D there.
        n: number of steps, the one to 0 included.
        first: (K,) what it costs to begin at each node; only the first is free unless given.
    """
    best = np.full(len(last), math.inf) if first is None else first * _DISCOUNT**n
    if first is None:
        best[0] = 0.0
    came = []
    for left in range(n - 1, 0, -1):
        sums = best[:, None] + costs * _DISCOUNT**left
        came.append(sums.argmin(0))
        best = sums.min(0)
    places = [int((best + last).argmin())]
    for step in reversed(came):
        places.append(int(step[places[-1]]))
    return places[::-1]


def _asked(D: OptimalDenoiser) -> Any:
    return lambda x, sigma: D(x, sigma)


def _mean_square(difference: Tensor) -> float:
    return float(difference.double().flatten(1).square().sum(1).mean())


def _none() -> Tensor:
    raise AssertionError("a solver that draws no noise asked for some")
