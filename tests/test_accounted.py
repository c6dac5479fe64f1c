"""The page of `explain`, and what it and the sentences beside it say of the same draws."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from browser import Browser, browser, missing

import figures.theories
from neural.cli.explaining import _tables
from neural.ended import Endings
from neural.explained import Explained, Held, explain
from neural.report.accounted import _chart, accounted_page
from neural.report.charts import LIGHT
from neural.report.parameters import parameters
from neural.report.styles import STYLES, style_of
from neural.report.tables import number
from neural.theories import EQUIVARIANT, Fitted, families
from neural.verdict import LITTLE, OPTIMUM, nearest_of, needed_to_tell, whole_percent
from optimal import OptimalDenoiser, load, seeking_refining_border
from optimal.denoiser import Denoiser
from optimal.intervals import Interval

DATA = load("digits")
DIGITS = OptimalDenoiser(DATA)
LEVELS = torch.tensor([1e-4, 0.05, 0.37, 2.46, 40.0], dtype=torch.float64)
FITTED: dict[str, Denoiser] = {
    "Gaussian": DIGITS,
    **{
        name: Fitted(DIGITS.tempered, LEVELS, (0.0625, 0.0846, 1, 2, 4096), DIGITS.event, cut=(0.0625, 4096))
        for name in ("smoothed data", "smoothed score", "temperature", "local score", "patch posterior", "PCA-locality")
    },
}
BELOW = {"gap_share": 0.5, "accounted": -0.004}
NAMES = [*STYLES, "a theory that somebody brought"]


def like(name: str, share: float):
    """A denoiser some of the way from the optimum to a constant, each another."""
    lean = 0.3 * torch.randn(DIGITS.event, generator=torch.Generator().manual_seed(len(name)))
    return lambda x, sigma: DIGITS(x, sigma) + share * (lean + x.tanh())


def network(x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
    """Near to some theories at most levels, at the highest to none, at the lowest the optimum."""
    level = float(torch.as_tensor(sigma).flatten()[0])
    aside = like("network", 0.5 if level > 1e-3 else 1e-4)(x, sigma)
    return aside if level < 10 else 2 * DIGITS(x, sigma) - aside


@pytest.fixture(scope="module")
def found() -> Explained:
    theories = {name: like(name, k / 7) for k, name in enumerate(NAMES)}
    return explain(network, DIGITS, theories, sigmas=[1e-4, 0.05, 0.37, 2.46, 40.0], draws=24)


@pytest.fixture(scope="module")
def ends() -> Endings:
    noise = torch.randn(4, len(NAMES) + 2, *DIGITS.event, generator=torch.Generator().manual_seed(0))
    others = {name: noise[:, k] for k, name in enumerate((OPTIMUM, *NAMES))}
    return Endings(noise[:, -1], noise[:, -1] / 2, others, "network", 0.95)


@pytest.fixture(scope="module")
def page(found: Explained, ends: Endings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    border = seeking_refining_border(DIGITS, draws=16)
    path.write_text(accounted_page([found], ends, DATA, border, {"data": FITTED}), encoding="utf-8")
    return path


@pytest.fixture(scope="module", params=[1024, 1440])
def window(request: pytest.FixtureRequest) -> Iterator[Browser]:
    why = missing()
    if why:
        pytest.skip(why)
    with browser(width=request.param) as opened:
        yield opened


def test_every_column_of_every_table_is_seen(window: Browser, page: Path) -> None:
    window.open(page)
    assert not window.complaints()
    wide = "[...document.querySelectorAll('.scroll')].map((part) => part.scrollWidth - part.clientWidth)"
    assert window.run(f"return {wide}") == [0, 0, 0]
    assert window.run("return document.documentElement.scrollWidth <= innerWidth")


def test_theories_have_the_colours_and_lines_of_the_figure(found: Explained) -> None:
    assert figures.theories.STYLES is STYLES
    assert {*families(DIGITS), EQUIVARIANT} == {*STYLES}
    drawn = [style_of(name, NAMES, LIGHT) for name in NAMES]
    assert len({(str(each["color"]), str(each.get("linestyle"))) for each in drawn}) == len(NAMES)
    assert style_of(f"{EQUIVARIANT}, 305 points", NAMES, LIGHT) == STYLES[EQUIVARIANT]
    figure = _chart([found], seeking_refining_border(DIGITS, draws=16), LIGHT)
    lines = {str(line.get_label()): line for line in figure.axes[0].lines}
    for name, style in STYLES.items():
        assert lines[name].get_color() == style["color"]
        assert lines[name].get_linestyle() == style.get("linestyle", "-")


def test_no_number_is_minus_zero(found: Explained, page: Path) -> None:
    assert [number(value) for value in (-0.0, 0.0, -1e-12, -0.5, -1234.5)] == [
        "0",
        "0",
        "−1.0·10<sup>−12</sup>",
        "−0.5",
        "−1230",
    ]
    assert whole_percent(-0.001, 0.003) == "0%"
    nothing = {name: Interval(*(torch.tensor(value) for _ in range(3))) for name, value in BELOW.items()}
    below = Explained(
        tuple(Held(1.0, name, nothing, torch.ones(4)) for name in (OPTIMUM, "one")), "data", 4, 0.9, None, "F"
    )
    printed = "\n".join(_tables([below]))
    for text in (printed, page.read_text(encoding="utf-8"), figures_words()):
        assert not re.search(
            r"(?<![\d.·\w])[-−]0(\.0+)?(?![\d.])", re.sub(r"data:image[^\"]*|<style>.*?</style>", "", text, flags=re.S)
        )


def figures_words() -> str:
    """The pages that are written from numbers."""
    docs = Path(__file__).parents[1] / "docs"
    return "\n".join(
        (docs / name).read_text(encoding="utf-8") for name in ("gallery.md", "which_theory.rst", "findings.rst")
    )


def carried(generator: torch.Generator, n: int = 40, count: int = 5) -> Explained:
    """Squares of heavy tails, of theories that are more or less near."""
    gap = (1.5 * torch.randn(n, generator=generator, dtype=torch.float64)).exp()
    factor = 2 * torch.rand(count, generator=generator, dtype=torch.float64)
    noise = (0.5 * torch.randn(count, n, generator=generator, dtype=torch.float64)).exp()
    shares = {"gap_share": Interval(*(torch.tensor(0.5) for _ in range(3)))}
    held = [Held(1.0, OPTIMUM, shares, gap)]
    held += [Held(1.0, f"theory {k}", shares, factor[k] * noise[k] * gap) for k in range(count)]
    return Explained(tuple(held), "data", n, 0.95, None, "network")


def test_sentence_table_and_intervals_say_one_thing() -> None:
    generator, kinds = torch.Generator().manual_seed(0), set[str]()
    differed = 0
    for _ in range(200):
        found = carried(generator)
        verdict, (sentence,) = found.verdict(1.0), found.sentences()
        kinds.add(verdict.kind)
        low = float(verdict.share.low)
        assert (OPTIMUM in verdict.names) == (low <= 0)
        assert (verdict.kind == "nearest") == (low >= LITTLE)
        assert verdict.words in sentence
        if verdict.kind == "nearest":
            assert f"nearest is {verdict.names[0]}" in sentence
            assert f"({whole_percent(low, float(verdict.share.high))} of the deviation" in sentence
        differed += (OPTIMUM in found.best(1.0)[0]) != (float(found.share_of_nearest(1.0).low) <= 0)
    assert kinds == {"none", "nearest"}
    assert differed, "no case in which the two intervals differ"


def test_the_page_names_no_theory_where_the_sentence_names_none(found: Explained, page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    cells = re.findall(r'<span class="names">(.*?)</span></td>', text)
    for cell, sigma in zip(cells, reversed(found.sigmas), strict=True):
        verdict = found.verdict(sigma)
        first = {"optimum": "the network is the optimum", "none": "none surely"}.get(verdict.kind, verdict.names[0])
        assert cell.partition("<")[0] == first
    assert {found.verdict(sigma).kind for sigma in found.sigmas} == {"nearest", "none", "optimum"}


def test_a_value_at_the_end_of_its_list_is_marked() -> None:
    text = parameters({"data": FITTED, "trajectory": {"Gaussian": DIGITS}})
    rows = re.findall(r"<tr class=\"\">(.*?)</tr>", text)
    cells = [re.findall("<td>(.*?)</td>", row)[1] for row in rows]
    assert cells == ["4096 *", "2", "1", "0.0846", "0.0625 *"]
    assert "* The least or the greatest value that was tried" in text
    assert "Gaussian" not in text
    assert "trajectory" not in text
    whole = Fitted(DIGITS.tempered, LEVELS, (0.0625, 1, 1, 2, 4096), DIGITS.event)
    assert "*" not in parameters({"data": {"temperature": whole}})


def test_few_noises_say_how_many_would_tell() -> None:
    generator = torch.Generator().manual_seed(2)
    network = torch.zeros(6, 1, 4, 4)
    others = {name: torch.randn(6, 1, 4, 4, generator=generator) for name in (OPTIMUM, "one", "two")}
    sentence = Endings(network, network, others, "network", 0.95).sentence()
    assert "6 noises: " in sentence
    assert "ends nearest to it on average" in sentence
    assert re.search(r"; so few tell none of the others from it; (about|more than) [\d,]+ would tell", sentence)
    others = {OPTIMUM: torch.full((6, 1, 4, 4), 3.0), "one": others["one"], "two": others["two"]}
    sentence = Endings(network, network, others, "network", 0.95).sentence()
    assert re.search(r"(one|two) ends nearest to it on average.*; as near as can be told (one|two)$", sentence)


@pytest.mark.parametrize("count", [2, 11])
def test_so_many_draws_do_tell(count: int) -> None:
    spread = torch.tensor([1.0, -1.0], dtype=torch.float64)
    far = 0.25 + spread.repeat(8)
    said = needed_to_tell(torch.zeros_like(far), far, 0.95, count)
    needed = int(said.removeprefix("about ").replace(",", ""))
    for factor, told in ((0.8, False), (1.25, True)):
        n = int(factor * needed / 2)
        misses = {"near": torch.zeros(2 * n, dtype=torch.float64), "far": 0.25 + spread.repeat(n)}
        misses |= {str(k): misses["far"] + 9 for k in range(count - 2)}
        assert (nearest_of(misses, 0.95) == ["near"]) == told
    assert needed_to_tell(far, far, 0.95, count) == "more than 1,600"
