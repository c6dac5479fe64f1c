"""What command lines say, in --help and of words that they cannot use: a person's words, one sentence, code 2."""

from __future__ import annotations

import importlib
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from neural.cli.parsing import command_of
from neural.config import Distillation, Experiment, experiment_of, from_json, key, to_json

DOORS = {
    "optimal": ("info", "denoise", "sample", "border", "where"),
    "neural": ("train", "distill", "sample", "compare", "audit", "report"),
    "figures": (),
}
Captured = pytest.CaptureFixture[str]


def door(name: str) -> Callable[[list[str]], int]:
    return importlib.import_module(f"{name}.__main__").main


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (name, [*command, "--help"])
        for name, commands in DOORS.items()
        for command in ([], *([each] for each in commands))
    ],
)
def test_help_shows_no_type_of_the_program(name: str, words: list[str], capsys: Captured) -> None:
    with pytest.raises(SystemExit) as caught:
        door(name)(words)
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "--" in text
    for inner in ("None", "tyro", "}|", "STR|", "dummy", "True|False"):
        assert inner not in text, text


HUGE = "99999999999999999999999"
TRAIN = "neural train toy --dataset two-points --steps 2 --batch 4 --device cpu --dry-run"
DISTILL = "neural distill toy --dataset two-points --steps 2 --batch 4 --device cpu --dry-run"
SAMPLE = "neural sample optimum --dataset two-points -n 2"
COMPARE = "neural compare python:here.net --dataset two-points --draws 4 -n 4 --sigmas 1 --steps 1"
REPORT = "neural report python:here.net --dataset two-points --draws 4 -n 4 --sigmas 1 --steps 1"
AUDIT = "neural audit digits digits"
INFO = "optimal info two-points"
DRAW = "optimal sample two-points -n 2"
AT = "optimal denoise two-points 1 --sigma 1"
WHERE = "optimal where two-points 1 --sigma 1"
BORDER = "optimal border two-points"
FIGURES = "figures fig1 --quick --dry-run"
COUNTS = ["0", "-1", "nan", "1e3", "''", HUGE]
"""What is no number of anything."""
LEVELS = ["0", "-1", "nan", "inf", "''", "x"]
"""What is no noise level."""
FOLDERS = ["nosuch", "adir", "afile", "''"]
"""What is no data set."""
WRONG: list[tuple[str, str, list[str]]] = [
    (TRAIN, "--network.width", COUNTS),
    (TRAIN, "--depth", ["-1", "nan", "''", HUGE]),
    (TRAIN, "--layers", COUNTS),
    (TRAIN, "--kind unet --dataset digits --channels", ["", *COUNTS, "3", "4 -4"]),
    (TRAIN, "--kind unet --dataset digits --attention", COUNTS),
    (TRAIN, "--batch", COUNTS),
    (TRAIN, "--steps", COUNTS),
    (TRAIN, "--accumulate", COUNTS),
    (TRAIN, "--warmup", ["-1", "nan", "''", HUGE]),
    *((TRAIN, f"--{name}", LEVELS) for name in ("lr", "clip", "sigma-min", "sigma-max")),
    (TRAIN, "--ema", ["-1", "1", "nan", "inf", "''"]),
    (TRAIN, "--P_mean", ["nan", "inf", "''", "x"]),
    (TRAIN, "--P_std", ["-1", "nan", "inf", "''"]),
    (TRAIN, "--seed", [HUGE, "1.5", "x", "''"]),
    (TRAIN, "--every", COUNTS),
    *((TRAIN, f"--{name}", ["foo", "''"]) for name in ("kind", "precondition", "optimizer", "noise", "weighting")),
    (TRAIN, "--bf16", ["x", "1"]),
    *((TRAIN, flag, [""]) for flag in ("--bf16=x", "--no-bf16=True", "--no-lr", "--preset")),
    (TRAIN, "--dataset", FOLDERS),
    (TRAIN, "--option", ["x", "=", "zz=1", "n=0"]),
    (DISTILL, "--technique", ["foo", "''"]),
    (DISTILL, "--teacher", FOLDERS),
    (DISTILL, "--solver", ["foo"]),
    (DISTILL, "--technique knowledge --pairs", ["-1", "nan", HUGE]),
    (DISTILL, "--uses", COUNTS),
    (SAMPLE, "-n", COUNTS),
    (SAMPLE, "--steps", COUNTS),
    (SAMPLE, "--sigma-min", LEVELS),
    (SAMPLE, "--sigma-max", LEVELS),
    (SAMPLE, "--batch", COUNTS),
    (SAMPLE, "--device", ["foo", "''", "cpu:x"]),
    (SAMPLE, "--label", ["0", "x"]),
    (SAMPLE, "--solver", ["foo", "''"]),
    (SAMPLE, "--solver edm_stochastic --solver-option", ["S_churn=nan", "S_churn=x", "x", "zz=1"]),
    (SAMPLE, "--out", ["afile/x"]),
    ("neural sample", "", ["", *FOLDERS, *(f"diffusers:{each} --dataset digits" for each in FOLDERS)]),
    (COMPARE, "--draws", [*COUNTS, "1"]),
    (COMPARE, "-n", COUNTS),
    (COMPARE, "--steps", [*COUNTS, ""]),
    (COMPARE, "--sigmas", [*LEVELS, "", "1 x", "1 -1"]),
    (COMPARE, "--on", ["foo", "held-out"]),
    (COMPARE, "--held-out", [*FOLDERS, "digits"]),
    (COMPARE, "--held-out-option", ["n=3"]),
    (COMPARE, "--label", ["1"]),
    (COMPARE, "--out", ["afile/x"]),
    (REPORT, "--draws", [*COUNTS, "1"]),
    (REPORT, "-n", COUNTS),
    (REPORT, "--steps", COUNTS),
    (REPORT, "--sigmas", [*LEVELS, ""]),
    (REPORT, "--held-out", FOLDERS),
    (REPORT, "--held-out-option", ["n=3"]),
    (REPORT, "--out", ["afile"]),
    (AUDIT, "--near", ["-1", "nan", "inf", "''"]),
    (AUDIT, "--sample-option", ["x", "n=0"]),
    ("neural audit digits", "", FOLDERS),
    (INFO, "--device", ["foo", "''"]),
    ("optimal info", "", ["", *FOLDERS]),
    (BORDER, "--draws", COUNTS),
    (AT, "--sigma", LEVELS),
    (AT, "--top", COUNTS),
    (AT, "--out", ["afile/x"]),
    ("optimal denoise two-points --sigma 1", "", ["", "nan", "''", "@9999", "@x", "adir", "1,2"]),
    (WHERE, "--sigma", [*LEVELS, "1e300"]),
    (DRAW, "-n", COUNTS),
    (DRAW, "--steps", COUNTS),
    (DRAW, "--sigma-min", LEVELS),
    (DRAW, "--sigma-max", LEVELS),
    (DRAW, "--solver", ["foo", "''"]),
    (FIGURES, "--dataset", FOLDERS),
    (FIGURES, "--seed", ["x", "1.5"]),
    (FIGURES, "", ["nosuch", "''", "list"]),
]


@pytest.mark.parametrize(("line", "option", "values"), WRONG, ids=lambda value: value if isinstance(value, str) else "")
def test_a_value_that_cannot_be_is_one_sentence(
    line: str, option: str, values: list[str], capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("afile").write_text("")
    Path("adir").mkdir()
    Path("here.py").write_text("def net(x, sigma): return x / (1 + sigma.view(-1, 1) ** 2)\n")
    monkeypatch.syspath_prepend(Path.cwd())
    for value in values:
        name, *words = shlex.split(f"{line} {option} {value}")
        assert door(name)(words) == 2, (line, option, value)
        told = capsys.readouterr().err.splitlines()[-1]
        assert told.startswith("error: "), told
        for inner in ("Errno", "tyro", "dummy", "literal", "NoneType", "class '", "Overflow", "size()", "unpack"):
            assert inner not in told, told


@pytest.mark.parametrize(
    ("words", "on"),
    [
        ("--bf16", True), ("--no-bf16", False), ("--bf16 True", True), ("--bf16 False", False), ("--bf16=True", True),
        ("--optimisation.bf16", True), ("--optimisation.no-bf16", False), ("--optimisation.bf16=False", False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("start", ["train toy", "train ffhq-64", "distill digits"])
def test_what_is_on_or_off_is_a_flag(start: str, words: str, on: bool) -> None:
    command = command_of([*start.split(), *words.split(), "--lr", "0.5"], None)
    found = experiment_of(command.config).optimisation
    assert (found.bf16, found.lr) == (on, 0.5)


def test_levels_were_called_points() -> None:
    """Saved runs, cached students and command lines of before are what they were."""
    config = Distillation("progressive", levels=6)
    old = to_json(config).replace('"levels"', '"points"')
    assert old != to_json(config)
    assert from_json(Distillation, old) == config
    assert key(config) == "b3483ff6b07c4ffa"
    for words in (["--points", "6"], ["--points=6"], ["--levels", "6"]):
        assert command_of(["distill", *words], None).config.levels == 6
    with pytest.raises(ValueError, match="Experiment has no field 'points'"):
        from_json(Experiment, '{"points": 3}')
