"""How the sums over the data are reduced: one method a file, each with `moments` and `tilt` of the same meaning.

dense     blocked matrix products, float32 with float64 where float32 would be wrong
screened  products of bytes that leave out what cannot matter, with a bound, for images
keops     KeOps reductions in float64, compiled for each event size

and, in float64 by matrix products alone, the sums of the capture certificate (drift); `sharded` merges the sums of
several processes, each by one of these.
"""

from .evaluator import Evaluator
from .moments import Moments
from .protocol import METHODS, Accuracy, Method, MethodName, Tilt

__all__ = ["METHODS", "Accuracy", "Evaluator", "Method", "MethodName", "Moments", "Tilt"]
