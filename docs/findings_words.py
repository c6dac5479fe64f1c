"""What docs/findings.rst says of figures beyond the gallery, of the arrays "FIGURE/NAME" that they have drawn."""

from __future__ import annotations

import numpy as np
from wording import (
    NAMES,
    Arrays,
    at_level,
    border_interval,
    bullet,
    by_name,
    gap_pct,
    interval,
    marks_of,
    pct,
    percent,
    sigma_words,
    spaced,
)


def borders(a: Arrays) -> str:
    rows = []
    for i, name in enumerate(NAMES):
        draws = int(a[f"border/{i}_border_draws"])
        rows.append(f"- {name}, {draws:,} draws: {interval(border_interval(a, i), sigma_words)}")
    return "\n".join(rows)


def marks(a: Arrays) -> str:
    found = [
        interval(
            at_level(a[f"border/{i}_sigmas"], a[f"border/{i}_found"], marks_of(a, i)[0]),
            lambda share: f"{share:.2f}",
        )
        for i in range(4)
    ]
    rows = [f"- At the border the leader is the source with probability {by_name(found)}."]
    for key, words in (
        ("collapse_formula", "σ_C, the closed formula for Gaussian data"),
        ("speciation", "σ_S, speciation"),
    ):
        below = {"collapse_formula": "collapse", "speciation": "border"}[key]
        values = [float(a[f"border/{i}_{key}"]) for i in range(4)]
        ratio = [value / float(a[f"border/{i}_{below}"]) for i, value in enumerate(values)]
        rows.append(
            f"- {words}, is {by_name([sigma_words(value) for value in values])}; on images {min(ratio[1:]):.1f} to "
            f"{max(ratio[1:]):.1f} times the {'measured collapse' if below == 'collapse' else 'border'}."
        )
    return "\n".join(map(bullet, rows))


def apart(a: Arrays) -> str:
    def median(i: int, level: float) -> str:
        return f"{at_level(a[f'prop4/{i}_sigmas'], a[f'prop4/{i}_distance'][:, 1], level)[0]:.2f}"

    high, mark = ([median(i, level or float(a[f"prop4/{i}_border"])) for i in (1, 2, 3)] for level in (80.0, 0.0))
    return bullet(
        f"- The median ‖f − E[x0 | x]‖ at σ = 80 is {high[0]} (digits), {high[1]} (faces) and {high[2]} (emoji) of the "
        f"distance between two images, and {mark[0]}, {mark[1]} and {mark[2]} at the border."
    )


def shares(a: Arrays) -> str:
    levels = (0.052, 0.35, 0.65, 2.3, 4.4, 11)
    found = [f"{gap_pct(a, 1, 'data', level)} at σ = {level:g}" for level in levels]
    return bullet(
        f"- As a share of E‖D − mean‖² the gap of digits at noisy data is {spaced(found)}. At σ = 0.052 it is "
        f"{gap_pct(a, 1, 'held-out', 0.052)} at held-out images, and {gap_pct(a, 1, 'trajectory', 0.052)} on its own "
        "trajectory."
    )


def levels(a: Arrays) -> str:
    rows = []
    for prefix, name in (("", "five points"), ("digits_", "digits")):
        sigmas = a[f"students/{prefix}curve_sigmas"]
        for student in ("consistency", "multistep"):
            share = a[f"students/{prefix}same_{student}"]
            at = [0, int(share[:, 0].argmin()), len(sigmas) - 1]
            found = [f"{pct(share[i])} at σ = {sigma_words(float(sigmas[i]))}" for i in at]
            rows.append(f"- {student}, {name}: {found[0]}, least {found[1]}, {found[2]}.")
    return "\n".join(map(bullet, rows))


def once(a: Arrays) -> str:
    rows = []
    for i, name in enumerate(("Five points, 2-Wasserstein", "Digits, sliced 2-Wasserstein")):
        found = []
        for k, method in enumerate(a["fewstep/methods"].tolist()):
            value = a[f"fewstep/{i}_{k}_wasserstein"]
            if "student" in method:
                words = f"{value[0]:.2g}" if value.ndim == 1 else interval(value[0], lambda part: f"{part:.2g}")
                found.append(f"{words} {method.removesuffix(' student')}")
        rows.append(
            f"- {name} distance in one call: {spaced(found)}; exact landings {a[f'fewstep/{i}_floor'].flat[0]:.2g}."
        )
    return "\n".join(map(bullet, rows))


def easier(a: Arrays) -> str:
    def of(name: str) -> np.ndarray:
        return a[f"difficulty/{name}"]

    def series(name: str, shares: np.ndarray) -> str:
        return spaced([f"{percent(float(v))} at {int(n):,}" for n, v in zip(of(name), shares[:, 0], strict=True)])

    learners = [str(name) for name in of("learners")]
    seconds = [f"{name} {value:.0f}" for name, value in zip(learners, of("seconds").tolist(), strict=True)]
    rows = [
        f"- Seconds of training, pairs included, on a thread of a shared machine, mean over N: {spaced(seconds)}.",
        f"- The denoiser's gap at the border of its N images: {series('gap_sizes', of('gap'))}.",
    ]
    for name in learners:
        if f"difficulty/{name}_pairs" in a:
            seen = series(f"{name}_sizes", of(f"{name}_pairs"))
            rows.append(f"- {name.capitalize()} on pairs that it has seen: {seen}.")
    many = "as many times the pairs"
    for kind, words in (("more", many), ("longer", "the same pairs"), ("most", f"half {many}")):
        for size, fresh, seen in zip(of(f"{kind}_sizes"), of(f"{kind}_same"), of(f"{kind}_pairs"), strict=True):
            rows.append(
                f"- After {int(of(f'{kind}_steps')):,} steps on {words} knowledge is right for {pct(fresh)} of fresh "
                f"noises at N = {int(size)}, and for {pct(seen)} of pairs that it has seen."
            )
    return "\n".join(map(bullet, rows))
