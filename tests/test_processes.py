"""Several processes, by torchrun with gloo: each draws its own rows, goes on bit for bit, and none outlives another."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from neural import PRESETS
from neural.checkpoint import latest, read
from neural.config import Experiment
from neural.loss import Batch, Objective
from neural.run import new_training, run
from neural.streams import Streams
from optimal import load
from optimal.denoiser import Denoiser

ROOT = Path(__file__).parents[1]

WORKER = """
import gc, json, sys
from pathlib import Path
import torch
from torch import distributed, nn
from neural import Experiment, Optimisation, Preconditioned, Training, TrainingDiverged
from neural.loss import Denoising
from neural.run import run
from neural.training import train
from optimal import load

distributed.init_process_group("gloo")
rank, folder = distributed.get_rank(), Path(sys.argv[1])
options = Optimisation(steps=30, batch=16, warmup=2, lr=1e-2, ema=0.5)
data = load("two-points")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 16), nn.Dropout(0.5), nn.SiLU(), nn.Linear(16, 1))

    def forward(self, x, c_noise):
        seen.append(torch.nn.functional.dropout(torch.ones(64), 0.5)) if self.training else None
        return self.layers(torch.cat([x, c_noise[:, None]], 1))


class Spoilt(Denoising):
    # Not finite in the fourth step, in one process only.
    def loss(self, student, average, batch):
        losses, sigma = super().loss(student, average, batch)
        self.calls = getattr(self, "calls", 0) + 1
        return losses * (torch.inf if self.calls == 4 and rank == 1 else 1.0), sigma


def new():
    torch.manual_seed(0)
    return Training(Preconditioned(Net(), 1.0), options, Experiment("two-points", optimisation=options), data)


def weights(training):
    return torch.cat([p.detach().flatten() for p in (*training.model.parameters(), *training.denoiser.parameters())])


said = {}
seen, whole, objective = [], new(), Denoising(data, options, 1.0)
mine = objective.draw(8, new().streams)
said["x0"], said["eps"] = mine[0].flatten().tolist(), mine[2].flatten().tolist()
run(whole, objective, folder / "run", every=10, keep=9, writes=rank == 0)
distributed.barrier()
said["dropped"] = seen[0].tolist()
said["weights"] = weights(whole).tolist()
again = new()
again.resume(folder / "run" / "step-000000010.safetensors")
for _ in train(again, objective):
    pass
said["again"] = weights(again).tolist()
spoilt = new()
try:
    run(spoilt, Spoilt(data, options, 1.0), folder / "spoilt", every=2, writes=rank == 0)
except TrainingDiverged as error:
    said["diverged"], said["step"] = str(error), spoilt.step
(folder / f"said-{rank}.json").write_text(json.dumps(said))
gc.collect()  # What an exception held of the group would end the process.
distributed.destroy_process_group()
"""


def launch(*command: str, folder: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*torchrun, *command], env=environment, cwd=folder, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_processes_draw_go_on_and_stop(tmp_path: Path) -> None:
    """Gloo: other noise and other dropout in each, the same weights in all, and one sentence when one diverges."""
    (tmp_path / "worker.py").write_text(WORKER)
    launch("worker.py", str(tmp_path), folder=tmp_path)
    one, two = (json.loads((tmp_path / f"said-{rank}.json").read_text()) for rank in range(2))
    assert not set(one["eps"]) & set(two["eps"])
    assert one["dropped"] != two["dropped"]
    assert one["weights"] == two["weights"]
    for said in (one, two):
        assert said["again"] == said["weights"]
        last_good = tmp_path / "spoilt" / "step-000000002.safetensors"
        assert said["diverged"].startswith("the loss is inf at step 4, sigma = ")
        assert said["diverged"].endswith(f" in process 1 of 2; the last good checkpoint is {last_good}")
        assert said["step"] == 3
    assert one["diverged"] == two["diverged"]


class Both:
    """What two processes draw, in one."""

    def __init__(self, inner: Objective, seed: int):
        self.inner, self.streams = inner, [Streams(seed, part) for part in range(2)]

    def draw(self, count: int, streams: Streams) -> Batch:
        parts = [self.inner.draw(count // 2, each) for each in self.streams]
        return tuple(torch.cat(pair) for pair in zip(*parts, strict=True))

    def loss(self, student: Denoiser, average: Denoiser, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        return self.inner.loss(student, average, batch)


@pytest.mark.slow
def test_two_processes_share_one_batch(tmp_path: Path) -> None:
    """From the command line: the losses of one process on the rows of both, up to the order of sums."""
    options = dataclasses.replace(PRESETS["toy"].optimisation, steps=200, batch=64)
    config = dataclasses.replace(PRESETS["toy"], optimisation=options)
    training, objective = new_training(config, load("five-deltas"), device="cpu")
    run(training, Both(objective, options.seed), tmp_path / "single")
    words = ["train", "--preset", "toy", "--steps", "200", "--batch", "64", "--every", "100"]
    launch("-m", "neural", *words, "--out", str(tmp_path / "double"), folder=tmp_path)
    curves = [np.loadtxt(tmp_path / kind / "metrics.csv", delimiter=",", skiprows=1) for kind in ("single", "double")]
    assert len(curves[0]) == 2
    np.testing.assert_allclose(curves[1], curves[0], rtol=2e-3)
    tensors = read(latest(tmp_path / "double"), Experiment)[0]
    assert {name for name in tensors if name.startswith("streams-1.")} == {
        f"streams-1.{name}" for name in ("network-cpu", "noise", "order")
    }
