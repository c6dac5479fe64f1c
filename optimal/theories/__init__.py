"""What others say that networks do instead of the optimum: one theory a file, each a `Denoiser` that is made of D.

| theory | what of the data it keeps |
|---|---|
| `Wiener` | mean and covariance: the best linear denoiser |
"""

from .gaussian import Wiener

__all__ = ["Wiener"]
