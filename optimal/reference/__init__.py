"""Exact denoisers with exact flow maps, for tests and figures.

The probability-flow ODE of a denoiser (Eq. 24) moves x with its noise level,

    dx/dσ = v(x, σ) = (x − D(x, σ))/σ = −σ ∇ log p(x; σ),    p(·; σ) the density of x0 + σ ε,

so that what is distributed as p stays so: the continuity equation, ∂p/∂σ = −∂(p v)/∂x on the line. There it makes the
distribution function F(x; σ) = ∫_{−∞}^x p a constant along solutions: ∂F/∂σ = −p v, and dF/dσ = ∂F/∂σ + p v = 0. The
flow from σ to σ' is then the monotone map with

    F(x'; σ') = F(x; σ).

D, p and this map are known for one point; two points m ± d; a Gaussian, where every eigenvector of the covariance is a
line of its own; and, for events of one value, a mixture of Gaussians or points. All is computed in float64, whatever
the dtype of x. D, `score` and `log_density` carry gradients to x and σ, `flow` carries none.

What no method can cure: between well separated points p is tiny at low noise, and the flow spreads what starts near
the separatrix by dx'/dx = p(x; σ)/p(x'; σ'), from σ >> δ up to (σ'/σ) exp(δ²/2σ'²) between points 2δ apart. Rounding of
x is spread with it. Back up the same map contracts, and x at high noise cannot tell apart what was near one point.
"""

from .gaussian import Gaussian
from .mixture import GaussianMixture
from .points import OnePoint, TwoPoint

__all__ = ["Gaussian", "GaussianMixture", "OnePoint", "TwoPoint"]
