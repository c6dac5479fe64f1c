"""Figure 1 is tested on its numbers, not on its pixels."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from drawn import differences, faults
from PIL import Image
from series import shown

from figures import fig1
from figures.__main__ import main
from figures.config import Config
from optimal import karras, load

matplotlib.use("Agg")


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return fig1.compute(Config(dataset="digits", quick=True))


def test_toy_mean_is_eq_43(arrays: dict[str, np.ndarray]) -> None:
    y, x, sigma = arrays["toy_positions"], arrays["toy_x"], arrays["toy_sigmas"]
    logits = -((x[None, :, None] - y) ** 2) / (2 * sigma[:, None, None] ** 2)
    weights = np.exp(logits - logits.max(2, keepdims=True))
    expected = (weights * y).sum(2) / weights.sum(2)
    np.testing.assert_allclose(arrays["toy_mean"], expected, rtol=0, atol=1e-7)
    # Monotone in x at every noise level, steps at low noise, the mean at high noise.
    assert (np.diff(arrays["toy_mean"], axis=1) >= -1e-12).all()
    assert np.ptp(arrays["toy_mean"][-1]) < np.ptp(y) / 5
    assert np.abs(arrays["toy_mean"][0][:, None] - y).min(1).max() < 1


def test_noise_levels_are_the_edm_grid_down_to_a_tenth(arrays: dict[str, np.ndarray]) -> None:
    grid = karras(18).numpy()
    np.testing.assert_array_equal(arrays["sigmas"], grid[grid >= 0.1])
    assert arrays["sigmas"][0] == 80


def test_one_noise_per_source_and_the_source_at_low_noise(arrays: dict[str, np.ndarray]) -> None:
    sigmas, x0 = arrays["sigmas"], arrays["sources"]
    eps = (arrays["noisy"] - x0[:, None]) / sigmas[None, :, None, None, None]
    np.testing.assert_allclose(eps, np.broadcast_to(eps[:, :1], eps.shape), atol=2e-5)
    assert 0.7 < eps[:, 0].std() < 1.3
    np.testing.assert_allclose(arrays["means"][:, -1], x0, atol=1e-5)
    mean = load("digits").points.mean(0).numpy()
    np.testing.assert_allclose(arrays["means"][:, 0], np.broadcast_to(mean, x0.shape), atol=0.1)


def test_border_lies_where_the_median_count_crosses_two(arrays: dict[str, np.ndarray]) -> None:
    sigmas, medians, border = arrays["sigmas"], arrays["counts"][:, 1], float(arrays["border"])
    assert medians[sigmas > 1.3 * border].min() > 2 > medians[sigmas < border / 1.3].max()
    assert arrays["border_low"] <= border <= arrays["border_high"]
    toy = np.interp(float(arrays["toy_border"]), arrays["toy_count_sigmas"], arrays["toy_counts"][:, 1])
    assert toy == pytest.approx(2, rel=0.05)


def test_it_shows_what_is_saved_beside_it(arrays: dict[str, np.ndarray]) -> None:
    """Every array as the curve, band, image or word that it is, once, in the style of its legend; no text cut off."""
    panels, legend, unseen = shown("fig1", arrays)
    assert not unseen
    figure = fig1.draw(arrays)
    assert differences(figure, panels, legend) == []
    assert faults(figure) == []


def test_seed_decides_every_draw(arrays: dict[str, np.ndarray]) -> None:
    again = fig1.compute(Config(dataset="digits", quick=True))
    other = fig1.compute(Config(dataset="digits", quick=True, seed=1))
    for name, array in arrays.items():
        np.testing.assert_array_equal(again[name], array)
    assert not np.array_equal(other["noisy"], arrays["noisy"])


@pytest.mark.slow
def test_four_files_with_numbers_config_and_licence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "folder"
    assert main(["fig1", "--dataset", "faces", "--quick", "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        f"fig1-faces-quick.{kind}" for kind in ("json", "npz", "pdf", "png")
    ]
    record = json.loads((out / "fig1-faces-quick.json").read_text())
    assert record["config"]["dataset"] == "faces"
    assert record["results"]["size"] == 100
    with np.load(out / "fig1-faces-quick.npz", allow_pickle=False) as numbers:
        assert float(numbers["border"]) == record["results"]["border"]
        short = [key for key, value in numbers.items() if 0 < value.size <= 64 and value.dtype.kind == "f"]
        assert short
        for key in short:
            np.testing.assert_allclose(np.asarray(record["results"][key], dtype=float), numbers[key])
    with Image.open(out / "fig1-faces-quick.png") as image:
        assert "lfw_subset" in image.text["Copyright"]  # pyright: ignore[reportAttributeAccessIssue]
        assert len(np.unique(np.asarray(image.convert("L")))) > 50
    assert "faces: N = 100, shape 1×25×25, fingerprint" in capsys.readouterr().out


@pytest.mark.slow
def test_a_folder_and_its_options(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    generator = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(generator.integers(0, 256, (10, 10 + i % 2, 3), dtype=np.uint8)).save(images / f"{i:02}.png")
    arguments = ["fig1", "--dataset", str(images), "--quick", "--out", str(tmp_path / "out")]
    assert main(arguments) == 2
    assert main([*arguments, "--option", "resolution=8", "--option", "n=6"]) == 0
    with np.load(tmp_path / "out" / "fig1-images-resolution-8-n-6-quick.npz") as numbers:
        assert numbers["sources"].shape == (3, 3, 8, 8)
        assert int(numbers["size"]) == 6


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["fig2"], "unknown figure 'fig2'; did you mean 'fig1'?"),
        ([], "name a figure"),
        (["fig1", "--dataset", "digts"], "did you mean 'digits'?"),
        (["fig1", "--dataset", "ring"], "fig1 draws images"),
        (["fig1", "--dataset", "digits", "--option", "n"], "--option must be name=value"),
        (["fig1", "--dataset", "digits", "--option", "size=3"], "no option 'size'"),
        (["fig1", "--dataset", "digits", "--quick", "--out", "/proc/none"], "could not be written"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(error) == 1
    assert sentence in error[0]


def test_list_names_every_figure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    assert "fig1" in capsys.readouterr().out
