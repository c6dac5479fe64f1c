"""The kinds of prediction: their definitions, round trips, and the score as a gradient."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from optimal import OptimalDenoiser
from optimal.parametrize import PARAMETRIZATIONS, as_denoiser, convert, from_x0, to_x0
from optimal.process import EDM, VE, VP, CosineVP, FlowMatching, LinearSDE, Process

KINDS = st.sampled_from(PARAMETRIZATIONS)
SIGMAS = st.floats(math.log(1e-3), math.log(1e3)).map(math.exp)
PROCESSES = [VP(), CosineVP(), FlowMatching(), EDM(), VE(), LinearSDE(lambda t: -1.0, lambda t: 2.0, 4.0)]


def definitions(x0: Tensor, eps: Tensor, sigma: float) -> dict[str, Tensor]:
    """Every kind in the words of the paper that it comes from, on the path that it is defined on."""
    # Salimans & Ho 2022: z = cos φ x0 + sin φ ε, v = dz/dφ.
    phi = math.atan(sigma)
    # Flow matching: z = (1 − t) x0 + t ε, u = dz/dt.
    return {
        "x0": x0,
        "eps": eps,
        "score": -eps / sigma,
        "velocity": eps,
        "v": -math.sin(phi) * x0 + math.cos(phi) * eps,
        "flow": eps - x0,
    }


def error(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def draw(seed: int, *shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(2, *shape, generator=generator, dtype=torch.float64))  # pyright: ignore[reportReturnType]


@given(source=KINDS, target=KINDS, sigma=SIGMAS, seed=st.integers(0, 100))
def test_definitions(source: str, target: str, sigma: float, seed: int) -> None:
    x0, eps = draw(seed, 3, 2, 4)
    values = definitions(x0, eps, sigma)
    out = convert(values[source], x0 + sigma * eps, sigma, source, target)
    # x holds eps to 1e-16/sigma, x0 to 1e-16 sigma.
    assert error(out, values[target]) < 1e-12
    assert error(out.flip(0), values[target]) > 1e-3


@given(source=KINDS, target=KINDS, sigma=SIGMAS, seed=st.integers(0, 100))
def test_round_trips(source: str, target: str, sigma: float, seed: int) -> None:
    x0, eps = draw(seed, 3, 5)
    x, value = x0 + sigma * eps, definitions(x0, eps, sigma)[source]
    there = convert(value, x, sigma, source, target)
    assert error(convert(there, x, sigma, target, source), value) < 1e-12
    assert error(from_x0(to_x0(value, x, sigma, source), x, sigma, source), value) < 1e-12


@given(source=KINDS, middle=KINDS, target=KINDS, sigma=st.floats(0.1, 10))
def test_composition_and_linearity(source: str, middle: str, target: str, sigma: float) -> None:
    """On values that belong to no x0, eps in particular: the maps, not only their use."""
    (x, a), (y, b) = draw(1, 3, 5), draw(2, 3, 5)
    direct = convert(a, x, sigma, source, target)
    through = convert(convert(a, x, sigma, source, middle), x, sigma, middle, target)
    torch.testing.assert_close(through, direct, rtol=1e-11, atol=1e-11)
    mixed = convert(2 * a - 3 * b, 2 * x - 3 * y, sigma, source, target)
    expected = 2 * direct - 3 * convert(b, y, sigma, source, target)
    torch.testing.assert_close(mixed, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", PARAMETRIZATIONS)
def test_the_same_kind_changes_nothing(kind: str) -> None:
    x, value = draw(3, 4, 2)
    torch.testing.assert_close(convert(value, x, 0.7, kind, kind), value, rtol=1e-15, atol=0)


@pytest.mark.parametrize("sigma", [0.01, 1.0, 30.0])
def test_gaussian_score_is_the_gradient_of_the_log_density(sigma: float) -> None:
    """x0 ~ N(μ, s²): log p(x) = −(x − μ)²/2(s² + σ²), E[x0 | x] = μ + s²/(s² + σ²)(x − μ)."""
    mu, s = 0.7, 1.3
    x = draw(4, 6, 2)[0].mul(sigma + s).requires_grad_()
    log_p = -(x - mu).square().sum() / (2 * (s**2 + sigma**2))
    score = torch.autograd.grad(log_p, x)[0]
    mean = mu + s**2 / (s**2 + sigma**2) * (x.detach() - mu)
    torch.testing.assert_close(from_x0(mean, x.detach(), sigma, "score"), score, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(to_x0(score, x.detach(), sigma, "score"), mean, rtol=1e-12, atol=1e-12)


def test_optimal_denoiser_score() -> None:
    D = OptimalDenoiser(torch.tensor([[-1.0, 0.2], [1.0, 0.0], [0.3, 2.0]]))
    x = draw(5, 4, 2)[0]
    sigma = torch.tensor([0.3, 0.5, 1.0, 4.0], dtype=torch.float64)
    torch.testing.assert_close(from_x0(D(x, sigma), x, sigma, "score"), D.score(x, sigma), rtol=1e-10, atol=1e-12)


def test_velocity_moves_the_exact_flow() -> None:
    """One Gaussian of variance 1: the flow is x ∝ √(1 + σ²), whose derivative is the velocity."""
    start = draw(6, 3, 2)[0]
    sigma = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    rate = start * torch.autograd.grad((1 + sigma**2).sqrt(), sigma)[0]
    x = start * math.sqrt(5)
    torch.testing.assert_close(from_x0(x / 5, x, 2.0, "velocity"), rate, rtol=1e-12, atol=0)


def test_sigma_broadcasts_over_events() -> None:
    # The batch is as large as the image is wide: sigma must meet the batch.
    x0, eps = draw(7, 4, 3, 4, 4)
    sigma = torch.tensor([0.01, 0.5, 3.0, 100.0], dtype=torch.float64)
    x = x0 + sigma[:, None, None, None] * eps
    for source in PARAMETRIZATIONS:
        value = torch.stack([definitions(x0[i], eps[i], float(sigma[i]))[source] for i in range(4)])
        for target in PARAMETRIZATIONS:
            batch = convert(value, x, sigma, source, target)
            rows = [convert(value[i : i + 1], x[i : i + 1], sigma[i], source, target) for i in range(4)]
            torch.testing.assert_close(batch, torch.cat(rows), rtol=0, atol=0)
    same = convert(x0, x, torch.full((4,), 0.5), "x0", "v")
    torch.testing.assert_close(same, convert(x0, x, 0.5, "x0", "v"), rtol=0, atol=0)
    assert convert(x0[:0], x[:0], sigma[:0], "x0", "eps").shape == (0, 3, 4, 4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_is_rounded_once(dtype: torch.dtype) -> None:
    x0, eps = (part.to(dtype) for part in draw(8, 3, 5))
    x = (x0 + 3 * eps).to(dtype)
    # sigma² = 1e6 is not a half-precision number.
    for sigma in (3.0, 1e3):
        for target in PARAMETRIZATIONS:
            out = convert(eps, x, sigma, "eps", target)
            exact = convert(eps.double(), x.double(), sigma, "eps", target)
            assert out.dtype == dtype
            assert torch.equal(out, exact.to(dtype))


def test_gradients_pass() -> None:
    x0, eps = draw(9, 3, 2)
    value = eps.clone().requires_grad_()
    gradient = torch.autograd.grad(to_x0(value, x0 + 2 * eps, 2.0, "eps").sum(), value)[0]
    torch.testing.assert_close(gradient, torch.full_like(eps, -2.0))


def gaussian_network(process: Process, kind: str):
    """The optimal network for x0 ~ N(0.5, 0.8²), from x_t alone: moments of (x0, eps, x_t) in closed form."""
    mu, s = 0.5, 0.8

    def network(x_t: Tensor, t: Tensor) -> Tensor:
        assert t.shape == (len(x_t),)
        assert t.dtype == x_t.dtype
        scale, std = (part.to(x_t).view(-1, 1) for part in (process.scale(t), process.std(t)))
        marginal = scale**2 * s**2 + std**2
        surprise = (x_t - scale * mu) / marginal
        x0, eps = mu + scale * s**2 * surprise, std * surprise
        angle = torch.atan2(std, scale)
        return {
            "x0": x0,
            "eps": eps,
            # ∇ of log N(x_t; scale μ, marginal): the score of x_t, not of x.
            "score": -surprise,
            "velocity": eps,
            "v": angle.cos() * eps - angle.sin() * x0,
            "flow": eps - x0,
        }[kind]

    return network


@pytest.mark.parametrize("kind", PARAMETRIZATIONS)
@pytest.mark.parametrize("process", PROCESSES, ids=lambda process: type(process).__name__)
def test_as_denoiser_finds_the_optimum(process: Process, kind: str) -> None:
    D = as_denoiser(gaussian_network(process, kind), kind, process=process)
    sigma = torch.tensor([0.02, 0.5, 2.0, 40.0], dtype=torch.float64)
    x = 0.5 + draw(10, 4, 3)[0] * (0.64 + sigma.square()).sqrt()[:, None]
    expected = 0.5 + (0.64 / (0.64 + sigma.square()))[:, None] * (x - 0.5)
    torch.testing.assert_close(D(x, sigma), expected, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(D(x, 2.0)[2], expected[2], rtol=1e-9, atol=1e-11)
    single = D(x.float(), sigma)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), expected, rtol=1e-3, atol=1e-4)
    assert D(x[:0], 1.0).shape == (0, 3)


def test_as_denoiser_on_images_and_by_default_vp() -> None:
    seen = []

    def network(x_t: Tensor, t: Tensor) -> Tensor:
        seen.append((x_t, t))
        return torch.zeros_like(x_t)

    x = torch.ones(4, 3, 4, 4)
    sigma = torch.tensor([0.1, 1.0, 3.0, 10.0])
    out = as_denoiser(network, "eps")(x, sigma)
    assert torch.equal(out, x)
    x_t, t = seen[0]
    torch.testing.assert_close(x_t[:, 0, 0, 0], 1 / (1 + sigma**2).sqrt())
    torch.testing.assert_close(t, VP().time(sigma).float())
    assert t.dtype == x_t.dtype == torch.float32


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("epsilon", "kind must be one of x0, eps, score, velocity, v, flow, got 'epsilon', did you mean 'eps'?"),
        ("Score", "got 'Score', did you mean 'score'?"),
        ("v_prediction", "got 'v_prediction'"),
        ("???", "got '???'$"),
    ],
)
def test_unknown_kind(kind: str, sentence: str) -> None:
    x = torch.ones(2, 3)
    pattern = sentence.replace("?", r"\?")
    for call in (
        lambda: to_x0(x, x, 1.0, kind),
        lambda: from_x0(x, x, 1.0, kind),
        lambda: convert(x, x, 1.0, "x0", kind),
        lambda: as_denoiser(lambda x_t, t: x_t, kind),
    ):
        with pytest.raises(ValueError, match=pattern):
            call()


@pytest.mark.parametrize(
    ("value", "x", "sigma", "sentence"),
    [
        (torch.ones(4, 3), torch.ones(4, 3), torch.ones(4, 2), r"\(\) or \(B,\), got \(4, 2\) with B = 4"),
        (torch.ones(4, 3), torch.ones(4, 3), torch.ones(3), r"\(\) or \(B,\), got \(3,\) with B = 4"),
        (torch.ones(4, 3), torch.ones(4, 3), 0.0, "sigma must be positive and finite, got 0"),
        (torch.ones(2, 3), torch.ones(2, 3), torch.tensor([1.0, -2.0]), "positive and finite, got -2"),
        (torch.ones(4, 3), torch.ones(4, 3), math.nan, "positive and finite, got nan"),
        (torch.ones(4, 3), torch.ones(4, 3), math.inf, "positive and finite, got inf"),
        (torch.ones(4, 1), torch.ones(4, 3), 1.0, r"the shape of x, \(4, 3\), got \(4, 1\)"),
        (torch.ones(4, 3), torch.ones(4, 3).long(), 1.0, "x must be floating point, got torch.int64"),
    ],
)
def test_errors(value: Tensor, x: Tensor, sigma: float | Tensor, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        convert(value, x, sigma, "eps", "x0")
    if value.shape == x.shape:
        with pytest.raises(ValueError, match=sentence):
            as_denoiser(lambda x_t, t: x_t, "eps")(x, sigma)


def test_as_denoiser_says_where_its_process_ends() -> None:
    D = as_denoiser(lambda x_t, t: x_t, "eps", process=EDM(80.0))
    with pytest.raises(ValueError, match=r"sigma must lie between 0 and sigma\(t_max\) = 80, got 81"):
        D(torch.ones(2, 3), 81.0)
