"""Where random numbers come from: nowhere but `optimal.randomness`, and never the same for training and measuring."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from figures.common import generator
from figures.config import Config
from neural import measure, samplers
from neural.config import Optimisation
from neural.distill import FreshPairs, make_pairs
from neural.gap import GapCurve
from neural.loss import Denoising
from neural.model import open_model
from neural.streams import Streams
from optimal import Dataset, OptimalDenoiser

ROOT = Path(__file__).parents[1]
SOURCE = Path("optimal/randomness.py")
FILES = [
    path.relative_to(ROOT)
    for door in ("optimal", "neural", "figures")
    for path in sorted((ROOT / door).rglob("*.py"))
    if path.relative_to(ROOT) != SOURCE
]
OF_NUMBERS = {"seed", "manual_seed", "initial_seed", "Generator", "default_rng", "SeedSequence", "RandomState"}
OF_TORCH = {"rand", "randn", "randint", "randperm", "multinomial", "normal", "bernoulli", "poisson"}
OF_TENSORS = {"random_", "normal_", "uniform_", "bernoulli_", "exponential_", "cauchy_", "geometric_", "log_normal_"}
ALIKE = {"rand_like", "randn_like", "randint_like"}


def faults(tree: ast.AST) -> Iterator[str]:
    """What draws, or makes a generator, in another way than from a stream; docstrings and comments are no nodes."""
    for node in ast.walk(tree):
        words = ast.unparse(node) if isinstance(node, ast.Call | ast.Attribute | ast.ImportFrom | ast.Import) else ""
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [getattr(node, "module", None), *(alias.name for alias in node.names)]
            if any(module in {"random", "numpy.random", "torch.random"} for module in modules):
                yield words
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in {"np.random", "numpy.random", "random"}:
            yield words
        elif isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
            owner = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            seeds = [given["seed"]] if "seed" in given else node.args[:1] if name == "stream" else []
            draws = (owner == "torch" and name in OF_TORCH) or name in OF_TENSORS
            if (
                name in OF_NUMBERS
                or name in ALIKE
                or (draws and "generator" not in given)
                or any(isinstance(part, ast.Constant | ast.BinOp) for seed in seeds for part in ast.walk(seed))
            ):
                yield words


@pytest.mark.parametrize("path", FILES, ids=str)
def test_numbers_are_drawn_from_streams_only(path: Path) -> None:
    assert list(faults(ast.parse((ROOT / path).read_text()))) == []


@pytest.mark.parametrize(
    "line",
    [
        "torch.manual_seed(0)",
        "torch.Generator().manual_seed(seed)",
        'torch.Generator(device="cpu")',
        "np.random.default_rng(7)",
        "numpy.random.rand(3)",
        "np.random.seed(0)",
        "import random",
        "from numpy.random import default_rng",
        "default_rng(seed)",
        "torch.randn(3)",
        "torch.randn_like(x)",
        "x.normal_()",
        "fit(config, data, seed=0)",
        'stream(0, "pairs")',
        'stream(config.seed + 1, "pairs")',
        'stream(1_000_003 * part, "pairs")',
    ],
)
def test_the_search_finds(line: str) -> None:
    assert list(faults(ast.parse(line)))


@pytest.mark.parametrize(
    "line",
    [
        '"""torch.Generator().manual_seed(0)"""',
        'stream(seed, "pairs", part + 1)',
        "torch.randn(3, generator=source)",
        "fit(config, data, seed=config.seed)",
        "def build(seed: int = 0): ...",
        "isinstance(x, torch.Generator)",
    ],
)
def test_the_search_lets_pass(line: str) -> None:
    assert not list(faults(ast.parse(line)))


OF_TRAINING = {
    "data-order": {"neural/streams.py"},
    "training-noise": {"neural/streams.py"},
    "dropout": {"neural/streams.py"},
    "pairs": {"neural/distill/pairs.py"},
    "weights": {"neural/networks/kinds.py"},
}


def test_what_trains_has_streams_that_nothing_else_draws_from() -> None:
    """`optimal.randomness` keeps purposes apart; who draws for which is a matter of the source alone."""
    users: dict[str, set[str]] = {}
    for path in FILES:
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"stream", "fixed_generator"}:
                words = node.args[1:2] if ast.unparse(node.func) == "stream" else node.args[:1]
                for word in words:
                    assert isinstance(word, ast.Constant), f"{path}: the purpose must be written out"
                    users.setdefault(str(word.value), set()).add(path.as_posix())
    assert {purpose: users[purpose] for purpose in OF_TRAINING} == OF_TRAINING
    training = set.union(*OF_TRAINING.values())
    assert not any(paths & training for purpose, paths in users.items() if purpose not in OF_TRAINING)


# --- What a network is trained on and what it is measured on, drawn by those who draw it

SIZE, DIM, COUNT = 500, 48, 208
"""Noise is made of 16 numbers at a time: where two that share a stream begin in it differs by a multiple of that."""
SEEDS = (0, 1, 2)
POINTS = torch.zeros(SIZE, DIM)
POINTS[:, 0] = 1000 * torch.arange(SIZE)
DATA = Dataset("numbered", POINTS.numpy(), fingerprint="0" * 16)
"""x0 + ε has its number in the first value, and ε itself, to the bit, in all others."""
Drawn = tuple[Tensor | None, Tensor]
"""Which points x0 are, (n,), and ε but for its first value, (n, D − 1)."""


def told(x: Tensor) -> Drawn:
    return (x[:, 0] / 1000).round().long(), x[:, 1:]


class Asked:
    """A denoiser that keeps the first x it is asked about at a level."""

    def __init__(self) -> None:
        self.x: dict[float, Tensor] = {}

    def __call__(self, x: Tensor, sigma: Any) -> Tensor:
        self.x.setdefault(float(torch.as_tensor(sigma).flatten()[0]), x.clone())
        return 0 * x


def by_training(seed: int, part: int, folder: Path) -> Drawn:
    """Two steps, and the first rank's and the second's."""
    objective, streams = Denoising(DATA, Optimisation(), 1.0), Streams(seed, part)
    batches = [objective.draw(COUNT, streams) for _ in range(2)]
    return told(torch.cat([x0 + eps for x0, _, eps in batches]))


def by_kept_pairs(seed: int, part: int, folder: Path) -> Drawn:
    noises, _ = make_pairs(lambda x, sigma: x, (DIM,), 1.0, COUNT, folder / f"{seed}", seed=seed)
    return None, torch.from_numpy(np.array(noises))[:, 1:]


def by_fresh_pairs(seed: int, part: int, folder: Path) -> Drawn:
    made: list[Tensor] = []

    def jump(x: Tensor, sigma: float) -> Tensor:
        made.append(x)
        return x

    FreshPairs(jump, (DIM,), 1.0, seed=seed, at_once=64).draw(COUNT, Streams(seed))
    # The first batch is that of the pairs which are kept: both are for training.
    return None, torch.cat(made[1:5])[:, 1:]


def by_measure(seed: int, part: int, folder: Path) -> Drawn:
    asked = Asked()
    measure(asked, OptimalDenoiser(DATA), sigmas=[1.0], draws=COUNT, seed=seed)
    return told(asked.x[1.0])


def by_measure_along_the_trajectory(seed: int, part: int, folder: Path) -> Drawn:
    asked = Asked()
    model = open_model(asked)
    object.__setattr__(model, "sigma_max", 1.0)
    measure(model, OptimalDenoiser(DATA), on="trajectory", sigmas=[1.0], draws=COUNT, seed=seed)
    return None, asked.x[1.0][:, 1:]


def by_samplers(seed: int, part: int, folder: Path) -> Drawn:
    asked = Asked()
    samplers({"asked": (asked, {"sigmas": [1.0, 0.0], "solver": "euler"})}, OptimalDenoiser(DATA), n=COUNT, seed=seed)
    return None, asked.x[1.0][:, 1:]


def by_the_gap_in_training(seed: int, part: int, folder: Path) -> Drawn:
    asked = Asked()
    D = OptimalDenoiser(DATA)
    GapCurve(D, sigma_min=0.1, sigma_max=2.0, sigmas=[1.0], draws=COUNT, seed=seed).of(asked, 0)
    return told(asked.x[1.0])


def by_figures(seed: int, part: int, folder: Path) -> Drawn:
    return None, torch.randn(COUNT, DIM, generator=generator(Config(seed=seed), part))[:, 1:]


WAYS: dict[str, tuple[Callable[[int, int, Path], Drawn], int]] = {
    "training": (by_training, 2),
    "kept pairs": (by_kept_pairs, 1),
    "fresh pairs": (by_fresh_pairs, 1),
    "measure": (by_measure, 1),
    "trajectory": (by_measure_along_the_trajectory, 1),
    "samplers": (by_samplers, 1),
    "gap in training": (by_the_gap_in_training, 1),
    "figures": (by_figures, 3),
}


def repeated(drawn: dict[str, Drawn]) -> set[tuple[str, str]]:
    """Which two share noise, two numbers in a row anywhere, or a run of points."""
    found, owner = set(), {}
    for name, (_, eps) in drawn.items():
        numbers = eps.contiguous().view(torch.int32).long()
        for pair in set((numbers[:, :-1] * 2**32 + (numbers[:, 1:] & (2**32 - 1))).flatten().tolist()):
            if owner.setdefault(pair, name) != name:
                found.add((owner[pair], name))
    indexed = [(name, index) for name, (index, _) in drawn.items() if index is not None]
    for i, (one, first) in enumerate(indexed):
        for other, second in indexed[i + 1 :]:
            count = min(len(first), len(second))
            # By chance one place in 500.
            if (first[:count] == second[:count]).sum() > 10:
                found.add((one, other))
    return found


def test_nothing_is_drawn_twice(tmp_path: Path) -> None:
    """Training, pairs and all that measures, at seeds 0, 1 and 2, crosswise."""
    drawn: dict[str, Drawn] = {}
    for name, (way, parts) in WAYS.items():
        for seed in SEEDS:
            for part in range(parts):
                drawn[f"{name} {seed} {part}"] = index, eps = way(seed, part, tmp_path / name)
                # Each is what it says: rows of unit noise, all different.
                assert eps.shape[1] == DIM - 1
                assert len(eps) >= COUNT
                assert abs(float(eps.square().mean()) - 1) < 0.06
                assert len(eps.unique(dim=0)) == len(eps)
                assert index is None or len(index.unique()) > 100
    assert repeated(drawn) == set()


def test_what_is_drawn_twice_is_found(tmp_path: Path) -> None:
    index, eps = by_measure(0, 0, tmp_path)
    _, other = by_measure(1, 0, tmp_path)
    assert repeated({"a": (index, eps), "b": (index, other)}) == {("a", "b")}
    mixed = torch.cat([other[:-1], torch.cat([other[-1:, :-5], eps[7:8, 3:8]], 1)])
    assert repeated({"a": (index, eps), "b": (None, mixed)}) == {("a", "b")}
