"""Before measuring: is the network asked in its own convention?

A network that is asked in another one answers with plausible numbers. But two answers are to be had without any
network, x itself and the mean of the data, and one that was trained at all is no worse than either:

    E‖F(x, σ) − x0‖² <= E‖x − x0‖² = σ² dim   at small σ,      E‖F(x, σ) − x0‖² <= E‖ȳ − x0‖²   at large σ

with x = x0 + σ ε on the data. Where that fails, the network is asked again in the other conventions of
`neural.adapters`, and the one that fits best is named. That is a question, not a verdict: a network that was hardly
trained fails, too, and one that passes may still be asked a little beside its steps.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from optimal import OptimalDenoiser
from optimal.denoiser import Denoiser
from optimal.draws import draw_indexed
from optimal.process import EDM, VP
from optimal.randomness import stream

from .adapters import Adapted, from_ddpm, from_edm, from_edm_raw, from_flow, from_prediction
from .model import Model, open_model

__all__ = ["conventions", "question", "sanity"]

_BELOW, _ABOVE = 0.1, 10.0
"""The two levels over the data's standard deviation, within the network's range."""
_WORSE = 1.05
"""Share of the trivial risk above which it is worse: a good network may lose a little to the mean at large σ."""
_DRAWS = 64


@dataclass(frozen=True)
class _Draws:
    """x0 and ε at some levels, and the risks of the two answers that need no network."""

    x0: Tensor
    eps: Tensor
    levels: tuple[float, ...]
    trivial: tuple[float, ...]

    def risks(self, F: Denoiser) -> list[float]:
        """E‖F − x0‖² at each level over the trivial risk there; inf where it is no number."""
        out = []
        for level, trivial in zip(self.levels, self.trivial, strict=True):
            answer = F(self.x0 + level * self.eps, level)
            risk = float((answer - self.x0).double().flatten(1).square().sum(1).mean()) / trivial
            out.append(risk if math.isfinite(risk) else math.inf)
        return out


def sanity(model: Denoiser, D: OptimalDenoiser, *, labels: Any = None, seed: int = 0) -> str | None:
    """One line where a network answers worse than it could without being asked, None where it does not.

    Args:
        model: what `neural.open_model` takes in memory, or a `Model`. The other conventions are those of its network.
        D: the optimum of the data.
        labels: class labels, where the network wants them: one for all rows, or one for each point of D.
        seed: of the 64 draws.

    Returns:
        None for students and consistency functions, too, which answer with points; else
        "worse than returning x at sigma = …" or "worse than the mean of the data at sigma = …: is this the right
        convention?", with the convention that fits best among those tried.

    Raises:
        ValueError: the network fails; it is asked at points of another shape; labels of another number.

    Example:
        >>> from optimal import load
        >>> D = OptimalDenoiser(load("two-points"))
        >>> sanity(D, D) is None
        True
        >>> sanity(lambda x, sigma: x - D(x, sigma), D).partition(" at ")[0]    # the noise, not x0
        'worse than returning x'
    """
    asked = model if isinstance(model, Model) else open_model(model)
    if asked.meant is not None or getattr(asked.denoiser, "jumps", False):
        return None
    asked.require_event(D.event, "the data")
    index, x0, eps = draw_indexed(D, None, _DRAWS, stream(seed, "queries"))
    asked = asked if labels is None else asked.given(_of_rows(labels, len(D), index))
    draws = _at_levels(asked, D, x0, eps)
    found = draws.risks(asked)
    low, high = draws.levels
    complaints = (f"returning x at sigma = {low:.3g}", f"the mean of the data at sigma = {high:.3g}")
    worse = [what for what, risk in zip(complaints, found, strict=True) if risk > _WORSE]
    if not worse:
        return None
    line = f"worse than {' and than '.join(worse)}: is this the right convention?"
    risks = dict(_others(asked, D, draws))
    best = min(risks, key=risks.__getitem__, default="")
    if risks.get(best, math.inf) <= _WORSE:
        return f"{line} {best} fits best of {len(risks)} others that were tried"
    return f"{line} none of {len(risks)} others that were tried fits"


def question(models: Sequence[Model], D: OptimalDenoiser, say: Callable[[str], object], *, seed: int = 0) -> None:
    """Say the `sanity` line of each model that has one, as a warning."""
    for model in models:
        line = sanity(model, D, seed=seed)
        if line is not None:
            say(f"warning: {model.name} is {line}")


def _of_rows(labels: Any, size: int, index: Tensor) -> Tensor:
    values = torch.as_tensor(labels)
    if values.ndim == (1 if values.is_floating_point() else 0):
        return values
    if len(values) != size:
        raise ValueError(f"labels must be one for all, or one a point, {size} of them, got {len(values)}")
    return values[index.to(values.device)]


def _at_levels(model: Model, D: OptimalDenoiser, x0: Tensor, eps: Tensor) -> _Draws:
    size = float(D.standard_deviation) or 1.0
    levels = tuple(min(max(share * size, model.sigma_min), model.sigma_max) for share in (_BELOW, _ABOVE))
    near = float((x0 - D.mean.to(x0)).double().flatten(1).square().sum(1).mean())
    far = [level**2 * float(eps.double().flatten(1).square().sum(1).mean()) for level in levels]
    # Where its range ends early, the better of the two answers is not the one that the line names.
    trivial = tuple(max(min(each, near), torch.finfo(torch.float64).tiny) for each in far)
    return _Draws(x0, eps, levels, trivial)


def _others(model: Model, D: OptimalDenoiser, draws: _Draws) -> Iterator[tuple[str, float]]:
    """The larger of both risks in every other convention in which the network can be asked."""
    for name, make in conventions(model.denoiser, D):
        try:
            other = dataclasses.replace(model, denoiser=make(), sigma_min=0.0, sigma_max=math.inf, clip=None)
            yield name, max(draws.risks(other))
        except ValueError:
            continue  # It cannot be asked so.


def conventions(denoiser: Any, D: OptimalDenoiser) -> Iterator[tuple[str, Callable[[], Denoiser]]]:
    """The conventions in which the network of a denoiser can be asked, by the line that says so.

    Args:
        denoiser: what an adapter made, a module, or a function, which is then taken for a network.
        D: the optimum of the data; its standard deviation is one of the σ_d that are tried.
    """
    adapted = isinstance(denoiser, Adapted)
    network: Any = denoiser.asked.network if adapted else denoiser
    options: dict[str, Any] = denoiser.asked.arguments | {"order": denoiser.asked.order} if adapted else {}
    kept = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
    for kind in ("eps", "v", "x0"):
        name = f'from_ddpm(net, alphas_cumprod, "{kind}")'
        yield name, functools.partial(from_ddpm, network, kept, kind, **options)
    for scale in (1, 1000):
        for at in (0, 1):
            said = "".join([", data_at=1" if at else "", f", time_scale={scale}" if scale > 1 else ""])
            yield (
                f"from_flow(net{said})",
                functools.partial(from_flow, network, data_at=at, time_scale=scale, **options),
            )
    yield "from_edm(net)", functools.partial(from_edm, network, **options)
    for size in sorted({0.5, 1.0, round(float(D.standard_deviation), 3) or 1.0}):
        name = f"from_edm_raw(net, sigma_data={size:g})"
        yield name, functools.partial(from_edm_raw, network, sigma_data=size, **options)
    for process, said in ((VP(), "VP()"), (EDM(math.inf), "EDM(math.inf)")):
        for kind in ("eps", "score"):
            name = f'from_prediction(net, "{kind}", process={said})'
            yield name, functools.partial(from_prediction, network, kind, process=process, **options)
