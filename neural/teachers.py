"""Teachers of distillation: by what a configuration calls them, and told apart."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from optimal import Dataset, OptimalDenoiser
from optimal.denoiser import Denoiser
from optimal.randomness import stream

from .config import Distillation
from .precondition import Preconditioned
from .saved import load_model

__all__ = ["fingerprint_of", "teacher_of"]


def teacher_of(config: Distillation, data: Dataset) -> Denoiser:
    """The denoiser that `config.teacher` names."""
    return OptimalDenoiser(data) if config.teacher == "optimum" else load_model(config.teacher)[0]


def fingerprint_of(teacher: Denoiser, event: tuple[int, ...]) -> str:
    """8 hex digits of a network, or of a few answers of any other teacher; "optimum" of that."""
    if isinstance(teacher, OptimalDenoiser):
        return "optimum"
    digest = hashlib.blake2b(digest_size=4)
    state = teacher.state_dict() if isinstance(teacher, nn.Module) else {}
    if not state or not all(isinstance(value, Tensor) and value.layout == torch.strided for value in state.values()):
        eps = torch.randn(4, *event, generator=stream(0, "fingerprint"), dtype=torch.float32)
        for sigma in (0.1, 1.0, 10.0):
            digest.update(teacher(sigma * eps, sigma).detach().double().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()
    if isinstance(teacher, Preconditioned):
        digest.update(f"{teacher.precondition} {teacher.sigma_data!r}".encode())
    for name, tensor in sorted(state.items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
