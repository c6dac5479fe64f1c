"""Networks of EDM: denoisers as they are, and raw ones inside of a preconditioning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from optimal.query import beside

from .adapted import Adapted
from .asked import Asked, Order
from .clipping import Given, clip_of
from .ranges import OURS, Values

__all__ = ["Denoising", "Raw", "from_edm", "from_edm_raw"]


def from_edm(
    network: Callable[..., Any],
    *,
    labels: Tensor | None = None,
    value_range: Values = OURS,
    broadcast_sigma: bool = False,
    order: Order = "xt",
    clip: Given = None,
    **arguments: Any,
) -> Denoising:
    """A network that is a denoiser already, net(x, sigma) -> x0_hat, as EDM's preconditioned ones are.

    Args:
        network: net(x, sigma), x (B, *event), sigma (B,).
        labels: one class for all rows, or one a row, given as class_labels: (), (B,), or codes (K,), (B, K), one-hot
            say.
        value_range: the values of the network's images where ours have [−1, 1], see `neural.adapters.ranges`: (0, 1)
            for deepinv's, whose noise level is then sigma/2.
        broadcast_sigma: whether net is given sigma as (B, 1, …), ready to multiply x.
        order: "tx" for net(sigma, x).
        clip: x0_hat is cut at ±clip, or (low, high); None for not at all.
        **arguments: given to net at every call.

    Raises:
        ValueError: a range that is none; in calls, sigma not positive, not finite or of another shape; an answer of
            another shape than x.

    References:
        Karras, Aittala, Aila, Laine 2022, Table 1.

    Example:
        >>> from_edm(lambda x, sigma: x / (1 + sigma[:, None] ** 2))(torch.ones(1, 2), 1.0)
        tensor([[0.5000, 0.5000]])
    """
    given = arguments if labels is None else arguments | {"class_labels": labels}
    asked = Asked(network, given, order=order, broadcast=broadcast_sigma)
    return Denoising(asked, clip_of(clip)).of_values(value_range)


def from_edm_raw(
    network: Callable[..., Any],
    *,
    sigma_data: float = 0.5,
    kind: str = "F",
    labels: Tensor | None = None,
    value_range: Values = OURS,
    broadcast_sigma: bool = False,
    order: Order = "xt",
    clip: Given = None,
    **arguments: Any,
) -> Raw:
    """The network inside of EDM's preconditioning, F(c_in x, ¼ ln σ): what diffusers' EDM schedulers sample.

        D(x, σ) = c_skip x + c_out F(c_in x, ¼ ln σ),
        c_skip = σ_d²/(σ² + σ_d²),  c_out = σ σ_d/√(σ² + σ_d²),  c_in = 1/√(σ² + σ_d²)

    Args:
        network: F(c_in x, ¼ ln σ): (B, *event) and (B,) -> (B, *event).
        sigma_data: σ_d, of its training.
        kind: "F" as above; "v" where c_out is negative, which is v-prediction where σ_d = 1 (k-diffusion).
        labels, value_range, order, clip: as for `from_edm`; σ_d is in the network's values.
        broadcast_sigma: whether F is given ¼ ln σ as (B, 1, …).
        **arguments: given to F at every call.

    Raises:
        ValueError: another kind, σ_d not positive; in calls, as for `from_edm`.

    References:
        Karras, Aittala, Aila, Laine 2022, Table 1, last column.

    Example:
        >>> from_edm_raw(lambda x, c_noise: 0 * x)(torch.ones(1, 2), 0.5)                   # c_skip = 1/2
        tensor([[0.5000, 0.5000]])
    """
    if kind not in ("F", "v"):
        raise ValueError(f'kind must be "F" or "v", got {kind!r}')
    if not sigma_data > 0:
        raise ValueError(f"sigma_data must be positive, got {sigma_data:g}")
    given = arguments if labels is None else arguments | {"class_labels": labels}
    asked = Asked(network, given, order=order, broadcast=broadcast_sigma)
    return Raw(asked, float(sigma_data), -1.0 if kind == "v" else 1.0, clip=clip).of_values(value_range)


class Denoising(Adapted):
    """What `from_edm` makes."""

    def _denoised(self, x: Tensor, sigma: Tensor, dtype: torch.dtype, arguments: dict[str, Any]) -> Tensor:
        return self.asked(x, sigma, dtype, **arguments)


class Raw(Adapted):
    """What `from_edm_raw` makes."""

    def __init__(self, asked: Asked, sigma_data: float, sign: float, *, clip: Given = None):
        super().__init__(asked, clip_of(clip))
        self._sigma_data, self._sign = sigma_data, sign

    def _denoised(self, x: Tensor, sigma: Tensor, dtype: torch.dtype, arguments: dict[str, Any]) -> Tensor:
        total, wide = sigma.square() + self._sigma_data**2, x.double()
        c_skip, c_out = self._sigma_data**2 / total, self._sign * self._sigma_data * sigma / total.sqrt()
        value = self.asked(beside(total.rsqrt(), x) * wide, sigma.log() / 4, dtype, **arguments)
        return beside(c_skip, x) * wide + beside(c_out, x) * value.to(torch.float64)
