"""Where results of command lines go, and that what fails, or is too large, leaves nothing behind."""

from __future__ import annotations

import importlib
import shlex
from pathlib import Path

import pytest

from optimal.cli import suffixed, writable
from optimal.cli.room import require_room, require_single

Captured = pytest.CaptureFixture[str]
MANY = 10**12


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "afile").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")


def asked(line: str) -> int:
    door, *words = shlex.split(line)
    return importlib.import_module(f"{door}.__main__").main(words)


def error(line: str, capsys: Captured) -> str:
    assert asked(line) == 2, line
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("out", "path"),
    [
        ("a", "a"), ("a.png", "a"), ("a.PNG", "a"), ("a.jpg", "a"), ("a.html", "a"), ("v1.5", "v1.5"),
        ("new/", "new/name"), ("new/sub/", "new/sub/name"), ("new/sub", "new/sub"), (".", "name"), ("", "name"),
        ("..", "../name"), ("~/x", "{home}/x"), ("~", "{home}/name"), ("there", "there/name"), ("there/", "there/name"),
    ],
)  # fmt: skip
def test_where_results_go(out: str, path: str, tmp_path: Path) -> None:
    Path("there").mkdir()
    assert writable(out, "name") == Path(path.format(home=tmp_path / "home"))
    # What was tried is not there afterwards.
    assert [each.name for each in Path().iterdir()] == ["there"]
    assert suffixed(writable(out, "name"), ".npz").name == f"{Path(path).name}.npz"


def test_a_folder_that_cannot_be_written_to_is_said_before_any_work() -> None:
    for out, folder in (("../afile/x", False), ("../afile", True), ("../afile/x/", True)):
        with pytest.raises(ValueError, match=r"afile.* could not be written to"):
            writable(out, "name", folder=folder)


@pytest.mark.parametrize("out", ["results/", "new/deeper/"])
@pytest.mark.parametrize(
    ("line", "files"),
    [
        ("optimal denoise digits @8 --sigma 1", ["denoised.npy", "denoised.png"]),
        ("optimal where digits @8 --sigma 1", ["where.png"]),
        ("optimal sample digits -n 2 --steps 2", ["samples.npz", "samples.png"]),
        ("neural sample optimum --dataset digits -n 2 --steps 2", ["samples.json", "samples.npz", "samples.png"]),
        ("neural audit ring ring", ["audit.csv", "audit.json"]),
        ("neural likelihood optimum --dataset five-deltas -n 2", ["likelihood.csv", "likelihood.json"]),
    ],
)
def test_a_folder_with_a_slash_holds_the_results(line: str, files: list[str], out: str) -> None:
    assert asked(f"{line} --out {out}") == 0
    assert sorted(path.name for path in Path(out).iterdir()) == files
    assert [path.name for path in Path().iterdir()] == [Path(out).parts[0]]


@pytest.mark.parametrize("suffix", ["png", "PNG", "html", "csv"])
def test_suffixes_are_taken_off_in_every_room(suffix: str) -> None:
    assert asked(f"neural sample optimum --dataset ring -n 2 --steps 2 --out s.{suffix}") == 0
    assert asked(f"neural audit ring ring --out s.{suffix}") == 0
    assert sorted(path.name for path in Path().iterdir()) == ["s.csv", "s.json", "s.npz"]


@pytest.mark.parametrize(
    "line",
    [
        f"neural train toy --batch {MANY} --steps 1",
        "neural train toy --lr 1e300 --steps 3",
        f"neural distill toy --technique consistency --levels {MANY} --steps 1",
        f"neural distill toy --technique multistep --levels {MANY} --steps 1",
        f"neural distill toy --technique knowledge --pairs {MANY} --steps 1",
        f"optimal sample digits -n {MANY}",
        f"optimal sample digits --steps {MANY}",
        "optimal sample digits -n 2 --solver-option zz=1",
        f"neural sample optimum --dataset digits -n {MANY}",
    ],
)
def test_what_fails_leaves_no_folder(line: str, capsys: Captured) -> None:
    error(f"{line} --out new/run", capsys)
    assert not list(Path().iterdir())


def test_a_good_command_follows_a_bad_one_in_the_same_folder(capsys: Captured) -> None:
    line = "neural distill toy --technique consistency --steps 1 --batch 4 --device cpu --out t"
    error(f"{line} --levels {MANY}", capsys)
    Path("t").mkdir()
    Path("t/mine.txt").touch()
    error(f"{line} --levels {MANY}", capsys)
    assert [path.name for path in Path("t").iterdir()] == ["mine.txt"]
    assert asked(f"{line} --levels 4") == 0


def test_too_many_and_too_large_are_said_with_what_there_can_be(capsys: Captured) -> None:
    for line, name in (
        (f"optimal sample digits -n {MANY}", "n"),
        (f"optimal border digits --draws {MANY}", "draws"),
        (f"optimal schedule digits --judged {MANY}", "judged"),
        (f"optimal schedule digits --starts {MANY}", "starts"),
        (f"neural sample optimum --dataset digits -n {MANY}", "n"),
        (f"neural sample pretrained:toy --steps {MANY}", "steps"),
        (f"neural compare pretrained:toy --draws {MANY}", "draws"),
        (f"neural compare pretrained:toy -n {MANY} --dry-run", "n"),
        (f"neural compare pretrained:toy --steps {MANY}", "steps"),
        (f"neural report pretrained:toy --draws {MANY}", "draws"),
        (f"neural report pretrained:toy -n {MANY} --dry-run", "n"),
        (f"neural report pretrained:toy --steps {MANY}", "steps"),
        (f"neural explain pretrained:toy --draws {MANY}", "draws"),
        (f"neural explain pretrained:toy --tried {MANY}", "tried"),
        (f"neural explain pretrained:toy -n {MANY} --dry-run", "n"),
        (f"neural likelihood pretrained:toy -n {MANY}", "n"),
        (f"neural likelihood pretrained:toy --probes {MANY}", "probes"),
        (f"neural train toy --batch {MANY}", "batch"),
        (f"neural train toy --batch {MANY} --dry-run", "batch"),
        (f"neural distill toy --technique knowledge --batch {MANY}", "batch"),
        (f"neural distill toy --batch {MANY} --dry-run", "batch"),
        (f"neural distill toy --technique knowledge --pairs {MANY} --steps 1", "pairs"),
    ):
        assert error(line, capsys).startswith(f"error: {name} must be at most "), line
    for line in (
        "optimal sample digits -n 2 --sigma-max 1e38",
        "optimal schedule digits --sigma-max 1e38",
        "optimal denoise digits @1 --add-noise --sigma 1e38",
        "neural sample optimum --dataset digits -n 2 --sigma-max 1e38",
    ):
        assert " must be at most 1e+37: noise is drawn in single precision, got 1e+38" in error(line, capsys), line
    for name in ("lr", "clip", "sigma-max"):
        told = error(f"neural train toy --steps 2 --{name} 1e300 --dry-run", capsys)
        assert told == f"error: {name.replace('-', '_')} must be at most 1e+30, got 1e+300"
    require_room("n", 10**6, 64)
    require_single("sigma", 1e37)
