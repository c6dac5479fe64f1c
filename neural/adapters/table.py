"""Networks that count steps of a table of signal shares, as DDPM's do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optimal.parametrize import PARAMETRIZATIONS, to_x0
from optimal.query import beside

from .adapted import Adapted
from .asked import Asked, Order
from .clipping import Given, clip_of
from .ranges import OURS, Values

__all__ = ["Tabulated", "from_ddpm"]

_ROUNDED = 1e-6
"""In ln σ, what single precision may take from a level."""


def from_ddpm(
    network: Callable[..., Any],
    alphas_cumprod: Tensor | np.ndarray | Sequence[float],
    kind: str = "eps",
    *,
    whole_steps: bool = False,
    broadcast_time: bool = False,
    order: Order = "xt",
    value_range: Values = OURS,
    clip: Given = None,
    **arguments: Any,
) -> Tabulated:
    """A network F(x_t, step) on a table ā of signal shares: x_t = √ā x0 + √(1 − ā) eps.

    With σ_step = √((1 − ā)/ā), F is asked at x/√(1 + σ²) and at the step, not necessarily whole, with σ_step = σ
    (linear in ln σ between steps).

    Args:
        network: F(x_t, step): x_t (B, *event), step (B,) -> (B, *event), or twice the channels where it learns its
            variance, of which the second half is left.
        alphas_cumprod: (T,) ā of steps 0 … T − 1, decreasing; steps without signal (ā = 0) are left out.
        kind: what F predicts, a name in `optimal.parametrize.PARAMETRIZATIONS`.
        whole_steps: whether F is given the nearest whole step, as int64: for one that looks steps up in a table.
            Between steps it is then asked beside σ.
        broadcast_time: whether F is given its step as (B, 1, …), ready to multiply x_t.
        order: "tx" for F(step, x_t).
        value_range: the values of the network's images where ours have [−1, 1], see `neural.adapters.ranges`.
        clip: x0_hat is cut at ±clip, or (low, high), as samplers of images do; None for not at all.
        **arguments: given to F at every call.

    Returns:
        A denoiser with attributes sigma_min and sigma_max, the σ of the first and the last step: a sampler's grid has
        to lie between them.

    Raises:
        ValueError: a table that does not decrease within (0, 1), unknown kind; in calls, a σ outside the table.

    Example:
        >>> F = from_ddpm(lambda x_t, step: torch.zeros_like(x_t), torch.linspace(0.99, 0.01, 50), "x0")
        >>> F(torch.ones(2, 3), 1.0).abs().max(), round(F.sigma_max, 2)
        (tensor(0.), 9.95)
    """
    if kind not in PARAMETRIZATIONS:
        raise ValueError(f"kind must be one of {', '.join(PARAMETRIZATIONS)}, got {kind!r}")
    kept = torch.as_tensor(alphas_cumprod, dtype=torch.float64).cpu().numpy()
    kept = kept[kept > 0]
    if len(kept) < 2 or not (kept < 1).all() or not (np.diff(kept) < 0).all():
        raise ValueError("alphas_cumprod must decrease within (0, 1) over two or more steps")
    asked = Asked(network, arguments, order=order, broadcast=broadcast_time)
    return Tabulated(asked, np.log((1 - kept) / kept) / 2, kind, whole_steps, clip=clip).of_values(value_range)


class Tabulated(Adapted):
    """What `from_ddpm` makes.

    Args:
        asked: the network.
        table: (T,) ln σ of its steps.
        kind: what it predicts.
        whole_steps: see `from_ddpm`.
        clip: what is done to x0_hat, before the boundary.
        boundary: c of consistency models that count steps: x0_hat is c_skip x_t + c_out x0_hat, with c_skip =
            ¼/((c step)² + ¼) and c_out = c step/√((c step)² + ¼) (Luo et al. 2023); None for none.

    Attributes:
        kept: (T,) ā of its steps.
        whole_steps: see `from_ddpm`.
    """

    def __init__(
        self,
        asked: Asked,
        table: np.ndarray,
        kind: str,
        whole_steps: bool = False,
        *,
        clip: Given = None,
        boundary: float | None = None,
    ):
        # Consistency models cut x0_hat before they mix it with x_t.
        super().__init__(asked, clip_of(clip) if boundary is None else None)
        self._before, self.jumps = clip_of(clip), boundary is not None
        self._table, self._kind, self._boundary = table, kind, boundary
        self.kept, self.whole_steps = 1 / (1 + np.exp(2 * table)), whole_steps
        self.sigma_min, self.sigma_max = (float(level) for level in np.exp(table[[0, -1]]))

    def _denoised(self, x: Tensor, sigma: Tensor, dtype: torch.dtype, arguments: dict[str, Any]) -> Tensor:
        log_sigma = sigma.log().cpu().numpy()
        place = np.interp(log_sigma, self._table, np.arange(len(self._table)))
        # Of betas rescaled to no signal the last level lies below some before it, and a scheduler in single precision
        # may ask for it a little lower: it is the last step all the same.
        place = np.where(log_sigma >= self._table[-1] - _ROUNDED, len(self._table) - 1.0, place)
        step = torch.from_numpy(place).to(x.device)
        step = step.round().long() if self.whole_steps else step
        scale = beside((1 + sigma.square()).rsqrt(), x)
        x_t = scale * x.double()
        value = self.asked(x_t, step, dtype, **arguments)
        x0 = to_x0(value * scale if self._kind == "score" else value, x.double(), sigma, self._kind)
        if self._boundary is None:
            return x0
        size = beside(self._boundary * step.double(), x)
        x0 = x0 if self._before is None else self._before(x0)
        return x_t / (4 * size.square() + 1) + size / (size.square() + 0.25).sqrt() * x0
