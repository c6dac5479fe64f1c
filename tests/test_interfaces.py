"""Denoisers in the call signatures of others: their samplers, written out here as they call, go where ours go."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from optimal import Dataset, OptimalDenoiser, karras, load, sample
from optimal.interfaces import for_azula, for_deepinv, for_edm, for_k_diffusion
from optimal.process import EDM, VP, FlowMatching, Process

SIGMAS = karras(8)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load("digits", progress=False)


@pytest.fixture(scope="module")
def D(data: Dataset) -> OptimalDenoiser:
    return OptimalDenoiser(data)


@pytest.fixture(scope="module")
def start() -> Tensor:
    return 80 * torch.randn(6, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def edm_sampler(net: Any, latents: Tensor, class_labels: Tensor | None = None) -> Tensor:
    """As EDM's generate.py asks its net: scalar levels, float64 states, one-hot labels."""
    steps = torch.cat([net.round_sigma(SIGMAS[:-1]), torch.zeros(1, dtype=torch.float64)])
    x = latents
    for i, (now, then) in enumerate(pairwise(steps)):
        d = (x - net(x, now, class_labels).to(torch.float64)) / now
        moved = x + (then - now) * d
        if i < len(steps) - 2:
            d = (d + (moved - net(moved, then, class_labels).to(torch.float64)) / then) / 2
        x = x + (then - now) * d
    return x


def sample_heun(model: Callable[..., Tensor], x: Tensor, extra_args: dict[str, Any] | None = None) -> Tensor:
    """As k-diffusion's samplers ask their model: a level a row, and extra arguments by keyword."""
    extra = extra_args or {}
    rows = x.new_ones([x.shape[0]])
    for now, then in pairwise(SIGMAS):
        d = (x - model(x, now * rows, **extra)) / now
        moved = x + d * (then - now)
        if then > 0:
            d = (d + (moved - model(moved, then * rows, **extra)) / then) / 2
        x = x + d * (then - now)
    return x


def azula_ddim(denoiser: Any, x: Tensor, times: Tensor) -> Tensor:
    """As azula's DDIMSampler asks its denoiser: alpha_t, sigma_t from the schedule, the mean of a posterior."""
    for t, s in pairwise(times):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = denoiser.schedule(t), denoiser.schedule(s)
        q = denoiser(x, t)
        x = alpha_s * q.mean + sigma_s / sigma_t * (x - alpha_t * q.mean)
    return x


def test_edm(D: OptimalDenoiser, start: Tensor) -> None:
    net = for_edm(D)
    assert (net.img_channels, net.img_resolution, net.label_dim) == (1, 8, 0)
    assert (net.sigma_min, net.sigma_max) == (0.0, math.inf)
    ours = sample(D, start, SIGMAS, solver="heun")
    torch.testing.assert_close(edm_sampler(net, start), ours, rtol=1e-9, atol=1e-9)
    x, level = start / 20, torch.tensor([0.5, 1.0, 2.0, 3.0, 4.0, 5.0], dtype=torch.float64)
    torch.testing.assert_close(net(x, level.reshape(-1, 1, 1, 1), force_fp32=True), D(x, level), rtol=0, atol=0)


def test_edm_of_a_class(D: OptimalDenoiser, start: Tensor) -> None:
    net, labels = for_edm(D, classes=10), torch.tensor([3, 1, 4, 1, 5, 9])
    one_hot = torch.nn.functional.one_hot(labels, 10)
    ours = sample(D.given(labels), start, SIGMAS, solver="heun")
    torch.testing.assert_close(edm_sampler(net, start, one_hot), ours, rtol=1e-9, atol=1e-9)
    mixed = one_hot.clone()
    mixed[2:] = 0
    x = start / 20
    expected = torch.cat([D.given(labels[:2])(x[:2], 1.0), D(x[2:], 1.0)])
    torch.testing.assert_close(net(x, 1.0, mixed), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(net(x, 1.0, None), D(x, 1.0), rtol=0, atol=0)
    torch.testing.assert_close(net(x, 1.0, one_hot[:1]), D.given(3)(x, 1.0), rtol=1e-9, atol=1e-9)


def test_k_diffusion(D: OptimalDenoiser, start: Tensor) -> None:
    ours = sample(D, start, SIGMAS, solver="heun")
    for model in (D, for_k_diffusion(D)):
        torch.testing.assert_close(sample_heun(model, start), ours, rtol=1e-9, atol=1e-9)
    labels = torch.tensor([3, 1, 4, 1, 5, 9])
    found = sample_heun(for_k_diffusion(D), start, {"class_cond": labels})
    torch.testing.assert_close(found, sample(D.given(labels), start, SIGMAS, solver="heun"), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("process", [VP(), FlowMatching(), EDM()], ids=lambda process: type(process).__name__)
def test_azula(D: OptimalDenoiser, process: Process, start: Tensor) -> None:
    denoiser = for_azula(D, process)
    times = torch.linspace(0.9, 0.05, 9, dtype=torch.float64)
    at = times * process.t_max
    x = process.std(at[0]) * start / 80
    sigmas = process.sigma(at)
    ours = x / process.scale(at[0])
    for now, then in pairwise(sigmas):
        ours = D(ours, float(now)) + then / now * (ours - D(ours, float(now)))
    torch.testing.assert_close(azula_ddim(denoiser, x, times) / process.scale(at[-1]), ours, rtol=1e-8, atol=1e-8)
    rows = torch.linspace(0.1, 0.6, 6, dtype=torch.float64)
    scale = process.scale(rows * process.t_max).reshape(-1, 1, 1, 1)
    expected = D(start / 80 / scale, process.sigma(rows * process.t_max))
    torch.testing.assert_close(denoiser(start / 80, rows).mean, expected, rtol=1e-9, atol=1e-9)
    own = for_azula(D, lambda t: (torch.cos(t), torch.sin(t)))
    torch.testing.assert_close(own(start / 80, rows).mean, D(start / 80 / rows.cos().reshape(-1, 1, 1, 1), rows.tan()))


def test_deepinv(D: OptimalDenoiser, start: Tensor) -> None:
    pixels = (D.take(torch.arange(6)).double() + 1) / 2
    noisy = pixels + 0.2 * start / 80
    found = for_deepinv(D)(noisy, 0.2)
    torch.testing.assert_close(found, (D(2 * noisy - 1, 0.4) + 1) / 2, rtol=1e-9, atol=1e-9)
    levels = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    torch.testing.assert_close(for_deepinv(D)(noisy, levels)[2:3], for_deepinv(D)(noisy[2:3], levels[2]))
    bytes_ = for_deepinv(D, value_range=(0, 255))(255 * noisy, 255 * 0.2)
    torch.testing.assert_close(bytes_ / 255, found, rtol=1e-9, atol=1e-9)


def test_bad_input(D: OptimalDenoiser) -> None:
    points = OptimalDenoiser(torch.zeros(2, 2))
    for ask, words in (
        (lambda: for_edm(points), r"events of shape \(C, H, W\), got \(2,\)"),
        (lambda: for_edm(lambda x, sigma: x), "got None"),
        (lambda: for_edm(lambda x, sigma: x, event=(1, 8, 8), classes=3), "takes no classes"),
        (lambda: for_deepinv(D, value_range=(1, 0)), r"two rising numbers, got \(1, 0\)"),
        (lambda: for_edm(points, event=(1, 2, 1), classes=2)(torch.zeros(1, 2), 1.0, torch.eye(2)[:1]), "no classes"),
    ):
        with pytest.raises(ValueError, match=words):
            ask()


def test_gradients_go_through(D: OptimalDenoiser) -> None:
    x = torch.zeros(1, 1, 8, 8, requires_grad=True)
    for call in (lambda: for_edm(D)(x, 1.0), lambda: for_deepinv(D)(x, 0.5)):
        (grad,) = torch.autograd.grad(call().sum(), x)
        assert grad.abs().max() > 0
