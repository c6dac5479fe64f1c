"""Pipelines saved on disk: what is missing, damaged, of another kind or size is one sentence, before any number."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch as st
import torch
from problems import small_unet
from torch import Tensor

from neural import from_diffusers, from_unet, open_model


def unet(**options: Any) -> Any:
    from diffusers.models.unets.unet_2d import UNet2DModel

    given: dict[str, Any] = {
        "sample_size": 8,
        "in_channels": 1,
        "out_channels": 1,
        "block_out_channels": (8, 8),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "down_block_types": ("DownBlock2D",) * 2,
        "up_block_types": ("UpBlock2D",) * 2,
    }
    torch.manual_seed(0)
    return UNet2DModel(**(given | options))


def pipeline(folder: Path, net: Any = None, scheduler: Any = None) -> Path:
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    (net or unet()).save_pretrained(folder / "unet")
    (scheduler or DDPMScheduler()).save_pretrained(folder / "scheduler")
    return folder


WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def rewritten(change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        tensors = st.load_file(folder / WEIGHTS)
        st.save_file(change(tensors), folder / WEIGHTS, metadata={"format": "pt"})

    return write


def text(name: str, written: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_text(written)

    return write


def without(name: str, value: Any) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        path = folder / name
        config = json.loads(path.read_text())
        path.write_text(json.dumps(config | value))

    return write


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (
            rewritten(lambda w: {name: value for name, value in w.items() if name != "conv_in.bias"}),
            r"are not those of its config\.json: 1 missing \(conv_in\.bias\)$",
        ),
        (
            rewritten(lambda w: {f"module.{name}": value for name, value in w.items()}),
            r"missing \(conv_in\.bias, conv_in\.weight, conv_norm_out\.bias, …\); \d+ left over \(module\.conv_in\.b",
        ),
        (rewritten(lambda w: w | {"more": torch.zeros(1)}), r"1 left over \(more\)$"),
        (rewritten(lambda w: w | {"conv_in.bias": torch.zeros(5)}), r"1 of another shape \(conv_in\.bias\)$"),
        (without("unet/config.json", {"layers_per_block": 2}), r"\d+ missing \("),
        (without("unet/config.json", {"_class_name": "UNet2DConditionModel"}), "is a UNet2DConditionModel, and only"),
        (text("model_index.json", '{"_class_name": "LDMPipeline", "vqvae": ["diffusers", "VQModel"]}'), "with a vqvae"),
        (text("model_index.json", '{"vae": ["diffusers", "AutoencoderKL"]}'), "is a pipeline with a vae: its network"),
        (text("scheduler/scheduler_config.json", "[]"), r"scheduler_config\.json is damaged: it holds a list"),
        (text("scheduler/scheduler_config.json", "{"), r"scheduler_config\.json is damaged: Expecting property name"),
        (text("unet/config.json", "{"), r"unet/config\.json is damaged: Expecting property name"),
        (text("unet/config.json", "3"), r"unet/config\.json is damaged: it holds a int"),
        (text(WEIGHTS, "no weights"), "holds no unconditional diffusers checkpoint in safetensors: Unable to load"),
        (without("unet/config.json", {"down_block_types": ["No", "Such"]}), "the network of .* could not be read: No"),
        (without("scheduler/scheduler_config.json", {"_class_name": "TCDScheduler"}), "TCDScheduler is none of the"),
        (without("scheduler/scheduler_config.json", {"_class_name": None}), "None is none of the schedulers"),
        (
            without("scheduler/scheduler_config.json", {"beta_schedule": "wavy"}),
            r"scheduler_config\.json does not describe a DDPMScheduler: wavy is not implemented",
        ),
        (lambda folder: (folder / WEIGHTS).unlink(), "holds no unconditional diffusers checkpoint in safetensors"),
    ],
)
def test_what_is_not_whole_is_not_answered_from(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], damage: Callable[[Path], None], sentence: str
) -> None:
    """One tensor missing, and the answers came from uninitialised memory: another one at every call."""
    damage(pipeline(tmp_path))
    capfd.readouterr()
    with pytest.raises(ValueError, match=sentence) as caught:
        from_diffusers(tmp_path)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_nothing_is_printed_before_the_answer(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pipeline(tmp_path)
    capfd.readouterr()
    from_diffusers(tmp_path)(torch.zeros(1, 1, 8, 8), 1.0)
    assert capfd.readouterr() == ("", "")


def test_a_network_made_for_another_size(tmp_path: Path) -> None:
    pipeline(tmp_path)
    for size in (16, 6):
        with pytest.raises(ValueError, match=rf"made for points of shape \(1, 8, 8\), x has \(1, {size}, {size}\)"):
            open_model(f"diffusers:{tmp_path}")(torch.zeros(2, 1, size, size), 1.0)
        with pytest.raises(ValueError, match=rf"made for points of shape \(1, 8, 8\), x has \(1, {size}, {size}\)"):
            from_diffusers(tmp_path)(torch.zeros(2, 1, size, size), 1.0)
    larger = open_model(f"diffusers:{tmp_path}", event=(1, 16, 16))
    assert larger(torch.zeros(2, 1, 16, 16), 1.0).shape == (2, 1, 16, 16)


def test_four_levels_on_28_by_28(tmp_path: Path) -> None:
    """diffusers' own words: Expected size 8 but got size 7."""
    four = {
        "block_out_channels": (8,) * 4,
        "down_block_types": ("DownBlock2D",) * 4,
        "up_block_types": ("UpBlock2D",) * 4,
    }
    pipeline(tmp_path, unet(sample_size=32, **four))
    with pytest.raises(ValueError, match=r"made for points of shape \(1, 32, 32\), x has \(1, 28, 28\)"):
        from_diffusers(tmp_path)(torch.zeros(1, 1, 28, 28), 1.0)
    anyway = from_diffusers(tmp_path, event=(1, 28, 28))
    with pytest.raises(ValueError, match=r"UNet2DModel is made for points of shape \(1, 32, 32\), x has \(1, 28, 28\)"):
        anyway(torch.zeros(1, 1, 28, 28), 1.0)


def test_a_learned_variance_is_left_out(tmp_path: Path, normal: Callable[..., Tensor]) -> None:
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    net, scheduler = unet(out_channels=2), DDPMScheduler(variance_type="learned_range")
    F, x = from_diffusers(pipeline(tmp_path, net, scheduler)), normal(2, 1, 8, 8)
    kept = scheduler.alphas_cumprod[500].double()
    x_t, generator = kept.sqrt() * x, torch.Generator().manual_seed(0)
    with torch.no_grad():
        answer = net(x_t.float(), torch.tensor(500)).sample
    told = scheduler.step(answer.double(), 500, x_t, generator=generator).pred_original_sample
    torch.testing.assert_close(F(x, float(((1 - kept) / kept).sqrt())), told, rtol=0, atol=1e-5)


def test_class_conditional_pipelines(tmp_path: Path, normal: Callable[..., Tensor]) -> None:
    folder, x = pipeline(tmp_path, unet(num_class_embeds=10)), normal(3, 1, 8, 8).float()
    model = open_model(f"diffusers:{folder}", batch=2)
    with pytest.raises(ValueError, match="the network is class-conditional, with 10 classes: give labels"):
        model(x, 1.0)
    each = [model.given(label)(x[i : i + 1], 1.0) for i, label in enumerate((3, 0, 9))]
    torch.testing.assert_close(model.given([3, 0, 9])(x, 1.0), torch.cat(each), rtol=0, atol=1e-5)
    assert not torch.allclose(each[0], model.given(4)(x[:1], 1.0), atol=1e-4)
    torch.testing.assert_close(from_diffusers(folder, class_labels=torch.tensor(3))(x[:1], 1.0), each[0])
    with pytest.raises(ValueError, match=r"labels must lie in 0 … 9, the classes of the network, got 12"):
        model.given(12)(x, 1.0)
    plain = pipeline(tmp_path / "plain")
    with pytest.raises(ValueError, match="labels are given, and the network is not class-conditional"):
        open_model(f"diffusers:{plain}").given(3)(x, 1.0)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
        ("UniPCMultistepScheduler", {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}),
        ("HeunDiscreteScheduler", {"beta_schedule": "exp"}),
        ("EDMEulerScheduler", {"sigma_data": 0.7}),
        ("EulerDiscreteScheduler", {"timestep_type": "continuous", "prediction_type": "v_prediction"}),
        ("LCMScheduler", {}),
        ("DDIMScheduler", {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}),
    ],
)
def test_on_disk_as_in_memory(
    tmp_path: Path, name: str, options: dict[str, Any], normal: Callable[..., Tensor]
) -> None:
    import diffusers

    net, x = small_unet(), normal(2, 1, 8, 8)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "__array", DeprecationWarning)
        scheduler = getattr(diffusers, name)(**options)
        scheduler.save_pretrained(tmp_path / "scheduler")
    net.save_pretrained(tmp_path / "unet")
    loaded, F = from_diffusers(tmp_path), from_unet(net, scheduler)
    assert (loaded.sigma_min, loaded.sigma_max) == (F.sigma_min, F.sigma_max)
    for sigma in (0.3, 5.0):
        torch.testing.assert_close(loaded(x, sigma), F(x, sigma))


def test_clip_is_the_pipelines_unless_told(tmp_path: Path, normal: Callable[..., Tensor]) -> None:
    folder, x = pipeline(tmp_path), 5 * normal(2, 1, 8, 8)
    free = open_model(f"diffusers:{folder}", clip=False)(x, 5.0)
    assert float(free.abs().max()) > 2
    torch.testing.assert_close(open_model(f"diffusers:{folder}")(x, 5.0), free.clamp(-1, 1))
    torch.testing.assert_close(open_model(f"diffusers:{folder}", clip=(-0.5, 2))(x, 5.0), free.clamp(-0.5, 2))
    with pytest.raises(ValueError, match=r"clip must be a number above 0 or \(low, high\), got -1"):
        open_model(f"diffusers:{folder}", clip=-1)
