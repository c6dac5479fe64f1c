"""What a training run is: data, network, optimisation. Typed, saved as JSON beside its results, compared by field.

The command line has an option for every field (`python -m neural train --help`) but the data's, which it names itself.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args

import tyro

from optimal import Dataset, load

__all__ = [
    "TECHNIQUES",
    "Distillation",
    "Experiment",
    "Network",
    "Optimisation",
    "Technique",
    "differing",
    "experiment_of",
    "from_json",
    "key",
    "longer",
    "to_json",
]

_LATER = {"uses": 8, "classes": 0, "label_dropout": 0.1, "patch": 2, "target_points": 256}
"""Fields that configurations of earlier versions do not have, and what they then are."""
_UNSEEN = ("classes", "label_dropout", "patch", "target_points")
"""Those of them of which `key` sees nothing while they are what they then are: what is cached stays where it is."""

Technique = Literal["consistency", "progressive", "knowledge", "multistep"]
TECHNIQUES: tuple[Technique, ...] = get_args(Technique)

_RENAMED = {"points": "levels"}
"""Fields of distillations as they were called in files of earlier versions, which are still read."""
_WIDEST, _DEEPEST, _MOST, _LARGEST = 2**16, 1000, 2**40, 1e30
"""Slips of the finger lie above: a network of 10²⁰ blocks would be built without end."""


@dataclass(frozen=True)
class Network:
    """The architecture."""

    kind: Literal["mlp", "unet", "dit"] = "mlp"
    """mlp (points, small images), unet or dit, a transformer on patches (both images)."""
    width: int = 128
    """mlp: width of the hidden layers; dit: values of a token, a multiple of 32."""
    depth: int = 3
    """mlp, dit: number of residual blocks."""
    channels: tuple[int, ...] = (32, 64)
    """unet: channels of each resolution, finest first."""
    layers: int = 2
    """unet: residual blocks of each resolution."""
    attention: tuple[int, ...] = ()
    """unet: sides, in pixels, of the resolutions with self-attention."""
    patch: int = 2
    """dit: side of a patch, in pixels."""
    precondition: Literal["edm", "none"] = "edm"
    """edm (Karras et al. 2022, Table 1) or none (the paper's plain x_theta)."""
    classes: int = 0
    """Labels that the network can be given, 0 to classes - 1; 0: it takes none. Without label it answers for all."""

    def __post_init__(self) -> None:
        _require(self.kind in ("mlp", "unet", "dit"), "network.kind must be mlp, unet or dit", self.kind)
        _require_within("width", self.width, 1, _WIDEST)
        _require_within("depth", self.depth, 0, _DEEPEST)
        _require_within("layers", self.layers, 1, _DEEPEST)
        _require_within("patch", self.patch, 1, _WIDEST)
        for width in self.channels:
            _require_within("channels", width, 1, _WIDEST)
        for side in self.attention:
            _require_within("attention", side, 1, _WIDEST)
        _require(self.classes >= 0, "classes must not be negative", self.classes)
        _require_within("classes", self.classes, 0, _WIDEST)


@dataclass(frozen=True)
class Optimisation:
    """How a loss is minimised."""

    steps: int = 8000
    """Number of optimiser steps."""
    batch: int = 1024
    """Samples of a step, all processes together."""
    optimizer: Literal["adam", "muon"] = "adam"
    """adam, or muon: Muon for the matrices between hidden layers (mlp, dit), at ten times lr, Adam for the rest."""
    lr: float = 1e-3
    """Adam's learning rate at its highest."""
    warmup: int = 200
    """Steps over which the learning rate rises from 0; it then falls to 0 as a cosine."""
    clip: float = 1.0
    """Largest norm of the gradient; it is scaled down to it."""
    ema: float = 0.999
    """Decay of the average of the weights, a step; at most (1 + n)/(10 + n) after n steps."""
    accumulate: int = 1
    """Parts in which a batch is computed."""
    noise: Literal["log_normal", "log_uniform", "uniform_t"] = "log_uniform"
    """Noise levels: log_normal (P_mean, P_std), log_uniform or uniform_t (both between sigma_min and sigma_max)."""
    P_mean: float = -1.2
    """log_normal: mean of ln sigma."""
    P_std: float = 1.2
    """log_normal: standard deviation of ln sigma."""
    sigma_min: float = 0.002
    """Lowest noise level, in units of the data."""
    sigma_max: float = 80.0
    """Highest noise level, in units of the data."""
    target: Literal["x0", "batch", "posterior"] = "x0"
    """Answer that the network learns: x0, the clean point (Eq. 26); posterior, the optimum's own E[x0 | x]; or batch,
    the same over `target_points` points with the clean one among them. All have the same minimiser. With posterior the
    gradients are free of the noise of the target, and with batch the more so the more points there are."""
    target_points: int = 256
    """M of target batch: 1 is x0, all points of the data posterior."""
    weighting: Literal["edm", "none", "snr", "snr1"] = "edm"
    """Weight of the squared error: edm (1/c_out²), none (Eq. 26), snr (1/sigma²) or snr1 (max(1, 1/sigma²))."""
    flip: bool = False
    """Images mirrored left to right, each with probability ½. The optimum of such a training is that of
    data with their mirrors, `load(…, xflip=True)`, which the presets use instead."""
    label_dropout: float = 0.1
    """Share of a batch that is trained without its labels, where the network has classes (Ho, Salimans 2022)."""
    bf16: bool = False
    """The network run under bfloat16 autocast."""
    compile: bool = False
    """The network compiled (torch.compile)."""
    seed: int = 0
    """Seed of the weights and of all draws."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate", "target_points"):
            _require_within(name, getattr(self, name), 1, _MOST)
        for name in ("lr", "clip", "sigma_min"):
            _require(0 < getattr(self, name) < math.inf, f"{name} must be positive and finite", getattr(self, name))
        for name in ("lr", "clip", "sigma_max"):
            _require(getattr(self, name) <= _LARGEST, f"{name} must be at most {_LARGEST:g}", getattr(self, name))
        _require(self.warmup >= 0, "warmup must not be negative", self.warmup)
        _require_within("warmup", self.warmup, 0, _MOST)
        _require(0 <= self.ema < 1, "ema must lie in [0, 1)", self.ema)
        _require(0 <= self.label_dropout <= 1, "label_dropout must lie in [0, 1]", self.label_dropout)
        _require(math.isfinite(self.P_mean), "P_mean must be finite", self.P_mean)
        _require(0 <= self.P_std < math.inf, "P_std must be finite and not negative", self.P_std)
        _require(self.sigma_min < self.sigma_max < math.inf, "sigma_max must lie above sigma_min", self.sigma_max)
        _require(
            self.target in ("x0", "batch", "posterior"), "target must be x0, batch or posterior", repr(self.target)
        )
        _require(
            not self.flip or self.target == "x0",
            f"target {self.target} needs the points that are trained on: load the data with xflip=True, not flip",
            self.flip,
        )
        _require(-(2**63) <= self.seed < 2**63, "seed must fit into 64 bits", self.seed)


@dataclass(frozen=True)
class Experiment:
    """One network on one data set."""

    dataset: tyro.conf.Suppress[str] = "five-deltas"
    """Data: an embedded name, or a path."""
    options: tyro.conf.Suppress[dict[str, Any]] = field(default_factory=dict)
    """Options of the data set."""
    network: Network = field(default_factory=Network)
    optimisation: Optimisation = field(default_factory=Optimisation)

    def __post_init__(self) -> None:
        # As JSON gives them back.
        options = {name: tuple(value) if isinstance(value, list) else value for name, value in self.options.items()}
        object.__setattr__(self, "options", options)

    def load(self) -> Dataset:
        """The data."""
        return load(self.dataset, **self.options)

    def rest(self) -> Dataset | None:
        """What the option `without` has left out of them, for measuring; None where nothing was."""
        options = dict(self.options)
        part = options.pop("without", None)
        return None if part is None else load(self.dataset, **options, only=part)


@dataclass(frozen=True)
class Distillation:
    """One student."""

    technique: Technique = "consistency"
    """consistency, progressive, knowledge or multistep."""
    teacher: str = "optimum"
    """optimum (of the data), or the folder of a trained network."""
    levels: int = 32
    """Noise levels of the grid above 0 (EDM's, rho = 7); for progressive, the steps of the first teacher; for
    multistep, the levels that the student is trained at."""
    solver: Literal["euler", "heun"] = "heun"
    """The teacher's on that grid: euler or heun. progressive: always euler (DDIM). The pairs of knowledge and multistep
    come from the exact flow, without grid, where the teacher is the optimum."""
    pairs: int = 0
    """knowledge, multistep: noises and end points that are computed once; 0: fresh ones are made while training."""
    uses: int = 8
    """knowledge, multistep with fresh pairs: draws for every new pair; 8,192 are there at the start."""
    experiment: Annotated[Experiment, tyro.conf.arg(name="")] = field(default_factory=Experiment)
    """Data, the student's network and its optimisation; for progressive, steps are those of each stage."""

    def __post_init__(self) -> None:
        rule = f"technique must be one of {', '.join(TECHNIQUES)}"
        _require(self.technique in TECHNIQUES, rule, repr(self.technique))
        _require(self.teacher.strip() != "", "teacher must be optimum or the folder of a network", repr(self.teacher))
        _require(self.solver in ("euler", "heun"), "solver must be euler or heun", repr(self.solver))
        least = 2 if self.technique == "progressive" else 1
        _require_within("levels", self.levels, least, _MOST)
        _require(self.pairs >= 0, "pairs must not be negative", self.pairs)
        _require_within("pairs", self.pairs, 0, _MOST)
        _require_within("uses", self.uses, 1, _MOST)


def _require_within(name: str, value: int, least: int, most: int) -> None:
    _require(value >= least, f"{name} must be at least {least}", value)
    _require(value <= most, f"{name} must be at most {most}", f"{value:.3g}")


def _require(holds: bool, rule: str, value: Any) -> None:
    if not holds:
        raise ValueError(f"{rule}, got {value}")


def longer(config: Experiment | Distillation, steps: int) -> Any:
    """The same with more optimiser steps, of which it may have as many as now.

    Raises:
        ValueError: fewer; progressive distillation, whose later stages are taught by its earlier ones.
    """
    experiment = experiment_of(config)
    if steps < experiment.optimisation.steps:
        raise ValueError(
            f"a run can be made longer, not shorter: it has {experiment.optimisation.steps} steps, got {steps}"
        )
    if isinstance(config, Distillation) and config.technique == "progressive":
        raise ValueError("progressive distillation cannot be made longer: its later stages are taught by earlier ones")
    options = dataclasses.replace(experiment.optimisation, steps=steps)
    experiment = dataclasses.replace(experiment, optimisation=options)
    return experiment if isinstance(config, Experiment) else dataclasses.replace(config, experiment=experiment)


def experiment_of(config: Experiment | Distillation) -> Experiment:
    """Data, network and optimisation of either."""
    return config if isinstance(config, Experiment) else config.experiment


def to_json(config: Any) -> str:
    """The configuration, readable, keys in the order of the fields."""
    return json.dumps(dataclasses.asdict(config), indent=2)


def from_json(kind: type, text: str) -> Any:
    """The configuration of this kind that `to_json` wrote.

    Raises:
        ValueError: no JSON, fields that this kind does not have, that are missing, or of another type.
    """
    return _build(kind, json.loads(text))


def _build(kind: Any, values: Any) -> Any:
    if not isinstance(values, dict):
        raise ValueError(f"{kind.__name__} is an object with named fields, got a {type(values).__name__}")
    known = {f.name: f for f in dataclasses.fields(kind)}
    values = {_RENAMED.get(name, name) if kind is Distillation else name: value for name, value in values.items()}
    unknown = [name for name in values if name not in known]
    if unknown:
        raise ValueError(f"{kind.__name__} has no field {unknown[0]!r}; it has {', '.join(known)}")
    missing = [name for name in known if name not in values and name not in _LATER]
    if missing:
        raise ValueError(f"{kind.__name__} lacks {', '.join(missing)}")
    nested = {"network": Network, "optimisation": Optimisation, "experiment": Experiment}
    built = {}
    for name, value in values.items():
        if name in nested:
            value = _build(nested[name], value)
        elif isinstance(value, list):
            value = tuple(value)
        if not _is_like(getattr(kind(), name), value):
            raise ValueError(f"{name} of {kind.__name__} cannot be {json.dumps(values[name])[:60]}")
        built[name] = value
    return kind(**built)


def _is_like(default: Any, value: Any) -> bool:
    """Whether a value has the type that the default of its field has; whole numbers are floats, too."""
    if isinstance(default, tuple):
        return isinstance(value, tuple) and all(type(each) is int for each in value)
    return type(value) is type(default) or (isinstance(default, float) and type(value) is int)


def differing(a: Any, b: Any) -> list[str]:
    """Names of the fields, dotted, in which two configurations of a kind differ."""
    names = []
    for f in dataclasses.fields(a):
        ours, theirs = getattr(a, f.name), getattr(b, f.name)
        if dataclasses.is_dataclass(ours):
            names += [f"{f.name}.{name}" for name in differing(ours, theirs)]
        elif ours != theirs:
            names.append(f.name)
    return names


def key(config: Any) -> str:
    """16 hex digits that change with the configuration, and not with what its fields are called."""
    values = _seen(dataclasses.asdict(config))
    if isinstance(config, Distillation):
        old = {new: name for name, new in _RENAMED.items()}
        values = {old.get(name, name): value for name, value in values.items()}
    return hashlib.blake2b(json.dumps(values, indent=2).encode(), digest_size=8).hexdigest()


def _seen(values: dict[str, Any]) -> dict[str, Any]:
    unseen = {name: _LATER[name] for name in _UNSEEN}
    return {
        name: _seen(value) if isinstance(value, dict) else value
        for name, value in values.items()
        if name not in unseen or value != unseen[name]
    }
