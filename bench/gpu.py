"""What holds on the CPU holds on a GPU, and how fast it is there: checks, then a table, in at most 6 minutes.

    make gpu                                  # on a machine with CUDA; PYTHON=… names its Python
    make gpu-wheels                           # before, on one with internet: the packages that it may lack
    python bench/gpu.py --device cpu --quick  # every line of it at small size

It needs PyTorch, NumPy and SciPy there; what else `import optimal` takes is pure Python and may come along as wheels.
Checks stand in `bench/gpu_checks.py`, `gpu_networks.py` and `gpu_training.py`, the table in `bench/gpu_table.py`. Each
part has seconds of its own and says what it leaves out; results are written after each part, to
bench/results/gpu-NAME.json, NAME the card's. The exit code is 1 if a check fails.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import importlib.util
import json
import os
import platform
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
WHEELS = HERE.parent / "build" / "gpu-wheels"
NEEDED = ("torch", "numpy", "scipy", "tqdm", "filelock", "jaxtyping", "wadler_lindig", "platformdirs")
SECONDS = {
    "agreement": 60.0,
    "surroundings": 40.0,
    "data": 30.0,
    "bounds": 40.0,
    "networks": 20.0,
    "training": 20.0,
    "table": 100.0,
    "keops": 50.0,
}
"""Of each part: 360 together. KeOps comes last, since nothing can end it while it compiles."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda or cpu (default: cuda)")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that everything runs")
    parser.add_argument(
        "--out", type=Path, default=HERE / "results", help="folder of the results (default: %(default)s)"
    )
    parser.add_argument("--parts", nargs="+", choices=SECONDS, default=list(SECONDS), help="parts (default: all)")
    given = parser.parse_args(arguments)
    sys.path[:0] = [str(HERE.parent), str(HERE)]
    use_wheels(WHEELS)
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        print(f"{missing[0]} is missing: make gpu-wheels on a machine with internet, and take build/gpu-wheels along")
        return 2
    import torch

    if given.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device is here: --device cpu --quick runs every line of it on the CPU")
        return 2
    return run(torch.device(given.device), given.parts, given.out, quick=given.quick)


def use_wheels(folder: Path) -> None:
    """Unpack the wheels beside themselves, and look there for what is found nowhere else."""
    unpacked = folder / "unpacked"
    for wheel in sorted(folder.glob("*.whl")):
        mark = unpacked / f"{wheel.stem}.done"
        if not mark.exists():
            with zipfile.ZipFile(wheel) as file:
                file.extractall(unpacked)
            mark.touch()
    sys.path.append(str(unpacked))
    importlib.invalidate_caches()


def run(device: Any, parts: list[str], out: Path, *, quick: bool) -> int:
    """Run the parts, write after each, and say whether all checks hold."""
    import gpu_table

    found: dict[str, Any] = {"machine": machine(device), "quick": quick, "parts": {}}
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"gpu-{slug(found['machine']['device'])}.json"
    print(found["machine"])
    failed = 0
    whole = gpu_table.Clock(sum(SECONDS.values()))
    for part in parts:
        clock = whole.at_most(SECONDS[part])
        if clock.left < SECONDS[part] / 2 and not quick:
            found["parts"][part] = {"reason": f"{clock.left:.0f} of its {SECONDS[part]:.0f} seconds are left"}
        elif part in checks():
            result = checked(part, device, clock, quick=quick)
            failed += sum(not row["holds"] for row in result["checks"])
            found["parts"][part] = result
        else:
            found["parts"][part] = tabulated(part, device, clock, quick=quick)
        write(path, found)
    print(f"{failed} checks failed; results in {path}")
    return 1 if failed else 0


def checks() -> dict[str, Any]:
    """The parts that are checks, by name."""
    import gpu_checks
    from gpu_networks import networks
    from gpu_training import training

    return {**gpu_checks.PARTS, "networks": networks, "training": training}


def checked(part: str, device: Any, clock: Any, *, quick: bool) -> dict[str, Any]:
    """The checks of a part, as far as its seconds reach."""
    from gpu_checks import Sizes

    rows: list[dict[str, Any]] = []
    skipped: list[str] = []
    print(f"\n{part:64} value     limit")
    for check in checks()[part](device, Sizes.quick() if quick else Sizes()):
        if clock.left < 0:
            skipped.append(check.name)
            continue
        reason = ""
        try:
            value = check.measure()
        except Exception as error:  # One that fails must not hide the others.
            value, reason = float("inf"), f"{type(error).__name__}: {str(error)[:300]}"
        holds = value <= check.limit
        rows.append({"name": check.name, "value": value, "limit": check.limit, "holds": holds, "reason": reason})
        print(f"{check.name[:64]:64} {value:<9.2g} {check.limit:<7g} {'' if holds else 'FAILS ' + reason}", flush=True)
    if skipped:
        print(
            f"{len(skipped)} more were left out, the {SECONDS[part]:g} seconds are used up: {', '.join(skipped[:5])} …"
        )
    return {"checks": rows, "left out": skipped}


def tabulated(part: str, device: Any, clock: Any, *, quick: bool) -> dict[str, Any]:
    """The rows of the table, as far as its seconds reach."""
    from gpu_table import Shape, peaks, rows

    batches = (2, 3) if quick else (64, 512)
    if part == "keops":
        sizes = [(300, 1)] if quick else [(70_000, 64), (1_000_000, 64)]
        methods: tuple[str, ...] = ("float32", "dense", "keops")
    else:
        sizes = [(300, 192), (500, 192)] if quick else [(70_000, 12_288), (1_000_000, 12_288)]
        methods = ("float32", "TF32", "bfloat16", "dense", "screened")
    peak = peaks(device, quick=quick)
    print("\npeaks: " + ", ".join(f"{name} {value:.3g}" for name, value in peak.items()) + " (TFLOP/s; GB/s for copy)")
    print("N        D       B    sigma  method     seconds    GB/s  of copy  TFLOP/s  of product  bound")
    table: list[dict[str, Any]] = []
    for row in rows(device, [Shape(n, dim, b) for n, dim in sizes for b in batches], peak, clock, methods):
        table.append(row)
        head = f"{row['points']:<8} {row['dim']:<7} {row['batch']:<4} {row.get('sigma', 0):<6g} {row['method']:10}"
        if "seconds" not in row:
            print(f"{head} {row['reason']}", flush=True)
            continue
        rates = f"{row['GB/s']:<7.3g} {row['share of the copy']:<8.2f}"
        products = f"{row['TFLOP/s']:<8.3g} {row['share of the product']:<11.2f}"
        print(f"{head} {row['seconds']:<10.4g} {rates} {products} {row['bound'] or 0:.1g}", flush=True)
    return {"peaks": peak, "rows": table}


def machine(device: Any) -> dict[str, Any]:
    """What the numbers depend on."""
    import torch

    cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else f"cpu {platform.machine()}",
        "memory": torch.cuda.get_device_properties(device).total_memory if cuda else None,
        "cuda": torch.version.cuda if cuda else None,
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }


def slug(name: str) -> str:
    """A name fit for a file: letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def write(path: Path, found: dict[str, Any]) -> None:
    """All at once: a run that is cut off leaves the results before it whole."""
    part = path.with_suffix(".part")
    # Infinity is no JSON.
    text = json.dumps(json.loads(json.dumps(found), parse_constant=str), indent=1)
    part.write_text(text + "\n")
    part.replace(path)


if __name__ == "__main__":
    sys.exit(main())
