"""The proof of `screened` attacked: exact arithmetic, ties up to rounding, and queries built from its source."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from problems import reference_posterior, row_error
from torch import Tensor

from optimal import OptimalDenoiser
from optimal.datasets import to_float
from optimal.evaluate import byte_digits, screened
from optimal.evaluate.byte_digits import Digits, Streams
from optimal.evaluate.proof import GRAIN, bytes_as_floats
from optimal.points import Points

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))

import proof as cases

ONE = torch.ones(1, dtype=torch.float64)


@pytest.fixture(params=[0, 3000], ids=["by bytes", "in float64"])
def few(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Queries end in products of bytes, or in float64."""
    monkeypatch.setattr(screened, "_few", lambda points: min(request.param, points.size))


@pytest.mark.slow
@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("kind", cases.DATA)
@pytest.mark.parametrize("query", cases.QUERIES)
def test_exact_rationals(kind: str, query: str) -> None:
    random = np.random.default_rng(sum(map(ord, kind + query)))
    for dim, sigma in itertools.product((1, 2, 300), (1e-9, 1e-3, 1.0, 1e3)):
        images, x = cases.make(kind, query, 5, dim, sigma, random)
        error, bound = cases.error_over_bound(images, x, sigma)
        assert error <= bound, (dim, sigma, error, bound)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(("dim", "n"), [(3008, 16), (12_288, 12)])
@pytest.mark.parametrize("sigma", [1e-5, 1e-4, 0.01, 2.0])
def test_equal_norms_at_the_centre(dim: int, n: int, sigma: float) -> None:
    """½‖y − c‖² is one number for all points, and is computed as several: weights are equal, and come out equal."""
    images, x = cases.make("ties", "the centre", n, dim, sigma, np.random.default_rng(3))
    half = Points(images).half_norms
    assert 0 <= float(half.max() - half.min()) <= 1e-12 * float(half.max())
    error, bound = cases.error_over_bound(images, x, sigma)
    assert error <= bound
    # Below, float64 cannot tell that they tie, and the bound says so.
    assert bound <= 1e-3 or sigma < 1e-3


def crafted(centre: Tensor, dither: Tensor, sign: Tensor, random: np.random.Generator) -> Tensor:
    """x whose values, in units of the first digit, lie 10⁻³ beyond where `dither` rounds them: always the wrong way."""
    whole = torch.from_numpy(random.integers(-100, 100, len(centre)).astype(np.float64))
    whole[0] = 127.0
    z = (whole + 1 - dither + 1e-3 * sign) / 127
    z[0] = 1.0
    return (centre + z).float()


@pytest.fixture(scope="module")
def line() -> Tensor:
    """100 images near one line."""
    random = np.random.default_rng(0)
    direction, levels = random.choice([-1.0, 1.0], 12_288), np.linspace(-60, 60, 100)
    images = np.rint(127.5 + levels[:, None] * direction + random.normal(0, 1, (100, 12_288)))
    return torch.from_numpy(np.clip(images, 0, 255).astype(np.uint8))


def test_a_query_made_from_the_dither(line: Tensor) -> None:
    """Who knows the numbers that digits are rounded by breaks any bound by chance; a hash of x keeps them unknown."""
    points = Points(line)
    random, sigma = np.random.default_rng(1), 90 * ONE
    first, last = points.exact(torch.tensor([0, 99]), points.device)
    direction = last - first
    x = points.centre.float()
    for attempt in range(2):
        # The numbers of the last attempt; in the old source they were those of every query.
        streams = screened.streams_of(points, points.reduced(x[None]), sigma)
        dither = streams.draw(0, 0, points.dim)
        x = crafted(points.centre, dither, direction.sign(), random)
        z = points.reduced(x[None])
        for known, source in ((True, streams), (False, screened.streams_of(points, z, sigma))):
            digits = Digits(z.clone(), 100, source)
            digits.next()
            left = float((digits.rest[0] @ direction).abs() / direction.norm())
            assert (left > 5 * float(digits.error)) == known, attempt
        error, bound = cases.error_over_bound(line, x[None], 90.0)
        assert error <= bound
        assert bound <= 1e-3


def test_data_made_from_the_dither() -> None:
    """With x and the centre held, data are made to lie along what the first digit leaves; its numbers then change."""
    dim, random = 4096, np.random.default_rng(0)
    signs = random.choice([-1, 1], (20, dim))
    x = torch.from_numpy(90 * random.standard_normal(dim)).float()[None]
    for attempt in range(2):
        # Every image and its negative: c = 0 and all norms are the same, whatever the signs.
        images = torch.from_numpy(np.where(np.concatenate([signs, -signs]) > 0, 255, 0).astype(np.uint8))
        points = Points(images)
        assert not points.centre.any()
        z = points.reduced(x)
        digits = Digits(z.clone(), points.size, screened.streams_of(points, z, 90 * ONE))
        digits.next()
        left = float(digits.rest[0].abs().sum()) / dim**0.5
        found = float((digits.rest @ torch.from_numpy(signs.T).double()).abs().max()) / dim**0.5
        assert found <= float(digits.error) < 0.5 * left, attempt
        signs[:10] = np.sign(digits.rest[0].numpy())


def test_rows_have_streams_of_their_own() -> None:
    z = torch.randn(4, 3000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sigma = torch.full((4,), 2.0, dtype=torch.float64)
    z[3] = z[0]
    streams, alone = Streams(z, sigma, lambda: b"a"), Streams(z[2:3], sigma[2:3], lambda: b"a")
    draws = [streams.draw(row, 0, 3000) for row in range(4)]
    assert torch.equal(draws[2], alone.draw(0, 0, 3000))
    assert torch.equal(draws[0], draws[3])
    assert torch.equal(streams.of([2]).draw(0, 5, 7), streams.draw(2, 5, 7))
    others = [Streams(z, sigma, lambda: b"b").draw(0, 0, 3000), Streams(z, sigma + 1, lambda: b"a").draw(0, 0, 3000)]
    others += [streams.other().draw(0, 0, 3000)]
    others += [streams.draw(0, 1, 3000), draws[1], draws[2]]
    for other in others:
        # Correlations of independent numbers are below 5/√3000.
        assert abs(float(torch.corrcoef(torch.stack([draws[0], other]))[0, 1])) < 0.1
    assert abs(float(draws[0].mean()) - 0.5) < 0.03
    assert 0 < float(draws[0].min()) < 0.01
    assert torch.equal((draws[0] / GRAIN) % 1, torch.full((3000,), 0.5, dtype=torch.float64))


@pytest.mark.parametrize("dim", [1, 2, 63, 5000])
def test_digits_are_never_clamped(dim: int) -> None:
    """With values at the ends of the range, at half units and at whole ones, at every digit."""
    whole = torch.arange(-254, 255, dtype=torch.float64) / 254
    values = torch.stack([whole.roll(i).repeat(-(-dim // 509))[:dim] * 3.7**i for i in range(8)])
    for streams in (None, Streams(values, torch.ones(8, dtype=torch.float64), lambda: b"test")):
        digits, total = Digits(values.clone(), 10, streams), torch.zeros_like(values)
        for count in range(6):
            digit, step = digits.next()
            total += digit.double() * step[:, None]
            assert int(digit.abs().max()) <= 127
            assert (digits.rest.abs() <= (1 if digits.random else 0.5) * (1 + 1e-9) * step[:, None]).all(), count
            left = (values - total - digits.rest).norm(dim=1)
            assert (left <= 2**-50 * digits.reach).all()
            assert (digits.left >= digits.rest.norm(dim=1)).all()


def layouts(rows: int, columns: int, generator: torch.Generator) -> list[Tensor]:
    """int8 matrices of one shape, in every way to lie in memory."""

    def draw(*shape: int) -> Tensor:
        return torch.randint(-128, 128, shape, dtype=torch.int8, generator=generator)

    return [
        draw(rows, columns),
        draw(columns, rows).T,
        draw(rows, 2 * columns + 1)[:, :columns],
        draw(2 * rows, 2 * columns)[::2, ::2],
        draw(1, columns).expand(rows, columns),
        draw(rows, 1).expand(rows, columns),
        torch.full((rows, columns), -128, dtype=torch.int8),
    ]


@pytest.mark.parametrize("fast", [True, False])
def test_products_of_bytes_in_every_layout(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch._int_mm is wrong for lengths of 1 with strides (1, 1), and for expanded matrices."""
    if fast and not byte_digits.fast_bytes():
        pytest.skip("this processor has no fast products of bytes")
    monkeypatch.setattr(byte_digits, "fast_bytes", lambda: fast)
    generator, sizes = torch.Generator().manual_seed(0), (1, 2, 3, 7, 16, 33, 130)
    for rows, inner, columns in itertools.product(sizes, repeat=3):
        pairs = itertools.product(layouts(rows, inner, generator), layouts(inner, columns, generator))
        for a, b in itertools.islice(pairs, (rows + inner + columns) % 3, None, 3):
            assert torch.equal(byte_digits.product(a, b).double(), a.double() @ b.double())


def test_one_value_an_event() -> None:
    """Bytes with D = 1, where the product's strides are (1, 1)."""
    images = torch.arange(0, 256, 5, dtype=torch.uint8)[:, None]
    x = torch.tensor([[0.3], [-0.7]])
    post = OptimalDenoiser(images, method="screened").posterior(x, 0.5)
    torch.testing.assert_close(post.mean.flatten(), torch.tensor([0.22977, -0.48048]), atol=1e-5, rtol=0)
    assert (post.error_bound <= 1e-3).all()


def test_which_products_are_taken_is_no_matter_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    byte_digits.fast_bytes.cache_clear()
    supported = [byte_digits.fast_bytes()]
    monkeypatch.setattr("time.perf_counter", lambda: pytest.fail("a stopwatch was asked"))
    for _ in range(3):
        byte_digits.fast_bytes.cache_clear()
        supported.append(byte_digits.fast_bytes())
    assert len(set(supported)) == 1
    for name in ("_is_vnni_supported", "_is_avx512_vnni_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    byte_digits.fast_bytes.cache_clear()
    assert not byte_digits.fast_bytes()
    byte_digits.fast_bytes.cache_clear()


def test_bytes_as_floats_are_as_far_off_as_it_says() -> None:
    values = torch.arange(256, dtype=torch.uint8)
    shift, largest = bytes_as_floats(values.device)
    exact = (2 * values.double() - 255) / 255
    off = (to_float(values).double() - exact - shift).abs()
    assert 0.99 * largest <= float(off.max()) <= largest
    # As the points read them, all at once and one by one.
    points = Points(values[:, None])
    for rows in (values.long(), *values.long()[:, None]):
        block = points.read(rows, torch.empty(len(rows), 1, dtype=torch.float64))
        assert torch.equal(points.restored(block).flatten(), to_float(values[rows]).double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_what_the_bound_leaves_out(dtype: torch.dtype) -> None:
    """The mean in the dtype of x is off by its rounding besides."""
    unit = torch.finfo(dtype).eps / 2
    images = torch.randint(0, 256, (300, 400), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    x = (to_float(images[:6]) + torch.randn(6, 400, generator=torch.Generator().manual_seed(1))).to(dtype)
    for sigma in (0.05, 1.0, 4.0):
        post = OptimalDenoiser(images, method="screened").posterior(x, sigma)
        error = row_error(post.mean, reference_posterior(to_float(images), x, sigma).mean)
        assert (error <= post.error_bound.double() * (1 + 2 * unit) + unit).all()


def test_surroundings_change_nothing() -> None:
    """Autocast, the default dtype, and products of bytes through float32."""
    images = torch.randint(0, 256, (400, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    x = to_float(images[:8]) + 10 * torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    D = OptimalDenoiser(images, method="screened")
    index, weights = torch.arange(40), torch.rand(2, 40, dtype=torch.float64)

    def answers() -> list[Tensor]:
        z, levels = D.query(x, 10.0)
        sums = screened.moments(D.points, z, levels, single=True, accuracy=D.evaluator.accuracy)
        logits = screened.ByteLogits.of(D.points, z, levels)
        logits.add(2)
        some = byte_digits.product(images.flatten(1).view(torch.int8), images[:3].flatten(1).view(torch.int8).T)
        return [sums.average, sums.bound, logits.products, some.double(), *more()]

    def more() -> list[Tensor]:
        from optimal.evaluate.byte_logits import combination, gram

        return [gram(D.points, index), combination(D.points, weights.clone(), index, 1e-7)]

    right = answers()
    for fast in (byte_digits.fast_bytes(), False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(byte_digits, "fast_bytes", lambda fast=fast: fast)
            with torch.autocast("cpu", torch.bfloat16):
                found = [answers()]
            torch.set_default_dtype(torch.float64)
            try:
                found.append(answers())
            finally:
                torch.set_default_dtype(torch.float32)
        for other in found:
            for a, b in zip(right, other, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_the_benchmark_of_the_proof(tmp_path: Path) -> None:
    out = tmp_path / "proof.json"
    assert cases.main(cases.Config(cases=25, seed=7, out=out)) == 0
    found = json.loads(out.read_text())
    assert found["cases"] == 25
    assert found["beyond"] == []
    assert 0 < found["error over bound, quantiles"]["1.0"] <= 1


def test_the_benchmark_notices_a_bound_that_is_too_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = cases.error_over_bound
    monkeypatch.setattr(cases, "error_over_bound", lambda *case: (exact(*case)[0] + 1e-3, 1e-3))
    assert cases.main(cases.Config(cases=5, out=tmp_path / "proof.json")) == 1
    assert json.loads((tmp_path / "proof.json").read_text())["beyond"]
