"""A page to explore the optimum: one HTML file that needs no network, with a σ slider and an x to drag.

Points on the line or in the plane: the page holds the points, and evaluates Eq. 43 and the flow itself, in float64.
Images: posterior means, landings of the exact flow and counts are computed here, at levels the slider snaps to."""

from .arrays import TITLE, compute
from .page import write

__all__ = ["TITLE", "compute", "write"]
