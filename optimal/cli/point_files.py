"""One point from what a user names it by, and points as a PNG grid.

A point of a data set is named by a file (an image, or an array in `.npy`), by its place, @17, by its name in a folder
or zip, cats/a.png, or, where it has one or two values, by these: 0.3 or 0.3,-1.2.
"""

from __future__ import annotations

import difflib
import math
import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..datasets import Dataset, to_float
from ..datasets.pictures import Encoded, decode_images
from ..datasets.values import Values, doubt

__all__ = ["NUMBERS", "place_of", "read_point"]

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
NUMBERS = re.compile(rf"\s*{_NUMBER}(?:\s*,\s*{_NUMBER})*\s*")
"""A number, or several with commas between them."""
_FEW = 2
_LISTED = 4
_NEAR = 0.7
_FIRST = 256  # points that are looked at for whether any value of the data is below 0


def read_point(text: str, data: Dataset, value_range: tuple[float, float] | None = None) -> tuple[Tensor, list[str]]:
    """The point that `text` names, in the shape of the data's events.

    An image becomes grey or coloured as the data are; one of another size is cut to the data's proportions at its
    centre and resized (Lanczos).

    Args:
        text: path of an image or of a `.npy`, uint8 or in units of the data; @K, point K of the data, or its name; or
            numbers.
        data: whose event shape it is to have.
        value_range: the numbers of the file that become -1 and 1, by the rule of `optimal.datasets.values`; a noisy
            point may lie beyond them.

    Returns:
        (*event) float32, and one sentence for each change that was made and for each doubt about what was meant.

    Raises:
        ValueError: no such file or point, one that cannot be read, another shape, values that are not finite.
    """
    path = Path(text.strip()).expanduser()
    if math.prod(data.event) <= _FEW and NUMBERS.fullmatch(text):
        values = torch.tensor([float(part) for part in text.split(",")], device="cpu")
        if values.numel() != math.prod(data.event):
            raise ValueError(
                f"a point of {data.name} has {math.prod(data.event)} value(s), got {values.numel()}: {text}"
            )
        return values.view(data.event), []
    place = place_of(text, data)
    if place is not None:
        return data[place], [] if text.startswith("@") else [f"{text} is {data.called(place)} of {data.name}"]
    if not path.is_file():
        other = ", @K for a data point" + (", or its name" if data.names else "")
        other += ", or numbers" if math.prod(data.event) <= _FEW else ""
        names = data.names or ()
        near = difflib.get_close_matches(text, names, n=1, cutoff=_NEAR)
        meant = f"; did you mean {data.called(names.index(near[0]))}?" if near else ""
        raise ValueError(f"no file {text}: an image or a .npy is read{other}{meant}")
    if path.suffix.lower() == ".npy":
        return _array(path, data, value_range)
    if not data.is_image:
        raise ValueError(f"{text} cannot be a point of {data.name}, whose shape is {data.event}: give a .npy")
    return _picture(path, data, value_range)


def place_of(text: str, data: Dataset) -> int | None:
    """Which point of the data `text` names: @K, the path of a file in their folder, a name, or a part of just one.

    A part is what follows a slash, or what stands before the first space, or after it: 1F600, or grinning face.

    Raises:
        ValueError: @K beyond the last; a name, or part, of several.
    """
    if re.fullmatch(r"@\d+", text):
        place = int(text[1:])
        if place >= len(data):
            raise ValueError(f"{data.name} has points @0 to @{len(data) - 1}, got {text}")
        return place
    if data.names is None:
        return None
    path = Path(text.strip()).expanduser()
    if path.is_file():
        inside = path.resolve().is_relative_to(data.source)
        name = path.resolve().relative_to(data.source).as_posix() if inside else None
        return data.names.index(name) if name in data.names else None
    for fits in (text.__eq__, lambda name: name.endswith(f"/{text}"), lambda name: text in name.split(" ", 1)):
        places = [place for place, name in enumerate(data.names) if fits(name)]
        if len(places) > 1:
            listed = ", ".join(map(data.called, places[:_LISTED])) + (", …" if len(places) > _LISTED else "")
            raise ValueError(f"{len(places)} points of {data.name} are called {text}: {listed}; give the @K of one")
        if places:
            return places[0]
    return None


def _in_words(sentence: str) -> str:
    """With the option of the command line for that of `load`."""
    return re.sub(r"value_range=\(([^,()]+), ([^,()]+)\)", r"--value-range \1 \2", sentence)


def _array(path: Path, data: Dataset, value_range: tuple[float, float] | None) -> tuple[Tensor, list[str]]:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} cannot be read as an array: {' '.join(str(error).split())}") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fui":
        raise ValueError(f"{path} must hold one array of numbers")
    if array.shape not in (data.event, (1, *data.event)) and (data.event[0] != 1 or array.shape != data.event[1:]):
        last = len(data.event) == 3 and array.shape[-3:] == (*data.event[1:], data.event[0])
        hint = ": numpy.moveaxis(x, -1, -3) puts the channels first" if last else ""
        raise ValueError(f"{path} must have shape {data.event}, as the points of {data.name}, got {array.shape}{hint}")
    if not np.isfinite(array).all():
        raise ValueError(f"{path} must hold finite values")
    if not data.is_image and value_range is None:
        return torch.from_numpy(array.astype(np.float32)).view(data.event), []
    if array.dtype.kind in "iu" and array.dtype != np.uint8 and value_range is None:
        raise ValueError(
            f"{path} must be uint8 or floating point in units of {data.name}, got {array.dtype}; "
            "--value-range 0 255 makes grey levels of it"
        )
    values = Values.of(path.name, array.dtype, value_range, image=True)
    signed = bool((data[:_FIRST] < 0).any())
    said = doubt(values, value_range, float(array.min()), float(array.max())) if values.levels or signed else None
    mapped = values.mapped(array)
    point = torch.from_numpy(to_float(mapped) if values.levels else mapped).view(data.event)
    return point, [_in_words(said)] if said else []


def _picture(path: Path, data: Dataset, value_range: tuple[float, float] | None) -> tuple[Tensor, list[str]]:
    from PIL import Image, ImageOps

    try:
        encoded = Encoded(path.name, path.read_bytes())
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    said: list[str] = []
    (block,) = decode_images(lambda: [encoded], str(path), notes=said)
    pixels = block.points[0]
    channels, height, width = data.event
    notes = [_in_words(note) for note in said if value_range is None or "value_range" not in note]
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    if len(pixels) != channels:
        kinds = {1: "grey", 3: "colour"}
        notes.append(f"{path.name} was turned from {kinds[len(pixels)]} to {kinds[channels]}, as {data.name} is.")
        image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        notes.append(
            f"{path.name} was resized from {image.width}x{image.height} to {width}x{height}, as {data.name} is."
        )
        image = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    array = np.asarray(image)
    values = Values.of(path.name, array.dtype, value_range, image=True)
    array = values.converted(array[None] if channels == 1 else array.transpose(2, 0, 1).copy())
    return torch.from_numpy(to_float(array) if values.levels else array), notes
