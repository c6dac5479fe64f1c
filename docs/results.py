"""Numbers of the README and of docs/findings.rst, written from figures/out/*.npz.

A block between `<!-- NAME:begin -->` and `<!-- NAME:end -->`, in findings.rst `.. NAME:begin` and `.. NAME:end`, is
what the function NAME here says of the arrays of figures. The arrays that were asked for are kept in docs/results.npz,
so that tests find the same words again.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from figures.gallery import FIGURES

__all__ = ["BLOCKS", "FILES", "KEPT", "OF", "filled", "kept"]

DOCS = Path(__file__).parent
FILES = (DOCS.parent / "README.md", DOCS / "findings.rst")
KEPT = DOCS / "results.npz"
_NAMES = ("five points", "digits", "faces", "emoji")

Arrays = Mapping[str, np.ndarray]


class Asked(dict[str, np.ndarray]):
    """Arrays "FIGURE/NAME" that remember which of them were asked for."""

    def __init__(self, arrays: Arrays):
        super().__init__(arrays)
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> np.ndarray:
        self.names.add(name)
        return super().__getitem__(name)


def _interval(values: np.ndarray, form: Callable[[float], str]) -> str:
    value, low, high = (form(float(part)) for part in values)
    return f"{value} [{low}, {high}]"


def _sigma(value: float) -> str:
    """Three digits: 0.500, 12.6, 80.0."""
    return f"{value:#.3g}".rstrip(".")


def _percent(value: float) -> str:
    """Two digits, and more near 100: 0.063%, 3.8%, 91%, 99.4%."""
    share = 100 * value
    if 99 < share < 100:
        return f"{share:.1f}%"
    return f"{share:.0f}%" if share >= 9.95 or share == 0 else f"{share:.2g}%"


def _share(values: np.ndarray) -> str:
    """In percent, to a tenth of the interval's width: 34% [30, 38], 99.4% [99.1, 99.6]."""
    width = 100 * float(values[2] - values[1])
    digits = int(np.clip(1 - np.floor(np.log10(width)), 0, 4)) if width > 0 else 0
    value, low, high = (f"{100 * float(part):.{digits}f}" for part in values)
    return f"{value}% [{low}, {high}]"


def _spaced(values: Sequence[str]) -> str:
    return " and ".join([", ".join(values[:-1]), values[-1]] if len(values) > 1 else values)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _at(sigmas: np.ndarray, values: np.ndarray, level: float) -> np.ndarray:
    """Values (S, …) at a level between the levels (S,), even in ln σ."""
    order = np.argsort(sigmas)
    columns = values.reshape(len(sigmas), -1)[order].T
    return np.array([np.interp(np.log(level), np.log(sigmas[order]), column) for column in columns])


def _borders(a: Arrays, i: int) -> np.ndarray:
    return np.array([a[f"border/{i}_border{end}"] for end in ("", "_low", "_high")])


def fig1(a: Arrays) -> str:
    toy, data = (np.array([a[f"fig1/{part}border{end}"] for end in ("", "_low", "_high")]) for part in ("toy_", ""))
    return (
        f"The border lies at σ = {_interval(toy, _sigma)} for the five points and at {_interval(data, _sigma)} for "
        f"the {int(a['fig1/size']):,} emoji. Brackets are 95% bootstrap intervals, from 4,000 draws of (x0, ε) on "
        f"small data and {int(a['fig1/draws'])} on emoji."
    )


def _marks(a: Arrays, i: int) -> list[float]:
    """Border, collapse, median capture."""
    captured = np.nan_to_num(a[f"border/{i}_captured"], nan=0.0)
    return [float(a[f"border/{i}_border"]), float(a[f"border/{i}_collapse"]), float(np.median(captured))]


def border(a: Arrays) -> str:
    order = (1, 2, 3, 0)
    marks = np.array([_marks(a, i) for i in order])
    found = [_at(a[f"border/{i}_sigmas"], a[f"border/{i}_found"], _marks(a, i)[0]) for i in order]
    labels = (
        "median effective count 2, the border",
        "mean entropy 1 nat, the collapse of Biroli et al. 2024",
        "median capture",
    )
    rows = [[label, *map(_sigma, column)] for label, column in zip(labels, marks.T, strict=True)]
    rows.append(["P(leader = source) at the border", *(f"{value[0]:.2f}" for value in found)])
    apart = (marks[:3].max(1) / marks[:3].min(1)).max() - 1
    return (
        f"On images the three definitions of the border differ by {100 * apart:.0f}% at most; on five points on the "
        "line "
        "nothing is sharp.\n\n" + _table(["σ of", *(_NAMES[i] for i in order)], rows)
    )


def trajectories(a: Arrays) -> str:
    levels = [_sigma(float(level)) for level in a["trajectories/captured"]]
    return (
        "The exact flow on five points, on a ring and on emoji: D blends, then one image remains. The end of the four "
        f"emoji is certain at σ = {_spaced(levels)}; the border lies at {_sigma(float(a['trajectories/border']))}."
    )


_SOLVERS = {
    "Euler": "Euler (DDIM)",
    "Heun": "Heun (EDM)",
    "DPM-Solver-2": "DPM-Solver-2",
    "DPM-Solver-3": "DPM-Solver-3",
    "++ 2M": "DPM-Solver++ 2M",
    "++ 3M": "DPM-Solver++ 3M, exact",
}


def _calls(needed: np.ndarray) -> str:
    return f"{np.nanmin(needed):.0f} to {np.nanmax(needed):.0f}"


def steps(a: Arrays) -> str:
    at = [a["steps/solvers"].tolist().index(name) for name in _SOLVERS.values()]
    needed = {part: a[f"steps/{part}_needed"][at] for part in ("whole", "above", "below")}

    def calls(row: np.ndarray) -> str:
        value, low, high = ("–" if np.isnan(part) else f"{part:.0f}" for part in row)
        return f"{value} [{low}, {high}]"

    labels = ("on the whole range", "above the border (exact flow below)", "below the border (exact flow above)")
    rows = [[label, *map(calls, part)] for label, part in zip(labels, needed.values(), strict=True)]
    one = [a[f"steps/{part}_other"][at[0], 0] for part in ("below", "above")]
    below, above = (_share(1 - share[[0, 2, 1]]) for share in one)
    least, most = (_calls(needed[part][:, 0]) for part in ("below", "above"))
    slow = [name for name, value in zip(_SOLVERS, needed["above"][:, 0], strict=True) if np.isnan(value)]
    more = f" ({_spaced(slow)}: more than {int(a['steps/steps'][-1])})" if slow else ""
    return (
        f"For at most 5% to end on another image it takes, on digits ({int(a['steps/trajectories'])} trajectories; in "
        f"brackets by the ends of the 95% interval of the share, – more than {int(a['steps/steps'][-1])} steps):\n\n"
        + _table(["calls", *_SOLVERS], rows)
        + f"\n\nThe claim holds in direction: mode seeking takes {most} calls{more}, mode refining {least}. One "
        f"call from the border to 0 ends right for {below} of the trajectories, one call from the top to the border "
        f"for {above}."
    )


def distilled(a: Arrays) -> str:
    hit, sigmas = a["distilled/hit"], a["distilled/sigmas"]
    # From the lowest level up, as long as it is the source.
    highest = [float(sigmas[-np.logical_and.accumulate(row[::-1]).sum()]) for row in hit]
    return (
        "On emoji the landing is always an image of the data. Of the two sources shown, with one noise each, it is the "
        f"source up to σ = {_spaced([_sigma(sigma) for sigma in highest])}."
    )


def prop4(a: Arrays) -> str:
    rows = []
    for i, name in enumerate(_NAMES):
        sigmas, mark = a[f"prop4/{i}_sigmas"], float(a[f"prop4/{i}_border"])
        size, draws = len(a[f"prop4/{i}_sigmas"]), int(a[f"prop4/{i}_draws"])
        source, nearest = (
            [f"{_at(sigmas, a[f'prop4/{i}_{kind}'], level)[0]:.2f}" for level in (mark / 2, mark, 3 * mark)]
            for kind in ("source", "leader")
        )
        top = [a[f"prop4/{i}_{kind}"][size - len(sigmas), 0] for kind in ("source", "leader")]
        rows.append(
            [f"{name} ({draws:,})", ", ".join(source), ", ".join(nearest), f"source {top[0]:.2f}, nearest {top[1]:.2f}"]
        )
    head = ["(draws)", "P(landing = source) at border/2, border, 3·border", "P(landing = nearest)", "at the highest σ"]
    distances = [_at(a[f"prop4/{i}_sigmas"], a[f"prop4/{i}_distance"][:, 1], 80.0)[0] for i in (1, 2, 3)]
    return (
        _table(head, rows)
        + "\n\nOn images its median distance from E[x0 | x] is 0 at half the border, and "
        + f"{min(distances):.2f} to {max(distances):.2f} of the distance between two images at σ = 80: what a one-step "
        "model has to know, and the denoiser does not say."
    )


def grids(a: Arrays) -> str:
    slopes = a["grids/toy_slopes"]
    j, starts = a["grids/points"].tolist().index(16), int(a["grids/starts"])
    wrong = (a["grids/other"][:, j, 0] * starts).round().astype(int)
    whole = np.diagonal(a["grids/jump"][:, :, 0])[-1]
    half, quarter, one = a["grids/jump"][-2, -1, 0], a["grids/jump"][-3, -1, 0], a["grids/jump"][0, -1, 0]
    return (
        f"On five points the error of a grid falls at the solver's order (Eq. 36): slopes {slopes[0]:.2f} Euler, "
        f"{slopes[1]:.2f} Heun, {slopes[2]:.2f} DPM-Solver-2, {slopes[3]:.2f} DPM-Solver-3. On digits a grid of 16 "
        f"levels sends {wrong[0]} (Euler), {wrong[1]} (Heun), {wrong[3]} (DPM-Solver-3) of {starts} starts to another "
        f"image than the exact flow. One step of a progressive student from pure noise ends {whole:.2f} of the "
        f"distance between two images from the exact landing where it spans all of {int(a['grids/points'][-1])} "
        f"levels, {half:.2f} where half, {quarter:.2f} where a quarter, and {one:.2f} is the denoiser's own: "
        "progressive distillation shortens the way, it does not sharpen the first step."
    )


def _gap(a: Arrays, i: int, place: str, level: float) -> str:
    at = int(np.abs(np.log(a[f"trained/{i}_sigmas"] / level)).argmin())
    return _share(a[f"trained/{i}_gap_share_{place}"][at])


def trained(a: Arrays) -> str:
    sigmas, share = a["trained/1_sigmas"], a["trained/1_gap_share_data"][:, 0]
    worst = float(sigmas[np.where(sigmas <= 5, share, 0).argmax()])
    low, high = (float(sigmas[np.abs(np.log(sigmas / level)).argmin()]) for level in (0.1, 4.4))
    toy = a["trained/0_gap_share_data"][(a["trained/0_sigmas"] >= 0.05) & (a["trained/0_sigmas"] <= 5), 0].max()
    return (
        f"At noisy ones of these (black) it is farthest at σ = {worst:.2g}, up to σ = 5: {_gap(a, 1, 'data', worst)} "
        f"of E‖D − mean‖²; {_gap(a, 1, 'data', low)} at σ = {low:.2g}. At the images that were left out (blue) and "
        "where its own sampler goes (red) it stays farther from the optimum below the border: "
        f"{_gap(a, 1, 'held-out', low)} and {_gap(a, 1, 'trajectory', low)} at σ = {low:.2g}. Above the border the "
        f"three are one curve, {_gap(a, 1, 'data', high)} at {high:.2g}; further up its share grows, since D hardly "
        f"moves there. On five points it is at most {_percent(float(toy))} from σ = 0.05 to 5."
    )


def generalise(a: Arrays) -> str:
    sizes, pairs = a["generalise/0_sizes"].tolist(), len(a["generalise/0_alike"])
    copies, alike, ends, ratio, first, largest = _generalised(a, 0, (0, 2, 3))
    words = (
        f"Copies among samples of digits are: {copies}. From there on two networks agree more "
        f"than the optima of their images do: the cosine of samples from one noise is {alike} at "
        f"N = {sizes[pairs - 1]:,}, "
        f"of the exact flows' ends {ends}; answers to one noisy held-out image are {ratio} as far apart. A "
        f"network that repeats its images is at the optimum (gap {first} at N = {sizes[0]:,}), one that does not has "
        f"left it, at training and held-out images alike: {largest} at N = {sizes[-1]:,}."
    )
    if "generalise/1_sizes" not in a:
        return words
    sizes, pairs = a["generalise/1_sizes"].tolist(), len(a["generalise/1_alike"])
    copies, alike, ends, ratio, first, largest = _generalised(a, 1, range(len(sizes)))
    return (
        f"{words}\n\nEmoji at 16×16, by a U-Net: copies are {copies}; the cosine is {alike} at "
        f"N = {sizes[pairs - 1]:,}, of the exact flows' ends {ends}; answers are {ratio} as far apart; the gap is "
        f"{first} at N = {sizes[0]:,} and {largest} at N = {sizes[-1]:,}."
    )


def _generalised(a: Arrays, i: int, chosen: Iterable[int]) -> tuple[str, ...]:
    """Copies at some sizes; likeness and distance of the largest two networks; the gap of the first and the last."""
    sizes, part = a[f"generalise/{i}_sizes"].tolist(), f"generalise/{i}_"
    copies = _spaced([f"on {sizes[j]:,} images {_share(a[f'{part}memorised'][j])}" for j in chosen])
    alike, ends = (_interval(a[f"{part}{key}alike"][-1], lambda value: f"{value:.2f}") for key in ("", "optimum_"))
    ratio = a[f"{part}apart"][-1, 0] / a[f"{part}optimum_apart"][-1, 0]
    return copies, alike, ends, f"{ratio:.2g}", *(_share(a[f"{part}gap_data"][j]) for j in (0, -1))


def students(a: Arrays) -> str:
    rows = [
        [f"{name} ({int(a[f'students/{prefix}draws']):,} noises)"]
        + [_share(row) for row in a[f"students/{prefix}one_same"]]
        for prefix, name in (("", "five points"), ("digits_", f"digits, N = {int(a['students/digits_size']):,}"))
    ]
    return _table(["", *(str(name) for name in a["students/techniques"])], rows)


def difficulty(a: Arrays) -> str:
    pupils = [str(name) for name in a["difficulty/learners"][1:]]
    sizes = a["difficulty/denoiser_sizes"].tolist()

    def at(name: str, key: str, size: int) -> str:
        known = a[f"difficulty/{name}_sizes"].tolist()
        return _share(a[f"difficulty/{name}_{key}"][known.index(size)]) if size in known else ""

    ways = (("same", "1 call"), ("same_4", "7 calls"), ("same_18", "35 calls"))
    rows = [
        [f"N = {size:,}", *(at("denoiser", key, size) for key, _ in ways), *(at(name, "same", size) for name in pupils)]
        for size in sizes
    ]
    words = {"multistep": "multi-step"}
    table = _table(["", *(f"denoiser, {word}" for _, word in ways), *(words.get(name, name) for name in pupils)], rows)
    last, best = sizes[-1], str(a["difficulty/best"][-1])
    steps, batch = int(a["difficulty/steps"]), int(a["difficulty/batch"])
    return (
        f"{table}\n\nAt one budget, {steps} steps of {batch}, a denoiser finds the flow's point from "
        f"{at('denoiser', 'same_18', last)} of fresh noises in 35 calls on N = {last:,} digits, and the best student, "
        f"{best}, from {at(best, 'same', last)} in one. The odds of a denoiser fall as N to the power "
        f"{_law(a['difficulty/denoiser_law'])}; those of the best student to the power {_law(a['difficulty/law'])}."
    )


def easier(a: Arrays) -> str:
    def of(name: str) -> np.ndarray:
        return a[f"difficulty/{name}"]

    def series(name: str, shares: np.ndarray) -> str:
        return _spaced([f"{_percent(float(v))} at {int(n):,}" for n, v in zip(of(name), shares[:, 0], strict=True)])

    learners = [str(name) for name in of("learners")]
    seconds = [f"{name} {value:.0f}" for name, value in zip(learners, of("seconds").tolist(), strict=True)]
    rows = [
        f"- Seconds of training, pairs included, on a thread of a shared machine, mean over N: {_spaced(seconds)}.",
        f"- The denoiser's gap at the border of its N images: {series('gap_sizes', of('gap'))}.",
    ]
    for name in learners:
        if f"difficulty/{name}_pairs" in a:
            seen = series(f"{name}_sizes", of(f"{name}_pairs"))
            rows.append(f"- {name.capitalize()} on pairs that it has seen: {seen}.")
    for kind, words in (("more", "as many times the pairs"), ("longer", "the same pairs")):
        for size, fresh, seen in zip(of(f"{kind}_sizes"), of(f"{kind}_same"), of(f"{kind}_pairs"), strict=True):
            rows.append(
                f"- After {int(of('more_steps')):,} steps on {words} knowledge is right for {_share(fresh)} of fresh "
                f"noises at N = {int(size)}, and for {_share(seen)} of pairs that it has seen."
            )
    return "\n".join(map(_bullet, rows))


def _law(found: np.ndarray) -> str:
    _, slope, size, low, high = found.tolist()
    return f"−{slope:.2f}, with 90% at N = {size:.2g} [{low:.2g}, {high:.2g}]"


def samples(a: Arrays) -> str:
    methods = a["samples/methods"].tolist()
    network = methods.index("network: Heun, 35 calls")
    pupils = [i for i, name in enumerate(methods) if "student" in name]
    optimum = [i for i, name in enumerate(methods) if name.startswith("optimum")]
    copies, same = a["samples/share"], a["samples/same"]
    best = max(pupils, key=lambda i: same[i, 0])
    least, most = copies[optimum, 0].min(), copies[pupils, 0].max()
    all_of = "all" if least == 1 else f"{_percent(least)} or more"
    none_of = "none" if most == 0 else f"at most {_percent(most)}"
    return (
        f"From {int(a['samples/draws'])} noises {all_of} of the samples of every sampler of the optimum are copies of "
        f"an image; {_share(copies[network])} of the network's are (Heun, 35 calls), and {none_of} of a student's. "
        f"The image on which the exact flow ends is the nearest to {_share(same[network])} of the network's samples, "
        f"and to {_share(same[best])} of the best student's ({methods[best]})."
    )


def fewstep(a: Arrays) -> str:
    methods = a["fewstep/methods"].tolist()
    rows = []
    for i, name in enumerate(("five points", "digits, sliced")):

        def value(k: int, i: int = i) -> np.ndarray:
            found = a[f"fewstep/{i}_{k}_wasserstein"]
            return found if found.ndim == 1 else found[:, 0]

        heun = methods.index("network, heun")
        calls = a[f"fewstep/{i}_{heun}_nfe"]
        late = [f"{value(heun)[j]:.2g} at {int(calls[j])}" for j in range(len(calls)) if calls[j] in (7, 15, 31, 63)]
        pupils = [k for k, method in enumerate(methods) if "student" in method]
        once = [value(k)[0] for k in pupils]
        best = min(pupils, key=lambda k: value(k).min())
        at = int(a[f"fewstep/{i}_{best}_nfe"][value(best).argmin()])
        floor = float(a[f"fewstep/{i}_floor"].flat[0])
        first = next((int(n) for n, v in zip(calls, value(heun), strict=True) if v <= min(once)), None)
        rows.append(
            [
                f"{name} ({int(a[f'fewstep/{i}_draws']):,} noises)",
                ", ".join(late),
                f"{min(once):.2g} to {max(once):.2g}",
                f"{methods[best].removesuffix(' student')} {value(best).min():.2g} at {at}",
                "not within 63" if first is None else str(first),
                f"{floor:.2g}",
            ]
        )
    head = [
        "",
        "network, Heun, by calls",
        "students in one call",
        "best student, calls",
        "calls until the network beats all in one call",
        "exact landings",
    ]
    return _table(head, rows)


def borders(a: Arrays) -> str:
    rows = ["- five points, by integration over each point's noise: 0.4964"]
    for i, name in enumerate(_NAMES):
        # As `figures.common.border_of` takes of small data.
        draws = max(int(a[f"border/{i}_draws"]), 4000 if i < 3 else 0)
        rows.append(f"- {name}, {draws:,} draws: {_interval(_borders(a, i), _sigma)}")
    return "\n".join(rows)


def marks(a: Arrays) -> str:
    found = [
        _interval(_at(a[f"border/{i}_sigmas"], a[f"border/{i}_found"], _marks(a, i)[0]), lambda share: f"{share:.2f}")
        for i in range(4)
    ]
    rows = [f"- At the border the leader is the source with probability {_named(found)}."]
    for key, words in (
        ("collapse_formula", "σ_C, the closed formula for Gaussian data"),
        ("speciation", "σ_S, speciation"),
    ):
        below = {"collapse_formula": "collapse", "speciation": "border"}[key]
        values = [float(a[f"border/{i}_{key}"]) for i in range(4)]
        ratio = [value / float(a[f"border/{i}_{below}"]) for i, value in enumerate(values)]
        rows.append(
            f"- {words}, is {_named([_sigma(value) for value in values])}; on images {min(ratio[1:]):.1f} to "
            f"{max(ratio[1:]):.1f} times the {'measured collapse' if below == 'collapse' else 'border'}."
        )
    return "\n".join(map(_bullet, rows))


def _named(values: Sequence[str]) -> str:
    return _spaced([f"{value} ({name})" for value, name in zip(values, _NAMES, strict=True)])


def apart(a: Arrays) -> str:
    def median(i: int, level: float) -> str:
        return f"{_at(a[f'prop4/{i}_sigmas'], a[f'prop4/{i}_distance'][:, 1], level)[0]:.2f}"

    high, mark = ([median(i, level or float(a[f"prop4/{i}_border"])) for i in (1, 2, 3)] for level in (80.0, 0.0))
    return _bullet(
        f"- The median ‖f − E[x0 | x]‖ at σ = 80 is {high[0]} (digits), {high[1]} (faces) and {high[2]} (emoji) of the "
        f"distance between two images, and {mark[0]}, {mark[1]} and {mark[2]} at the border."
    )


def shares(a: Arrays) -> str:
    levels = (0.052, 0.35, 0.65, 2.3, 4.4, 11)
    found = [f"{_gap(a, 1, 'data', level)} at σ = {level:g}" for level in levels]
    return _bullet(
        f"- As a share of E‖D − mean‖² the gap of digits at noisy data is {_spaced(found)}. At σ = 0.052 it is "
        f"{_gap(a, 1, 'held-out', 0.052)} at held-out images, and {_gap(a, 1, 'trajectory', 0.052)} on its own "
        "trajectory."
    )


def levels(a: Arrays) -> str:
    rows = []
    for prefix, name in (("", "five points"), ("digits_", "digits")):
        sigmas = a[f"students/{prefix}curve_sigmas"]
        for student in ("consistency", "multistep"):
            share = a[f"students/{prefix}same_{student}"]
            at = [0, int(share[:, 0].argmin()), len(sigmas) - 1]
            found = [f"{_share(share[i])} at σ = {_sigma(float(sigmas[i]))}" for i in at]
            rows.append(f"- {student}, {name}: {found[0]}, least {found[1]}, {found[2]}.")
    return "\n".join(map(_bullet, rows))


def once(a: Arrays) -> str:
    rows = []
    for i, name in enumerate(("Five points, 2-Wasserstein", "Digits, sliced 2-Wasserstein")):
        found = []
        for k, method in enumerate(a["fewstep/methods"].tolist()):
            value = a[f"fewstep/{i}_{k}_wasserstein"]
            if "student" in method:
                words = f"{value[0]:.2g}" if value.ndim == 1 else _interval(value[0], lambda part: f"{part:.2g}")
                found.append(f"{words} {method.removesuffix(' student')}")
        rows.append(
            f"- {name} distance in one call: {_spaced(found)}; exact landings {a[f'fewstep/{i}_floor'].flat[0]:.2g}."
        )
    return "\n".join(map(_bullet, rows))


def gallery(a: Arrays) -> str:
    known = {name.partition("/")[0] for name in a}
    others = [f"`{name}`" for name in FIGURES if name not in known]
    rest = f" {_spaced(others)} are as they were drawn before." if others else ""
    return (
        "Pictures and numbers below are of full runs, seed 0, written by `make gallery`; shares and means have 95% "
        f"intervals.{rest} Details are in [docs/findings.rst](docs/findings.rst)."
    )


def _bullet(text: str) -> str:
    return textwrap.fill(text, 120, subsequent_indent="  ", break_on_hyphens=False)


BLOCKS: dict[str, Callable[[Arrays], str]] = {
    block.__name__: block
    for block in (
        *(fig1, border, trajectories, steps, distilled, prop4, grids, trained, generalise, students, difficulty),
        *(samples, fewstep),
        *(gallery, borders, marks, apart, shares, levels, easier, once),
    )
}


def _wrapped(text: str) -> str:
    """Paragraphs in lines of 120; tables as they are."""
    parts = text.split("\n\n")
    return "\n\n".join(
        part if part.startswith(("|", "- ")) else textwrap.fill(part, 120, break_on_hyphens=False) for part in parts
    )


OF = {
    "borders": "border",
    "marks": "border",
    "apart": "prop4",
    "shares": "trained",
    "levels": "students",
    "easier": "difficulty",
    "once": "fewstep",
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
