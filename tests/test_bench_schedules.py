"""The table of calls that solvers need: it goes on where it was stopped, and its words say what its rows do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def words() -> ModuleType:
    sys.path.insert(0, str(ROOT / "docs"))
    import needed_words

    return needed_words


def run(out: Path, *given: str) -> list[dict[str, Any]]:
    command = [sys.executable, str(ROOT / "bench" / "schedules.py"), "--data", "digits", "--out", str(out)]
    command += ["--designed", "12", "--judged", "24", "--no-shown", "--minutes", "2", *given]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(out.read_text())["rows"]


@pytest.mark.slow
def test_rows_are_kept_and_the_rest_is_added(tmp_path: Path) -> None:
    grids = ("--grids", "EDM", "Gaussian W2", "path KL", "landings")
    first = run(tmp_path / "rows.json", "--most", "5", "--solvers", "Euler", "--parts", "whole", *grids)
    again = run(tmp_path / "rows.json", "--most", "7", "--solvers", "Euler", "Heun", *grids)
    assert again[: len(first)] == first
    keys = [(row["part"], row["solver"], row["grid"], row["n"]) for row in again]
    assert len(set(keys)) == len(keys)
    for row in again:
        above, a_step = row["part"] == "above", 2 if row["solver"] == "Heun" else 1
        assert row["calls"] == a_step * row["n"] - (a_step - 1) * (not above)
        assert len(row["levels"]) == row["n"] + 1
        assert (row["levels"][-1] > 0) == above
        assert row["low"] <= row["wrong"] / row["of"] <= row["high"]
        assert (row["of"], row["designed"]) == (24, 12)
    assert {(row["solver"], row["calls"]) for row in again if row["part"] == "whole" and row["grid"] == "EDM"} == {
        *(("Euler", calls) for calls in (4, 5, 6, 7)),
        *(("Heun", calls) for calls in (3, 5, 7)),
    }
    assert min(row["wrong"] for row in again) < max(row["wrong"] for row in again)


def rows(shares: dict[int, tuple[float, float, float]]) -> list[dict[str, Any]]:
    what = {"data": "digits", "part": "whole", "solver": "Euler", "grid": "EDM", "of": 1000}
    return [
        what | {"calls": calls, "wrong": round(1000 * share), "low": low, "high": high}
        for calls, (share, low, high) in shares.items()
    ]


def test_calls_are_those_from_which_on_the_share_stays_small(words: ModuleType) -> None:
    found = rows({4: (0.3, 0.2, 0.4), 6: (0.04, 0.03, 0.06), 8: (0.06, 0.045, 0.08), 9: (0.05, 0.03, 0.07)})
    assert words.reached(found) == (9, 6, None)
    assert words.reached([*found, *rows({12: (0.01, 0.0, 0.02)})]) == (9, 6, 12)
    assert words.reached(rows({4: (0.3, 0.2, 0.4)})) == (None, None, None)


def test_words_follow_the_rows(words: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    edm = rows({6: (0.3, 0.2, 0.4), 8: (0.04, 0.03, 0.06), 12: (0.01, 0.0, 0.02)})
    own = [row | {"grid": "landings"} for row in rows({3: (0.3, 0.2, 0.4), 4: (0.04, 0.02, 0.05)})]
    monkeypatch.setattr(words, "_OF", {"digits": "digits"})
    monkeypatch.setattr(words, "_rows", lambda: [*edm, *own])
    text = words.needed({})
    assert "8 [8, 12]" in text
    assert "4 [4, 4]" in text
    assert "| Euler | 8 → 4 (2.0) |" in words.fewer({})
    hopeless = [row | {"grid": "landings"} for row in edm[:1]]
    monkeypatch.setattr(words, "_rows", lambda: [*edm, *own, *[row | {"solver": "Heun"} for row in [*edm, *hopeless]]])
    assert "| Heun | 8 → > 6 |" in words.fewer({})
    monkeypatch.setattr(words, "_rows", lambda: [*edm, *[row | {"grid": "landings"} for row in edm]])
    with pytest.raises(ValueError, match="fewer calls than EDM"):
        words.fewer({})
