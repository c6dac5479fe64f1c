"""What others say that networks do instead of the optimum: one theory a file, each a `Denoiser` that is made of D.

| theory | what of the data it keeps |
|---|---|
| `Wiener` | mean and covariance: the best linear denoiser |
| `Mixture` | mean, covariance and share of each of K parts |
| `local_score` | windows, each at its place |
| `equivariant_local_score`, `boundary_local_score` | windows, wherever they are |
| `patch_posterior`, `flexible_patch_posterior` | patches, each at its place, which answer all that they cover |
| `pca_locality` | at each value, the values that the Wiener filter goes by |
| `score_smoothed` | the score, averaged over displacements of x |

And what approximates the optimum without being a theory, to measure what that costs: `nearest`, `golden_subset`,
`subsampled`, `stable_target`, `nearest_proposal`, by `estimate_errors`. `mean_square_norms` and `linear_square_norms`
say how long a theory's answers are, as published tables do. `switch` makes one denoiser of two, `closed_form_velocity`
says all of it in the words of flow matching. `window_by_risk` and `window_by_network` say which window at which noise
level.
"""

from .calibrated import Windows, window_by_network, window_by_risk
from .flow_matching import closed_form_velocity, conditional_velocity
from .gaussian import Wiener
from .golden import golden_subset
from .hybrid import switch
from .local import (
    LocalDenoiser,
    LocalPosterior,
    boundary_local_score,
    equivariant_local_score,
    flexible_patch_posterior,
    local_score,
    patch_posterior,
    pca_locality,
)
from .mixture import Mixture
from .moments import variances
from .neighbours import nearest
from .norms import SquareNorms, linear_square_norms, mean_square_norms
from .proposed import nearest_proposal
from .sampled import EstimateError, batch_mean, equally_likely, estimate_errors, stable_target, subsampled
from .smoothed import score_smoothed

__all__ = [
    "EstimateError",
    "LocalDenoiser",
    "LocalPosterior",
    "Mixture",
    "SquareNorms",
    "Wiener",
    "Windows",
    "batch_mean",
    "boundary_local_score",
    "closed_form_velocity",
    "conditional_velocity",
    "equally_likely",
    "equivariant_local_score",
    "estimate_errors",
    "flexible_patch_posterior",
    "golden_subset",
    "linear_square_norms",
    "local_score",
    "mean_square_norms",
    "nearest",
    "nearest_proposal",
    "patch_posterior",
    "pca_locality",
    "score_smoothed",
    "stable_target",
    "subsampled",
    "switch",
    "variances",
    "window_by_network",
    "window_by_risk",
]
