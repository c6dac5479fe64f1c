"""Distillation in four ways, one file each, from any teacher: a trained network, or the optimum itself.

`stages` lays a `Distillation` out as trainings, one after another; each is to be run before the next is asked for.
"""

from ..config import TECHNIQUES
from .consistency import Consistency
from .knowledge import Knowledge
from .multistep import MultistepKnowledge
from .pairs import FixedPairs, FreshPairs, make_pairs
from .plan import pairs_seen, stages
from .progressive import Progressive

__all__ = [
    "TECHNIQUES",
    "Consistency",
    "FixedPairs",
    "FreshPairs",
    "Knowledge",
    "MultistepKnowledge",
    "Progressive",
    "make_pairs",
    "pairs_seen",
    "stages",
]
