"""Other weights on the same points: mirrors and shifts, soft labels, and guidance between two optima."""

from .base import Orbit as Orbit
from .guidance import Guided as Guided
from .guidance import guided as guided
from .inverse import diffpir as diffpir
from .inverse import dps as dps
from .inverse import pigdm as pigdm
from .labelled import LabelledOrbit as LabelledOrbit
from .leave_one_out import Measured as Measured
from .leave_one_out import bandwidth as bandwidth
from .leave_one_out import held_out_risk as held_out_risk
from .leave_one_out import influence as influence
from .leave_one_out import mean_influence as mean_influence
from .leave_one_out import split_stability as split_stability
from .orbits import Group as Group
from .orbits import orbit as orbit
from .permuted import PermutedOrbit as PermutedOrbit
from .soft import landing_shares as landing_shares
from .soft import soft_labels as soft_labels
from .soft import tilted as tilted
