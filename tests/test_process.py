"""Forward processes against Prop. 1 by quadrature, derivatives by autograd, formulas written another way."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from optimal.process import EDM, VE, VP, CosineVP, FlowMatching, GeometricVE, LinearSDE, Process

CLOSED: list[Process] = [
    VE(),
    VE(0.5),
    GeometricVE(),
    GeometricVE(0.1, 3.0),
    EDM(),
    EDM(math.inf),
    VP(),
    VP(0.2, 0.2),
    CosineVP(),
    CosineVP(0.1),
    CosineVP(0.0),
    FlowMatching(),
]
PRESERVING = [VP(), VP(0.3, 5.0), CosineVP(), CosineVP(0.2)]
SCALED = [*PRESERVING, FlowMatching()]

Function = Callable[[float], float]
# f, g and t_max, written without the classes that they are compared with.
SDES: list[tuple[Process, Function, Function, float]] = [
    (VP(), lambda t: -0.05 - 9.95 * t, lambda t: math.sqrt(0.1 + 19.9 * t), 1.0),
    (
        CosineVP(),
        lambda t: -math.pi / 2.016 * math.tan(math.pi / 2 * (t + 0.008) / 1.008),
        lambda t: math.sqrt(math.pi / 1.008 * math.tan(math.pi / 2 * (t + 0.008) / 1.008)),
        0.999,
    ),
    (VE(), lambda t: 0.0, lambda t: 80.0, 1.0),
    (GeometricVE(), lambda t: 0.0, lambda t: 0.01 * 5000**t * math.sqrt(2 * math.log(5000)), 1.0),
    (EDM(), lambda t: 0.0, lambda t: math.sqrt(2 * t), 80.0),
    (FlowMatching(), lambda t: -1 / (1 - t), lambda t: math.sqrt(2 * t / (1 - t)), 0.999),
]


def name(value: object) -> str | None:
    """The same in every process, which functions' addresses are not."""
    if isinstance(value, LinearSDE):
        return "LinearSDE"
    return repr(value) if isinstance(value, Process) else None


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return float(((a - b) / b).abs().max())


def times(process: Process, until: float = 0.99) -> torch.Tensor:
    return until * min(process.t_max, 100.0) * torch.logspace(-4, 0, 41, dtype=torch.float64).clamp_max(1)


@pytest.mark.parametrize("process", CLOSED, ids=name)
def test_prop_1_by_quadrature(process: Process) -> None:
    """log scale = ∫f and sigma² = ∫g²/scale², the solution of Eq. 3 for a linear drift."""
    for t in times(process)[::8].tolist():
        log_scale = quad(lambda u: float(process.f(u)), 0, t, epsabs=0, epsrel=1e-11)[0]
        square = quad(lambda u: float((process.g(u) / process.scale(u)) ** 2), 0, t, epsabs=0, epsrel=1e-11)[0]
        assert math.isclose(float(process.scale(t)), math.exp(log_scale), rel_tol=1e-10)
        assert math.isclose(float(process.sigma(t)), math.sqrt(square), rel_tol=1e-10)
        assert math.isclose(float(process.std(t)), math.exp(log_scale) * math.sqrt(square), rel_tol=1e-10)


@pytest.mark.parametrize("process", CLOSED, ids=name)
def test_derivatives_by_autograd(process: Process) -> None:
    t = times(process).requires_grad_()

    def derivative(function: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        value = function(t)
        return torch.autograd.grad(value.sum(), t)[0] if value.requires_grad else torch.zeros_like(t)

    scale_dot, sigma_dot, variance_dot = (
        derivative(function) for function in (process.scale, process.sigma, lambda t: process.std(t) ** 2)
    )
    with torch.no_grad():
        torch.testing.assert_close(process.scale_dot(t), scale_dot, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(process.sigma_dot(t), sigma_dot, rtol=1e-9, atol=0)
        torch.testing.assert_close(process.f(t), scale_dot / process.scale(t), rtol=1e-9, atol=1e-12)
        expected = 2 * process.scale(t) ** 2 * process.sigma(t) * sigma_dot
        torch.testing.assert_close(process.g(t) ** 2, expected, rtol=1e-9, atol=0)
        # Eq. 3: dV = (2 f V + g²) dt. Its two terms cancel where V saturates.
        terms = 2 * process.f(t) * process.std(t) ** 2, process.g(t) ** 2
        assert ((terms[0] + terms[1] - variance_dot).abs() <= 1e-9 * terms[1]).all()


@pytest.mark.parametrize("process", PRESERVING, ids=name)
def test_variance_preserving(process: Process) -> None:
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    assert (process.scale(t) ** 2 + process.std(t) ** 2 - 1).abs().max() < 1e-14
    torch.testing.assert_close(process.g(t) ** 2, -2 * process.f(t), rtol=1e-14, atol=0)
    # Eq. 16: α is scale², sigma² = (1 − α)/α.
    alpha = process.scale(t[1:-1]) ** 2
    assert relative(process.sigma(t[1:-1]) ** 2, (1 - alpha) / alpha) < 1e-10


@pytest.mark.parametrize("process", CLOSED, ids=name)
def test_scale_at_is_scale_of_time(process: Process) -> None:
    sigma = torch.logspace(-8, 2, 60, dtype=torch.float64)
    sigma = torch.cat([torch.zeros(1, dtype=torch.float64), sigma[sigma < process.sigma(process.t_max)]])
    torch.testing.assert_close(process.scale_at(sigma), process.scale(process.time(sigma)), rtol=1e-12, atol=0)
    if float(process.scale(0.5 * min(process.t_max, 1.0))) == 1:
        assert (process.scale_at(sigma) == 1).all()


def test_the_papers_clock() -> None:
    """Eq. 14: g² = ds²/dt with s² even in t; s(1) = c."""
    process = VE(80.0)
    assert process.sigma(torch.tensor([0.0, 0.25, 1.0])).tolist() == [0.0, 40.0, 80.0]
    assert (process.g(torch.rand(3)) == 80).all()


def test_song_and_karras_values() -> None:
    r = 50 / 0.01
    assert math.isclose(float(GeometricVE().sigma(0.7)), math.sqrt((0.01 * r**0.7) ** 2 - 0.01**2), rel_tol=1e-12)
    # Karras et al. 2022, Table 1: σ(t) = √(e^{β_d t²/2 + β_min t} − 1), β_d = 19.9.
    assert math.isclose(float(VP().sigma(0.3)), math.sqrt(math.exp(19.9 * 0.3**2 / 2 + 0.1 * 0.3) - 1), rel_tol=1e-13)
    # Their σ_max of VP is "152".
    assert round(float(VP().sigma(1.0))) == 152
    assert EDM().sigma(torch.tensor([0.0, 3.5, 80.0])).tolist() == [0.0, 3.5, 80.0]


def test_vp_is_ddpm_in_continuous_time() -> None:
    """ᾱ of DDPM's thousand steps, β from 1e-4 to 0.02; the two agree to the step's order."""
    kept = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    ours = -2 * VP().scale(t).log()
    assert relative(ours[50:], -kept[50:].log()) < 0.02


def test_cosine_values() -> None:
    def alpha_bar(t: float) -> float:
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    for t in (0.1, 0.5, 0.9):
        assert math.isclose(float(CosineVP().scale(t)) ** 2, alpha_bar(t) / alpha_bar(0), rel_tol=1e-13)


@pytest.mark.parametrize("process", [CosineVP(), FlowMatching()], ids=name)
def test_ends_without_signal(process: Process) -> None:
    assert float(process.scale(1.0)) == 0
    assert float(process.std(1.0)) == 1
    for infinite in (process.sigma(1.0), process.g(1.0), -process.f(1.0), process.sigma_dot(1.0)):
        assert float(infinite) == math.inf
    assert math.isfinite(float(process.scale_dot(1.0)))
    assert float(process.time(math.inf)) == 1
    last = math.nextafter(1.0, 0.0)
    for method in (process.sigma, process.g, process.f, process.scale, process.std, process.sigma_dot):
        assert math.isfinite(float(method(last)))


@pytest.mark.parametrize("process", CLOSED, ids=name)
def test_start(process: Process) -> None:
    assert float(process.sigma(0.0)) == 0
    assert float(process.std(0)) == 0
    assert float(process.scale(0)) == 1
    assert float(process.time(0.0)) == 0
    assert float(process.sigma_dot(0.0)) == (1 if isinstance(process, EDM | FlowMatching) else math.inf)


@pytest.mark.parametrize("process", CLOSED, ids=name)
def test_time_inverts_sigma(process: Process) -> None:
    largest = float(process.sigma(process.t_max))
    exponents = torch.linspace(-12, math.log10(min(largest, 1e4)), 400, dtype=torch.float64)
    sigma = 10 ** exponents[:-1]
    t = process.time(sigma)
    assert (t.diff() > 0).all()
    assert relative(process.sigma(t), sigma) < 1e-10
    t = times(process)
    assert relative(process.time(process.sigma(t)), t) < 1e-12
    assert largest == math.inf or float(process.time(largest)) == pytest.approx(process.t_max, rel=1e-15)


@pytest.mark.parametrize("process", SCALED, ids=name)
def test_time_inverts_scale(process: Process) -> None:
    scale = torch.linspace(float(process.scale(process.t_max)) + 1e-4, 1 - 1e-9, 300, dtype=torch.float64)
    assert relative(process.scale(process.time_of_scale(scale)), scale) < 1e-10
    assert float(process.time_of_scale(1.0)) == 0
    assert float(process.time_of_scale(process.scale(process.t_max))) == pytest.approx(process.t_max, abs=1e-12)
    t = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
    assert relative(process.time_of_scale(process.scale(t)), t) < 1e-12


@pytest.mark.parametrize("process", [VE(), GeometricVE(), EDM(), LinearSDE(lambda t: 0.0, lambda t: 1.0)], ids=name)
def test_scale_of_one_has_no_inverse(process: Process) -> None:
    with pytest.raises(ValueError, match=f"the scale of {type(process).__name__} is 1 throughout"):
        process.time_of_scale(1.0)


@pytest.mark.parametrize("process", [*CLOSED, LinearSDE(lambda t: -1.0, lambda t: 1.0)], ids=name)
def test_shape_and_type(process: Process) -> None:
    for t in (0, 0.5, torch.tensor(0.5), torch.rand(3), torch.rand(2, 1, 4), torch.rand(0)):
        shape = torch.as_tensor(t).shape
        for method in (
            *(process.scale, process.sigma, process.std, process.f, process.g, process.scale_dot, process.sigma_dot),
            *(process.time, process.scale_at),
        ):
            # Within the range of each: times and levels alike are below 0.3.
            out = method(0.3 * t)
            assert out.shape == shape
            assert out.dtype == torch.float64
    mixed = torch.tensor([[0.3, 0.1], [0.2, 0.0]])
    loop = [[float(process.sigma(t)) for t in row] for row in mixed.tolist()]
    torch.testing.assert_close(process.sigma(mixed), torch.tensor(loop, dtype=torch.float64), rtol=1e-6, atol=0)


@pytest.mark.parametrize(("process", "f", "g", "t_max"), SDES, ids=name)
def test_linear_sde_agrees_with_the_closed_form(process: Process, f: Function, g: Function, t_max: float) -> None:
    numeric = LinearSDE(f, g, t_max)
    exponents = torch.logspace(-4, 0, 500, dtype=torch.float64).clamp_max(1)
    t = t_max * torch.cat([exponents, torch.linspace(1e-4, 1, 500, dtype=torch.float64)])
    for method in ("scale", "sigma", "std", "f", "g", "sigma_dot"):
        ours, exact = getattr(numeric, method)(t), getattr(process, method)(t)
        if bool((exact != 0).all()):
            assert relative(ours, exact) < 1e-10, method
    early = t_max * torch.logspace(-40, -4, 100, dtype=torch.float64)
    assert relative(numeric.sigma(early), process.sigma(early)) < 1e-10
    sigma = process.sigma(t) * (1 - 1e-9)
    back = numeric.time(sigma)
    assert relative(numeric.sigma(back), sigma) < 1e-10
    assert relative(back, process.time(sigma)) < 1e-9
    assert float(numeric.sigma(0.0)) == 0
    assert float(numeric.time(0.0)) == 0
    assert float(numeric.time(numeric.sigma(t_max))) == pytest.approx(t_max, rel=1e-15)


def test_linear_sde_beyond_the_named_processes() -> None:
    t = torch.logspace(-4, 0, 200, dtype=torch.float64).clamp_max(1)
    # Sub-VP (Song et al. 2021, Appendix B): g² = β(1 − e^{−2B}), std = 1 − e^{−B}.
    B = 0.1 * t + 9.95 * t**2
    sub = LinearSDE(
        lambda t: -0.05 - 9.95 * t, lambda t: math.sqrt(-(0.1 + 19.9 * t) * math.expm1(-0.2 * t - 19.9 * t**2))
    )
    assert relative(sub.std(t), -torch.expm1(-B)) < 1e-10
    # Ornstein-Uhlenbeck (Biroli et al. 2024): σ² = e^{2t} − 1; and a drift that grows: σ² = 1 − e^{−2t}.
    assert relative(LinearSDE(lambda t: -1.0, lambda t: 2**0.5, 5.0).sigma(5 * t), (10 * t).expm1().sqrt()) < 1e-10
    growing = LinearSDE(lambda t: 1.0, lambda t: 2**0.5, 5.0)
    assert relative(growing.sigma(5 * t), (-(-10 * t).expm1()).sqrt()) < 1e-10
    assert relative(growing.time_of_scale((5 * t).exp()), 5 * t) < 1e-10
    # A root at the start, and noise that stops half way.
    assert relative(LinearSDE(lambda t: 0.0, lambda t: t**0.25).sigma(t), (t**1.5 / 1.5).sqrt()) < 1e-10
    stops = LinearSDE(lambda t: 0.0, lambda t: -1.0 if t < 0.5 else 0.0)
    assert relative(stops.sigma(t), t.clamp_max(0.5).sqrt()) < 1e-10
    assert abs(float(stops.time(stops.sigma(0.75))) - 0.5) < 1e-9
    assert float(stops.g(0.25)) == 1


def test_linear_sde_takes_the_functions_of_a_process() -> None:
    process = FlowMatching()
    numeric = LinearSDE(process.f, process.g, 0.9)
    assert math.isclose(float(numeric.sigma(0.9)), 9, rel_tol=1e-11)
    assert "LinearSDE(f=<bound method" in repr(numeric)


@pytest.mark.slow
@given(a=st.floats(-3, 3), b=st.floats(-3, 3), c=st.floats(0.1, 3), d=st.floats(-1, 3), sigma=st.floats(1e-6, 1))
def test_linear_sde_by_quadrature(a: float, b: float, c: float, d: float, sigma: float) -> None:
    """f = a + b cos 5t, g = c e^{dt} + 1."""
    process = LinearSDE(lambda t: a + b * math.cos(5 * t), lambda t: c * math.exp(d * t) + 1)

    def log_scale(t: float) -> float:
        return a * t + b * math.sin(5 * t) / 5

    for t in (1e-4, 0.3, 1.0):
        square = quad(lambda u: ((c * math.exp(d * u) + 1) / math.exp(log_scale(u))) ** 2, 0, t, epsabs=0, epsrel=1e-12)
        assert math.isclose(float(process.scale(t)), math.exp(log_scale(t)), rel_tol=1e-10)
        assert math.isclose(float(process.sigma(t)), math.sqrt(square[0]), rel_tol=1e-10)
    level = sigma * process.sigma(1.0)
    assert math.isclose(float(process.sigma(process.time(level))), float(level), rel_tol=1e-10)


@pytest.mark.parametrize(
    ("f", "g", "t_max", "sentence"),
    [
        (lambda t: -1 / (1 - t), lambda t: 1.0, 1.0, r"not finite beyond t = 1: f\(t\) is not finite at t = 1; give a"),
        (lambda t: -1 / (1 - t), lambda t: 1.0, 2.0, r"not finite beyond t = 1: .* give a smaller t_max than 2"),
        (lambda t: 1 / (0.3 - t), lambda t: 1.0, 1.0, r"not finite beyond t = 0.3: f\(t\) or g\(t\) blows up there"),
        (lambda t: -1.0, lambda t: 1 / (1 - t), 1.0, r"g\(t\) is not finite at t = 1"),
        (lambda t: 0.0, lambda t: math.sqrt(0.5 - t), 1.0, r"beyond t = 0.5: g\(t\) is not finite at t = 0.5"),
        (lambda t: math.inf if t > 0.5 else 0.0, lambda t: 1.0, 1.0, r"f\(t\) is not finite at t = 0.5"),
        (lambda t: 1000.0, lambda t: 1.0, 1.0, "beyond t = 0.709.*: they leave the range of float64"),
        (lambda t: math.nan, lambda t: 1.0, 1.0, r"integrable from t = 0 on: f\(t\) is not finite at t = "),
        (lambda t: 1 / t, lambda t: 1.0, 1.0, "integrable from t = 0 on: one of the integrals diverges there"),
        (lambda t: 0.0, lambda t: t**-0.5, 1.0, "integrable from t = 0 on: one of the integrals diverges there"),
        (lambda t: -1.0, lambda t: 0.0, 1.0, "g must not vanish just after t = 0, .*; it is 0 throughout"),
        (lambda t: -1.0, lambda t: max(0.0, t - 0.3), 1.0, "g must not vanish just after t = 0, .*up to t = 0.3"),
        (lambda t: 0.0, lambda t: 1.0, math.inf, "LinearSDE needs 0 < t_max < inf, got inf"),
        (lambda t: 0.0, lambda t: 1.0, 0.0, "LinearSDE needs 0 < t_max < inf, got 0"),
        (lambda t: 0.0, 1.0, 1.0, "f and g must be functions of t, got function and float"),
    ],
)
def test_linear_sde_errors(f: Function, g: Function, t_max: float, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        LinearSDE(f, g, t_max)


def test_scale_that_turns_has_no_inverse() -> None:
    process = LinearSDE(lambda t: math.cos(2 * math.pi * t), lambda t: 1.0)
    with pytest.raises(ValueError, match="both rises and falls"):
        process.time_of_scale(1.0)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: VE(0.0), "VE needs 0 < sigma_max < inf, got 0"),
        (lambda: VE(math.nan), "VE needs 0 < sigma_max < inf, got nan"),
        (lambda: GeometricVE(0.0, 1.0), "GeometricVE needs 0 < sigma_min < sigma_max < inf, got 0 and 1"),
        (lambda: GeometricVE(2.0, 1.0), "got 2 and 1"),
        (lambda: EDM(0.0), "EDM needs t_max > 0, got 0"),
        (lambda: EDM(math.nan), "EDM needs t_max > 0, got nan"),
        (lambda: VP(0.0, 1.0), "VP needs 0 < beta_min <= beta_max < inf, got 0 and 1"),
        (lambda: VP(3.0, 1.0), "got 3 and 1"),
        (lambda: CosineVP(-0.1), "CosineVP needs 0 <= s < inf, got -0.1"),
    ],
)
def test_bad_parameters(make: Callable[[], Process], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make()


@pytest.mark.parametrize("process", [*CLOSED[:5], *CLOSED[6:], LinearSDE(lambda t: -1.0, lambda t: 1.0)], ids=name)
def test_outside_the_range(process: Process) -> None:
    for t in (-0.1, process.t_max * 1.001, math.nan):
        for method in (process.sigma, process.scale, process.std, process.f, process.g, process.sigma_dot):
            with pytest.raises(ValueError, match=rf"t must lie in \[0, {process.t_max:g}\], got"):
                method(torch.tensor([0.1, t], dtype=torch.float64))
    largest = float(process.sigma(process.t_max))
    bad = [-1.0, math.nan] + ([1.001 * largest] if largest < math.inf else [])
    for sigma in bad:
        for method in (process.time, process.scale_at):
            with pytest.raises(ValueError, match=rf"between 0 and sigma\(t_max\) = {largest:.10g}, got {sigma:.10g}"):
                method(torch.tensor([0.0, sigma], dtype=torch.float64))
    if float(process.scale(process.t_max)) < 1:
        for scale in (1.1, -0.1, math.nan):
            with pytest.raises(ValueError, match=r"scale must lie in \["):
                process.time_of_scale(scale)
