"""What is interrupted, damaged, full or hostile: the next run ends in the same files, or says in a sentence why not."""

from __future__ import annotations

import ast
import bz2
import contextlib
import io
import os
import signal
import struct
import subprocess
import sys
import threading
import zipfile
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from caches import kept
from matplotlib.figure import Figure
from PIL import Image

from figures.__main__ import FIGURES, main
from neural import Experiment, Network, Optimisation, cached, is_cached, load_model
from neural.checkpoint import checkpoints
from neural.config import Distillation
from optimal.datasets import load
from optimal.storage import replacing

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPTIMAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def python(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run([sys.executable, "-c", code, *arguments], env=env, capture_output=True, text=True)


CALLS = {"load": "pickle marshal shelve dill cloudpickle joblib torch", "loads": "pickle marshal dill cloudpickle"}
"""Calls that unpickle, by module; numpy's is allowed with allow_pickle=False alone."""


@pytest.mark.parametrize("package", ["optimal", "neural", "figures"])
def test_nothing_unpickles(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        # Of CIFAR's files, whose pickles may name nothing that is called: tests/test_datasets_cifar.py.
        known = ["pickle"] if path == ROOT / "optimal" / "datasets" / "pickles.py" else []
        assert unpickling(path.read_text()) == known, path


def unpickling(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            found += [n for n in names if n and n.split(".")[0] in CALLS["load"].split()[:-1]]
            if isinstance(node, ast.ImportFrom) and node.module in ("torch", "numpy"):
                found += [alias.name for alias in node.names if alias.name == "load"]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            called, safe = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
            if called == "torch.load" and safe.get("weights_only") != "True":
                found.append(called)
            if called.endswith(("np.load", "numpy.load", "read_array")) and safe.get("allow_pickle") != "False":
                found.append(called)
            if called.endswith("read_pickle") or safe.get("allow_pickle") == "True":
                found.append(called)
    return found


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(p)",
        "torch.load(p, weights_only=False)",
        "np.load(p)",
        "from numpy import load",
        "pd.read_pickle(p)",
        "np.load(p, allow_pickle=True)",
    ],
)
def test_unpickling_is_seen(source: str) -> None:
    assert unpickling(source)


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """A figure that takes no time."""

    def draw(arrays: dict[str, np.ndarray]) -> Figure:
        figure = Figure(figsize=(1, 1))
        figure.subplots().plot(arrays["y"])
        return figure

    def compute(_: object) -> dict[str, np.ndarray]:
        return {"y": load("digits", progress=False).points[:9, 0, 4, 4].numpy()}

    monkeypatch.setitem(FIGURES, "cheap", SimpleNamespace(TITLE="cheap", compute=compute, draw=draw))  # pyright: ignore


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("death", [KeyboardInterrupt, SystemExit])
def test_figures_interrupted_at_every_rename_end_in_the_same_files(
    death: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["cheap", "--out", "out"]) == 0
    whole = contents(tmp_path / "out")
    assert sorted(whole) == ["cheap.json", "cheap.npz", "cheap.pdf", "cheap.png"]
    replace = os.replace
    for number in range(6):  # meta.json, the entry, and the four files
        place = tmp_path / f"{number}"
        place.mkdir()
        monkeypatch.chdir(place)
        monkeypatch.setenv("OPTIMAL_CACHE", str(place / "cache"))
        calls = []

        def dying(source, target, number=number, calls=calls) -> None:
            calls.append(target)
            if len(calls) > number:
                raise death
            replace(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", dying)
            with contextlib.suppress(SystemExit):
                assert main(["cheap", "--out", "out"]) == 130
        assert len(calls) == number + 1
        assert main(["cheap", "--out", "out"]) == 0
        assert contents(place / "out") == whole


@pytest.mark.slow
def test_what_a_killed_process_leaves_is_removed(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from optimal.storage import replacing\n"
        "with replacing(Path(sys.argv[1])) as path:\n"
        "    path.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = python(code, str(tmp_path / "a.txt"))
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".building-")
    with replacing(tmp_path / "a.txt") as path:
        path.write_text("whole")
    assert contents(tmp_path) == {"a.txt": b"whole"}


FULL = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
"""


@pytest.mark.slow
def test_a_full_disk_is_one_sentence(tmp_path: Path, cache: Path) -> None:
    code = FULL + "from figures.__main__ import main; sys.exit(main(['fig1', '--quick', '--dataset', 'digits']))"
    done = python(code, "20000")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert f"error: digits could not be kept in the cache folder {cache}: File too large" in done.stderr
    assert kept(cache) == []


@pytest.mark.slow
def test_a_full_disk_does_not_stop_a_basis_and_stops_pairs(tmp_path: Path) -> None:
    code = FULL + (
        "from pathlib import Path; import warnings; warnings.simplefilter('always')\n"
        "import numpy as np; from optimal import Dataset, OptimalDenoiser; from optimal.span.basis import basis_of\n"
        "D = OptimalDenoiser(Dataset('a', np.eye(60, 300, dtype=np.float32)))\n"
        "print(basis_of(D, 20).rank)\n"
        "from neural.distill.pairs import make_pairs\n"
        "try: make_pairs(lambda x, sigma: x, (300,), 1.0, 60, Path(sys.argv[2]) / 'pairs')\n"
        "except ValueError as error: print(error)\n"
    )
    done = python(code, "20000", str(tmp_path))
    assert done.stdout.startswith("20\nthe pairs could not be written to"), done
    assert "the basis could not be kept" in done.stderr
    assert not list(tmp_path.rglob(".building-*"))


@pytest.mark.slow
def test_no_place_for_a_cache_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTIMAL_CACHE", "~nobody-has-this/x")
    with pytest.warns(RuntimeWarning, match="the cache folder ~nobody-has-this/x cannot be written to"):
        assert len(load("digits", progress=False)) == 1797
    code = "from optimal.datasets import load; print(len(load('digits', progress=False)))"
    done = python(code, OPTIMAL_CACHE="", XDG_CACHE_HOME="", HOME="/proc/nowhere")
    assert done.stdout == "1797\n", done.stderr
    assert "RuntimeWarning: the cache folder" in done.stderr


SMALL = Experiment(
    "two-points", network=Network(width=8, depth=1), optimisation=Optimisation(steps=20, batch=8, warmup=2)
)


@pytest.mark.parametrize("config", [SMALL, Distillation("progressive", experiment=SMALL, levels=4)])
def test_a_damaged_run_is_trained_again(config: Experiment | Distillation) -> None:
    data = load("two-points")
    folder = cached(config, data)
    before = [p.clone() for p in load_model(folder)[0].parameters()]
    stages = [folder] if config is SMALL else sorted(folder.glob("steps-*"))
    for damage in (zeros, truncated, Path.unlink):
        for stage in stages:
            damage(checkpoints(stage)[-1])
        assert not is_cached(config, data)
        gone = contextlib.nullcontext() if damage is Path.unlink else pytest.warns(RuntimeWarning, match=r"is damaged")
        with gone:
            again = load_model(cached(config, data))[0]
        assert all(map(lambda a, b: bool((a == b).all()), before, again.parameters()))
        assert is_cached(config, data)
    (folder / "done.json").write_text("{")
    if config is not SMALL:
        (folder / "distillation.json").write_text("garbage")
    assert not is_cached(config, data)
    cached(config, data)
    assert is_cached(config, data)


def zeros(path: Path) -> None:
    kept = path.read_bytes()
    path.write_bytes(kept[: len(kept) // 2] + bytes(len(kept) - len(kept) // 2))


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def test_a_second_process_waits_for_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    import neural.cache

    data, fit, runs = load("two-points"), neural.cache.fit, []
    monkeypatch.setattr(neural.cache, "fit", lambda *a, **k: (runs.append(1), fit(*a, **k)))
    threads = [threading.Thread(target=cached, args=(SMALL, data)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert runs == [1]


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (4, 4)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["../../x.png", "/etc/x.png", "a/../../x.png", "..\\..\\x.png", "C:/x.png"])
@pytest.mark.parametrize("suffix", ["zip", "npz"])
def test_names_that_lead_out_of_an_archive(name: str, suffix: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / f"a.{suffix}", "w") as archive:
        archive.writestr("a.png", png())
        archive.writestr(name, png())
    with pytest.raises(ValueError, match=rf"a.{suffix} is refused: its member .*x.png' leads out of the archive"):
        load(tmp_path / f"a.{suffix}", progress=False)
    assert [path.name for path in tmp_path.rglob("*x.png")] == []


def claiming(path: Path, name: str, data: bytes, size: int, method: int = 8, crc: int = 0) -> Path:
    """A zip of one member, stored as `data`, that claims to have `size` bytes."""
    fields = struct.pack("<HHHHIII", 0, method, 0, 33, crc, len(data), size)
    local = b"PK\x03\x04\x14\0" + fields + struct.pack("<HH", len(name), 0) + name.encode()
    centre = b"PK\x01\x02\x14\0\x14\0" + fields + struct.pack("<HHHHHII", len(name), 0, 0, 0, 0, 0, 0) + name.encode()
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(centre), len(local) + len(data), 0)
    path.write_bytes(local + data + centre + end)
    return path


def test_a_member_that_claims_what_it_cannot_hold(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": True, "shape": (4_000_000_000, 1)})
    squeezed = zlib.compress(header.getvalue(), wbits=-15)
    with pytest.raises(ValueError, match=r"a.npy in a.npz claims 4000000128 bytes, but the \d+ it is stored in hold"):
        load(claiming(tmp_path / "a.npz", "a.npy", squeezed, 4_000_000_128), progress=False)
    with pytest.raises(ValueError, match=r"a.png in a.zip claims 4000000000 bytes"):
        load(claiming(tmp_path / "a.zip", "a.png", png(), 4_000_000_000), progress=False)


@pytest.mark.slow
def test_a_member_that_holds_more_than_it_claims(tmp_path: Path) -> None:
    """Neither 200 MB deflated to 200 kB nor 200 MB in a few hundred bytes of bzip2 are inflated."""
    large = bytes(200 << 20)
    deflated, squeezed = zlib.compress(large, 1, wbits=-15), bz2.compress(large)
    del large
    code = (
        "import resource, sys; from optimal.datasets import load; import PIL.Image\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for path in sys.argv[1:]:\n"
        "    try: load(path, progress=False)\n"
        "    except ValueError as error: print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    paths = [
        claiming(tmp_path / "8.zip", "a.png", deflated, 1000),
        claiming(tmp_path / "12.zip", "a.png", squeezed, 1000, 12),
    ]
    first, second, grown = python(code, *map(str, paths)).stdout.splitlines()
    assert "a.png in 8.zip cannot be read: Bad CRC-32" in first
    assert "a.png in 12.zip must be stored or deflated" in second
    assert int(grown) < 100_000  # kB


@pytest.mark.parametrize("at", ["signature", "offset"])
def test_npz_with_a_broken_local_header(at: str, tmp_path: Path) -> None:
    """Found by fuzzing: BadZipFile, and an OSError that named nothing."""
    path = tmp_path / "a.npz"
    np.savez(path, images=np.zeros((3, 4, 4), np.uint8))
    data = bytearray(path.read_bytes())
    if at == "signature":
        data[0] ^= 1
    else:
        start = data.rindex(b"PK\x05\x06") + 16
        data[start : start + 4] = b"\xff\xff\xff\x7f"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"a.npz"):
        load(path, progress=False)


def test_pipes_and_foreign_formats_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.zip")
    with pytest.raises(ValueError, match="neither a file nor a folder, but a pipe or device"):
        load(tmp_path / "a.zip")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n")
    with pytest.raises(ValueError, match=r"a.png in folder cannot be read as an image"):
        load(tmp_path / "folder", progress=False)
    with pytest.raises(ValueError, match="unknown data set '~nobody-has-this/x'"):
        load("~nobody-has-this/x")


@pytest.mark.slow
def test_a_short_fuzz(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tests" / "fuzz_readers.py"), "--cases", "120", "--findings", str(tmp_path)]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "120 cases, 0 findings" in done.stdout
