"""The page to explore: its numbers are `optimal`'s, as written, under node, and read in a browser while one drags."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import Browser, browser, missing
from PIL import Image

from figures import explore
from figures.__main__ import main
from figures.config import Config
from neural.model import open_model
from optimal import FlowMap, OptimalDenoiser, certify, guided, load, seeking_refining_border
from optimal.theories import Wiener, local_score

pytestmark = pytest.mark.slow

QUICK = Config(dataset="digits", quick=True)
_REASON = missing()


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return explore.compute(QUICK)


@pytest.fixture(scope="module")
def page(arrays: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return explore.write(Config(out=tmp_path_factory.mktemp("explore") / "new"), arrays)


@pytest.fixture(scope="module")
def window(page: Path) -> Iterator[Browser]:
    if _REASON:
        pytest.skip(_REASON)
    with browser() as opened:
        opened.open(page)
        opened.settle()
        yield opened


def test_arrays_are_the_optimum(arrays: dict[str, np.ndarray]) -> None:
    data = load("digits")
    D = OptimalDenoiser(data)
    x = torch.from_numpy(arrays["noisy"])
    sigmas = torch.from_numpy(arrays["sigmas"])
    assert (sigmas.diff() < 0).all()
    np.testing.assert_array_equal(arrays["sources"], data[arrays["source_index"]].numpy())
    for m in range(len(x)):
        posterior = D.posterior(x[m].double(), sigmas)
        np.testing.assert_allclose(arrays["means"][m], posterior.mean, atol=1e-4)
        np.testing.assert_allclose(arrays["counts"][m], posterior.effective_count, rtol=1e-3)
        np.testing.assert_allclose(arrays["leads"][m], posterior.top_weight, rtol=1e-3)
        landed = arrays["landings"][arrays["landing"][m]]
        np.testing.assert_array_equal(landed, FlowMap(D)(x[m], sigmas).numpy())
        np.testing.assert_array_equal(arrays["hit"][m], (landed == arrays["sources"][m]).all((1, 2, 3)))
        proven = certify(D, x[m].double(), sigmas, torch.from_numpy(arrays["landing_index"][arrays["landing"][m]]))
        assert not (proven.holds & (torch.from_numpy(arrays["captured"][m]) < sigmas)).any()
        label = int(D.labels[int(arrays["source_index"][m])])
        for name, expected in (
            ("guided,\nw = 3", guided(D.given(label), D, 3.0)),
            ("Gaussian\ntheory", Wiener(D)),
            ("local score,\n5×5", local_score(D, 5)),
        ):
            row = arrays["other_names"].tolist().index(name)
            np.testing.assert_allclose(arrays["others"][row, m], expected(x[m], sigmas), atol=1e-4, err_msg=name)
    assert arrays["grid_names"].tolist() == ["EDM", "path KL"]
    assert (np.diff(arrays["grids"]) < 0).all()
    border = float(arrays["border"])
    medians = arrays["quartiles"][:, 1]
    assert medians[sigmas > 1.3 * border].min() > 2 > medians[sigmas < border / 1.3].max()
    toy = seeking_refining_border(OptimalDenoiser(load("five-deltas")))
    assert toy.low / 1.2 < float(arrays["toy_border"]) < toy.high * 1.2


def test_a_network_stands_beside_the_optimum() -> None:
    """That of digits by itself, within its noise levels; another where it is asked for."""
    found = explore.compute(Config(quick=True))
    model = open_model("pretrained:digits")
    row = found["other_names"].tolist().index("network\ndigits")
    assert float(found["sigmas"][0]) <= model.sigma_max
    for k in (0, 6, 12):
        expected = model(torch.from_numpy(found["noisy"][:, k]), float(found["sigmas"][k]))
        np.testing.assert_allclose(found["others"][row, :, k], expected.detach(), atol=1e-5)
    asked = Config(dataset="digits", quick=True, network="pretrained:digits-classes")
    assert "network\ndigits-classes" in explore.compute(asked)["other_names"].tolist()
    with pytest.raises(ValueError, match="faces"):
        explore.compute(Config(dataset="faces", quick=True, network="pretrained:digits"))


def test_a_network_is_for_the_page_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fig1", "--network", "pretrained:digits"]) == 2
    assert "--network is for `explore` alone" in capsys.readouterr().err


def test_the_page_is_one_small_file(page: Path) -> None:
    text = page.read_text()
    assert [path.name for path in page.parent.iterdir()] == ["explore.html"]
    assert page.stat().st_size < 10 * 2**20
    assert not re.search(r"(?i)(src|href|action)\s*=|url\(|@import|\bfetch\(|XMLHttpRequest|https?://", _markup(text))
    assert "default-src 'none'" in text
    assert not re.search(r"/\*(style|script|numbers)\*/", text)
    numbers = _numbers(text)
    assert all(numbers["images"][name].startswith("data:image/png;base64,") for name in ("noisy", "means", "landings"))
    assert numbers["toy"]["points"] == load("five-deltas").points.double().tolist()


def test_the_page_in_docs_is_what_is_written_now() -> None:
    text = (Path(__file__).parents[1] / "docs" / "explore.html").read_text(encoding="utf-8")
    parts = Path(explore.__file__).parent
    for name in ("style.css", "posterior.js", "canvas.js", "line.js", "plane.js", "toy.js", "images.js"):
        assert (parts / name).read_text(encoding="utf-8") in text, name
    numbers = _numbers(text)["images"]
    assert numbers["fingerprint"] == load("digits").fingerprint
    assert [other["name"] for other in numbers["others"]][-1] == "network\ndigits"


def test_own_images_come_first_and_sources_have_their_names(
    arrays: dict[str, np.ndarray], page: Path, tmp_path: Path, window: Browser
) -> None:
    assert arrays["toy_last"]
    assert "toy_last" not in explore.compute(Config(dataset="ring", option=("n=5",), quick=True))
    sections = window.run("return [...document.querySelectorAll('main > section')].map((part) => part.id)")
    assert sections == ["images", "toy"]
    (tmp_path / "pets").mkdir()
    for i, name in enumerate("abc"):
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pets" / f"{name}.png")
    found = explore.compute(Config(dataset=str(tmp_path / "pets"), quick=True))
    assert found["source_names"].tolist() == ["a.png", "b.png", "c.png"]


def test_large_images_are_reduced_for_show(tmp_path: Path) -> None:
    """Incompressible colour images of 100×80, drawn at 64×51."""
    from PIL import Image

    grey = np.random.default_rng(0).integers(0, 256, (12, 100, 80, 3), dtype=np.uint8)
    folder = tmp_path / "<b>images"
    folder.mkdir()
    for i, image in enumerate(grey):
        Image.fromarray(image).save(folder / f"{i}.png")
    out = tmp_path / "page.html"
    assert main(["explore", "--dataset", str(folder), "--out", str(out), "--quick"]) == 0
    assert 7 * 10**5 < out.stat().st_size < 10 * 2**20
    text = out.read_text()
    assert _numbers(text)["images"]["cell"] == [51, 64]
    assert "<b>images" not in text


@pytest.mark.parametrize(
    ("shape", "sentence"), [((9, 3), "has shape"), ((2001, 2), "at most 2,000")], ids=["three values", "too many"]
)
def test_data_that_cannot_be_shown(
    shape: tuple[int, int], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "points.npy", np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32))
    assert main(["explore", "--dataset", str(tmp_path / "points.npy"), "--out", str(tmp_path)]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("name", ["five-deltas", "spiral", "repeated"])
def test_the_script_agrees_with_optimal(name: str) -> None:
    """posterior.js, from σ at which one point is left to blends, against the closed form and the exact flow."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node to run the page's script in")
    repeated = {"positions": (-1.0, -1.0, 0.3, 2.0)}
    data = load("five-deltas", **repeated) if name == "repeated" else load(name)
    D = OptimalDenoiser(data)
    generator = torch.Generator().manual_seed(1)
    sigmas = torch.logspace(-2, 1, 60, dtype=torch.float64)
    x0 = data.points.double()[torch.randint(len(data), (60,), generator=generator)]
    x = x0 + sigmas[:, None] * torch.randn(x0.shape, dtype=torch.float64, generator=generator)
    posterior, landing = D.posterior(x, sigmas), FlowMap(D).land(x, sigmas)
    script = (
        f"const {{ Points }} = require({json.dumps(str(Path(explore.__file__).with_name('posterior.js')))});"
        "const { points, x, sigmas } = JSON.parse(require('fs').readFileSync(0)), p = new Points(points);"
        "console.log(JSON.stringify(x.map((at, i) => ({ ...p.posterior(at, sigmas[i]), "
        "flow: p.flow(at, sigmas[i]), "
        "sure: p.certified(at, sigmas[i], p.posterior(at, sigmas[i]).top) }))));"
    )
    asked = json.dumps({"points": data.points.double().tolist(), "x": x.tolist(), "sigmas": sigmas.tolist()})
    run = subprocess.run([node, "-e", script], input=asked, capture_output=True, text=True, check=True, timeout=60)
    found = json.loads(run.stdout)
    for key, expected in (
        ("mean", posterior.mean),
        ("weights", D.weights(x, sigmas)),
        ("logDensity", posterior.log_density),
        ("entropy", posterior.entropy),
        ("count", posterior.effective_count),
        ("variance", posterior.variance),
        ("topWeight", posterior.top_weight),
    ):
        np.testing.assert_allclose([row[key] for row in found], expected, rtol=1e-9, atol=1e-9, err_msg=key)
    assert [row["flow"]["index"] for row in found] == landing.index.tolist()
    sure = certify(D, x, sigmas)
    assert [row["sure"] for row in found] == sure.holds.tolist()
    assert 5 < int(sure.holds.sum()) < 55
    captured = torch.tensor([row["flow"]["captured"] for row in found], dtype=torch.float64)
    assert torch.equal(captured[sure.holds], sigmas[sure.holds])
    assert (captured >= 0.95 * landing.captured).all()
    there = [next(x for s, *x in row["flow"]["path"] if s == row["flow"]["captured"]) for row in found]
    assert certify(D, torch.tensor(there, dtype=torch.float64), captured, landing.index).holds.all()


def test_sliders_and_numbers(window: Browser) -> None:
    """Keys on the sliders; what is written and what it rounds, against `optimal` at the σ and x that the page names."""
    seen = []
    for keys in ("", "\ue011", "\ue014" * 3, "\ue00f" * 4, "\ue010"):  # none, Home, right, page down, End
        if keys:
            window.keys("#toy-sigma", keys)
            window.keys("#toy-x", "\ue014" * 7)
        seen.append(_agrees(window))
    assert len({sigma for sigma, _ in seen}) >= 4
    assert max(sigma for sigma, _ in seen) == 10
    assert min(sigma for sigma, _ in seen) == pytest.approx(0.05, rel=0.01)
    assert len({x for _, x in seen}) == 5


def test_dragging(window: Browser) -> None:
    width = window.run("return document.querySelector('#toy-main').clientWidth")
    seen = []
    for end in ((-width // 4, -80), (0, 60), (width // 3, 100)):
        window.drag("#toy-main", (10, 10), (0, 0), end)
        seen.append(_agrees(window))
    (first, above), (second, below), (third, lowest) = seen
    assert first > second > third
    assert above > 0 > below > lowest


def test_images_snap_to_levels(window: Browser, arrays: dict[str, np.ndarray]) -> None:
    levels = len(arrays["sigmas"])
    window.keys("#images-sigma", "\ue011")
    for k in (0, 1, levels - 1):
        if k:
            window.keys("#images-sigma", "\ue014" if k == 1 else "\ue010")
        for m in (0, 3):
            window.run("document.querySelectorAll('#images-sources button')[arguments[0]].click()", m)
            window.settle()
            assert window.value("#images-sigma-value") == [arrays["sigmas"][k]]
            assert window.value("#images-count") == pytest.approx([arrays["counts"][m, k]], rel=1e-6)
            assert window.value("#images-median") == pytest.approx([arrays["quartiles"][k, 1]], rel=1e-6)
            assert window.value("#images-landing") == [arrays["landing_index"][arrays["landing"][m, k]]]
            assert window.value("#images-captured") == pytest.approx([arrays["captured"][m, k]])
            assert f"level {k + 1} of {levels}" in window.text("#images-snap")
    # At the lowest σ what is drawn as the guess is the source.
    shown = "return [...document.querySelectorAll('#images-grid canvas')].map((c) => c.toDataURL())"
    pictures = window.run(shown)
    count = len(arrays["sources"])
    assert pictures[2 * count : 3 * count] == pictures[3 * count : 4 * count]
    assert len(pictures) == (4 + len(arrays["other_names"])) * count
    window.drag("#images-curve", (0, 40), (5, 40))
    assert window.text("#images-sigma-value") not in ("80", "0.05")
    assert window.run(shown)[:count] != pictures[:count]


def test_nothing_is_complained_about_nor_cut_off(page: Path, window: Browser) -> None:
    assert window.complaints() == []
    with browser(390, 844, phone=True) as phone:
        phone.open(page)
        phone.settle()
        assert phone.run("return document.documentElement.scrollWidth") == 390
        assert phone.complaints() == []


def test_points_in_the_plane(tmp_path: Path) -> None:
    if _REASON:
        pytest.skip(_REASON)
    path = explore.write(Config(out=tmp_path), explore.compute(Config(dataset="ring", quick=True)))
    D = OptimalDenoiser(load("ring"))
    with browser() as opened:
        opened.open(path)
        opened.drag("#toy-main", (10, 10), (40, -90))
        x = torch.tensor([opened.value("#toy-x1-value") + opened.value("#toy-x2-value")], dtype=torch.float64)
        sigma = opened.value("#toy-sigma-value")[0]
        assert x[0, 1] > x[0, 0] > 0
        np.testing.assert_allclose(opened.value("#toy-mean"), D(x, sigma)[0], atol=1e-6)
        np.testing.assert_allclose(opened.value("#toy-landing"), FlowMap(D)(x, sigma)[0], atol=1e-6)
        assert opened.run("return document.querySelector('#images').hidden")
        assert opened.complaints() == []


def _agrees(window: Browser) -> tuple[float, float]:
    """The σ and x of the page, once all its numbers are found to be those of `optimal` there."""
    D = OptimalDenoiser(load("five-deltas"))
    (sigma,), (x,) = window.value("#toy-sigma-value"), window.value("#toy-x-value")
    at = torch.tensor([[x]], dtype=torch.float64)
    posterior = D.posterior(at, sigma)
    for name, expected in (
        ("mean", posterior.mean),
        ("count", posterior.effective_count),
        ("entropy", posterior.entropy),
        ("density", posterior.log_density),
        ("spread", posterior.variance.sqrt()),
        ("landing", FlowMap(D)(at, sigma)),
    ):
        assert window.value(f"#toy-{name}") == pytest.approx(expected.flatten().tolist(), abs=1e-6), (name, sigma, x)
    written = float(window.text("#toy-mean").replace("−", "-"))
    assert written == pytest.approx(posterior.mean.item(), abs=6e-5)
    weights = window.run("return [...document.querySelectorAll('.weight')].map((d) => Number(d.value))")
    assert weights == pytest.approx(D.weights(at, sigma)[0].tolist(), abs=1e-6)
    return sigma, x


def _markup(text: str) -> str:
    """The page without its numbers and pictures; `image.src = data…` is a data URI."""
    without = re.sub(r'(?s)<script type="application/json".*?</script>', "", text)
    return without.replace("sheets[name].src = pictures[name]", "")


def _numbers(text: str) -> dict:
    found = re.search(r'(?s)<script type="application/json" id="numbers">(.*?)</script>', text)
    assert found
    return json.loads(found[1])
