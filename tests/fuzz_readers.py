"""Damaged files of every kind that `load` reads: `python tests/fuzz_readers.py --minutes 10`.

Small sound files are mutated, at any byte or inside a container that stays sound. Each must give a data set, or a
ValueError whose sentence names the file: within ten seconds and 4 GB, and with nothing written but the
cache. What breaks this is kept in --findings; a worker that dies is reported with the file that it was reading.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import pickle
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from optimal.datasets import Dataset, load

SECONDS = 10
MEMORY = 4 << 30
BATCH = 400
_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF, 2**64 - 1)
_WORDS = (b"-1", b"0", b"99999999999", b"null", b"NaN", b"1e999", b"[", b"{", b"O", b"|O", b"True", b"'", b"..", b"/")


class Slow(BaseException):
    """Took longer than SECONDS."""


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One to four changes, each of another kind."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(changed) + 1)
        length = min(rng.choice((1, 2, 4, 8, 16, 200)), len(changed) - at)
        match rng.randrange(8):
            case 0 if at < len(changed):
                changed[at] ^= 1 << rng.randrange(8)
            case 1:
                changed[at : at + length] = rng.randbytes(length)
            case 2:
                del changed[at:]
            case 3:
                del changed[at : at + length]
            case 4:
                changed[at : at + length] = bytes(length)
            case 5:
                width = rng.choice((1, 2, 4, 8))
                number = rng.choice(_NUMBERS) & ((1 << 8 * width) - 1)
                changed[at : at + width] = number.to_bytes(width, rng.choice(("little", "big")))
            case 6:
                changed[at:at] = changed[at : at + length]
            case _:
                changed[at : at + rng.randrange(3)] = rng.choice(_WORDS)
    return bytes(changed)


def picture(kind: str, seed: int, grey: bool = False) -> bytes:
    levels = np.random.default_rng(seed).integers(0, 256, (8, 8) if grey else (8, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, kind)
    return buffer.getvalue()


def packed(members: dict[str, bytes], compression: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def one_of(members: dict[str, bytes], rng: random.Random) -> dict[str, bytes]:
    name = rng.choice(list(members))
    return {**members, name: mutate(members[name], rng)}


def images_zip(folder: Path, rng: random.Random) -> Path:
    kind = rng.choice(("PNG", "PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM"))
    names = [f"00000/img{i:08}.{kind.lower()}" for i in range(3)]
    members = {name: picture(kind, i) for i, name in enumerate(names)}
    members["dataset.json"] = json.dumps({"labels": [[name, i] for i, name in enumerate(names)]}).encode()
    inside = rng.random() < 0.6
    compression = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    data = packed(one_of(members, rng) if inside else members, compression)
    return written(folder / "case.zip", data if inside else mutate(data, rng))


def images_folder(folder: Path, rng: random.Random) -> Path:
    members = {"a.png": picture("PNG", 0), "b.jpg": picture("JPEG", 1), "dataset.json": b'{"labels": [["a.png", 1]]}'}
    (folder / "case").mkdir()
    for name, data in one_of(members, rng).items():
        written(folder / "case" / name, data)
    return folder / "case"


def array(rng: random.Random) -> np.ndarray:
    levels = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
    floats = (levels / 127.5 - 1).astype(rng.choice((np.float16, np.float32, np.float64, ">f4")))
    return rng.choice((levels, levels[..., 0], floats, floats.reshape(5, -1), np.asfortranarray(floats)))


def one_npy(folder: Path, rng: random.Random) -> Path:
    return written(folder / "case.npy", mutate(npy(array(rng)), rng))


def arrays_npz(folder: Path, rng: random.Random) -> Path:
    members = {"images.npy": npy(array(rng))}
    inside = rng.random() < 0.6
    data = packed(one_of(members, rng) if inside else members, rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))
    return written(folder / "case.npz", data if inside else mutate(data, rng))


def latents_zip(folder: Path, rng: random.Random) -> Path:
    points = np.random.default_rng(0).standard_normal((3, 8, 4, 4)).astype(np.float32)
    members = {f"00000/img-mean-std-{i:08}.npy": npy(point) for i, point in enumerate(points)}
    inside = rng.random() < 0.6
    data = packed(one_of(members, rng) if inside else members, rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))
    return written(folder / "case.zip", data if inside else mutate(data, rng))


def mnist(folder: Path, rng: random.Random) -> Path:
    images = struct.pack(">4I", 0x803, 5, 4, 4) + bytes(range(80))
    labels = struct.pack(">2I", 0x801, 5) + bytes(range(5))
    files = {"case-images-idx3-ubyte": images, "case-labels-idx1-ubyte": labels}
    zipped, inside = rng.random() < 0.7, rng.random() < 0.5
    if inside:
        files = one_of(files, rng)
    if zipped:
        files = {f"{name}.gz": gzip.compress(data, mtime=0) for name, data in files.items()}
    if not inside:
        files = one_of(files, rng)
    paths = [written(folder / name, data) for name, data in files.items()]
    return paths[0]


def shard(folder: Path, rng: random.Random) -> Path:
    import pyarrow
    from pyarrow import parquet

    cells = [{"bytes": picture("PNG", i), "path": f"{i}.png"} for i in range(3)]
    inside = rng.random() < 0.2
    if inside:
        cells[1]["bytes"] = mutate(picture("PNG", 1), rng)
    table = pyarrow.table({"image": cells, "label": [0, 1, 2]})
    buffer = io.BytesIO()
    parquet.write_table(table, buffer, compression=rng.choice(("snappy", "none", "gzip", "zstd")))
    return written(folder / "case.parquet", buffer.getvalue() if inside else mutate(buffer.getvalue(), rng))


def arrow(folder: Path, rng: random.Random) -> Path:
    import pyarrow

    cells = [{"bytes": picture("PNG", i), "path": f"{i}.png"} for i in range(3)]
    table = pyarrow.table({"image": cells, "label": [0, 1, 2]})
    buffer = io.BytesIO()
    writer = rng.choice((pyarrow.ipc.new_file, pyarrow.ipc.new_stream))
    options = pyarrow.ipc.IpcWriteOptions(compression=rng.choice((None, None, "lz4", "zstd")))
    with writer(buffer, table.schema, options=options) as opened:
        opened.write_table(table, max_chunksize=rng.choice((2, 3)))
    return written(folder / "case.arrow", mutate(buffer.getvalue(), rng))


def cifar(folder: Path, rng: random.Random) -> Path:
    levels = np.random.default_rng(0).integers(0, 256, (3, 3072), dtype=np.uint8)
    batch = pickle.dumps({"data": levels, "labels": [0, 1, 2]}, protocol=rng.choice((2, 3, 4)))
    members = {"test_batch": batch, "batches.meta": pickle.dumps({"label_names": ["cat", "dog"]}, protocol=2)}
    if rng.random() < 0.3:
        rows = np.concatenate([np.arange(3, dtype=np.uint8)[:, None], levels], 1)
        members = {"test_batch.bin": rows.tobytes(), "batches.meta.txt": b"cat\ndog\n"}
    inside = rng.random() < 0.6
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=rng.choice(("w", "w:gz"))) as archive:
        for name, data in (one_of(members, rng) if inside else members).items():
            member = tarfile.TarInfo(f"case/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return written(folder / "case.tar.gz", buffer.getvalue() if inside else mutate(buffer.getvalue(), rng))


KINDS: tuple[Callable[[Path, random.Random], Path], ...] = (
    images_zip,
    images_folder,
    one_npy,
    arrays_npz,
    latents_zip,
    mnist,
    shard,
    arrow,
    cifar,
)


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def attempt(path: Path, rng: random.Random) -> str | None:
    """What is wrong with how `load` takes the file, or None."""

    def late(*_: object) -> None:
        raise Slow

    options = {}
    if path.suffix in (".npy", ".npz"):
        options = rng.choice(({}, {"value_range": "any"}, {"value_range": (-1, 1)}, {"layout": "NHWC"}))
    elif path.suffix in (".zip", ".parquet", ".arrow", ""):
        options = rng.choice(({}, {"resolution": 4}, {"value_range": "any"}, {"skip_unreadable": True}))
    elif path.name.endswith("tar.gz"):
        options = rng.choice(({}, {"label_key": False}))
    if "ubyte" in path.name:
        options = {}
    signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        data = load(path, progress=False, **options)
        assert isinstance(data, Dataset)
        assert len(data[:2].shape) == 1 + len(data.event)
    except ValueError as error:
        cause = error.__cause__ or error.__context__
        # What Arrow asks for before it unpacks a buffer is what the file says, but it touches no more than there is.
        if isinstance(cause, MemoryError) and type(cause).__name__ != "ArrowMemoryError":
            return "more than 4 GB"
        if "case" not in str(error) or isinstance(error, UnicodeError):
            return f"the sentence does not name the file\n{traceback.format_exc()}"
    except Slow:
        return f"more than {SECONDS} s\n{traceback.format_exc()}"
    except Exception:
        return traceback.format_exc()
    finally:
        signal.alarm(0)
    return None


def work(seeds: range, root: Path, findings: Path) -> int:
    """Cases of these seeds in a folder of their own; the number of findings."""
    warnings.simplefilter("ignore")
    shard(root, random.Random(0))  # pyarrow and Pillow are loaded before the limit is set
    (root / "case.parquet").unlink()
    Image.init()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    found = 0
    for seed in seeds:
        (root / "seed").write_text(str(seed))
        cases = root / "cases"
        cases.mkdir()
        rng = random.Random(seed)
        kind = KINDS[seed % len(KINDS)]
        path = kind(cases, rng)
        before = sorted(cases.rglob("*"))
        wrong = attempt(path, rng)
        if wrong is None and (
            sorted(cases.rglob("*")) != before or {p.name for p in root.iterdir()} - {"cache", "cases", "seed"}
        ):
            wrong = "something was written outside the cache"
        if wrong:
            found += 1
            keep(cases, findings, seed, wrong)
        shutil.rmtree(cases)
        shutil.rmtree(root / "cache", ignore_errors=True)
    return found


def keep(cases: Path, findings: Path, seed: int, wrong: str) -> None:
    folder = findings / f"{KINDS[seed % len(KINDS)].__name__}-{seed}"
    shutil.copytree(cases, folder, dirs_exist_ok=True)
    (folder / "wrong.txt").write_text(wrong)
    print(f"{folder}: {wrong.strip().splitlines()[-1]}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="how long to go on")
    parser.add_argument("--cases", type=int, help="how many cases, instead of --minutes")
    parser.add_argument("--seed", type=int, default=0, help="of the first case")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"), help="folder for what is found")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        return min(work(range(given.seed, given.seed + given.cases), given.worker, given.findings), 100)
    start, seed, found = time.monotonic(), given.seed, 0
    end = given.seed + given.cases if given.cases else None
    while seed < end if end else time.monotonic() - start < 60 * given.minutes:
        count = min(BATCH, end - seed) if end else BATCH
        with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
            root = Path(name)
            command = [sys.executable, __file__, "--worker", name, "--seed", str(seed), "--cases", str(count)]
            command += ["--findings", str(given.findings.resolve())]
            done = subprocess.run(command, env=os.environ | {"OPTIMAL_CACHE": str(root / "cache")})
            if not 0 <= done.returncode <= 100 or (done.returncode and not (root / "seed").exists()):
                count = int((root / "seed").read_text()) - seed + 1
                keep(root / "cases", given.findings, seed + count - 1, f"the reader died: {done.returncode}")
                found += 1
            else:
                found += done.returncode
        seed += count
    print(f"{seed - given.seed} cases, {found} findings, {time.monotonic() - start:.0f} s")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
