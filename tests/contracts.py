"""What every `Denoiser` promises, whichever way it computes: one battery for all of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from problems import row_error
from torch import Tensor

__all__ = ["check_denoiser"]

Denoiser = Callable[[Tensor, float | Tensor], Tensor]


def check_denoiser(D: Denoiser, event: tuple[int, ...], *, scale: float = 1.0) -> None:
    """Run the whole battery.

    Args:
        D: (x, sigma) -> x0_hat.
        event: shape of one point.
        scale: typical size of the data, the unit of x and sigma.
    """
    generator = torch.Generator().manual_seed(1)
    # As many points as the image is wide: the batch that silently broadcasts against pixels where sigma is not
    # reshaped.
    batch = event[-1] if len(event) > 1 else 4
    x = scale * torch.randn(batch, *event, generator=generator)
    sigma = scale * torch.linspace(0.3, 3.0, batch)
    for check in (_sigma_broadcasts, _type_and_device, _batch_is_loop, _layout, _finite):
        check(D, x, sigma)
    _no_side_effects(D, x, sigma)


def _close(a: Tensor, b: Tensor, tolerance: float = 1e-6) -> None:
    assert a.shape == b.shape
    assert row_error(a, b).amax() <= tolerance if len(a) else True


def _sigma_broadcasts(D: Denoiser, x: Tensor, sigma: Tensor) -> None:
    level = 0.75 * float(sigma.mean())
    forms = [level, torch.tensor(level), torch.full((len(x),), level), torch.tensor(level, dtype=torch.float64)]
    # Numbers first rounded to float32 are other noise levels, by 6e-8.
    for form in forms[1:]:
        _close(D(x, form), D(x, forms[0]))
    mixed = D(x, sigma)
    assert mixed.shape == x.shape
    assert not torch.allclose(mixed, D(x, level))


def _batch_is_loop(D: Denoiser, x: Tensor, sigma: Tensor) -> None:
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        queries = x.to(dtype)
        rows = [D(queries[i : i + 1], sigma[i]) for i in range(len(x))]
        _close(D(queries, sigma), torch.cat(rows), tolerance)
    _close(D(x[:0], sigma[:0]), x[:0])
    _close(D(x[:0], 1.0), x[:0])


def _type_and_device(D: Denoiser, x: Tensor, sigma: Tensor) -> None:
    precisions = {torch.float64: 0.0, torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 1e-2}
    for dtype, tolerance in precisions.items():
        out = D(x.to(dtype), sigma.to(dtype))
        assert out.dtype == dtype
        assert out.device == x.device
        _close(out, D(x.to(dtype).double(), sigma.to(dtype).double()), tolerance)


def _layout(D: Denoiser, x: Tensor, sigma: Tensor) -> None:
    strided = torch.stack([x, -x], dim=-1)[..., 0]
    assert not strided.is_contiguous()
    _close(D(strided, sigma), D(x, sigma))
    same = x[:1].expand(len(x), *x.shape[1:])
    _close(D(same, 1.0), D(same.contiguous(), 1.0))


def _finite(D: Denoiser, x: Tensor, sigma: Tensor) -> None:
    unit = float(sigma.amax()) / 3
    for level in torch.logspace(-3, 3, 7).tolist():
        for size in (0.0, 1.0, 100.0):
            assert torch.isfinite(D(size * x, unit * level)).all(), f"sigma = {level:g}, x {size:g} times the data"


def _no_side_effects(D: Denoiser, x: Tensor, sigma: Tensor) -> None:
    kept, levels, state = x.clone(), sigma.clone(), torch.random.get_rng_state()
    first, second = D(x, sigma), D(x, sigma)
    assert torch.equal(first, second), "two equal calls give two answers"
    first.zero_()
    assert torch.equal(D(x, sigma), second), "changing a result changes the next one"
    assert torch.equal(x, kept)
    assert torch.equal(sigma, levels)
    assert torch.equal(torch.random.get_rng_state(), state), "the global random state was touched"
