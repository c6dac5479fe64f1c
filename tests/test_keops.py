"""KeOps gives what dense gives, is chosen where it is faster, and says what it lacks."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from problems import absolute_error, row_error
from torch import Tensor

from optimal import OptimalDenoiser
from optimal.evaluate import Accuracy, Evaluator, dense, keops
from optimal.points import Points

Normal = Callable[..., Tensor]


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("dim", [1, 2, 64, 12_288])
@pytest.mark.parametrize("sigma", [0.02, 0.7, 9.0])
def test_same_as_dense(dim: int, sigma: float, normal: Normal) -> None:
    data = normal(80, dim)
    x, v = data[:3] + sigma * normal(3, dim), normal(3, dim)
    a, b = OptimalDenoiser(data, method="keops"), OptimalDenoiser(data, method="dense")
    left, right = a.posterior(x, sigma), b.posterior(x, sigma)
    # Rounding of z·y/σ² in nats.
    rounding = 1e-14 * max(1.0, float(x.norm(dim=1).amax() * data.norm(dim=1).amax()) / sigma**2) + 1e-12
    assert row_error(left.mean, right.mean).amax() <= 10 * rounding
    for name in ("log_density", "entropy", "top_weight"):
        values = getattr(right, name)
        assert (absolute_error(getattr(left, name), values) / values.abs().clamp_min(1)).amax() <= 10 * rounding, name
    assert absolute_error(left.variance, right.variance).amax() <= 10 * rounding * dim
    assert torch.equal(left.top_index, right.top_index)
    products = a.covariance_product(x, sigma, v), b.covariance_product(x, sigma, v)
    assert absolute_error(*products).amax() <= 100 * rounding * dim
    assert row_error(left.mean.flip(0), right.mean).amax() > 1e-3


def test_no_compiler(monkeypatch: pytest.MonkeyPatch, normal: Normal) -> None:
    monkeypatch.setattr(keops, "available", lambda: False)
    with pytest.raises(ValueError, match=r"method='keops' needs a C\+\+ compiler .* or use method='dense'"):
        OptimalDenoiser(normal(5, 2), method="keops")
    points = Points(normal(1000, 1))
    assert Evaluator(points, Accuracy()).choose(torch.empty(10**7, 1), single=True) is dense


def test_compiler_is_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not keops.available()
    compiler = tmp_path / "g++"
    compiler.touch(mode=0o755)
    assert keops.available()


@pytest.mark.parametrize(("dim", "batch", "chosen"), [(1, 2 * 10**6, keops), (1, 10**6, dense), (2, 2 * 10**6, dense)])
def test_auto_follows_the_measured_crossover(dim: int, batch: int, chosen: object, normal: Normal) -> None:
    evaluator = Evaluator(Points(normal(1000, dim)), Accuracy())
    assert evaluator.choose(torch.empty(1, dim).expand(batch, dim), single=True) is chosen


def test_a_killed_compilation_is_compiled_again(tmp_path) -> None:
    """KeOps alone would load the half-written file and crash."""
    script = (
        "import torch; from optimal import OptimalDenoiser; torch.set_num_threads(1); "
        "print(float(OptimalDenoiser(torch.tensor([[-1.0], [1.0]]), method='keops')(torch.tensor([[0.5]]), 1.0)))"
    )
    environment = {key: value for key, value in os.environ.items() if key != "KEOPS_CACHE_FOLDER"}
    environment["OPTIMAL_CACHE"] = str(tmp_path)

    def run() -> str:
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120, check=True
        )
        return done.stdout.splitlines()[-1]

    assert float(run()) == pytest.approx(math.tanh(0.5), rel=1e-6)
    assert not list((tmp_path / "keops").glob("compiling-*"))
    libraries = list((tmp_path / "keops").rglob("pykeops_cpp_*.so"))
    assert libraries
    for library in libraries:
        library.write_bytes(library.read_bytes()[:1000])
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / "keops" / f"compiling-{dead.pid}").touch()
    assert float(run()) == pytest.approx(math.tanh(0.5), rel=1e-6)
