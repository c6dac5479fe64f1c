"""Windows by noise level: every window tried on the same draws, images left out of what judges them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from optimal import OptimalDenoiser
from optimal.theories import (
    LocalDenoiser,
    boundary_local_score,
    equivariant_local_score,
    local_score,
    patch_posterior,
    window_by_network,
    window_by_risk,
)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def D() -> OptimalDenoiser:
    smooth = torch.nn.functional.avg_pool2d(random(60, 2, 8, 8), 3, 1, 1, count_include_pad=False)
    return OptimalDenoiser(3 * smooth)


@pytest.mark.parametrize("theory", [local_score, patch_posterior, equivariant_local_score, boundary_local_score])
def test_the_risk_is_that_of_data_without_the_image(theory: type[LocalDenoiser], D: OptimalDenoiser) -> None:
    """As from a theory of the other images, made anew for every draw."""
    sigmas = [2.0, 0.3]
    found = window_by_risk(D, [5, 1, 3], sigmas, 4, torch.Generator().manual_seed(3), theory=theory)
    source = torch.Generator().manual_seed(3)
    index = D.drawn(4, source)
    eps = torch.randn(4, 2, 8, 8, generator=source).double()
    for row, sigma in enumerate(sigmas):
        for column, window in enumerate((5, 1, 3)):
            squares = []
            for j, noise in zip(index.tolist(), eps, strict=True):
                y = D.take(torch.tensor([j])).double()
                squares.append((theory(D.without(j), window)(y + sigma * noise, sigma) - y).square().sum())
            assert float(found.cost.value[row, column]) == pytest.approx(float(torch.stack(squares).mean()), rel=1e-9)
            assert found.cost.low[row, column] < found.cost.value[row, column] < found.cost.high[row, column]
        least = found.cost.value[row].argmin()
        assert int(found.best[row]) == (5, 1, 3)[least]
    assert found.sigmas.tolist() == sigmas


@pytest.mark.parametrize("on", ["forward", "trajectory"])
def test_a_denoiser_that_is_a_theory_is_found(on: str, D: OptimalDenoiser) -> None:
    sides = {4.0: 5, 1.0: 3, 0.25: 1}
    # Heun asks at the levels of the grid only.
    model = local_score(D, lambda sigma: sides[round(sigma, 6)])
    found = window_by_network(model, D, [1, 3, 5, 7], list(sides), 8, on=on)
    assert found.best.tolist() == [5, 3, 1]
    assert found.unlike.tolist() == [0, 0, 0]
    assert float(found.cost.value.amin(1).max()) < 1e-8
    assert [found(sigma) for sigma in (80.0, 2.1, 1.9, 0.51, 0.49, 0.01)] == [5, 5, 3, 3, 1, 1]
    x = random(2, 2, 8, 8)
    torch.testing.assert_close(local_score(D, found)(x, 1.2), local_score(D, 3)(x, 1.2))
    lines = str(found).splitlines()
    assert len(lines) == 4
    assert lines[1].split()[:2] == ["4", "5"]


def test_what_is_refused(D: OptimalDenoiser) -> None:
    with pytest.raises(ValueError, match="at least one, got none"):
        window_by_risk(D, [], [1.0])
    with pytest.raises(ValueError, match="draws must be a whole number of at least 2"):
        window_by_risk(D, [1], [1.0], 1)
    with pytest.raises(ValueError, match="got 2"):
        window_by_risk(D, [2], [1.0])
    with pytest.raises(ValueError, match='on must be "forward" or "trajectory", got'):
        window_by_network(D, D, [1], [1.0], on="own")
