"""KeOps gives what dense gives, is chosen where it is faster, and says what it lacks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from problems import absolute_error, row_error
from torch import Tensor

from optimal import OptimalDenoiser
from optimal.evaluate import Accuracy, Evaluator, Tilt, dense, keops, keops_library
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


def test_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, normal: Normal) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"method='keops' needs a C\+\+ compiler .* or use method='dense'"):
        OptimalDenoiser(normal(5, 2), method="keops")
    points = Points(normal(1000, 1))
    assert methods(Evaluator(points, Accuracy()), torch.ones(3)) == [dense]


def compiler_only(folder: Path) -> Path:
    """A folder for the path: the compiler of this machine called clang++, and what it calls by name."""
    found = keops_library.compiler()
    if found is None:
        pytest.skip("no C++ compiler")
    folder.mkdir()
    (folder / "clang++").symlink_to(str(shutil.which(found)))
    for tool in ("sh", "as", "ld"):
        (folder / tool).symlink_to(str(shutil.which(tool)))
    return folder


def test_the_compiler_is_one_that_works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place = compiler_only(tmp_path / "bin")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "g++").touch(mode=0o755)
    (broken / "g++").write_text("#!/bin/sh\nexit 1\n")
    monkeypatch.setenv("PATH", f"{broken}:{place}")
    for cxx in ("", "nowhere", "g++"):
        monkeypatch.setenv("CXX", cxx)
        assert keops_library.compiler() == "clang++"
        assert keops.available()
    monkeypatch.setenv("CXX", str(place / "clang++"))
    assert keops_library.compiler() == str(place / "clang++")
    (tmp_path / "a b").symlink_to(place)
    monkeypatch.setenv("CXX", str(tmp_path / "a b" / "clang++"))  # a shell would read two words
    assert keops_library.compiler() == "clang++"
    monkeypatch.setenv("PATH", str(broken))
    monkeypatch.delenv("CXX")
    assert keops_library.compiler() is None
    assert not keops.available()


@pytest.mark.parametrize("name", ["plain", "my cache", "c(1)", "it's", "$HOME", "a;b", "ü", "-x"])
def test_a_shell_reads_the_folder_as_it_stands(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "inside").touch()
    monkeypatch.chdir(tmp_path)
    path = keops_library.plain_path(Path(name))
    assert Path(path).is_absolute()
    assert (Path(path) / "inside").exists()
    assert subprocess.check_output(f"ls {path}", shell=True, text=True) == "inside\n"


def failing(*_: object, **__: object) -> Callable[..., Tensor]:
    def reduce(*_: Tensor) -> Tensor:
        raise ModuleNotFoundError("No module named 'pykeops_cpp_0123456789'\n(traceback)")

    return reduce


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """KeOps as it is before its first use."""
    monkeypatch.setenv("OPTIMAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("optimal.evaluate.keops._failed", [])
    for cached in (keops_library.imported, keops_library.reduction):
        cached.cache_clear()
    yield
    for cached in (keops_library.imported, keops_library.reduction):
        cached.cache_clear()


@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize(
    ("where", "what", "message"),
    [
        ("pykeops.torch.Genred", failing, r"could not compile or load its formula \(ModuleNotFoundError: No module"),
        ("sys.modules", None, r"needs the package pykeops: pip install pykeops"),
    ],
)
def test_a_failure_is_one_sentence_or_dense(
    where: str, what: object, message: str, normal: Normal, monkeypatch: pytest.MonkeyPatch
) -> None:
    if keops_library.compiler() is None:
        pytest.skip("no C++ compiler")
    if what is None:
        monkeypatch.setitem(sys.modules, "pykeops", None)
    else:
        monkeypatch.setattr(where, what)
    data, x = normal(30, 1), normal(4, 1)
    expected = OptimalDenoiser(data, method="dense")
    with pytest.raises(ValueError, match=message + r".*(:|, or) use method='dense'$"):
        OptimalDenoiser(data, method="keops")(x, 0.5)
    monkeypatch.setattr(
        Evaluator,
        "choose",
        lambda self, sigma, **_: [(keops if keops.available() else dense, torch.arange(len(sigma)))],
    )
    D = OptimalDenoiser(data)
    with pytest.warns(RuntimeWarning, match="dense sums are used, which take longer here: .*" + message):
        assert torch.equal(D(x, 0.5), expected(x, 0.5))
    assert not keops.available()
    assert torch.equal(D.covariance_product(x, 0.5, x), expected.covariance_product(x, 0.5, x))


@pytest.mark.usefixtures("forgetful")
def test_a_formula_that_fails_later_is_dense_too(normal: Normal, monkeypatch: pytest.MonkeyPatch) -> None:
    if keops_library.compiler() is None:
        pytest.skip("no C++ compiler")
    monkeypatch.setattr("pykeops.torch.Genred", failing)
    data, x, sigma = normal(30, 1), normal(4, 1), torch.full((4,), 0.5, dtype=torch.float64)
    points, ones = Points(data), torch.ones(4, dtype=torch.float64)
    tilt = Tilt(ones, ones, x, x, ones, ones)
    with pytest.warns(RuntimeWarning, match="dense sums are used"):
        found = keops.tilt(points, x, sigma, tilt, single=False, accuracy=Accuracy())
    assert torch.equal(found, dense.tilt(points, x, sigma, tilt, single=False, accuracy=Accuracy()))


def test_auto_leaves_the_cpu_to_dense(normal: Normal) -> None:
    """Of any size: dense is no slower there, and need not compile."""
    sigma = torch.ones(1).expand(2 * 10**6)
    assert methods(Evaluator(Points(normal(1000, 1)), Accuracy()), sigma) == [dense]
    assert methods(Evaluator(Points(normal(1000, 1)), Accuracy("keops")), sigma) == [keops]


def methods(evaluator: Evaluator, sigma: Tensor) -> list[object]:
    return [method for method, _ in evaluator.choose(sigma, single=True)]


FORMULA = """
import torch
from optimal.evaluate.keops_library import reduction
ones = torch.ones(3, 2, dtype=torch.float64)
print(float(reduction("Sum", "(x | y)", ("x = Vi(2)", "y = Vj(2)"))(ones[:1], ones)))
"""


@pytest.mark.slow
def test_processes_at_once_and_a_killed_one(tmp_path: Path) -> None:
    """In a folder that KeOps alone would hand to the shell as it is, with a compiler that it would not look for."""
    environment = {name: value for name, value in os.environ.items() if name not in ("KEOPS_CACHE_FOLDER", "CXX")}
    environment |= {"OPTIMAL_CACHE": "my cache (1)", "PATH": str(compiler_only(tmp_path / "bin"))}
    environment["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, sys.path))

    def run(count: int) -> str:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        command = [sys.executable, "-c", FORMULA]
        started = [subprocess.Popen(command, env=environment, cwd=tmp_path, text=True, **pipes) for _ in range(count)]
        said = [process.communicate(timeout=200) for process in started]
        assert [out for out, _ in said] == ["6.0\n"] * count, said
        return "".join(error for _, error in said)

    assert run(2).count("Compiling pykeops cpp") == 1
    folder = tmp_path / "my cache (1)" / "keops"
    assert not list(folder.glob("compiling-*"))
    assert not list(folder.rglob("*.pkl"))
    assert "Compiling" not in run(1)
    # KeOps alone would load the half-written file and crash.
    (library,) = folder.rglob("pykeops_cpp_*.so")
    (folder / f"compiling-{os.getpid()}").touch()  # a process of that number runs, but not behind the lock
    library.write_bytes(library.read_bytes()[:1000])
    assert run(1).count("Compiling pykeops cpp") == 1
