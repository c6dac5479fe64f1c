"""Theories fitted to a network by noise level, and the command that holds a network to them."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch

from neural.__main__ import main
from neural.cli.explaining import _chosen
from neural.config import key
from neural.explained import explain
from neural.studies.theories import THEORIES
from neural.theories import (
    EQUIVARIANT,
    LOCAL,
    Family,
    Fitted,
    Tried,
    families,
    fitted,
    theories_of,
    with_windows_of_local,
)
from optimal import OptimalDenoiser, load
from optimal.randomness import stream
from optimal.theories import equivariant_local_score, local_score

DIGITS = OptimalDenoiser(load("digits"))
SMALL = OptimalDenoiser(load("digits").points[:60, :, 2:6, 2:6].clone())


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("trajectory", [False, True])
def test_the_parameter_of_a_network_that_is_the_theory_is_found(trajectory: bool) -> None:
    def network(x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        level = float(torch.as_tensor(sigma).flatten()[0])
        return DIGITS.tempered(4.0 if level > 0.8 else 2.0)(x, sigma)

    found = fitted(
        network, DIGITS, DIGITS.tempered, (1.0, 2.0, 4.0, 8.0), sigmas=[0.6, 1.5], trajectory=trajectory, draws=32
    )
    assert found.values == (2.0, 4.0)
    assert [found.at(sigma) for sigma in (0.01, 0.9, 1.1, 80.0)] == [2.0, 2.0, 4.0, 4.0]
    x, sigma = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0.1, 3.0, 0.6, 1.5])
    expected = torch.stack([DIGITS.tempered(v)(x[i : i + 1], sigma[i])[0] for i, v in enumerate((2.0, 4.0, 2.0, 4.0))])
    assert torch.allclose(found(x, sigma), expected, atol=1e-6)


def test_parameters_are_chosen_on_noises_that_nothing_is_judged_on() -> None:
    asked: list[torch.Tensor] = []

    def network(x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        asked.append(x.clone())
        return DIGITS(x, sigma)

    for trajectory in (False, True):
        fitted(network, DIGITS, DIGITS.tempered, (1.0,), sigmas=1.0, trajectory=trajectory, draws=8)
        chosen = torch.cat(asked)
        asked.clear()
        explain(network, DIGITS, {"T": DIGITS}, on="trajectory" if trajectory else None, sigmas=1.0, draws=8)
        judged = torch.cat(asked)
        asked.clear()
        assert not (chosen[:, None] == judged[None]).flatten(2).double().mean(2).gt(0.02).any()


def test_a_local_network_is_found_to_be_local() -> None:
    machine = local_score(SMALL, 3)
    theories = theories_of(machine, SMALL, sigmas=[0.5, 1.0], draws=16)
    local, moved = theories["local score"], theories[EQUIVARIANT]
    assert isinstance(local, Fitted)
    assert local.values == (3.0, 3.0)
    assert repr(local) == "Fitted(3 at 0.5, 3 at 1)"
    x = torch.randn(3, 1, 4, 4, generator=stream(0, "unnamed"))
    assert torch.equal(moved(x, 0.5), equivariant_local_score(SMALL, 3)(x, 0.5))
    found = explain(machine, SMALL, theories, sigmas=[0.5, 1.0], draws=24)
    for sigma in (0.5, 1.0):
        assert found.best(sigma)[0] == ["local score"]
        assert float(found.at(sigma, "local score").columns["accounted"].value) > 1 - 1e-9
    assert "nearest is local score" in found.sentences()[0]


def test_which_theories_there_are_goes_by_the_data() -> None:
    of_points = families(OptimalDenoiser(torch.randn(50, 3, generator=torch.Generator().manual_seed(0))))
    assert list(of_points) == ["Gaussian", "smoothed data", "smoothed score", "temperature"]
    of_images = families(DIGITS)
    assert list(of_images)[:3] == ["Gaussian", "mixture of 10", "mixture of 100"]
    assert list(of_images)[-3:] == ["local score", "patch posterior", "PCA-locality"]
    with pytest.raises(ValueError, match="values must be at least one"):
        fitted(DIGITS, DIGITS, DIGITS.tempered, (), sigmas=1.0)
    with pytest.raises(ValueError, match="an answer of odd or of the network is not finite at σ = 1"):
        fitted(DIGITS, DIGITS, lambda _: lambda x, sigma: x * math.nan, (1.0,), sigmas=1.0, name="odd")


@pytest.mark.parametrize(
    ("event", "held"), [((3, 16, 16), 305), ((1, 25, 25), 55), ((1, 16, 16), None), ((3, 64, 64), 1)]
)
def test_the_equivariant_machine_is_of_as_many_points_as_its_largest_window_allows(
    event: tuple[int, ...], held: int | None
) -> None:
    D = OptimalDenoiser(torch.randn(400, *event, generator=torch.Generator().manual_seed(0)))
    local = Fitted(lambda k: local_score(D, int(k)), torch.tensor([1.0]), (3.0,), D.event)
    name = EQUIVARIANT if held is None else f"{EQUIVARIANT}, {held} points"
    assert list(with_windows_of_local(D, {LOCAL: local})) == [LOCAL, name]


def test_the_command_writes_a_page_and_its_tables(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--draws", "16", "--tried", "4", "-n", "4", "--sigmas", "0.3", "2", "--out", "found"]
    assert main(["explain", "pretrained:toy", *small]) == 0
    printed = capsys.readouterr().out
    assert "% of its deviation from the optimum that each accounts for" in printed
    page = Path("found.html").read_text(encoding="utf-8")
    sentences = json.loads(Path("found-theories.json").read_text())["sentences"]
    assert len(sentences) >= 3
    assert all(sentence in printed for sentence in sentences)
    assert "What pretrained:toy does instead of the optimum of five-deltas" in page
    # Nothing is loaded, and nothing is left open.
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("<figure") == page.count("</figure>") >= 1
    with open("found-theories.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    places, theories = {row["on"] for row in rows}, {row["theory"] for row in rows}
    assert places == {"data", "trajectory"}
    assert theories == {"optimum", "Gaussian", "smoothed data", "smoothed score", "temperature"}
    assert len(rows) == 2 * 2 * 5
    assert Path("found-endings.csv").exists()


def test_the_command_on_images_shows_them(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--draws", "4", "--tried", "2", "-n", "2", "--sigmas", "1", "--json"]
    parts = ["--held-out", "digits", "--held-out-option", "only=(10,11)"]
    assert main(["explain", "pretrained:digits", *parts, *small]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert {row["on"] for row in answer["theories"]} == {"data", "held-out", "trajectory"}
    page = Path(answer["files"][0]).read_text(encoding="utf-8")
    # Two noises under the network, the optimum and nine theories, and two charts.
    names = {row["theory"] for row in answer["theories"]}
    assert page.count("data:image/png") == 2 * (1 + len(names)) + 2


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere"], "no checkpoint"),
        (["pretrained:toy", "--draws", "1"], "draws must be at least 2, got 1"),
        (["pretrained:toy", "--sigmas", "1e9"], "sigmas must lie within the network's range"),
        (["pretrained:toy", "-n", "1"], "n must be 0, or at least 2, got 1"),
        (["pretrained:toy", "--tried", "0"], "tried must be at least 1, got 0"),
    ],
)
def test_bad_input_is_one_sentence(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", *words]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert sentence in error


def test_a_dry_run_says_how_long_and_does_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the border nor mixtures of the data, which take long, are made for it."""
    for name in ("seeking_refining_border", "families", "check_held_out"):
        monkeypatch.setattr(f"neural.cli.explaining.{name}", None)
    assert main(["explain", "pretrained:toy", "--dry-run"]) == 0
    assert "nothing was computed" in capsys.readouterr().out
    assert not list(Path().iterdir())


def test_a_value_beyond_which_others_were_not_tried_is_told_from_an_end_of_the_theory() -> None:
    tried = Tried(
        widths=(0.0, 1.0), temperatures=(0.5, 1.0, 2.0), windows=(1, 3, 7), sizes=(1, 2), thresholds=(0.0, 0.3)
    )
    known = {name: made for name, made in families(SMALL, tried=tried).items() if isinstance(made, Family)}
    found = theories_of(SMALL.tempered(16.0), SMALL, sigmas=1.0, known=known, draws=4)
    unit = SMALL.standard_deviation
    expected = {
        "smoothed data": {unit},
        "smoothed score": {unit},
        "temperature": {0.5, 2.0},
        LOCAL: set(),
        "patch posterior": {2.0},
        "PCA-locality": {0.3},
    }
    assert {name: {*made.cut} for name, made in found.items() if isinstance(made, Fitted)} == expected
    hot = found["temperature"]
    assert isinstance(hot, Fitted)
    assert hot.values == (2.0,)
    assert [line for line in _chosen(found, "data") if "temperature" in line] == [
        "temperature on data, by σ: 2 (the last tried) at 1"
    ]


def test_a_study_is_done_again_where_other_values_are_tried() -> None:
    cell = THEORIES.cells[0]
    other = dataclasses.replace(cell.config, values=Tried(temperatures=(1.0,)))
    assert key(other) != key(cell.config)


def test_without_theories_a_network_is_held_to_those_that_the_data_allow() -> None:
    machine, options = local_score(SMALL, 3), {"sigmas": [0.5, 1.0], "draws": 8}
    for on in (None, "trajectory"):
        found = theories_of(machine, SMALL, sigmas=[0.5, 1.0], trajectory=on == "trajectory")
        asked, given = (explain(machine, SMALL, *theories, on=on, **options).rows() for theories in ((), (found,)))
        assert str(asked) == str(given)  # undefined numbers among them
    with pytest.raises(ValueError, match="theories must be given where labels are"):
        explain(machine, SMALL, labels=3, **options)
