"""Products of bytes: exact where they say so, within their bound everywhere, on data made to break it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from problems import absolute_error, reference_posterior, row_error
from torch import Tensor

from optimal import OptimalDenoiser, load, sample
from optimal.evaluate import Accuracy, Evaluator, byte_digits, dense, screened
from optimal.evaluate.byte_digits import Digits, Streams
from optimal.points import Points

Normal = Callable[..., Tensor]
SIGMAS = (0.002, 0.05, 0.5, 2.0, 5.0, 20.0, 80.0)
EVENT = (3, 16, 16)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(n: int) -> Tensor:
    return torch.randint(0, 256, (n, *EVENT), dtype=torch.uint8, generator=seeded())


def near_duplicates() -> Tensor:
    images = noise(1)[0].repeat(400, 1, 1, 1)
    for i in range(400):
        images[i].view(-1)[i] ^= 1
    return images


def outlier() -> Tensor:
    images = torch.randint(120, 136, (300, *EVENT), dtype=torch.uint8, generator=seeded())
    images[17] = 255
    return images


def rank_one() -> Tensor:
    return torch.arange(0, 256, dtype=torch.uint8)[:, None, None, None].expand(256, *EVENT).contiguous()


ADVERSARIAL = {
    "noise": lambda: noise(500),
    "near-duplicates": near_duplicates,
    "constant": lambda: torch.full((300, *EVENT), 77, dtype=torch.uint8),
    "outlier": outlier,
    "rank 1": rank_one,
    "one point": lambda: noise(1),
    "twice": lambda: noise(200).repeat(2, 1, 1, 1),
}


@pytest.fixture(params=["fast", "float32"])
def product(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both products of bytes: the processor's, and the one through float32."""
    monkeypatch.setattr(byte_digits, "fast_bytes", lambda: request.param == "fast")


@pytest.fixture(params=[16, 3000])
def few(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a small limit nearly all queries are spread; with the usual one most are sharp."""
    monkeypatch.setattr(screened, "_few", lambda points: min(request.param, points.size // 2))


def queries(points: Tensor, normal: Normal) -> tuple[Tensor, Tensor]:
    """Noisy points, a data point itself, and points far outside, in float32, with their levels."""
    levels = torch.tensor(SIGMAS, dtype=torch.float64)
    index = torch.arange(len(SIGMAS)) * 7 % len(points)
    noisy = points[index] + levels.view(-1, 1, 1, 1) * normal(len(SIGMAS), *EVENT)
    # Further out, for a small σ, float64 does not tell points apart either, by products or by differences.
    far = 1e3 * normal(4, *EVENT)
    return torch.cat([noisy, points[index].double(), far]).float(), torch.cat([levels, levels, levels[-4:]])


@pytest.mark.usefixtures("product", "few")
@pytest.mark.parametrize("name", [*ADVERSARIAL])
def test_within_the_bound(name: str, normal: Normal) -> None:
    images = ADVERSARIAL[name]()
    points = images.float() / 127.5 - 1
    x, levels = queries(points, normal)
    reference = reference_posterior(points, x, levels)
    post = OptimalDenoiser(images, method="screened").posterior(x, levels)
    error = row_error(post.mean, reference.mean)
    assert (post.error_bound <= 1e-3).all()
    # The result is rounded to float32 at the end.
    assert (error <= post.error_bound + 2e-7).all()
    assert error.amax() <= 2e-5
    assert absolute_error(post.entropy, reference.entropy).amax() <= 1e-4
    relative = absolute_error(post.log_density, reference.log_density) / reference.log_density.abs().clamp_min(1e3)
    assert relative.amax() <= 1e-6
    dense = OptimalDenoiser(images, method="dense").posterior(x, levels)
    assert torch.equal(post.top_index, dense.top_index)


@pytest.mark.slow
def test_bound_and_estimate_on_photographs(normal: Normal) -> None:
    data = load("patches", n=3000)
    images = torch.from_numpy(data.array.copy())
    points = data.points
    levels = torch.tensor([3.0, 10.0, 20.0, 80.0], dtype=torch.float64)
    x = (points[::800] + levels.view(-1, 1, 1, 1) * normal(4, *data.event)).float()
    reference = reference_posterior(points, x, levels)
    proven = OptimalDenoiser(images, method="screened").posterior(x, levels)
    error = row_error(proven.mean, reference.mean)
    assert (error <= proven.error_bound + 2e-7).all()
    assert (error <= 1e-5).all()
    fast = OptimalDenoiser(images, method="screened", certified=False).posterior(x, levels)
    spread = fast.error_bound.isnan()
    assert spread[1:].all()
    error = row_error(fast.mean, reference.mean)
    assert (error <= 3 * fast.error_estimate + 2e-7).all()
    assert (error <= 1e-3).all()
    # An estimate that says nothing would also be above the error.
    assert (fast.error_estimate[spread] <= 30 * error[spread]).all()


def test_a_tight_tolerance_goes_down_to_dense(normal: Normal) -> None:
    images = noise(200)
    points = images.float() / 127.5 - 1
    x = (points[:4] + 8 * normal(4, *EVENT)).float()
    for tolerance in (1e-2, 1e-6, 1e-9):
        D = OptimalDenoiser(images, method="screened", tolerance=tolerance)
        post, reference = D.posterior(x, 8.0), reference_posterior(points, x, 8.0)
        assert (post.error_bound <= tolerance).all()
        assert (row_error(post.mean, reference.mean) <= post.error_bound + 2e-7).all()
    with pytest.raises(ValueError, match="tolerance must be positive and finite, got 0"):
        OptimalDenoiser(images, method="screened", tolerance=0.0)


@pytest.mark.parametrize("dim", [5, 20_000])
def test_digits_add_up_and_leave_what_they_say(dim: int, normal: Normal) -> None:
    """Against vectors of all kinds; at 20,000 values the digits are rounded at random."""
    values, others = normal(6, dim) * torch.logspace(-3, 3, 6).double()[:, None], normal(50, dim)
    others[0], others[1] = 1.0, values[3]
    streams = Streams(values, torch.ones(6, dtype=torch.float64), lambda: b"test")
    digits, total = Digits(values.clone(), len(others), streams), torch.zeros_like(values)
    last = values.norm(dim=1)
    for _ in range(4):
        digit, step = digits.next()
        total += step[:, None] * digit.double()
        assert digit.dtype == torch.int8
        torch.testing.assert_close(total + digits.rest, values, rtol=0, atol=1e-9)
        left = ((values - total) @ others.T).abs() / others.norm(dim=1)
        assert (left <= digits.error[:, None] * (1 + 1e-6)).all()
        assert (digits.error < last / 20).all()
        last = digits.error.clone()
    # Rounding at random is what makes the bound small: it leaves about as much at 20,000 values as at 5.
    assert (digits.error <= 6 * digits.step).all()


def test_products_byte_digits_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest sums there are, with inner dimensions that do not fit int32, or float32, at once."""
    for fast in (True, False):
        monkeypatch.setattr(byte_digits, "fast_bytes", lambda fast=fast: fast)
        for inner in (7, 1024, 1025, 2**17 + 3):
            a = torch.full((2, inner), -127, dtype=torch.int8)
            b = torch.full((inner, 3), -128, dtype=torch.int8)
            assert (byte_digits.product(a, b).double() == 127 * 128 * inner).all()


def test_results_do_not_depend_on_the_batch(normal: Normal) -> None:
    images = noise(300)
    x = (images[:5].float() / 127.5 - 1 + 4 * normal(5, *EVENT)).float()
    D = OptimalDenoiser(images, method="screened")
    together = D.posterior(x, 4.0)
    small = OptimalDenoiser(images, method="screened", memory=2**16)
    for one in (torch.cat([D(x[i : i + 1], 4.0) for i in range(5)]), small(x, 4.0)):
        # Queries are answered in groups, whose weights are rounded at random: each within its bound, and this.
        assert row_error(one, together.mean).amax() <= 1e-5


def test_float_queries_and_gradients(normal: Normal) -> None:
    """float64 is answered in float64; gradients are those of dense; samplers run."""
    images = noise(100)
    points = images.double() / 127.5 - 1
    D, dense = (OptimalDenoiser(images, method=method) for method in ("screened", "dense"))
    x = points[:3] + 3 * normal(3, *EVENT)
    assert row_error(D(x, 3.0), dense(x, 3.0)).amax() <= 1e-12
    assert D.posterior(x, 3.0).error_bound.isnan().all()
    gradients = []
    for denoiser in (D, dense):
        leaf = x.float().requires_grad_()
        post = denoiser.posterior(leaf, 3.0)
        (post.entropy.sum() + post.mean.square().sum()).backward()
        gradients.append(leaf.grad)
    assert row_error(gradients[0], gradients[1]).amax() <= 1e-4
    noises = (80 * normal(8, *EVENT)).float()
    ends = [sample(denoiser, noises, [80.0, 10.0, 2.0, 0.5, 0.0]) for denoiser in (D, dense)]
    assert row_error(*ends).amax() <= 1e-5


def test_auto_screens_large_images_where_points_can_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """By data, processor and each row's own sigma: neither by the batch nor by a clock."""
    noise = torch.randint(0, 256, (2000, 3, 32, 32), dtype=torch.uint8, generator=seeded())
    images, levels = Points(noise), torch.tensor([1.0, 500.0, 20.0, 90.0])

    def chosen(points: Points, sigma: Tensor, *, single: bool = True, fast: bool = True) -> dict[object, list[int]]:
        monkeypatch.setattr("optimal.evaluate.evaluator.fast_bytes", lambda: fast)
        return {method: rows.tolist() for method, rows in Evaluator(points, Accuracy()).choose(sigma, single=single)}

    assert chosen(images, levels) == {screened: [0, 2], dense: [1, 3]}
    for size in (1, 64, 65, 500):
        assert chosen(images, torch.full((size,), 20.0)) == {screened: list(range(size))}
    assert chosen(images, levels, fast=False) == {dense: [0, 1, 2, 3]}
    assert chosen(images, levels, single=False) == {dense: [0, 1, 2, 3]}
    assert chosen(Points(torch.zeros(2000, 3072)), levels) == {dense: [0, 1, 2, 3]}
    assert chosen(Points(noise[:, :, :8, :8].clone()), levels) == {dense: [0, 1, 2, 3]}
    assert chosen(images, levels[:0]) == {dense: []}
    monkeypatch.setattr("optimal.evaluate.evaluator.fast_bytes", lambda: True)
    D, x = OptimalDenoiser(noise), (90 * torch.randn(4, 3, 32, 32, generator=seeded()))
    together = D.posterior(x, levels)
    assert together.method == "screened, dense"
    for row, method in enumerate(("screened", "dense", "screened", "dense")):
        alone = D.posterior(x[row : row + 1], levels[row])
        assert alone.method == method
        assert row_error(alone.mean, together.mean[row : row + 1]).amax() <= 1e-5
        assert bool(alone.error_bound.isnan()) == bool(together.error_bound[row].isnan()) == (method == "dense")
