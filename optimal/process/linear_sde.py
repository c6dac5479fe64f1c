"""Any linear process: its moments integrated from Proposition 1."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .base import Process

__all__ = ["LinearSDE"]

_START = -46.0
"""log(t/t_max) where the integration of LinearSDE starts, 1e-20 t_max; below it the moments are powers of t."""

_CALLS = 40_000
"""Evaluations of f and g that LinearSDE may spend; smooth ones take under 10,000."""

_FLOOR = -700.0
"""log(t/t_max) below which inverses do not look."""


class LinearSDE(Process):
    """Any dx_t = f(t) x_t dt + g(t) dw, its moments integrated from Prop. 1 (Eq. 3).

        d log scale/dt = f,    dsigma²/dt = g²/scale²

    in the variable log t, so that small times have their own relative precision: DOP853 with dense output, relative
    tolerance 1e-13. Scale and sigma agree with the closed forms of `closed` to 1e-11 relative, at any t > 0.

    Args:
        f, g: functions of t, float -> float (or a tensor of one element); g must not vanish just after t = 0, where
            the noise has to start.
        t_max: the last time, finite. Moments must be finite up to there.

    Raises:
        ValueError: f or g not finite or moments that diverge before t_max; no noise; t_max not positive and finite.

    Results carry no gradient to t.

    Example:
        >>> process = LinearSDE(lambda t: -1.0, lambda t: 2**0.5, t_max=3.0)     # Ornstein-Uhlenbeck
        >>> round(float(process.sigma(1.0) ** 2 + 1), 8), round(math.exp(2), 8)
        (7.3890561, 7.3890561)
    """

    def __init__(self, f: Callable[[float], float | Tensor], g: Callable[[float], float | Tensor], t_max: float = 1.0):
        if not (callable(f) and callable(g)):
            raise ValueError(f"f and g must be functions of t, got {type(f).__name__} and {type(g).__name__}")
        if not 0 < t_max < math.inf:
            raise ValueError(f"LinearSDE needs 0 < t_max < inf, got {t_max:g}")
        self._functions = {"f": f, "g": g}
        self.t_max = float(t_max)
        self._fault = ""
        self._solve()

    def __repr__(self) -> str:
        return f"LinearSDE(f={self._functions['f']!r}, g={self._functions['g']!r}, t_max={self.t_max:g})"

    def time_of_scale(self, scale: float | Tensor) -> Tensor:
        """The t at which the signal scale is `scale`; ValueError too where the scale both rises and falls."""
        steps = np.diff(self._log_scales)
        if steps.max() > 1e-12 and steps.min() < -1e-12:
            raise ValueError("the scale of this process both rises and falls, so no single time follows from it")
        return super().time_of_scale(scale)

    def _solve(self) -> None:
        """log scale and sigma² over u = log(t/t_max), from _START to 0."""
        from scipy.integrate import DOP853, OdeSolution

        at, later = self._rates(_START, 0.0), self._rates(_START + 1, 0.0)
        # Below _START: log scale ~ t, sigma² ~ t^p, with p the slope of log(t g²).
        self._power = math.log(later[1] / at[1]) if at[1] > 0 and later[1] > 0 else 1.0
        if not (abs(at[0]) < 1e-6 and self._power > 1e-3):
            fault = self._fault or "one of the integrals diverges there"
            raise ValueError(f"f(t) and g(t)² must be integrable from t = 0 on: {fault}")
        start = (at[0], at[1] / self._power)
        tolerances: Any = [1e-13, 1e-300]
        solver = DOP853(
            lambda u, y: self._rates(u, y[0]),
            _START,
            start,
            0.0,
            first_step=0.1,
            max_step=0.25,
            rtol=1e-13,
            atol=tolerances,
        )
        nodes, pieces, log_scales = [_START], [], [at[0]]
        # Next to a singularity f is rough at the spacing of floats, where the integrator would creep for minutes.
        while solver.status == "running" and solver.nfev < _CALLS:
            solver.step()
            if solver.status != "failed":
                nodes.append(solver.t)
                pieces.append(solver.dense_output())
                log_scales.append(solver.y[0])
        stop = f"{self.t_max * math.exp(nodes[-1]):.6g}"
        if solver.y[1] == 0:
            until = "throughout" if solver.status == "finished" else f"up to t = {stop}"
            raise ValueError(f"g must not vanish just after t = 0, where the noise has to start; it is 0 {until}")
        if solver.status != "finished":
            if not self._fault:
                self._rates(0.0, 0.0)
            fault = self._fault or "f(t) or g(t) blows up there, or is too rough to integrate"
            raise ValueError(
                f"the moments of this process are not finite beyond t = {stop}: {fault}; "
                f"give a smaller t_max than {self.t_max:g}"
            )
        self._dense, self._log_scales = OdeSolution(nodes, pieces), np.array(log_scales)

    def _rates(self, u: float, log_scale: float) -> tuple[float, float]:
        """(dlog scale/du, dsigma²/du); nan, which the integrator backs away from, where they are not finite."""
        t = self.t_max * math.exp(u)
        f, g = self._value("f", t), self._value("g", t)
        try:
            growth = t * (g / math.exp(log_scale)) ** 2
        except ArithmeticError:
            growth = math.inf
        if math.isfinite(f + g) and not math.isfinite(growth):
            self._fault = "they leave the range of float64"
        return (t * f, growth) if math.isfinite(f + growth) else (math.nan, math.nan)

    def _value(self, name: str, t: float) -> float:
        try:
            value = float(self._functions[name](t))
        except (ArithmeticError, ValueError):
            value = math.nan
        if not math.isfinite(value):
            self._fault = f"{name}(t) is not finite at t = {t:.6g}"
        return value

    def _moments(self, t: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """log scale and sigma² at times in any order, flat."""
        fraction = t.detach().cpu().numpy().reshape(-1) / self.t_max
        if not fraction.size:
            return fraction, fraction
        log_scale, square = self._dense(np.log(fraction.clip(math.exp(_START), 1)))
        before = (fraction * math.exp(-_START)).clip(0, 1)
        return log_scale * before, square * before**self._power

    def _each(self, name: str, t: Tensor) -> Tensor:
        return _like([float(self._functions[name](time)) for time in t.reshape(-1).tolist()], t)

    def _f(self, t: Tensor) -> Tensor:
        return self._each("f", t)

    def _g(self, t: Tensor) -> Tensor:
        return self._each("g", t).abs()

    def _scale(self, t: Tensor) -> Tensor:
        return _like(np.exp(self._moments(t)[0]), t)

    def _sigma(self, t: Tensor) -> Tensor:
        return _like(np.sqrt(self._moments(t)[1]), t)

    def _sigma_dot(self, t: Tensor) -> Tensor:
        # At t = 0 it is a limit, which the earliest time stands for.
        return super()._sigma_dot(t.clamp_min(self.t_max * math.exp(_START)))

    def _time(self, sigma: Tensor) -> Tensor:
        return self._bisect(lambda t: self._sigma(t) >= sigma, sigma)

    def _time_of_scale(self, scale: Tensor) -> Tensor:
        falls = self._log_scales[-1] < 0
        return self._bisect(lambda t: self._scale(t) <= scale if falls else self._scale(t) >= scale, scale)

    def _bisect(self, reached: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
        """The first t at which a monotone condition holds, by bisection in log t to the last digit."""
        low, high = torch.full_like(like, _FLOOR), torch.zeros_like(like)
        for _ in range(64):
            middle = 0.5 * (low + high)
            past = reached(self.t_max * middle.exp())
            low, high = torch.where(past, low, middle), torch.where(past, middle, high)
        return self.t_max * high.exp()


def _like(values: Any, t: Tensor) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64, device=t.device).reshape(t.shape)
