"""Words and values for parameters: what each annotation takes, and one sentence for everything else."""

from __future__ import annotations

import io
import shlex
import typing
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image

from optimal import OptimalDenoiser, karras, load, sample
from optimal.__main__ import main
from optimal.converted import converted
from optimal.datasets import options_of, parse_options
from optimal.samplers import solver_of

Pair = tuple[float, float]


@pytest.mark.parametrize(
    ("kind", "value", "found"),
    [
        (bool, "no", False), (bool, "False", False), (bool, "0", False), (bool, "YES", True), (bool, "1", True),
        (bool, 1, True), (bool, np.bool_(False), False),
        (int, "-3", -3), (int, np.int64(3), 3), (int | None, "none", None), (int | None, None, None),
        (float, "1e3", 1e3), (float, "2", 2), (float, Fraction(1, 2), Fraction(1, 2)), (float, np.float32(2), 2.0),
        (str | None, "1", "1"), (str | None, "None", "None"), (str | None, "'1'", "1"),
        (str | bool | None, "yes", "yes"), (str | bool | None, "false", False),
        (str, "True", "True"), (Pair | str | None, "0,1", (0, 1)), (Pair | str | None, "(0, 1)", (0, 1)),
        (Pair | str | None, "any", "any"), (Pair, [0.0, 1], [0.0, 1]), (Sequence[float], "1,2.5,", (1, 2.5)),
        (Sequence[float], "3", (3,)), (tuple[int, ...], "[3, 64, 64]", (3, 64, 64)),
        (typing.Optional[int], "7", 7), (Literal["a", "b"], "b", "b"), (Any, {1}, {1}),  # noqa: UP045
    ],
)  # fmt: skip
def test_what_a_parameter_takes(kind: Any, value: Any, found: Any) -> None:
    got = converted("x", value, kind)
    assert got == found
    assert type(got) is type(found) or not isinstance(value, str)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (bool, ["maybe", "[1]", "", 5, -1, 0.5, None, [True], "2"]),
        (int, ["1e3", "1.5", "nan", "", "9" * 5000, "-" * 5000 + "1", 1.0, True, None, [1], 1j, "None"]),
        (float, ["big", "1j", "[1]", "None", "", None, True, 1j, [1], b"1", 10**400]),
        (str, [1, None, True, b"image", ["NHW"], {1}]),
        (Pair, ["255", "0,None", "0,[1]", "{0:1,1:2}", "0,1,2", {0: 1, 1: 2}, {0, 1}, 255, None, (0, None), (0, [1])]),
        (Sequence[float], ["a", "(1,(2,3))", "{1,2}", "1j,2", 1, {1: 2}, {1, 2}, b"12", (1, (2, 3)), "1,,2"]),
        (Literal["a", "b"], ["c", 1, None]),
    ],
)
def test_anything_else_is_one_sentence(kind: Any, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ValueError, match=r"^x must be [a-z].*, got .{1,64}$"):
            converted("x", value, kind)


def test_no_is_no_for_data_and_solvers() -> None:
    assert len(load("digits", xflip="no")) == 1797  # pyright: ignore[reportArgumentType]
    assert len(load("digits", **parse_options(["xflip=yes", "n=10"]))) == 20  # pyright: ignore[reportArgumentType]
    assert solver_of("dpm_solver_pp", dict(parse_options(["lower_order_final=no"]))) == solver_of("dpm_solver_pp", {})
    D = OptimalDenoiser(torch.randn(400, 2, generator=torch.Generator().manual_seed(0)))
    noise, grid = 80 * torch.randn(64, 2, generator=torch.Generator().manual_seed(1)), karras(6, sigma_min=0.3)
    ends = {
        word: sample(D, noise, grid, solver="dpm_solver_pp", order=3, lower_order_final=word)
        for word in ("no", "yes", True, False)
    }
    assert torch.equal(ends["no"], ends[False])
    assert torch.equal(ends["yes"], ends[True])
    assert not torch.equal(ends["no"], ends["yes"])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ring", {"radius": None}), ("ring", {"radius": [1]}), ("ring", {"n": 2.0}), ("spiral", {"turns": "two"}),
        ("two-points", {"positions": 1}), ("five-deltas", {"positions": {1: 2}}), ("digits", {"xflip": [1]}),
        ("digits", {"only": 3}), ("digits", {"without": (1, "a")}), ("emoji", {"skin_tones": "perhaps"}),
    ],
)  # fmt: skip
def test_a_wrong_type_never_leaves_load(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        load(name, **options)


def test_options_of_a_saved_run_are_values() -> None:
    """As they were saved before words were taken: whole numbers stay whole."""
    given = parse_options(["n=1000", "xflip=no", "only=9,10"])
    assert options_of("digits", given) == {"n": 1000, "xflip": False, "only": (9, 10)}
    found = options_of("five-deltas", {"positions": "-1,2"})["positions"]
    assert found == (-1, 2)
    assert {type(value) for value in found} == {int}
    with pytest.raises(ValueError, match="five-deltas has no option 'name_or_path'"):
        options_of("five-deltas", {"name_or_path": "x"})


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("f.npy", np.random.default_rng(0).random((5, 8, 8), dtype=np.float32))
    np.savez("k.npz", **{"1": np.zeros((5, 8, 8), "u1"), "None": np.full((4, 8, 8), 99, "u1")})  # pyright: ignore
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    encoded = io.BytesIO()
    Image.new("RGB", (8, 8)).save(encoded, "PNG")
    Path("d").mkdir()
    for name in ("x", "d/train-00000-of-00001", "d/test-00000-of-00001"):
        pq.write_table(pa.table({"image": [encoded.getvalue()]}), f"{name}.parquet")


REFUSED = """
digits xflip=[1]; digits name_or_path=x; digits xflip=maybe; digits progress=no; digits n=--1
f.npy value_range=255; f.npy value_range=0; f.npy value_range=False; f.npy value_range=(0,None)
f.npy value_range=(0,[1]); f.npy layout=['NHW']; f.npy value_range={0:1,1:2}
k.npz key=[1]; k.npz key={1}; k.npz key=b'1'; k.npz key=1j
ring radius=big; ring radius=None; ring radius=[1]; ring radius=1j; ring n=1000000000000
spiral turns=two; grid radius=b
two-points positions=1; five-deltas positions={1:2}; five-deltas positions={1,2}; five-deltas positions=1j,2
five-deltas positions=a; five-deltas positions=(1,(2,3)); d split=[1]; d split={1}
x.parquet column=b'image'; x.parquet column={1}
"""


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("case", [case.strip() for line in REFUSED.split("\n") for case in line.split(";") if case])
def test_what_does_not_convert_is_one_sentence_in_every_room(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    name, option = case.split(" ", 1)
    assert main(["info", name, "--option", option]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("error: ")
    assert "convert" not in told
    assert "inhomogeneous" not in told


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    "case", ["k.npz key=1", "k.npz key=None", "k.npz key='1'", "f.npy value_range=0,1", "d split=train"]
)
def test_names_and_pairs_are_taken_as_they_stand(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    name, option = case.split(" ", 1)
    assert main(["info", name, "--option", option, "--json"]) == 0
    assert capsys.readouterr().out.startswith("{")


@pytest.mark.parametrize(
    "line",
    ["neural.__main__ sample optimum --dataset digits", "figures.__main__ fig1 --quick --dry-run --dataset digits"],
)
def test_other_rooms_have_the_same_words(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    module, *words = shlex.split(line)
    assert __import__(module, fromlist=["main"]).main([*words, "--option", "xflip=maybe"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "error: xflip must be true or false, got 'maybe'"
