"""Numbers of the README and of the pages in docs, written from figures/out/*.npz.

A block between `<!-- NAME:begin -->` and `<!-- NAME:end -->`, on a page `.. NAME:begin` and `.. NAME:end`, is
what the function NAME here says of the arrays of figures. The arrays that were asked for are kept in docs/results.npz,
so that tests find the same words again.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
from findings_words import apart, borders, easier, levels, marks, once, shares
from gallery_words import (
    border,
    difficulty,
    distilled,
    fewstep,
    fig1,
    gallery,
    generalise,
    grids,
    guidance,
    measurements,
    prop4,
    samples,
    steps,
    students,
    trained,
    trajectories,
)
from grids_words import designed, helped
from needed_words import fewer, needed
from schedule_words import schedules, thesis
from shelf_words import shelf
from theory_words import accounted, theories, unheld, verdict
from wording import Arrays

from figures.gallery import FIGURES

__all__ = ["BLOCKS", "FILES", "KEPT", "OF", "filled", "kept"]

DOCS = Path(__file__).parent
FILES = (DOCS.parent / "README.md", DOCS / "gallery.md", DOCS / "findings.rst", DOCS / "which_theory.rst")
KEPT = DOCS / "results.npz"


class Asked(dict[str, np.ndarray]):
    """Arrays "FIGURE/NAME" that remember which of them were asked for."""

    def __init__(self, arrays: Arrays):
        super().__init__(arrays)
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> np.ndarray:
        self.names.add(name)
        return super().__getitem__(name)


BLOCKS: dict[str, Callable[[Arrays], str]] = {
    block.__name__: block
    for block in (
        *(
            fig1,
            border,
            trajectories,
            steps,
            schedules,
            distilled,
            prop4,
            grids,
            trained,
            generalise,
            students,
            difficulty,
        ),
        *(samples, fewstep, guidance, measurements, theories, accounted, unheld, shelf),
        *(gallery, borders, marks, apart, shares, levels, easier, once, designed, helped),
        *(needed, fewer, thesis, verdict),
    )
}


def _wrapped(text: str) -> str:
    """Paragraphs in lines of 120; tables as they are."""
    kept = ("|", "- ", "..", "   ")
    parts = (
        part if part.startswith(kept) else textwrap.fill(part, 120, break_on_hyphens=False)
        for part in text.split("\n\n")
    )
    return "\n\n".join(parts)


OF = {
    "borders": "border",
    "marks": "border",
    "apart": "prop4",
    "shares": "trained",
    "levels": "students",
    "easier": "difficulty",
    "once": "fewstep",
    "accounted": "theories",
    "unheld": "theories",
    "verdict": "theories",
    "shelf": "gallery",
    "designed": "gallery",
    "helped": "gallery",
    "needed": "gallery",
    "fewer": "gallery",
    "thesis": "schedules",
}
"""The figure of a block that has not its name."""


def filled(text: str, arrays: Arrays) -> str:
    """A file with every block in it written anew whose figure is among the arrays."""
    known = {name.partition("/")[0] for name in arrays} | {"gallery"}
    for name, block in BLOCKS.items():
        for begin, end in ((f"<!-- {name}:begin -->", f"<!-- {name}:end -->"), (f".. {name}:begin", f".. {name}:end")):
            if begin in text and OF.get(name, name) in known:
                words = _wrapped(block(arrays))
                pattern = f"{re.escape(begin)}\n.*?{re.escape(end)}"
                text = re.sub(pattern, lambda _, w=words, b=begin, e=end: f"{b}\n\n{w}\n\n{e}", text, flags=re.DOTALL)
    return text


def kept() -> dict[str, np.ndarray]:
    """The arrays from which the words were written."""
    with np.load(KEPT) as file:
        return dict(file)


def main() -> None:
    """Write the words from figures/out, of a figure that is not there from what was kept; keep what they tell."""
    arrays = kept() if KEPT.exists() else {}
    for name in FIGURES:
        path = Path("figures/out") / f"{name}.npz"
        if path.exists():
            arrays = {key: value for key, value in arrays.items() if not key.startswith(f"{name}/")}
            with np.load(path) as file:
                arrays |= {f"{name}/{key}": file[key] for key in file.files}
    asked = Asked(arrays)
    for path in FILES:
        path.write_text(filled(path.read_text(), asked))
    np.savez_compressed(KEPT, allow_pickle=False, **{name: arrays[name] for name in sorted(asked.names)})


if __name__ == "__main__":
    main()
