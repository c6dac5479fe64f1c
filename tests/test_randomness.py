"""Randomness: a row's own stream, the same draws whatever torch's defaults are, one sentence for a seed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from neural import agreement
from optimal import (
    OptimalDenoiser,
    collapse_border,
    effective_counts,
    forward_statistics,
    karras,
    load,
    sample,
    seeking_refining_border,
)
from optimal.__main__ import main
from optimal.draws import draw_pairs
from optimal.randomness import PURPOSES, RowNoise, figures_generator, fixed_generator, stream
from optimal.reference import Gaussian, GaussianMixture, OnePoint, TwoPoint

D = OptimalDenoiser(load("five-deltas"))
ZERO, ONE = torch.zeros(2), torch.ones(2)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_row_is_the_same_however_many_there_are() -> None:
    draws = {n: RowNoise(seeded()) for n in (1, 2, 3, 100, 3000)}
    for _ in range(3):
        rows = {n: noise.draw((n, 3, 7)) for n, noise in draws.items()}
        for n, drawn in rows.items():
            assert drawn.shape == (n, 3, 7)
            assert drawn.dtype == torch.float64
            assert torch.equal(drawn, rows[3000][:n])
    # In groups, and at once: a million numbers are drawn together.
    assert torch.equal(RowNoise(seeded()).draw((3, 700_000))[:2], RowNoise(seeded()).draw((2, 700_000)))
    assert RowNoise(seeded()).draw((0, 3)).shape == (0, 3)
    assert RowNoise(seeded()).draw((4,)).shape == (4,)
    assert not torch.equal(RowNoise(seeded()).draw((4,)), RowNoise(seeded(1)).draw((4,)))


def test_rows_are_independent_and_normal() -> None:
    noise = RowNoise(seeded(3))
    first, second = noise.draw((2000, 64)), noise.draw((2000, 64))
    for drawn in (first, second, first[:, 0], first[0], first.diff(dim=0) / 2**0.5, first.diff(dim=1) / 2**0.5):
        # Differences of neighbours share terms: every other one does not.
        some = drawn if drawn.ndim == 1 else drawn[::2, ::2]
        assert kstest(some.flatten().numpy(), "norm").pvalue > 1e-4
    values = first.flatten()
    assert abs(float(values.mean())) < 4 / len(values) ** 0.5
    assert abs(float(values.square().mean()) - 1) < 4 * (2 / len(values)) ** 0.5
    pairs = [(first, second), (first[1:], first[:-1]), (first[:, 1:], first[:, :-1]), (first[1:, 1:], first[:-1, :-1])]
    for a, b in pairs:
        assert abs(float((a * b).mean())) < 4 / a.numel() ** 0.5
        assert abs(float(((a.square() - 1) * (b.square() - 1)).mean())) < 4 * 2 / a.numel() ** 0.5
    # Seeds that follow each other give streams that do not.
    other = RowNoise(seeded(4)).draw((2000, 64))
    assert abs(float((first * other).mean())) < 4 / first.numel() ** 0.5
    assert np.unique(first.numpy()).size == first.numel()


@pytest.fixture
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def everything() -> dict[str, Any]:
    along = forward_statistics(D, [0.3, 1.0], draws=20, derivative=True, generator=seeded())
    x0, eps = draw_pairs(D, None, 20, seeded())
    references = (
        OnePoint(ZERO),
        TwoPoint(ZERO, ONE),
        Gaussian(ZERO, 1.0),
        GaussianMixture(torch.stack([ZERO, ONE]), 0.1),
    )
    return {
        "border": seeking_refining_border(D, draws=64, generator=seeded()),
        "collapse": collapse_border(D, draws=64),
        "entropy": along.entropy.tolist(),
        "squares": along.covariance_square.tolist(),
        "pairs": (x0.tolist(), eps.tolist(), x0.dtype, eps.dtype),
        "samples": [R.sample(5, seeded()).tolist() for R in references],
        "noise": RowNoise(seeded()).draw((3, 2)).tolist(),
        "sde": sample(D, torch.ones(3, 1), karras(4), solver="reverse_sde", generator=seeded()).tolist(),
    }


EVERYTHING = everything()


def test_draws_do_not_depend_on_the_default_dtype(double: None) -> None:
    assert everything() == EVERYTHING


def test_draws_do_not_depend_on_the_default_device() -> None:
    """ "meta" stands for a default device of cuda: what is made there by accident has no values."""
    with torch.device("meta"):
        x0, eps = draw_pairs(D, None, 20, seeded())
        noise = RowNoise(seeded()).draw((3, 2))
    assert (x0.tolist(), eps.tolist(), x0.dtype, eps.dtype) == EVERYTHING["pairs"]
    assert noise.tolist() == EVERYTHING["noise"]


@pytest.mark.parametrize(
    "call",
    [
        lambda g: seeking_refining_border(D, draws=3, generator=g),
        lambda g: collapse_border(D, draws=3, generator=g),
        lambda g: forward_statistics(D, [1.0], draws=3, generator=g),
        lambda g: effective_counts(D, [1.0], draws=3, generator=g),
        lambda g: agreement(D, D, [1.0], draws=3, generator=g),
        lambda g: draw_pairs(D, None, 3, g),
        lambda g: sample(D, torch.ones(3, 1), karras(4), solver="reverse_sde", generator=g),
        lambda g: OnePoint(ZERO).sample(3, g),
        lambda g: TwoPoint(ZERO, ONE).sample(3, g),
        lambda g: Gaussian(ZERO, 1.0).sample(3, g),
        lambda g: GaussianMixture(torch.stack([ZERO, ONE]), 0.1).sample(3, g),
        RowNoise,
    ],
)
@pytest.mark.parametrize("given", [0, 5, "seed"])
def test_a_seed_is_no_generator(call: Callable[[Any], Any], given: Any) -> None:
    sentence = f"generator must be a torch.Generator, got {type(given).__name__}: torch.Generator().manual_seed"
    with pytest.raises(ValueError, match=sentence.replace("(", r"\(").replace(")", r"\)")):
        call(given)


def test_without_a_generator_it_is_the_fixed_one() -> None:
    for call in (
        lambda g: draw_pairs(D, None, 9, g)[1].tolist(),
        lambda g: Gaussian(ZERO, 1.0).sample(3, g).tolist(),
        lambda g: GaussianMixture(torch.stack([ZERO, ONE]), 0.1).sample(3, g).tolist(),
        lambda g: TwoPoint(ZERO, ONE).sample(9, g).tolist(),
    ):
        assert call(None) == call(None) == call(fixed_generator())
        assert call(None) != call(seeded())
    border = seeking_refining_border(D, draws=9)
    assert border == seeking_refining_border(D, draws=9, generator=figures_generator())
    assert border != seeking_refining_border(D, draws=9, generator=seeded())


@pytest.mark.parametrize(
    ("data", "draws", "sentence"),
    [
        (torch.ones(4, 1).long(), 3, "data must be floating point, or uint8 for images, got torch.int64"),
        (np.ones((4, 1), dtype=np.int64), 3, "data must be floating point, or uint8 for images, got int64"),
        (torch.ones(0, 1), 3, r"data must have at least one point, got an array of shape \(0, 1\)"),
        (torch.ones(4, 2), 3, r"data must have points of shape \(1,\), those of the denoiser, got \(2,\)"),
        (None, 2.5, "draws must be a whole number, got 2.5"),
        (None, 0, "draws must be at least 1, got 0"),
    ],
)
def test_wrong_data_and_draws(data: Any, draws: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        draw_pairs(D, data, draws, None)


@pytest.mark.parametrize("data", ["ring", "digits"])
@pytest.mark.parametrize("solver", ["heun", "reverse_sde", "euler"])
def test_samples_do_not_depend_on_how_many_are_asked_for(
    data: str, solver: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, arrays = {}, {}
    options = ["--solver-option", "eta=1"] if solver == "euler" else []
    for n in (1, 2, 3):
        out = tmp_path / str(n)
        line = ["sample", data, "-n", str(n), "--steps", "6", "--solver", solver, "--json", "--out", str(out)]
        assert main([*line, *options]) == 0
        found[n] = json.loads(capsys.readouterr().out)["index"]
        arrays[n] = dict(np.load(tmp_path / f"{n}.npz"))
    for n in (1, 2):
        assert found[n] == found[3][:n]
        for name in ("noises", "samples"):
            assert np.allclose(arrays[n][name], arrays[3][name][:n], rtol=1e-5, atol=1e-6), name
        assert np.array_equal(arrays[n]["noises"], arrays[3]["noises"][:n])


def _state(seed: int, purpose: Any, part: int = 0) -> int:
    return stream(seed, purpose, part).initial_seed()


def test_streams_of_two_purposes_have_different_states_whatever_the_seeds() -> None:
    seeds = [*range(-50, 50), 2**26, 2**31 - 1, 2**32, 2**63, -(2**40), 10**30]
    states = {purpose: {_state(seed, purpose) for seed in seeds} for purpose in PURPOSES}
    everything = [state for found in states.values() for state in found]
    assert len(everything) == len(set(everything))
    # torch's generator is seeded with 32 bits, and small numbers are what users seed their own with.
    assert all(2**26 <= state < 2**32 for state in everything)


def test_seeds_and_parts_of_a_purpose_have_different_states() -> None:
    states = [_state(seed, "pairs", part) for seed in range(100) for part in range(100)]
    states += [_state(seed, "pairs", part) for seed in (1000, 4095) for part in (0, 1, 4095)]
    assert len(set(states)) == len(states)
    assert len({_state(seed, "pairs") for seed in range(100_000)}) == 100_000


def test_streams_are_independent_in_their_numbers() -> None:
    draws = torch.stack([torch.randn(2000, generator=stream(seed, p)) for seed in (0, 1) for p in PURPOSES])
    correlation = torch.corrcoef(draws).fill_diagonal_(0).abs().max()
    assert correlation < 5.5 / 2000**0.5  # 700 pairs.


def test_a_stream_names_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="purpose must be one of unnamed, weights"):
        stream(0, "noise")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="part must be at least 0, got -1"):
        stream(0, "pairs", -1)
