"""The optimal denoiser of data that several processes share, started by torchrun.

    torchrun --nproc-per-node 4 script.py        # script.py: D = ShardedDenoiser(data); x0_hat = D(x, sigma)

Rank r of R reads the points N r/R to N (r + 1)/R, reduces them as `OptimalDenoiser` does, and the ranks' running sums
(log-sum-exp, its energy, the mean) are merged exactly: the result is that of one process, on every rank. How, and what
becomes of the proven bound, stands in `optimal.evaluate.sharded`.

Cost of one call for B queries of D values, K = 8 bytes a number:

    work      4 B D N/R flops on each rank, two products; they read N D/R bytes of uint8 data
    traffic   all-reduce of the means, K B D bytes: in a ring each rank sends and receives 2 (R − 1)/R of it
              gathering of ten sums a query and of a check of the arguments: 80 B + 128 bytes from each rank to each
    memory    of a rank, the pages of its shard and `memory`; means are added in place

Why two collectives and not one: a sum over ranks needs the largest logit before it, and gathering all means instead, in
one, would bring (R − 1) K B D bytes to each rank, R/2 times the traffic of the ring. The small ones are latency only.

Weak scaling, measured (`bench/sharded.py`: dense, 20,000 points of D = 12,288 a rank, B = 64, σ = 2, gloo on one
machine, one thread a rank; 2 cores of an AMD EPYC, shared machine, so read the ratios; medians of 4 runs in turn):

    ranks   a call              a rank's own pass   check and collectives   bytes sent by a rank
    1       1.00 (1.0 s)        0.98                none                    none
    2       1.24 [1.19, 1.32]   1.21                0.011                   6.3 MB

Two passes side by side, with nothing shared, slow each other to 1.23 on these two cores; sharing adds 3% to that. In an
earlier run, which other work disturbed, 2 ranks took 1.45 and 4 ranks on the 2 cores 3.1. More ranks than cores measure
the cores. Several machines, and nccl on GPUs, were not measured; the lines for CUDA were never run.

Expected for ImageNet-64, N = 1.28 M × 12,288, 15.7 GB as uint8, on 8 machines, one rank on each with 2 such cores:
160,000 points a rank, at 1.7 s for 70,000 (dense, two threads, σ = 2), are 3.9 s a call of 64 queries, or 8 s
with one thread a rank. The all-reduce is of 6.3 MB, 11 MB sent by each rank: 9 ms at an assumed 10 Gbit/s, 90 ms at
1 Gbit/s, 0.2% to 2% of the call. This is arithmetic, not a measurement. Shards are 2 GB; if they are not in the page
cache, add reading them, 4 s at 500 MB/s, at every call.

References:
    Milakov, Gimelshein 2018, "Online normalizer calculation for softmax": the merge.
    Patarasuk, Yuan 2009, "Bandwidth optimal all-reduce algorithms for clusters of workstations": the ring.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from .datasets import Dataset
from .denoiser import OptimalDenoiser
from .evaluate import Accuracy
from .evaluate.ranks import Ranks
from .evaluate.sharded import ShardedEvaluator, Shared

__all__ = ["ShardedDenoiser"]


class ShardedDenoiser(OptimalDenoiser):
    """`OptimalDenoiser` over data that the processes of one torchrun share: E[x0 | x] (Eq. 43).

    Every rank makes the same calls with the same arguments and has the same results, bit for bit. That they are the
    same is checked, to 1 part in 10⁹, before each pass over the data. The number of ranks changes results by rounding:
    1e-12 (relative, of the mean) for x in float64, below 1e-6 for float32 with dense, and for screened up to its own
    error: 6e-6 measured, far below `Posterior.error_bound`; `tolerance=1e-6` brings it below 1e-6 too.

    posterior, score, gradients, covariance_product, weights, mean, standard_deviation, nearest, take and everything
    built on them, such as `sample`, work as in one process. What would read all data on every rank does not:
    neighbours, two_nearest, first_copies and the certificates of `capture` raise NotImplementedError, and so do the
    functions that need them (`capture`, `FlowMap` without a grid, `basins`, `regimes.top_eigenvalue`,
    `sample_in_span`), `measured` and the orbit under shifts. Other priors (`weighted`, `given`, `by_class`, `without`)
    are shared: every rank gives the same log-weights, labels or places, of all data.

    Without torchrun's environment, and without a process group, it is one rank and nothing is sent. Of a group that is
    there already, the default one is taken; else it is made, gloo for an x on the CPU, nccl on CUDA, and left at exit.

    Args:
        data: as for `OptimalDenoiser`, the whole of it on every rank. Of an array or memory map a rank reads its shard,
            at most 4,096 points for the centre, and what it is asked for by `take`; a map is never copied. That it is
            the same everywhere is checked by its shape, its dtype and 256 of its points.
        method, memory, tolerance, certified: as for `OptimalDenoiser`; memory is for each rank. The combined bound is
            a bound still, with probability 1 − R·10⁻¹², but may exceed `tolerance` where the means of the shards, each
            within it, cancel.
        timeout: seconds that a rank waits for the others in one call, if the group is made here.

    Attributes:
        event, data: as for `OptimalDenoiser`.
        rank, ranks: of this process, and how many share the data.

    Raises:
        ValueError: as `OptimalDenoiser`; ranks differ in data, arguments or calls. On all ranks.
        RuntimeError: here and in every call, that a rank died, which one if it is on this machine, or that one did not
            answer in time. Left uncaught it ends this rank, and torchrun ends the job.

    Example:
        >>> import torch
        >>> D = ShardedDenoiser(torch.tensor([[-1.0], [1.0]]))     # one rank here
        >>> D(torch.tensor([[0.5]]), 1.0)              # tanh(0.5)
        tensor([[0.4621]])
    """

    evaluator: ShardedEvaluator

    def __init__(
        self,
        data: Dataset | Tensor | np.ndarray,
        *,
        method: str = "auto",
        memory: int = 2**30,
        tolerance: float = 1e-3,
        certified: bool = True,
        timeout: float = 600.0,
    ):
        self._ranks = Ranks(timeout)
        super().__init__(data, method=method, memory=memory, tolerance=tolerance, certified=certified)

    def __repr__(self) -> str:
        whole = super().__repr__().removeprefix("OptimalDenoiser(").removesuffix(")")
        return f"ShardedDenoiser({whole}, rank {self.rank} of {self.ranks})"

    @property
    def rank(self) -> int:
        """Of this process, from 0."""
        return self._ranks.rank

    @property
    def ranks(self) -> int:
        """How many processes share the data."""
        return self._ranks.count

    def _over(self, array: Tensor | np.ndarray, accuracy: Accuracy) -> ShardedEvaluator:
        return ShardedEvaluator(Shared.of(array, accuracy.memory, self._ranks), accuracy)
