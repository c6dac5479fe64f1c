"""KeOps' formulas for the event sizes of the tests: `make test` runs this file beside the linters, before pytest."""

from __future__ import annotations

import torch

__all__ = ["compile_all"]

_SIZES = (1, 2, 64, 12_288)


def compile_all() -> None:
    """Three formulas a size, compiled once: about 40 s on an empty cache, else a second."""
    from optimal import OptimalDenoiser

    for dim in _SIZES:
        D = OptimalDenoiser(torch.eye(2, dim), method="keops")
        D.covariance_product(torch.zeros(1, dim), 1.0, torch.ones(1, dim))


if __name__ == "__main__":
    compile_all()
