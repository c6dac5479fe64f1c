"""Networks beside the optimum: trained with Eq. 26, distilled in four ways, and measured under identical samplers.

    from neural import PRESETS, fit, measure, open_model
    from optimal import OptimalDenoiser, load

    data = load("five-deltas")
    net = fit(PRESETS["toy"], data)                          # a Denoiser
    print(measure(open_model(net), OptimalDenoiser(data)).sentence())

`python -m neural` does the same from the command line.
"""

from optimal import interrupt as interrupt

from .adapters import from_ddpm as from_ddpm
from .adapters import from_diffusers as from_diffusers
from .adapters import from_edm as from_edm
from .adapters import from_edm_raw as from_edm_raw
from .adapters import from_flow as from_flow
from .adapters import from_prediction as from_prediction
from .adapters import from_times as from_times
from .adapters import from_unet as from_unet
from .adapters.asked import derivatives as derivatives
from .auditing import audit as audit
from .batch_target import target_variance as target_variance
from .cache import cached as cached
from .cache import is_cached as is_cached
from .config import Distillation as Distillation
from .config import Experiment as Experiment
from .config import Network as Network
from .config import Optimisation as Optimisation
from .convention import sanity as sanity
from .curves import loss_curve as loss_curve
from .ended import Endings as Endings
from .ended import endings as endings
from .explained import Explained as Explained
from .explained import explain as explain
from .grids import followed as followed
from .grids import on_grids as on_grids
from .likelihood import LogDensity as LogDensity
from .likelihood import log_density as log_density
from .measures import Agreement as Agreement
from .measures import agreement as agreement
from .measures import compare as compare
from .measures import landing_agreement as landing_agreement
from .measuring import Measured as Measured
from .measuring import measure as measure
from .measuring import samplers as samplers
from .model import Model as Model
from .model import open_model as open_model
from .networks import MLP as MLP
from .networks import UNet as UNet
from .precondition import Preconditioned as Preconditioned
from .presets import PRESETS as PRESETS
from .presets import student_of as student_of
from .reached import ClassLandings as ClassLandings
from .reached import class_landings as class_landings
from .run import distil as distil
from .run import fit as fit
from .saved import load_model as load_model
from .saved import student_at as student_at
from .saved import training_pairs as training_pairs
from .theories import fitted as fitted
from .theories import theories_of as theories_of
from .training import Training as Training
from .training import TrainingDiverged as TrainingDiverged
from .training import train as train
