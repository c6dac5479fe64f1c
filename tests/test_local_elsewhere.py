"""Local theories whose windows may lie elsewhere: against naive sums, the orbit under shifts, and each other."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from contracts import check_denoiser
from torch import Tensor

from optimal import OptimalDenoiser
from optimal.conditional import orbit
from optimal.theories import LocalDenoiser, boundary_local_score, equivariant_local_score, local_score
from optimal.theories.local.matches import Matches, Windows
from optimal.theories.local.unfolded import Summed, Torus, Unfolded
from optimal.theories.local.zones import wrapped

EVENTS = [(1, 4, 4), (3, 3, 5), (2, 6, 5), (5, 4)]
EXACT: dict[str, Any] = {"rtol": 0, "atol": 1e-10}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def images(event: tuple[int, ...], count: int = 6) -> tuple[Tensor, Tensor, OptimalDenoiser]:
    y, a = random(count, *event), random(count, seed=1)
    a[3] = -torch.inf
    return y, a, OptimalDenoiser(y).weighted(a)


def asked(event: tuple[int, ...], rows: int = 3) -> tuple[Tensor, Tensor]:
    return random(rows, *event, seed=7), torch.tensor([0.3, 0.9, 4.0], dtype=torch.float64)[torch.arange(rows) % 3]


def zone(place: int, length: int, reach: int) -> tuple[str, int]:
    if place < reach:
        return "start", place
    return ("end", length - 1 - place) if length - 1 - place < reach else ("inside", 0)


def naive(x: Tensor, sigma: Tensor, y: Tensor, a: Tensor, side: int, kind: str) -> tuple[Tensor, Tensor]:
    """D and the entropies of all pixels, loop by loop."""
    height, width = x.shape[-2:]
    x3, y3, reach = x.view(len(x), -1, height, width), y.view(len(y), -1, height, width), side // 2
    out, entropy = torch.zeros_like(x3), torch.zeros(len(x), height, width, dtype=torch.float64)
    every = list(itertools.product(range(height), range(width)))
    for row, (h, w) in itertools.product(range(len(x)), every):
        logits, values = [], []
        for j, (i, k) in itertools.product(range(len(y)), every):
            if kind == "inside" and not (reach <= i < height - reach and reach <= k < width - reach):
                continue
            same = zone(h, height, reach) == zone(i, height, reach) and zone(w, width, reach) == zone(k, width, reach)
            if kind == "border" and not same:
                continue
            square = 0.0
            for up, along in itertools.product(range(-reach, reach + 1), repeat=2):
                if kind == "border" and not (0 <= h + up < height and 0 <= w + along < width):
                    continue
                own = x3[row, :, (h + up) % height, (w + along) % width]
                square += float((own - y3[j, :, (i + up) % height, (k + along) % width]).square().sum())
            logits.append(float(a[j]) - square / (2 * float(sigma[row]) ** 2))
            values.append(y3[j, :, i, k])
        weights = torch.tensor(logits, dtype=torch.float64).softmax(0)
        out[row, :, h, w] = weights @ torch.stack(values)
        entropy[row, h, w] = -torch.xlogy(weights, weights).sum()
    return out.view(x.shape), entropy


KINDS: dict[str, Callable[[OptimalDenoiser, Any], LocalDenoiser]] = {
    "wrap": lambda D, side: equivariant_local_score(D, side),
    "inside": lambda D, side: equivariant_local_score(D, side, wrap=False),
    "border": lambda D, side: boundary_local_score(D, side),
}


@pytest.mark.parametrize("event", EVENTS, ids=str)
@pytest.mark.parametrize("side", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_they_are_their_formula(kind: str, side: int, event: tuple[int, ...]) -> None:
    if kind == "border" and side >= min(event[-2:]):
        pytest.skip("LS, see below")
    y, a, D = images(event)
    x, sigma = asked(event)
    mean, entropy = naive(x, sigma, y, a, side, kind)
    post = KINDS[kind](D, side).posterior(x, sigma)
    torch.testing.assert_close(post.mean, mean, **EXACT)
    torch.testing.assert_close(post.entropy, entropy, **EXACT)
    torch.testing.assert_close(KINDS[kind](D, side)(x, sigma), mean, **EXACT)


@pytest.mark.parametrize("side", [3, 5])
def test_the_whole_torus_is_the_orbit_under_shifts(side: int) -> None:
    _, _, D = images((2, side, side))
    x, sigma = asked((2, side, side))
    shifts, theory = orbit(D, "shifts"), equivariant_local_score(D, side).posterior(x, sigma)
    torch.testing.assert_close(theory.mean, shifts(x, sigma), **EXACT)
    entropy = shifts.posterior(x, sigma).entropy[:, None, None].expand(-1, side, side)
    torch.testing.assert_close(theory.entropy, entropy, rtol=0, atol=1e-9)


def test_only_the_equivariant_one_moves_with_x() -> None:
    _, _, D = images((2, 6, 5))
    x, sigma = asked((2, 6, 5))
    for make, moves in ((KINDS["wrap"], True), (KINDS["inside"], True), (KINDS["border"], False), (local_score, False)):
        theory = make(D, 3)
        for shift in ((1, 0), (2, 3)):
            moved = theory(x.roll(shift, (-2, -1)), sigma)
            off = float((moved - theory(x, sigma).roll(shift, (-2, -1))).abs().max())
            assert off < 1e-10 if moves else off > 1e-2


def test_where_they_are_one() -> None:
    """The border does not cut a window of one pixel; from min(H, W) on the border decides all; rows by their level."""
    y, a, D = images((2, 4, 5))
    x, sigma = asked((2, 4, 5))
    right = equivariant_local_score(D, 1)(x, sigma)
    torch.testing.assert_close(boundary_local_score(D, 1)(x, sigma), right, **EXACT)
    torch.testing.assert_close(equivariant_local_score(D, 1, wrap=False)(x, sigma), right, **EXACT)
    torch.testing.assert_close(boundary_local_score(D, 5)(x, sigma), local_score(D, 5)(x, sigma), **EXACT)
    mixed = boundary_local_score(D, lambda level: {0.3: 1, 0.9: 3, 4.0: 5}[level]).posterior(x, sigma)
    for row, side in enumerate((1, 3, 5)):
        alone = boundary_local_score(D, side).posterior(x[row : row + 1], sigma[row])
        torch.testing.assert_close(mixed.mean[row : row + 1], alone.mean, **EXACT)
        torch.testing.assert_close(mixed.entropy[row : row + 1], alone.entropy, **EXACT)
    doubled = OptimalDenoiser(torch.cat([y, y])).weighted(torch.cat([a, a]))
    for make in KINDS.values():
        torch.testing.assert_close(make(doubled, 3)(x, sigma), make(D, 3)(x, sigma), **EXACT)


@pytest.mark.parametrize("kind", KINDS)
def test_points_left_out_subsets_and_surroundings(kind: str) -> None:
    y, a, D = images((2, 4, 5))
    x, sigma = asked((2, 4, 5))
    index = torch.tensor([0, 3, 5])
    found = KINDS[kind](D, 3).without(index)(x, sigma)
    for row, left_out in enumerate(index.tolist()):
        one = KINDS[kind](D.without(left_out), 3)(x[row : row + 1], sigma[row])
        torch.testing.assert_close(found[row : row + 1], one, **EXACT)
    right = KINDS[kind](D, 3)(x, sigma)
    large = KINDS[kind](OptimalDenoiser(1e6 * (y + 1e3)).weighted(a), 3)(1e6 * (x + 1e3), 1e6 * sigma)
    torch.testing.assert_close(large / 1e6 - 1e3, right, rtol=0, atol=1e-8)
    small = OptimalDenoiser(y, memory=2_000).weighted(a)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(KINDS[kind](small, 3)(x, sigma), right, **EXACT)
    check_denoiser(KINDS[kind](OptimalDenoiser(y.float()), 3), (2, 4, 5))


def test_a_subset_is_the_theory_of_the_subset() -> None:
    y, a, D = images((2, 4, 5))
    x, sigma = asked((2, 4, 5))
    # Of the points 0, 1, 2, 4, 5 that are left, the first and the third.
    kept = torch.tensor([0, 2])
    some = equivariant_local_score(D, 3, subset=2)
    right = equivariant_local_score(OptimalDenoiser(y[kept]).weighted(a[kept]), 3)
    torch.testing.assert_close(some(x, sigma), right(x, sigma), **EXACT)
    assert "subset=2" in repr(some)
    with pytest.raises(ValueError, match="subset must be None or a whole number from 1 to 5, got 6"):
        equivariant_local_score(D, 3, subset=6)
    for side in (2, 5, 0):
        with pytest.raises(ValueError, match=f"window must be an odd whole number from 1 to 4, got {side}"):
            equivariant_local_score(D, side)
    with pytest.raises(ValueError, match="window must be an odd whole number from 1 on, got 2"):
        boundary_local_score(D, 2)
    for make in (equivariant_local_score, boundary_local_score):
        with pytest.raises(ValueError, match="needs images"):
            make(OptimalDenoiser(random(5, 4)), 1)


def test_near_copies_are_told_apart_far_below_the_data() -> None:
    """Products of numbers of the size of 1 are off by 1e-4 nats at σ = 1e-6; differences are not."""
    y = random(4, 3, 5, 5)
    y[1] = y[0] + 1e-6
    x = y[:1] + 0.4e-6
    found = equivariant_local_score(OptimalDenoiser(y), 3)(x, 1e-6) - y[:1]
    shares = math.exp(-(0.4**2) * 27 / 2), math.exp(-(0.6**2) * 27 / 2)
    expected = torch.full_like(found, 1e-6 * shares[1] / sum(shares))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def directly(x: Tensor, sigma: Tensor, y: Tensor, a: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """ELS on the torus by differences of all windows, and its entropies."""
    reach = side // 2
    shifts = list(itertools.product(range(-reach, reach + 1), repeat=2))
    own, other = (torch.stack([z.roll(shift, (-2, -1)) for shift in shifts]).flatten(3) for z in (x, y))
    means, entropies = [], []
    for row in range(len(x)):
        off = own[:, row, None, :, :, None] - other[:, :, :, None, :]
        logits = a[:, None, None] - off.square().sum((0, 2)) / (2 * sigma[row] ** 2)
        weights = logits.transpose(0, 1).flatten(1).softmax(1)
        means.append(weights @ y.flatten(2).transpose(1, 2).flatten(0, 1))
        entropies.append(-torch.xlogy(weights, weights).sum(1))
    return torch.stack(means).transpose(1, 2).reshape(x.shape), torch.stack(entropies).view(len(x), *x.shape[2:])


@pytest.mark.parametrize("spread", [0.0, 300.0])
def test_nothing_that_counts_is_left_out_at_any_level(spread: float) -> None:
    """From where one window has all to where all have the same, under a prior that outweighs distances."""
    y = torch.nn.functional.avg_pool2d(random(90, 3, 6, 6), 3, 1, 1)
    y[40:] = y[:50] + 1e-3 * random(50, 3, 6, 6, seed=4)
    a = spread * random(90, seed=5)
    sigma = torch.logspace(-5, 3, 17, dtype=torch.float64)
    x = y[:17] + sigma.view(-1, 1, 1, 1) * random(17, 3, 6, 6, seed=6)
    for side in (1, 3, 5):
        mean, entropy = directly(x, sigma, y, a, side)
        found = equivariant_local_score(OptimalDenoiser(y).weighted(a), side).posterior(x, sigma)
        torch.testing.assert_close(found.mean, mean, **EXACT)
        # The logits go up to 1e13 bits at the lowest levels, and their differences with them.
        torch.testing.assert_close(found.entropy, entropy, rtol=0, atol=1e-8)


@pytest.mark.parametrize("offset", [0.0, 3.0, 300.0])
def test_rough_logits_are_off_by_less_than_they_say(offset: float) -> None:
    """Far from the origin products cancel: there float32 gives way to float64."""
    found = set()
    for seed, level in itertools.product(range(4), (0.1, 1.0, 10.0)):
        seen, values = (random(*shape, seed=seed) + offset for shape in ((5, 12), (12, 40)))
        prior = 30 * random(8, seed=seed)
        windows, matches = (
            Windows(Unfolded(values), random(1, 40), 8, prior),
            Matches(seen, seen, level, 1, energy=False),
        )
        right = (seen[:, :, None] - values).square().sum(1) / (-2 * level**2 * math.log(2)) + prior.repeat(5)
        rough, error = matches.rough(windows, None)
        off = (rough.flatten(1) - right).abs()
        assert (off <= error[:, None]).all()
        assert rough.dtype == torch.float64 or off.max() > 1e-7
        found.add(rough.dtype)
    assert (torch.float64 in found) == (offset == 300)


@pytest.mark.parametrize("wrap", [True, False])
@pytest.mark.parametrize("side", [1, 3, 5])
def test_products_of_pixels_are_those_of_windows(side: int, wrap: bool) -> None:
    """Summed over windows that go on at the other side; and the windows themselves are the same."""
    event, channels, images = (7, 5), 2, 3
    (zone,) = wrapped(event, wrap)(side)
    x, y = random(channels, 35), random(channels, 35, images, seed=1)
    seen = x[:, zone.seen].transpose(0, 1).flatten(1)
    unfolded = Unfolded(y[:, zone.windows.T].flatten(0, 1).flatten(1))
    summed = Summed(y, Torus(event, side, zone.places, zone.windows))
    for dtype, close in ((torch.float64, EXACT), (torch.float32, {"rtol": 0, "atol": 1e-4})):
        factors = [torch.cat([z, torch.ones_like(z[:, :1]), z[:, :1]], 1).to(dtype) for z in (seen, x.T)]
        # The last factor is a square: over a window it is the sum of those of its pixels.
        factors[0][:, -1] = x[0, zone.seen].sum(1)
        right = unfolded.products(factors[0])
        torch.testing.assert_close(summed.products(factors[1]), right, **close)
        assert right.dtype == dtype
    window = torch.tensor([0, 4, len(zone.places) * images - 1, 4])
    assert torch.equal(summed.picked(window), unfolded.picked(window))
    # Of the windows around all places, a few more than are wanted unless they wrap.
    assert summed.half == pytest.approx(unfolded.half) if wrap else summed.half >= unfolded.half * (1 - 1e-12)
