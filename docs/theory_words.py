"""What the README says of the figure `theories`: which theory accounts for a network, at which noise levels."""

from __future__ import annotations

import numpy as np
from wording import Arrays

from neural.explained import LEAST, LITTLE

__all__ = ["theories"]

_NAMES = {
    "digits": "The MLP of digits",
    "emoji-16": "The U-Net of emoji at 16×16",
    "emoji-16-dit": "The DiT of emoji at 16×16",
}
_PLACES = ("on noisy points of the data", "on its own trajectory")


def theories(a: Arrays) -> str:
    """A paragraph a network: level by level from high noise, those that have the same nearest theory together."""
    parts: list[str] = []
    for i, name in enumerate(a["theories/names"].tolist()):
        words = [f"{words} {_place(a, i, place)}" for place, words in enumerate(_PLACES)]
        parts.append(f"**{_NAMES[name]}** {'; '.join(words)}. {_samples(a, i)}")
    return "\n\n".join(parts)


def _place(a: Arrays, i: int, place: int) -> str:
    sigmas, names = a[f"theories/{i}_sigmas"], a[f"theories/{i}_theories"].tolist()
    groups: list[tuple[str, list[int]]] = []
    for j in reversed(range(len(sigmas))):
        word = _word(a, i, place, j, names)
        if groups and groups[-1][0] == word:
            groups[-1][1].append(j)
        else:
            groups.append((word, [j]))
    said = [f"{_range(sigmas, levels)} {_told(a, i, place, levels, word, names)}" for word, levels in groups]
    return ", ".join(said)


def _word(a: Arrays, i: int, place: int, j: int, names: list[str]) -> str:
    """The nearest theory at a level, "" for none, "optimum" where the network is that."""
    if a[f"theories/{i}_gap_share"][place, j, 0] < LEAST:
        return "optimum"
    nearest = str(a[f"theories/{i}_nearest"][place, j])
    first = max((each for each in names if f"{nearest},".startswith(f"{each},")), key=len)
    low = a[f"theories/{i}_accounted"][place, names.index(first), j, 1]
    return first if low >= LITTLE else ""


def _range(sigmas: np.ndarray, levels: list[int]) -> str:
    high, low = sigmas[max(levels)], sigmas[min(levels)]
    return f"at σ = {high:.2g}" if high == low else f"from σ = {high:.2g} to {low:.2g}"


def _told(a: Arrays, i: int, place: int, levels: list[int], word: str, names: list[str]) -> str:
    if word == "optimum":
        return "it is the optimum but for a thousandth"
    if not word:
        return "no theory accounts for a twentieth of its deviation"
    shares = 100 * a[f"theories/{i}_accounted"][place, names.index(word), levels]
    return f"{word} is nearest ({shares[:, 1].min():.0f} to {shares[:, 2].max():.0f}%)"


def _samples(a: Arrays, i: int) -> str:
    """Where its samples end."""
    names, ends = a[f"theories/{i}_theories"].tolist(), a[f"theories/{i}_ends"]
    order = np.argsort(-ends[:, 0])
    words = [f"{names[k].partition(',')[0]} {ends[k, 0]:.2f} [{ends[k, 1]:.2f}, {ends[k, 2]:.2f}]" for k in order]
    draws, noises = (int(a[f"theories/{i}_{name}"]) for name in ("draws", "noises"))
    return (
        f"{draws} draws a level. Samples from the same {noises} noises correlate with its own, in the median: "
        f"{', '.join(words[:3])}; the optimum's {ends[names.index('optimum'), 0]:.2f}; least, {words[-1]}."
    )
