"""How far matrix products are off, in the units of `optimal.evaluate.dense`: u·(max_j |z·y_j| + 4‖z‖ max‖y‖/√D).

    .venv/bin/python bench/rounding.py

Which kernel a product takes depends on its shape, so queries (1 to 300) and points (64 to 2,000) are varied, on
drawings, photographs and nearly constant images of D = 12,288. The exact value is a float64 product for float32, and
direct summation for float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from optimal import load


def ratio(z: Tensor, y: Tensor, radius: float) -> float:
    """Largest error of z @ y.T in units of the model."""
    if z.dtype == torch.float32:
        exact, unit = z.double() @ y.double().T, 2.0**-24
    else:
        exact, unit = (z[:, None] * y).sum(2), 2.0**-53
    model = exact.abs().amax(1) + 4 * z.double().norm(dim=1) * radius / y.shape[1] ** 0.5
    return float((((z @ y.T).double() - exact).abs().amax(1) / (unit * model)).max())


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    grey = torch.rand(2000, 1, generator=generator).expand(-1, 12288)
    sets = {
        "drawings": load("emoji", n=2000).points.flatten(1),
        "photographs": load("patches", n=2000).points.flatten(1),
        "nearly constant": grey + 0.01 * torch.randn(2000, 12288, generator=generator),
    }
    print("data             largest ratio, float32   float64 (up to 5,000 pairs)")
    for name, data in sets.items():
        data = (data - data.mean(0)).double()
        radius = float(data.norm(dim=1).max())
        worst = {torch.float32: 0.0, torch.float64: 0.0}
        for batch in (1, 2, 4, 16, 64, 300):
            for count in (64, 256, 1024, 2000):
                for sigma in (0.05, 1.0, 20.0):
                    chosen = data[torch.randint(len(data), (batch,), generator=generator)]
                    z = chosen + sigma * torch.randn(chosen.shape, generator=generator, dtype=torch.float64)
                    for dtype in worst:
                        if dtype == torch.float32 or batch * count <= 5000:
                            worst[dtype] = max(worst[dtype], ratio(z.to(dtype), data[:count].to(dtype), radius))
        print(f"{name:16} {worst[torch.float32]:22.1f}   {worst[torch.float64]:7.1f}", flush=True)


if __name__ == "__main__":
    main()
