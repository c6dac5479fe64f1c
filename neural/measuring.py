"""A network against the optimum, by noise level, with 95% intervals.

At x = x0 + σ ε, or where the network itself goes, with D the optimum, F the network, ȳ the mean of the data, dim the
number of values of a point and ‖·‖ the norm over all of them:

    gap                   E‖F − D‖²: what a perfect training would still gain
    gap_per_value         gap / dim
    gap_share             gap / E‖D − ȳ‖²: 0 for the optimum, 1 for a network that always answers ȳ, above 1 for worse
    gap_over_sigma_square gap / σ²: the weight of the gap in the velocity dx/dσ = (x − F)/σ
    excess_risk           E[‖F − x0‖² − ‖D − x0‖²], draw by draw: its mean on the data is the gap, whatever F is, since
                          x0 − D has mean 0 given x. On held-out points it is negative where F is nearer to them than D
                          is; on a trajectory there is no x0, and it is nan
    mmse                  E tr Cov[x0 | x], D's own risk on the data
    explained_variance    E[1 − ‖F − D‖²/‖F‖²]                              (Wang, Vastola 2024)
    r_square              E[1 − ‖F − D‖²/(dim·Var F)], Var over the values of one answer, dim − 1 in its divisor
                                                                            (Lukoianov et al. 2025)
    pearson               the correlation of F and D over the values of one answer, its median over draws
    pearson_square        the same of its square                            (Kamb, Ganguli 2024)
    cosine                E ⟨F, D⟩/(‖F‖ ‖D‖)

Intervals are those of `optimal.intervals` over the draws; those of the gap and of excess_risk are widened by what
rounding may have done to F − D, so that they hold 0 where the two agree as far as can be told. Where one or two draws
carry half of the gap (`Measured.carriers`, gap_carriers in rows) they hold less than they say, and where no draw shows
a difference beyond rounding they have next to no width: rarer differences are not excluded, as the remarks say. Draws
come from the streams "evaluation" and "evaluation-noises" of the seed, of which no training takes a number.

The last five as published, a mean or median of coefficients of single draws; r_square and pearson are nan for events of
one value, explained_variance for events of one or two, where E 1/‖F‖² need not exist. `neural.agreement` has the first
four of these of all draws pooled instead, which exist for any event, and the same cosine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from optimal import Guided
from optimal.border import Border
from optimal.denoiser import Denoiser
from optimal.intervals import Interval, carriers_of, mean_interval, median_interval, positive_interval
from optimal.posterior import Optimum
from optimal.query import Levels

from .measures import save_table
from .places import On, default_sigmas, placed
from .published import coefficients
from .remarks import listed, remarks_on
from .sampled import samplers
from .sides import network_of, require_optimum
from .trained import seen_in_training

__all__ = ["Measured", "default_sigmas", "measure", "samplers"]

_ONE = 1 + 1e-4
"""A share of one, and what float32 may add to it: the mean itself in float32 has up to 1 + 3e-7."""
_ROUNDING = 1e-5
"""What D is held to where no bound says better, relative to the data about their mean."""
_SINGLE = 2.0**-22
"""What float32 takes from an answer, and from the x that it is asked at, relative to where they lie."""
_VALUES = 2**22
"""Values of x that are compared at once, in float64."""
_HELD_TO_GUIDED = (
    "it is held to the optimum guided as much, which is the posterior mean of nothing: its gap is a distance, and "
    "there is no mmse and no excess risk"
)


@dataclass(frozen=True)
class Measured:
    """A network beside the optimum at each noise level.

    Attributes:
        sigmas: (S,) float64, ascending as given.
        columns: name -> value and interval, (S,) each; the names of the module.
        on: "data", "held-out" or "trajectory".
        draws: of (x0, ε), or noises.
        level: of the intervals.
        border: of the data; None where it was not looked for, the levels being given.
        name: of the network.
        carriers: (S,) int64, the fewest draws that make up half of the gap, 0 where none differs beyond rounding. Few
            far below the border, where the two agree but for rare draws. Measured on 12 points, 70,000 experiments of
            16 to 1,024 draws: the interval holds the gap in 37% where one draw carries half of it, in 87% for two, in
            90% to 97% for three and more.
        remarks: what a reader of the table is to know, a sentence each, such as where one or two draws carry the gap.
    """

    sigmas: Tensor
    columns: dict[str, Interval]
    on: str
    draws: int
    level: float
    border: Border | None
    name: str
    carriers: Tensor
    remarks: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """What it is, and its sentence: not its tensors."""
        return f"Measured({len(self.sigmas)} levels, {self.draws} draws; {self.sentence()})"

    def rows(self) -> list[dict[str, Any]]:
        """One flat row a noise level: method, on, sigma, gap, gap_low, gap_high, …, gap_carriers."""
        out = []
        for i, sigma in enumerate(self.sigmas.tolist()):
            row: dict[str, Any] = {"method": self.name, "on": self.on, "sigma": sigma}
            for name, column in self.columns.items():
                row |= {name: float(column.value[i]), f"{name}_low": float(column.low[i])}
                row[f"{name}_high"] = float(column.high[i])
            row["gap_carriers"] = int(self.carriers[i])
            out.append(row)
        return out

    def worse(self) -> Tensor:
        """(S,) bool, whether it is farther from the optimum than the mean of the data is, the interval included."""
        return self.columns["gap_share"].low > _ONE

    def sentence(self) -> str:
        """Where the network is farthest from the optimum, or that it is nowhere far, and where the border is."""
        words = self._near() if not self.carriers.any() else self._far()
        return words if self.border is None else f"{words}; border {self.border.sigma:.3g}"

    def _near(self) -> str:
        levels = self.sigmas.tolist()
        where = f"at all {len(levels)} levels" if len(levels) > 1 else listed(levels)
        return f"{self.name} on {self.on}: as near to the optimum as can be told {where}"

    def _far(self) -> str:
        gap = self.columns["gap_per_value"]
        at = int(gap.value.nan_to_num(math.inf).argmax())
        words = (
            f"{self.name} on {self.on}: farthest from the optimum at σ = {float(self.sigmas[at]):.3g}, gap per value "
            f"{float(gap.value[at]):.3g} [{float(gap.low[at]):.3g}, {float(gap.high[at]):.3g}]"
        )
        above = self.sigmas[self.worse()].tolist()
        if above:
            words += f"; worse than the mean of the data (share above 1) {listed(above)}"
        return words

    def save(self, path: str | Path) -> None:
        """Write path.csv and path.json.

        Raises:
            ValueError: the folder cannot be written.
        """
        about: dict[str, Any] = {"on": self.on, "draws": self.draws, "level": self.level, "sentence": self.sentence()}
        about["remarks"] = list(self.remarks)
        save_table(self.rows(), path, about)


def measure(
    model: Denoiser,
    D: Optimum | Guided,
    *,
    on: On = None,
    sigmas: Levels | None = None,
    draws: int = 1024,
    seed: int = 0,
    labels: Any = None,
    level: float = 0.95,
    progress: bool = False,
) -> Measured:
    """F against D at many places x, the same draws at every noise level.

    Args:
        model: F, any denoiser; a `Model` says its range, its name and its labels.
        D: the optimum of the data: of the class, where the network is asked for one; of an `orbit`, where it was
            trained on images as they are and turned. Of a guided network, `guided` of two optima with its weight and
            interval: points are then drawn from those of the conditional one, and the answers held to the guided one,
            which is no posterior mean, so that mmse and excess_risk are nan.
        on: where x is: None, at x0 + σ ε with x0 from the data of D, or from some of them, (K,) int64 places in the
            data; points (B, *event) or a `Dataset` for x0 that are none of the data (held-out), all looked at first, or
            what `check_held_out` has looked at; "trajectory", on the network's own flow, dx/dσ = (x − F)/σ from noise,
            in Heun steps.
        sigmas: (S,) noise levels; `default_sigmas` unless given, around the border as its own fixed draws place it: the
            same levels for every network and seed.
        draws: pairs (x0, ε), or noises.
        seed: of the draws.
        labels: class labels: one for all rows, or one a point of those x0 is drawn from; one a row on the trajectory.
        level: of the intervals.
        progress: whether a progress bar is drawn on stderr.

    Raises:
        ValueError: draws < 2; sigmas outside of the network's range; held-out points that are data points; labels of
            another length, or for a denoiser that takes none; F's answer, or data, of another shape; a guided D that is
            not guided from an optimum.
    """
    D, held = _optimum_of(D)
    model = network_of(model)
    asked = placed(model, D, on, sigmas, draws=draws, seed=seed, labels=labels, level=level, progress=progress)
    levels = asked.levels
    found: dict[float, dict[str, Interval]] = {}
    carriers: dict[float, int] = {}
    bar = tqdm(asked.places, total=len(levels), desc="measure", unit="level", leave=False, disable=not progress)
    for sigma, x, answer, x0 in bar:
        if not torch.isfinite(answer).all():
            raise ValueError(f"the answer of {getattr(model, 'name', 'the network')} is not finite at σ = {sigma:.3g}")
        found[sigma], carriers[sigma] = _columns(D, held, x, sigma, answer, x0, level)
    columns = {
        name: Interval(*(torch.stack([getattr(found[s][name], part) for s in levels.tolist()]) for part in _PARTS))
        for name in found[float(levels[0])]
    }
    carried = torch.tensor([carriers[s] for s in levels.tolist()], dtype=torch.int64)
    name = str(getattr(model, "name", "network"))
    remarks = remarks_on(levels, carried, draws, math.prod(D.event), level)
    if held is not None:
        remarks += (_HELD_TO_GUIDED,)
    if asked.source is not None:
        remarks += (*asked.source.remarks, *seen_in_training(model, D, asked.source.points))
    return Measured(levels, columns, asked.on, draws, level, asked.border, name, carried, remarks)


_PARTS = ("value", "low", "high")


def _optimum_of(D: Optimum | Guided) -> tuple[Optimum, Guided | None]:
    """Whose points are drawn, and what answers are held to where it is another: a guided optimum."""
    if not isinstance(D, Guided):
        require_optimum(D)
        return D, None
    own: Any = D.conditional
    if not hasattr(own, "posterior") or not hasattr(own, "drawn"):
        raise ValueError(f"a guided D must be guided from an optimum, whose points are drawn, got {own!r}")
    return own, D


def _columns(
    D: Optimum, held: Guided | None, x: Tensor, sigma: float, answer: Tensor, x0: Tensor | None, level: float
) -> tuple[dict[str, Interval], int]:
    dim = x[0].numel()
    if held is None:
        post = D.posterior(x, sigma)
        best, variance, amplified = post.mean, post.variance.double(), 1.0
        bound = post.error_bound.to(torch.float64).nan_to_num(0.0)
    else:
        best, x0 = held(x, sigma), None
        bound = x.new_zeros(len(x), dtype=torch.float64)
        variance = torch.full_like(bound, torch.nan)
        # Of two optima, extrapolated.
        amplified = max(1.0, float((held.weight.abs() + (1 - held.weight).abs()).max()))
    size = max(1, _VALUES // dim)
    parts = [
        _row_sums(D, answer[rows], best[rows], None if x0 is None else x0[rows], bound[rows], amplified)
        for rows in (slice(start, start + size) for start in range(0, len(x), size))
    ]
    row = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    blur = row["blur"].mean().sqrt()
    gaps = _blurred(positive_interval(row["gap"], level=level), blur)
    spread = row["spread"].mean().sqrt().clamp_min(torch.finfo(torch.float64).tiny)
    columns = {
        "gap": gaps,
        "gap_per_value": gaps.scaled(1 / dim),
        "gap_share": _blurred(positive_interval(row["gap"], row["spread"], level), blur / spread),
        "gap_over_sigma_square": gaps.scaled(sigma**-2),
        "excess_risk": _widened(mean_interval(row["excess"], level), row["excess_blur"].mean()),
        "mmse": mean_interval(variance, level).within(0),
        "explained_variance": mean_interval(row["explained"], level).within(high=1),
        "r_square": mean_interval(row["r_square"], level).within(high=1),
        "pearson": median_interval(row["pearson"], level),
        "pearson_square": median_interval(row["pearson"].square(), level),
        "cosine": mean_interval(row["cosine"], level).within(-1, 1),
    }
    return columns, carriers_of(row["gap"]) if (row["gap"] > row["blur"]).any() else 0


def _row_sums(
    D: Optimum, answer: Tensor, mean: Tensor, x0: Tensor | None, bound: Tensor, amplified: float
) -> dict[str, Tensor]:
    """What the columns are means of, (B,) float64 each; "blur" is the square of what ‖F − D‖ may be off by, and
    "excess_blur" what the excess risk then may. `amplified` is how much larger than D's the rounding of `mean` is."""
    f, d = answer.double().flatten(1), mean.double().flatten(1)
    dim, difference = f.shape[1], f - d
    gap = difference.square().sum(1)
    nothing = torch.full_like(gap, torch.nan)
    miss = None if x0 is None else d - x0.double().flatten(1)
    excess = nothing if miss is None else 2 * (difference * miss).sum(1) + gap
    spread = (d - D.mean.flatten()).square().sum(1)
    norm = torch.maximum(d.norm(dim=1), f.norm(dim=1))
    own = amplified * _ROUNDING * spread.sqrt().clamp_min(D.standard_deviation * math.sqrt(dim))
    blur = torch.maximum(bound * d.norm(dim=1), own) + _SINGLE * norm
    return {
        "gap": gap,
        "spread": spread,
        "excess": excess,
        "excess_blur": nothing if miss is None else blur * (2 * (miss.norm(dim=1) + gap.sqrt()) + blur),
        "blur": blur.square(),
        **coefficients(f, d),
    }


def _blurred(gap: Interval, blur: Tensor) -> Interval:
    """The interval of E‖F − D‖² where F − D is known to within errors of root mean square `blur` (Minkowski)."""
    low = (gap.low.clamp_min(0).sqrt() - blur).clamp_min(0).square()
    return Interval(gap.value, low, (gap.high.sqrt() + blur).square())


def _widened(found: Interval, by: Tensor) -> Interval:
    return Interval(found.value, found.low - by, found.high + by)
