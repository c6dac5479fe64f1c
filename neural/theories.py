"""The theories that a network is held to, each with the parameter that suits the network best at every noise level.

A theory of one parameter, a window, a bandwidth, a temperature, says little before that is chosen. Here it is the one
of a list for which E‖F(x, σ) − T(x, σ)‖² is least at each of the levels, on draws of x from the stream "design", of
which no evaluation has a number; between levels that of the nearest in log σ. It favours theories: they are given what
they can do, at every level anew. Those without a parameter, the Gaussian and the mixtures, are made of the data alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Num
from torch import Tensor
from tqdm import tqdm

from optimal import OptimalDenoiser
from optimal.denoiser import Denoiser
from optimal.draws import draw_pairs
from optimal.query import Levels, level_list, levels, require_points
from optimal.randomness import stream
from optimal.theories import (
    Mixture,
    Wiener,
    equivariant_local_score,
    local_score,
    patch_posterior,
    pca_locality,
    score_smoothed,
)

from .measures import evaluate
from .places import along

__all__ = [
    "MODES",
    "Family",
    "Fitted",
    "Tried",
    "families",
    "fitted",
    "theories_of",
    "with_parameter",
    "with_windows_of_local",
]

Make = Callable[[float], Denoiser]

LOCAL, EQUIVARIANT = "local score", "equivariant local score"
MODES = (10, 100)
"""Gaussians of the mixtures."""
_DRAWS = 64
_SMOOTHING = 16
_MOST = 13_500_000_000
"""Products of one query of the equivariant machine, N (HW)² C k² with the largest window k that it can have: above, it
is made of as many points as stay below."""


@dataclass(frozen=True)
class Tried:
    """The values of every parameter that a network is held to: what a study's answers follow from.

    Attributes:
        widths: of the smoothing of data and of the score, in standard deviations of the data; 0 is the optimum.
        temperatures: 1 is the optimum; towards 0 the nearest point, at infinity the mean of the data.
        windows: sides of the local score, odd; those below twice the image's longer side less 1, and that, which covers
            all from everywhere.
        sizes: sides of patches; those above the image's are taken as the image's own.
        thresholds: of PCA-locality, from 0 to 1; 0 is the optimum.
    """

    widths: tuple[float, ...] = (0.0, *(2.0**power for power in range(-6, 2)), 4.0, 16.0)
    temperatures: tuple[float, ...] = (0.0625, 0.25, *(2 ** (power / 2) for power in range(-2, 7)), 16.0, 64.0, 4096.0)
    windows: tuple[int, ...] = (1, 3, 5, 7, 9, 11, 15, 21, 31, 47, 63, 95, 127)
    sizes: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8, 11, 15, 16, 23, 32, 48, 64)
    thresholds: tuple[float, ...] = (0.0, 0.005, 0.02, 0.05, 0.1, 0.3, 0.6)


@dataclass(frozen=True)
class Family:
    """A theory of one parameter: from it to the denoiser, and the values that are tried.

    Attributes:
        make: from a value to the denoiser.
        values: those that are tried.
        ends: those of them beyond which there is nothing: a window of one pixel, of the image.
    """

    make: Make
    values: tuple[float, ...]
    ends: tuple[float, ...] = ()


@dataclass(frozen=True)
class Fitted:
    """A theory whose parameter goes by the noise level, a `Denoiser`.

    Attributes:
        make: from the parameter to the theory.
        sigmas: (S,) float64, the levels at which the parameter was chosen, increasing.
        values: the parameter at each.
        event: shape of one point.
        cut: the least and the greatest value that were tried, where others are beyond them: a level that has one of
            these might have another in a longer list.
    """

    make: Make
    sigmas: Tensor
    values: tuple[float, ...]
    event: tuple[int, ...]
    cut: tuple[float, ...] = ()

    def __repr__(self) -> str:
        chosen = ", ".join(f"{value:g} at {level:.3g}" for value, level in zip(self.values, self.sigmas, strict=True))
        return f"Fitted({chosen})"

    def at(self, sigma: float) -> float:
        """The parameter at a level: that of the nearest in log σ, the lower of two."""
        return self.values[int((self.sigmas.log() - math.log(sigma)).abs().argmin())]

    def __call__(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, "B *event"]:
        require_points(x, self.event)
        given = levels(sigma, len(x), x.device)
        own = torch.tensor([self.at(float(each)) for each in given], dtype=torch.float64)
        out = torch.empty_like(x)
        for value in own.unique().tolist():
            rows = (own == value).to(x.device)
            out[rows] = self.make(value)(x[rows], given[rows]).to(x.dtype)
        return out


def fitted(
    model: Denoiser,
    D: OptimalDenoiser,
    make: Make,
    values: Sequence[float],
    *,
    sigmas: Levels,
    trajectory: bool = False,
    draws: int = _DRAWS,
    seed: int = 0,
    name: str = "theory",
    progress: bool = False,
) -> Fitted:
    """The value at every level for which the theory is nearest to the network, of all that are listed.

    Args:
        model: F.
        D: the optimum of the data that it was trained on.
        make: from a value to the theory, a denoiser.
        values: those that are tried, all of them, at every level.
        sigmas: levels, within the network's range.
        trajectory: whether x is on the network's own trajectory, from noises of the stream "design"; else x0 + σ ε.
        draws: points x at each level.
        seed: of them.
        name: of the theory, for the bar.
        progress: whether a bar is drawn on stderr.

    Raises:
        ValueError: no value; an answer that is not finite.
    """
    places = _places(model, D, level_list(sigmas), trajectory, draws, seed)
    return _nearest(places, Family(make, tuple(map(float, values))), D.event, name, progress)


_Places = list[tuple[float, Tensor, Tensor]]
"""σ, x and F(x, σ), σ increasing."""


def _places(model: Denoiser, D: OptimalDenoiser, sigmas: Tensor, trajectory: bool, draws: int, seed: int) -> _Places:
    generator = stream(seed, "design", 8)
    if trajectory:
        found = [(s, x, F) for s, x, F, _ in along(model, D, sigmas, draws, seed, generator=generator)]
    else:
        x0, eps = draw_pairs(D, None, draws, generator)
        found = [(s, x := x0 + s * eps, evaluate(model, x, s)) for s in sigmas.tolist()]
    return sorted(found, key=lambda place: place[0])


def _nearest(places: _Places, family: Family, event: tuple[int, ...], name: str, progress: bool) -> Fitted:
    """The value of the least mean square difference at every level."""
    if not family.values:
        raise ValueError("values must be at least one")
    made = {value: family.make(value) for value in family.values}
    found: list[float] = []
    for sigma, x, answer in tqdm(places, desc=name, unit="level", leave=False, disable=not progress):
        misses = {v: float((evaluate(T, x, sigma) - answer).double().square().sum()) for v, T in made.items()}
        if not all(map(math.isfinite, misses.values())):
            raise ValueError(f"an answer of {name} or of the network is not finite at σ = {sigma:.3g}")
        found.append(min(misses, key=lambda value: misses[value]))
    sigmas = torch.tensor([sigma for sigma, *_ in places], dtype=torch.float64)
    cut = tuple({min(family.values), max(family.values)} - {*family.ends})
    return Fitted(made.__getitem__, sigmas, tuple(found), event, cut)


def theories_of(
    model: Denoiser,
    D: OptimalDenoiser,
    *,
    sigmas: Levels,
    known: Mapping[str, Denoiser | Family] | None = None,
    trajectory: bool = False,
    draws: int = _DRAWS,
    seed: int = 0,
    progress: bool = False,
) -> dict[str, Denoiser]:
    """Every theory that the data allow, by name, fitted to the network where it has a parameter.

    Gaussian, mixtures of ten and of a hundred Gaussians (k-means; with 10 and 100 points for each at least), the data
    smoothed, the score smoothed, the optimum at a temperature; and of images the local score, the equivariant local
    score with its window (of a part of the data, where all of them would take too long: its name says so), the
    patch posterior and PCA-locality.

    Args:
        model, D, sigmas, trajectory, draws, seed, progress: as for `fitted`.
        known: what `families` gives, where it is there already; no family is made of the data again.

    Raises:
        ValueError: as for `fitted`.
    """
    places = _places(model, D, level_list(sigmas), trajectory, draws, seed)
    found: dict[str, Denoiser] = {}
    for name, family in (families(D, progress=progress) if known is None else known).items():
        there = isinstance(family, Family)
        found[name] = _nearest(places, family, D.event, name, progress) if there else family
    return with_windows_of_local(D, found)


def families(D: OptimalDenoiser, *, tried: Tried | None = None, progress: bool = False) -> dict[str, Denoiser | Family]:
    """Every theory of one parameter with the values that are tried, and those without one, by name."""
    parts = [modes for modes in MODES if len(D) >= 10 * modes]
    found: dict[str, Denoiser | Family] = {"Gaussian": Wiener(D, progress=progress)}
    found |= {f"mixture of {modes}": Mixture(D, modes, progress=progress) for modes in parts}
    return found | with_parameter(D, tried)


def with_parameter(D: OptimalDenoiser, tried: Tried | None = None) -> dict[str, Family]:
    """Every theory of one parameter with the values that are tried, by name: nothing of the data is fitted yet."""
    tried = tried or Tried()
    found: dict[str, Family] = {}
    unit = D.standard_deviation or 1.0
    widths = tuple(unit * width for width in tried.widths)
    found["smoothed data"] = Family(D.smoothed, widths, (0.0,))
    found["smoothed score"] = Family(lambda s: score_smoothed(D, s, _SMOOTHING), widths, (0.0,))
    found["temperature"] = Family(D.tempered, tried.temperatures)
    if len(D.event) == 3:
        _, height, width = D.event
        whole = 2.0 * max(height, width) - 1
        windows = (*(float(k) for k in tried.windows if k < whole), whole)
        sizes = tuple(sorted({float(min(k, height, width)) for k in tried.sizes}))
        found[LOCAL] = Family(lambda k: local_score(D, int(k)), windows, (1.0, whole))
        found["patch posterior"] = Family(lambda k: patch_posterior(D, int(k)), sizes, (1.0, float(min(height, width))))
        found["PCA-locality"] = Family(lambda t: pca_locality(D, t), tried.thresholds, (0.0, 1.0))
    return found


def with_windows_of_local(D: OptimalDenoiser, found: dict[str, Denoiser]) -> dict[str, Denoiser]:
    """The equivariant local score besides, with the windows that were fitted for the local score, if there is one."""
    local = found.get(LOCAL)
    if not isinstance(local, Fitted):
        return found
    channels, height, width = D.event
    # A window that wraps has no more than the image, and no even side.
    most = min(height, width) - 1 + min(height, width) % 2
    held = max(int(_MOST // ((height * width) ** 2 * channels * most**2)), 1)
    subset = None if len(D) <= held else held
    name = EQUIVARIANT if subset is None else f"{EQUIVARIANT}, {subset} points"
    machine = equivariant_local_score(D, lambda sigma: min(local.at(sigma), most), subset=subset)
    return found | {name: machine}
