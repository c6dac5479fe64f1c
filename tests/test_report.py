"""The report of a network: its numbers are those of `measure` and `audit`, its pictures show them, its page holds."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import Browser, browser, missing
from PIL import Image
from torch import Tensor

from neural import audit, measure
from neural.__main__ import main
from neural.model import Model, open_model
from neural.report import charts
from neural.report.plan import Effort
from neural.report.reported import write
from neural.report.study import Study, study
from optimal import Dataset, OptimalDenoiser, load

DIGITS = load("digits")
HALF, OTHER = Dataset("half", DIGITS.array[::4]), Dataset("other", DIGITS.array[1::4])
EFFORT = Effort(40, 30, 40)
NAME = "<script>alert('x')</script> & \"co\""


def networks() -> list[Model]:
    """The optimum of the data, one that always answers the mean, and one a fixed vector off the optimum."""
    D = OptimalDenoiser(HALF)
    mean = D.mean.float()

    def always(x: Tensor, sigma: Tensor) -> Tensor:
        return mean.expand_as(x).clone()

    def shifted(x: Tensor, sigma: Tensor) -> Tensor:
        return D(x, sigma) + 0.1

    return [open_model(D, name="optimum"), open_model(always, name=NAME), open_model(shifted, name="shifted")]


@pytest.fixture(scope="module")
def found() -> Study:
    return study(networks(), HALF, held_out=OTHER, effort=EFFORT, seed=3)


@pytest.fixture(scope="module")
def page(found: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(found, tmp_path_factory.mktemp("report") / "new folder")[0]


# Numbers.


@pytest.mark.slow
def test_networks_of_a_known_gap(found: Study) -> None:
    optimum, always, shifted = found.networks
    assert [measured.on for measured in optimum.measured] == ["data", "held-out", "trajectory"]
    for measured in optimum.measured:
        assert not measured.columns["gap"].value.any()
    for measured in always.measured:
        torch.testing.assert_close(measured.columns["gap_share"].value, torch.ones(12).double(), rtol=1e-5, atol=0)
        assert not measured.worse().any()
    for measured in shifted.measured:
        gap = measured.columns["gap_per_value"].value
        torch.testing.assert_close(gap, torch.full((12,), 0.01).double(), rtol=1e-4, atol=0)
    first, *others = optimum.sentences()
    assert "optimum on data: the optimum itself, without a gap at any noise level; border" in first
    assert [sentence.split(":")[0] for sentence in others] == ["optimum on held-out", "optimum on trajectory"]
    assert not any("border" in sentence for sentence in others)
    assert optimum.found is not None
    assert optimum.found.count("exact") == 30
    assert always.found is not None
    assert always.found.count("copies") == 0


def test_the_same_as_measured_alone(found: Study) -> None:
    model, D = networks()[2], OptimalDenoiser(HALF)
    alone = measure(model, D, on=OTHER, sigmas=found.networks[2].measured[1].sigmas, draws=40, seed=3)
    assert alone.rows() == found.networks[2].measured[1].rows()
    again = audit(D, found.networks[2].samples)
    assert found.networks[2].found is not None
    assert again.rows() == found.networks[2].found.rows()


@pytest.mark.slow
def test_all_networks_start_from_the_same_noises() -> None:
    """The same network under two names draws the same samples, also beside others."""
    one, two = (open_model(OptimalDenoiser(HALF), name=name) for name in ("one", "two"))
    pair = study([one, two], HALF, sigmas=[1.0], effort=EFFORT).networks
    assert torch.equal(pair[0].samples, pair[1].samples)
    other = study([one], HALF, sigmas=[1.0], effort=EFFORT, seed=1)
    assert not torch.equal(pair[0].samples, other.networks[0].samples)


def test_the_levels_are_those_of_every_seed(found: Study) -> None:
    other = study(networks()[:1], HALF, effort=EFFORT, seed=found.seed + 1)
    assert other.border == found.border
    assert torch.equal(other.networks[0].measured[0].sigmas, found.networks[0].measured[0].sigmas)


def test_networks_of_two_ranges_are_asked_where_both_are_made_for() -> None:
    D = OptimalDenoiser(HALF)
    narrow = Model("narrow", D, D.event, 0.1, 10.0)
    wide = Model("wide", D, D.event, 0.01, 80.0)
    for each in study([narrow, wide], HALF, effort=Effort(4, 2, 20)).networks:
        sigmas = each.measured[0].sigmas
        assert 0.1 <= float(sigmas.min()) < float(sigmas.max()) <= 10


def test_samples_that_are_not_finite_are_said_to_be(tmp_path: Path) -> None:
    def broken(x: Tensor, sigma: Tensor) -> Tensor:
        return torch.where(sigma.view(-1, 1, 1, 1) < 0.1, torch.nan, 0.0).expand_as(x).to(x)

    lost = study([open_model(broken)], HALF, sigmas=[1.0], effort=Effort(4, 2, 20))
    assert lost.networks[0].found is None
    assert "its samples are not finite" in write(lost, tmp_path)[0].read_text()


@pytest.mark.parametrize(
    ("models", "sentence"),
    [
        ([], "at least one network, and no two of one name, got none"),
        ([0, 0], "no two of one name, got optimum, optim"),
    ],
)
def test_networks_have_names_of_their_own(models: list[int], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        study([networks()[i] for i in models], HALF, effort=EFFORT)


def test_the_estimate_comes_first_and_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that a network's calls alone move, a second for every row."""
    clock = [0.0]
    monkeypatch.setattr("optimal.cli.estimate.time.perf_counter", lambda: clock[0])
    data = Dataset("points", np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32))

    def slow(x: Tensor, sigma: Tensor) -> Tensor:
        clock[0] += len(x)
        return 0.5 * x

    told: list[tuple[float, float]] = []
    study([open_model(slow)], data, effort=Effort(100, 30, 20), say=lambda seconds: told.append((seconds, clock[0])))
    [(seconds, start)] = told
    assert 0.5 < seconds / (clock[0] - start) < 2


# Files.


@pytest.mark.slow
def test_tables_hold_what_was_measured(found: Study, page: Path) -> None:
    with open(page.parent / "gap.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 3 * 12
    for row, own in zip(rows, found.rows(), strict=True):
        assert row["method"] == own["method"]
        assert float(row["gap_per_value"]) == own["gap_per_value"]
        assert float(row["gap_per_value_low"]) <= float(row["gap_per_value"]) <= float(row["gap_per_value_high"])
    about = json.loads((page.parent / "gap.json").read_text(), parse_constant=pytest.fail)
    assert about["fingerprint"] == HALF.fingerprint
    assert about["border"]["low"] < about["border"]["sigma"] < about["border"]["high"]
    assert len(about["rows"]) == len(rows)
    names = sorted(path.name for path in page.parent.iterdir())
    assert len([name for name in names if name.startswith("samples-")]) == 9
    assert {"index.html", "gap.png", "ratio.png"} < set(names)
    with open(page.parent / "samples-optimum.csv", newline="") as file:
        assert {row["kind"] for row in csv.DictReader(file)} == {"exact"}


class _Reader(HTMLParser):
    """Tags that close, addresses, and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "img", "source", "br"):
            self.open.append(tag)
        self.sources += [value or "" for key, value in attrs if key in ("src", "srcset", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data


def test_the_page_holds_all_that_it_shows(found: Study, page: Path) -> None:
    reader = _Reader()
    reader.feed(page.read_text(encoding="utf-8"))
    assert not reader.open
    assert "script" not in reader.tags
    assert NAME in reader.text
    for source in reader.sources:
        if source.startswith("data:image/png;base64,"):
            continue
        assert (page.parent / source).exists(), source
    for network in found.networks:
        sentences = network.sentences()
        assert len(sentences) == 3
        assert all(sentence in reader.text for sentence in sentences)
    border = f"border {found.border.sigma:.3g}"
    assert border in reader.text
    # Of every network: a table a place, and a level a row.
    assert reader.tags.count("table") == 1 + 3 * 3
    assert reader.tags.count("tr") == 1 + 3 + 3 * 3 * (1 + 12)
    assert "shifted on held-out data, 40 draws a level" in reader.text
    assert "shifted on its own trajectory, 40 draws a level" in reader.text


@pytest.mark.slow
def test_a_class_is_held_to_its_own_points(tmp_path: Path) -> None:
    assert main(["report", "optimum", "--dataset", "digits", "--label", "3", "--quick", "--out", str(tmp_path)]) == 0
    about = json.loads((tmp_path / "samples-optimum.json").read_text())
    assert about["dataset"] == "digits of class 3"
    assert about["exact"] == 64
    assert json.loads((tmp_path / "gap.json").read_text())["trained"] is True


def test_samples_on_the_page_go_by_distance(found: Study, page: Path) -> None:
    """And each says which image it is beside, how far, and the ratio; what these are is said below."""
    text = page.read_text(encoding="utf-8")
    assert "@" not in text.split("</style>")[1].replace("data:image", "")
    for network in found.networks:
        assert network.found is not None
        distances = [network.found.sides[i].distance for i in network.found.closest(30)]
        assert distances == sorted(distances)
    side = found.networks[1].found.sides[0]  # pyright: ignore[reportOptionalMemberAccess]
    assert re.search(
        rf"sample 0, image {side.index} of the data(, mirrored)?<br>.*?distance [\d.]+ grey levels, ratio ", text
    )
    for word in ("distance", "ratio", "training image"):
        assert f"<dt>{word}</dt>" in text
    assert "often narrower than the line" in text


def test_the_legend_says_training_data_of_what_was_trained_on(found: Study) -> None:
    """A function that nobody knows may have been trained on anything; an optimum is of its data."""

    def legend(study: Study) -> list[str]:
        return [text.get_text().strip() for text in charts.gap_chart(study, charts.LIGHT).legends[0].get_texts()]

    assert "on the data" in legend(found)
    assert "on training data" not in legend(found)
    own = study(networks()[:1], HALF, sigmas=[1.0], effort=Effort(4, 2, 20))
    assert "on training data" in legend(own)
    other = study(networks()[:1], OTHER, sigmas=[1.0], effort=Effort(4, 2, 20))
    assert "on the data" in legend(other)


def test_a_share_above_one_is_explained(tmp_path: Path) -> None:
    def opposite(x: Tensor, sigma: Tensor) -> Tensor:
        return torch.ones_like(x)

    worse = study([open_model(opposite)], HALF, sigmas=[0.1, 1.0], effort=Effort(10, 2, 20))
    text = write(worse, tmp_path)[0].read_text()
    assert text.count(" *</td>") == 2 * 2
    assert "the share is above 1: the network is farther from the optimum than the plain mean" in text


def test_the_curves_are_those_of_the_table(found: Study) -> None:
    figure = charts.gap_chart(found, charts.LIGHT)
    left = figure.axes[0]
    border = [line for line in left.lines if len(set(np.asarray(line.get_xdata()))) == 1 and len(line.get_xdata()) == 2]
    assert float(np.asarray(border[0].get_xdata())[0]) == found.border.sigma
    curves = [np.asarray(line.get_ydata()) for line in left.lines if len(np.asarray(line.get_xdata())) == 12]
    for network in found.networks[1:]:
        for measured in network.measured:
            value = measured.columns["gap_per_value"].value.numpy()
            assert any(np.allclose(curve, np.maximum(value, curve.min()), rtol=1e-9) for curve in curves)
    assert len(left.collections) >= 9  # intervals


def test_the_histogram_counts_all_samples(found: Study) -> None:
    axes = charts.ratio_chart(found, charts.LIGHT).axes[0]
    heights = [patch.get_data().values for patch in axes.patches if hasattr(patch, "get_data")]  # pyright: ignore
    assert len(heights) == 2 * 3
    assert all(float(np.sum(height)) == pytest.approx(100) for height in heights)


@pytest.mark.slow
def test_pictures_are_drawn_for_light_and_for_dark(found: Study) -> None:
    for theme, bright in ((charts.LIGHT, True), (charts.DARK, False)):
        with Image.open(io.BytesIO(charts.drawn(partial(charts.gap_chart, found), theme))) as image:
            pixels = np.asarray(image.convert("L"))
        assert (np.median(pixels) > 128) == bright
        # Nothing is cut off: the edge is all ground.
        for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
            assert np.ptp(edge) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["five-deltas", "ring"])
def test_points_are_drawn_with_the_data(name: str, tmp_path: Path) -> None:
    D = OptimalDenoiser(load(name))
    toy = study([open_model(D, name="optimum")], load(name), effort=Effort(20, 50, 50))
    files = {path.name for path in write(toy, tmp_path)}
    assert "points.png" in files
    assert "samples-optimum.png" not in files
    axes = charts.points_chart(toy, charts.LIGHT).axes[0]
    if name == "ring":
        drawn = np.asarray(axes.lines[1].get_xydata())
        np.testing.assert_allclose(drawn, toy.networks[0].samples.numpy(), atol=1e-6)
    else:
        assert sum(patch.get_height() for patch in axes.patches) == 50  # pyright: ignore[reportAttributeAccessIssue]


# In a browser.


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    why = missing()
    if why:
        pytest.skip(why)
    with browser() as opened:
        yield opened


def test_in_a_browser(window: Browser, page: Path) -> None:
    window.open(page)
    assert not window.complaints()
    assert NAME in window.text("h1")
    sizes = window.run("return [...document.images].map((i) => [i.naturalWidth, i.width, i.complete])")
    assert len(sizes) > 20
    assert all(natural > 0 and width > 20 and complete for natural, width, complete in sizes)
    assert window.run("return document.documentElement.scrollWidth <= innerWidth")
    # The sample left, the training image right of it.
    beside = window.run(
        "return [...document.querySelectorAll('.pair')].map((pair) => {"
        "  const [a, b] = [...pair.children].map((image) => image.getBoundingClientRect());"
        "  return a.top === b.top && a.right < b.left && Math.abs(a.width / a.height - 1) < 0.02;})"
    )
    assert len(beside) > 10
    assert all(beside)


def test_on_a_phone(page: Path) -> None:
    why = missing()
    if why:
        pytest.skip(why)
    with browser(390, 844, phone=True) as phone:
        phone.open(page)
        assert phone.run("return document.documentElement.scrollWidth <= innerWidth")


# The command line.


@pytest.mark.slow
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--preset", "toy", "--steps", "60", "--batch", "64", "--out", "net"]) == 0
    capsys.readouterr()
    assert main(["report", "net", "optimum", "--quick", "--draws", "20", "--out", "shown"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert re.match(
        r"net on data: farthest from the optimum at σ = [\d.]+, gap per value [\d.e-]+ \[.*border", printed[0]
    )
    assert printed[-1] == "shown/index.html"
    with open("shown/gap.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["method"], row["on"]) for row in rows} == {
        (name, on) for name in ("net", "optimum") for on in ("data", "trajectory")
    }
    assert all(math.isfinite(float(row["gap"])) for row in rows)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "name at least one network"),
        (["optimum"], "optimum does not know its data: give --dataset"),
        (["optimum", "--option", "n=3"], "--option is of --dataset: give that too"),
        (["optimum", "--dataset", "digits", "--label", "11"], "digits has no points of class 11"),
        (["optimum", "--dataset", "digits", "--held-out", "faces"], "held-out points must have the shape of the data"),
        (["optimum", "--dataset", "digits", "--held-out", "digits"], "held-out points must be none of the data"),
        (["optimum", "--dataset", "digits", "--draws", "1"], "draws must be at least 2 and samples 1, got 1 and 256"),
        (["nowhere", "--dataset", "digits"], "nowhere"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", *arguments]) == 2
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(told) == 1
    assert sentence in told[0]
