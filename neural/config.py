"""What a training run is: data, network, optimisation. Typed, saved as JSON beside its results, compared by field.

The command line has an option for every field (`python -m neural train --help`) but the data's, which it names itself.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, cast, get_args

import tyro

from optimal import Dataset, load

__all__ = [
    "PRESETS",
    "TECHNIQUES",
    "Distillation",
    "Experiment",
    "Network",
    "Optimisation",
    "differing",
    "experiment_of",
    "from_json",
    "key",
    "longer",
    "student_of",
    "to_json",
]

Technique = Literal["consistency", "progressive", "knowledge", "multistep"]
TECHNIQUES: tuple[Technique, ...] = get_args(Technique)
_TECHNIQUE = f"technique must be one of {', '.join(TECHNIQUES)}"


@dataclass(frozen=True)
class Network:
    """The architecture."""

    kind: Literal["mlp", "unet"] = "mlp"
    """mlp (points, small images) or unet (images)."""
    width: int = 128
    """mlp: width of the hidden layers."""
    depth: int = 3
    """mlp: number of residual blocks."""
    channels: tuple[int, ...] = (32, 64)
    """unet: channels of each resolution, finest first."""
    layers: int = 2
    """unet: residual blocks of each resolution."""
    attention: tuple[int, ...] = ()
    """unet: sides, in pixels, of the resolutions with self-attention."""
    precondition: Literal["edm", "none"] = "edm"
    """edm (Karras et al. 2022, Table 1) or none (the paper's plain x_theta)."""

    def __post_init__(self) -> None:
        _require(self.kind in ("mlp", "unet"), "network.kind must be mlp or unet", self.kind)
        _require(self.width >= 1, "width must be at least 1", self.width)
        _require(self.depth >= 0, "depth must be at least 0", self.depth)
        _require(self.layers >= 1, "layers must be at least 1", self.layers)


@dataclass(frozen=True)
class Optimisation:
    """How a loss is minimised."""

    steps: int = 8000
    """Number of optimiser steps."""
    batch: int = 1024
    """Samples of a step, all processes together."""
    optimizer: Literal["adam", "muon"] = "adam"
    """adam, or muon: Muon for the matrices between hidden layers (mlp only), at ten times lr, Adam for the rest."""
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
    weighting: Literal["edm", "none", "snr", "snr1"] = "edm"
    """Of the squared error: edm (1/c_out²), none (Eq. 26), snr (1/sigma²) or snr1 (max(1, 1/sigma²))."""
    flip: bool = False
    """Whether images are mirrored left to right, each with probability ½. The optimum of such a training is that of
    data with their mirrors, `load(…, xflip=True)`, which the presets use instead."""
    bf16: bool = False
    """Whether the network is run under bfloat16 autocast."""
    compile: bool = False
    """Whether the network is compiled (torch.compile)."""
    seed: int = 0
    """Of the weights and of all draws."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate"):
            _require(getattr(self, name) >= 1, f"{name} must be at least 1", getattr(self, name))
        for name in ("lr", "clip", "sigma_min"):
            _require(0 < getattr(self, name) < math.inf, f"{name} must be positive and finite", getattr(self, name))
        _require(self.warmup >= 0, "warmup must not be negative", self.warmup)
        _require(0 <= self.ema < 1, "ema must lie in [0, 1)", self.ema)
        _require(math.isfinite(self.P_mean), "P_mean must be finite", self.P_mean)
        _require(0 <= self.P_std < math.inf, "P_std must be finite and not negative", self.P_std)
        _require(self.sigma_min < self.sigma_max < math.inf, "sigma_max must lie above sigma_min", self.sigma_max)
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


@dataclass(frozen=True)
class Distillation:
    """One student."""

    technique: Technique = "consistency"
    """consistency, progressive, knowledge or multistep."""
    teacher: str = "optimum"
    """optimum (of the data), or the folder of a trained network."""
    points: int = 32
    """Noise levels of the grid above 0 (EDM's, rho = 7); for progressive, the steps of the first teacher; for
    multistep, the levels that the student is trained at."""
    solver: Literal["euler", "heun"] = "heun"
    """The teacher's on that grid: euler or heun. progressive: always euler (DDIM). The pairs of knowledge and multistep
    come from the exact flow, without grid, where the teacher is the optimum."""
    pairs: int = 0
    """knowledge, multistep: how many noises and end points are computed once; 0: fresh ones are made while training."""
    uses: int = 8
    """knowledge, multistep with fresh pairs: how many times one is drawn before it is gone, on average."""
    experiment: Annotated[Experiment, tyro.conf.arg(name="")] = field(default_factory=Experiment)
    """Data, the student's network and its optimisation; for progressive, steps are those of each stage."""

    def __post_init__(self) -> None:
        _require(self.technique in TECHNIQUES, _TECHNIQUE, repr(self.technique))
        _require(self.solver in ("euler", "heun"), "solver must be euler or heun", repr(self.solver))
        least = 2 if self.technique == "progressive" else 1
        _require(self.points >= least, f"points must be at least {least}", self.points)
        _require(self.pairs >= 0, "pairs must not be negative", self.pairs)
        _require(self.uses >= 1, "uses must be at least 1", self.uses)


def _require(holds: bool, rule: str, value: Any) -> None:
    if not holds:
        raise ValueError(f"{rule}, got {value}")


PRESETS: dict[str, Experiment] = {
    "toy": Experiment("five-deltas", network=Network(depth=2), optimisation=Optimisation(steps=5000)),
    "digits": Experiment(
        "digits",
        network=Network(width=384, depth=3),
        optimisation=Optimisation(
            steps=2000, batch=1024, optimizer="muon", lr=4e-3, noise="log_normal", P_mean=0.1, P_std=1.4
        ),
    ),
    "faces": Experiment(
        "faces",
        {"xflip": True},
        Network(kind="unet", channels=(32, 64, 64), layers=1),
        Optimisation(steps=4000, batch=64, lr=1e-3),
    ),
    "emoji-16": Experiment(
        "emoji",
        {"size": 16},
        Network(kind="unet", channels=(32, 64, 64), layers=2),
        Optimisation(steps=10_000, batch=64, lr=1e-3),
    ),
    # Karras et al. 2022's DDPM++ at 64×64 in size; trains on a GPU, and was only constructed here.
    "ffhq-64": Experiment(
        "ffhq-64x64.zip",
        {"xflip": True},
        network=Network(kind="unet", channels=(128, 256, 256, 256), layers=4, attention=(16,)),
        optimisation=Optimisation(
            steps=390_000, batch=512, lr=2e-4, warmup=20_000, ema=0.9999, noise="log_normal", bf16=True
        ),
    ),
}
"""Trainings by name: toy, digits, faces, emoji-16, and ffhq-64, which needs a GPU."""


_STUDENTS: dict[str, dict[str, tuple[int, int, float, Any, float]]] = {
    "toy": {
        "consistency": (4000, 40, 0.95, "none", 2e-3),
        "progressive": (600, 256, 0.98, "edm", 1e-3),
        "knowledge": (2000, 32, 0.995, "edm", 1e-3),
        "multistep": (3000, 32, 0.995, "none", 1e-3),
    },
    "digits": {
        "consistency": (1000, 18, 0.95, "none", 2e-3),
        "progressive": (350, 16, 0.98, "edm", 2e-3),
        "knowledge": (1000, 16, 0.99, "edm", 2e-3),
        "multistep": (1000, 16, 0.99, "none", 2e-3),
    },
}
"""Optimiser steps (of a stage), grid points of the teacher, decay of the average, weighting, learning rate. The target
of consistency distillation is its average: at 0.995 only half of the toy's noises land right after as many steps. On
coarser grids the teacher's own steps move mass between the toy's points: Wasserstein distance 0.16 for 18 of Heun's,
0.27 for 32 of Euler's, however well the student is trained."""
_USES = {"toy": 16, "digits": 16}
"""How often a pair is drawn. On a fixed number of them a student learns these."""
_BATCH = {"toy": 1024, "digits": 256}
"""At small batches Muon's own products would take most of the time: students are trained with Adam."""
_LOWEST = 0.02
"""Lowest level of the students' grids."""
_OF_TECHNIQUE: dict[Technique, dict[str, Any]] = {
    "consistency": {"ema": 0.95, "weighting": "none"},
    "progressive": {"weighting": "edm"},
    "knowledge": {"weighting": "none"},
    "multistep": {"weighting": "none"},
}
"""For other data. The average of a consistency student is its target, and has to follow it. What a multi-step student
is asked for is the same point at every level, and so is what an error there costs: 1/σ² would leave the weight to the
lowest levels, where the answer is all but x."""


def student_of(preset: str, technique: str) -> Distillation:
    """How a preset's data are distilled: toy and digits as in the figures, others with their preset's training, changed
    where the technique asks for it.

    Raises:
        ValueError: an unknown preset or technique.
    """
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}; known are {', '.join(PRESETS)}")
    _require(technique in TECHNIQUES, _TECHNIQUE, repr(technique))
    name = cast(Technique, technique)
    experiment, solver = PRESETS[preset], "euler" if name == "progressive" else "heun"
    if preset not in _STUDENTS:
        options = dataclasses.replace(experiment.optimisation, **_OF_TECHNIQUE[name])
        return Distillation(name, solver=solver, experiment=dataclasses.replace(experiment, optimisation=options))
    steps, points, ema, weighting, lr = _STUDENTS[preset][name]
    options = dataclasses.replace(
        experiment.optimisation,
        steps=steps,
        batch=_BATCH[preset],
        optimizer="adam",
        lr=lr,
        ema=ema,
        weighting=weighting,
        sigma_min=_LOWEST,
    )
    experiment = dataclasses.replace(experiment, optimisation=options)
    return Distillation(name, points=points, solver=solver, uses=_USES[preset], experiment=experiment)


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
        ValueError: no JSON, or fields that this kind does not have.
    """
    return _build(kind, json.loads(text))


def _build(kind: Any, values: dict[str, Any]) -> Any:
    known = {f.name: f for f in dataclasses.fields(kind)}
    unknown = [name for name in values if name not in known]
    if unknown:
        raise ValueError(f"{kind.__name__} has no field {unknown[0]!r}; it has {', '.join(known)}")
    nested = {"network": Network, "optimisation": Optimisation, "experiment": Experiment}
    built = {}
    for name, value in values.items():
        if name in nested:
            value = _build(nested[name], value)
        elif isinstance(value, list):
            value = tuple(value)
        built[name] = value
    return kind(**built)


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
    """16 hex digits that change with the configuration."""
    return hashlib.blake2b(to_json(config).encode(), digest_size=8).hexdigest()
