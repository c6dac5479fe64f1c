"""From noise to data: every solver under one loop.

`trajectory` is a generator of states, one for each level of the grid; `sample` returns the last one's x. A solver is a
pure step (one file each); the loop counts the denoiser calls, keeps the state in float64, and draws the noise. Levels
are those of a schedule: n + 1 decreasing sigmas, the last 0; the last step of every solver returns a denoiser output.

| solver | order | calls for n steps | options |
|---|---|---|---|
| euler | 1 | n | eta |
| heun | 2 | 2n − 1 | |
| edm_stochastic | 2 where nothing is churned | 2n − 1 | S_churn, S_min, S_max, S_noise |
| dpm_solver | 1, 2, 3 | order·(n − 1) + 1 | order |
| dpm_solver_pp | 2, 3 | n | order, variant, lower_order_final |
| unipc | 2, 3, 4 | n | order (one less), variant, lower_order_final |
| sde_dpm_solver_pp | 1, 2, weak | n | order, eta |
| reverse_sde | 1, weak | n | |
| consistency | not a discretisation | n | sigma_min |
| `GaussianStart` | of its solver | of its solver | gaussian, solver |
| `GaussianExponential` | any, multistep | n | gaussian, order |
| `Calibrated` | found for one grid | n | |

The last three know the Gaussian of the data and are no names: they are given as objects.

`invert` goes up instead, from data to noise, `round_trip` both ways, `log_densities` with log p. With grad=True the
states keep their gradients.
"""

from .calibrated import Calibrated
from .density import LogDensities, log_densities
from .dpm_solver import DPMSolver
from .dpm_solver_pp import DPMSolverPP
from .euler import Euler
from .gaussian_exponential import GaussianExponential
from .gaussian_start import FromGaussian, GaussianStart
from .heun import Heun
from .inversion import RoundTrip, ascent, invert, round_trip
from .loop import Counted, State, sample, trajectory
from .sde_dpm_solver_pp import SDEDPMSolverPP
from .solver import Solver, Step
from .solvers import SOLVERS, solver_of
from .unipc import UniPC

__all__ = [
    "SOLVERS",
    "Calibrated",
    "Counted",
    "DPMSolver",
    "DPMSolverPP",
    "Euler",
    "FromGaussian",
    "GaussianExponential",
    "GaussianStart",
    "Heun",
    "LogDensities",
    "RoundTrip",
    "SDEDPMSolverPP",
    "Solver",
    "State",
    "Step",
    "UniPC",
    "ascent",
    "invert",
    "log_densities",
    "round_trip",
    "sample",
    "solver_of",
    "trajectory",
]
