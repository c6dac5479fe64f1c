"""What theories are not made of, and what they are not asked: each refused in one sentence, and nothing passed over."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from optimal import OptimalDenoiser, load, orbit
from optimal.theories import (
    Mixture,
    Wiener,
    closed_form_velocity,
    conditional_velocity,
    equally_likely,
    estimate_errors,
    golden_subset,
    linear_square_norms,
    local_score,
    mean_square_norms,
    nearest,
    nearest_proposal,
    patch_posterior,
    pca_locality,
    score_smoothed,
    stable_target,
    subsampled,
    window_by_network,
    window_by_risk,
)

POINTS = load("digits").points[:12]
D = OptimalDenoiser(POINTS)
X, SOURCE = POINTS[:3] + 0.5, torch.tensor([0, 1, 2])

MAKE: dict[str, Callable[[Any], object]] = {
    "Wiener": Wiener,
    "Mixture": lambda D: Mixture(D, 2),
    "nearest": lambda D: nearest(D, 2),
    "golden_subset": golden_subset,
    "subsampled": lambda D: subsampled(D, 2),
    "equally_likely": equally_likely,
    "stable_target": lambda D: stable_target(D, X, 1.0, SOURCE, 2),
    "estimate_errors": lambda D: estimate_errors(D, lambda _: D, 1.0),
    "local_score": lambda D: local_score(D, 3),
    "window_by_risk": lambda D: window_by_risk(D, [3], 1.0),
    "window_by_network": lambda D: window_by_network(D, D, [3], 1.0),
    "linear_square_norms": lambda D: linear_square_norms(D, 1.0),
}
NO_OPTIMA = {
    "function": torch.zeros_like,
    "points": POINTS,
    "data": load("digits"),
    "orbit": orbit(D, "flip"),
    "smoothed": D.smoothed(0.1),
    "tempered": D.tempered(2.0),
    "rows": D.without(SOURCE),
    "theory": Wiener(D),
}


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("kind", NO_OPTIMA)
def test_what_is_no_optimum_of_data(name: str, kind: str) -> None:
    with pytest.raises(ValueError, match=r"D must be an OptimalDenoiser, got [A-Za-z_]+$"):
        MAKE[name](NO_OPTIMA[kind])


def test_a_point_that_is_taken_away_is_no_source() -> None:
    kept = D.without(1)
    with pytest.raises(ValueError, match="sources must be points that D has, and 1 is none"):
        stable_target(kept, X, 1.0, SOURCE, 1)
    answer = stable_target(kept, X[[0, 2]], 1.0, SOURCE[[0, 2]].numpy(), 1)
    assert torch.equal(answer, POINTS[[0, 2]])


ASKED: dict[str, tuple[Callable[[], object], str]] = {
    "other points": (lambda: Wiener(D).covariance_product(X[:, :, :4], 1.0, X[:, :, :4]), "x must have shape"),
    "a level below 0": (lambda: Wiener(D).mmse(-1.0), "sigma must be finite and not negative, got -1"),
    "a source beyond": (lambda: stable_target(D, X, 1.0, torch.tensor([0, 1, 12]), 2), "and 12 is none"),
    "a source below": (lambda: stable_target(D, X, 1.0, torch.tensor([0, -1, 1]), 2), "and -1 is none"),
    "one source": (lambda: stable_target(D, X, 1.0, torch.tensor(0), 2), "must be one a row"),
    "half a point": (lambda: stable_target(D, X, 1.0, SOURCE, 2.5), "count must be 1 … 12, got 2.5"),  # pyright: ignore[reportArgumentType]
    "a seed": (lambda: subsampled(D, 2, 0), "generator must be a torch.Generator"),  # pyright: ignore[reportArgumentType]
    "a seed of parts": (lambda: Mixture(D, 2, generator=0), "generator must be a torch.Generator"),  # pyright: ignore[reportArgumentType]
    "half an iteration": (lambda: Mixture(D, 2, em=1.5), "em must be a number of iterations"),  # pyright: ignore[reportArgumentType]
    "no side": (lambda: golden_subset(D, side=0), "side must be a whole number of at least 1, got 0"),
    "x that is no number": (lambda: golden_subset(D)(X * math.nan, 1.0), "x must be finite, row 0 is not"),
    "widths of other rows": (lambda: score_smoothed(D, lambda s: s.new_ones(7))(X, 1.0), r"shape \(\) or \(B,\)"),
    "a width of nothing": (lambda: score_smoothed(D, lambda s: None)(X, 1.0), "width of sigma must be a number"),  # pyright: ignore[reportArgumentType, reportReturnType]
    "no event": (lambda: score_smoothed(torch.zeros_like, 1.0), "D must say the shape of its points"),  # pyright: ignore[reportArgumentType]
    "windows": (lambda: local_score(D, torch.tensor([3, 5]))(X, 1.0), "window must be a number"),  # pyright: ignore[reportArgumentType]
    "sizes": (lambda: patch_posterior(D, lambda s: torch.tensor([3.0, 5.0]))(X, 1.0), "size must be a number"),  # pyright: ignore[reportArgumentType, reportReturnType]
    "no temperature": (lambda: pca_locality(D, 0.1, "1"), "temperature must be positive"),  # pyright: ignore[reportArgumentType]
    "half a window": (lambda: window_by_risk(D, [3.9], 1.0), "windows must be whole numbers, got 3.9"),  # pyright: ignore[reportArgumentType]
    "a network that fails": (
        lambda: window_by_network(lambda x, s: x * math.nan, D, [1, 3], 1.0, 4),
        "answers of the denoiser must be finite and like x",
    ),
    "a network of another shape": (
        lambda: window_by_network(lambda x, s: x[:, :, :1], D, [1, 3], 1.0, 4),
        "answers of the denoiser must be finite and like x",
    ),
    "a level of 2": (lambda: estimate_errors(D, lambda _: D, 1.0, level=2.0), "level must lie between 0 and 1"),
    "no points": (lambda: estimate_errors(D, lambda _: D, 1.0, n=0), "n must be a whole number of at least 2"),
    "a level of norms": (lambda: mean_square_norms(D, D, 1.0, level=2.0), "level must lie between 0 and 1"),
    "empty answers": (lambda: mean_square_norms(D, lambda x, s: x[:, :0], 1.0), "must have the shape of x"),
    "answers of nan": (lambda: mean_square_norms(D, lambda x, s: x * math.nan, 1.0), "must be finite, at σ = 1"),
    "data of nan": (lambda: conditional_velocity(POINTS[:3], X * math.nan, 0.5), "x must be finite"),
    "no mean": (lambda: closed_form_velocity(D.tempered(2.0), X, 0.5), "D must know the mean of its data"),  # pyright: ignore[reportArgumentType]
}


@pytest.mark.parametrize("case", ASKED)
def test_what_is_asked(case: str) -> None:
    ask, words = ASKED[case]
    with pytest.raises(ValueError, match=words):
        ask()


def test_a_number_in_a_tensor_is_one() -> None:
    right = local_score(D, 3)(X, 1.0)
    assert torch.equal(local_score(D, torch.tensor([3]))(X, 1.0), right)  # pyright: ignore[reportArgumentType]
    assert torch.equal(local_score(D, lambda s: torch.tensor([3]))(X, 1.0), right)  # pyright: ignore[reportArgumentType, reportReturnType]


def test_numbers_of_parts_may_have_gaps() -> None:
    own = torch.tensor([0, 10**12] * 6)
    found, right = Mixture(D, own), Mixture(D, own.clamp_max(1))
    assert torch.equal(found(X, 1.0), right(X, 1.0))
    assert len(found.parts) == 2


@pytest.mark.parametrize("floor", [1e-5, 0.01, 0.3])
@pytest.mark.parametrize("rank", [None, 0, 1])
def test_the_likelihood_never_falls(floor: float, rank: int | None) -> None:
    """Also where the floor is of the size of the data's variances, and with axes along which they have none."""
    scale = torch.tensor([1.0, 0.5, 0.2, 0.05, 0.0], dtype=torch.float64)
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        y = scale * torch.randn(24, 5, generator=generator, dtype=torch.float64)
        found = Mixture(OptimalDenoiser(y), 3, floor=floor, rank=rank, em=6)
        assert float(torch.tensor(found.log_likelihoods).diff().min()) > -1e-9


def test_more_is_not_asked_than_the_data_have() -> None:
    few = OptimalDenoiser(torch.randn(6, 1, 6, 6, generator=torch.Generator().manual_seed(0)))
    for ask in (
        lambda: Wiener(few, rank=36),
        lambda: Mixture(few, 2, rank=36),
        lambda: linear_square_norms(few, 1.0, rank=6),
        lambda: score_smoothed(few, 0.1, rank=36),
    ):
        with pytest.raises(ValueError, match=r"rank must be a whole number from 0 to 5, the most that 6 points of 36"):
            ask()
    assert len(Wiener(few, rank=5).eigenvalues) == 5
    for make in (lambda: nearest(few, 7), lambda: nearest_proposal(few, 7, 3)):
        with pytest.raises(ValueError, match="6 points that there are, got 7"):
            make()
    with pytest.raises(ValueError, match=r"whole number from 1 to the 6 points that there are, got 1\.5"):
        nearest(few, 1.5)  # pyright: ignore[reportArgumentType]
