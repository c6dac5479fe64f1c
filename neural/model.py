"""A network as one object: what measuring, sampling and reports take, wherever it came from.

    model = open_model("runs/mine" | "pretrained:NAME" | "diffusers:FOLDER" | "python:package.module.function" | …)
    x0_hat = model(x, sigma)                                   # a `Denoiser`
    ends = sample(model, noises, **model.sampling())

A `Model` knows its noise levels, the shape of its points, its device, how many rows it is asked at once, its class
labels and how it is meant to be sampled. What it is asked is checked here: x of another shape, a noise level outside
its range, labels of another number than rows are one sentence each. x may lie anywhere: its rows go to the model's
device a batch at a time and come back; noise levels go as float64, and reach the network in float32 or float64.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from optimal import karras
from optimal.devices import device_of
from optimal.numbers import require_whole
from optimal.query import Levels, levels, require_points

from .adapters import Adapted
from .adapters.asked import FAILURES, derivatives_wanted, evaluating
from .adapters.clipping import Clip, Given, clip_of
from .adapters.labels import wanted as lacking_labels
from .sources import Source, module_of, source_of, takes_named

__all__ = ["Model", "batch_of", "open_model", "require_batch"]

_RANGE = (0.002, 80.0)
"""EDM's noise levels, where sampling starts and ends unless the model says otherwise."""
_STEPS = 18
_MOST = 4096
_BYTES = {"cpu": 2**28, "other": 2**31}
"""What the activations of one batch may take."""
_MAPS = 16
"""Maps of the width of the first layer that live at once, about; see `batch_of`."""


@dataclass(frozen=True)
class Model:
    """A `Denoiser` with all that is known of it; made by `open_model`.

    Attributes:
        name: what tables call it.
        denoiser: (x, sigma, **arguments) -> x0_hat.
        event: shape of a point; None where any will do.
        sigma_min, sigma_max: the range of its noise levels: 0 and inf where it has none.
        device: where it computes.
        batch: the most rows it is asked at once.
        labels: class labels: () for all rows, (B,) one a row, or (B, K) and (K,) of floating point, one-hot say.
        arguments: further arguments of every call.
        clip: what is done to x0_hat.
        meant: (steps, seed) -> the arguments of `optimal.sample`, of a student; None for Heun's solver on its grid.
        grid: steps -> (steps + 1,) levels, of a pipeline what its scheduler says; None for EDM's.
        run: the folder of the run that it was trained in; None where it was not by `neural.run`.
    """

    name: str
    denoiser: Callable[..., Tensor]
    event: tuple[int, ...] | None = None
    sigma_min: float = 0.0
    sigma_max: float = math.inf
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    batch: int = _MOST
    labels: Tensor | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    clip: Clip | None = None
    meant: Callable[[int | None, int], dict[str, Any]] | None = None
    grid: Callable[[int], Tensor] | None = None
    run: Path | None = None

    def __call__(self, x: Tensor, sigma: Levels, **arguments: Any) -> Tensor:
        """x0_hat, (B, *event), in the dtype and on the device of x; in evaluation mode and without gradients.

        Args:
            x: (B, *event) noisy points.
            sigma: noise levels, within the range of the model: float, () or (B,).
            **arguments: of the network; tensors of B rows go with the rows.

        Raises:
            ValueError: x of another shape than the model's event, sigma outside its range, labels that are not one a
                row, or an answer of another shape.
        """
        require_points(x)
        self.require_event(tuple(x.shape[1:]), "x")
        values = levels(sigma, len(x), torch.device("cpu"))
        self._require_levels(values)
        given = self.arguments | self._labelled(len(x)) | arguments
        with torch.set_grad_enabled(derivatives_wanted()), evaluating(self.denoiser):
            parts = [self._part(x, values, given, rows) for rows in self._batches(len(x))]
        return torch.cat(parts) if parts else x.clone()

    def given(self, labels: Tensor | int | list[int] | None, **arguments: Any) -> Model:
        """The model of a class, or of one class a row, and with further arguments of its network.

        Args:
            labels: () or (B,) whole numbers, or floating-point codes (K,) or (B, K).
            **arguments: of the network, at every call.

        Raises:
            ValueError: labels that are no numbers, or a network that takes none.
        """
        theirs = getattr(self.denoiser, "given", None)
        if labels is not None and theirs is not None:
            return dataclasses.replace(self, denoiser=theirs(labels), arguments=self.arguments | arguments)
        try:
            held = None if labels is None else torch.as_tensor(labels, device=torch.device("cpu"))
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"labels must be numbers, got {str(labels)[:60]!r}") from error
        if held is not None and not takes_named(self.denoiser, "class_labels"):
            raise ValueError(f"{self.name} takes no class_labels, and labels are given")
        return dataclasses.replace(self, labels=held, arguments=self.arguments | arguments)

    def sampling(self, steps: int | None = None, *, seed: int = 0) -> dict[str, Any]:
        """The arguments of `optimal.sample` with which it is sampled as it is meant to be.

        Args:
            steps: of the solver; the default is that of the model: 18 for a denoiser, 1 for a student.
            seed: of the noise that stochastic solvers draw.

        Raises:
            ValueError: a student or a scheduler that has not so many steps.
        """
        if self.meant is not None:
            return self.meant(steps, seed)
        count = _STEPS if steps is None else steps
        if self.grid is not None:
            return {"sigmas": self.grid(count), "solver": "heun"}
        low, high = max(self.sigma_min, _RANGE[0]), min(self.sigma_max, _RANGE[1])
        return {"sigmas": karras(count, sigma_min=low, sigma_max=high), "solver": "heun"}

    def require_event(self, event: tuple[int, ...], what: str) -> None:
        """Raise ValueError unless points of `what` have the shape of the model's."""
        if self.event is not None and event != self.event:
            raise ValueError(f"{self.name} is made for points of shape {self.event}, {what} has {event}")

    def _require_levels(self, values: Tensor) -> None:
        outside = (values < self.sigma_min * (1 - 1e-6)) | (values > self.sigma_max * (1 + 1e-6))
        if outside.any():
            raise ValueError(
                f"sigma must lie between {self.sigma_min:g} and {self.sigma_max:g}, the range of {self.name}, got "
                f"{float(values[outside][0]):g}"
            )

    def _labelled(self, rows: int) -> dict[str, Tensor]:
        labels = self.labels
        if labels is None:
            return {}
        code = labels.is_floating_point()
        if labels.ndim == (1 if code else 0):
            return {"class_labels": labels.expand(rows, *labels.shape)}
        if len(labels) != rows:
            raise ValueError(f"labels must be one, or one a row: {len(labels)} of them for {rows} rows")
        return {"class_labels": labels}

    def _batches(self, rows: int) -> Iterator[slice]:
        return (slice(start, start + self.batch) for start in range(0, rows, self.batch))

    def _part(self, x: Tensor, values: Tensor, given: dict[str, Any], rows: slice) -> Tensor:
        own = {name: self._placed(value, len(x), rows) for name, value in given.items()}
        part = x[rows].to(self.device)
        try:
            out = self.denoiser(part, values[rows].to(self.device), **own)
        except FAILURES as error:
            reason = " ".join(str(error).split())[:200]
            if not isinstance(error, RuntimeError) or not reason:
                reason = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
            hint = lacking_labels(self.denoiser, given)
            reason += f" ({hint})" if hint else ""
            raise ValueError(f"{self.name} failed on points of shape {tuple(x.shape[1:])}: {reason}") from error
        if not isinstance(out, Tensor):
            raise ValueError(f"{self.name} must return a tensor like x, got {type(out).__name__}")
        if out.shape != part.shape:
            raise ValueError(f"{self.name} must return the shape of x, {tuple(part.shape)}, got {tuple(out.shape)}")
        return (out if self.clip is None else self.clip(out)).to(x)

    def _placed(self, value: Any, count: int, rows: slice) -> Any:
        if not isinstance(value, Tensor):
            return value
        return (value[rows] if value.ndim and len(value) == count else value).to(self.device)


def open_model(
    source: Any,
    *,
    device: str | torch.device = "auto",
    batch: int | None = None,
    labels: Tensor | int | list[int] | None = None,
    clip: Given = None,
    event: tuple[int, ...] | None = None,
    name: str | None = None,
    **arguments: Any,
) -> Model:
    """A network from where it is kept, as a `Model`.

    Args:
        source: the folder of a run or a distillation, or a checkpoint file; "pretrained:NAME", a network that comes
            with the toolkit; "diffusers:FOLDER", a pipeline saved on disk; "python:package.module.function", which is
            called without arguments and returns any of what follows; a `Model`; a function or module
            (x, sigma) -> x0_hat, what an adapter makes, or what `neural.foreign` understands as it is.
        device: where it computes. "auto" is a CUDA device, if any, for what is read from disk or made by a function,
            and where it is for what is in memory.
        batch: the most rows that it is asked at once; `batch_of` unless given.
        labels: as for `Model.given`.
        clip: x0_hat is cut at ±clip, or (low, high). None is as the pipeline has it, and not at all for what is no
            pipeline; False for not at all.
        event: the shape of a point, where the source does not say, or for another one than it says.
        name: what tables call it; the source unless given.
        **arguments: of the network, at every call.

    Raises:
        ValueError: nothing that is known as a network, a folder without one, a function that cannot be imported or
            fails, a device that is not there.

    Example:
        >>> model = open_model(lambda x, sigma: x / (1 + sigma.view(-1, 1) ** 2))
        >>> model(torch.ones(1, 2), 1.0)
        tensor([[0.5000, 0.5000]])
    """
    require_batch(batch)
    model = source if isinstance(source, Model) else _model(source_of(source, clip, event), device)
    if isinstance(source, Model) and device != "auto":
        model = _on(model, device_of(device))
    if clip is not None:
        model = _cut(model, clip)
    if event is not None:
        model = _shaped(model, tuple(event))
    if name is not None:
        model = dataclasses.replace(model, name=name)
    if batch is not None or not isinstance(source, Model):
        model = dataclasses.replace(model, batch=batch or batch_of(model.denoiser, model.event, model.device))
    return model.given(labels, **arguments) if labels is not None or arguments else model


def require_batch(batch: int | None) -> None:
    """Raise ValueError for no rows at once."""
    if batch is not None:
        batch = require_whole("batch", batch)


def batch_of(denoiser: Any, event: tuple[int, ...] | None, device: torch.device) -> int:
    """How many rows a network is asked at once, unless told: as many as its activations take 256 MB, or 2 GB on an
    accelerator, at most 4,096.

    A row is taken for 16 maps in float32 of its size and the width of the first layer: 8.1 MB for U-Nets that were
    measured to take 5.8 MB (64x64, 32 channels) and 9.2 MB (32x32, 128 channels with attention).
    """
    network = module_of(denoiser)
    if network is None or event is None:
        return _MOST
    widths = [p.size(0) for p in network.parameters() if p.ndim > 1]
    convolves = any(p.ndim > 2 for p in network.parameters())
    places = math.prod(event[1:]) if len(event) > 1 and convolves else 1
    first = next((p.size(0) for p in network.parameters() if p.ndim > 2), max(widths, default=1))
    bytes_of_a_row = 4 * _MAPS * places * max([first, *event[:1]])
    return max(1, min(_MOST, _BYTES.get(device.type, _BYTES["other"]) // bytes_of_a_row))


def _model(found: Source, device: str | torch.device) -> Model:
    model = Model(
        found.name,
        found.denoiser,
        found.event,
        found.sigma_min,
        found.sigma_max,
        meant=found.meant,
        grid=found.grid,
        run=found.run,
    )
    if found.read or device != "auto":
        return _on(model, device_of(device))
    network = module_of(found.denoiser)
    weights = [] if network is None else [*network.parameters(), *network.buffers()]
    there = weights[0].device if weights else getattr(found.denoiser, "device", None)
    return dataclasses.replace(model, device=torch.device("cpu") if there is None else torch.device(there))


def _on(model: Model, device: torch.device) -> Model:
    network = module_of(model.denoiser)
    if network is not None:
        network.to(device)
    return dataclasses.replace(model, device=device)


def _cut(model: Model, clip: Given) -> Model:
    """Cut as told, whatever the denoiser did by itself."""
    if isinstance(model.denoiser, Adapted):
        return dataclasses.replace(model, denoiser=model.denoiser.clipped(clip), clip=None)
    return dataclasses.replace(model, clip=clip_of(clip))


def _shaped(model: Model, event: tuple[int, ...]) -> Model:
    denoiser = model.denoiser.at(event) if isinstance(model.denoiser, Adapted) else model.denoiser
    return dataclasses.replace(model, denoiser=denoiser, event=event)
