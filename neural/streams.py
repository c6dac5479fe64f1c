"""The random numbers of one process of a training: a stream of the seed for each purpose, all of them in checkpoints.

`order` says which data points are drawn, `noise` what is added to them and at which level, and `within` lends torch's
global generators, from which dropout and whatever else a network draws takes its numbers, a stream of their own: they
are the user's again outside. Every process has streams of its own, its rank the part, and draws its own rows only.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, distributed

from optimal.randomness import stream

__all__ = ["Streams", "everyones", "process"]


def process() -> tuple[int, int]:
    """The rank of this process, and how many train together."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


class Streams:
    """Where the draws of a step come from.

    Args:
        seed: of the training.
        part: rank of the process.
        device: of the network. Noise is drawn on it where it is a GPU, else on the CPU.

    Attributes:
        order: generator of indices, on the CPU.
        noise: generator of noise and of noise levels.
        step: how many steps have been taken; what is drawn may depend on it.
    """

    def __init__(self, seed: int, part: int = 0, device: torch.device | str = "cpu"):
        where = torch.device(device)
        self._place = where if where.type == "cuda" else torch.device("cpu")
        self.step = 0
        self.order = stream(seed, "data-order", part)
        self.noise = stream(seed, "training-noise", part, device=self._place)
        self._network = {"cpu": stream(seed, "dropout", part).get_state()}
        if self._place.type == "cuda":
            self._network["cuda"] = stream(seed, "dropout", part, device=self._place).get_state()

    def normal(self, *shape: int) -> Tensor:
        """Standard Gaussian noise, float32, where `noise` is."""
        return torch.randn(shape, generator=self.noise, dtype=torch.float32, device=self._place)

    def uniform(self, *shape: int) -> Tensor:
        """Even in [0, 1), float64, where `noise` is."""
        return torch.rand(shape, generator=self.noise, dtype=torch.float64, device=self._place)

    def below(self, high: int, count: int) -> Tensor:
        """Whole numbers, even in [0, high), (count,), where `noise` is."""
        return torch.randint(high, (count,), generator=self.noise, dtype=torch.int64, device=self._place)

    def rows(self, high: int, count: int) -> Tensor:
        """Which of `high` rows are taken, with replacement, (count,), from `order`."""
        return torch.randint(high, (count,), generator=self.order, dtype=torch.int64, device="cpu")

    def distinct(self, high: int, count: int) -> Tensor:
        """Which `count` of `high` rows are taken, without replacement, in random order, (count,), from `order`."""
        if 4 * count >= high:
            return torch.randperm(high, generator=self.order, dtype=torch.int64, device="cpu")[:count]
        index = self.rows(high, count)
        while True:
            # Whatever labels the rows had, this would do the same: so all orders of all choices are as probable.
            values, order = index.sort(stable=True)
            again = order[1:][values[1:] == values[:-1]]
            if not len(again):
                return index
            index[again] = self.rows(high, len(again))

    @contextlib.contextmanager
    def within(self) -> Iterator[None]:
        """Torch's global generators go on as this training's inside, and are as before outside."""
        before = self._swap(self._network)
        try:
            yield
        finally:
            self._network = self._swap(before)

    def _swap(self, states: dict[str, Tensor]) -> dict[str, Tensor]:
        before = {"cpu": torch.get_rng_state()}
        torch.set_rng_state(states["cpu"])
        if "cuda" in states:
            before["cuda"] = torch.cuda.get_rng_state(self._place)
            torch.cuda.set_rng_state(states["cuda"], self._place)
        return before

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of them: bytes on the CPU."""
        networks = {f"network-{name}": state for name, state in self._network.items()}
        return {"order": self.order.get_state(), "noise": self.noise.get_state(), **networks}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from a `state`; one of another kind of device, or of no such process, leaves them as they are new."""
        mine = self.state()
        if {name: len(value) for name, value in state.items()} != {name: len(value) for name, value in mine.items()}:
            warnings.warn(
                "the run goes on with other random numbers than it would have had: it was trained on another kind of "
                "device, or by fewer processes",
                RuntimeWarning,
                stacklevel=2,
            )
            return
        self.order.set_state(state["order"])
        self.noise.set_state(state["noise"])
        self._network = {name: state[f"network-{name}"] for name in self._network}


def everyones(state: dict[str, Tensor], device: torch.device) -> list[dict[str, Tensor]]:
    """The states of all processes, by rank; every one of them has to ask.

    Args:
        state: this process's, of equal sizes in all.
        device: of the network, over which they travel.
    """
    _, world = process()
    if world == 1:
        return [state]
    names, sizes = sorted(state), [len(state[name]) for name in sorted(state)]
    mine = torch.cat([state[name] for name in names]).to(device)
    gathered = [torch.empty_like(mine) for _ in range(world)]
    distributed.all_gather(gathered, mine)
    return [dict(zip(names, each.cpu().split(sizes), strict=True)) for each in gathered]
