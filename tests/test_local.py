"""Local theories: against sums written straight from their formula, and what must hold between them and the optimum."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contracts import check_denoiser
from torch import Tensor

from optimal import OptimalDenoiser, ShardedDenoiser, load
from optimal.theories import (
    LocalDenoiser,
    flexible_patch_posterior,
    local_score,
    patch_posterior,
    pca_locality,
)
from optimal.theories.local.units import Mask

EVENTS = [(1, 4, 4), (3, 3, 5), (2, 5, 3), (4, 3)]
EXACT: dict[str, Any] = {"rtol": 0, "atol": 1e-10}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def images(event: tuple[int, ...], count: int = 12, seed: int = 0) -> tuple[Tensor, Tensor, OptimalDenoiser]:
    """Points, their log-weights, −∞ among them, and the optimum."""
    y, a = random(count, *event, seed=seed), random(count, seed=seed + 1)
    a[3] = -torch.inf
    return y, a, OptimalDenoiser(y).weighted(a)


def asked(event: tuple[int, ...], rows: int = 3, seed: int = 7) -> tuple[Tensor, Tensor]:
    sigma = torch.tensor([0.3, 0.9, 4.0], dtype=torch.float64)[torch.arange(rows) % 3]
    return random(rows, *event, seed=seed), sigma


def unit(x: Tensor, sigma: float, y: Tensor, a: Tensor, sees: Tensor) -> Tensor:
    """w_j of one unit, (N,): x (d,), y (N, d), sees (d,) its precision."""

    def squares(row: Tensor) -> float:
        return sum(float(q) * (float(u) - float(v)) ** 2 for q, u, v in zip(sees, x, row, strict=True))

    logits = [float(a[j]) - squares(y[j]) / (2 * sigma**2) for j in range(len(y))]
    top = max(logits)
    weights = [math.exp(each - top) for each in logits]
    return torch.tensor(weights, dtype=torch.float64) / sum(weights)


def collected(
    x: Tensor, sigma: Tensor, y: Tensor, a: Tensor, units: Callable[[float], list[tuple[Tensor, Tensor]]]
) -> tuple[Tensor, Tensor]:
    """D and the entropies, both (B, d), of units (precision, response), at every level; responses sum to 1."""
    out, entropy = torch.zeros(len(x), x[0].numel(), dtype=torch.float64), []
    flat = y.flatten(1)
    for row in range(len(x)):
        shares = torch.zeros(len(y), flat.shape[1], dtype=torch.float64)
        made = units(float(sigma[row]))
        torch.testing.assert_close(sum(answers for _, answers in made), torch.ones(flat.shape[1]).double())
        for sees, answers in made:
            shares += unit(x[row].flatten(), float(sigma[row]), flat, a, sees)[:, None] * answers
        out[row] = (shares * flat).sum(0)
        entropy.append(-torch.xlogy(shares, shares).sum(0))
    return out.reshape(x.shape), torch.stack(entropy)


def places(event: tuple[int, ...]) -> list[tuple[int, int, int]]:
    channels = event[0] if len(event) == 3 else 1
    return list(itertools.product(range(channels), range(event[-2]), range(event[-1])))


def where(event: tuple[int, ...], holds: Callable[[int, int, int], bool]) -> Tensor:
    return torch.tensor([float(holds(*place)) for place in places(event)], dtype=torch.float64)


def windows(event: tuple[int, ...], side: int) -> list[tuple[Tensor, Tensor]]:
    """LS: a window around each pixel, which answers the pixel in all channels."""
    reach, out = side // 2, []
    for h, w in itertools.product(range(event[-2]), range(event[-1])):
        sees = where(event, lambda c, i, j, h=h, w=w: abs(i - h) <= reach and abs(j - w) <= reach)
        out.append((sees, where(event, lambda c, i, j, h=h, w=w: (i, j) == (h, w))))
    return out


def patches(event: tuple[int, ...], side: int) -> list[tuple[Tensor, Tensor]]:
    """PSPC: every square inside the image, which answers all that it covers."""
    height, width = event[-2:]
    up, across = min(side, height), min(side, width)
    masks = [
        where(event, lambda c, i, j, h=h, w=w: h <= i < h + up and w <= j < w + across)
        for h, w in itertools.product(range(height - up + 1), range(width - across + 1))
    ]
    return shared(masks)


def shared(masks: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    covered = torch.stack(masks).sum(0)
    return [(mask, mask / covered) for mask in masks]


def filtered(D: OptimalDenoiser, y: Tensor, a: Tensor, sigma: float) -> Tensor:
    flat, share = y.flatten(1), a.softmax(0)
    mean = share @ flat
    covariance = (flat - mean).T @ ((flat - mean) * share[:, None])
    return covariance @ torch.linalg.inv(covariance + sigma**2 * torch.eye(len(mean), dtype=torch.float64))


def ratios(W: Tensor, threshold: float, normalise: str) -> list[tuple[Tensor, Tensor]]:
    out = []
    count = len(W)

    def ratio(n: int, m: int) -> float:
        return float(W[n, m]) / float(W[n, n] if normalise == "input" else W[m, m])

    R = [[ratio(n, m) for m in range(count)] for n in range(count)]
    largest = max(abs(r) for row in R for r in row)
    for m in range(count):
        sees = torch.tensor([float(abs(R[n][m]) >= threshold * largest) for n in range(count)], dtype=torch.float64)
        out.append((sees, torch.nn.functional.one_hot(torch.tensor(m), count).double()))
    return out


def heated(heat: Tensor, share: float, event: tuple[int, ...]) -> list[tuple[Tensor, Tensor]]:
    masks = []
    for row in heat:
        taken, held = [], 0.0
        for q in sorted(range(len(row)), key=lambda q: -float(row[q])):
            if held >= share * float(row.sum()):
                break
            taken.append(q)
            held += float(row[q])
        masks.append(where(event, lambda c, i, j, taken=taken: i * event[-1] + j in taken))
    return shared(masks)


def check(theory: LocalDenoiser, event: tuple[int, ...], y: Tensor, a: Tensor, units: Any) -> None:
    x, sigma = asked(event)
    mean, entropy = collected(x, sigma, y, a, units)
    post = theory.posterior(x, sigma)
    torch.testing.assert_close(theory(x, sigma), mean, **EXACT)
    torch.testing.assert_close(post.mean, mean, **EXACT)
    own = entropy if post.entropy.shape == x.shape else entropy[:, : event[-2] * event[-1]]
    torch.testing.assert_close(post.entropy.flatten(1), own, **EXACT)
    torch.testing.assert_close(post.effective_count, post.entropy.exp(), **EXACT)
    score = (mean - x) / sigma.view(-1, *[1] * len(event)) ** 2
    torch.testing.assert_close(theory.score(x, sigma), score, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("event", EVENTS, ids=str)
@pytest.mark.parametrize("side", [1, 3, 5])
def test_windows_are_their_formula(event: tuple[int, ...], side: int) -> None:
    y, a, D = images(event)
    check(local_score(D, side), event, y, a, lambda sigma: windows(event, side))


@pytest.mark.parametrize("event", EVENTS, ids=str)
@pytest.mark.parametrize("side", [1, 2, 3])
def test_patches_are_their_formula(event: tuple[int, ...], side: int) -> None:
    y, a, D = images(event)
    check(patch_posterior(D, side), event, y, a, lambda sigma: patches(event, side))


@pytest.mark.parametrize("event", EVENTS, ids=str)
@pytest.mark.parametrize("normalise", ["input", "output"])
def test_masks_of_the_filter_are_their_formula(event: tuple[int, ...], normalise: Any) -> None:
    y, a, D = images(event, count=40)
    theory = pca_locality(D, 0.2, normalise=normalise)
    check(theory, event, y, a, lambda sigma: ratios(filtered(D, y, a, sigma), 0.2, normalise))


@pytest.mark.parametrize("event", EVENTS, ids=str)
def test_flexible_patches_are_their_formula(event: tuple[int, ...]) -> None:
    y, a, D = images(event, count=40)
    pixels = event[-2] * event[-1]
    heat = random(pixels, pixels, seed=5).square() + 30 * torch.eye(pixels, dtype=torch.float64)
    check(flexible_patch_posterior(D, 0.6, heat), event, y, a, lambda sigma: heated(heat, 0.6, event))
    changing = flexible_patch_posterior(D, lambda sigma: min(1.0, 0.3 + sigma / 10), lambda sigma: heat.pow(sigma))
    check(changing, event, y, a, lambda sigma: heated(heat.pow(sigma), min(1.0, 0.3 + sigma / 10), event))

    def default(sigma: float) -> list[tuple[Tensor, Tensor]]:
        W = filtered(D, y, a, sigma).abs()
        own = W.view(-1, pixels, W.shape[0] // pixels, pixels).sum((0, 2))
        return heated(torch.diagonal_scatter(own, own.amax(1) * (1 + 1e-9)), 0.6, event)

    check(flexible_patch_posterior(D, 0.6), event, y, a, default)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.06, 0.07, 1.0])
def test_masks_of_few_entries_are_masks(share: float) -> None:
    """The same products forwards and back, and the same cover, whether entries are many or few."""
    matrix = (torch.rand(30, 40, generator=torch.Generator().manual_seed(0)) < share).double()
    mask, maps = Mask(matrix), random(40, 7)
    torch.testing.assert_close(mask.seen(maps), matrix @ maps, **EXACT)
    torch.testing.assert_close(mask.spread(maps[:30]), matrix.T @ maps[:30], **EXACT)
    torch.testing.assert_close(mask.cover(), matrix.sum(0)[:, None], **EXACT)


def product() -> Tensor:
    """Every image of 2x2 pixels of three values: the pixels are independent."""
    return torch.tensor(list(itertools.product((-1.0, 0.5, 1.0), repeat=4)), dtype=torch.float64).view(81, 1, 2, 2)


EVERY: dict[str, Callable[[OptimalDenoiser], LocalDenoiser]] = {
    "LS 1": lambda D: local_score(D, 1),
    "LS 3": lambda D: local_score(D, 3),
    "PSPC 1": lambda D: patch_posterior(D, 1),
    "PSPC 2": lambda D: patch_posterior(D, 2),
    "flex": lambda D: flexible_patch_posterior(D, 0.5),
    "PCA": lambda D: pca_locality(D, 0.05),
    "PCA, by output": lambda D: pca_locality(D, 0.05, normalise="output"),
}


@pytest.mark.parametrize("name", EVERY)
def test_independent_pixels_have_the_optimum_whatever_the_window(name: str) -> None:
    D = OptimalDenoiser(product())
    x, sigma = asked((1, 2, 2), rows=9)
    torch.testing.assert_close(EVERY[name](D)(x, sigma), D(x, sigma), **EXACT)


WHOLE: dict[str, Callable[[OptimalDenoiser], LocalDenoiser]] = {
    "LS": lambda D: local_score(D, 2 * max(D.event[-2:]) - 1),
    "LS, larger": lambda D: local_score(D, 101),
    "PSPC": lambda D: patch_posterior(D, max(D.event[-2:])),
    "flex": lambda D: flexible_patch_posterior(D, 1.0),
    "PCA": lambda D: pca_locality(D, 0.0),
}


@pytest.mark.parametrize("event", EVENTS, ids=str)
@pytest.mark.parametrize("name", WHOLE)
def test_windows_that_cover_all_have_the_optimum(name: str, event: tuple[int, ...]) -> None:
    _, _, D = images(event, count=30)
    x, sigma = asked(event)
    post, found = D.posterior(x, sigma), WHOLE[name](D).posterior(x, sigma)
    torch.testing.assert_close(found.mean, post.mean, **EXACT)
    entropy = post.entropy.view(-1, *[1] * (found.entropy.ndim - 1)).expand_as(found.entropy)
    torch.testing.assert_close(found.entropy, entropy, **EXACT)


def test_single_pixels_are_the_same_in_every_theory() -> None:
    """k = 1: LS = PSPC; of images of one pixel, D; and a diagonal covariance's masks are single values."""
    _, _, D = images((3, 4, 4))
    x, sigma = asked((3, 4, 4))
    torch.testing.assert_close(local_score(D, 1)(x, sigma), patch_posterior(D, 1)(x, sigma), **EXACT)
    _, _, one = images((3, 1, 1))
    x, sigma = asked((3, 1, 1))
    torch.testing.assert_close(local_score(one, 1)(x, sigma), one(x, sigma), **EXACT)
    signs = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=4)), dtype=torch.float64).view(16, 1, 2, 2)
    scaled = OptimalDenoiser(signs * torch.tensor([[1.0, 2.0], [0.5, 1.5]]))
    x, sigma = asked((1, 2, 2))
    torch.testing.assert_close(pca_locality(scaled, 0.05)(x, sigma), local_score(scaled, 1)(x, sigma), **EXACT)


@pytest.mark.parametrize("name", EVERY)
def test_copies_and_constants_in_the_prior_change_nothing(name: str) -> None:
    y, a, D = images((2, 3, 4), count=20)
    x, sigma = asked((2, 3, 4))
    right = EVERY[name](D).posterior(x, sigma)
    doubled = EVERY[name](OptimalDenoiser(torch.cat([y, y])).weighted(torch.cat([a, a]))).posterior(x, sigma)
    torch.testing.assert_close(doubled.mean, right.mean, **EXACT)
    torch.testing.assert_close(doubled.entropy, right.entropy + math.log(2), **EXACT)
    shifted = EVERY[name](OptimalDenoiser(y).weighted(a + 100))(x, sigma)
    torch.testing.assert_close(shifted, right.mean, **EXACT)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(EVERY[name](OptimalDenoiser(y[order]).weighted(a[order]))(x, sigma), right.mean, **EXACT)
    large = EVERY[name](OptimalDenoiser(1e6 * (y + 1e3)).weighted(a))(1e6 * (x + 1e3), 1e6 * sigma)
    torch.testing.assert_close(large / 1e6 - 1e3, right.mean, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", EVERY)
def test_a_point_left_out_is_as_if_it_were_not_there(name: str) -> None:
    if "PCA" in name or name == "flex":
        pytest.skip("there the masks go by all points")
    _, _, D = images((2, 3, 4), count=20)
    x, sigma = asked((2, 3, 4), rows=4)
    index = torch.tensor([0, 3, 19, 7])
    found = EVERY[name](D).without(index).posterior(x, sigma)
    for row, left_out in enumerate(index.tolist()):
        one = EVERY[name](D.without(left_out)).posterior(x[row : row + 1], sigma[row])
        torch.testing.assert_close(found.mean[row : row + 1], one.mean, **EXACT)
        torch.testing.assert_close(found.entropy[row : row + 1], one.entropy, **EXACT)
    with pytest.raises(ValueError, match="one a row"):
        EVERY[name](D).without(3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="between 0 and 19"):
        EVERY[name](D).without(torch.tensor([20]))
    with pytest.raises(ValueError, match="one a row: 4"):
        EVERY[name](D).without(index)(x[:2], 1.0)


@pytest.mark.parametrize("chunk", [1, 5, 7, 12])
def test_parts_of_the_data_are_averaged(chunk: int) -> None:
    y, a, D = images((1, 3, 3), count=12)
    x, sigma = asked((1, 3, 3))
    kept = (a > -torch.inf).nonzero().squeeze(1)
    W = [filtered(D, y, a, float(s)) for s in sigma]
    parts = [
        collected(x, sigma, y[part], a[part], lambda s: ratios(W[sigma.tolist().index(s)], 0.2, "input"))[0]
        for part in kept.split(chunk)
    ]
    torch.testing.assert_close(pca_locality(D, 0.2, chunk=chunk)(x, sigma), torch.stack(parts).mean(0), **EXACT)
    if chunk == 12:
        torch.testing.assert_close(pca_locality(D, 0.2)(x, sigma), parts[0], **EXACT)


def test_temperature_is_another_level_for_the_weights_only() -> None:
    y, a, D = images((1, 3, 3))
    x, _ = asked((1, 3, 3))
    W = filtered(D, y, a, 0.8)
    right = collected(
        x, torch.full((3,), 0.8 * math.sqrt(3), dtype=torch.float64), y, a, lambda _: ratios(W, 0.2, "input")
    )[0]
    torch.testing.assert_close(pca_locality(D, 0.2, temperature=3)(x, 0.8), right, **EXACT)
    torch.testing.assert_close(pca_locality(D, 0, temperature=3)(x, 0.8), D(x, 0.8 * math.sqrt(3)), **EXACT)


def test_far_below_and_far_above_the_data_nothing_is_lost() -> None:
    """Direct differences: at σ = 1e-6 a window within 1e-6 of one image's has it, and its near-copy as often as due."""
    y = random(6, 3, 6, 6)
    y[1] = y[0] + 1e-6
    D = OptimalDenoiser(y)
    x = y[:1] + 0.4e-6
    theory = local_score(D, 3)
    corner = math.exp(-(0.4**2) * 12 / 2), math.exp(-(0.6**2) * 12 / 2)
    share = corner[1] / sum(corner)
    assert float((theory(x, 1e-6) - y[:1])[0, 0, 0, 0]) == pytest.approx(1e-6 * share, rel=1e-6)
    torch.testing.assert_close(theory(x, 1e8), D.mean[None], rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", ["LS 3", "PSPC 2", "flex", "PCA"])
def test_they_keep_the_contract_of_every_denoiser(name: str) -> None:
    D = OptimalDenoiser(random(30, 2, 4, 5).float())
    check_denoiser(EVERY[name](D), (2, 4, 5))


def test_every_row_has_the_window_of_its_level() -> None:
    _, _, D = images((2, 4, 5))
    x, sigma = asked((2, 4, 5), rows=3)
    sides = {0.3: 1, 0.9: 3, 4.0: 5}
    theory = local_score(D, lambda level: sides[level])
    for row in range(3):
        alone = local_score(D, sides[float(sigma[row])])(x[row : row + 1], sigma[row])
        torch.testing.assert_close(theory(x, sigma)[row : row + 1], alone, **EXACT)


def test_streamed_points_and_small_memory_answer_the_same(tmp_path: Path) -> None:
    y = random(200, 2, 6, 6)
    np.save(tmp_path / "y.npy", y.numpy())
    few = OptimalDenoiser(np.load(tmp_path / "y.npy", mmap_mode="r"), memory=40_000)
    assert few.points.streamed
    x, sigma = asked((2, 6, 6), rows=5)
    for name, make in EVERY.items():
        torch.testing.assert_close(make(few)(x, sigma), make(OptimalDenoiser(y))(x, sigma), **EXACT, msg=name)


def test_digits_have_constant_pixels(capsys: pytest.CaptureFixture[str]) -> None:
    """Where W has rows of rounding only, masks are of the pixel alone, and nothing is 0/0."""
    D = OptimalDenoiser(load("digits"))
    x = D.take(torch.arange(2)) + 0.5 * random(2, 1, 8, 8).float()
    for name, make in EVERY.items():
        for sigma in (0.02, 0.5, 20.0):
            post = make(D).posterior(x, sigma)
            assert torch.isfinite(post.mean).all(), name
            assert (post.entropy >= 0).all(), name
            assert (post.entropy <= math.log(len(D)) + 1e-9).all(), name
    assert capsys.readouterr().err == ""
    local_score(D, 3, progress=True)(x, 1.0)
    assert "points" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda D: local_score(D, 4), "window must be an odd whole number from 1 on, got 4"),
        (lambda D: local_score(D, 0), "got 0"),
        (lambda D: local_score(D, 2.5), "got 2.5"),
        (lambda D: local_score(D, "3"), "window must be a number"),
        (lambda D: local_score(D, lambda sigma: 4)(torch.zeros(1, 1, 4, 5), 1.0), "got 4"),
        (lambda D: patch_posterior(D, 6), "size must be a whole number from 1 to 5, got 6"),
        (lambda D: flexible_patch_posterior(D, 0.0), "share must be a number above 0 to 1, got 0"),
        (lambda D: flexible_patch_posterior(D, 0.5, torch.zeros(3, 3))(torch.zeros(1, 1, 4, 5), 1.0), "heat must be"),
        (lambda D: flexible_patch_posterior(D, 0.5, -torch.eye(20))(torch.zeros(1, 1, 4, 5), 1.0), "not negative"),
        (
            lambda D: flexible_patch_posterior(D, 0.5, torch.eye(20)[:, :1].T.repeat(20, 1))(
                torch.zeros(1, 1, 4, 5), 1.0
            ),
            "pixel 1 of 20 is in none",
        ),
        (lambda D: pca_locality(D, 1.5), "threshold must be a number from 0 to 1, got 1.5"),
        (lambda D: pca_locality(D, 0.1, temperature=0), "temperature must be positive"),
        (lambda D: pca_locality(D, 0.1, normalise="both"), "normalise must be"),
        (lambda D: pca_locality(D, 0.1, chunk=0), "chunk must be None or"),
    ],
)
def test_what_is_refused(make: Callable[[OptimalDenoiser], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make(OptimalDenoiser(random(5, 1, 4, 5)))


@pytest.mark.parametrize("name", EVERY)
def test_points_that_are_no_images(name: str) -> None:
    with pytest.raises(
        ValueError, match=r"needs images of shape \(C, H, W\) or \(H, W\), the points have shape \(4,\)"
    ):
        EVERY[name](OptimalDenoiser(random(5, 4)))
    with pytest.raises(ValueError, match="D must be an OptimalDenoiser, got function"):
        EVERY[name](random)  # pyright: ignore[reportArgumentType]
    with pytest.raises(NotImplementedError, match="one process"):
        EVERY[name](ShardedDenoiser(random(5, 1, 2, 2)))
