"""The theories whose windows may lie elsewhere, by their names."""

from __future__ import annotations

import torch

from ...denoiser import OptimalDenoiser
from ...numbers import is_whole
from .denoiser import LocalDenoiser, require_images
from .elsewhere import Elsewhere
from .scale import Scale, asked_of, odd, word
from .units import Own, middle
from .zones import bordered, wrapped

__all__ = ["boundary_local_score", "equivariant_local_score"]


def equivariant_local_score(
    D: OptimalDenoiser, window: Scale, wrap: bool = True, subset: int | None = None, *, progress: bool = False
) -> LocalDenoiser:
    """The equivariant local score machine (ELS): a pixel is the mean of the middles of all windows of all images.

        D[p] = Σ_{j, p'} w y_j[p'],    w ∝ π_j exp(−‖x_Ω(p) − y_jΩ(p')‖²/2σ²)

    Windows of x go on at the other side of the image, and so do those of the images if `wrap`; it then commutes with
    cyclic shifts, and with the window H = W it is the optimum of all cyclic shifts of the data, `orbit(D, "shifts")`.
    The cost goes with N (H·W)², and with the window's size while it is small: of large data, give a subset.

    Args:
        D: the optimum of images (C, H, W) or (H, W), under its prior.
        window: side of the window, odd and at most min(H, W): a number, or a function of σ.
        wrap: False takes only the windows of the images that lie inside, as the original code does.
        subset: None, for all images; or how many, spread evenly in their order: then it is the theory of these.
        progress: whether a bar is drawn on stderr.

    Raises:
        ValueError: points that are no images; a window that is even or out of range; a subset of none, or of more than
            there are.
        NotImplementedError: the points are shared by processes.

    References:
        Kamb, Ganguli 2024, "An analytic theory of creativity in convolutional diffusion models".
    """
    channels, height, width = require_images(D, "equivariant_local_score")
    scale = asked_of("window", window, odd(min(height, width)))
    name = f"equivariant_local_score(window={word(window)}, wrap={wrap})"
    if subset is not None:
        D, name = _subset(D, subset), f"{name[:-1]}, subset={subset})"
    return LocalDenoiser(D, name, Elsewhere(channels, scale, wrapped((height, width), wrap)), progress=progress)


def boundary_local_score(D: OptimalDenoiser, window: Scale, *, progress: bool = False) -> LocalDenoiser:
    """ELS that knows the border: a pixel as near to it as half the window has the places that are just as near to it.

    Windows are cropped to the image. A corner has the same corner of all images, an edge all places along the edge, and
    all pixels whose window lies inside have each other. From a window of min(H, W) on it is `local_score`.

    With a window of side k a row costs at most N (H W)² products of C k² values, those of the (H − k + 1)(W − k + 1)
    pixels inside being most of them, and those of `local_score` from min(H, W) on. Held are three copies of the windows
    of x, 24 C k² H W bytes a row, and a block of logits of 2 MiB, besides blocks of points within D's memory.

    Args, Raises, References: as for `equivariant_local_score`; windows may be larger.
    """
    channels, height, width = require_images(D, "boundary_local_score")
    scale, event = asked_of("window", window, odd()), (height, width)
    local = Own(channels, scale, middle(event))
    collection = Elsewhere(channels, scale, bordered(event), local, min(event))
    return LocalDenoiser(D, f"boundary_local_score(window={word(window)})", collection, progress=progress)


def _subset(D: OptimalDenoiser, count: int) -> OptimalDenoiser:
    there = (D.log_weights.cpu() > -torch.inf).nonzero().squeeze(1)
    if not is_whole(count) or not 1 <= count <= len(there):
        raise ValueError(f"subset must be None or a whole number from 1 to {len(there)}, got {count!r}")
    kept = there[torch.arange(count, dtype=torch.int64, device="cpu") * len(there) // count]
    log_weights = torch.full((len(D),), -torch.inf, dtype=torch.float64, device="cpu")
    log_weights[kept] = 0.0
    return D.weighted(log_weights)
