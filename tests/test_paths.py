"""Entropies along x0 + σ ε from two products, beside the posterior's."""

from __future__ import annotations

import pytest
import torch

from optimal import OptimalDenoiser, load, orbit
from optimal.border import borders
from optimal.crossings import Drawn
from optimal.draws import draw_pairs
from optimal.paths import Paths


def points(count: int = 300, dim: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


COPIES = torch.cat([points(), points()[:50]])
OPTIMA = {
    "points": OptimalDenoiser(points()),
    "copies": OptimalDenoiser(COPIES),
    "small": OptimalDenoiser(1e-9 * points().double()),
    "large": OptimalDenoiser(1e12 * points()),
    "weighted": OptimalDenoiser(points()).weighted(torch.linspace(0, 5, 300)),
    "some": OptimalDenoiser(points()).weighted(torch.where(torch.arange(300) % 3 > 0, 0.0, -torch.inf)),
    "far": OptimalDenoiser(points().double() + 1000),
    "images": OptimalDenoiser(load("digits", n=200)),
    "one": OptimalDenoiser(points(1)),
}


@pytest.mark.parametrize("name", OPTIMA)
@pytest.mark.parametrize("level", [0.01, 0.3, 1.0, 30.0, 1e4])
def test_they_are_the_posterior_s(name: str, level: float) -> None:
    """In float64, where x0 + σ ε is not rounded either."""
    D = OPTIMA[name]
    x0, eps = (each.double() for each in draw_pairs(D, None, 70, torch.Generator().manual_seed(1)))
    paths, sigma = Paths.of(D, x0, eps), level * (D.standard_deviation or 1.0)
    assert paths is not None
    assert paths.holds(sigma)
    entropy, leader = paths.at(sigma)
    post = D.posterior(x0 + sigma * eps, sigma)
    assert torch.allclose(entropy, post.entropy, atol=2e-6)
    # At the highest levels all points are alike to within rounding.
    assert level > 100 or torch.equal(leader, post.top_index)


def test_the_borders_are_those_of_the_posterior(monkeypatch: pytest.MonkeyPatch) -> None:
    D = OptimalDenoiser(load("digits", n=400))
    found = borders(D, draws=500)
    monkeypatch.setattr(Paths, "of", classmethod(lambda cls, *_: None))
    for own, posterior in zip(found, borders(D, draws=500), strict=True):
        for name in ("sigma", "low", "high"):
            assert getattr(own, name) == pytest.approx(getattr(posterior, name), rel=1e-6)


def test_where_products_are_too_coarse_the_posterior_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two points far apart, each with a copy that is hardly another: their logits are lost in the norms' rounding."""
    spread = torch.tensor([[0.0], [1e-9], [1e9], [1e9 + 1e-6]], dtype=torch.float64)
    drawn = Drawn(OptimalDenoiser(spread), None, 16, torch.Generator().manual_seed(0))
    paths = drawn.paths
    assert paths is not None
    assert not paths.holds(1e-7)
    assert paths.holds(1e7)
    asked: list[float] = []
    monkeypatch.setattr(paths, "entropies", lambda sigma: asked.append(sigma) or torch.zeros(16))
    drawn.entropies(torch.tensor(1e-7).log().item())
    assert not asked
    drawn.entropies(torch.tensor(1e7).log().item())
    assert asked


def test_what_has_no_rows_in_memory_takes_none() -> None:
    D = OptimalDenoiser(load("digits", n=20))
    x0, eps = draw_pairs(D, None, 4, torch.Generator().manual_seed(0))
    assert Paths.of(D, x0, eps) is not None
    assert Paths.of(orbit(D, "flip"), x0, eps) is None
    small = OptimalDenoiser(load("digits", n=20), memory=1000)
    assert Paths.of(small, x0, eps) is None
