"""Sampling 64 images in the span of 70,000: against the same solver on two plain float32 products.

    .venv/bin/python bench/span.py [--n 70000] [--batch 64] [--solver heun] [--steps 18]

The plain run, `x @ Y.T`, softmax, `w @ Y`, has the data in float32 memory already. Both take the same steps from the
same noises; the basis is prepared before, in a time of its own that is printed. What is compared: processor time, of
all threads together and so hardly changed by what else runs, the data point that each sample ends on, and the distance
of the ends over their size.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
import tyro
from torch import Tensor

from optimal import OptimalDenoiser, karras, load, sample, sample_in_span
from optimal.span.basis import RANK, basis_of


@dataclass
class Config:
    """What is timed."""

    dataset: str = "patches"
    """Data: images."""
    n: int = 70_000
    """Points."""
    batch: int = 64
    """Samples."""
    steps: int = 18
    """Steps of the sampler, from sigma = 80."""
    solver: str = "heun"
    """A solver that draws no noise."""
    rank: int = RANK
    """Of the basis."""
    repeats: int = 2
    """Runs in the span."""


def main(config: Config) -> dict[str, float]:
    """Processor seconds in the span and of the plain products, the largest error, and the share on the same point."""
    data = load(config.dataset, n=config.n if config.dataset == "patches" else None)
    D = OptimalDenoiser(data)
    print(f"{data.describe()}; {torch.get_num_threads()} threads; batch {config.batch}")
    start = time.process_time()
    basis = basis_of(D, config.rank, progress=True)
    print(
        f"basis of rank {basis.rank}: {time.process_time() - start:.0f} s; largest rest {float(basis.rest.max()):.1f}"
    )
    grid = karras(config.steps)
    x = 80 * torch.randn(config.batch, *D.event, generator=torch.Generator().manual_seed(0))
    spent, found = [], None
    for _ in range(config.repeats):
        start = time.process_time()
        found = sample_in_span(D, x, grid, solver=config.solver, rank=config.rank)
        spent.append(time.process_time() - start)
    assert found is not None
    print(
        f"in the span: {min(spent):.2f} to {max(spent):.2f} s, {found.nfe} calls; {int(found.exact.sum())} sampled "
        f"again exactly; log-weights off by at most {float(found.error.max()):.3f} nats"
    )
    Y = data.points.flatten(1)
    half_norms = Y.square().sum(1) / 2

    def plain(x: Tensor, sigma: float | Tensor) -> Tensor:
        scores = (x.flatten(1) @ Y.T - half_norms) / float(sigma) ** 2
        return (scores.softmax(1) @ Y).view(x.shape)

    start = time.process_time()
    ends = sample(plain, x, grid, solver=config.solver)
    whole = time.process_time() - start
    same = (D.take(D.nearest(ends)) == D.take(D.nearest(found.x))).flatten(1).all(1)
    error = ((ends - found.x).flatten(1).norm(dim=1) / ends.flatten(1).norm(dim=1))[same]
    print(
        f"plain products: {whole:.1f} s, {whole / min(spent):.1f} times that in the span; {int(same.sum())} of "
        f"{len(x)} end on the same point, these with relative error {float(error.max()):.1e} at most"
    )
    return {
        "seconds": min(spent),
        "plain": whole,
        "error": float(error.max()),
        "same": float(same.double().mean()),
    }


if __name__ == "__main__":
    main(tyro.cli(Config))
