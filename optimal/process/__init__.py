"""Forward processes: linear stochastic differential equations from data to noise, and their inverses.

    dx_t = f(t) x_t dt + g(t) dw                                               (Eq. 1, 10)
    p(x_t | x0) = N(x_t | scale(t) x0, scale(t)² sigma(t)² I)                  (Eq. 2)

x0 is a data point at t = 0, w a Wiener process of the same shape. By Prop. 1 the mean is scale(t) x0 and the variance
of each coordinate V = std(t)² solves dV = (2 f V + g²) dt, V(0) = 0. With sigma = std/scale that is

    d log scale/dt = f,    d sigma²/dt = g²/scale²,        so that   g² = 2 scale² sigma dsigma/dt.

x = x_t/scale = x0 + sigma eps is all that a denoiser sees: D_t(x_t) = D(x_t/scale, sigma). The one assumption is that
the drift is linear in x. t is a float or a tensor of any shape; everything is answered in float64, in that shape.

The dictionary

    this code   paper                EDM           Song 2021             DDPM             flow matching
    x0          x_0                  y             x(0)                  x_0              x_0
    eps         z                    n/σ           z                     ε                ε
    x_t         x_t, x               x             x(t)                  x_t              z_t
    scale       1 (VE), √α_t (VP)    s(t)          1 (VE), e^{−B/2}      √ᾱ_t             1 − t
    sigma       s_t (VE), σ (Fig. 1) σ(t)          σ(t) (VE), √(e^B − 1) √(1/ᾱ_t − 1)     t/(1 − t)
    std         σ(t) of Eq. 2        s(t) σ(t)     √(1 − e^{−B}) (VP)    √(1 − ᾱ_t)       t
    t           t                    t             t                     step/1000        t
    velocity    (x − E[x0|x])/s_t    dx/dt, σ = t  −σ·score              ε_θ              z_t + (1 − t) u

B = ∫β. EDM: Karras et al. 2022; DDPM: Ho et al. 2020; flow matching: Esser et al. 2024, dz_t/dt = u = ε − x_0 (Lipman
et al. 2023 and Liu et al. 2023 run time backward: t → 1 − t, x_1 the data, x_0 the noise, velocity −u). `velocity` is
dx/dsigma; `optimal.parametrize` converts what networks predict.

Read with care in the paper

    Eq. 1   dw ~ √dt N(0, I); the paper's T is a slip.
    Eq. 2   σ(t) is std, the deviation of x_t. It is sigma only where scale = 1.
    Eq. 3   holds coordinate by coordinate (E and D given x0). Itô's second-order sum in Eq. 4 to 8 runs over i = j
            only, since dw_i dw_j = δ_ij dt; the brace of Eq. 8 equals g², not 2.
    Eq. 14  s_t ends at c: increasing and bounded on [0, 1].
    Eq. 16  α_t is scale²: scale = √α_t, sigma = √((1 − α_t)/α_t). α_1 = 0 is sigma = inf; linear VP stops at 152.
    Eq. 18, 23, 25  run backward, ds_t < 0; dw_{s_t²} there has variance |ds_t²|.
    Eq. 19, 28  are for scale = 1. In general the score of x_t is −ε/std with ε = (x_t − scale E[x0|x_t])/std, and the
            s_t of Eq. 28 to 31 is std: neither scale nor sigma.
    Eq. 21  the fourth line lacks ∇_x.
    Eq. 29  should read ∂φ(r, t)/∂r = −f(r) φ(r, t): the minus is missing, as Eq. 30, φ(s, t) = exp ∫_s^t f, shows.
            Eq. 31 is right. DPM-Solver expands ε in log(1/sigma), not in t.
    Eq. 32  the noise is √(2β) t dw, not dt, and with + β t² score it is the forward SDE: β = 1/t leaves dx = √(2t) dw.
            Sampling takes − β t² score (dt < 0); β = 1/t then gives Eq. 18 (Karras et al. 2022, Eq. 6).
    Eq. 33  is 0/0 for one step.

References:
    Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole 2021, "Score-Based Generative Modeling through Stochastic
    Differential Equations", section 3.4, Appendices B and C.
    Karras, Aittala, Aila, Laine 2022, "Elucidating the Design Space of Diffusion-Based Generative Models", Table 1.
"""

from .base import Process as Process
from .closed import EDM as EDM
from .closed import VE as VE
from .closed import VP as VP
from .closed import CosineVP as CosineVP
from .closed import FlowMatching as FlowMatching
from .closed import GeometricVE as GeometricVE
from .linear_sde import LinearSDE as LinearSDE
