"""Whatever surrounds a call, and however it is asked: every promise of every implementation holds (see `surroundings`).

The denoiser is made inside and asked outside, and the other way round: neither what is kept from making it nor what is
made at the first call may carry the surroundings.
"""

from __future__ import annotations

import functools
import itertools
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from problems import row_error
from surroundings import (
    QUESTIONS,
    SURROUNDINGS,
    Answers,
    Asked,
    Case,
    Products,
    check_sums,
    plainly,
    precision_tree,
    precisions,
    right_sums,
    sums,
    threads,
)
from torch import Tensor

from optimal import (
    Dataset,
    FlowMap,
    OptimalDenoiser,
    ShardedDenoiser,
    certify,
    karras,
    progressive_optimum,
    sample,
    sample_in_span,
    seeking_refining_border,
)
from optimal.datasets import to_float
from optimal.regimes import top_eigenvalue
from optimal.span.basis import basis_of

ROOT = Path(__file__).parents[1]
SIGMAS = (0.05, 0.5, 2.0, 8.0)
GRID, STAGES = karras(10), karras(8)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Any:
    with threads(1):
        yield


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


@functools.cache
def clusters(count: int, dim: int) -> Tensor:
    """Around 20 centres, so that the posterior is spread over some of the points, or over all, at different levels."""
    which = torch.arange(count) * 7 % 20
    return (normal(20, dim, seed=0)[which] + 0.2 * normal(count, dim, seed=1)).float()


@functools.cache
def images(count: int, *event: int) -> Tensor:
    which = torch.arange(count) * 7 % 20
    values = 128 + 30 * normal(20, *event, seed=2)[which] + 8 * normal(count, *event, seed=3)
    return values.round().clamp(0, 255).to(torch.uint8)


def as_float(points: Tensor) -> Tensor:
    return to_float(points) if points.dtype == torch.uint8 else points


def queries(points: Tensor, batch: int, sigmas: tuple[float, ...] = SIGMAS) -> tuple[Tensor, Tensor]:
    sigma = torch.tensor(sigmas, dtype=torch.float64).repeat(-(-batch // len(sigmas)))[:batch]
    x0 = as_float(points)[torch.arange(batch) * 13 % len(points)].double()
    x = x0 + sigma.view(-1, *[1] * (x0.ndim - 1)) * normal(*x0.shape, seed=4)
    return x.float(), sigma


_MAPS: dict[str, Path] = {}


@pytest.fixture(autouse=True, scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    _MAPS["folder"] = tmp_path_factory.mktemp("maps")
    return _MAPS["folder"]


def streamed(array: Tensor, share: float = 0.9, **options: Any) -> OptimalDenoiser:
    """Of a map in a file of its own, of whose size the budget is a share."""
    path = _MAPS["folder"] / f"{len(list(_MAPS['folder'].iterdir()))}.npy"
    np.save(path, array.numpy())
    memory = int(share * array.numel() * array.element_size())
    D = OptimalDenoiser(np.load(path, mmap_mode="r"), memory=memory, **options)
    assert D.points.streamed
    return D


def case_of_sums(
    name: str,
    make: Callable[[Any], OptimalDenoiser],
    data: Callable[[], Tensor],
    *,
    batch: int = 500,
    weights: bool = True,
) -> Case:
    points = as_float(data())
    ask = functools.partial(sums, weights=weights)
    return Case(name, data, make, ask, *queries(points, batch), right_sums(points), check_sums)


def of(make: Any, **options: Any) -> Callable[[Any], OptimalDenoiser]:
    return lambda data: make(data, **options)


def flat(count: int, dim: int) -> Callable[[], Tensor]:
    return lambda: clusters(count, dim)


def pictures(count: int, *event: int) -> Callable[[], Tensor]:
    return lambda: images(count, *event)


DENSE, SCREENED, KEOPS = {"method": "dense"}, {"method": "screened"}, {"method": "keops"}

SUMS: dict[str, Callable[[str], Case]] = {
    "dense": lambda name: case_of_sums(name, of(OptimalDenoiser, **DENSE), flat(300, 192)),
    "dense in the plane": lambda name: case_of_sums(name, of(OptimalDenoiser, **DENSE), flat(300, 2)),
    "dense on bytes": lambda name: case_of_sums(name, of(OptimalDenoiser, **DENSE), pictures(300, 3, 8, 8)),
    "screened": lambda name: case_of_sums(name, of(OptimalDenoiser, **SCREENED), pictures(300, 3, 16, 16)),
    "screened, few values": lambda name: case_of_sums(name, of(OptimalDenoiser, **SCREENED), pictures(300, 3, 4, 4)),
    "keops, one value": lambda name: case_of_sums(name, of(OptimalDenoiser, **KEOPS), flat(300, 1)),
    "keops": lambda name: case_of_sums(name, of(OptimalDenoiser, **KEOPS), flat(300, 64)),
    "sharded": lambda name: case_of_sums(name, of(ShardedDenoiser, **DENSE), flat(300, 192)),
    "sharded, screened": lambda name: case_of_sums(name, of(ShardedDenoiser, **SCREENED), pictures(300, 3, 16, 16)),
    "streamed": lambda name: case_of_sums(name, of(streamed, **DENSE), flat(1500, 70), batch=24, weights=False),
    "streamed, screened": lambda name: case_of_sums(
        name, of(streamed, **SCREENED), pictures(1500, 70), batch=6, weights=False
    ),
}


def rows_that_stay(find: Callable[[Tensor], Tensor], x: Tensor, sigma: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """The first `keep` rows whose landing does not change by a hundredth of their noise: no border is near."""
    wide = sigma.view(-1, *[1] * (x.ndim - 1))
    stays = torch.ones(len(x), dtype=torch.bool)
    plain = find(x.double())
    for seed in range(3):
        stays &= find(x.double() + 0.01 * wide * normal(*x.shape, seed=100 + seed)) == plain
    rows = stays.nonzero().squeeze(1)[:keep]
    assert len(rows) == keep, f"{len(rows)} rows of {keep} stay"
    return x[rows], sigma[rows]


def case_of_landings(
    name: str,
    make: Callable[[Any], OptimalDenoiser],
    data: Callable[[], Tensor],
    land: Callable[[OptimalDenoiser, Tensor, Tensor], Answers],
    *,
    levels: tuple[float, ...],
    keep: int = 65,
    from_data: bool = True,
) -> Case:
    """Right is what a plain call answers in float64."""
    x, sigma = queries(data(), 3 * keep, levels)
    if not from_data:
        x = (sigma.view(-1, *[1] * (x.ndim - 1)) * normal(*x.shape, seed=5)).float()

    def right(x: Tensor, sigma: Tensor) -> Answers:
        return land(make(data()), x, sigma)

    D = make(data())
    x, sigma = rows_that_stay(lambda x: land(D, x, sigma)["index"], x, sigma, keep)
    return Case(name, data, make, land, x, sigma, right, check_landings)


def check_landings(found: Answers, right: Answers, x: Tensor, sigma: Tensor) -> None:
    for name in ("index", "holds"):
        if name in right:
            assert torch.equal(found[name], right[name]), f"{int((found[name] != right[name]).sum())} {name} differ"
    if "x" in right:
        assert found["x"].dtype == x.dtype
        assert torch.equal(found["x"], right["x"].to(x.dtype))
    if "error" in found:
        assert (found["error"] <= 0.02).all()


def in_span(solver: str, **options: Any) -> Callable[[OptimalDenoiser, Tensor, Tensor], Answers]:
    def land(D: OptimalDenoiser, x: Tensor, sigma: Tensor) -> Answers:
        found = sample_in_span(D, x, GRID, solver=solver, **options)
        return {"index": found.index, "x": found.x, "error": found.error}

    return land


def by_sampler(D: OptimalDenoiser, x: Tensor, sigma: Tensor) -> Answers:
    ends = sample(D, x, GRID)
    return {"index": D.nearest(ends)}


def by_flow(D: OptimalDenoiser, x: Tensor, sigma: Tensor) -> Answers:
    found = FlowMap(D).land(x, sigma)
    return {"index": found.index, "x": found.x, "holds": found.captured > 0}


def by_grid(D: OptimalDenoiser, x: Tensor, sigma: Tensor) -> Answers:
    return {"index": FlowMap(D, GRID).land(x, sigma).index}


def certified(D: OptimalDenoiser, x: Tensor, sigma: Tensor) -> Answers:
    found = certify(D, x, sigma)
    return {"index": found.index, "holds": found.holds}


NOISE: dict[str, Any] = {"levels": (80.0,), "from_data": False}
SOME: dict[str, Any] = {"levels": (0.3, 2.0, 20.0)}
WHOLE, FEW, MANY, PLANE = of(OptimalDenoiser), flat(40, 192), flat(300, 192), flat(100, 2)

LANDINGS: dict[str, Callable[[str], Case]] = {
    "span, Heun": lambda name: case_of_landings(name, WHOLE, MANY, in_span("heun", rank=16), keep=24, **NOISE),
    "span, DPM-Solver++": lambda name: case_of_landings(
        name, WHOLE, MANY, in_span("dpm_solver_pp", rank=16), keep=24, **NOISE
    ),
    "span of few points": lambda name: case_of_landings(name, WHOLE, FEW, in_span("heun"), **NOISE),
    "sampler": lambda name: case_of_landings(name, WHOLE, MANY, by_sampler, keep=24, **NOISE),
    "flow": lambda name: case_of_landings(name, WHOLE, PLANE, by_flow, **SOME),
    "flow, few points": lambda name: case_of_landings(name, WHOLE, FEW, by_flow, **SOME),
    "flow on a grid": lambda name: case_of_landings(name, WHOLE, PLANE, by_grid, **SOME),
    "certificate": lambda name: case_of_landings(name, WHOLE, PLANE, certified, levels=(0.05, 0.1, 0.3, 2.0), keep=300),
    "certificate on bytes": lambda name: case_of_landings(
        name, WHOLE, pictures(60, 3, 8, 8), certified, levels=(0.05, 1.0, 2.0)
    ),
    "certificate, streamed": lambda name: case_of_landings(
        name, streamed, flat(2000, 10), certified, levels=(0.05, 1.0, 2.0), keep=8
    ),
}


def nearest(D: OptimalDenoiser, x: Tensor, sigma: Tensor) -> Answers:
    first, second = D.two_nearest(x)
    return {"nearest": D.nearest(x), "first": first, "second": second}


def right_nearest(points: Tensor) -> Callable[[Tensor, Tensor], Answers]:
    flat = points.double().flatten(1)

    def right(x: Tensor, sigma: Tensor) -> Answers:
        distances = torch.stack([(flat - row).square().sum(1).sqrt() for row in x.flatten(1)])
        two = distances.topk(2, 1, largest=False, sorted=True)
        return {"nearest": two.indices[:, 0], "first": two.values[:, 0], "second": two.values[:, 1]}

    return right


def check_nearest(found: Answers, right: Answers, x: Tensor, sigma: Tensor) -> None:
    assert torch.equal(found["nearest"], right["nearest"])
    for name in ("first", "second"):
        torch.testing.assert_close(found[name], right[name], rtol=1e-12, atol=0)


def progressive(D: OptimalDenoiser, x: Tensor, sigma: Tensor) -> Answers:
    return {"mean": progressive_optimum(D, STAGES, stage=2)(x, sigma)}


def check_progressive(found: Answers, right: Answers, x: Tensor, sigma: Tensor) -> None:
    rounding = torch.finfo(x.dtype).eps
    assert found["mean"].dtype == x.dtype
    assert row_error(found["mean"], right["mean"]).max() <= 1e-4 + 30 * rounding


def case_of_nearest(name: str, make: Callable[[Any], OptimalDenoiser], data: Callable[[], Tensor]) -> Case:
    points = as_float(data())
    return Case(name, data, make, nearest, *queries(points, 500), right_nearest(points), check_nearest)


def case_of_progressive(name: str) -> Case:
    def right(x: Tensor, sigma: Tensor) -> Answers:
        return progressive(OptimalDenoiser(MANY()), x, sigma)

    return Case(name, MANY, WHOLE, progressive, *queries(MANY(), 65), right, check_progressive)


OTHERS: dict[str, Callable[[str], Case]] = {
    "nearest": lambda name: case_of_nearest(name, WHOLE, MANY),
    "nearest in the plane": lambda name: case_of_nearest(name, WHOLE, flat(2100, 2)),
    "nearest on bytes": lambda name: case_of_nearest(name, WHOLE, pictures(300, 3, 8, 8)),
    "nearest, streamed": lambda name: case_of_nearest(name, streamed, MANY),
    "progressive optimum": case_of_progressive,
}

CASES = SUMS | LANDINGS | OTHERS
ROUNDED = {"sampler", "flow on a grid", "progressive optimum"}
"""They ask the denoiser in the dtype of x, as of any denoiser: in half precision theirs is another one."""


@functools.cache
def case_of(name: str) -> Case:
    return CASES[name](name)


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Case:
    if request.param.startswith("keops"):
        request.getfixturevalue("compiled")
    return case_of(request.param)


FULL = {"ieee", "none"}
"""Precisions of float32 products: none is PyTorch's default."""
every_case = pytest.mark.parametrize("case", CASES, indirect=True)


@pytest.mark.slow
@every_case
def test_answers_of_other_rows_break_every_promise(case: Case) -> None:
    asked = plainly(case, case.fresh())
    case.holds(asked)
    turned = {name: values.roll(1, 0) for name, values in asked.answers.items()}
    with pytest.raises(AssertionError):
        case.holds(Asked(asked.rows, asked.x, turned))


@pytest.mark.slow
@every_case
@pytest.mark.parametrize("surrounding", SURROUNDINGS)
def test_surroundings(case: Case, surrounding: str) -> None:
    if surrounding == "default device" and case.name.startswith("keops"):
        pytest.skip("KeOps itself allocates there")
    around = SURROUNDINGS[surrounding]
    before = precisions()
    with around():
        D, inside = case.fresh(), precisions()
        assert precisions() == inside
    case.holds(plainly(case, D))
    D = case.fresh()
    with around():
        asked = plainly(case, D)
        assert precisions() == inside
    assert precisions() == before
    case.holds(asked)


@pytest.mark.slow
@every_case
@pytest.mark.parametrize("question", QUESTIONS)
def test_questions(case: Case, question: str) -> None:
    if question in ("float16", "bfloat16") and case.name in ROUNDED:
        pytest.skip("another denoiser")
    case.holds(QUESTIONS[question](case))


@pytest.mark.parametrize("case", ["dense", "screened", "sharded", "span, Heun", "certificate on bytes"], indirect=True)
@pytest.mark.parametrize("surrounding", ["products medium", "autocast bfloat16"])
def test_products_inside_are_of_full_precision(case: Case, surrounding: str) -> None:
    with SURROUNDINGS[surrounding](), Products() as watched:
        case.ask(case.fresh(), case.x[:8], case.sigma[:8])
    assert watched.seen
    assert {found for found in watched.seen if found[0] == torch.float32 and not {*found[1:]} <= FULL} == set()
    assert not {found[0] for found in watched.seen} & {torch.float16, torch.bfloat16}
    if case.name == "dense":
        assert any(found[0] == torch.float32 for found in watched.seen)


@pytest.mark.parametrize("levels", list(itertools.product(("none", "tf32", "ieee"), repeat=3)))
@pytest.mark.parametrize("branch", range(2), ids=["cpu", "cuda"])
def test_a_precision_that_is_inherited_stays_inherited(branch: int, levels: tuple[str, ...]) -> None:
    """Of all products, those of a backend, its matrix products: whatever each is set to, later changes do the same."""
    tree = precision_tree(branch)

    def later(*, called: bool) -> list[list[str]]:
        """What is in force now, and once the first, and then the second too, are set to other values."""
        for (_, write), level in zip(tree, levels, strict=True):
            write(level)
        if called:
            D(torch.zeros(1, 20), 1.0)
        found = [[read() for read, _ in tree]]
        for (_, write), value in itertools.product(tree[:2], ("ieee", "tf32", "none")):
            write(value)
            found.append([read() for read, _ in tree])
        return found

    D = OptimalDenoiser(torch.ones(3, 20))
    try:
        assert later(called=True) == later(called=False)
    finally:
        for _, write in tree:
            write("none")


def test_the_watch_sees_what_it_looks_for() -> None:
    a = torch.ones(2, 2)
    with SURROUNDINGS["products medium"](), Products() as watched:
        torch.mm(a, a)
    assert {found[0] for found in watched.seen} == {torch.float32}
    assert ("ieee", "ieee") not in {found[1:] for found in watched.seen}
    with SURROUNDINGS["autocast bfloat16"](), Products() as watched:
        torch.mm(a, a)
    assert {found[0] for found in watched.seen} == {torch.bfloat16}


def border(D: OptimalDenoiser, points: Tensor) -> float:
    return seeking_refining_border(D, points, draws=32, generator=seeded(0)).sigma


def borders(D: OptimalDenoiser, points: Tensor) -> dict[str, float]:
    """What is asked of the whole of the data."""
    return {
        "border": border(D, points),
        "eigenvalue": top_eigenvalue(D),
        "deviation": D.standard_deviation,
        "mean": float(D.mean.norm()),
        "copies": float((D.first_copies() != torch.arange(len(D), device="cpu")).sum()),
    }


WHOLES: dict[str, Callable[[], Tensor]] = {
    "points": lambda: torch.cat([clusters(100, 80), clusters(20, 80)]),
    "bytes": lambda: images(60, 3, 8, 8),
}


@functools.cache
def right_borders(name: str) -> dict[str, float]:
    points = as_float(WHOLES[name]()).double()
    flat = points.flatten(1)
    centred = flat - flat.mean(0)
    return {
        "border": border(OptimalDenoiser(points), points),
        "eigenvalue": float(torch.linalg.svdvals(centred)[0]) ** 2 / len(flat),
        "deviation": float(centred.square().mean().sqrt()),
        "mean": float(flat.mean(0).norm()),
        "copies": float(len(flat) - len(flat.unique(dim=0))),
    }


def check_borders(name: str, found: dict[str, float]) -> None:
    # An entropy off by 1e-4 nats moves a border by about as much; Lanczos ends at 1e-5.
    within = {"border": 1e-3, "eigenvalue": 2e-5, "deviation": 1e-6, "mean": 1e-6, "copies": 0.0}
    for quantity, right in right_borders(name).items():
        assert found[quantity] == pytest.approx(right, rel=within[quantity]), quantity


@pytest.mark.parametrize("name", WHOLES)
@pytest.mark.parametrize("surrounding", SURROUNDINGS)
def test_what_is_asked_of_the_whole(name: str, surrounding: str) -> None:
    points = WHOLES[name]()
    with SURROUNDINGS[surrounding]():
        found = borders(OptimalDenoiser(points), as_float(points))
    check_borders(name, found)


@pytest.mark.parametrize("name", WHOLES)
def test_the_order_of_the_data_changes_nothing_of_the_whole(name: str) -> None:
    points = WHOLES[name]()
    D = OptimalDenoiser(points[torch.randperm(len(points), generator=seeded(7))])
    check_borders(name, borders(D, as_float(points)))


CHILD = """
import sys, torch
from optimal import Dataset, OptimalDenoiser
from optimal.span.basis import basis_of
import numpy as np
torch.set_default_dtype(torch.float64)
with torch.autocast("cpu", torch.bfloat16):
    D = OptimalDenoiser(Dataset("kept", np.load(sys.argv[1])))
    import optimal.span.basis as bases
    bases._compute = None
    basis = basis_of(D, 12)
    left = basis.vectors.T @ basis.vectors - torch.eye(12, dtype=torch.float32)
print(basis.coordinates.dtype, float(basis.coordinates.double().square().sum()))
"""


@pytest.mark.slow
def test_a_basis_is_kept_as_it_is_without_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = images(200, 3, 8, 8).numpy()
    kept: dict[str, dict[str, bytes]] = {}
    surroundings = {name: around for name, around in SURROUNDINGS.items() if "thread" not in name}
    for name, around in {"plain": nullcontext, **surroundings}.items():
        monkeypatch.setenv("OPTIMAL_CACHE", str(tmp_path / name))
        with around():
            basis = basis_of(OptimalDenoiser(Dataset("kept", array)), 12)
        assert basis.coordinates.dtype == torch.float32
        kept[name] = {path.name: path.read_bytes() for path in (tmp_path / name / "bases").rglob("*.npy")}
    assert len(kept["plain"]) == 3
    assert all(found == kept["plain"] for found in kept.values())
    # Another process, with a default dtype of its own, reads what is there.
    np.save(tmp_path / "array.npy", array)
    monkeypatch.setenv("OPTIMAL_CACHE", str(tmp_path / "plain"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    done = subprocess.run([sys.executable, "-c", CHILD, str(tmp_path / "array.npy")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    basis = basis_of(OptimalDenoiser(Dataset("kept", array)), 12)
    dtype, square = done.stdout.split()
    assert dtype == "torch.float32"
    assert float(square) == float(basis.coordinates.double().square().sum())
