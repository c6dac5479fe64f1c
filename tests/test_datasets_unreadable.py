"""One file that cannot be read: which ones are told together, and on request the others are the data."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from optimal.__main__ import main
from optimal.datasets import Dataset, load

LEVELS = np.random.default_rng(0).integers(0, 256, (9, 4, 4, 3), dtype=np.uint8)
BROKEN = (0, 3, 4, 6, 7, 8)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTIMAL_CACHE", str(tmp_path / "cache"))


def read(path: Path, **options: Any) -> Dataset:
    return load(path, progress=False, **options)


def encoded(levels: np.ndarray, kind: str = "png") -> bytes:
    buffer = io.BytesIO()
    if kind == "npy":
        np.save(buffer, levels.astype(np.float32).transpose(2, 0, 1) / 127.5 - 1)
    else:
        Image.fromarray(levels).save(buffer, kind)
    return buffer.getvalue()


def files(broken: tuple[int, ...], kind: str = "png") -> dict[str, bytes]:
    """Nine, some cut in half, one of them empty."""
    whole = [encoded(levels, kind) for levels in LEVELS]
    cut = [data[: len(data) // 2 if i else 0] if i in broken else data for i, data in enumerate(whole)]
    return {f"{i}.{kind}": data for i, data in enumerate(cut)}


def folder(path: Path, held: dict[str, bytes]) -> Path:
    path.mkdir()
    for name, data in held.items():
        (path / name).write_bytes(data)
    return path


def zipped(path: Path, held: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path.with_suffix(".zip"), "w") as archive:
        for name, data in held.items():
            archive.writestr(name, data)
    return path.with_suffix(".zip")


def parquet(path: Path, held: dict[str, bytes]) -> Path:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet as written

    path = path.with_suffix(".parquet")
    cells = [{"bytes": data, "path": name} for name, data in held.items()]
    written.write_table(pa.table({"image": cells, "label": list(range(len(cells)))}), path)
    return path


def arrow(path: Path, held: dict[str, bytes]) -> Path:
    pa = pytest.importorskip("pyarrow")
    path = path.with_suffix(".arrow")
    table = pa.table({"image": [{"bytes": data, "path": name} for name, data in held.items()]})
    with pa.ipc.new_stream(str(path), table.schema) as opened:
        opened.write_table(table, max_chunksize=2)
    return path


def named(make: Callable[..., Path], kind: str) -> list[str]:
    table = make in (parquet, arrow)
    return [f"row {i} of x.{make.__name__}" if table else f"{i}.{kind}" for i in BROKEN[:5]]


@pytest.mark.parametrize(
    ("make", "kind"),
    [(folder, "png"), (zipped, "png"), (parquet, "png"), (arrow, "png"), (folder, "npy"), (zipped, "npy")],
)
def test_all_that_cannot_be_read_are_told_and_left_out_on_request(
    tmp_path: Path, make: Callable[..., Path], kind: str
) -> None:
    path = make(tmp_path / "x", files(BROKEN, kind))
    with pytest.raises(ValueError, match=r"6 of the 9 (images|arrays) of x\S* cannot be read: ") as told:
        read(path)
    assert ", ".join(named(make, kind)) + ", …; the first of them: " in str(told.value)
    assert str(told.value).endswith("; skip_unreadable=True leaves them out")
    for _ in range(2):  # the second is already in the store
        with pytest.warns(UserWarning, match=r"6 of the 9 \w+ of x\S* cannot be read and are left out: "):
            data = read(path, skip_unreadable=True)
        np.testing.assert_allclose(data[:], LEVELS[[1, 2, 5]].transpose(0, 3, 1, 2) / 127.5 - 1, atol=1e-6)
        assert data.names == tuple(f"{i}.{kind}" for i in (1, 2, 5))
        if make is parquet:
            np.testing.assert_array_equal(data.labels, [1, 2, 5])
    path = make(tmp_path / "one", files((8,), kind))
    with pytest.raises(ValueError, match=r"; skip_unreadable=True leaves it out of the 9 (images|arrays)$"):
        read(path)
    path = make(tmp_path / "none", files(tuple(range(9)), kind))
    for skip in (False, True):
        with pytest.raises(ValueError, match=r"9 of the 9 (images|arrays) of none\S* cannot be read: ") as told:
            read(path, skip_unreadable=skip)
        assert "leaves them out" not in str(told.value)


def test_labels_stay_with_their_images(tmp_path: Path) -> None:
    path = folder(tmp_path / "x", {})
    for i, (name, data) in enumerate(files((0, 4)).items()):
        (path / "abc"[i % 3]).mkdir(exist_ok=True)
        (path / "abc"[i % 3] / name).write_bytes(data)
    with pytest.warns(UserWarning, match=r"2 of the 9 images of x cannot be read and are left out: a/0.png, b/4.png"):
        data = read(path, labels="folders", skip_unreadable="yes")
    np.testing.assert_array_equal(data.labels, [0, 0, 1, 1, 2, 2, 2])
    assert data.names is not None
    np.testing.assert_array_equal(data.array[3], LEVELS[7].transpose(2, 0, 1))
    assert data.names[3] == "b/7.png"


def test_files_that_are_gone_or_closed_are_among_them(tmp_path: Path) -> None:
    path = folder(tmp_path / "x", files(()))
    os.symlink(tmp_path / "gone.png", path / "a.png")
    os.mkfifo(path / "b.png")
    with pytest.raises(ValueError, match=r"2 of the 11 images of x .*: a.png in .*x is a link to a file that is gone"):
        read(path)
    with pytest.warns(UserWarning, match=r"2 of the 11 images of x cannot be read and are left out: a.png, b.png$"):
        assert len(read(path, skip_unreadable=True)) == 9


@pytest.mark.filterwarnings("ignore:2 of the 9 images of x cannot be read")
def test_the_option_on_a_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(folder(tmp_path / "x", files((0, 4))))
    assert main(["info", path]) == 2
    assert "2 of the 9 images of x cannot be read: 0.png, 4.png; " in (told := capsys.readouterr().err)
    assert "(here: --option skip_unreadable=true)" in told
    for word in ("skip_unreadable=true", "skip-unreadable=yes"):
        assert main(["info", path, "--option", word]) == 0
        assert "x: N = 7" in capsys.readouterr().out


def test_pixels_have_no_files_to_leave_out(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet as written

    written.write_table(pa.table({"pixels": LEVELS[..., 0].tolist()}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"skip_unreadable is for encoded images, but pixels of .* holds pixels"):
        read(tmp_path / "a.parquet", skip_unreadable=True, column="pixels")


def test_names_of_rows_are_kept_where_all_have_one(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet as written

    cells = [{"bytes": encoded(levels), "path": f"ü {i}.png"} for i, levels in enumerate(LEVELS[:3])]
    written.write_table(pa.table({"image": cells}), tmp_path / "a.parquet")
    for _ in range(2):
        assert read(tmp_path / "a.parquet").names == ("ü 0.png", "ü 1.png", "ü 2.png")
    assert read(tmp_path / "a.parquet", only=(1, 2)).names == ("ü 1.png",)
    cells[1]["path"] = None
    written.write_table(pa.table({"image": cells}), tmp_path / "b.parquet")
    assert read(tmp_path / "b.parquet").names is None
