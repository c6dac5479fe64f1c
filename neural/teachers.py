"""Teachers of distillation: by what a configuration calls them, and told apart."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor, nn

from optimal import Dataset, OptimalDenoiser
from optimal.denoiser import Denoiser
from optimal.randomness import fixed_generator

from .config import Distillation
from .precondition import Preconditioned
from .saved import load_model

__all__ = ["fingerprint_of", "optimum_of", "teacher_of"]


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
