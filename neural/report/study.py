"""All that a report shows of networks beside the optimum, measured; nothing is drawn here.

Every network is measured by `neural.measure` on the data, on held-out points where there are any, and on its own
trajectory, at the same noise levels around the border; and n samples of it, from the same unit noises, are held to the
training data by `neural.audit`. Students that were trained on a fixed number of pairs are also held to the exact flow,
on fresh noises and on these pairs, by `neural.samplers`; the others' likelihood of a few points stands beside the
optimum's. Before all that each is asked whether it is in its own convention.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from optimal import Dataset, Guided, OptimalDenoiser, sample
from optimal.border import Border, seeking_refining_border
from optimal.query import Levels
from optimal.randomness import stream

from ..auditing import audit
from ..convention import sanity
from ..copies import Audit
from ..heldout import Apart, check_held_out
from ..measuring import Measured, default_sigmas, measure
from ..model import Model
from ..named import ALL, as_meant, own_pairs
from ..sampled import samplers
from ..wanted import Wanted, unguided
from .densities import Density, density
from .origin import trained_on
from .plan import Effort, Plan, has_density, seconds_of

__all__ = ["Studied", "Study", "planned", "study"]

_PLACES = {"held-out": "held-out data", "trajectory": "its own trajectory"}
_SHARE = 0.25
"""Of the time for all else, that the likelihood may take."""


@dataclass(frozen=True)
class Studied:
    """One network.

    Attributes:
        name: what the report calls it.
        measured: on the data, on held-out points if there are any, on its own trajectory.
        samples: (n, *event).
        found: the samples beside the training data; None where they are not finite.
        nfe: calls of the network a sample.
        first: noise level at which sampling begins.
        steps: of its sampler.
        student: whether it is one, which answers with one point.
        doubt: what `neural.sanity` says of it.
        pairs: a student's row of `neural.samplers`, with its own pairs; None for what has none.
        densities: likelihoods of the data, and of held-out points.
        lost: why there are none, where the network is the reason.
    """

    name: str
    measured: list[Measured]
    samples: Tensor
    found: Audit | None
    nfe: int
    first: float
    steps: int
    student: bool
    doubt: str | None
    pairs: dict[str, Any] | None
    densities: list[Density]
    lost: str | None

    def remarks(self) -> list[str]:
        """What is to be known of the measurements, and where; the same sentence of several places once."""
        found: dict[str, list[str]] = {}
        for each in self.measured:
            for remark in each.remarks:
                found.setdefault(remark, []).append(each.on)
        return [f"On {', '.join(where)}: {remark}" for remark, where in found.items()]

    def sentences(self) -> list[str]:
        """Where it is farthest from the optimum on the data, on held-out points and on its own trajectory."""
        # All have the same border.
        places = [self.measured[0], *(dataclasses.replace(each, border=None) for each in self.measured[1:])]
        found = [_sentence(each) for each in places]
        if self.student:
            found.append(
                f"{self.name} is a student: it answers with one point, and the optimum with the mean of all that x may "
                "have come from, so that its gap and share are large above the border, however good its samples "
                f"are; on its own trajectory it is asked along dx/dσ = (x − F)/σ, as any network, not at the "
                f"{self.steps} level{'s' if self.steps > 1 else ''} of its own sampler"
            )
        return found


@dataclass(frozen=True)
class Study:
    """Several networks beside the optimum of one data set.

    Attributes:
        data: the training data.
        held_out: name of the held-out points, or None.
        D: the optimum.
        border: of the data.
        networks: one each, in the order given.
        effort, seed, level: what was asked for.
        left_out: seconds that the likelihood would have taken, where that was too long; None where it was not.
        trained: whether all networks are known to have been trained on the data.
        notes: what else was told of networks and data before, a sentence each.
        wanted: the class, guidance and group that networks and optimum were asked for.
    """

    data: Dataset
    held_out: str | None
    D: OptimalDenoiser
    border: Border
    networks: list[Studied]
    effort: Effort
    seed: int
    level: float
    left_out: float | None
    trained: bool
    notes: tuple[str, ...] = ()
    wanted: Wanted = ALL

    def place(self, on: str) -> str:
        """What a page calls where x is."""
        return _PLACES.get(on) or ("training data" if self.trained else "the data")

    def rows(self) -> list[dict[str, Any]]:
        """A flat row a network, place and noise level."""
        return [row for network in self.networks for measured in network.measured for row in measured.rows()]


def study(
    models: Sequence[Model],
    data: Dataset,
    *,
    held_out: Dataset | None = None,
    guided: Guided | None = None,
    sigmas: Levels | None = None,
    steps: int | None = None,
    effort: Effort | None = None,
    seed: int = 0,
    level: float = 0.95,
    progress: bool = False,
    say: Callable[[float], object] | None = None,
    tell: Callable[[str], object] | None = None,
) -> Study:
    """Measure networks in every way that a report shows.

    Args:
        models: of different names.
        data: the training data.
        held_out: further points of the same distribution, none of them in the data.
        guided: the guided optimum that guided networks are held to, in place of that of the data.
        sigmas: (S,) noise levels; unless given around the border, in the range that all networks share.
        steps: of the sampler; each network's own unless given. Of progressive distillation the stage that takes so many
            is measured.
        effort: how much is drawn.
        seed: of all draws; the same for all networks.
        level: of the intervals.
        progress: whether progress bars are drawn on stderr.
        say: told before the work how many seconds it will take.
        tell: told, before it is measured, of a network that may be asked in another convention than its own.

    Raises:
        ValueError: no model, or two of one name; as for `measure` and `audit`.
    """
    plan = Plan(held_out, sigmas, steps, effort or Effort(), seed, level)
    _require_names(models)
    D = OptimalDenoiser(data)
    for model in models:
        model.require_event(D.event, data.name)
    apart = None if held_out is None else check_held_out(D, held_out, progress=progress)
    asked = [as_meant(model, steps, seed)[0] for model in models]
    seconds, likelihood = seconds_of(asked, D, plan)
    left_out = likelihood if likelihood > _SHARE * seconds else None
    if left_out is not None:
        plan = dataclasses.replace(plan, effort=dataclasses.replace(plan.effort, likelihood=0))
    if say is not None:
        say(seconds + (likelihood if left_out is None else 0.0))
    doubts = [sanity(unguided(model), D, seed=seed) for model in asked]
    for model, doubt in zip(models, doubts, strict=True):
        if doubt is not None and tell is not None:
            tell(f"warning: {model.name} is {doubt}")
    # Of its own fixed draws: the same levels for every seed.
    border = seeking_refining_border(D, draws=plan.effort.border_draws, progress=progress)
    networks = []
    some = list(zip(models, doubts, strict=True))
    for model, doubt in tqdm(some, desc="networks", leave=False, disable=not progress or len(models) == 1):
        levels = default_sigmas(D, border.sigma, _shared(models, model)) if sigmas is None else sigmas
        own = dataclasses.replace(plan, sigmas=levels)
        networks.append(_studied(model, D, guided, own, apart, border, doubt, progress))
    name = None if held_out is None else held_out.name
    return Study(
        data, name, D, border, networks, plan.effort, seed, level, left_out, trained_on(models, data.fingerprint)
    )


def planned(models: Sequence[Model], data: Dataset, plan: Plan) -> float:
    """Seconds that `study` will take, about.

    Raises:
        ValueError: as for `study`, before it measures.
    """
    _require_names(models)
    asked = [as_meant(model, plan.steps, plan.seed)[0] for model in models]
    seconds, likelihood = seconds_of(asked, OptimalDenoiser(data), plan)
    return seconds + (likelihood if likelihood <= _SHARE * seconds else 0.0)


def _require_names(models: Sequence[Model]) -> None:
    names = [model.name for model in models]
    if not models or len(set(names)) < len(names):
        raise ValueError(
            f"there must be at least one network, and no two of one name, got {', '.join(names) or 'none'}"
        )


def _studied(
    model: Model,
    D: OptimalDenoiser,
    guided: Guided | None,
    plan: Plan,
    apart: Apart | None,
    border: Border,
    doubt: str | None,
    progress: bool,
) -> Studied:
    effort, seed, level = plan.effort, plan.seed, plan.level
    asked, arguments = as_meant(model, plan.steps, seed)
    places: list[Any] = [None, *([] if apart is None else [apart]), "trajectory"]
    measured = []
    for on in places:
        found = measure(
            asked,
            guided or D,
            on=on,
            sigmas=plan.sigmas,
            draws=effort.draws,
            seed=seed,
            level=level,
            progress=progress,
        )
        measured.append(dataclasses.replace(found, border=border))
    first, steps = float(arguments["sigmas"][0]), len(arguments["sigmas"]) - 1
    unit = torch.randn((effort.samples, *D.event), generator=stream(seed, "evaluation-noises", 1), dtype=torch.float32)
    calls: list[int] = []
    ends = sample(asked, first * unit, callback=lambda state: calls.append(state.nfe), progress=progress, **arguments)
    finite = bool(torch.isfinite(ends).all())
    audited = audit(D, ends, level=level, any_range=True, progress=progress) if finite else None
    pairs, row = own_pairs(model), None
    if pairs is not None:
        methods: Any = {model.name: as_meant(model, plan.steps, seed)}
        (row,) = samplers(methods, D, n=effort.samples, seed=seed, pairs={model.name: pairs}, level=level)
    densities, lost = _densities(asked, D, plan)
    student = model.meant is not None
    return Studied(model.name, measured, ends, audited, calls[-1], first, steps, student, doubt, row, densities, lost)


def _densities(model: Model, D: OptimalDenoiser, plan: Plan) -> tuple[list[Density], str | None]:
    """Those of a network that is not the optimum, nor a student, whose answers are no means."""
    if not plan.effort.likelihood or not has_density(model):
        return [], None
    sources: dict[str, Any] = {"data": None} | ({} if plan.held_out is None else {"held-out": plan.held_out})
    options: dict[str, Any] = {"points": plan.effort.likelihood, "seed": plan.seed, "level": plan.level}
    try:
        return [density(model, D, source, on, **options) for on, source in sources.items()], None
    except ValueError as error:
        return [], str(error)


def _sentence(measured: Measured) -> str:
    if measured.columns["gap"].value.any():
        return measured.sentence()
    border = "" if measured.border is None else f"; border {measured.border.sigma:.3g}"
    return f"{measured.name} on {measured.on}: the optimum itself, without a gap at any noise level{border}"


def _shared(models: Sequence[Model], model: Model) -> tuple[float, float]:
    """The noise levels of all networks; where these share none, of the one."""
    low, high = max(each.sigma_min for each in models), min(each.sigma_max for each in models)
    return (low, high) if low < high else (model.sigma_min, model.sigma_max)
