"""The exact optimum of diffusion models on data.

    from optimal import OptimalDenoiser
    from optimal.datasets import load

    D = OptimalDenoiser(load("digits"))
    x0_hat = D(x, sigma)                  # E[x0 | x], Eq. 43

`make docs` builds the reference of all names, by topic.
"""

from . import interrupt as interrupt
from .border import Border as Border
from .border import ForwardStatistics as ForwardStatistics
from .border import borders as borders
from .border import collapse_border as collapse_border
from .border import effective_counts as effective_counts
from .border import forward_statistics as forward_statistics
from .border import seeking_refining_border as seeking_refining_border
from .conditional import Guided as Guided
from .conditional import Orbit as Orbit
from .conditional import guided as guided
from .conditional import orbit as orbit
from .datasets import Dataset as Dataset
from .datasets import load as load
from .denoiser import Denoiser as Denoiser
from .denoiser import OptimalDenoiser as OptimalDenoiser
from .denoiser import Posterior as Posterior
from .distilled import knowledge_optimum as knowledge_optimum
from .distilled import progressive_optimum as progressive_optimum
from .flow import Basins as Basins
from .flow import Capture as Capture
from .flow import Certificate as Certificate
from .flow import FlowMap as FlowMap
from .flow import Landing as Landing
from .flow import LandingStatistics as LandingStatistics
from .flow import basins as basins
from .flow import capture as capture
from .flow import certify as certify
from .flow import landing_statistics as landing_statistics
from .multistep import multistep_knowledge_optimum as multistep_knowledge_optimum
from .regimes import collapse_sigma as collapse_sigma
from .regimes import speciation_sigma as speciation_sigma
from .samplers import State as State
from .samplers import sample as sample
from .samplers import trajectory as trajectory
from .schedule import cosine as cosine
from .schedule import karras as karras
from .schedule import kl_optimal as kl_optimal
from .schedule import log_linear as log_linear
from .schedule import uniform_t as uniform_t
from .schedules import design as design
from .sharded import ShardedDenoiser as ShardedDenoiser
from .span import SpanSample as SpanSample
from .span import sample_in_span as sample_in_span
