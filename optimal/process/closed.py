"""The processes whose moments are known in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Process

__all__ = ["EDM", "VE", "VP", "CosineVP", "FlowMatching", "GeometricVE"]


class _VarianceExploding(Process):
    """f = 0, scale = 1: sigma² is the integral of g² (Eq. 14 to 17)."""

    def _f(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def _scale(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)


@dataclass(frozen=True)
class VE(_VarianceExploding):
    """dx = sigma_max dw: sigma = sigma_max √t on [0, 1].

    The paper's Eq. 14 to 17 on the clock s_t² = sigma_max² t: steps that are even in t are even in the variance, the
    dw_{s_t²} of Eq. 23.

    Args:
        sigma_max: noise level at t = 1, in units of the data.

    Example:
        >>> float(VE(80.0).sigma(0.25))
        40.0
    """

    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_max < math.inf:
            raise ValueError(f"VE needs 0 < sigma_max < inf, got {self.sigma_max:g}")

    def _g(self, t: Tensor) -> Tensor:
        return torch.full_like(t, self.sigma_max)

    def _sigma(self, t: Tensor) -> Tensor:
        return self.sigma_max * t.sqrt()

    def _time(self, sigma: Tensor) -> Tensor:
        return (sigma / self.sigma_max).square()


@dataclass(frozen=True)
class GeometricVE(_VarianceExploding):
    """Song's VE: g = sigma_min r^t √(2 ln r) with r = sigma_max/sigma_min, on [0, 1].

    From x(0) = x0 Prop. 1 gives sigma² = sigma_min² (r^{2t} − 1), which is used here. Song et al. 2021 (Appendix C)
    start from noise sigma_min, so that their kernel is sigma_min r^t; the two differ by less than sigma_min, and
    sigma(1) here is √(sigma_max² − sigma_min²).

    Args:
        sigma_min, sigma_max: noise levels, in units of the data.

    Example:
        >>> float(GeometricVE(0.01, 50.0).sigma(1.0).round(decimals=7))
        49.999999
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise ValueError(
                f"GeometricVE needs 0 < sigma_min < sigma_max < inf, got {self.sigma_min:g} and {self.sigma_max:g}"
            )

    @property
    def _rate(self) -> float:
        return 2 * math.log(self.sigma_max / self.sigma_min)

    def _g(self, t: Tensor) -> Tensor:
        return self.sigma_min * math.sqrt(self._rate) * (0.5 * self._rate * t).exp()

    def _sigma(self, t: Tensor) -> Tensor:
        return self.sigma_min * (self._rate * t).expm1().sqrt()

    def _time(self, sigma: Tensor) -> Tensor:
        return (sigma / self.sigma_min).square().log1p() / self._rate


@dataclass(frozen=True)
class EDM(_VarianceExploding):
    """sigma = t: f = 0, g = √(2t) (Eq. 32; Karras et al. 2022, Table 1, last column).

    Args:
        t_max: the last time, which is also the largest noise level; inf is allowed.

    Example:
        >>> EDM().g(torch.tensor([0.5, 2.0]))
        tensor([1., 2.], dtype=torch.float64)
    """

    t_max: float = 80.0

    def __post_init__(self) -> None:
        if not self.t_max > 0:
            raise ValueError(f"EDM needs t_max > 0, got {self.t_max:g}")

    def _g(self, t: Tensor) -> Tensor:
        return (2 * t).sqrt()

    def _sigma(self, t: Tensor) -> Tensor:
        return t.clone()

    def _time(self, sigma: Tensor) -> Tensor:
        return sigma

    def _sigma_dot(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)


class _VariancePreserving(Process):
    """scale² + std² = 1: g² = −2 f (Eq. 11), so that scale = 1/√(1 + sigma²) whatever the clock."""

    def _scale_at(self, sigma: Tensor) -> Tensor:
        return 1 / torch.hypot(torch.ones_like(sigma), sigma)

    def _std(self, t: Tensor) -> Tensor:
        # sigma/√(1 + sigma²), for sigma = 0 and inf too.
        return 1 / torch.hypot(torch.ones_like(t), 1 / self._sigma(t))

    def _sigma_dot(self, t: Tensor) -> Tensor:
        sigma = self._sigma(t)
        return self._f(t).neg() * (sigma + 1 / sigma)


@dataclass(frozen=True)
class VP(_VariancePreserving):
    """Linear VP: f = −β/2, g = √β with β(t) = beta_min + (beta_max − beta_min) t on [0, 1].

    sigma² = exp(B) − 1 and scale = exp(−B/2), B(t) = ∫β = beta_min t + (beta_max − beta_min) t²/2: the paper's α_t is
    exp(−B). The defaults are DDPM's, in continuous time; sigma(1) = 152.

    Args:
        beta_min, beta_max: β(0) and β(1).

    References:
        Song et al. 2021, Appendix C. Karras et al. 2022, Table 1, first column (β_d = beta_max − beta_min).

    Example:
        >>> process = VP()
        >>> round(float(process.sigma(1.0)), 3), round(float(process.scale(0.5)), 4)
        (152.167, 0.2812)
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        if not 0 < self.beta_min <= self.beta_max < math.inf:
            raise ValueError(f"VP needs 0 < beta_min <= beta_max < inf, got {self.beta_min:g} and {self.beta_max:g}")

    def _f(self, t: Tensor) -> Tensor:
        return -0.5 * (self.beta_min + (self.beta_max - self.beta_min) * t)

    def _g(self, t: Tensor) -> Tensor:
        return (-2 * self._f(t)).sqrt()

    def _scale(self, t: Tensor) -> Tensor:
        return (-0.5 * self._integral(t)).exp()

    def _sigma(self, t: Tensor) -> Tensor:
        return self._integral(t).expm1().sqrt()

    def _time(self, sigma: Tensor) -> Tensor:
        return self._inverse(sigma.square().log1p())

    def _time_of_scale(self, scale: Tensor) -> Tensor:
        return self._inverse(-2 * scale.log())

    def _integral(self, t: Tensor) -> Tensor:
        return (self.beta_min + 0.5 * (self.beta_max - self.beta_min) * t) * t

    def _inverse(self, integral: Tensor) -> Tensor:
        # The root of the quadratic that does not cancel for small B.
        slope = self.beta_max - self.beta_min
        return 2 * integral / (self.beta_min + (self.beta_min**2 + 2 * slope * integral).sqrt())


@dataclass(frozen=True)
class CosineVP(_VariancePreserving):
    """Cosine VP: scale = cos θ/cos θ0, θ = (t + s)/(1 + s)·π/2, θ0 = θ(0), on [0, 1].

    The paper's α_t is cos² θ/cos² θ0 and sigma² = sin(θ − θ0) sin(θ + θ0)/cos² θ. At t = 1 the signal is gone:
    scale = 0, std = 1, and sigma, −f and g are inf there.

    Args:
        s: offset that keeps β(0) above 0; 0, as some libraries have it, leaves that out.

    References:
        Nichol, Dhariwal 2021, "Improved Denoising Diffusion Probabilistic Models", Eq. 17.

    Example:
        >>> CosineVP().sigma(torch.tensor([0.0, 0.5, 1.0])).round(decimals=4)
        tensor([0.0000, 1.0124,    inf], dtype=torch.float64)
    """

    s: float = 0.008

    def __post_init__(self) -> None:
        if not 0 <= self.s < math.inf:
            raise ValueError(f"CosineVP needs 0 <= s < inf, got {self.s:g}")

    @property
    def _rate(self) -> float:
        """dθ/dt."""
        return 0.5 * math.pi / (1 + self.s)

    def _cos(self, t: Tensor) -> Tensor:
        # From the far end, so that it keeps its relative precision towards t = 1 and is 0 there.
        return (self._rate * (1 - t)).sin()

    def _f(self, t: Tensor) -> Tensor:
        return -self._rate * (self._rate * (1 - t)).cos() / self._cos(t)

    def _g(self, t: Tensor) -> Tensor:
        return (-2 * self._f(t)).sqrt()

    def _scale(self, t: Tensor) -> Tensor:
        return self._cos(t) / math.sin(self._rate)

    def _scale_dot(self, t: Tensor) -> Tensor:
        return -self._rate * (self._rate * (1 - t)).cos() / math.sin(self._rate)

    def _sigma(self, t: Tensor) -> Tensor:
        return ((self._rate * t).sin() * (self._rate * (t + 2 * self.s)).sin()).sqrt() / self._cos(t)

    def _time(self, sigma: Tensor) -> Tensor:
        # tan² θ = tan² θ0 + q², and tan(θ − θ0) without the difference of two angles; the clamp keeps q² finite.
        start = math.tan(self._rate * self.s)
        q = sigma.clamp_max(1e150) * math.hypot(1, start)
        tangent = torch.hypot(torch.full_like(q, start), q)
        # q/(tangent + start) is 1 for s = 0, at q = 0 too.
        share = q / (tangent + start).clamp_min(torch.finfo(torch.float64).tiny) if start else torch.ones_like(q)
        return torch.atan2(q * share, 1 + tangent * start) / self._rate

    def _time_of_scale(self, scale: Tensor) -> Tensor:
        return self._time(((1 - scale) * (1 + scale)).sqrt() / scale)


@dataclass(frozen=True)
class FlowMatching(Process):
    """The straight path x_t = (1 − t) x0 + t eps on [0, 1] (rectified flow, conditional optimal transport).

    scale = 1 − t, std = t, sigma = t/(1 − t), f = −1/(1 − t), g² = 2t/(1 − t); sigma, −f and g are inf at t = 1.

    References:
        Liu, Gong, Liu 2023, "Flow Straight and Fast". Lipman, Chen, Ben-Hamu, Nickel, Le 2023, "Flow Matching for
        Generative Modeling", Eq. 20. Both run t from noise to data.

    Example:
        >>> float(FlowMatching().sigma(0.75))
        3.0
    """

    def _f(self, t: Tensor) -> Tensor:
        return -1 / (1 - t)

    def _g(self, t: Tensor) -> Tensor:
        return (2 * t / (1 - t)).sqrt()

    def _scale(self, t: Tensor) -> Tensor:
        return 1 - t

    def _sigma(self, t: Tensor) -> Tensor:
        return t / (1 - t)

    def _time(self, sigma: Tensor) -> Tensor:
        return 1 / (1 + 1 / sigma)

    def _time_of_scale(self, scale: Tensor) -> Tensor:
        return 1 - scale

    def _scale_at(self, sigma: Tensor) -> Tensor:
        return 1 / (1 + sigma)

    def _std(self, t: Tensor) -> Tensor:
        return t.clone()

    def _scale_dot(self, t: Tensor) -> Tensor:
        return torch.full_like(t, -1.0)

    def _sigma_dot(self, t: Tensor) -> Tensor:
        return (1 - t).square().reciprocal()
