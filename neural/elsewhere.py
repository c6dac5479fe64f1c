"""What people have that is no run of ours, and how it is opened instead: one sentence for each.

A run is a folder of `neural.checkpoint`. Weights alone, a state_dict or a pickled module, need the network that they
are of: `python:package.module.function` names the function that builds it. What is pickled is looked at from outside
and never unpickled: a pickle runs what it says.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from . import checkpoint
from .pretrained.shelf import names
from .saved import is_distillation

__all__ = ["EXAMPLE", "require_run"]

EXAMPLE = 'docs/networks.md, "From a file of weights", has an example'
_FUNCTION = (
    "name a function of yours that builds the network, gives it these weights and returns it, as "
    f"python:package.module.function ({EXAMPLE})"
)
_PICKLED = (".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin")
_WEIGHTS = (*_PICKLED, ".safetensors", ".msgpack", ".h5", ".onnx")
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def require_run(path: str | Path) -> None:
    """Raise ValueError where a path is known as something else than a run, with how that is opened.

    Args:
        path: of a folder or a file, or what was meant as another name.
    """
    named, place = str(path), Path(path).expanduser()
    if place.is_file():
        said = _of_file(named, place)
    elif place.is_dir():
        said = _of_folder(named, place)
    else:
        said = None if place.exists() else _of_name(named)
    if said is not None:
        raise ValueError(said)


def _of_file(named: str, place: Path) -> str | None:
    kind = place.suffix.lower()
    if kind == ".safetensors":
        try:
            ours = bool(checkpoint.kind(place))
        except ValueError:
            return None  # What is damaged is said where it is read.
        return None if ours else f"{named} holds weights of another program, without their network: {_FUNCTION}"
    if kind == ".py":
        return f"{named} is a module: a function in it that returns a network is named python:{place.stem}.function"
    if place.name == "model_index.json":
        return f"{named} is of a pipeline of diffusers: its folder is named diffusers:{_parent(named)}"
    with place.open("rb") as file:
        start = file.read(2)
    # PyTorch writes zip archives, and before 1.6 wrote bare pickles.
    if kind in _PICKLED or start in (b"PK", b"\x80\x02"):
        return f"{named} holds weights or a network as PyTorch pickles them, and is not unpickled here: {_FUNCTION}"
    return f"{named} holds no network that is known: {_FUNCTION}" if kind in _WEIGHTS else None


def _of_folder(named: str, place: Path) -> str | None:
    if checkpoint.checkpoints(place) or is_distillation(place):
        return None
    parted = (place / "unet").is_dir() or (place / "scheduler").is_dir()
    if (place / "model_index.json").is_file() or (place / "scheduler_config.json").is_file() or parted:
        return f"{named} is a pipeline of diffusers: it is named diffusers:{named}"
    of_diffusers = _is_of_diffusers(place / "config.json")
    if of_diffusers and (place.parent / "scheduler").is_dir():
        return f"{named} is the network of a pipeline of diffusers: it is named diffusers:{named}"
    if of_diffusers:
        return (
            f"{named} holds a network of diffusers without the scheduler that says what it predicts: save the latter "
            f"into the same folder and name it diffusers:{named}, or name a function of yours that returns "
            f"from_unet(network, scheduler), as python:package.module.function ({EXAMPLE})"
        )
    weights = sorted(each.name for each in place.iterdir() if each.suffix.lower() in _WEIGHTS)
    if weights:
        return f"{named} is no folder of a run, and {weights[0]} in it has no network with it: {_FUNCTION}"
    return None


def _is_of_diffusers(path: Path) -> bool:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and "_diffusers_version" in found


def _of_name(named: str) -> str | None:
    nowhere = f"no checkpoint in {named}: there is no such folder or file"
    if named in names():
        return f"{nowhere}; the network of that name that comes with the toolkit is pretrained:{named}"
    if Path(named).suffix.lower() in (*_WEIGHTS, ".py"):
        return None
    if _DOTTED.fullmatch(named):
        return f"{nowhere}; a function {named.rpartition('.')[2]} of one's own is named python:{named}"
    if re.fullmatch(r"[\w.-]+\.py:\w+|[A-Za-z_][\w.]*:\w+", named):
        module, _, function = named.rpartition(":")
        return f"{nowhere}; a function of one's own is named python:{module.removesuffix('.py')}.{function}"
    return None


def _parent(named: str) -> str:
    return str(Path(named).parent)
