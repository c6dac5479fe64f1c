"""The flow map of a denoiser's probability-flow ODE, where it lands, and from which noise level that is certain."""

from .adaptive import AdaptiveFlow
from .certificate import Capture, Certificate, capture, certify
from .flow_map import FlowMap
from .landing import Landing
from .statistics import Basins, LandingStatistics, basins, landing_statistics

__all__ = [
    "AdaptiveFlow",
    "Basins",
    "Capture",
    "Certificate",
    "FlowMap",
    "Landing",
    "LandingStatistics",
    "basins",
    "capture",
    "certify",
    "landing_statistics",
]
