"""A pipeline that works on latents: refused on images with the way to measure it, and measured on that way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from neural import from_diffusers, open_model
from neural.__main__ import main
from optimal import OptimalDenoiser

EVENT = (4, 4, 4)


def latents(count: int) -> np.ndarray:
    """Of deviation 1, as they are after the scaling factor, and beyond ±1."""
    return np.random.default_rng(0).normal(size=(count, *EVENT)).astype(np.float32)


def saved(folder: Path) -> Path:
    from diffusers.models.unets.unet_2d import UNet2DModel
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    torch.manual_seed(0)
    network = UNet2DModel(
        sample_size=4, in_channels=4, out_channels=4, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
    )  # fmt: skip
    network.save_pretrained(folder / "unet")
    DDIMScheduler(clip_sample=False, beta_schedule="scaled_linear").save_pretrained(folder / "scheduler")
    parts = {"unet": ["diffusers", "UNet2DModel"], "vqvae": ["diffusers", "VQModel"]}
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "LDMPipeline"} | parts))
    return folder


def test_the_way_that_the_refusal_names_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(Path("pipe"))
    np.save("latents.npy", latents(40))
    data = ["--dataset", "latents.npy", "--option", "layout=NCHW", "--option", "value_range=any"]
    few = [*data, "--draws", "8", "-n", "4", "--sigmas", "0.5", "2", "--device", "cpu"]
    assert main(["compare", "diffusers:pipe", *few, "--steps", "2"]) == 2
    told = capsys.readouterr().err
    assert "is a LDMPipeline with a vqvae: its network does not work on images" in told
    assert "a .npy of them" in told
    named = told.rstrip().rpartition(" ")[2]
    assert named == "diffusers:pipe/unet"
    assert main(["compare", named, *few, "--steps", "2", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["denoisers"]
    network, D = from_diffusers("pipe/unet"), OptimalDenoiser(torch.from_numpy(latents(40)))
    x = torch.from_numpy(latents(40)) + 2 * torch.randn(40, *EVENT, generator=torch.Generator().manual_seed(0))
    gap = float((network(x, 2.0) - D(x, 2.0)).square().mean())
    assert {row["sigma"] for row in rows} == {0.5, 2.0}
    assert next(row["gap_per_value"] for row in rows if row["sigma"] == 2.0) == pytest.approx(gap, rel=0.3)
    assert main(["sample", named, *data, "-n", "3", "--steps", "4", "--out", "s"]) == 0
    with np.load("s.npz") as arrays:
        assert arrays["samples"].shape == (3, *EVENT)
        wanted = open_model(named, device="cpu").sampling(4)["sigmas"].numpy()
        assert np.array_equal(arrays["sigmas"], wanted)


def test_a_network_alone_is_not_given_another_schedule(tmp_path: Path) -> None:
    """A configuration beside the network's own comes before that of the pipeline."""
    folder = saved(tmp_path)
    beside = json.loads((folder / "scheduler/scheduler_config.json").read_text()) | {"beta_end": 0.5}
    (folder / "unet/scheduler_config.json").write_text(json.dumps(beside))
    alone = from_diffusers(folder / "unet").sigma_max
    (folder / "unet/scheduler_config.json").unlink()
    assert alone > 2 * from_diffusers(folder / "unet").sigma_max
