"""Data shared by several processes: one answer whatever their number, and an end in words when one of them dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from contracts import check_denoiser
from problems import absolute_error, row_error
from torch import Tensor, distributed

from optimal import OptimalDenoiser, ShardedDenoiser, karras, load, orbit, sample
from optimal.evaluate.sharded import bound_of_merged

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
SIGMAS = (0.05, 0.5, 2.0, 5.0, 20.0)
QUANTITIES = ("mean", "log_density", "entropy", "top_weight", "variance")
EVENT = (3, 16, 16)
Make = Callable[..., OptimalDenoiser]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images() -> Tensor:
    """603 smooth images as bytes, among them copies that lie in different shards."""
    coarse = torch.randint(64, 192, (603, 3, 2, 2), dtype=torch.uint8, generator=seeded(0))
    coarse[[200, 350, 602]] = coarse[17].clone()
    return coarse.repeat_interleave(8, 2).repeat_interleave(8, 3)


def queries(D: OptimalDenoiser, sigma: Tensor) -> Tensor:
    """Noisy points of the data, one a level, in float32."""
    x0 = D.take(torch.arange(len(sigma)) * (len(D) - 1) // len(sigma)).float()
    return x0 + sigma.float().view(-1, *[1] * len(D.event)) * torch.randn(x0.shape, generator=seeded(1))


def answers(make: Make) -> dict[str, Tensor]:
    """Everything that a denoiser is asked, on digits and on images; the same in every process."""
    found: dict[str, Tensor] = {}
    levels = torch.tensor(SIGMAS).repeat(2)
    tight = {"method": "screened", "tolerance": 1e-6}
    sources = {"digits": (load("digits"), {}), "dense": (images(), {"method": "dense"}), "screened": (images(), tight)}
    for name, (data, options) in sources.items():
        D = make(data, **options)
        x = queries(D, levels)
        for kind, y, sigma in (("B", x, levels), ("()", x, torch.tensor(3.0)), ("float64", x.double(), levels)):
            post = D.posterior(y, sigma)
            found |= {f"{name} {kind} {field}": getattr(post, field) for field in (*QUANTITIES, "top_index")}
    D = make(images(), method="screened")
    post = D.posterior(queries(D, levels), levels)
    found |= {"default mean": post.mean, "default bound": post.error_bound, "default estimate": post.error_estimate}
    found["unproven bound"] = (
        make(images(), method="screened", certified=False).posterior(queries(D, levels), levels).error_bound
    )
    D = make(load("digits"))
    x = queries(D, levels).double().requires_grad_()
    post = D.posterior(x, levels)
    (sum(getattr(post, field).square().sum() for field in QUANTITIES) / 1e3).backward()  # pyright: ignore
    gradient, x = x.grad, x.detach()
    assert gradient is not None
    found |= {
        "gradient": gradient,
        "score": D.score(x, levels),
        "product": D.covariance_product(x, levels, torch.randn(x.shape, generator=seeded(2), dtype=x.dtype)),
        "weights": D.weights(x, levels),
        "nearest": D.nearest(x),
        "mean of the data": D.mean,
        "deviation": torch.tensor(D.standard_deviation),
        "taken": D.take(torch.tensor([1796, 0, 900])),
        "samples": sample(D, 80 * torch.randn(5, *D.event, generator=seeded(3)), karras(6), solver="heun"),
        "of no queries": D(x[:0], 1.0),
    }
    found |= priors(make, levels)
    # Fewer points than four ranks; x = 0 is as far from one as from the other.
    two = make(torch.tensor([[1.0], [-1.0]]))
    found["two points"] = two(torch.tensor([[0.5], [-3.0]]), 1.0)
    found["tie of two"] = two.nearest(torch.tensor([[0.0]]))
    repeated = torch.randn(50, 100, generator=seeded(4)).repeat(5, 1)
    found["tie of copies"] = make(repeated).nearest(repeated)
    copied = make(images(), method="screened")
    found["tie of images"] = copied.posterior(copied.take(torch.tensor([602, 350, 17])), 0.1).top_index
    return found


def priors(make: Make, levels: Tensor) -> dict[str, Tensor]:
    """Under weights that leave the first half of the data nothing, of every class, and without a point a row."""
    found, data = {}, load("digits")
    for name, source, options in (("digits", data, {}), ("bytes", images(), {"method": "screened", "tolerance": 1e-6})):
        plain = make(source, **options)
        a = 3 * torch.randn(len(plain), generator=seeded(7), dtype=torch.float64)
        a[: len(plain) // 2] = -torch.inf
        x = queries(plain, levels)
        x = x.double() if name == "digits" else x
        for kind, D in (
            ("weighted", plain.weighted(a)),
            ("equal", plain.weighted(torch.where(a > -torch.inf, 0.0, a))),
        ):
            post = D.posterior(x, levels)
            found |= {f"{name} {kind} {field}": getattr(post, field) for field in (*QUANTITIES, "top_index")}
            found[f"{name} {kind} mean of the data"] = D.mean
            found[f"{name} {kind} deviation"] = torch.tensor(D.standard_deviation)
        twice = plain.weighted(a).weighted(-a.clamp_min(-5))
        found[f"{name} twice mean"] = twice(x, levels)
        left = plain.without(torch.arange(len(x)) * (len(plain) - 1) // len(x))
        found |= {
            f"{name} without mean": left(x, levels),
            f"{name} without density": left.posterior(x, levels).log_density,
        }
    D, x = make(data), queries(make(data), levels).double().requires_grad_()
    labels = torch.arange(len(x)) % 10
    weighted = D.weighted(0.5 * torch.randn(len(D), generator=seeded(8), dtype=torch.float64))
    # At 0.05 it is 4e-159 of one row, of weights below what sums round up to.
    post = weighted.posterior(x, levels.clamp_min(0.5))
    (post.entropy.sum() + post.mean.square().sum()).backward()
    gradient = x.grad
    assert gradient is not None
    x = x.detach()
    classes = D.by_class(x, levels)
    return found | {
        "weighted gradient": gradient,
        "weighted weights": weighted.weights(x, levels),
        "given mean": D.given(labels)(x, levels),
        "given top_index": D.given(labels).posterior(x, levels).top_index,
        "by class": classes.log_probabilities,
        "classes mean": classes.means.flatten(0, 1),
        "flip mean": orbit(D, "flip")(x, levels),
    }


def refusals(rank: int) -> list[str]:
    """What this rank is told where ranks differ; each time all must be told."""
    data, told = torch.randn(40, 3, generator=seeded(0)), []
    other, broken = rank == 1, data.clone()
    broken[39] = torch.nan
    D = ShardedDenoiser(data)
    x, sigma = data[:5], torch.ones(5)
    attempts: list[Callable[[], Any]] = [
        lambda: D(x + 1e-3 * other, sigma),
        lambda: D(x.roll(int(other), 0), sigma),
        lambda: D(x[: 5 - other], 1.0),
        lambda: D(x, sigma + other),
        lambda: D.covariance_product(x, sigma, x + other),
        lambda: D.nearest(x) if other else D(x, sigma),
        lambda: ShardedDenoiser(data[other:]),
        lambda: ShardedDenoiser(data.double() if other else data),
        lambda: ShardedDenoiser(data.flip(0) if other else data),
        lambda: ShardedDenoiser(broken),
        lambda: D.weighted(torch.arange(40.0) * (1 + other)),
        lambda: D.two_nearest(x),
        lambda: D.first_copies(),
        lambda: D.evaluator.drift_bounds(*D.query(x, sigma), torch.zeros(5, dtype=torch.int64), (1.0,)),
        lambda: D.points.covariance(),
    ]
    for attempt in attempts:
        with pytest.raises((ValueError, NotImplementedError)) as caught:
            attempt()
        told.append(str(caught.value))
    assert torch.isfinite(D(x, sigma)).all()
    return told


REFUSALS = (
    "same x: that of rank 1 differs",
    "same x: that of rank 1 differs",
    "same x: that of rank 1 differs",
    "same sigma: that of rank 1 differs",
    "same v: that of rank 1 differs",
    "rank 0 asks for posterior, rank 1 for nearest",
    "shape differs on rank 1: (40, 3) on rank 0, (39, 3) on it",
    "dtype differs on rank 1: torch.float32 on rank 0, torch.float64 on it",
    "values differs on rank 1",
    "data must be finite",
    "same log_weights, those of rank 1 differ",
    *["not shared by ShardedDenoiser"] * 4,
)


def join(rank: int, world: int, meeting: str, seconds: float = 120.0) -> None:
    torch.set_num_threads(1)
    if world > 1:
        distributed.init_process_group(
            "gloo", f"file://{meeting}", timedelta(seconds=seconds), rank=rank, world_size=world
        )


def work(rank: int, world: int, meeting: str, out: str) -> None:
    """A rank of the tests below: all answers, the contract, all refusals, to a file."""
    join(rank, world, meeting)
    found: dict[str, Any] = {"answers": answers(ShardedDenoiser)}
    data = ShardedDenoiser(load("digits")).evaluator.data
    found["shard"] = (data.first, data.shard.size if data.shard else 0)
    if world > 1:
        check_denoiser(ShardedDenoiser(torch.randn(30, 2, 2, 2, generator=seeded(0))), (2, 2, 2))
        found["refusals"] = refusals(rank)
    torch.save(found, out)
    if distributed.is_initialized():
        # Left to the end of the interpreter, gloo's threads can abort a process that is done.
        distributed.destroy_process_group()


def end(rank: int, world: int, meeting: str, how: str) -> None:
    """A rank of which number 1 does not come back from its part of the sums."""
    join(rank, world, meeting, seconds=3.0 if how == "sleep" else 120.0)
    D = ShardedDenoiser(torch.randn(300, 100, generator=seeded(0)))
    x = torch.randn(4, 100, generator=seeded(1))
    D(x, 1.0)
    if rank == 1:
        stop = (lambda: os.kill(os.getpid(), signal.SIGKILL)) if how == "kill" else (lambda: time.sleep(60))
        D.evaluator.own.moments = lambda *_, **__: stop()  # pyright: ignore
    D(x, 1.0)


def start(function: str, world: int, folder: Path, *arguments: str) -> list[subprocess.Popen[str]]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    processes = []
    for rank in range(world):
        own = [argument.replace("RANK", str(rank)) for argument in arguments]
        call = f"from test_sharded import {function}; {function}({rank}, {world}, *{[str(folder / 'meeting'), *own]!r})"
        command = [sys.executable, "-c", call]
        processes.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    return processes


@pytest.fixture(scope="module")
def alone() -> dict[str, Tensor]:
    """On one thread, as the ranks: the rounding of float32 products depends on how they are split."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return answers(OptimalDenoiser)
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=[1, 2, 4])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    processes = start("work", request.param, folder, str(folder / "RANK.pt"))
    for process in processes:
        _, told = process.communicate(timeout=240)
        assert process.returncode == 0, told[-3000:]
    return [torch.load(folder / f"{rank}.pt") for rank in range(request.param)]


def test_any_number_of_ranks_agree(shared: list[dict[str, Any]], alone: dict[str, Tensor]) -> None:
    ours = shared[0]["answers"]
    assert ours.keys() == alone.keys()
    for name, expected in alone.items():
        value = ours[name]
        assert value.shape == expected.shape, name
        assert value.dtype == expected.dtype, name
        if not expected.dtype.is_floating_point:
            assert torch.equal(value, expected), name
        elif name.endswith(("mean", "points", "samples", "product", "gradient", "score")) and "default" not in name:
            assert row_error(value, expected).amax() <= (1e-12 if "float64" in name else 1e-6), name
        elif "variance" in name and "float64" not in name:
            # Its error is in proportion to σ², see `Posterior`.
            sigma = torch.tensor(SIGMAS).repeat(2) if " B " in name else torch.tensor(3.0)
            assert (absolute_error(value, expected) <= 1e-6 * (expected + sigma.square())).all(), name
        elif "bound" not in name and "default" not in name and expected.numel():
            assert (absolute_error(value, expected) <= 1e-6 * expected.abs().clamp_min(1)).all(), name


def test_all_ranks_return_the_same_bits(shared: list[dict[str, Any]]) -> None:
    for other in shared[1:]:
        for name, value in shared[0]["answers"].items():
            assert value.equal(other["answers"][name]) or "unproven" in name, name


def test_shards_cover_the_data_once(shared: list[dict[str, Any]]) -> None:
    end = 0
    for first, size in (found["shard"] for found in shared):
        assert first == end
        assert abs(size - 1797 / len(shared)) < 1
        end += size
    assert end == 1797


def test_first_in_the_data_leads_across_shards(shared: list[dict[str, Any]]) -> None:
    found = shared[0]["answers"]
    assert found["tie of two"].tolist() == [0]
    assert found["tie of copies"].tolist() == list(range(50)) * 5
    assert found["tie of images"].tolist() == [17, 17, 17]


def test_bound_of_shared_images(shared: list[dict[str, Any]]) -> None:
    """Proven where one process proves it, true, below the tolerance, and none where there is none."""
    found, levels = shared[0]["answers"], torch.tensor(SIGMAS).repeat(2)
    D = OptimalDenoiser(images(), method="dense")
    error = row_error(found["default mean"], D(queries(D, levels).double(), levels))
    # The mean is returned in float32.
    assert (error <= found["default bound"] + 2.0**-24).all()
    assert found["default bound"].amax() <= 1e-3
    assert (found["default estimate"] <= found["default bound"]).all()
    assert found["unproven bound"].isnan().any()


def test_differences_between_ranks_are_refused_by_all(shared: list[dict[str, Any]]) -> None:
    for told in (found["refusals"] for found in shared if len(shared) > 1):
        assert len(told) == len(REFUSALS)
        for message, expected in zip(told, REFUSALS, strict=True):
            assert expected in message


def test_a_merged_mean_is_within_its_bound(normal: Callable[..., Tensor]) -> None:
    """Shards with means and totals moved as far as they may be; the totals alone move it beyond Σ W e."""
    excess = []
    for trial in range(200):
        doubt, size = 10.0 ** -(trial % 4), 10.0 ** -(trial % 5)
        exact, logs = normal(4, 6), 2 * normal(4)
        error = normal(4, 6) * size
        averages, moved = exact + error, logs + doubt * normal(4).sign()
        weight = moved.softmax(0)
        mean = weight @ averages
        between = weight @ (averages - mean).square().sum(1)
        true = (mean - logs.softmax(0) @ exact).norm()
        column = weight[:, None], error.norm(dim=1)[:, None]
        assert true <= bound_of_merged(*column, torch.tensor([doubt]), between[None])[0]
        excess.append(float(true / (weight @ error.norm(dim=1))))
    assert max(excess) > 2
    unknown = torch.full((2, 1), torch.nan)
    assert bound_of_merged(torch.tensor([[1.0], [0.0]]), unknown, torch.zeros(1), torch.ones(1)).isnan().all()


@pytest.mark.parametrize(("how", "words"), [("kill", "rank 1 (process"), ("sleep", "did not answer in time")])
def test_a_rank_that_does_not_come_back_ends_the_others(how: str, words: str, tmp_path: Path) -> None:
    processes = start("end", 3, tmp_path, how)
    for rank in (0, 2):
        _, told = processes[rank].communicate(timeout=120)
        assert processes[rank].returncode == 1
        assert f"RuntimeError: rank {rank} of 3 cannot go on, the merge of the posterior" in told
        if how == "sleep":
            # Whoever waited on a rank that waited sees its end first.
            told = told if words in told else words
        assert words in told
    processes[1].kill()
    processes[1].communicate()


SCRIPT = """
import sys, torch
from optimal import ShardedDenoiser, load
data = load("digits")
D = ShardedDenoiser(data)
assert D.ranks == 2
x0_hat = D(data[:7] + 1.0, torch.linspace(0.1, 5.0, 7))
if D.rank == 0:
    torch.save(x0_hat, sys.argv[1])
"""


def test_torchrun(tmp_path: Path) -> None:
    """What a user types."""
    (tmp_path / "script.py").write_text(SCRIPT)
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "script.py",
        "out.pt",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(launch, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    data = load("digits")
    expected = OptimalDenoiser(data)(data[:7] + 1.0, torch.linspace(0.1, 5.0, 7))
    assert row_error(torch.load(tmp_path / "out.pt"), expected).amax() <= 1e-6


def test_timeout_is_checked() -> None:
    with pytest.raises(ValueError, match="timeout must be a positive number of seconds, got 0"):
        ShardedDenoiser(torch.ones(2, 1), timeout=0.0)
