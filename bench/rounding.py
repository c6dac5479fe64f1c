"""How far matrix products are off, in the units of `optimal.evaluate.products`: u (|z·y| + 4‖z‖ max‖y‖/√D).

    .venv/bin/python bench/rounding.py             # about 4 minutes a number of threads

Which kernel a product takes depends on its shape and on the threads, so queries (1 to 300), points (5 to 2,000) and
threads (1 and 2) are varied, on Gaussian, smooth, nearly constant and constant images of 16 to 12,288 values, and on
drawings and photographs. Rows are rounded to float32 as `scan` rounds them; the exact value is a float64 product for
float32, and pairwise summation for float64. Images of one colour are the worst: their partial sums lose the same at
every step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from optimal import load
from optimal.evaluate.products import ROUNDING, products
from optimal.points.rounding import pairwise_sum

_UNITS = {torch.float32: 2.0**-24, torch.float64: 2.0**-53}
_PAIRS = 2**22
"""Values, at most, of the products of pairs that float64 is held to."""


def images(dim: int, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
    """Names and (2,000, dim) float32."""
    grey = torch.rand(2000, 1, generator=generator).expand(-1, dim)
    yield "Gaussian", torch.randn(2000, dim, generator=generator)
    yield "nearly constant", grey + 0.01 * torch.randn(2000, dim, generator=generator)
    yield "constant", torch.randint(0, 256, (2000, 1), generator=generator).expand(-1, dim) / 127.5 - 1
    channels = 3 if dim % 3 == 0 else 1
    side = math.isqrt(dim // channels)
    coarse = torch.randn(2000, channels, 4, 4, generator=generator)
    yield "smooth", torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic").flatten(1)
    if dim == 12_288:
        yield "drawings", load("emoji", n=2000).points.flatten(1)
        yield "photographs", load("patches", n=2000).points.flatten(1)


def ratio(z: Tensor, y: Tensor, radius: float, dtype: torch.dtype) -> float:
    """Largest error of the products of z (b, D) and y (n, D), float64, in units of the model."""
    if dtype == torch.float32:
        exact = y @ z.T
    else:
        exact = pairwise_sum(y[:, None] * z)
    model = exact.abs().amax(0) + 4 * z.norm(dim=1) * radius / y.shape[1] ** 0.5
    error = products(y.to(dtype), z.to(dtype)).double() - exact
    return float((error.abs().amax(0) / (_UNITS[dtype] * model)).max())


def main() -> None:
    allowed = ", ".join(f"{ROUNDING[dtype] / unit:g}" for dtype, unit in _UNITS.items())
    print(f"largest ratios; `scan` allows {allowed}\nthreads  D      images           float32   float64", flush=True)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        generator = torch.Generator().manual_seed(0)
        for dim in (16, 64, 192, 784, 3_072, 12_288):
            for name, data in images(dim, generator):
                data = data.double()
                data -= data.mean(0).float()
                radius = float(data.norm(dim=1).max())
                worst = dict.fromkeys(_UNITS, 0.0)
                for batch in (1, 2, 8, 15, 16, 64, 300):
                    for count in (5, 64, 257, 2000):
                        for sigma in (0.0, 1.0, 20.0):
                            z = data[torch.randint(len(data), (batch,), generator=generator)]
                            z = z + sigma * torch.randn(z.shape, generator=generator, dtype=torch.float64)
                            for dtype in worst:
                                if dtype == torch.float32 or batch * count * dim <= _PAIRS:
                                    worst[dtype] = max(worst[dtype], ratio(z, data[:count], radius, dtype))
                found = f"{worst[torch.float32]:7.1f}   {worst[torch.float64]:7.1f}"
                print(f"{threads:<8} {dim:<6} {name:16} {found}", flush=True)


if __name__ == "__main__":
    main()
