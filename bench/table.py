"""Writes the results of `bench/run.py` into docs/speed.md, between <!-- bench:begin --> and <!-- bench:end -->.

    .venv/bin/python bench/table.py [--results bench/out/results.json] [--page docs/speed.md]

Nothing of it is typed by hand. Numbers are those of the largest N; a cell has the three noise levels.
"""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

__all__ = ["tables", "write"]

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
_PLAIN = "plain products"
_LEVELS = ("border/10", "border", "10 border")
_LABELS = {
    "dense": "`dense`",
    "screened": "`screened`, proven",
    "screened, estimated": "`screened`, estimated",
    "keops": "`keops`",
    "cdist": "`torch.cdist`, softmax",
    "LazyTensor": "KeOps `LazyTensor`",
    "smalldiffusion": "smalldiffusion `IdealDenoiser`",
    "deepinv": "deepinv `MMSE`",
}


@dataclass
class Config:
    """What is written where."""

    results: Path = Path(__file__).parent / "out" / "results.json"
    """Results of bench/run.py."""
    page: Path = Path(__file__).parents[1] / "docs" / "speed.md"
    """File with the two marks."""


def main(config: Config) -> None:
    results = json.loads(config.results.read_text())
    if results["methods"]["quick"]:
        raise SystemExit(f"{config.results} is of a --quick run, whose times mean nothing")
    write(config.page, results)


def write(page: Path, results: dict[str, Any]) -> None:
    """Replace what is between the marks.

    Raises:
        ValueError: the file has not each mark once, in order.
    """
    text = page.read_text()
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in tail:
        raise ValueError(f"{page} must hold {BEGIN} and then {END}, once each")
    page.write_text(f"{head}{BEGIN}\n{tables(results)}\n{END}{tail}")


def tables(results: dict[str, Any]) -> str:
    """Times over the plain products for every D, and memory and errors at the largest, in Markdown."""
    found, machine = results["methods"], results["methods"]["machine"]
    n = max(row["n"] for row in found["cells"])
    cells = {(row["method"], row["dim"], row["level"]): row for row in found["cells"] if row["n"] == n}
    dims = sorted({dim for _, dim, _ in cells})
    names = [name for name in _LABELS if any(method == name for method, _, _ in cells)]
    plain = [_number(_median(cells[_PLAIN, dim, "border"])) for dim in dims]
    times = [
        _row(f"time over plain products, N = {n:,}", *(f"D = {dim:,}" for dim in dims)),
        _row("---", *("---" for _ in dims)),
        _row("plain products, seconds", *plain),
        *(_row(_LABELS[name], *(_ratios(cells, name, dim) for dim in dims)) for name in names),
    ]
    dim = dims[-1]
    peaks = {row["method"]: row["peak"] for row in found["memory"] if row["dim"] == dim}
    accuracy = [
        _row(f"D = {dim:,}", "peak memory, GB", *(f"error, σ = {level}" for level in _LEVELS), "largest, any N and D"),
        _row(*("---" for _ in range(6))),
    ]
    for name in (_PLAIN, *names):
        if (name, dim, "border") in cells:
            errors = [cells[name, dim, level]["error"] for level in _LEVELS]
            every = [row["error"] for row in found["cells"] if row["method"] == name and row["error"] is not None]
            peak = "–" if peaks[name] is None else _number(peaks[name] / 1e9)
            accuracy.append(_row(_LABELS.get(name, name), peak, *map(_error, errors), _error(max(every, default=None))))
    widths = [(row["high"] - row["low"]) / 2 / row["ratio"] for row in cells.values() if row["seconds"] is not None]
    about = (
        f"`bench/run.py`, {machine['threads']} threads on {machine['cores']} cores of {machine['processor']}, "
        f"torch {machine['torch']}, {machine['date']}; batch {found['batch']}. In a cell σ is a tenth of the border / "
        f"the border / ten times it. "
        f"Medians of {found['turns']} turns, half their range {statistics.median(widths):.0%} as a rule and "
        f"{max(widths):.0%} at most; **bold** is what `auto` takes; ≈ is judged by a call on fewer points. "
        "Ours give the whole posterior, the others its mean. Peaks include the mapped file, "
        f"{_number(n * dim / 1e9)} GB."
    )
    if absent := sorted({row["method"] for row in found["missing"]} & {"smalldiffusion", "deepinv"}):
        about += f" Not importable here: {', '.join(absent)}."
    if span := results.get("span", {}).get("found"):
        ratio = _number(span["seconds"] / span["plain"])
        about += (
            f"\n\nSampling in the span of the data (`sample_in_span`) takes {ratio} of the time of the same sampler on "
            f"the plain products, with errors up to {_error(span['error'])}."
        )
    return "\n".join([*times, "", *accuracy, "", about])


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _ratios(cells: dict[tuple[str, int, str], dict[str, Any]], name: str, dim: int) -> str:
    if (name, dim, "border") not in cells:
        return "–"
    rows = [cells[name, dim, level] for level in _LEVELS]
    if rows[0]["seconds"] is None:
        return f"≈ {_number(rows[0]['ratio'])}"
    shown = ((row["auto"], _number(row["ratio"])) for row in rows)
    return " / ".join(f"**{number}**" if auto else number for auto, number in shown)


def _median(row: dict[str, Any]) -> float:
    return statistics.median(row["seconds"])


def _number(value: float) -> str:
    """Two digits, or all before the point."""
    digits = max(0, 1 - math.floor(math.log10(value))) if value > 0 else 0
    return f"{value:.{digits}f}"


def _error(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.0e}" if value else "0"


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
