"""A class, guidance and mirrors in `python -m neural`: networks and optimum are asked the same, and are said to be."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from neural import measure, open_model, samplers
from neural.__main__ import main
from neural.wanted import Wanted, unguided, with_images
from optimal import Dataset, OptimalDenoiser, guided, karras, load, orbit, sample

Normal = Callable[..., Tensor]
CLASSES = "pretrained:digits-classes"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPTIMAL_CACHE", str(tmp_path / "cache"))


def rows(path: str) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def D() -> OptimalDenoiser:
    return OptimalDenoiser(load("digits"))


def test_what_is_guided_as_the_optimum_has_no_gap(D: OptimalDenoiser) -> None:
    """And at another weight it has |w − w'| ‖D_c − D‖, from the points of the class."""
    best = guided(D.given(3), D, 3.0, interval=(0.2, 2.0))
    options = {"sigmas": [0.1, 0.5, 1.0, 4.0], "draws": 64}
    same = measure(best, best, **options)
    assert (same.columns["gap"].value == 0).all()
    assert same.columns["gap_share"].low.max() == 0
    assert same.carriers.tolist() == [0, 0, 0, 0]
    other = measure(guided(D.given(3), D, 2.0, interval=(0.2, 2.0)), best, **options)
    own = measure(D, D.given(3), **options)
    expected = own.columns["gap"].value * torch.tensor([0.0, 1.0, 1.0, 0.0])
    assert (other.columns["gap"].value - expected).abs().max() <= 1e-6 * expected.max()
    for name in ("mmse", "excess_risk"):
        assert other.columns[name].value.isnan().all()
        assert not own.columns[name].value.isnan().any()
    assert any("guided as much" in remark for remark in other.remarks)
    along = measure(best, best, on="trajectory", **options)
    assert (along.columns["gap"].value == 0).all()


def test_samplers_are_held_to_the_guided_flow(D: OptimalDenoiser) -> None:
    inside, best = D.given(3), guided(D.given(3), D, 4.0)
    fine = {"sigmas": karras(128), "solver": "heun"}
    (row,) = samplers({"guided": (best, fine)}, inside, n=32, guided=best)
    assert (row["same"], row["distance"]) == (1, 0)
    (plain,) = samplers({"guided": (best, fine)}, inside, n=32)
    assert plain["same"] < 0.9


def test_only_an_optimum_has_points_to_draw(D: OptimalDenoiser) -> None:
    with pytest.raises(ValueError, match="a guided D must be guided from an optimum, whose points are drawn"):
        measure(D, guided(lambda x, sigma: x, D, 2.0), sigmas=[1.0], draws=8)


@pytest.mark.parametrize("group", ["flip", "quarter-turns"])
def test_images_as_points_are_the_orbit(D: OptimalDenoiser, group: str, normal: Normal) -> None:
    x = load("digits").points[:8].double() + normal(8, 1, 8, 8)
    for label, own in ((None, D), (3, D.given(3))):
        data = Wanted(label=label, orbit=group).points(load("digits"))  # pyright: ignore
        found, expected = OptimalDenoiser(data).posterior(x, 1.0), orbit(own, group).posterior(x, 1.0)  # pyright: ignore
        assert (found.mean - expected.mean).abs().max() <= 1e-12
        assert (found.log_density - expected.log_density).abs().max() <= 1e-10
        assert len(data) == (2 if group == "flip" else 8) * (1797 if label is None else 183)
        assert label is not None or len(data.classes) == len(data)


def test_a_network_is_guided_as_by_hand(D: OptimalDenoiser, normal: Normal) -> None:
    wanted = Wanted(label=3, guidance=2.0, interval=(0.3, 2.0))
    network = open_model(CLASSES, device="cpu")
    model, x = wanted.network(network), normal(6, 1, 8, 8).float()
    assert (model.name, model.event, model.sigma_max) == (network.name, network.event, network.sigma_max)
    for sigma in (0.1, 1.0, 3.0):
        assert torch.equal(model(x, sigma), guided(network.given(3), network, 2.0, (0.3, 2.0))(x, sigma))
    assert torch.equal(unguided(model)(x, 1.0), network.given(3)(x, 1.0))
    best = wanted.optimum(load("digits"), torch.device("cpu"))
    assert best is not None
    assert (best(x, 1.0) - guided(D.given(3), D, 2.0, (0.3, 2.0))(x, 1.0)).abs().max() <= 1e-5
    assert wanted.told() == {"label": 3, "guidance": 2.0, "interval": (0.3, 2.0)}


def test_compare_of_a_guided_network(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", CLASSES, "--label", "3", "--sigmas", "0.5", "4", "--draws", "32", "-n", "8", "--steps", "2"]
    assert main([*words, "--guidance", "2", "--interval", "0.3", "2", "--out", "guided"]) == 0
    told = capsys.readouterr().out
    assert "Network and optimum are guided: D + w (D_c − D), w = 2 for 0.3 < σ <= 2, D_c of class 3" in told
    assert main([*words, "--out", "class"]) == 0
    assert "Network and optimum are those of class 3" in capsys.readouterr().out
    near, far = rows("guided-denoiser.csv")
    plain = rows("class-denoiser.csv")
    assert float(near["gap"]) > 1.2 * float(plain[0]["gap"])
    # Outside of the interval nothing differs but what is said of the risk.
    assert float(far["gap"]) == pytest.approx(float(plain[1]["gap"]), rel=1e-5)
    assert (far["mmse"], far["excess_risk"]) == ("", "")
    about = json.loads(Path("guided-samplers.json").read_text())
    assert (about["label"], about["guidance"], about["interval"]) == (3, 2, [0.3, 2])
    assert about["held_to"][0].startswith("Network and optimum are guided")
    model = Wanted(3, 2.0, (0.3, 2.0)).network(open_model(CLASSES, device="cpu"))
    D = OptimalDenoiser(load("digits"))
    by_hand = measure(model, guided(D.given(3), D, 2.0, (0.3, 2.0)), sigmas=[0.5, 4.0], draws=32)
    # Of the same noises, but other points of the class: a part of the data is drawn from in another way.
    assert float(by_hand.columns["gap"].value[0]) == pytest.approx(float(near["gap"]), rel=0.2)


def test_compare_with_the_optimum_of_mirrored_data(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", "optimum", "--dataset", "digits", "--sigmas", "1", "--draws", "32", "-n", "8", "--steps", "2"]
    assert main([*words, "--orbit", "flip", "--out", "some"]) == 0
    told = capsys.readouterr().out
    assert "digits under flip: N = 3,594" in told
    assert "The optimum is that of the data with their images under flip" in told
    (row,) = rows("some-denoiser.csv")
    assert float(row["gap"]) <= 1e-9


def test_a_report_says_what_it_compared(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["report", CLASSES, "--label", "3", "--guidance", "2", "--sigmas", "0.5", "2", "--draws", "16", "-n", "4"]
    assert main([*words, "--out", "page"]) == 0
    page = Path("page/index.html").read_text()
    assert "beside the guided optimum of digits of class 3" in page
    assert "Network and optimum are guided: D + w (D_c − D), w = 2, D_c of class 3 and D of all data" in page
    assert "It is the mean of no distribution." in page
    assert "likelihood" not in page.lower().split("<h2>words</h2>")[0]
    about = json.loads(Path("page/gap.json").read_text())
    assert (about["label"], about["guidance"]) == (3, 2)
    assert "doubt" not in [network["doubt"] for network in about["networks"]]


def test_samples_of_a_guided_network(capsys: pytest.CaptureFixture[str]) -> None:
    for name in (CLASSES, "optimum"):
        words = ["sample", name, "--dataset", "digits", "--label", "3", "-n", "3", "--steps", "4", "--guidance", "3"]
        assert main([*words, "--out", "some"]) == 0
        with np.load("some.npz") as arrays:
            noises, ends, sigmas = (torch.from_numpy(arrays[key]) for key in ("noises", "samples", "sigmas"))
        if name == "optimum":
            D = OptimalDenoiser(load("digits"))
            pair = D.given(3), D
        else:
            network = open_model(CLASSES, device="cpu")
            pair = network.given(3), network
        assert (ends - sample(guided(*pair, 3.0), noises, sigmas, solver="heun")).abs().max() <= 1e-4
        assert json.loads(Path("some.json").read_text())["guidance"] == 3


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["compare", CLASSES, "--guidance", "2"], "--guidance is towards a class: it needs --label"),
        (["report", CLASSES, "--label", "3", "--interval", "1", "2"], "--interval is of guidance: it needs --guidance"),
        (["sample", CLASSES, "--label", "3", "--guidance", "nan"], "weight must be finite, got nan"),
        (["sample", CLASSES, "--label", "3", "--guidance", "2", "--interval", "2", "1"], "with 0 <= lo < hi"),
        (["compare", "pretrained:digits", "--label", "3", "--guidance", "2"], "takes no class_labels"),
        (["compare", "pretrained:digits-consistency", "--label", "3", "--guidance", "2"], "takes no class_labels"),
        (["compare", CLASSES, "--label", "12", "--guidance", "2"], "no points of class 12"),
        (["likelihood", CLASSES, "--label", "3", "--guidance", "2"], "likelihood takes no --guidance: a guided"),
        (["sample", CLASSES, "--orbit", "flip"], f"--orbit is of the model optimum: {CLASSES} is sampled as it was"),
        (["sample", "optimum", "--dataset", "five-deltas", "--orbit", "flip"], "flip needs images of shape (C, H, W)"),
    ],
)
def test_bad_input_is_one_sentence(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert sentence in error


def test_turns_are_of_square_images_and_of_few() -> None:
    oblong = Dataset("oblong", np.zeros((2, 1, 2, 3), np.uint8))
    with pytest.raises(ValueError, match=r"quarter-turns need square images, those of oblong have shape \(1, 2, 3\)"):
        with_images(oblong, "quarter-turns")
    many = Dataset("many", np.broadcast_to(np.zeros((1, 1, 32, 32), np.uint8), (600_000, 1, 32, 32)))
    with pytest.raises(ValueError, match=r"under quarter-turns take 4.58 GB: give fewer points"):
        with_images(many, "quarter-turns")


@pytest.mark.parametrize("group", ["flip", "quarter-turns"])
@pytest.mark.parametrize("label", [None, 3])
def test_images_are_numbered_and_drawn_as_those_of_the_orbit(
    group: Literal["flip", "quarter-turns"], label: int | None
) -> None:
    """The command line holds networks to copies, `measure` to the orbit: the same seed draws the same images."""
    data = load("digits", n=200)
    D = OptimalDenoiser(data)
    turned = orbit(D if label is None else D.given(label), group)
    held = OptimalDenoiser(Wanted(label=label, orbit=group).points(data))
    index, other = (each.drawn(64, torch.Generator().manual_seed(0)) for each in (turned, held))
    assert torch.equal(turned.take(index), held.take(other))
    if label is None:
        assert torch.equal(index, other)
