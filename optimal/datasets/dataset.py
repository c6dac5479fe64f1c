"""The empirical distribution: N equally likely points.

    p_data(x0) = (1/N) Σ_i δ(x0 − x0_i)                                          (Eq. 44)

An image is kept as the uint8 it was stored as and becomes a point x = u8 / 127.5 - 1 of [-1, 1]^D only where it is
used, so that a data set larger than memory stays a memory-mapped file. Points that are no images are float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

import numpy as np
import torch

from ..masks import refuse_mask
from ..storage import fingerprint
from .notes import folders_of

if TYPE_CHECKING:
    Index = int | slice | Sequence[int] | np.ndarray | torch.Tensor

__all__ = ["Dataset", "to_float", "to_uint8"]

_FEW = 10


@overload
def to_float(u8: torch.Tensor) -> torch.Tensor: ...
@overload
def to_float(u8: np.ndarray) -> np.ndarray: ...
def to_float(u8: torch.Tensor | np.ndarray) -> torch.Tensor | np.ndarray:
    """Grey levels to points: x = u8 / 127.5 - 1, computed in float32.

    Args:
        u8: grey levels 0..255, uint8, any shape; a tensor or an array.

    Returns:
        float32 of the same shape and kind, in [-1, 1]; a new one, on the same device.

    Raises:
        ValueError: if `u8` is not uint8.

    Example:
        >>> to_float(np.array([0, 255], dtype=np.uint8))
        array([-1.,  1.], dtype=float32)
    """
    if u8.dtype not in (torch.uint8, np.uint8):
        raise ValueError(f"grey levels must be uint8, got {u8.dtype}")
    if isinstance(u8, torch.Tensor):
        return u8.to(torch.float32).div_(127.5).sub_(1.0)
    x = np.array(u8, dtype=np.float32)
    x /= np.float32(127.5)
    x -= np.float32(1.0)
    return x


@overload
def to_uint8(x: torch.Tensor) -> torch.Tensor: ...
@overload
def to_uint8(x: np.ndarray) -> np.ndarray: ...
def to_uint8(x: torch.Tensor | np.ndarray) -> torch.Tensor | np.ndarray:
    """Points to grey levels, for drawing: (x + 1) * 127.5, rounded to the nearest level and clipped to 0..255.

    Args:
        x: floating point, any shape; a tensor or an array. `to_uint8(to_float(u8))` is `u8`.

    Returns:
        uint8 of the same shape and kind.

    Raises:
        ValueError: if `x` is not floating point or holds nan.

    Example:
        >>> to_uint8(np.array([-1.0, 0.1, 7.0], dtype=np.float32))
        array([  0, 140, 255], dtype=uint8)
    """
    if isinstance(x, torch.Tensor):
        if not x.dtype.is_floating_point:
            raise ValueError(f"points must be floating point, got {x.dtype}")
        if bool(torch.isnan(x).any()):
            raise ValueError("points to be drawn must not hold nan")
        return ((x.detach().to(torch.float32) + 1.0) * 127.5).round_().clamp_(0.0, 255.0).to(torch.uint8)
    if not np.issubdtype(x.dtype, np.floating):
        raise ValueError(f"points must be floating point, got {x.dtype}")
    if bool(np.isnan(x).any()):
        raise ValueError("points to be drawn must not hold nan")
    levels = (np.asarray(x, dtype=np.float32) + np.float32(1.0)) * np.float32(127.5)
    return np.clip(np.rint(levels), 0.0, 255.0).astype(np.uint8)


def _on_a_line(name: str) -> str:
    """A name as it can be printed: a file may be called by letters that no line or no encoding has."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in name)


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """N points of an empirical distribution, each with probability 1/N; a point listed twice counts twice.

    Attributes:
        name: what figures and tables call it.
        array: uint8 (N, C, H, W) for images, or float32 (N, *event); may be a memory map. Not to be written to.
        labels: (N,) int64, or (N, K) float32, or None. They are carried along, never conditioned on by default.
        licence: under which terms the data may be used.
        source: where the data came from: a package and its version, or a path.
        fingerprint: 16 hex digits over dtype, shape and bytes of `array`; computed where not given.
        names: (N,) what each point is called where it came from, the path of a file in its folder or zip; or None.
        class_names: what the classes 0, 1, … are called; or None.

    Raises:
        ValueError: if `array` is empty or of another dtype or rank, has a mask, or `labels` or `names` do not match it.

    Example:
        >>> data = Dataset("corners", np.array([[-1.0, -1.0], [1.0, 1.0]], dtype=np.float32))
        >>> len(data), data.event, data[0]
        (2, (2,), tensor([-1., -1.]))
    """

    name: str
    array: np.ndarray
    labels: np.ndarray | None = None
    licence: str = "unknown"
    source: str = "memory"
    fingerprint: str = ""
    names: tuple[str, ...] | None = None
    class_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        array = self.array
        refuse_mask(f"the array of {self.name}", array)
        refuse_mask(f"the labels of {self.name}", self.labels)
        if array.dtype not in (np.uint8, np.float32):
            raise ValueError(f"the array of {self.name} must be uint8 or float32, got {array.dtype}")
        if array.dtype == np.uint8 and array.ndim != 4:
            raise ValueError(f"the uint8 array of {self.name} must have shape (N, C, H, W), got {array.shape}")
        if array.ndim < 2:
            raise ValueError(f"the array of {self.name} must have shape (N, *event), got {array.shape}")
        if array.size == 0:
            raise ValueError(f"{self.name} is empty: a data set needs at least one point, got shape {array.shape}")
        if self.labels is not None and len(self.labels) != len(array):
            raise ValueError(f"{self.name} has {len(array)} points but {len(self.labels)} labels")
        if self.names is not None and len(self.names) != len(array):
            raise ValueError(f"{self.name} has {len(array)} points but {len(self.names)} names")
        if not self.fingerprint:
            object.__setattr__(self, "fingerprint", fingerprint(array))

    def __len__(self) -> int:
        return len(self.array)

    def __repr__(self) -> str:
        return f"Dataset({self.describe()})"

    @property
    def event(self) -> tuple[int, ...]:
        """Shape of one point, without the leading N."""
        return tuple(int(length) for length in self.array.shape[1:])

    def called(self, index: int) -> str:
        """A point in words: @7, and its name where it has one, @7 cats/a.png.

        Example:
            >>> Dataset("two", np.zeros((2, 1), np.float32), names=("a.png", "b.png")).called(1)
            '@1 b.png'
        """
        return f"@{index}" if self.names is None else f"@{index} {_on_a_line(self.names[index])}"

    def class_called(self, label: int) -> str:
        """A class in words: its number, and its name where it has one, 3 cat."""
        named = self.class_names is not None and 0 <= label < len(self.class_names)
        return f"{label} {self.class_names[label]}" if named and self.class_names else str(label)

    def class_of(self, text: str | int) -> int:
        """The class that is meant by its name or, where none is called so, by its number.

        Raises:
            ValueError: there is no such class, or several are called so; or the labels are no classes.

        Example:
            >>> data = Dataset("pets", np.zeros((2, 1), np.float32), np.array([0, 1]), class_names=("cat", "dog"))
            >>> data.class_of("dog"), data.class_of(0), data.class_called(1)
            (1, 0, '1 dog')
        """
        there = np.unique(self.classes).tolist()
        named = [label for label, name in enumerate(self.class_names or ()) if name == str(text) and label in there]
        if len(named) == 1:
            return named[0]
        numbered = [label for label in there if str(label) == str(text)]
        if named or not numbered:
            few = ", ".join(map(self.class_called, named or there[:_FEW])) + (", …" if len(there) > _FEW else "")
            what = f"several classes are called {text}" if named else f"there are no points of class {text}"
            raise ValueError(f"{what}, the classes are {few}")
        return numbered[0]

    @property
    def is_image(self) -> bool:
        """Whether a point can be drawn: event (1, H, W) or (3, H, W)."""
        return len(self.event) == 3 and self.event[0] in (1, 3)

    @property
    def classes(self) -> np.ndarray:
        """The class of every point, (N,) int64: its label, or the place of the 1 in a one-hot one.

        Raises:
            ValueError: if there are no labels, or they are vectors of anything else.
        """
        if self.labels is None:
            hint = '; labels="folders" makes its folders classes' if folders_of(self.names or ()) else ""
            raise ValueError(f"{self.name} has no labels, so that there are no classes of points{hint}")
        labels = np.asarray(self.labels)
        if labels.ndim == 2 and bool(
            (np.sort(labels, 1)[:, -1] == 1).all() and (np.count_nonzero(labels, 1) == 1).all()
        ):
            return labels.argmax(1)
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            shape = f"{labels.dtype} {labels.shape}"
            raise ValueError(f"the labels of {self.name} must be whole numbers or one-hot to be classes, got {shape}")
        if labels.max() > np.iinfo(np.int64).max:
            raise ValueError(f"the labels of {self.name} must be below 2⁶³, got {labels.max()}")
        return labels.astype(np.int64)

    @property
    def points(self) -> torch.Tensor:
        """All points, float32 (N, *event), a fresh copy at every call.

        The whole data set is materialised: 4 bytes a value, 3.4 GB for 70,000 images of 64x64x3. Take `array`, or
        index with `data[...]`, where that is too much.
        """
        return self[:]

    def __getitem__(self, index: Index) -> torch.Tensor:
        """The chosen points as float32; the rest is not touched.

        Args:
            index: an int gives (*event); a slice, integer indices or a boolean mask give (n, *event).

        Raises:
            IndexError: if the index is out of range or not along the first axis alone.
        """
        if isinstance(index, torch.Tensor):
            index = index.detach().cpu().numpy()
        if isinstance(index, tuple):
            raise IndexError(f"only the first axis of a data set can be indexed, got {index!r}")
        if not isinstance(index, int | np.integer | slice):
            index = np.asarray(index)
            if index.size == 0 and index.dtype != np.bool_:
                index = index.astype(np.int64)
        chosen = np.asarray(self.array[index])
        if chosen.dtype == np.uint8:
            return torch.from_numpy(to_float(chosen))
        return torch.from_numpy(np.array(chosen))

    def describe(self) -> str:
        """One line: name, N, shape, dtype and fingerprint."""
        return f"{self.name}: N = {len(self):,}, shape {self.event}, {self.array.dtype}, fingerprint {self.fingerprint}"
