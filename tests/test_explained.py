"""A network held to theories: by networks that are made of them, so that the shares are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from neural.ended import endings
from neural.explained import OPTIMUM, explain, nearest_of
from optimal import OptimalDenoiser, karras, load, sample
from optimal.denoiser import Denoiser
from optimal.theories import Mixture, Wiener

DIGITS = OptimalDenoiser(load("digits"))
LINEAR, PARTS = Wiener(DIGITS), Mixture(DIGITS, 10)


def between(share: float):
    """A network that goes `share` of the way from the optimum to the linear denoiser."""

    def answer(x: Tensor, sigma: float | Tensor) -> Tensor:
        return (1 - share) * DIGITS(x, sigma) + share * LINEAR(x, sigma)

    return answer


@pytest.mark.parametrize("on", [None, "trajectory", torch.arange(40)])
def test_shares_of_a_network_that_is_made_of_a_theory(on: str | Tensor | None) -> None:
    theories = {"linear": LINEAR, "parts": PARTS}
    found = explain(between(0.5), DIGITS, theories, on=on, sigmas=[0.3, 2.0], draws=64)
    for sigma in (0.3, 2.0):
        optimum, linear = found.at(sigma, OPTIMUM).columns, found.at(sigma, "linear").columns
        # As far from the one as from the other.
        assert float(linear["accounted"].value) == pytest.approx(0, abs=1e-5)
        assert float(optimum["accounted"].value) == pytest.approx(0, abs=1e-12)
        assert float(linear["direction"].value) == pytest.approx(1, abs=1e-5)
        assert math.isnan(float(optimum["direction"].value))
        assert float(linear["gap_share"].value) == pytest.approx(float(optimum["gap_share"].value), rel=1e-4)
    found = explain(between(0.8), DIGITS, theories, on=on, sigmas=[0.3, 2.0], draws=64)
    for sigma in (0.3, 2.0):
        share = found.at(sigma, "linear").columns["accounted"]
        assert float(share.value) == pytest.approx(1 - (0.2 / 0.8) ** 2, abs=1e-4)
        assert float(share.low) <= 1 - (0.2 / 0.8) ** 2 + 1e-4
        assert float(share.high) >= 1 - (0.2 / 0.8) ** 2 - 1e-4
        assert found.best(sigma)[0] == ["linear"]
    assert len(found.sentences()) == 1
    assert "nearest is linear" in found.sentences()[0]
    assert "(94% of the deviation accounted for)" in found.sentences()[0]


def test_columns_are_the_means_that_the_module_says() -> None:
    sigma, draws = 0.7, 50
    network = between(0.3)
    found = explain(network, DIGITS, {"parts": PARTS}, sigmas=sigma, draws=draws)
    from optimal.draws import draw_pairs
    from optimal.randomness import stream

    x0, eps = draw_pairs(DIGITS, None, draws, stream(0, "evaluation"))
    x = x0 + sigma * eps
    f, d, t = (F(x, sigma).double().flatten(1) for F in (network, DIGITS, PARTS))
    of = found.at(sigma, "parts").columns
    miss, gap = (f - t).square().sum(1), (f - d).square().sum(1)
    assert float(of["accounted"].value) == pytest.approx(float(1 - miss.sum() / gap.sum()), rel=1e-5)
    cosine = ((f - d) * (t - d)).sum() / (gap.sum() * (t - d).square().sum()).sqrt()
    assert float(of["direction"].value) == pytest.approx(float(cosine), rel=1e-5)
    published = 1 - miss / f.square().sum(1)
    assert float(of["explained_variance"].value) == pytest.approx(float(published.mean()), rel=1e-5)
    r_square = 1 - miss / (64 * f.var(1))
    assert float(of["r_square"].value) == pytest.approx(float(r_square.mean()), rel=1e-5)
    pearson = torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(f, t, strict=True)])
    assert float(of["pearson"].value) == pytest.approx(float(pearson.median()), abs=0.01)


def test_the_optimum_leaves_nothing_to_account_for() -> None:
    found = explain(DIGITS, DIGITS, {"linear": LINEAR}, sigmas=[0.3, 2.0], draws=32)
    assert all(math.isnan(float(found.at(s, "linear").columns["accounted"].value)) for s in (0.3, 2.0))
    (sentence,) = found.sentences()
    assert sentence.endswith("the network is the optimum, but for less than a thousandth of what the optimum says")


def test_a_network_that_errs_at_random_is_explained_by_nothing() -> None:
    noise = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    found = explain(lambda x, sigma: DIGITS(x, sigma) + 0.2 * noise, DIGITS, {"linear": LINEAR}, sigmas=1.0, draws=64)
    assert "no theory surely accounts for a twentieth" in found.sentences()[0]


def test_intervals_hold_the_share_of_many_draws() -> None:
    network = lambda x, sigma: PARTS(x, sigma) + 0.05 * x.tanh()  # noqa: E731
    truth = explain(network, DIGITS, {"linear": LINEAR, "parts": PARTS}, sigmas=0.8, draws=8192, seed=99)
    held = {"accounted": 0, "direction": 0}
    for seed in range(60):
        found = explain(network, DIGITS, {"linear": LINEAR}, sigmas=0.8, draws=96, seed=seed).at(0.8, "linear")
        for name in held:
            value = float(truth.at(0.8, "linear").columns[name].value)
            held[name] += float(found.columns[name].low) <= value <= float(found.columns[name].high)
    # 95% of 60 is 57; 50 or fewer come once in a thousand.
    assert all(count > 50 for count in held.values()), held


def test_everybody_starts_from_the_same_noises_and_goes_the_same_way() -> None:
    found = endings(between(1.0), DIGITS, {"linear": LINEAR}, n=24)
    unit = DIGITS.standard_deviation
    grid = karras(18, sigma_min=2.5e-5 * unit, sigma_max=160 * unit)
    again = sample(DIGITS, found.start, sigmas=grid, solver="heun")
    assert torch.equal(found.others[OPTIMUM], again)
    assert torch.allclose(found.network, found.others["linear"], atol=1e-5)
    rows = {row["theory"]: row for row in found.rows()}
    assert rows["linear"]["pearson"] > 0.999 > rows[OPTIMUM]["pearson_high"]
    assert rows["linear"]["distance"] < 1e-4 < rows[OPTIMUM]["distance_low"]
    assert "linear ends nearest to it" in found.sentence()


@pytest.mark.parametrize(
    ("theories", "options", "sentence"),
    [
        ({}, {}, "theories must be at least one"),
        ({"optimum": LINEAR}, {}, "none of them named optimum"),
        ({"linear": LINEAR}, {"draws": 1}, "draws must be at least 2, got 1"),
        ({"linear": LINEAR}, {"level": 1.0}, "level must lie between 0 and 1, got 1"),
        ({"linear": LINEAR}, {"on": "nowhere"}, 'on must be None, points or "trajectory"'),
        ({"nan": lambda x, sigma: x * math.nan}, {"sigmas": 1.0}, "the answer of nan is not finite at σ = 1"),
    ],
)
def test_bad_input(theories: dict[str, object], options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        explain(between(0.5), DIGITS, theories, **options)  # pyright: ignore[reportArgumentType]


def test_the_nearest_of_many_that_are_alike_is_not_told_from_them() -> None:
    """Of ten that are alike the least by chance is not surely nearer than the one that is in truth."""
    generator = torch.Generator().manual_seed(0)
    left_out = alone = 0
    for _ in range(300):
        noise = torch.randn(64, 11, generator=generator, dtype=torch.float64)
        misses = {str(k): 2 * noise[:, 10] + noise[:, k] for k in range(10)}
        left_out += "0" not in nearest_of(misses, 0.95)
        alone += "0" not in nearest_of(misses, 1 - 9 * 0.05)
    # The second as if each pair were the only one. Three standard deviations above 5% is 26.
    assert left_out <= 26 < alone, (left_out, alone)


def beside(F: Denoiser, generator: torch.Generator) -> Denoiser:
    """F and an error of mean square ½ a value, uniform from 0 to 1 over the draws."""
    noise = torch.randn(24, 1, 8, 8, generator=generator)
    size = torch.rand(24, 1, 1, 1, generator=generator).sqrt()
    error = size * noise / noise.square().mean((1, 2, 3), keepdim=True).sqrt()
    return lambda x, sigma: F(x, sigma) + error


def test_the_share_of_the_nearest_allows_for_the_choice() -> None:
    """Of theories that account for half each, the nearest on the draws is not said to account for more."""
    generator = torch.Generator().manual_seed(1)
    network, own, nearest = (lambda x, sigma: DIGITS(x, sigma) + 1), 0, 0
    for _ in range(40):
        theories = {str(k): beside(network, generator) for k in range(8)}
        found = explain(network, DIGITS, theories, sigmas=1.0, draws=24)
        share, chosen = found.at(1.0, found.best(1.0)[0][0]).columns["accounted"], found.share_of_nearest(1.0)
        assert float(share.value) == pytest.approx(float(chosen.value))
        own += float(share.low) <= 0.5
        nearest += float(chosen.low) <= 0.5
    assert own < 36 <= nearest, (own, nearest)
