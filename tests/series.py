"""What each figure has to show of the arrays that are saved beside it: every series as a curve, an image or a word.

Each function takes the arrays of a figure and gives its axes in their order, and the labels of the legend that stands
outside of them. Written from the module texts of the figures; what is drawn on what is not taken from their code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from drawn import Panel, across, straight
from scipy.stats import binomtest

__all__ = ["SERIES", "shown"]

Arrays = Mapping[str, np.ndarray]
Pair = tuple[np.ndarray, np.ndarray]
Shown = tuple[list[Panel], list[str]]
_ABOUT = ("(toy_)?border_draws", r"\d_cut", "dataset", "size", "event", "fingerprint", "source", "licence")


class Asked(dict[str, np.ndarray]):
    """Arrays that remember which of them were asked for."""

    def __init__(self, arrays: Arrays):
        super().__init__(arrays)
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> np.ndarray:
        self.names.add(name)
        return super().__getitem__(name)

    def column(self, i: int) -> Asked:
        """The arrays of the i-th data set, under their own names, remembered here."""
        part = Asked({name[2:]: value for name, value in self.items() if name.startswith(f"{i}_")})
        part.names = _Under(self.names, f"{i}_")
        return part


class _Under(set[str]):
    def __init__(self, names: set[str], prefix: str):
        super().__init__()
        self.all, self.prefix = names, prefix

    def add(self, name: str) -> None:
        self.all.add(self.prefix + name)


def inside(level: Any, sigmas: np.ndarray) -> bool:
    """Whether a mark at this level is within the axis."""
    return float(sigmas.min()) < float(level) < float(sigmas.max())


def fig1(a: Arrays) -> Shown:
    positions, x = a["toy_positions"], a["toy_x"]
    curves = Panel(
        named={f"σ = {s:g}": (x, c) for s, c in zip(a["toy_curve_sigmas"], a["toy_curves"], strict=True)}
        | {"data point": (positions, positions)},
        segments=[[[(-4, y), (4, y)] for y in positions]],
        legend=[*(f"σ = {sigma:g}" for sigma in a["toy_curve_sigmas"]), "data point"],
        words=["noisy point x", "E[x0 | x]"],
    )
    toy, border = a["toy_sigmas"], float(a["toy_border"])
    heat = Panel(
        lines=[(np.full_like(positions, 1.08 * toy[0]), positions), straight(border)],
        meshes=[(toy, x, a["toy_mean"].T, False)],
        words=["mode seeking", "mode refining", f"border, σ = {border:.2f}", "noisy point x"],
    )
    bar = Panel(segments=[[[(0, y), (1, y)] for y in positions]], words=["E[x0 | x]"])
    sets = [
        (a["toy_count_sigmas"], a["toy_counts"], border, "five points"),
        (a["sigmas"], a["counts"], float(a["border"]), f"{a['dataset']} (N = {int(a['size']):,})"),
    ]
    counted = Panel(
        named={name: (s, counts[:, 1]) for s, counts, _, name in sets},
        lines=[*(([at], [2.0]) for _, _, at, _ in sets), across(2.0)],
        bands=[(s, counts[:, 0], counts[:, 2]) for s, counts, _, _ in sets],
        legend=[name for *_, name in sets],
        words=[*(f"σ = {at:.3g}" for _, _, at, _ in sets), "2: border", "effective count, exp(entropy)"],
    )
    sigmas, border = a["sigmas"], float(a["border"])
    before = int((sigmas >= border).sum())
    left = np.arange(len(sigmas)) + 0.35 * (np.arange(len(sigmas)) >= before)
    strip = Panel(words=[str(a["fingerprint"]), str(a["licence"])])
    for row, source in enumerate(a["sources"]):
        for column, sigma in enumerate(sigmas):
            strip.cells.append((left[column], -2.15 * row, a["noisy"][row, column] / np.sqrt(1 + sigma**2)))
            strip.cells.append((left[column], -2.15 * row - 1, a["means"][row, column]))
        strip.cells.append((len(sigmas) + 0.7, -2.15 * row - 0.5, source))
    counts_of = [f"{count:,.0f}" if count >= 100 else f"{count:.3g}" for count in a["counts"][:, 1]]
    strip.placed = [*zip(left + 0.5, counts_of, strict=True), *_headed(left, sigmas)]
    strip.words.append(f"border, σ = {border:.3g} [{float(a['border_low']):.3g}, {float(a['border_high']):.3g}]")
    strip.words += ["noisy x", "source x0", f"{int(a['draws'])} draws", str(a["source"]), str(a["event"])]
    strip.words.append(f"effective count,\nmedian of {int(a['draws'])}")
    end = -2.15 * len(a["sources"]) - 0.1
    strip.lines.append(([-0.8, left[-1] + 1], [end + 0.08] * 2))
    at = left[before] - 0.175
    strip.lines.append(([at, at], [end - 0.35, 0.75]))
    return [curves, heat, counted, bar, strip], []


def _headed(left: np.ndarray, sigmas: np.ndarray) -> list[tuple[float, str]]:
    """A noise level over every column."""
    return [(float(at) + 0.5, f"{sigma:.3g}") for at, sigma in zip(left, sigmas, strict=True)]


_MARKS = {
    "border": "border: median count = 2",
    "collapse": "collapse, measured: mean entropy = 1 nat",
    "collapse_formula": r"$\sigma_C = s/\sqrt{N^{2/d} - 1}$, for Gaussian data of d values, deviation s",
    "speciation": r"$\sigma_S = \sqrt{\Lambda - 1}$, speciation ($\Lambda$: largest variance)",
}


def border(a: Asked) -> Shown:
    columns = [a.column(i) for i in range(len(a["names"]))]
    rows: list[list[Panel]] = [[], [], []]
    curves = {
        "P(leader = source)": "found",
        "MMSE / variance": "mmse",
        "its slope, d/d ln σ": "mmse_slope",
    }
    for c in columns:
        s, counts = c["sigmas"], c["counts"]
        marks = {label: straight(float(c[name])) for name, label in _MARKS.items() if inside(c[name], s)}
        size, interval = f"N = {int(c['size']):,}", f"[{float(c['border_low']):.3g}, {float(c['border_high']):.3g}]"
        counted = Panel(
            named={"median over the data": (s, counts[:, 1])} | marks,
            lines=[across(2.0), *([([float(c["border"])], [2.0])] if inside(c["border"], s) else [])],
            bands=[(s, counts[:, 0], counts[:, 2])],
            words=[str(c["dataset"]), size, f"border σ = {float(c['border']):.3g} {interval}"],
        )
        found = _banded([*curves], [s] * 3, [c[name] for name in curves.values()])
        found.named, found.legend = found.named | marks, []
        changed, captured = np.nan_to_num(c["last_change"], nan=s[0]), c["captured"]
        shares = {
            "last change of leader made": _share(changed, len(changed), s),
            "captured: end is certain": _share(captured, len(captured), s),
        }
        words = [f"{int(c['draws']):,} draws, {len(captured):,} trajectories"]
        bands = [_share_band(levels, len(captured), s) for levels in (changed, captured)]
        last = Panel(named=shares | marks, bands=bands, words=words)
        for row, panel in zip(rows, (counted, found, last), strict=True):
            row.append(panel)
    rows[0][0].words.append("effective count,\nexp(entropy)")
    legends = ["median over the data", "10% to 90%", *curves, *shares, *_MARKS.values()]
    return [panel for row in rows for panel in row], legends


def _share(levels: np.ndarray, size: int, sigmas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What share has happened down to each level."""
    reached = -np.sort(-levels[~np.isnan(levels)])
    count = len(reached)
    return np.array([sigmas[0], *reached, sigmas[-1]]), np.array([0, *range(1, count + 1), count]) / size


def _share_band(levels: np.ndarray, size: int, sigmas: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The 95% intervals of Clopper and Pearson around `_share`, as steps."""
    x, y = _share(levels, size, sigmas)
    low, high = np.transpose([binomtest(round(share * size), size).proportion_ci(method="exact") for share in y])
    return np.repeat(x, 2)[1:], np.repeat(low, 2)[:-1], np.repeat(high, 2)[:-1]


def trajectories(a: Arrays) -> Shown:
    s, paths, points = a["line_sigmas"], a["line_paths"][:, :, 0].T, a["line_points"][:, 0]
    captured = a["line_captured"]
    at = [int(np.abs(np.log(s / level)).argmin()) if level > 0 else None for level in captured]
    known = [(i, j) for i, j in enumerate(at) if j is not None]
    line = Panel(
        lines=[
            *((s, path) for path in paths),
            (np.full_like(points, s[-1]), points),
            straight(a["line_border"].item()),
        ],
        meshes=[(s, a["line_y"], a["line_density"].T, False)],
        points=[([s[j] for _, j in known], [paths[i, j] for i, j in known])],
        words=["border", "x / √(1 + σ²)", "noise level σ, from noise to data →"],
        groups=a["line_index"].tolist(),
    )
    s, paths = a["plane_sigmas"], a["plane_paths"].transpose(1, 2, 0)
    plane = Panel(
        lines=[*((path[0], path[1]) for path in paths), tuple(a["plane_points"].T)],
        words=[f"{len(a['plane_points'])} points\non a ring, {len(paths)} starts"],
        groups=a["plane_index"].tolist(),
        # A start in the plane may be far out.
        inside=0.5,
    )
    for path, level in zip(paths, a["plane_captured"], strict=True):
        if level > 0:
            j = np.abs(np.log(s / level)).argmin()
            plane.points.append((path[0, j : j + 1], path[1, j : j + 1]))
    s = a["sigmas"]
    strip = Panel(placed=_headed(np.arange(len(s)), s), words=[str(a["fingerprint"]), str(a["licence"]), "end"])
    for row, end in enumerate(a["ends"]):
        y = -2.2 * row
        for column in range(len(s)):
            strip.cells.append((column, y, a["noisy"][row, column]))
            strip.cells.append((column, y - 1, a["denoised"][row, column]))
        strip.cells.append((len(s) + 0.5, y - 0.5, end))
        for name in ("captured", "last_change"):
            if inside(a[name][row], s):
                place = _place(a[name][row], s)
                strip.lines.append(([place, place], [y - 2.02, y + 0.02]))
        if inside(a["captured"][row], s):
            strip.words.append(f"captured, σ = {a['captured'][row]:.3g}")
    place = _place(a["border"], s)
    strip.lines.append(([place, place], [-2.2 * len(a["ends"]) + 0.1, 0.06]))
    strip.words += [f"border, σ = {float(a['border']):.3g}", f"{a['dataset']}, N = {int(a['size']):,}, {a['event']}"]
    strip.words.append(str(a["source"]))
    label = "captured: the end is certain from here on.  Grey: density of the noisy data, over its maximum at that σ"
    return [line, plane, strip], [label]


def _place(level: Any, sigmas: np.ndarray) -> float:
    """Where a level lies along columns, even in ln σ between their middles."""
    above = int((sigmas > level).sum()) - 1
    logs = np.log(sigmas[above : above + 2])
    return above + 0.5 + float((logs[0] - np.log(level)) / (logs[0] - logs[1]))


def distilled(a: Arrays) -> Shown:
    s, x, positions = a["toy_sigmas"], a["toy_x"], a["toy_positions"]
    stars, mark = (np.full_like(positions, 1.08 * s[0]), positions), float(a["toy_border"])
    words = [f"border, σ = {mark:.2f}", "noise level σ, from noise to data →"]
    mean = Panel(lines=[stars, straight(mark)], meshes=[(s, x, a["toy_mean"].T, False)], words=words)
    flow = Panel(
        named={"data point": stars},
        lines=[straight(mark), *((s, column) for column in a["toy_borders"].T)],
        meshes=[(s, x, a["toy_flow"].T, True)],
        legend=["data point", "border between basins, exact"],
        words=words,
        inside=0.2,
    )
    bar = Panel(segments=[[[(0, y), (1, y)] for y in positions]], words=["output"])
    s = a["sigmas"]
    before = int((s >= a["border"]).sum())
    left = np.arange(len(s)) + 0.35 * (np.arange(len(s)) >= before)
    strip = Panel(placed=_headed(left, s), words=[str(a["fingerprint"]), str(a["licence"]), "source x0"])
    for row, source in enumerate(a["sources"]):
        y = -3.2 * row
        for column, sigma in enumerate(s):
            noisy = a["noisy"][row, column] / np.sqrt(1 + sigma**2)
            for below, image in enumerate((noisy, a["means"][row, column], a["landings"][row, column])):
                strip.cells.append((left[column], y - below, image))
            colour = "tab:green" if a["hit"][row, column] else "tab:red"
            strip.frames.append((round(left[column] + 0.02, 6), round(y - 2.98, 6), colour))
        strip.cells.append((len(s) + 0.7, y - 1, source))
    at = left[before] - 0.175
    strip.lines.append(([at, at], [-3.2 * len(a["sources"]) + 0.1, 0.3]))
    strip.words += [f"border, σ = {float(a['border']):.3g}", f"{a['dataset']}, N = {int(a['size']):,}, {a['event']}"]
    strip.words += ["noisy x", "E[x0 | x]", "f(x, σ)", str(a["source"])]
    return [mean, flow, bar, strip], []


def prop4(a: Asked) -> Shown:
    columns = [a.column(i) for i in range(len(a["names"]))]
    shares, distances = [], []
    labels = {
        "landing = source": "source",
        "landing = nearest data point = leader": "leader",
        "landing = data point nearest to E[x0 | x]": "nearest_to_mean",
        "leader = source (the best guess)": "leader_is_source",
    }
    for c in columns:
        s, d, size = c["sigmas"], c["distance"], int(c["size"])
        mark = [straight(float(c["border"]))] if inside(c["border"], s) else []
        words = [f"{c['dataset']}\nN = {size:,}", f"border σ = {float(c['border']):.3g}; {int(c['draws']):,} draws"]
        shares.append(_banded([*labels], [s] * len(labels), [c[name] for name in labels.values()]))
        shares[-1].lines, shares[-1].words, shares[-1].legend = [across(1 / size), *mark], words, []
        bands = [(s, d[:, 0], d[:, 2])]
        distances.append(Panel(named={"median": (s, d[:, 1])}, lines=mark, bands=bands, words=["noise level σ →"]))
    distances[0].legend = ["median", "10% to 90%"]
    distances[0].words.append("distance of the landing from E[x0 | x]\n(1: between two points of the data)")
    s, points = a["basin_sigmas"], a["basin_points"]
    unit = np.sqrt(1 + s**2)
    walls = np.column_stack([np.full(len(s), -1e3), a["basin_borders"], np.full(len(s), 1e3)]) / unit[:, None]
    basins = Panel(
        lines=[
            *((s, point / unit) for point in points),
            *(([s[0]], [point / unit[0]]) for point in points),
            *((s, middle / unit) for middle in (points[1:] + points[:-1]) / 2),
            straight(columns[0]["border"].item()),
        ],
        bands=[(s, walls[:, i], walls[:, i + 1]) for i in range(len(points))],
        words=["x / √(1 + σ²)", "border"],
    )
    return [basins, *shares, *distances], [*labels]


def grids(a: Arrays) -> Shown:
    names, n = [str(name) for name in a["solvers"]], a["points"]
    labels = [f"{name}: as n$^{{-{slope:.2f}}}$" for name, slope in zip(names, a["toy_slopes"], strict=True)]
    order = _labelled(labels, [a["toy_steps"]] * len(names), a["toy_errors"])
    order.words.append("largest |error|")
    landed = _banded(names, [n] * len(names), a["other"])
    landed.words += [
        f"{a['dataset']}, N = {int(a['size']):,}",
        f"{int(a['starts'])} starts at σ = {float(a['high']):.3g}",
    ]
    spans = {"all of the grid": 0, "half of it": 1, "a quarter": 2}
    curves = [np.array([a["jump"][j - back, j] for j in range(back, len(n))]) for back in spans.values()]
    jump = _banded([*spans], [n[back:] for back in spans.values()], curves)
    jump.named["one level: the denoiser"] = (n, a["jump"][0, :, 0])
    jump.legend = [*spans, "one level: the denoiser"]
    return [order, landed, jump], []


def _banded(labels: list[str], x: Any, y: Any) -> Panel:
    """A line with its band for each label, and a legend of them; y are values and the ends of their intervals."""
    panel = _labelled(labels, x, [curve[:, 0] for curve in y])
    panel.bands = [(at, curve[:, 1], curve[:, 2]) for at, curve in zip(x, y, strict=True)]
    return panel


def _labelled(labels: list[str], x: Any, y: Any) -> Panel:
    """A line for each label, and a legend of them."""
    return Panel(named=dict(zip(labels, zip(x, y, strict=True), strict=True)), legend=labels)


def steps(a: Arrays) -> Shown:
    names, mark, high = [str(name) for name in a["solvers"]], float(a["border"]), float(a["high"])
    drawn = ["Euler (DDIM)", "Heun (EDM)", "DPM-Solver++ 3M, exact", "reverse SDE"]
    at = [names.index(name) for name in drawn]
    panels, parts = [], ("whole", "above", "below")
    for part, words in zip(parts, (f"{high:.3g} to 0", f"{high:.3g} to {mark:.3g}", f"{mark:.3g} to 0"), strict=True):
        panel = _banded(drawn, a[f"{part}_nfe"][at], a[f"{part}_other"][at])
        panel.lines, panel.legend, panel.words = [across(0.05)], [], [words]
        panels.append(panel)
    beyond = 2 * max(float(a[f"{part}_nfe"].max()) for part in parts)
    needed = Panel(legend=["on the whole range", "above the border: mode seeking", "below the border: mode refining"])
    for i, (part, label) in enumerate(zip(parts, needed.legend, strict=True)):
        value, low, high = np.where(np.isnan(a[f"{part}_needed"]), beyond, a[f"{part}_needed"]).T
        rows = np.arange(len(names)) + 0.22 * (i - 1)
        needed.named[label] = (value, rows)
        needed.segments.append([[(x, y), (z, y)] for x, z, y in zip(low, high, rows, strict=True)])
    needed.lines = [straight(beyond / 1.4)]
    needed.words = [*names, "more", "at most 5%", f"{a['dataset']}, N = {int(a['size']):,}, {a['event']}"]
    needed.words += [f"{int(a['trajectories'])} trajectories", f"{int(a['uncaptured'])} more could not be"]
    return [*panels, needed], drawn


def schedules(a: Arrays) -> Shown:
    names, calls, high = a["grids"].tolist(), a["calls"], float(a["high"])
    kept = [np.isfinite(wrong[:, 0]) for wrong in a["wrong"]]
    left = _banded(
        names, [calls[own] for own in kept], [wrong[own] for wrong, own in zip(a["wrong"], kept, strict=True)]
    )
    left.legend, left.lines = [], [across(0.05)]
    rows = [levels for levels in a["levels"] if np.isfinite(levels).all()]
    right = Panel(lines=[(levels, [row] * len(levels)) for row, levels in enumerate(rows)])
    right.lines += [([high, own[0]], [row, row]) for row, own in enumerate(rows) if own[0] < 0.99 * high]
    right.lines += [(a["sigmas"], -1 - 1.6 * a["entropy"] / a["entropy"][-1]), straight(float(a["border"]))]
    right.words = [f"Levels of the grids of {len(a['levels'][0])} calls", "mean entropy of", "border"]
    right.words += [f"designed on {int(a['designed_on']):,} starts", f"on {int(a['judged_on']):,} others"]
    right.words += [f"({int(a['undecided'])} more could not", f"σ = {high:.3g}"]
    wrong, fine = a["races"][:, 1]
    right.words += [f"What {int(a['raced'])} green", f"by {wrong:.2g} nats", f"by {fine:.2g} elsewhere"]
    low, top = float(a["border_low"]), float(a["border_high"])
    right.frames = [(low, 0.0, "0.85")] if top > low else []
    return [left, right], names


def trained(a: Asked) -> Shown:
    rows: list[list[Panel]] = [[], []]
    places: set[str] = set()
    for i in range(len(a["names"])):
        c = a.column(i)
        s, mark = c["sigmas"], straight(float(c["border"]))
        places |= {str(place) for place in c["places"]}
        high = 3 * max(float(c[f"gap_share_{place}"][:, 0].max()) for place in c["places"]) > 1
        one = [across(1.0)] if high else []
        for row, name, more in zip(rows, ("gap_share", "gap_over_sigma_square"), (one, []), strict=True):
            curves = [c[f"{name}_{place}"] for place in c["places"]]
            row.append(
                Panel(
                    lines=[*((s, curve[:, 0]) for curve in curves), mark, *more],
                    bands=[(s, curve[:, 1], curve[:, 2]) for curve in curves],
                    inside=0.3,
                )
            )
        rows[1][-1].words = [f"{int(c['draws']):,} draws of (x0, ε)\n{int(c['paths']):,} trajectories"]
        rows[0][-1].words = [f"{c['dataset']}, N = {int(c['size']):,}; border σ = {float(c['border']):.3g}"]
        rows[0][-1].words += ["above 1: worse than the mean,\nwhich is nearly right there"] if high else []
    labels = {
        "data": "at noisy data",
        "held-out": "at noisy held-out data",
        "trajectory": "on the network's own trajectory",
    }
    return [*rows[0], *rows[1]], [label for place, label in labels.items() if place in places]


def generalise(a: Asked) -> Shown:
    titles = {"digits": "digits, an MLP", "emoji-16": "emoji at 16×16, a U-Net"}
    rows: list[list[Panel]] = [[], [], [], []]
    legends = [
        ["copies among samples", "among held-out images", "likeness, two networks", "likeness, two optima"],
        ["at noisy training images", "at noisy held-out images"],
        ["between the two networks", "between the two optima"],
    ]
    series = [["memorised", "chance", "alike", "optimum_alike"], ["gap_data", "gap_held"], ["apart", "optimum_apart"]]
    for i, name in enumerate(a["names"].tolist()):
        c = a.column(i)
        n = c["sizes"]
        seen = Panel(words=[titles[name]])
        seen.placed = [(j + 0.5, f"{size:,}") for j, size in enumerate(n.tolist())]
        seen.words += [f"{int(c['steps']):,} steps of {int(c['batch'])}", f"{float(c['sigma']):.3g}"]
        for noise, networks in enumerate(c["pictures"]):
            for network, images in enumerate(networks):
                places = [(j, -(2.4 * noise + network), image) for j, image in enumerate(images)]
                seen.cells += [each for each in places if np.isfinite(each[2]).all()]
        rows[0].append(seen)
        for row, names, labels in zip(rows[1:], series, legends, strict=True):
            row.append(_banded(labels, [n[: len(c[each])] for each in names], [c[each] for each in names]))
            row[-1].legend = []
        rows[1][-1].words.append(f"{int(c['samples'])} noises")
        rows[2][-1].words.append(f"{int(c['draws']):,} draws")
    return [panel for row in rows for panel in row], [label for labels in legends for label in labels]


def theories(a: Asked) -> Shown:
    titles = {
        "digits": "digits, an MLP",
        "faces": "faces, a U-Net",
        "emoji-16": "emoji at 16×16, a U-Net",
        "emoji-16-dit": "emoji at 16×16, a DiT",
    }
    legends = [
        ["Gaussian", "mixture of 10", "mixture of 100", "smoothed data", "smoothed score", "temperature"],
        ["on noisy points of the data", "on the network's own trajectory"],
    ]
    legends[0] += ["local score", "equivariant local score", "patch posterior", "PCA-locality"]
    rows: list[list[Panel]] = [[], [], [], []]
    for i, name in enumerate(a["names"].tolist()):
        c = a.column(i)
        sigmas, border = c["sigmas"], float(c["border"][0])
        names = [each.partition(",")[0] for each in c["theories"].tolist()]
        seen = Panel(words=[titles[name]])
        for row, images in enumerate(c["pictures"]):
            seen.cells += [(noise, -row, image) for noise, image in enumerate(images)]
        seen.words += [each.partition(",")[0] for each in c["sampled"].tolist()]
        seen.words += [f"{value:.2f}" for value in c["ends"][:, 0]]
        rows[0].append(seen)
        drawn = [k for k, each in enumerate(names) if each in legends[0]]
        assert [*names] == ["optimum", *(names[k] for k in drawn)]
        for place in (0, 1):
            told = c["gap_share"][place][:, 0] >= 0.001  # elsewhere there is nothing to account for
            curves = [c["accounted"][place][k][told] for k in drawn]
            panel = _banded([names[k] for k in drawn], [sigmas[told]] * len(drawn), curves)
            panel.legend, panel.inside, panel.lines = [], 0.2, [across(0.0), straight(border)]
            rows[1 + place].append(panel)
        gaps = _banded(legends[1], [sigmas] * 2, list(c["gap_share"]))
        gaps.legend, gaps.lines = [], [straight(border)]
        gaps.words.append(f"{int(c['draws'])}")
        rows[3].append(gaps)
    return [panel for row in rows for panel in row], [label for labels in legends for label in labels]


def students(a: Arrays) -> Shown:
    s, x = a["sigmas"], a["x"]
    walls = [(s, column) for column in a["borders"].T]
    maps = [Panel(lines=walls, meshes=[(s, x, a[name].T, True)], inside=0.2) for name in ("flow", "student")]
    names = [str(name) for name in a["techniques"]]
    jumps = [a[f"jump_{name}"] for name in ("flow", *names)]
    jump = _labelled(["exact", *names], [a["jump_x"]] * len(jumps), jumps)
    jump.inside = 0.9
    jump.words.append("pure noise x, at σ = 80")
    one, levels = Panel(words=list(names)), []
    kinds = (
        ("", "one_same", "five points"),
        ("digits_", "one_same", f"digits, N = {int(a['digits_size']):,}"),
        ("digits_", "one_seen", "digits, pairs seen in training"),
    )
    for place, (prefix, column, label) in enumerate(kinds):
        there = ~np.isnan(a[f"{prefix}{column}"][:, 0])
        if not there.any():
            continue
        share, low, high = a[f"{prefix}{column}"][there].T
        rows = (np.arange(len(names)) + 0.28 * (place - 1))[there]
        one.named[label] = (share, rows)
        one.segments.append([[(p, y), (q, y)] for p, q, y in zip(low, high, rows, strict=True)])
        one.words += [f"{100 * v:.2f}%" if 0.99 < v < 1 else f"{100 * v:.0f}%" for v in share]
        if column == "one_seen":
            continue
        both = ["consistency", "multistep"]
        levels.append(_banded(both, [a[f"{prefix}curve_sigmas"]] * 2, [a[f"{prefix}same_{name}"] for name in both]))
        levels[-1].words.append(f"{int(a[f'{prefix}draws']):,} ")
    one.legend = [*one.named]
    return [*maps, Panel(words=["output: where x ends"]), jump, one, *levels], []


def samples(a: Arrays) -> Shown:
    names = [str(name) for name in a["methods"]]
    panel = Panel(words=["copies", "same\nimage", "one column a noise"])
    kinds = [next((kind for kind in ("optimum", "network") if name.startswith(kind)), "student") for name in names]
    for row, (images, copied) in enumerate(zip(a["samples"], a["memorised"], strict=True)):
        top = -row - 0.35 * sum(kinds[i] != kinds[i + 1] for i in range(row))
        for column, image in enumerate(images):
            panel.cells.append((column, top, image))
            if copied[column]:
                panel.frames.append((round(column + 0.03, 6), round(top - 0.97, 6), "tab:green"))
        panel.placed += [(-0.15, names[row])]
        panel.placed += [(len(images) + 1, f"{100 * a['share'][row, 0]:.0f}%")]
        panel.placed += [(len(images) + 3, f"{100 * a['same'][row, 0]:.0f}%")]
    panel.words += [f"{a['dataset']}, N = {int(a['size']):,}", f"Shares of {int(a['draws'])} noises"]
    return [panel], []


def fewstep(a: Asked) -> Shown:
    panels, names = [], [str(name) for name in a["methods"]]
    for i in range(len(a["names"])):
        c, k = a.column(i), range(len(names))
        for kind in ("same", "wasserstein"):
            x, y = [c[f"{j}_nfe"] for j in k], [c[f"{j}_{kind}"] for j in k]
            panels.append(_banded(names, x, y) if i else _labelled(names, x, y))
            panels[-1].legend = []
            panels[-1].words.append(f"{int(c['draws']):,} noises")
        floor = c["floor"]
        panels[-1].lines.append(across(floor.flat[0]))
        panels[-1].bands += [([0, 1], [floor[1]] * 2, [floor[2]] * 2)] if i else []
        # Far values are said, not shown.
        panels[-1].inside = 0.2
        far = {j: c[f"{j}_wasserstein"].reshape(len(c[f"{j}_nfe"]), -1)[:, 0] for j in k}
        for j in far:
            if far[j].max() > 2 * max(values[0] for values in far.values()):
                calls = int(c[f"{j}_nfe"][far[j].argmax()])
                panels[-1].words.append(f"{names[j]}: {far[j].max():,.0f} at {calls} calls")
    return panels, names


def difficulty(a: Asked) -> Shown:
    students = [str(name) for name in a["learners"][1:]]
    words = {"multistep": "multi-step"}
    sizes, n = a["denoiser_sizes"], {name: a[f"{name}_sizes"] for name in students}
    chance = {"by chance": (sizes, 1 / sizes)}
    steps = {"1 call": "", "3 calls": "_2", "7 calls": "_4", "15 calls": "_8", "35 calls": "_18"}
    sampled = _banded([*steps], [sizes] * 5, [a[f"denoiser_same{each}"] for each in steps.values()])
    curves: dict[str, Pair] = {"denoiser, 35 calls": (sizes, a["denoiser_same_18"])}
    curves |= {words.get(name, name): (n[name], a[f"{name}_same"]) for name in students}
    jumps = _banded([*curves], [x for x, _ in curves.values()], [y for _, y in curves.values()])
    at, low, high = a["law"][2:].tolist()
    fit: dict[str, Pair] = {}
    if np.isfinite(at):
        x = np.geomspace(sizes[0], sizes[-1], 50)
        y = 1 / (1 + np.exp(float(a["law"][1]) * np.log(x) - float(a["law"][0])))
        fit = {f"best: 90% at N = {at:.2g} [{low:.2g}, {high:.2g}]": (x, y)}
    longer: dict[str, Pair] = {}
    for kind, pairs in (("more", "more pairs"), ("longer", "the same pairs"), ("most", "more pairs")):
        at, same = a[f"{kind}_sizes"], a[f"{kind}_same"]
        if len(at):
            longer[f"{int(a[f'{kind}_steps']):,} steps, {pairs}"] = at, same[:, 0]
            jumps.segments.append([[(x, low), (x, high)] for x, (_, low, high) in zip(at, same, strict=True)])
    for panel, more in ((sampled, chance), (jumps, longer | fit)):
        panel.named |= more
        panel.legend = [*panel.named]
    gap = Panel(lines=[(a["gap_sizes"], a["gap"][:, 0])], bands=[(a["gap_sizes"], a["gap"][:, 1], a["gap"][:, 2])])
    own: dict[str, Pair] = {}
    for name in students:
        if f"{name}_pairs" in a:
            own[f"{words.get(name, name)}, pairs seen"] = n[name], a[f"{name}_pairs"]
            own[f"{words.get(name, name)}, fresh noises"] = n[name], a[f"{name}_same"]
    heart = _banded([*own], [x for x, _ in own.values()], [y for _, y in own.values()])
    seconds = zip(map(str, a["learners"]), a["seconds"].tolist(), strict=True)
    said = [f"{words.get(name, name)} {value:.0f}" for name, value in seconds]
    said += [
        f"{int(a['steps']):,} steps of {int(a['batch'])}",
        f"{int(a['samples']):,} fresh",
        f"{int(a['draws']):,} draws",
    ]
    gap.words = ["The denoiser's gap at its border", *said]
    return [sampled, jumps, gap, heart], []


def guidance(a: Arrays) -> Shown:
    points, own = a["toy_points"], a["toy_own"]
    weight, (low, high) = float(a["toy_weight"]), a["toy_interval"]
    titles = ["optimum of the class", f"guided, w = {weight:g}", f"w = {weight:g} for {low:g} < σ ≤ {high:g}"]
    panels = [
        Panel(
            lines=[*(tuple(path.T) for path in paths.transpose(1, 0, 2)), points[~own].T, points[own].T],
            words=[title],
            groups=index.tolist(),
        )
        for title, paths, index in zip(titles, a["toy_paths"], a["toy_index"], strict=True)
    ]
    panels.append(_banded(["the class", "guided", "in an interval"], [a["toy_angles"]] * 3, a["toy_shares"]))
    panels[-1].words.append(f"{int(a['toy_draws']):,} noises")
    names = ["optimum", "optimum_within", "network", "network_within"]
    labels = ["optimum", "optimum, in an interval", "network", "network, in an interval"]
    for column in ("reached", "variation", "away"):
        panels.append(_banded(labels, [a["weights"]] * 4, [a[f"{name}_{column}"] for name in names]))
        panels[-1].legend = []
    panels[4].lines.append(across(float(a["uniform_reached"])))
    panels[4].words.append(f"the {int(a['class_size'])} images of {int(a['label'])}")
    panels[5].bands.append((a["weights"], *([end] * len(a["weights"]) for end in a["uniform"][1:])))
    low, high = a["interval"]
    panels[6].words.append(
        f"{int(a['draws']):,} noises, 24 steps of Heun's method from σ = 80; in an interval is {low:g}"
    )
    seen = Panel(words=[f"w = {shown:g}" for shown in a["shown"]])
    for block, rows in enumerate(a["pictures"]):
        for row, images in enumerate(rows):
            seen.cells += [(block * 8.6 + column, -row, image) for column, image in enumerate(images)]
    return [*panels, seen], labels


def measurements(a: Arrays) -> Shown:
    names, solvers = [str(name) for name in a["names"]], ["DPS", "ΠGDM", "DiffPIR"]
    strip = Panel(words=["y", "most probable images given y", *solvers])
    left = [7.0, 11.4, 15.8]
    for i in range(len(names)):
        top, seen = -1.35 * i, a[f"{i}_seen"]
        pink = np.array([1.0, 0.5, 0.5])[:, None, None]
        strip.cells.append((0, top, np.where(np.isnan(seen), pink, seen)))
        for j, (image, chance) in enumerate(zip(a[f"{i}_likely"], a[f"{i}_chances"], strict=True)):
            strip.cells.append((1.5 + j, top, image))
            strip.placed.append((2 + j, f"{100 * chance:.0f}%"))
        for at, images, kept in zip(left, a[f"{i}_ends"], a[f"{i}_possible"], strict=True):
            for j, (image, known) in enumerate(zip(images, kept.tolist(), strict=True)):
                strip.cells.append((at + j, top, image))
                colour = "tab:green" if known else "tab:red"
                strip.frames.append((round(at + j + 0.02, 6), round(top - 0.98, 6), colour))
        strip.words += names[i].replace(": ", ":|").replace(" of ", "|of ").split("|")
    ways = ["exact E[x0 | x, y]", *solvers]
    panels = [strip]
    for column in ("variation", "excluded"):
        for i, name in enumerate(names):
            curves = [a[f"{i}_{way}_{column}"] for way in ("exact", "dps", "pigdm", "diffpir")]
            panels.append(_banded(ways, [a["steps"]] * 4, curves))
            panels[-1].legend = []
            if column == "variation":
                panels[-1].bands.append((a["steps"], *([end] * len(a["steps"]) for end in a[f"{i}_counting"][1:])))
                panels[-1].words.append(name)
    none = max(a[f"{i}_{way}_none"][:, 0].max() for i in range(4) for way in ("exact", "dps", "pigdm", "diffpir"))
    strip.words += [
        f"deviation {a['noises'][0]:g} (rows) and {a['noises'][1]:g} (means)",
        f"{int(a['0_draws'])} noises each",
        f"{int(a['3_draws'])} of the {int(a['1_size']):,} emoji",
        "all ends are images" if none == 0 else f"up to {100 * none:.0f}% are no image",
    ]
    assert [int(a[f"{i}_draws"]) for i in range(4)] == [int(a["0_draws"])] * 2 + [int(a["3_draws"])] * 2
    strip.words += [", ".join(f"{value:.0f}" for value in a[f"{i}_effective"]) for i in range(4)]
    return panels, ways


SERIES: dict[str, Callable[[Any], Shown]] = {
    "fig1": fig1,
    "border": border,
    "trajectories": trajectories,
    "steps": steps,
    "schedules": schedules,
    "distilled": distilled,
    "prop4": prop4,
    "grids": grids,
    "trained": trained,
    "generalise": generalise,
    "students": students,
    "difficulty": difficulty,
    "samples": samples,
    "fewstep": fewstep,
    "guidance": guidance,
    "measurements": measurements,
    "theories": theories,
}

UNSEEN = {
    "difficulty": r"best|denoiser_law|(more|longer|most)_pairs",
    "fig1": r"toy_border_(low|high)",
    "steps": r"steps|(whole|above|below)_distance|border_(low|high)",
    "grids": r"distance",
    "trained": r"\d_steps",
    "guidance": r"toy_sigmas",
    "theories": r"\d_(nearest|noises|border)",
    "fewstep": r"\d_(methods|\d+_(memorised|distance))",
}
"""What is saved and not drawn, besides what says which data they are."""


def shown(name: str, arrays: Arrays) -> tuple[list[Panel], list[str], set[str]]:
    """The axes and the legend of a figure, and which of its arrays are seen in neither."""
    asked = Asked(arrays)
    panels, legend = SERIES[name](asked)
    about = re.compile(rf"(\d_)?({'|'.join(_ABOUT)})|{UNSEEN.get(name, '')}")
    return panels, legend, {key for key in set(arrays) - asked.names if not about.fullmatch(key)}
