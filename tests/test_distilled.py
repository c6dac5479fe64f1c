"""The optima of progressive, knowledge and multi-step knowledge distillation, against the paper's own recursions."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from contracts import check_denoiser
from torch import Tensor

from optimal import (
    FlowMap,
    OptimalDenoiser,
    karras,
    knowledge_optimum,
    load,
    log_linear,
    multistep_knowledge_optimum,
    progressive_optimum,
    sample,
)
from optimal.distilled import ddim_target
from optimal.reference import Gaussian, GaussianMixture

Normal = Callable[..., Tensor]


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def ddim(student: Callable, x: Tensor, s: float, s_next: float) -> Tensor:
    """Eq. 39, one line of it."""
    clean = student(x, s)
    return clean + s_next * (x - clean) / s


def literal(teacher: Callable, levels: list[float]) -> Callable:
    """Eq. 39 and 40 as they stand: the next student, from two DDIM steps of this one on `levels`."""

    def student(x: Tensor, s: float) -> Tensor:
        n = levels.index(s)
        middle, last = levels[min(n + 1, len(levels) - 1)], levels[min(n + 2, len(levels) - 1)]
        after = ddim(teacher, x, s, middle)
        if last < middle:
            after = ddim(teacher, after, middle, last)
        return (after - last / s * x) / (1 - last / s)

    return student


# Progressive distillation.


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_stages_follow_the_recursion(stage: int, normal: Normal) -> None:
    """Eq. 40, from student to student, each on every second level of the grid before."""
    D, sigmas = OptimalDenoiser(normal(15, 3)), karras(16, sigma_max=20.0, sigma_min=0.05)
    expected: Callable = D
    levels = sigmas.tolist()
    for _ in range(stage):
        expected = literal(expected, levels)
        levels = levels[::2]
    student = progressive_optimum(D, sigmas, stage)
    assert student.sigmas.tolist() == levels
    x = sigmas[0] * normal(10, 3)
    for level in levels[:-1]:
        torch.testing.assert_close(student(x, level), expected(x, level), rtol=0, atol=1e-9)
        x = ddim(expected, x, level, levels[levels.index(level) + 1])


@pytest.mark.parametrize("n", [1, 2, 7, 12, 16])
@pytest.mark.parametrize("stage", [0, 1, 2, 3, 5])
def test_its_sampler_is_the_teachers(n: int, stage: int, normal: Normal) -> None:
    D, sigmas = OptimalDenoiser(normal(15, 3)), karras(n, sigma_max=20.0, sigma_min=0.05)
    student = progressive_optimum(D, sigmas, stage)
    assert len(student.sigmas) - 1 == math.ceil(n / 2**stage)
    x = 20 * normal(10, 3)
    theirs = sample(D, x, sigmas, solver="euler")
    torch.testing.assert_close(sample(student, x, student.sigmas, solver="euler"), theirs, rtol=0, atol=1e-10)


def test_from_the_denoiser_to_the_flow_map(normal: Normal) -> None:
    D, sigmas = OptimalDenoiser(normal(15, 3)), karras(16, sigma_max=20.0, sigma_min=0.05)
    x, levels = 5 * normal(17, 3), sigmas[:-1][torch.arange(17) % 16]
    torch.testing.assert_close(progressive_optimum(D, sigmas, 0)(x, levels), D(x, levels), rtol=0, atol=0)
    flow = FlowMap(D, sigmas, "euler")
    for stage in (4, 9):
        torch.testing.assert_close(
            progressive_optimum(D, sigmas, stage)(x, levels), flow(x, levels), rtol=0, atol=1e-12
        )


def test_one_row_at_every_level(normal: Normal) -> None:
    """Mixed levels, between levels too, and 0: the same as each for itself."""
    D, sigmas = OptimalDenoiser(normal(15, 3)), karras(9, sigma_max=20.0, sigma_min=0.05)
    student = progressive_optimum(D, sigmas, 2)
    x, levels = 5 * normal(12, 3), torch.cat([sigmas, torch.tensor([0.06, 19.0])])
    rows = [student(x[i : i + 1], levels[i]) for i in range(12)]
    torch.testing.assert_close(student(x, levels), torch.cat(rows), rtol=0, atol=1e-13)
    assert torch.equal(student(x, levels)[9], x[9])
    own = ddim_target(D, x[11:], torch.cat([levels[11:], sigmas[1:5]]))
    torch.testing.assert_close(student(x[11:], 19.0), own, rtol=0, atol=1e-13)


def test_the_target_is_that_of_equation_40(normal: Normal) -> None:
    D, x = OptimalDenoiser(normal(15, 3)), 5 * normal(8, 3)
    for s, middle, last in ((5.0, 2.0, 1.0), (5.0, 4.999, 4.998), (5.0, 1e-3, 0.0), (5.0, 5.0, 2.0), (5.0, 2.0, 2.0)):
        after = ddim(D, ddim(D, x, s, middle), middle, last)
        expected = (after - last / s * x) / (1 - last / s)
        torch.testing.assert_close(ddim_target(D, x, [s, middle, last]), expected, rtol=0, atol=1e-10)


def test_the_target_is_finite_where_equation_40_is_not(normal: Normal) -> None:
    """At s_{n−2} = 0 it is x_{n−2}; at equal levels, 0/0, the limit is D."""
    D, x = OptimalDenoiser(normal(15, 3)), 5 * normal(8, 3)
    torch.testing.assert_close(ddim_target(D, x, [5.0, 5.0, 5.0]), D(x, 5.0), rtol=0, atol=0)
    torch.testing.assert_close(ddim_target(D, x, [5.0, 5.0 - 1e-9, 5.0 - 2e-9]), D(x, 5.0), rtol=0, atol=1e-8)
    last = ddim(D, ddim(D, x, 5.0, 2.0), 2.0, 0.0)
    torch.testing.assert_close(ddim_target(D, x, [5.0, 2.0, 0.0]), last, rtol=0, atol=1e-14)
    for rows in ([5.0, 5.0, 0.0], [1e-3, 1e-6, 0.0], [1e3, 1e-3, 1e-3]):
        assert torch.isfinite(ddim_target(D, x, rows)).all()
    # All of these in one batch, each row with its levels.
    levels = torch.tensor([[5.0, 5.0, 5.0], [5.0, 2.0, 0.0], [5.0, 5.0, 2.0]], dtype=torch.float64).T
    rows = [ddim_target(D, x[i : i + 1], levels[:, i]) for i in range(3)]
    torch.testing.assert_close(ddim_target(D, x[:3], levels), torch.cat(rows), rtol=0, atol=1e-14)


def test_the_target_stays_in_the_hull_of_the_data() -> None:
    """In float32, on a fine grid far from the data, where the quotient of Eq. 40 loses all its digits."""
    D = OptimalDenoiser(torch.tensor([[-1.0], [1.0]]))
    x = torch.linspace(-1e4, 1e4, 11)[:, None]
    levels = [80.0, 79.9999, 79.9998]
    target = ddim_target(D, x, levels)
    assert target.abs().amax() <= 1
    torch.testing.assert_close(target, D(x, 80.0), rtol=0, atol=1e-4)
    # In float32 the quotient itself is off by as much as the data are apart.
    after = ddim(D, ddim(D, x, *levels[:2]), *levels[1:])
    quotient = (after - levels[2] / levels[0] * x) / (1 - levels[2] / levels[0])
    assert (quotient - D(x, 80.0)).abs().amax() > 1


def test_gradients_pass_through_the_target(normal: Normal) -> None:
    D, x = OptimalDenoiser(normal(15, 3)), (5 * normal(2, 3)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: ddim_target(D, x, [5.0, 2.0, 1.0]), x, atol=1e-6)
    assert not progressive_optimum(D, karras(4), 1)(x, 80.0).requires_grad


def test_progressive_optimum_is_a_denoiser(normal: Normal) -> None:
    D, wide = OptimalDenoiser(normal(30, 1, 4, 4)), log_linear(30, sigma_min=1e-3, sigma_max=1e3)
    check_denoiser(progressive_optimum(D, wide, 2), (1, 4, 4))
    teacher = Gaussian(torch.zeros(2), 1.0)
    check_denoiser(progressive_optimum(teacher, wide, 3), (2,))


# Knowledge distillation.


@pytest.mark.parametrize(("solver", "options"), [("euler", {}), ("heun", {}), ("dpm_solver", {"order": 3})])
def test_knowledge_is_the_teachers_sample(solver: str, options: dict, normal: Normal) -> None:
    D, x = OptimalDenoiser(normal(15, 3)), 80 * normal(10, 3)
    student = knowledge_optimum(D, karras(12), solver, **options)
    theirs = sample(D, x, karras(12), solver=solver, **options)
    torch.testing.assert_close(student(x, 80.0), theirs, rtol=0, atol=1e-12)
    torch.testing.assert_close(sample(student, x, [80.0, 0.0], solver="euler"), theirs, rtol=0, atol=1e-12)
    assert student.sigma_max == 80.0


def test_knowledge_knows_one_level_only(normal: Normal) -> None:
    x = 80 * normal(4, 1)
    for student in (knowledge_optimum(OptimalDenoiser(column(-1.0, 1.0)), sigmas) for sigmas in (80.0, karras(4))):
        assert torch.equal(student(x, torch.full((4,), 80.0)), student(x, 80.0))
        assert torch.equal(student(x, 0.0), x)
        for level in (79.9, 1.0, 80.1):
            with pytest.raises(ValueError, match=f"at sigma_max = 80 only .*got {level:g}: sample it in one step"):
                student(x, level)


# Multi-step knowledge distillation.


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 2, 4, 6])
@pytest.mark.parametrize("name", ["five-deltas", "digits"])
def test_its_sampler_ends_where_one_jump_does(name: str, steps: int, normal: Normal) -> None:
    """Section C: 1 to 6 DDIM steps. Every intermediate point is found to be one, in float32 too."""
    data = load(name) if name == "five-deltas" else load(name, n=500)
    D = OptimalDenoiser(data)
    student = multistep_knowledge_optimum(D, 80.0)
    x = 80 * normal(200 if name == "five-deltas" else 16, *data.event)
    jump = FlowMap(D)(x, 80.0)
    for start in (x, x.float()):
        ends = sample(student, start, karras(steps), solver="euler")
        assert torch.equal(ends, jump.to(start))


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [79.0, 20.0, 2.0, 1.0, 0.5, 0.05])
def test_intermediate_points_are_recognised(sigma: float, normal: Normal) -> None:
    D = OptimalDenoiser(load("digits", n=500))
    student = multistep_knowledge_optimum(D, 80.0)
    x = 80 * normal(24, 1, 8, 8)
    between, ends = student.intermediate(x, sigma)
    torch.testing.assert_close(between, ends + sigma / 80 * (x - ends), rtol=0, atol=1e-12)
    assert student.reached(between, sigma).all()
    assert torch.equal(student(between, sigma), ends)


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [40.0, 2.0, 1.0, 0.4, 0.1])
def test_reached_points_of_five_deltas_in_closed_form(sigma: float) -> None:
    """The basins at σ_N, shrunk by r towards their points: what lies between the images is reached by no step."""
    D = OptimalDenoiser(load("five-deltas"))
    points = D.data.points.double().flatten().sort().values
    r = sigma / 80
    inner = GaussianMixture(points[:, None], 0.0).separatrices(torch.tensor([80.0]))[0]
    edges = torch.cat([torch.tensor([-math.inf]), inner, torch.tensor([math.inf])]).double()
    low, high = (1 - r) * points + r * edges[:-1], (1 - r) * points + r * edges[1:]
    x = torch.linspace(-3 - 2 * sigma, 3 + 2 * sigma, 401, dtype=torch.float64)[:, None]
    inside = (x > low) & (x < high)
    assert inside.sum(1).amax() == 1
    clear = ((x - low).abs() > 1e-3).all(1) & ((x - high).abs() > 1e-3).all(1)
    student = multistep_knowledge_optimum(D, 80.0)
    reached, out = student.reached(x, sigma), student(x, sigma)
    assert torch.equal(reached[clear], inside.any(1)[clear])
    assert (~reached).any() or sigma == 40.0
    ends = points[inside.int().argmax(1)][:, None]
    assert torch.equal(out[clear & reached], ends[clear & reached])
    # Elsewhere Eq. 42 is silent, and the exact flow's end is given.
    assert torch.equal(out[~reached], FlowMap(D)(x[~reached], sigma))


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [5.0, 2.0])
def test_ends_are_found_among_many_close_points(sigma: float, normal: Normal) -> None:
    """1,000 points in the plane: the end is up to the 250th nearest to x, and still found."""
    D = OptimalDenoiser(normal(1000, 2))
    student = multistep_knowledge_optimum(D, 80.0)
    between, ends = student.intermediate(80 * normal(30, 2), sigma)
    distances = torch.cdist(between, D.data)
    rank = (distances < torch.cdist(between, ends).diagonal()[:, None]).sum(1)
    assert rank.amax() > 40 or sigma != 2.0
    assert student.reached(between, sigma).all()
    assert torch.equal(student(between, sigma), ends)


@pytest.mark.slow
def test_an_exhaustive_search_finds_no_more(normal: Normal) -> None:
    """Noisy data are mostly off the student's lines, whatever is tried."""
    D = OptimalDenoiser(normal(40, 3))
    x = normal(8, 3) + 2 * normal(8, 3)
    some, all_of_them = (multistep_knowledge_optimum(D, 80.0, tries=tries).reached(x, 2.0) for tries in (16, 40))
    assert torch.equal(some, all_of_them)
    assert all_of_them.sum() < 8


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_ends_are_found_in_low_precision_and_far_from_zero(dtype: torch.dtype, normal: Normal) -> None:
    points = load("five-deltas").points.double() + (1000 if dtype == torch.float32 else 0)
    student = multistep_knowledge_optimum(OptimalDenoiser(points), 80.0)
    x = (points.mean() + 80 * normal(200, 1)).to(dtype)
    for sigma in (40.0, 10.0, 2.0):
        between, ends = student.intermediate(x, sigma)
        # What rounding of x moves up the line, by 80/σ, may leave the basin: next to its border only.
        wrong = (student(between, sigma) != ends).sum()
        assert wrong <= (0 if dtype == torch.float32 else 6)


def test_events_too_large_for_a_covariance(normal: Normal) -> None:
    D = OptimalDenoiser(normal(40, 1, 33, 33))
    student = multistep_knowledge_optimum(D, 80.0)
    for sigma in (40.0, 5.0, 0.5):
        between, ends = student.intermediate(80 * normal(10, 1, 33, 33), sigma)
        assert torch.equal(student(between, sigma), ends)


def test_a_teacher_on_a_grid(normal: Normal) -> None:
    D, x = OptimalDenoiser(load("five-deltas")), 80 * normal(50, 1)
    student = multistep_knowledge_optimum(D, karras(40), "heun")
    jump = FlowMap(D, karras(40))(x, 80.0)
    assert torch.equal(student(x, 80.0), jump)
    between, _ = student.intermediate(x, float(karras(40)[20]))
    assert student.reached(between, float(karras(40)[20])).all()
    torch.testing.assert_close(sample(student, x, karras(40)[::10], solver="euler"), jump, rtol=0, atol=1e-6)


def test_one_point_and_copies(normal: Normal) -> None:
    for points in (normal(1, 2), normal(1, 2).repeat(3, 1)):
        student = multistep_knowledge_optimum(OptimalDenoiser(points), 80.0)
        x = 80 * normal(5, 2)
        torch.testing.assert_close(sample(student, x, karras(3), solver="euler"), points[:1].expand(5, -1))
        assert student.reached(x, 3.0).all()
        assert torch.equal(student(x, 0.0), x)


def test_errors(normal: Normal) -> None:
    D, x = OptimalDenoiser(column(-1.0, 1.0)), column(0.1, 0.2)
    for call, sentence in (
        (lambda: progressive_optimum(D, karras(4), 1)(x.long(), 80.0), "x must be floating point, got torch.int64"),
        (lambda: multistep_knowledge_optimum(D, 80.0)(x.long(), 80.0), "x must be floating point, got torch.int64"),
        (lambda: multistep_knowledge_optimum(D, 80.0, tries=0), "tries must be at least 1, got 0"),
        (lambda: progressive_optimum(D, [1.0, 1.0, 0.0], 1), "a grid must decrease"),
        (lambda: progressive_optimum(D, karras(4), -1), "stage must be a whole number from 0 on, got -1"),
        (lambda: progressive_optimum(D, karras(4), 1.5), "stage must be a whole number from 0 on, got 1.5"),
        (lambda: progressive_optimum(D, karras(4), 1)(x, 81.0), "from 0.002 to 80, or be 0, got 81"),
        (lambda: ddim_target(D, x, [1.0]), r"levels must have shape \(K \+ 1,\) or \(K \+ 1, B\), got \(1,\)"),
        (lambda: ddim_target(D, x, torch.ones(2, 3)), r"got \(2, 3\) with B = 2"),
        (lambda: ddim_target(D, x, [1.0, 2.0]), "levels must not increase"),
        (lambda: ddim_target(D, x, [1.0, 0.0, 0.0]), "levels must not increase, and be positive but for the last"),
        (lambda: ddim_target(D, x, [1.0, -1.0]), "levels must not increase, and be positive"),
        (lambda: knowledge_optimum(D, 0.0), "sigma_max must be positive and finite, got 0"),
        (lambda: knowledge_optimum(D, 80.0, "heun"), "give sigmas="),
        (lambda: knowledge_optimum(Gaussian(torch.zeros(1), 1.0), 80.0), "must be an OptimalDenoiser"),
        (lambda: knowledge_optimum(D, karras(3), "reverse_sde"), "draws noise"),
        (lambda: multistep_knowledge_optimum(Gaussian(torch.zeros(1), 1.0), karras(3)), "needs an OptimalDenoiser"),
        (lambda: multistep_knowledge_optimum(D, 80.0)(x, 81.0), "between 0 and sigma_max = 80, got 81"),
        (lambda: multistep_knowledge_optimum(D, 80.0)(x, torch.ones(3)), r"sigma must have shape"),
        (lambda: multistep_knowledge_optimum(D, 80.0).intermediate(x, -1.0), "got -1"),
    ):
        with pytest.raises(ValueError, match=sentence):
            call()
