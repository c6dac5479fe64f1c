"""Densities of networks beside the optimum's: in batches, and from the command line."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from neural.__main__ import main
from neural.densities import densities, planned
from neural.likelihood import log_density
from neural.model import open_model
from optimal import Dataset, OptimalDenoiser, load

DIGITS = load("digits")
D = OptimalDenoiser(DIGITS.points[:500])


@pytest.mark.slow
def test_a_batch_changes_a_row_by_no_more_than_the_tolerance() -> None:
    x = D.take(torch.arange(4)) + 0.5 * torch.randn(4, *D.event, generator=torch.Generator().manual_seed(0))
    whole = log_density(open_model(D), x, D, sigma_min=0.5, probes=2)
    asked: list[int] = []

    def network(z: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        asked.append(len(z))
        return D(z, sigma)

    parts = log_density(open_model(network, batch=3), x, D, sigma_min=0.5, probes=2)
    assert set(asked) == {3, 1}
    torch.testing.assert_close(parts.nats, whole.nats, rtol=0, atol=0.05)
    torch.testing.assert_close(parts.error, whole.error, rtol=0, atol=0.05)
    torch.testing.assert_close(parts.exact, whole.exact)
    assert parts.nats.shape == (4,)


def test_labels_go_with_their_rows_into_a_batch() -> None:
    """Of N(label, 1), three rows asked two at a time."""

    def network(x: torch.Tensor, sigma: torch.Tensor, class_labels: torch.Tensor) -> torch.Tensor:
        mean, square = class_labels.to(x).view(-1, 1), sigma.view(-1, 1).to(x) ** 2
        return (x + square * mean) / (1 + square)

    labels = torch.tensor([0, 3, 5])
    model = open_model(network, batch=2, labels=labels)
    x = labels.double().view(3, 1)
    found = log_density(model, x, sigma_min=0.1, sigma_max=1000.0, probes="exact")
    known = torch.distributions.Normal(0.0, (1 + 0.01) ** 0.5).log_prob(torch.zeros(3).double())
    torch.testing.assert_close(found.nats, known, rtol=0, atol=1e-3)


def test_the_optimum_misses_nothing() -> None:
    five = OptimalDenoiser(load("five-deltas"))
    (found,) = densities(open_model(five), five, n=20, sigma_min=0.3, probes="exact")
    summary = found.summary()
    assert abs(summary["missing_nats"]) < 0.02
    (other,) = densities(open_model(lambda x, s: five(x, 2 * s)), five, n=64, sigma_min=0.3, probes="exact")
    assert other.summary()["missing_nats_low"] > 0.01
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        densities(open_model(five), five, n=0)


@pytest.mark.slow
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "train.npy", DIGITS.array[:500, 0])
    np.save(tmp_path / "held.npy", DIGITS.array[500:, 0])
    words = f"likelihood optimum --dataset {tmp_path}/train.npy --held-out {tmp_path}/held.npy -n 5 --sigma-min 0.5"
    words += f" --tolerance 1e-4 --batch 2 --out {tmp_path}/found"
    assert main([*words.split(), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert re.search(
        r"optimum at sigma = 0.5, 5 points each of the data and of the held-out ones; about \d+ m?s; nothing was", said
    )
    assert main([*words.split(), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [each["on"] for each in said["summary"]] == ["data", "held-out"]
    assert said["sentences"][0].startswith("data: ")
    for sentence, summary in zip(said["sentences"], said["summary"], strict=True):
        more = -summary["missing_nats"]
        by = f"{abs(more):.4g} ["
        assert by in sentence
        assert sentence.endswith(f" nats a point {'more' if more > 0 else 'less'} than the optimum")
    with open(tmp_path / "found.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10
    mean = sum(float(row["nats"]) for row in rows[:5]) / 5
    assert mean == pytest.approx(said["summary"][0]["nats"])
    assert rows[0]["trace_error"] == ""
    assert float(rows[0]["exact_nats"]) == pytest.approx(float(rows[0]["nats"]), abs=15)
    assert main([*words.split(), "--probes", "4", "--sigma-max", "1"]) == 0
    with open(tmp_path / "found.csv", newline="") as file:
        errors = [float(row["trace_error"]) for row in csv.DictReader(file)]
    assert min(errors) >= 0
    assert max(errors) > 0
    assert main(words.replace("-n 5", "-n 0").split()) == 2
    assert "n must be at least 1, got 0" in capsys.readouterr().err


def test_words_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["likelihood", "--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "{None}" not in text
    assert "--n INT Number of points, of the data and of --held-out each" in text
    assert "Number of samples" not in text


def test_more_than_the_optimum_reads_as_it_is() -> None:
    """Held-out points are likelier to a broad network than to the optimum of other points."""
    six = OptimalDenoiser(torch.arange(6.0).view(6, 1))
    broad = open_model(lambda x, s: 2.5 + (x - 2.5) * 4 / (4 + torch.as_tensor(s).view(-1, 1) ** 2), name="broad")
    apart = torch.arange(5.0).view(5, 1) + 0.5
    held_out = Dataset("between", apart.numpy(), None, "", "")
    data, other = densities(broad, six, held_out=held_out, n=32, sigma_min=0.1, probes="exact")
    for found, word in ((data, "less"), (other, "more")):
        by = abs(float((found.found.nats - found.found.exact).mean()))
        assert f"; {by:.4g} [" in found.sentence()
        assert found.sentence().endswith(f"nats a point {word} than the optimum")


@pytest.mark.parametrize(("tolerance", "probes"), [(1e-3, 1), (1e-5, 4), (1e-4, "exact")])
def test_the_time_is_said_within_a_factor_of_three(tolerance: float, probes: Any, monkeypatch: Any) -> None:
    """Of evaluations, each with its derivatives, in calls of the network."""
    five = OptimalDenoiser(load("five-deltas"))
    monkeypatch.setattr("neural.densities.seconds_of_a_row", lambda call, x, sigma: 1.0)
    said = planned(open_model(five), five, n=8, places=2, tolerance=tolerance, probes=probes)
    (found,) = densities(open_model(five), five, n=8, tolerance=tolerance, probes=probes)
    calls = 2.5 if probes in (1, "exact") else 6
    assert 1 / 3 < said / (2 * 8 * found.found.nfe * calls) < 3
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        planned(open_model(five), five, n=0)
