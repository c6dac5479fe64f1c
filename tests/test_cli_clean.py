"""A clean picture that is taken for a noisy one is noticed, and a noisy one is not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from optimal import load
from optimal.__main__ import main
from optimal.datasets import to_uint8


def answered(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[dict[str, object], str]:
    assert main([*words, "--json"]) == 0
    out, err = capfd.readouterr()
    return json.loads(out), err


@pytest.mark.parametrize("command", ["denoise", "where"])
def test_a_clean_picture_is_noticed(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    clean, said = answered(capfd, command, "digits", "@8", "--sigma", "1")
    assert "a clean picture? --add-noise adds the noise" in said
    assert clean["nearest_distance"] == 0
    assert clean["noise_distance"] == 8.0
    for seed in range(20):
        noisy, said = answered(capfd, command, "digits", "@8", "--sigma", "1", "--add-noise", "--seed", str(seed))
        assert "nearest point" not in said
        assert 4 < float(str(noisy["nearest_distance"])) < 12


def test_noise_that_eight_bits_cut_off_is_not_taken_for_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    noisy = load("faces", progress=False)[8] + 3 * torch.randn((1, 25, 25), generator=torch.Generator().manual_seed(0))
    Image.fromarray(to_uint8(noisy)[0].numpy()).save("cut.png")
    _, said = answered(capfd, "denoise", "faces", "cut.png", "--sigma", "3")
    assert "cut off at 8 bits" in said
    assert "clean" not in said


def test_another_unit_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).standard_normal((1, 8, 8))
    np.save("x.npy", (load("digits", progress=False)[8].numpy() + noise).astype(np.float32))
    _, said = answered(capfd, "denoise", "digits", "x.npy", "--sigma", "0.0078")
    assert "is sigma in units of the data?" in said
    assert "as sigma = 0.9" in said or "as sigma = 1" in said


@pytest.mark.parametrize("sigma", ["0.01", "0.3", "2", "30", "3000"])
def test_noise_of_any_level_is_not(
    sigma: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also where the nearest of many points is not the source."""
    monkeypatch.chdir(tmp_path)
    for data in ("digits", "ring", "five-deltas"):
        for seed in range(4):
            words = ("denoise", data, "@3", "--sigma", sigma, "--add-noise", "--seed", str(seed))
            assert "nearest point" not in answered(capfd, *words)[1]
