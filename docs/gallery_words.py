"""What the gallery says of each figure, of the arrays "FIGURE/NAME" that it has drawn."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from wording import (
    NAMES,
    Arrays,
    at_level,
    gap_pct,
    held,
    interval,
    marks_of,
    pct,
    percent,
    sigma_words,
    spaced,
    table,
)

from figures.gallery import FIGURES


def fig1(a: Arrays) -> str:
    toy, data = (np.array([a[f"fig1/{part}border{end}"] for end in ("", "_low", "_high")]) for part in ("toy_", ""))
    return (
        f"The border lies at σ = {interval(toy, sigma_words)} for the five points and at "
        f"{interval(data, sigma_words)} for the {int(a['fig1/size']):,} emoji. Brackets are 95% bootstrap "
        f"intervals, from {int(a['fig1/toy_border_draws']):,} draws of (x0, ε) and {int(a['fig1/border_draws'])}."
    )


def border(a: Arrays) -> str:
    order = (1, 2, 3, 0)
    marks = np.array([marks_of(a, i) for i in order])
    found = [at_level(a[f"border/{i}_sigmas"], a[f"border/{i}_found"], marks_of(a, i)[0]) for i in order]
    labels = (
        "median effective count 2, the border",
        "mean entropy 1 nat, the collapse of Biroli et al. 2024",
        "median capture",
    )
    rows = [[label, *map(sigma_words, column)] for label, column in zip(labels, marks.T, strict=True)]
    rows.append(["P(leader = source) at the border", *(f"{value[0]:.2f}" for value in found)])
    apart = (marks[:3].max(1) / marks[:3].min(1)).max() - 1
    return (
        f"On images the three definitions of the border differ by {100 * apart:.0f}% at most; on five points on the "
        "line "
        "nothing is sharp.\n\n" + table(["σ of", *(NAMES[i] for i in order)], rows)
    )


def trajectories(a: Arrays) -> str:
    levels = [sigma_words(float(level)) for level in a["trajectories/captured"]]
    return (
        "The exact flow on five points, on a ring and on emoji: D blends, then one image remains. The end of the four "
        f"emoji is certain at σ = {spaced(levels)}; the border lies at {sigma_words(float(a['trajectories/border']))}."
    )


_SOLVERS = {
    "Euler": "Euler (DDIM)",
    "Heun": "Heun (EDM)",
    "DPM-Solver-2": "DPM-Solver-2",
    "DPM-Solver-3": "DPM-Solver-3",
    "++ 2M": "DPM-Solver++ 2M",
    "++ 3M": "DPM-Solver++ 3M, exact",
    "UniPC-3": "UniPC-3",
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
    below, above = (pct(1 - share[[0, 2, 1]]) for share in one)
    least, most = (_calls(needed[part][:, 0]) for part in ("below", "above"))
    held(
        np.nanmin(needed["above"][:, 0]) > np.nanmax(needed["below"][:, 0]),
        "mode seeking takes more calls than refining",
    )
    slow = [name for name, value in zip(_SOLVERS, needed["above"][:, 0], strict=True) if np.isnan(value)]
    more = f" ({spaced(slow)}: more than {int(a['steps/steps'][-1])})" if slow else ""
    return (
        f"For at most 5% to end on another image it takes, on digits ({int(a['steps/trajectories'])} trajectories; in "
        f"brackets by the ends of the 95% interval of the share, – more than {int(a['steps/steps'][-1])} steps):\n\n"
        + table(["calls", *_SOLVERS], rows)
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
        f"source up to σ = {spaced([sigma_words(sigma) for sigma in highest])}."
    )


def prop4(a: Arrays) -> str:
    rows = []
    for i, name in enumerate(NAMES):
        sigmas, mark = a[f"prop4/{i}_sigmas"], float(a[f"prop4/{i}_border"])
        draws = int(a[f"prop4/{i}_draws"])
        source, nearest = (
            [f"{at_level(sigmas, a[f'prop4/{i}_{kind}'], level)[0]:.2f}" for level in (mark / 2, mark, 3 * mark)]
            for kind in ("source", "leader")
        )
        top = [a[f"prop4/{i}_{kind}"][0, 0] for kind in ("source", "leader")]
        rows.append(
            [f"{name} ({draws:,})", ", ".join(source), ", ".join(nearest), f"source {top[0]:.2f}, nearest {top[1]:.2f}"]
        )
    head = ["(draws)", "P(landing = source) at border/2, border, 3·border", "P(landing = nearest)", "at the highest σ"]
    low, distances = (
        [at_level(a[f"prop4/{i}_sigmas"], a[f"prop4/{i}_distance"][:, 1], level(i))[0] for i in (1, 2, 3)]
        for level in (lambda i: float(a[f"prop4/{i}_border"]) / 2, lambda i: 80.0)
    )
    return (
        table(head, rows)
        + "\n\nOn images its median distance from E[x0 | x] is "
        + f"{max(low):.2f} at most at half the border, and "
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


def trained(a: Arrays) -> str:
    sigmas, share = a["trained/1_sigmas"], a["trained/1_gap_share_data"][:, 0]
    worst = float(sigmas[np.where(sigmas <= 5, share, 0).argmax()])
    low, high = (float(sigmas[np.abs(np.log(sigmas / level)).argmin()]) for level in (0.1, 4.4))
    at = int(np.abs(np.log(sigmas / low)).argmin())
    seen, *elsewhere = (a[f"trained/1_gap_share_{place}"][at] for place in ("data", "held-out", "trajectory"))
    held(all(place[1] > seen[2] for place in elsewhere), "below the border the network is farther off elsewhere")
    toy = a["trained/0_gap_share_data"][(a["trained/0_sigmas"] >= 0.05) & (a["trained/0_sigmas"] <= 5), 0].max()
    return (
        f"At noisy ones of these (black) it is farthest at σ = {worst:.2g}, up to σ = 5: "
        f"{gap_pct(a, 1, 'data', worst)} of E‖D − mean‖²; {gap_pct(a, 1, 'data', low)} at σ = {low:.2g}. "
        "At the images that were left out (blue) and where its own sampler goes (red) it stays farther from the "
        "optimum below the border: "
        f"{gap_pct(a, 1, 'held-out', low)} and {gap_pct(a, 1, 'trajectory', low)} at σ = {low:.2g}. Above the border "
        f"the three are one curve, {gap_pct(a, 1, 'data', high)} at {high:.2g}; further up its share grows, since "
        f"D hardly moves there. On five points it is at most {percent(float(toy))} from σ = 0.05 to 5."
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
    copies = spaced([f"on {sizes[j]:,} images {pct(a[f'{part}memorised'][j])}" for j in chosen])
    alike, ends = (interval(a[f"{part}{key}alike"][-1], lambda value: f"{value:.2f}") for key in ("", "optimum_"))
    pair, flows = a[f"{part}alike"][-1], a[f"{part}optimum_alike"][-1]
    held(pair[1] > flows[2], "two networks of the largest N agree more than their optima")
    ratio = a[f"{part}apart"][-1, 0] / a[f"{part}optimum_apart"][-1, 0]
    return copies, alike, ends, f"{ratio:.2g}", *(pct(a[f"{part}gap_data"][j]) for j in (0, -1))


def students(a: Arrays) -> str:
    rows = [
        [f"{name} ({int(a[f'students/{prefix}draws']):,} noises)"]
        + [pct(row) for row in a[f"students/{prefix}one_same"]]
        for prefix, name in (("", "five points"), ("digits_", f"digits, N = {int(a['students/digits_size']):,}"))
    ]
    seen = a["students/digits_one_seen"]
    rows.append(["digits, pairs seen in training", *("–" if np.isnan(row[0]) else pct(row) for row in seen)])
    return table(["", *(str(name) for name in a["students/techniques"])], rows)


def difficulty(a: Arrays) -> str:
    pupils = [str(name) for name in a["difficulty/learners"][1:]]
    sizes = a["difficulty/denoiser_sizes"].tolist()

    def at(name: str, key: str, size: int) -> str:
        known = a[f"difficulty/{name}_sizes"].tolist()
        return pct(a[f"difficulty/{name}_{key}"][known.index(size)]) if size in known else ""

    ways = (("same", "1 call"), ("same_4", "7 calls"), ("same_18", "35 calls"))
    rows = [
        [f"N = {size:,}", *(at("denoiser", key, size) for key, _ in ways), *(at(name, "same", size) for name in pupils)]
        for size in sizes
    ]
    words = {"multistep": "multi-step"}
    shown = table(["", *(f"denoiser, {word}" for _, word in ways), *(words.get(name, name) for name in pupils)], rows)
    last, best = sizes[-1], str(a["difficulty/best"][-1])
    meet = all(
        max(a[f"difficulty/{name}_same"][a[f"difficulty/{name}_sizes"].tolist().index(size)][2] for name in pupils)
        >= a["difficulty/denoiser_same_18"][sizes.index(size)][1]
        for size in sizes
    )
    held(meet, "at every N the best student's interval reaches that of the denoiser")
    steps, batch = int(a["difficulty/steps"]), int(a["difficulty/batch"])
    return (
        f"{shown}\n\nAt one budget, {steps} steps of {batch}, a denoiser finds the flow's point from "
        f"{at('denoiser', 'same_18', last)} of fresh noises in 35 calls on N = {last:,} digits, and the best student, "
        f"{best}, from {at(best, 'same', last)} in one. The odds of a denoiser fall as N to the power "
        f"{_law(a['difficulty/denoiser_law'])}; those of the best student to the power {_law(a['difficulty/law'])}."
    )


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
    all_of = "all" if least == 1 else f"{percent(least)} or more"
    none_of = "none" if most == 0 else f"at most {percent(most)}"
    return (
        f"From {int(a['samples/draws'])} noises {all_of} of the samples of every sampler of the optimum are copies of "
        f"an image; {pct(copies[network])} of the network's are (Heun, 35 calls), and {none_of} of a student's. "
        f"The image on which the exact flow ends is the nearest to {pct(same[network])} of the network's samples, "
        f"and to {pct(same[best])} of the best student's ({methods[best]})."
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
                f"not within {int(calls[-1])}" if first is None else str(first),
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
    return table(head, rows)


def guidance(a: Arrays) -> str:
    weights = a["guidance/weights"].tolist()
    rows = []
    for way, name in (("optimum", "optimum"), ("network", "network")):
        for suffix, words in (("", ""), ("_within", ", in the interval")):
            reached, variation = (a[f"guidance/{way}{suffix}_{column}"] for column in ("reached", "variation"))
            rows.append([f"{name}{words}", *(pct(reached[i]) for i in (0, -1)), *(pct(variation[i]) for i in (0, -1))])
    optimum, within = (a[f"guidance/optimum{suffix}_reached"] for suffix in ("", "_within"))
    held(optimum[-1, 2] < optimum[0, 1], "guidance leaves points of the class out")
    held(within[-1, 1] > optimum[-1, 2], "in an interval it leaves out fewer")
    near, far = a["guidance/optimum_away"][0], a["guidance/optimum_away"][-1]
    held(far[1] > near[2], "it ends farther from other classes")
    low, high = a["guidance/interval"]
    uniform = a["guidance/uniform"]
    last = f"w = {weights[-1]:g}"
    head = ["", "reached, w = 1", f"reached, {last}", "variation, w = 1", f"variation, {last}"]
    return (
        table(head, rows)
        + f"\n\nOf the {int(a['guidance/class_size'])} digits of {int(a['guidance/label'])} as many uniform draws "
        f"({int(a['guidance/draws']):,}) reach {percent(float(a['guidance/uniform_reached']))}, with a total variation "
        f"of {pct(uniform)}. The guided optimum ends farther from other classes, {interval(far, sigma_words)} at "
        f"{last} for {interval(near, sigma_words)}; the interval is {low:g} < σ <= {high:g}."
    )


def measurements(a: Arrays) -> str:
    steps, ways = a["measurements/steps"].tolist(), {"dps": "DPS", "pigdm": "ΠGDM", "diffpir": "DiffPIR"}
    rows, names = [], a["measurements/names"].tolist()
    for i, name in enumerate(names):
        curves = [a[f"measurements/{i}_{way}_variation"][-1] for way in ("exact", *ways)]
        held(min(curve[1] for curve in curves[1:]) > curves[0][2], "all solvers are farther from p(x0 | y)")
        rows.append([name, pct(a[f"measurements/{i}_counting"]), *map(pct, curves)])
    excluded = {
        name: [a[f"measurements/{i}_{way}_excluded"][-1, 0] for i in range(len(names))] for way, name in ways.items()
    }
    said = [f"{percent(min(values))} to {percent(max(values))} of {name}" for name, values in excluded.items()]
    observed = len(a["measurements/0_effective"])
    digits, emoji = (int(a[f"measurements/{i}_draws"]) for i in (0, 3))
    head = ["total variation", "exact draws", "exact E[x0 \\| x, y]", *ways.values()]
    return (
        table(head, rows)
        + f"\n\nAt {steps[-1]} steps of Euler's method; {observed} observations of each kind, {digits} noises each of "
        f"digits and {emoji} of emoji at 16×16; exact draws are as many of p(x0 | y), with what 95% of such batches "
        f"have. By the kind of observation, {spaced(said)} end on images that are not among those that hold 99.9% of "
        "p(x0 | y). The updates are those of the likelihoods; no step size is tuned."
    )


def gallery(a: Arrays) -> str:
    known = {name.partition("/")[0] for name in a}
    others = [f"`{name}`" for name in FIGURES if name not in known]
    rest = f" {spaced(others)} are as they were drawn before." if others else ""
    return (
        "Pictures and numbers below are of full runs, seed 0, written by `make gallery`; shares and means have 95% "
        f"intervals.{rest} Details are in [the findings](findings.rst)."
    )
