"""Teachers of distillation: by what a configuration calls them, and told apart."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor, nn

from optimal import Dataset, OptimalDenoiser
from optimal.denoiser import Denoiser
from optimal.query import Levels, levels
from optimal.randomness import fixed_generator

from .adapters.labels import NONE, numbered
from .classes import labels_of, of_label
from .config import Distillation
from .precondition import Preconditioned
from .saved import load_model

__all__ = ["OptimumByClass", "fingerprint_of", "optimum_of", "teacher_of"]


_ON_DEVICE = 2**33
"""Data of up to so many bytes go to the device of their optimum; larger ones are read in blocks at every call."""


def teacher_of(config: Distillation, data: Dataset, device: torch.device | str = "cpu") -> Denoiser:
    """The denoiser that `config.teacher` names, for questions on a device."""
    where = torch.device(device)
    if config.teacher != "optimum":
        return load_model(config.teacher)[0].to(where)
    return optimum_of(data, where)


def optimum_of(data: Dataset, device: torch.device | str = "cpu") -> OptimalDenoiser:
    """The optimum of the data, beside networks on a device: its points go there, up to 8 GB.

    Larger data stay where they are, and so do those beside mps: the optimum then computes on the CPU, and x and its
    answers are moved.
    """
    where = torch.device(device)
    # The sums are in float64, which Apple's devices have not.
    if where.type in ("cpu", "mps") or data.array.nbytes > _ON_DEVICE:
        return OptimalDenoiser(data)
    return OptimalDenoiser(torch.from_numpy(np.array(data.array)).to(where))


class OptimumByClass:
    """The optima of a class-conditional training: D_c(x, σ) = E[x0 | x, x0 of class c], and D of all data for −1.

    Args:
        data: with labels in 0 … classes − 1.
        classes: that the network has; some may have no point.
        device: of the network, as for `optimum_of`.

    Raises:
        ValueError: data without labels, or with others.
    """

    def __init__(self, data: Dataset, classes: int, device: torch.device | str = "cpu"):
        self.classes, there = classes, labels_of(data, classes).unique().tolist()
        self._of = {label: optimum_of(of_label(data, label), device) for label in there}
        self._of[NONE] = optimum_of(data, device)

    def of(self, label: int) -> OptimalDenoiser:
        """The optimum of a class; of all data for −1.

        Raises:
            ValueError: a class without points.
        """
        if label not in self._of:
            raise ValueError(f"the data have no points of class {label}")
        return self._of[label]

    def __call__(self, x: Tensor, sigma: Levels, class_labels: Tensor | int = NONE) -> Tensor:
        """E[x0 | x, label], (B, *event), like x.

        Args:
            x: (B, *event) noisy points.
            sigma: noise level: float, () or (B,).
            class_labels: whole numbers, () or (B,), −1 for none.

        Raises:
            ValueError: as for `OptimalDenoiser`; labels of no class, or of one without points.
        """
        labels = numbered(class_labels, self.classes, len(x)).to(x.device)
        values, out = levels(sigma, len(x), x.device), torch.empty_like(x)
        for label in labels.unique().tolist():
            rows = labels == label
            out[rows] = self.of(label)(x[rows], values[rows])
        return out


def fingerprint_of(teacher: Denoiser, event: tuple[int, ...], device: torch.device | str = "cpu") -> str:
    """8 hex digits of a network, or of a few answers of any other teacher; "optimum" of that.

    Args:
        teacher: any denoiser.
        event: shape of one point.
        device: where it is asked; a module with weights is where they are.
    """
    if isinstance(teacher, OptimalDenoiser):
        return "optimum"
    digest = hashlib.blake2b(digest_size=4)
    state = teacher.state_dict() if isinstance(teacher, nn.Module) else {}
    if not state or not all(isinstance(value, Tensor) and value.layout == torch.strided for value in state.values()):
        weights = teacher.parameters() if isinstance(teacher, nn.Module) else iter(())
        where = next((weight.device for weight in weights), torch.device(device))
        eps = torch.randn(4, *event, generator=fixed_generator("fingerprint"), dtype=torch.float32).to(where)
        for sigma in (0.1, 1.0, 10.0):
            digest.update(teacher(sigma * eps, sigma).detach().double().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()
    if isinstance(teacher, Preconditioned):
        digest.update(f"{teacher.precondition} {teacher.sigma_data!r}".encode())
    for name, tensor in sorted(state.items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
