"""What others say that networks do instead of the optimum: one theory a file, each a `Denoiser` that is made of D.

| theory | what of the data it keeps |
|---|---|
| `Wiener` | mean and covariance: the best linear denoiser |
| `Mixture` | mean, covariance and share of each of K parts |
| `score_smoothed` | the score, averaged over displacements of x |

And what approximates the optimum without being a theory, to measure what that costs: `nearest`, `golden_subset`,
`subsampled`, `stable_target`, by `estimate_errors`. `switch` makes one denoiser of two, `closed_form_velocity` says all
of it in the words of flow matching.
"""

from .flow_matching import closed_form_velocity, conditional_velocity
from .gaussian import Wiener
from .hybrid import switch
from .mixture import Mixture
from .sampled import EstimateError, estimate_errors, stable_target, subsampled
from .smoothed import score_smoothed
from .truncated import golden_subset, nearest

__all__ = [
    "EstimateError",
    "Mixture",
    "Wiener",
    "closed_form_velocity",
    "conditional_velocity",
    "estimate_errors",
    "golden_subset",
    "nearest",
    "score_smoothed",
    "stable_target",
    "subsampled",
    "switch",
]
