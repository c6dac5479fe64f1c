"""`python -m optimal`: every question on a user's data, answered as by the library; bad input is one sentence."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from optimal import FlowMap, OptimalDenoiser, design, guided, karras, load, sample, seeking_refining_border
from optimal.__main__ import main
from optimal.cli import answers, estimate
from optimal.cli.levels import Grid
from optimal.cli.located import located
from optimal.datasets import to_uint8
from optimal.paths import Paths
from optimal.posterior import Posterior
from optimal.randomness import stream
from optimal.samplers import DPMSolverPP
from optimal.schedules import starts_of, wrong_landings

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPTIMAL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven coloured images of 6x4 pixels, the last a copy of the first."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 6, 3), np.uint8)
    (tmp_path / "mine").mkdir()
    for i, image in enumerate([*pixels, pixels[0]]):
        Image.fromarray(image).save(tmp_path / "mine" / f"{i}.png")
    return tmp_path / "mine"


def run(*arguments: str) -> int:
    return main(list(arguments))


def asked(capsys: Captured, *arguments: str) -> dict[str, Any]:
    """The answer of a run with --json."""
    assert run(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_a_guided_answer(capsys: Captured) -> None:
    """D + w (D_c − D), how far that is from D_c, and P(c | x); all else is the class's."""
    D, x = OptimalDenoiser(load("digits")), load("digits")[5][None]
    words = ["denoise", "digits", "@5", "--sigma", "1.5", "--label", "3", "--guidance", "4", "--out", "some"]
    found = asked(capsys, *words)
    expected = guided(D.given(3), D, 4.0)(x, 1.5)
    assert np.abs(np.load("some.npy") - expected[0].numpy()).max() <= 1e-6
    assert found["probability"] == pytest.approx(float(D.class_log_probabilities(x, 1.5)[0, 3].exp()), rel=1e-7)
    assert found["pushed"] == pytest.approx(float((expected - D.given(3)(x, 1.5)).norm()), rel=1e-5)
    assert found["entropy"] == pytest.approx(float(D.given(3).posterior(x, 1.5).entropy))
    assert found["weight"] == 4
    outside = asked(capsys, *words, "--interval", "1.5", "3")
    assert (outside["weight"], outside["pushed"]) == (1, 0)
    assert run(*words) == 0
    told = capsys.readouterr().out
    assert "guided, w = 4 at this noise level: the answer lies" in told
    assert "x, the guided answer, the points" in told


def test_samples_are_guided_in_an_interval(capsys: Captured) -> None:
    words = ["sample", "digits", "-n", "4", "--steps", "6", "--label", "3", "--guidance", "6", "--out", "some"]
    found = asked(capsys, *words, "--interval", "0.3", "2")
    D = OptimalDenoiser(load("digits"))
    with np.load("some.npz") as arrays:
        noises, ends, sigmas = (torch.from_numpy(arrays[name]) for name in ("noises", "samples", "sigmas"))
    expected = sample(guided(D.given(3), D, 6.0, (0.3, 2.0)), noises, sigmas, solver="heun")
    assert (ends - expected).abs().max() <= 1e-5
    assert found["interval"] == [0.3, 2.0]
    # Above all levels it is not guided.
    plain = asked(capsys, *words[:-4], "--out", "other")["index"]
    assert asked(capsys, *words, "--interval", "100", "200")["index"] == plain


def test_a_class_of_the_data(capsys: Captured) -> None:
    D = OptimalDenoiser(load("digits"))
    found = asked(capsys, "denoise", "digits", "@0", "--sigma", "2", "--label", "7", "--top", "3")
    x = load("digits")[0][None]
    post = D.given(7).posterior(x, 2.0)
    assert found["entropy"] == pytest.approx(float(post.entropy))
    assert found["points"][0]["index"] == int(post.top_index)
    assert D.labels[[point["index"] for point in found["points"]]].tolist() == [7, 7, 7]
    where = asked(capsys, "where", "digits", "@0", "--sigma", "2", "--label", "7")
    assert where["index"] == int(FlowMap(D.given(7)).index(x, 2.0))
    assert where["label"] == 7
    ends = asked(capsys, "sample", "digits", "-n", "4", "--steps", "6", "--label", "3")["index"]
    assert D.labels[[index for index in ends if index >= 0]].tolist() == [3] * sum(index >= 0 for index in ends)
    border = asked(capsys, "border", "digits", "--draws", "8", "--label", "3")
    exact = seeking_refining_border(D.given(3), draws=8, generator=stream(0, "figures"))
    assert border["count"]["sigma"] == pytest.approx(exact.sigma)
    assert run("denoise", "digits", "@0", "--sigma", "2", "--label", "10") != 0
    assert "there are no points of class 10, the classes are 0, 1, 2" in capsys.readouterr().err
    assert run("denoise", "five-deltas", "0.3", "--sigma", "2", "--label", "1") != 0
    assert "has no labels" in capsys.readouterr().err


def test_info(folder: Path, capsys: Captured) -> None:
    found = asked(capsys, "info", str(folder))
    data = load(folder)
    assert (found["n"], found["shape"], found["fingerprint"]) == (7, [3, 4, 6], data.fingerprint)
    assert (found["distinct"], found["duplicates"]) == (6, 1)
    points = data.points.double().flatten(1)
    top = float(torch.linalg.eigvalsh(torch.cov(points.T, correction=0))[-1])
    assert abs(found["top_eigenvalue"] - top) < 1e-4 * top
    assert abs(found["sigma_S"] - (top - 1) ** 0.5) < 1e-4 * top
    assert run("info", "five-deltas", "--option", "positions=-1,2") == 0
    printed = capsys.readouterr().out
    assert "N = 2, shape (1,)" in printed
    assert "speciation predicted at sigma_S = 1.118" in printed


def test_what_is_infinite_is_null(capsys: Captured) -> None:
    found = asked(capsys, "info", "ring", "--option", "n=1")
    assert found["sigma_C"] is None
    assert asked(capsys, "border", "ring", "--option", "n=1")["count"]["sigma"] is None


def test_denoise_is_the_optimum(capsys: Captured) -> None:
    data = load("digits")
    Image.fromarray(data.array[5][0]).save("five.png")
    found = asked(capsys, "denoise", "digits", "five.png", "--sigma", "1", "--out", "sub/five", "--top", "3")
    D = OptimalDenoiser(data)
    post = D.posterior(data[5:6], 1.0)
    assert np.allclose(np.load("sub/five.npy"), post.mean[0], atol=1e-5)
    assert abs(found["effective_count"] - float(post.effective_count)) < 1e-3
    assert [point["index"] for point in found["points"]] == D.weights(data[5:6], 1.0)[0].topk(3).indices.tolist()
    with Image.open("sub/five.png") as image:
        assert image.size == (5 * 134 - 6, 128 + 3 * 16)  # five tiles, three lines of words
        pixels = np.asarray(image.convert("L"))
    assert (pixels[:128:16, :128:16] == data.array[5][0]).all()
    assert (pixels[:128:16, 134:262:16] == to_uint8(post.mean)[0, 0].numpy()).all()


def test_noise_is_added_when_asked_for(capsys: Captured) -> None:
    clean = asked(capsys, "denoise", "digits", "@5", "--sigma", "2")
    noisy, same, other = (
        asked(capsys, "denoise", "digits", "@5", "--sigma", "2", "--add-noise", "--seed", seed) for seed in "001"
    )
    assert noisy == same
    assert len({clean["entropy"], noisy["entropy"], other["entropy"]}) == 3


def test_an_image_of_another_kind_is_converted_and_it_is_said(folder: Path, capsys: Captured) -> None:
    Image.fromarray(np.full((20, 20), 100, np.uint8)).save("grey.png")
    assert run("denoise", str(folder), "grey.png", "--sigma", "0.5") == 0
    told = capsys.readouterr().err
    assert "grey.png was turned from grey to colour, as mine is." in told
    assert "grey.png was resized from 20x20 to 6x4, as mine is." in told
    with Image.open("denoised.png") as image:
        assert np.asarray(image)[0, 0].tolist() == [100, 100, 100]
    assert run("where", "digits", str(folder / "0.png"), "--sigma", "0.5") == 0
    assert "0.png was turned from colour to grey" in capsys.readouterr().err


def test_a_point_from_an_array_or_numbers(capsys: Captured) -> None:
    ring = load("ring")
    np.save("x.npy", np.array([-0.7, 0.4], np.float32))
    by_numbers = asked(capsys, "where", "ring", "-0.7,0.4", "--sigma", "0.5")
    assert asked(capsys, "where", "ring", "x.npy", "--sigma", "0.5") == by_numbers
    x = torch.tensor([[-0.7, 0.4]])
    assert by_numbers["index"] == int(FlowMap(OptimalDenoiser(ring)).index(x, 0.5))
    assert asked(capsys, "denoise", "five-deltas", "-0.3", "--sigma", "1")["mean"] == pytest.approx(
        OptimalDenoiser(load("five-deltas"))(torch.tensor([[-0.3]]), 1.0).flatten().tolist(), rel=1e-5
    )
    np.save("pixels.npy", load("digits").array[7])
    np.save("floats.npy", load("digits")[7].numpy())
    first, second = (asked(capsys, "denoise", "digits", f"{name}.npy", "--sigma", "1") for name in ("pixels", "floats"))
    assert first == second
    assert first["points"][0]["index"] == 7


def test_where_says_how_sure_it_is(capsys: Captured) -> None:
    near = asked(capsys, "where", "digits", "@9", "--sigma", "0.1")
    assert (near["index"], near["certified"], near["captured"]) == (9, True, 0.1)
    far = asked(capsys, "where", "digits", "@9", "--sigma", "3", "--add-noise", "--out", "far")
    data = load("digits")
    x = data[9:10] + 3 * torch.randn(1, 1, 8, 8, generator=stream(0, "queries"))
    D = OptimalDenoiser(data)
    landing = FlowMap(D).land(x, 3.0)
    assert far["index"] == int(landing.index)
    assert far["captured"] == pytest.approx(float(landing.captured))
    assert 0 < far["captured"] < 3
    assert not far["certified"]
    assert far["weight"] == pytest.approx(float(D.weights(x, 3.0)[0, far["index"]]))
    with Image.open("far.png") as image:
        source, tile = (np.asarray(image.convert("L"))[:128:16, left : left + 128 : 16] for left in (0, 3 * 134))
    assert (source == data.array[9][0]).all()
    assert (tile == data.array[far["index"]][0]).all()
    assert run("where", "two-points", "0", "--sigma", "1") == 0
    assert "undecided: x lies on the border" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "options", "group"), [("digits", {"n": 200}, None), ("digits", {"n": 200}, "flip"), ("ring", {}, None)]
)
def test_the_estimate_of_border_comes_first_and_holds(
    name: str, options: dict[str, int], group: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that the optimum's answers alone move, with every row, and so do those of paths."""
    clock, posterior, at, told = [0.0], OptimalDenoiser.posterior, Paths.at, list[tuple[float, float]]()
    monkeypatch.setattr("optimal.cli.estimate.time.perf_counter", lambda: clock[0])
    monkeypatch.setattr("optimal.cli.located.announce", lambda seconds, _: told.append((seconds, clock[0])))

    def slow(D: OptimalDenoiser, x: Tensor, sigma: Any) -> Posterior:
        clock[0] += 0.1 * len(x)
        return posterior(D, x, sigma)

    def along(paths: Paths, sigma: float, draws: int | None = None) -> tuple[Tensor, Tensor]:
        clock[0] += 0.1 * (draws or paths.draws)
        return at(paths, sigma, draws)

    monkeypatch.setattr(OptimalDenoiser, "posterior", slow)
    monkeypatch.setattr(Paths, "at", along)
    located(load(name, **options), 256, 0, group=group, say=lambda _: None)
    [(seconds, start)] = told
    assert 0.5 < seconds / (clock[0] - start) < 2


def test_border_is_the_library_s(capsys: Captured) -> None:
    found = asked(capsys, "border", "faces", "--draws", "64", "--seed", "3")
    expected = seeking_refining_border(OptimalDenoiser(load("faces")), draws=64, generator=stream(3, "figures"))
    assert found["count"]["sigma"] == pytest.approx(expected.sigma)
    assert found["count"]["low"] == pytest.approx(expected.low)
    assert abs(found["entropy"]["sigma"] / expected.sigma - 1) < 0.2
    assert run("border", "faces", "--draws", "16") == 0
    assert "between mode seeking and mode refining" in capsys.readouterr().out


@pytest.mark.parametrize(
    "solver",
    [
        ["heun"],
        ["euler"],
        ["dpm_solver_pp", "--solver-option", "order=3"],
        ["edm_stochastic", "--solver-option", "S_churn=5"],
        ["consistency"],
    ],
)
def test_samples_are_data_points(folder: Path, solver: list[str], capsys: Captured) -> None:
    found = asked(capsys, "sample", str(folder), "-n", "5", "--solver", *solver, "--out", "some.v1")
    assert (found["n"], found["copies"]) == (5, 5)
    with np.load("some.v1.npz") as arrays:
        assert arrays["samples"].shape == arrays["noises"].shape == (5, 3, 4, 6)
        assert np.allclose(arrays["samples"], load(folder)[found["index"]], atol=2e-3)
    with Image.open("some.v1.png") as image:
        assert image.size == (3 * 134 - 6, 2 * (4 * 21 + 16 + 6) - 6)


def test_data_with_their_mirror_images_are_those_of_the_doubled_data(capsys: Captured) -> None:
    twice = OptimalDenoiser(load("digits", xflip=True))
    found = asked(capsys, "denoise", "digits", "@5", "--sigma", "1", "--add-noise", "--orbit", "flip", "--out", "five")
    x = load("digits")[5:6] + torch.randn((1, 8, 8), generator=stream(0, "queries"))
    assert np.allclose(np.load("five.npy"), twice(x, 1.0)[0], atol=1e-5)
    weights, index = twice.weights(x, 1.0)[0].topk(5)
    assert [(p["index"], p["element"]) for p in found["points"]] == [
        (k % 1797, "mirrored" if k >= 1797 else "") for k in index.tolist()
    ]
    assert np.allclose([p["weight"] for p in found["points"]], weights, atol=1e-5)
    with Image.open("five.png") as image:
        pixels = np.asarray(image.convert("L"))
    for place, k in enumerate(index.tolist(), start=3):  # after the source, x and the answer
        top, left = place // 6 * (128 + 3 * 16 + 6), place % 6 * 134
        tile = pixels[top : top + 128 : 16, left : left + 128 : 16]
        assert (tile == to_uint8(twice.take(torch.tensor([k])))[0, 0].numpy()).all()
    found = asked(capsys, "border", "digits", "--draws", "64", "--orbit", "flip")
    expected = seeking_refining_border(twice, draws=64, generator=stream(0, "figures"))
    assert found["count"]["sigma"] == pytest.approx(expected.sigma, rel=1e-6)


def test_samples_of_a_class_are_guided(capsys: Captured) -> None:
    words = ["sample", "digits", "-n", "24", "--label", "3", "--out", "some"]
    plain = asked(capsys, *words)
    assert asked(capsys, *words, "--guidance", "1")["index"] == plain["index"]
    found = asked(capsys, *words, "--guidance", "8")
    assert (found["guidance"], found["label"]) == (8, 3)
    assert found["different"] < plain["different"]
    data = load("digits")
    D = OptimalDenoiser(data)
    with np.load("some.npz") as arrays:
        start, sigmas, ends = (torch.from_numpy(arrays[name]) for name in ("noises", "sigmas", "samples"))
    torch.testing.assert_close(sample(guided(D.given(3), D, 8.0), start, sigmas), ends, atol=1e-4, rtol=1e-4)


def test_answers_of_a_class_say_so(capsys: Captured) -> None:
    about = "; its 183 points of class 3"
    for words in (
        ["border", "digits", "--draws", "8"],
        ["denoise", "digits", "@5", "--sigma", "1", "--out", "some"],
        ["where", "digits", "@5", "--sigma", "1"],
        ["sample", "digits", "-n", "1", "--steps", "4", "--out", "some"],
    ):
        assert run(*words, "--label", "3") == 0
        assert capsys.readouterr().out.splitlines()[0].endswith(about)
        assert asked(capsys, *words, "--label", "3")["label"] == 3
    towards = [*words, "--label", "3", "--guidance", "2", "--interval", "0.3", "2"]
    assert run(*towards) == 0
    assert "guided from all data towards class 3, w = 2 for 0.3 < sigma <= 2" in capsys.readouterr().out
    assert asked(capsys, *towards)["interval"] == [0.3, 2.0]


@pytest.mark.parametrize("group", ["flip", "quarter-turns"])
def test_samples_of_data_with_their_images_are_images(group: str, capsys: Captured) -> None:
    assert run("sample", "digits", "-n", "12", "--orbit", group, "--out", "some") == 0
    assert f"with their images under {group}" in capsys.readouterr().out
    found = asked(capsys, "sample", "digits", "-n", "12", "--orbit", group, "--out", "some")
    assert found["copies"] == 12
    names = answers.names_of(group)  # pyright: ignore
    assert len(set(names)) == (2 if group == "flip" else 8)
    assert len(set(found["element"])) > 1
    with np.load("some.npz") as arrays:
        samples = torch.from_numpy(arrays["samples"])
    for sample_, index, element in zip(samples, found["index"], found["element"], strict=True):
        image = load("digits")[index]
        if "mirrored" in element:
            image = image.flip(-1)
        image = torch.rot90(image, sum(k for k in (1, 2, 3) if f"{90 * k}°" in element), (-2, -1))
        assert np.allclose(sample_, image, atol=2e-3)


def test_many_samples_of_large_data_are_taken_in_their_span(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, told = load(folder), []
    options: dict[str, Any] = {"seed": 1, "options": {}, "say": told.append}
    monkeypatch.setattr(answers, "seconds_of_the_axes", lambda D: 1e9)
    direct, about = answers.sampled(data, 8, "heun", Grid(6), **options)
    assert not about["in_span"]
    assert not told
    monkeypatch.setattr(answers, "seconds_of_the_axes", lambda D: 0.0)
    monkeypatch.setattr(answers, "LONG", 1e-9)
    monkeypatch.setattr(estimate, "LONG", 1e-9)
    arrays, about = answers.sampled(data, 8, "heun", Grid(6), **options)
    assert about["in_span"]
    assert torch.allclose(arrays["samples"], direct["samples"], atol=1e-4)
    assert not torch.allclose(arrays["samples"].flip(0), direct["samples"], atol=1e-1)
    assert torch.allclose(
        direct["samples"], sample(OptimalDenoiser(data), direct["noises"], direct["sigmas"], solver="heun"), atol=1e-5
    )
    assert told[0].startswith("this will take about")
    churned = options | {"options": {"S_churn": 2.0}}
    assert not answers.sampled(data, 8, "edm_stochastic", Grid(6), **churned)[1]["in_span"]


def test_the_start_grows_with_the_data(capsys: Captured) -> None:
    np.save("wide.npy", 10 * np.random.default_rng(0).standard_normal((50, 2)).astype(np.float32))
    found = asked(capsys, "sample", "wide.npy", "-n", "3")
    assert 1200 < found["sigma_max"] < 2000
    assert not Path("samples.png").exists()


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["info", "nowhere"], "unknown data set 'nowhere'"),
        (["info", "digits", "--option", "n"], "--option must be name=value, got 'n'"),
        (["denoise", "digits", "nowhere.png", "--sigma", "1"], "no file nowhere.png"),
        (["denoise", "digits", "@3", "--sigma", "0"], "sigma must be positive and finite, got 0"),
        (["where", "digits", "@3", "--sigma", "-1"], "sigma must be positive and finite, got -1"),
        (["where", "digits", "@1797", "--sigma", "1"], "digits has points @0 to @1796, got @1797"),
        (["where", "five-deltas", "1,2", "--sigma", "1"], "a point of five-deltas has 1 value(s), got 2"),
        (["where", "five-deltas", "1", "--sigma", "1", "--out", "x"], "five-deltas holds no images"),
        (["denoise", "digits", "@3", "--sigma", "1", "--top", "0"], "top must be at least 1, got 0"),
        (["denoise", "digits", "short.npy", "--sigma", "1"], "must have shape (1, 8, 8), as the points of digits"),
        (["denoise", "digits", "nan.npy", "--sigma", "1"], "nan.npy must hold finite values"),
        (["denoise", "digits", "broken.npy", "--sigma", "1"], "broken.npy cannot be read as an array"),
        (["denoise", "digits", "broken.png", "--sigma", "1"], "cannot be read as an image"),
        (["denoise", "ring", "broken.png", "--sigma", "1"], "cannot be a point of ring"),
        (["denoise", "digits", "@3", "--sigma", "1", "--out", "broken.png/x"], "broken.png could not be"),
        (["sample", "digits", "-n", "0"], "n must be at least 1, got 0"),
        (
            ["sample", "digits", "--solver", "foo"],
            "--solver must be one of euler, heun, edm_stochastic, dpm_solver, dpm_solver_pp, unipc, sde",
        ),
        (["sample", "digits", "--solvr", "heun"], "unknown words or options: --solvr, heun; did you mean --solver"),
        (["sample"], "python -m optimal sample needs DATA"),
        (
            ["info", "digits", "--value-range", "0", "255"],
            "unknown words or options: --value-range 0 255; of the data there is --option value_range=0,255",
        ),
        (["info", "digits", "--resolution", "32"], "--resolution, 32; of the data there is --option resolution=32"),
        (["schedule", "digits", "--steps", "4"], "unknown words or options: --steps 4"),
        (["schedule", "digits", "--sigma-max", "-1"], "error: sigma_max must be positive and finite, got -1"),
        (["sample", "digits", "--sigma-max", "nan"], "error: sigma_max must be positive and finite, got nan"),
        (["info", "digits", "more"], "unknown words or options: more"),
        (["simple"], "unknown words or options: simple; available subcommands: info, denoise, sample, border, where"),
        ([], "name a command: info, denoise, sample, border, where"),
        (["sample", "digits", "--steps", "1.5"], "--steps must be a whole number, got '1.5'"),
        (["border", "digits", "--device", "abacus"], "device must be auto or one that is there (cpu"),
        (["sample", "digits", "--solver", "dpm_solver", "--solver-option", "order=x"], "order"),
        (["sample", "digits", "--solver", "edm_stochastic", "--solver-option", "S_churn=x"], "S_churn"),
        (["sample", "digits", "--solver", "euler", "--solver-option", "eta=(1,2)"], "eta"),
        (["sample", "digits", "--sigma-min", "-1"], "a grid needs 0 < sigma_min"),
        (["sample", "digits", "--steps", "0"], "a grid needs at least 1 step"),
        (["border", "digits", "--draws", "0"], "draws must be at least 1, got 0"),
        (["border", "five-deltas", "--orbit", "flip"], "flip needs images of shape (C, H, W)"),
        (["sample", "digits", "--orbit", "flip", "--solver", "consistency"], "it takes no --orbit"),
        (["sample", "digits", "--guidance", "2"], "--guidance is towards a class: it needs --label"),
        (["sample", "digits", "--guidance", "2", "--label", "3", "--solver", "consistency"], "it takes no --guidance"),
        (["denoise", "digits", "@0", "--sigma", "1", "--guidance", "2"], "--guidance is towards a class"),
        (
            ["sample", "digits", "--label", "3", "--interval", "1", "2"],
            "--interval is of guidance: it needs --guidance",
        ),
        (["border", "digits", "--label", "3", "--guidance", "2"], "border takes no --guidance: it is measured on a"),
        (["where", "digits", "@0", "--sigma", "1", "--guidance=2"], "where takes no --guidance: it follows the exact"),
        (["where", "digits", "@0", "--sigma", "1", "--orbit", "flip"], "where takes no --orbit: it follows the exact"),
        (["info", "digits", "--label", "3"], "info takes no --label: it describes all of the data"),
        (["sample", "digits", "--orbit", "flop"], "--orbit must be one of flip, quarter-turns"),
        (["schedule", "digits", "-n", "0"], "at least 1 step"),
        (["schedule", "digits", "--sigma-max", "0.05"], "below the border"),
        (["schedule", "digits", "--solver", "reverse_sde"], "draws noise"),
        (["schedule", "digits", "--judged", "0"], "judged must be at least 1"),
        (["schedule", "digits", "--gaussian-start", "--objective", "gaussian"], "takes none"),
        (["schedule", "digits", "--label", "3"], "made for all of the data"),
    ],
)
def test_bad_input_is_one_sentence(command: list[str], sentence: str, capsys: Captured) -> None:
    np.save("short.npy", np.zeros(3, np.float32))
    np.save("nan.npy", np.full((1, 8, 8), np.nan, np.float32))
    Path("broken.npy").write_bytes(b"no array")
    Path("broken.png").write_bytes(b"no image")
    assert run(*command) == 2
    printed = capsys.readouterr()
    error = printed.err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert sentence in error
    assert not printed.out


@pytest.mark.parametrize("command", ["info", "denoise", "sample", "border", "where", "schedule"])
def test_help_names_units_and_defaults(command: str, capsys: Captured) -> None:
    with pytest.raises(SystemExit) as caught:
        run(command, "--help")
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "default: " in text
    if command in ("denoise", "where", "sample"):
        assert "in units of the data" in text


def test_a_schedule_is_the_library_s_and_is_judged_beside_edm_s(capsys: Captured) -> None:
    words = ["schedule", "digits", "-n", "4", "--starts", "64", "--judged", "128", "--seed", "3"]
    found = asked(capsys, *words, "--solver-option", "order=3")
    D = OptimalDenoiser(load("digits"))
    levels = design(D, 4, solver=DPMSolverPP(3), starts=64, seed=3)
    assert found["sigmas"] == levels.tolist()
    others = starts_of(D, 128, 3)
    for name, grid in (
        ("designed", levels),
        ("edm", karras(4, sigma_min=others.sigma / 40_000, sigma_max=others.sigma)),
    ):
        landed = wrong_landings(others, grid, solver=DPMSolverPP(3))
        assert found[name]["wrong"] == landed.share
        assert (found[name]["low"], found[name]["high"]) == landed.interval()
        assert found[name]["nfe"] == 4
    own = wrong_landings(starts_of(D, 64, 3, purpose="design"), levels, solver=DPMSolverPP(3))
    assert found["design"]["wrong"] == own.share


def test_a_grid_that_is_no_better_than_edm_s_is_said_to_be(capsys: Captured) -> None:
    words = ["schedule", "digits", "-n", "8", "--solver", "heun", "--objective", "path-kl", "--judged", "64"]
    assert run(*words) == 0
    out = capsys.readouterr().out
    assert "this grid is no better than EDM's here: --objective landings is made for that share" in out
    assert "the same levels elsewhere; the shares hold for samplers that step as heun does, and no others" in out


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of diffusers itself
def test_a_schedule_is_told_as_the_libraries_take_it(capsys: Captured) -> None:
    from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler

    words = ["schedule", "five-deltas", "-n", "3", "--objective", "gaussian", "--judged", "8"]
    assert run(*words) == 0
    out = capsys.readouterr().out
    given = re.search(r"set_timesteps takes sigmas=\[(.*)\]", out)
    assert given is not None
    levels = [float(level) for level in given[1].split(", ")]
    assert levels == pytest.approx(design(OptimalDenoiser(load("five-deltas")), 3, "gaussian").tolist(), rel=1e-5)
    assert f"torch.tensor([{given[1]}])" in out
    scheduler = EulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=levels)
    assert len(scheduler.timesteps) == 3
    assert scheduler.sigmas.tolist() == pytest.approx(levels, rel=1e-6)
    assert "of 8 other starts end on another point" in out


def test_a_schedule_for_a_solver_that_draws_noise_is_not_judged(capsys: Captured) -> None:
    found = asked(capsys, "schedule", "five-deltas", "-n", "3", "--objective", "path-kl", "--solver", "reverse_sde")
    assert found["designed"] is found["edm"] is None
    assert len(found["sigmas"]) == 4


def test_a_schedule_may_begin_where_the_gaussian_leads(capsys: Captured) -> None:
    words = ["schedule", "digits", "-n", "3", "--starts", "64", "--judged", "64", "--gaussian-start"]
    found = asked(capsys, *words)
    assert found["sigmas"][0] < 10 < found["sigma_max"]
    assert found["designed"]["wrong"] < found["edm"]["wrong"]
    # A library would put plain noise at the first level.
    assert run(*words) == 0
    assert "diffusers" not in capsys.readouterr().out


def test_a_suffix_of_out_is_not_doubled(capsys: Captured) -> None:
    assert run("denoise", "digits", "@3", "--sigma", "1", "--out", "a.png") == 0
    assert sorted(path.name for path in Path().glob("a*")) == ["a.npy", "a.png"]
    assert run("denoise", "digits", "@3", "--sigma", "1", "--out", "v1.5") == 0
    assert sorted(path.name for path in Path().glob("v*")) == ["v1.5.npy", "v1.5.png"]


def test_a_small_eigenvalue_has_no_speciation(capsys: Captured) -> None:
    np.save("small.npy", np.array([[-0.25, 0.25], [0.25, 0.25], [0.25, -0.25]], np.float32))
    assert run("info", "small.npy") == 0
    assert "the formula for sigma_S needs an eigenvalue above 1" in capsys.readouterr().out


def test_options_are_told_as_the_command_line_has_them(folder: Path, capsys: Captured) -> None:
    Image.new("RGB", (9, 9)).save(folder / "other.png")
    assert run("info", str(folder)) == 2
    assert "(here: --option resolution=4)" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", ["optimal info five-deltas", "optimal --help", "neural train --help", "figures list"]
)
def test_a_reader_that_goes_away_is_no_error(command: str) -> None:
    command = f"{sys.executable} -m {command} | true; echo ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "141"
    assert done.stderr == ""


def test_an_existing_folder_is_written_into(capsys: Captured) -> None:
    Path("results").mkdir()
    for out, expected in (("results/", "results/denoised"), (".", "denoised"), ("", "denoised"), ("./v1.5", "v1.5")):
        assert run("denoise", "digits", "@8", "--sigma", "1", "--out", out) == 0
        assert Path(f"{expected}.npy").exists(), out
        assert Path(f"{expected}.png").exists(), out
    assert [path.name for path in Path().glob("results*")] == ["results"]


def test_where_nothing_can_be_written_nothing_is_computed(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("it was computed")

    for name in ("denoised", "sampled", "destination"):
        monkeypatch.setattr(f"optimal.cli.doing.{name}", never)
    Path("file").write_text("")
    for command in (["denoise", "digits", "@8", "--sigma", "1"], ["sample", "digits"]):
        assert run(*command, "--out", "file/x") == 2
        assert capsys.readouterr().err.splitlines()[-1] == "error: file could not be written to: it is a file"
    assert run("where", "digits", "@8", "--sigma", "1", "--out", "/proc/x/y") == 2
    assert "error: /proc/x could not be written to" in capsys.readouterr().err


def test_data_have_one_name(capsys: Captured) -> None:
    first = asked(capsys, "where", "ring", "0.3,0.4", "--sigma", "0.5")
    assert asked(capsys, "where", "--dataset", "ring", "0.3,0.4", "--sigma", "0.5") == first
    assert asked(capsys, "where", "0.3,0.4", "--sigma", "0.5", "--dataset=ring") == first


@pytest.mark.parametrize(
    "command",
    [
        ["info"],
        ["border", "--quick"],
        ["denoise", "@3", "--sigma", "1"],
        ["where", "@3", "--sigma", "1"],
        ["sample"],
        ["schedule"],
    ],
)
def test_dry_runs_do_nothing(command: list[str], capsys: Captured) -> None:
    assert run(command[0], "digits", *command[1:], "--dry-run") == 0
    assert "nothing was computed" in capsys.readouterr().out
    assert asked(capsys, command[0], "digits", *command[1:], "--dry-run")["plan"]
    assert [path.name for path in Path().iterdir() if path.name != "cache"] == []


def test_quick_is_fewer_draws(capsys: Captured) -> None:
    few = asked(capsys, "border", "digits", "--quick")
    assert (few["draws"], few) == (64, asked(capsys, "border", "digits", "--draws", "64"))
