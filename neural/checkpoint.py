"""Checkpoints: one safetensors file a step, with the configuration in its header.

A file holds everything that the next step depends on: weights, their average, the optimiser's moments, the random
states of every process and the step. It is written under a temporary name, flushed to disk and renamed, so that a run
killed at any moment leaves whole files only. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from optimal.packages import required
from optimal.storage import replacing

from .config import differing, from_json, to_json

__all__ = [
    "FORMAT",
    "about",
    "check",
    "checkpoints",
    "is_sound",
    "kind",
    "latest",
    "optimizer_tensors",
    "pack",
    "path_of",
    "read",
    "replace_text",
    "require_same",
    "restore_optimizer",
    "unpack",
    "write",
]

_NAME = re.compile(r"step-(\d{9})\.safetensors")
FORMAT = "4"
"""Raise it whenever networks, training or files change what a configuration means: what is older is not gone on with,
and not found in the cache."""
_READ = ("3", FORMAT)
"""Those whose networks are still what their configuration says."""
_ABOUT = ("name", "fingerprint", "event", "sigma_data")
"""What every checkpoint says of its data."""
_STEPS = "optimisation.steps"


def write(folder: str | Path, step: int, tensors: dict[str, Tensor], config: Any, data: Mapping[str, Any]) -> Path:
    """Write one checkpoint, and config.json beside it; returns the file. `data`: what `about` is to give back.

    Raises:
        ValueError: the folder cannot be written, or a tensor cannot be kept (see `check`).
    """
    check(tensors)
    folder, path = Path(folder), path_of(folder, step)
    text = to_json(config)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_text(folder / "config.json", text + "\n")
        contiguous = _apart(tensors)
        header = {"format": FORMAT, "step": str(step), "kind": type(config).__name__, "config": text}
        header |= {"data": json.dumps(dict(data)), "digest": _digest(contiguous)}
        with replacing(path) as temporary:
            _safetensors().torch.save_file(contiguous, temporary, metadata=header)
    except (OSError, _safetensors().SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"the checkpoint could not be written to {folder}: {reason}") from error
    return path


def path_of(folder: str | Path, step: int) -> Path:
    """The file of a step."""
    return Path(folder) / f"step-{step:09d}.safetensors"


def check(tensors: Mapping[str, Any]) -> None:
    """Whether a file can hold all of these, which takes no time compared with a step.

    Raises:
        ValueError: one cannot be kept: it is no tensor, sparse, or of a type that safetensors lacks; it is named.
    """
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            reason = f"it is a {type(tensor).__name__}, no tensor"
        elif tensor.layout != torch.strided:
            reason = f"its layout is {str(tensor.layout).removeprefix('torch.')}"
        else:
            try:
                _safetensors().torch.save({"one": torch.zeros(1, dtype=tensor.dtype)})
                continue
            except (KeyError, ValueError, _safetensors().SafetensorError):
                reason = f"its type is {str(tensor.dtype).removeprefix('torch.')}"
        raise ValueError(f"a checkpoint keeps dense tensors of real numbers only, {name} cannot be kept: {reason}")


def replace_text(path: str | Path, text: str) -> None:
    """Write a file whole, under a temporary name first."""
    with replacing(Path(path)) as temporary:
        temporary.write_text(text)


def checkpoints(folder: str | Path) -> list[Path]:
    """The checkpoint files in a folder, by step."""
    return sorted(path for path in Path(folder).glob("step-*.safetensors") if _NAME.fullmatch(path.name))


def latest(folder: str | Path) -> Path:
    """The file of the highest step, or the file itself where one is named.

    Raises:
        ValueError: there is none.
    """
    folder = Path(folder)
    if folder.is_file():
        return folder
    if not folder.exists():
        raise ValueError(f"no checkpoint in {folder}: there is no such folder or file")
    found = checkpoints(folder)
    if not found:
        raise ValueError(f"no checkpoint (step-….safetensors) in {folder}")
    return found[-1]


def read(path: str | Path, config_type: type, *, gone_on_with: bool = False) -> tuple[dict[str, Tensor], int, Any]:
    """The tensors, the step and the configuration of a checkpoint.

    Args:
        path: the file.
        config_type: class of its configuration.
        gone_on_with: whether training is to go on from it, which takes a file of this version.

    Raises:
        ValueError: damaged, of another kind, or of another version.
    """
    tensors, header = _load(path)
    if header.get("kind") != config_type.__name__:
        raise ValueError(
            f"{path} is a checkpoint of a {header.get('kind', 'foreign program')}, not of a {config_type.__name__}"
        )
    if header.get("format") not in _READ:
        raise ValueError(f"{path} was made by another version of this program: train again")
    if gone_on_with and header.get("format") != FORMAT:
        raise ValueError(
            f"{path} was made by another version of this program, which drew other random numbers: its network can be "
            "used, but not trained on"
        )
    missing = [name for name in ("config", "step", "data") if name not in header]
    if missing:
        raise ValueError(f"{path} is a damaged checkpoint: its header lacks {', '.join(missing)}")
    try:
        return tensors, int(header["step"]), from_json(config_type, header["config"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is a damaged checkpoint: {error}") from error


def require_same(path: str | Path, there: Any, here: Any) -> None:
    """Whether a checkpoint's configuration is the one that is asked for.

    Raises:
        ValueError: it is another; the first differing fields are named.
    """
    fields = differing(there, here)
    if fields:
        values = "; ".join(f"{name}: {_value(there, name)!r} there, {_value(here, name)!r} here" for name in fields[:4])
        only_longer = fields in ([_STEPS], [f"experiment.{_STEPS}"])
        advice = "; extend=True (--extend) makes a run longer" if only_longer else ""
        raise ValueError(f"{path} was made with another configuration: {values}{advice}")


def is_sound(path: str | Path) -> bool:
    """Whether a file is a whole checkpoint of this version, its tensors those that were written."""
    try:
        return _load(path)[1].get("format") == FORMAT
    except ValueError:
        return False


def about(path: str | Path) -> dict[str, Any]:
    """What a checkpoint says of its data: name, fingerprint, event, sigma_data; pairs of a student, if it had some.

    Raises:
        ValueError: no checkpoint, or a damaged one.
    """
    try:
        with _safetensors().safe_open(path, framework="pt") as file:
            found = json.loads((file.metadata() or {}).get("data", "{}"))
    except (OSError, _safetensors().SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is no checkpoint, or a damaged one: {error}") from error
    missing = [name for name in _ABOUT if not isinstance(found, dict) or name not in found]
    if missing:
        raise ValueError(f"{path} is no checkpoint, or a damaged one: it does not say the {', '.join(missing)} of data")
    return found


def kind(path: str | Path) -> str:
    """The class name of a checkpoint's configuration; empty for another file."""
    try:
        with _safetensors().safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("kind", "")
    except (OSError, _safetensors().SafetensorError) as error:
        raise ValueError(f"{path} is no checkpoint, or a damaged one: {error}") from error


def pack(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The same under prefix.name."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def unpack(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those under prefix.name, by name."""
    start = prefix + "."
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as tensors: index.name of every parameter's moments."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value for index, entry in state.items() for name, value in entry.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put `optimizer_tensors` back.

    Raises:
        ValueError: there are none, or of more parameters than it has.
    """
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, _, field = name.partition(".")
        state.setdefault(int(index), {})[field] = value
    weights = sum(len(group["params"]) for group in optimizer.param_groups)
    # Weights that no gradient ever reached have none.
    if not state or max(state) >= weights:
        raise ValueError(f"it has moments of {max(state, default=-1) + 1} parameters, the optimiser is of {weights}")
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _safetensors() -> Any:
    """The library of the files."""
    required("a checkpoint", "safetensors")
    import safetensors.torch

    return safetensors


def _load(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with _safetensors().safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, _safetensors().SafetensorError) as error:
        raise ValueError(f"{path} is no checkpoint, or a damaged one: {error}") from error
    if header.get("digest", "") not in ("", _digest(tensors)):
        raise ValueError(f"{path} is a damaged checkpoint: its tensors are not those that were written")
    return tensors, header


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous, on the CPU, no two in the same memory: tied weights and views are written once for every name."""
    out: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        value = tensor.detach().cpu().contiguous()
        if value.untyped_storage().data_ptr() in taken:
            value = value.clone()
        taken.add(value.untyped_storage().data_ptr())
        out[name] = value
    return out


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """16 hex digits of names and bytes."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _value(config: Any, name: str) -> Any:
    for part in name.split("."):
        config = getattr(config, part)
    return config
