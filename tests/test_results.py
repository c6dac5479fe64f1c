"""The numbers of the README and of the pages in docs are those of the figures that were drawn last."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from neural.studies.grids import network_grids

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def results() -> ModuleType:
    """docs/results.py, which is in no package, beside the files with its words."""
    sys.path.insert(0, str(DOCS))
    spec = importlib.util.spec_from_file_location("docs_results", DOCS / "results.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_words_are_those_of_the_arrays(results: ModuleType) -> None:
    arrays = results.kept()
    for path in results.FILES:
        text = path.read_text()
        assert results.filled(text, arrays) == text, f"{path.name}: call docs/results.py"


def test_every_block_has_one_place(results: ModuleType) -> None:
    text = "".join(path.read_text() for path in results.FILES)
    places = re.findall(r"^(?:<!--|\.\.) (\w+):begin", text, re.MULTILINE)
    assert sorted(places) == sorted(results.BLOCKS)


def test_other_arrays_say_something_else(results: ModuleType) -> None:
    """No block is a text of its own: each says something else of other arrays of its figure."""
    arrays = results.kept()
    known = {name.partition("/")[0] for name in arrays} | {"gallery"}
    other = {
        name: 0.7 * value + 0.01 if value.dtype.kind == "f" and "sigmas" not in name and "slopes" not in name else value
        for name, value in arrays.items()
    }
    # Hits are yes and no.
    other |= {
        name: np.zeros_like(value) + (np.arange(value.shape[-1]) > 9) for name, value in arrays.items() if "hit" in name
    }
    for name, block in results.BLOCKS.items():
        if results.OF.get(name, name) in known and results.OF.get(name, name) != "gallery":
            assert block(arrays) != block(other), name


@pytest.mark.parametrize(
    ("block", "array"),
    [
        ("generalise", "generalise/0_alike"),
        ("steps", "steps/above_needed"),
        ("trained", "trained/1_gap_share_held-out"),
        ("difficulty", "difficulty/denoiser_same_18"),
        ("unheld", "theories/1_accounted"),
    ],
)
def test_a_sentence_that_the_numbers_do_not_bear_is_not_written(results: ModuleType, block: str, array: str) -> None:
    arrays = results.kept()
    wrong = 2.0 + 0 * arrays[array] if block == "difficulty" else 0 * arrays[array]
    with pytest.raises(ValueError, match="write another sentence"):
        results.BLOCKS[block](arrays | {array: wrong})


def test_the_words_on_designed_grids_are_held_to_their_table(
    results: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, arrays = sys.modules["grids_words"], network_grids()
    grids = arrays["digits_grids"].tolist()
    monkeypatch.setattr(words, "network_grids", lambda: arrays)
    text = results.BLOCKS["designed"]({})
    arrays["digits_flow"] = np.array([0.123, 0.111, 0.135])
    assert "12.3% [11.1, 13.5]" not in text
    assert "12.3% [11.1, 13.5]" in results.BLOCKS["designed"]({})
    shares = arrays["digits_own_same"]
    kept = shares.copy()
    shares[:, :, grids.index("landings")] = shares[:, :, grids.index("karras")]
    for block in ("designed", "helped"):
        with pytest.raises(ValueError, match="landings beat EDM's grid"):
            results.BLOCKS[block]({})
    shares[:] = kept
    arrays["digits_own_same_less_karras-tuned"][:, :, grids.index("landings")] = -0.1
    with pytest.raises(ValueError, match="nowhere worse than EDM's tuned"):
        results.BLOCKS["designed"]({})
