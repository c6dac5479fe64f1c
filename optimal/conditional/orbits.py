"""The optimum of augmented data: every point together with its images under a group, without a copy of any.

Training that flips images at random has another optimum than training on the images as they are: that of the points
g y_j, over all elements g of the group,

    w_jg ∝ P(g) exp(−‖x − g y_j‖²/2σ²),    D_G(x, σ) = Σ_jg w_jg g y_j = Σ_g P(g | x) g D(g⁻¹x, σ)

the last for permutations of pixels, which keep distances. What is often computed in its place, the average over the
group (1/|G|) Σ_g g D(g⁻¹x), lacks P(g | x): it gives an element that cannot have made x the same share as the one that
did, and so answers even a clean image with a blend of the image and its mirror image. It is as equivariant as D_G, and
minimises the loss of neither data set.

References:
    Karras, Aittala, Aila, Laine 2022, "Elucidating the Design Space of Diffusion-Based Generative Models", Section 5:
    there the augmentation is told to the network, so that at sampling the optimum is the plain D and not this one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, overload

import torch
from torch import Tensor

from ..denoiser import OptimalDenoiser
from ..measurement import GivenMeasurement
from ..rowwise import GivenLabels
from .base import Orbit
from .labelled import LabelledOrbit
from .permuted import PermutedOrbit, permutation_of
from .shifted import ShiftOrbit

__all__ = ["GROUPS", "Group", "orbit"]

Transform = Callable[[Tensor], Tensor]
Group = Literal["flip", "quarter-turns", "shifts"]
GROUPS: tuple[Group, ...] = ("flip", "quarter-turns", "shifts")
_NAMES = ", ".join(f'"{name}"' for name in GROUPS)
_SIDE = (-2, -1)


@overload
def orbit(
    D: OptimalDenoiser, group: Group | Sequence[Transform], log_weights: Tensor | Sequence[float] | None = None
) -> Orbit: ...
@overload
def orbit(
    D: GivenLabels, group: Group | Sequence[Transform], log_weights: Tensor | Sequence[float] | None = None
) -> LabelledOrbit: ...
def orbit(
    D: OptimalDenoiser | GivenLabels,
    group: Group | Sequence[Transform],
    log_weights: Tensor | Sequence[float] | None = None,
) -> Orbit | LabelledOrbit:
    """The optimum of the data of D with their images under a group.

    Args:
        D: the optimum of the data; or with a label for every row, `OptimalDenoiser.given(labels)`, for a denoiser of
            those rows.
        group: "flip", images and their left-right mirror images; "quarter-turns", the four quarter turns and the
            mirror images of each, of square images; "shifts", all H·W cyclic shifts; or transforms of points
            (B, *event) that do nothing but move values to other places, the identity among them if it is meant to be.
        log_weights: (|G|,) log P(g), up to a constant; −inf leaves an element out; all are equal unless given. Of
            shifts, a W + b is the place of the one by a down and b to the right.

    Returns:
        A `Denoiser` with a posterior. If the elements are a group of equal weights, D_G(g x) = g D_G(x) to rounding. A
        list of elements asks D at |G| places for every x, "shifts" takes one pass by the Fourier transform.

    Raises:
        ValueError: D without posterior, or one that knows an observation, of which each image has a likelihood of its
            own: that of the point has to be taken for all of them, `D.weighted(M.log_likelihood)`, or the images given
            as data, and measured; an unknown group; points that are no images, or images that are not square;
            a transform that interpolates or otherwise changes values; weights of another length, nan, or all −inf.

    Example:
        >>> D = OptimalDenoiser(torch.tensor([[[[0.0, 1.0]]]]))
        >>> x = torch.tensor([[[[0.9, 0.3]]]])
        >>> orbit(D, "flip")(x, 0.5)                  # 1/(1 + e^(−0.6/0.25)) on the side of (1, 0)
        tensor([[[[0.9168, 0.0832]]]])
        >>> (D(x, 0.5) + D(x.flip(-1), 0.5).flip(-1)) / 2
        tensor([[[[0.5000, 0.5000]]]])
    """
    if isinstance(D, GivenLabels):
        return LabelledOrbit(D, lambda own: orbit(own, group, log_weights))
    if isinstance(D, GivenMeasurement) or (isinstance(D, OptimalDenoiser) and D.knows_observation):
        raise ValueError(
            "D must not know an observation, which tells a point from its images: measure data that hold the images, "
            "or, if it is as likely of all images of a point, take the orbit of D.weighted(M.log_likelihood)"
        )
    if not isinstance(D, OptimalDenoiser):
        raise ValueError(f"an orbit needs the posterior over the data: D must be an OptimalDenoiser, got {_kind(D)}")
    if group == "shifts":
        _require_images(D, "shifts")
        return ShiftOrbit(D, _normalised(log_weights, D.event[1] * D.event[2]))
    if not isinstance(group, str | Sequence):
        raise ValueError(f"group must be {_NAMES}, or a list of transforms, got {_kind(group)}")
    transforms = _transforms(D, group) if isinstance(group, str) else list(group)
    if not transforms:
        raise ValueError("group must have at least one element, got none")
    tables = [permutation_of(g, D.event, f"element {i} of the group") for i, g in enumerate(transforms)]
    return PermutedOrbit(D, torch.stack(tables), _normalised(log_weights, len(tables)))


def _kind(D: object) -> str:
    return type(D).__name__


def _transforms(D: OptimalDenoiser, group: str) -> list[Transform]:
    if group not in GROUPS:
        raise ValueError(f"group must be {_NAMES}, or a list of transforms, got {group!r}")
    _require_images(D, group)
    mirror: list[Transform] = [lambda x: x, lambda x: x.flip(-1)]
    if group == "flip":
        return mirror
    if D.event[1] != D.event[2]:
        raise ValueError(f"quarter-turns are of square images, got {D.event[1]} by {D.event[2]}")
    return [lambda x, g=g, k=k: torch.rot90(g(x), k, _SIDE) for g in mirror for k in range(4)]


def _require_images(D: OptimalDenoiser, group: str) -> None:
    if len(D.event) != 3:
        raise ValueError(f"{group} needs images of shape (C, H, W), the points have shape {D.event}")


def _normalised(log_weights: Tensor | Sequence[float] | None, count: int) -> Tensor:
    """log P(g), (|G|,) float64 on the CPU."""
    if log_weights is None:
        return torch.zeros(count, dtype=torch.float64, device="cpu").log_softmax(0)
    values = torch.as_tensor(log_weights, dtype=torch.float64, device="cpu").detach()
    if values.shape != (count,):
        raise ValueError(f"log_weights must be one an element, ({count},), got shape {tuple(values.shape)}")
    if values.isnan().any() or values.max() in (-torch.inf, torch.inf):
        raise ValueError(f"log_weights must be finite or −inf, and not all of them −inf, got {values.tolist()[:8]}")
    return values.log_softmax(0)
