"""A pretrained diffusers pipeline on disk as a denoiser: read, and held against what it says of itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optimal.packages import required

from .adapted import Adapted
from .clipping import Given
from .quietly import quiet
from .ranges import OURS, Values
from .scheduled import from_unet, require_known

__all__ = ["encoder_of", "from_diffusers"]

_NETWORK = "UNet2DModel"
_ENCODERS = ("vae", "vqvae", "vqmodel", "movq", "text_encoder")
"""Parts of a pipeline whose network does not work on images, or not on them alone."""


def from_diffusers(
    folder: str | Path,
    *,
    clip: Given = None,
    event: tuple[int, ...] | None = None,
    value_range: Values = OURS,
    **arguments: Any,
) -> Adapted:
    """The `UNet2DModel` and scheduler of a pipeline saved on disk, as a `Denoiser`.

    It is asked as `neural.adapters.from_unet` says, and x0_hat is clipped as its scheduler clips it. Nothing is
    downloaded; only safetensors are read, and all of them have to be there.

    Args:
        folder: with unet/ and scheduler/, as pipelines are saved, or with both configurations in one place; or a
            pipeline's unet/ itself, beside its scheduler/, for a network of latents: x and the data are then latents.
        clip: instead of the scheduler's: x0_hat is cut at ±clip, or (low, high); False for not at all.
        event: the shape of points that it is asked at, where that is another one than it was made for.
        value_range: as for `from_unet`.
        **arguments: given to the network at every call: class_labels, say.

    Returns:
        (x, sigma) -> x0_hat, with the scheduler's range as attributes sigma_min and sigma_max, and the shape of its
        images as event. It raises ValueError for a σ outside them and for x of another shape.

    Raises:
        ValueError: no such checkpoint in the folder, a damaged file, weights that are missing, left over or of another
            shape, a network of another class, a pipeline that works on latents, or a scheduler or prediction type that
            `from_unet` does not know.
    """
    folder = Path(folder).expanduser()
    weights = folder / "unet" if (folder / "unet").is_dir() else folder
    schedule = next((place for place in (folder / "scheduler", folder.parent / "scheduler") if place.is_dir()), folder)
    if (folder / "scheduler_config.json").is_file():
        schedule = folder
    _require_pixels(folder)
    about, config = _read(schedule / "scheduler_config.json", folder), _read(weights / "config.json", folder)
    if config.get("_class_name", _NETWORK) != _NETWORK:
        raise ValueError(f"the network of {folder} is a {config['_class_name']}, and only {_NETWORK} is understood")
    name = str(about.get("_class_name", ""))
    require_known(name)
    network, scheduler = _network(weights, folder), _scheduler(name, about, schedule)
    return from_unet(network, scheduler, clip=clip, event=event, value_range=value_range, **arguments)


def _read(path: Path, folder: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except OSError as error:
        if not folder.is_dir():
            said = f"{folder} is {'a file' if folder.exists() else 'not there'}"
        else:
            said = f"{folder} holds no unconditional diffusers checkpoint: {path} {_why(error)}"
        raise ValueError(
            f"{said}; a pipeline is a folder with unet/config.json and scheduler/scheduler_config.json, or "
            "with both files in one place"
        ) from error
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged: it holds a {type(found).__name__}, no configuration")
    return found


def _why(error: OSError) -> str:
    return "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror or error})"


def _require_pixels(folder: Path) -> None:
    index = folder / "model_index.json"
    if not index.exists():
        return
    pipeline = _read(index, folder)
    found = encoder_of(pipeline)
    if found is not None:
        raise ValueError(
            f"{folder} is a {pipeline.get('_class_name', 'pipeline')} with a {found}: its network does not work on "
            "images; it is measured on latents where the data are a .npy of them, (N, C, H, W), scaled as in its "
            "training, with the options layout NCHW and value_range any, and it is named by its own folder, "
            f"diffusers:{folder / 'unet'}"
        )


def encoder_of(parts: Mapping[str, Any]) -> str | None:
    """The name of a part that stands between a pipeline's network and images, None where there is none."""
    return next((name for name in _ENCODERS if parts.get(name) not in (None, [None, None])), None)


def _scheduler(name: str, config: dict[str, Any], folder: Path) -> Any:
    required("a scheduler of diffusers", "diffusers")
    import diffusers

    try:
        with quiet():
            return getattr(diffusers, name).from_config(config)
    except (NotImplementedError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"{folder / 'scheduler_config.json'} does not describe a {name}: {error}") from error


def _network(weights: Path, folder: Path) -> Any:
    required("a pipeline of diffusers", "diffusers")
    from diffusers.models.unets.unet_2d import UNet2DModel

    loading: Any = UNet2DModel
    try:
        with quiet():
            net, report = loading.from_pretrained(
                weights,
                use_safetensors=True,
                local_files_only=True,
                low_cpu_mem_usage=False,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except OSError as error:
        sentence = f"{folder} holds no unconditional diffusers checkpoint in safetensors: {error}"
        raise ValueError(" ".join(sentence.split())) from error
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"the network of {folder} could not be read: {reason}") from error
    wrong = {
        "missing": report["missing_keys"],
        "left over": report["unexpected_keys"],
        "of another shape": report["mismatched_keys"],
    }
    said = "; ".join(f"{len(names)} {what} ({_first(names)})" for what, names in wrong.items() if names)
    if said:
        raise ValueError(f"the weights in {weights} are not those of its config.json: {said}")
    return net.eval()


def _first(names: Any) -> str:
    listed = sorted(name if isinstance(name, str) else str(name[0]) for name in names)
    return ", ".join(listed[:3]) + (", …" if len(listed) > 3 else "")
