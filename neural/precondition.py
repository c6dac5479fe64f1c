"""From a network to a denoiser: EDM's preconditioning, and none.

A network F(x, c_noise) is asked for what is left once the trivial part of the answer is taken out (Karras et al. 2022,
Table 1, last column):

    D(x, σ) = c_skip x + c_out F(c_in x, c_noise),
    c_skip = σ_d²/(σ² + σ_d²),  c_out = σ σ_d/√(σ² + σ_d²),  c_in = 1/√(σ² + σ_d²),  c_noise = ¼ ln σ

with σ_d the size of the data, so that F sees inputs of size 1, and has to answer with size 1, at every noise level. At
σ = 0, D(x, 0) = x whatever F is: the boundary condition of consistency models (x_θ(x, t_1) = x) holds by construction.

Without ("none") D = F(x, c_noise), the paper's plain x_θ (Eq. 26).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from optimal.query import Levels, beside, levels, require_points

from .adapters.asked import ask
from .adapters.labels import numbered

__all__ = ["PRECONDITIONS", "Preconditioned"]

PRECONDITIONS = ("edm", "none")

_LOWEST = 1e-8
"""ln σ is taken of nothing less; at σ = 0 what F says does not count."""


class Preconditioned(nn.Module):
    """A network as a `Denoiser`, (x, sigma) -> x0_hat.

    Args:
        net: F(x, c_noise): x (B, *event) in the precision of its weights, c_noise (B,) in float32, or float64 where
            they are -> (B, *event). One with classes says how many in an attribute of this name, and is called with
            class_labels (B,) int64, −1 for none, too.
        sigma_data: σ_d, the root mean square of the data's values.
        precondition: "edm" or "none".

    Raises:
        ValueError: another precondition, sigma_data not positive and finite.

    References:
        Karras, Aittala, Aila, Laine 2022, "Elucidating the Design Space of Diffusion-Based Generative Models", Table 1.

    Example:
        >>> class Zero(nn.Module):
        ...     def forward(self, x, c_noise):
        ...         return 0 * x
        >>> Preconditioned(Zero(), sigma_data=0.5)(torch.ones(1, 2), 0.5)    # c_skip = 1/2
        tensor([[0.5000, 0.5000]])
    """

    def __init__(self, net: nn.Module, sigma_data: float, precondition: str = "edm"):
        super().__init__()
        if precondition not in PRECONDITIONS:
            raise ValueError(f"precondition must be one of {', '.join(PRECONDITIONS)}, got {precondition!r}")
        if not 0 < sigma_data < math.inf:
            raise ValueError(f"sigma_data must be positive and finite, got {sigma_data:g}")
        self.net, self.sigma_data, self.precondition = net, float(sigma_data), precondition

    @property
    def classes(self) -> int:
        """How many classes the network can be asked for; 0: it takes no labels."""
        return int(getattr(self.net, "classes", 0))

    def forward(
        self, x: Num[Tensor, "B *event"], sigma: Levels, class_labels: Tensor | int | None = None
    ) -> Float[Tensor, "B *event"]:
        """x0_hat, (B, *event), in the dtype of x.

        Args:
            x: (B, *event) noisy points.
            sigma: noise level, >= 0: float, () or (B,).
            class_labels: of a network with classes, whole numbers, () or (B,), −1 for none; None: none of all rows.

        Raises:
            ValueError: x not floating point; sigma negative, not finite or of another shape; labels that are none of
                its classes; F's answer of another shape than x.
        """
        require_points(x)
        values = levels(sigma, len(x), x.device, zero=True, graph=True)
        c_noise = values.clamp_min(_LOWEST).log() / 4
        work = torch.promote_types(x.dtype, torch.float32)
        c_skip, c_out, c_in = (beside(c.to(work), x) for c in self.coefficients(values))
        wide = x.to(work)
        given = {} if class_labels is None else {"class_labels": numbered(class_labels, self.classes, len(x))}
        answer = ask(self.net, c_in * wide, c_noise, given)
        return (c_skip * wide + c_out * answer.to(work)).to(x.dtype)

    def coefficients(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """c_skip, c_out and c_in at sigma, each like sigma."""
        if self.precondition == "none":
            return torch.zeros_like(sigma), torch.ones_like(sigma), torch.ones_like(sigma)
        total = sigma.square() + self.sigma_data**2
        return self.sigma_data**2 / total, sigma * self.sigma_data / total.sqrt(), total.rsqrt()
