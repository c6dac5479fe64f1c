"""The local theories by their names."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from ...denoiser import OptimalDenoiser
from ...numbers import is_number, is_whole
from .denoiser import LocalDenoiser, require_images
from .masks import Heat, Heats, Ratios
from .scale import Scale, asked_of, between, odd, word
from .units import Own, Shared, inside, middle

__all__ = ["Normalise", "flexible_patch_posterior", "local_score", "patch_posterior", "pca_locality"]

Normalise = Literal["input", "output"]


def local_score(D: OptimalDenoiser, window: Scale, *, progress: bool = False) -> LocalDenoiser:
    """The local score machine (LS): a pixel is the mean of what the images have there, by how well the window fits.

        D[p] = Σ_j w_jp y_j[p],    w_jp ∝ π_j exp(−‖x_Ω − y_jΩ‖²/2σ²),    Ω the window around p, cropped to the image

    One pass over the data, whose cost does not depend on the window. With a window of 2·max(H, W) − 1 or more it is D.

    Args:
        D: the optimum of images (C, H, W) or (H, W), under its prior.
        window: side of the window, odd: a number, or a function of σ.
        progress: whether a bar is drawn on stderr.

    Raises:
        ValueError: points that are no images; a window that is even or not positive.
        NotImplementedError: the points are shared by processes.

    References:
        Kamb, Ganguli 2024, "An analytic theory of creativity in convolutional diffusion models".

    Example:
        >>> import torch
        >>> D = OptimalDenoiser(torch.tensor([[[[-1.0, -1.0]]], [[[1.0, 1.0]]]]))
        >>> local_score(D, 1)(torch.tensor([[[[0.5, -0.5]]]]), 1.0)    # each pixel by itself, where D sees their mean
        tensor([[[[ 0.4621, -0.4621]]]])
    """
    channels, height, width = require_images(D, "local_score")
    scale = asked_of("window", window, odd())
    return LocalDenoiser(
        D, f"local_score(window={word(window)})", Own(channels, scale, middle((height, width))), progress=progress
    )


def patch_posterior(D: OptimalDenoiser, size: Scale, *, progress: bool = False) -> LocalDenoiser:
    """The patch set posterior composite of squares (PSPC-square): the mean of what all patches say that cover a pixel.

        D[p] = (1/n_p) Σ_{P ∋ p} Σ_j w_jP y_j[p],    w_jP ∝ π_j exp(−‖x_P − y_jP‖²/2σ²)

    P over the n_p patches inside the image that cover p. Two passes over the data, whatever the size. With patches that
    are the image it is D.

    Args:
        D: as for `local_score`.
        size: side of the patches, a whole number from 1 to max(H, W), or a function of σ; along an axis that is shorter
            a patch has its length.
        progress: whether a bar is drawn on stderr.

    Raises:
        ValueError: points that are no images; a size that no patch has.
        NotImplementedError: the points are shared by processes.

    References:
        Niedoba, Zwartsenberg, Murphy, Wood 2025, "Towards a Mechanistic Explanation of Diffusion Model Generalization".

    Example:
        >>> import torch
        >>> D = OptimalDenoiser(torch.tensor([[[[-1.0, -1.0]]], [[[1.0, 1.0]]]]))
        >>> patch_posterior(D, 2)(torch.tensor([[[[0.5, -0.5]]]]), 1.0)
        tensor([[[[0., 0.]]]])
    """
    channels, height, width = require_images(D, "patch_posterior")
    scale = asked_of("size", size, between(1, max(height, width), whole=True))
    return LocalDenoiser(
        D, f"patch_posterior(size={word(size)})", Shared(channels, scale, inside((height, width))), progress=progress
    )


def flexible_patch_posterior(
    D: OptimalDenoiser, share: Scale, heat: Heat | None = None, *, progress: bool = False
) -> LocalDenoiser:
    """PSPC-flex: as `patch_posterior`, of one patch a pixel, the smallest that holds a share of what it goes by.

    Args:
        D: as for `local_score`.
        share: θ, above 0 and at most 1, which is the whole image; or a function of σ.
        heat: (H·W, H·W), not negative: in row p, how much the answer at pixel p goes by each pixel; or a function of σ
            that gives it. Published are mean absolute Jacobians of a network. Unless given, those of the Wiener filter,
            Σ |W| over the channels, W = U diag(λ/(λ + σ²)) Uᵀ, for which no network is needed; there no pixel has more
            in a row than the pixel itself, so that it is in its own mask, alone where it is the same in all data.
        progress: whether a bar is drawn on stderr.

    A row costs at most 2 N (H W)² + 3 N C H W products, in two passes over the data, less where masks have few pixels;
    every level its masks, sorting (H W)², and without a heat the filter, 2 (C H W)³, of axes that are found once. Held
    are 8 (H W)² bytes a mask and 16 (C H W)² of the filter, besides blocks of points within D's memory.

    Raises:
        ValueError: points that are no images; a share out of range; a heat of another shape, negative or not finite;
            masks that leave a pixel uncovered, for which there would be no answer. What a function of σ gives is known,
            and refused, at the call.
        NotImplementedError: the points are shared by processes.

    References:
        As for `patch_posterior`.
    """
    channels, height, width = require_images(D, "flexible_patch_posterior")
    scale, pixels = asked_of("share", share, between(0, 1, open_below=True)), height * width
    units = Heats(D, pixels, heat, progress)
    if isinstance(heat, Tensor) and not callable(share):
        # Of every level the same masks, which may leave a pixel uncovered.
        units(scale(torch.ones(1))[0], math.inf, D.points.device)
    collection = Shared(channels, scale, units, held=8 * pixels**2)
    given = "" if heat is None else ", heat=σ ↦ …" if callable(heat) else ", heat=given"
    name = f"flexible_patch_posterior(share={word(share)}{given})"
    return LocalDenoiser(D, name, collection, progress=progress)


def pca_locality(
    D: OptimalDenoiser,
    threshold: Scale,
    temperature: float = 1.0,
    normalise: Normalise = "input",
    chunk: int | None = None,
    *,
    progress: bool = False,
) -> LocalDenoiser:
    """PCA-locality: a value is the mean of what the images have there, by the values that the Wiener filter goes by.

        D[m] = Σ_j w_jm y_j[m],    w_jm ∝ π_j exp(−Σ_n M[n, m] (x_n − y_jn)²/2σ²T)
        M[n, m] = 1 where |R[n, m]| >= τ max |R|,    R[n, m] = W[n, m]/W[n, n],    W = U diag(λ/(λ + σ²)) Uᵀ

    n and m go over the values of all channels. With τ = 0 it is D at σ√T; of data whose covariance is diagonal every
    value is on its own. A value that is the same in all data sees nothing, and is answered as it is.

    Args:
        D: as for `local_score`.
        threshold: τ, from 0 to 1, or a function of σ. Published: 0.005 (MNIST), 0.05 (CIFAR-10), 0.02 (CelebA, AFHQ).
        temperature: T, > 0.
        normalise: by which diagonal entry W is divided: "input", W[n, n], as the public code does, or "output",
            W[m, m]; by 1 where it is below 1e-6.
        chunk: None, for the posterior mean; a number of points, for what the public code has in its place: the mean of
            the posteriors of every such part of the data, in their order, each of the same weight.
        progress: whether a bar is drawn on stderr.

    A row costs at most N (C H W)² + 3 N C H W products, in one pass over the data, less where masks have few values;
    every level its filter and mask, 2 (C H W)³, of axes that are found once. Held are 16 to 24 (C H W)² bytes of mask
    and filter, besides blocks of points within D's memory.

    Raises:
        ValueError: points that are no images; a threshold, temperature, normalise or chunk that is none.
        NotImplementedError: the points are shared by processes.

    References:
        Lukoianov, Yuan, Solomon, Sitzmann 2025, "Locality in Image Diffusion Models Emerges from Data Statistics".
    """
    require_images(D, "pca_locality")
    if normalise not in get_args(Normalise):
        raise ValueError(f'normalise must be "input" or "output", got {normalise!r}')
    if not is_number(temperature) or not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be positive and finite, got {temperature!r}")
    if chunk is not None and not (is_whole(chunk) and chunk >= 1):
        raise ValueError(f"chunk must be None or a whole number of points from 1 on, got {chunk!r}")
    scale = asked_of("threshold", threshold, between(0, 1))
    units, held = Ratios(D, normalise, progress), 8 * D.points.dim**2
    collection = Own(1, scale, units, by_value=True, temperature=temperature, chunk=chunk, held=held)
    others = {"temperature": (temperature, 1.0), "normalise": (normalise, "input"), "chunk": (chunk, None)}
    words = "".join(f", {name}={value!r}" for name, (value, usual) in others.items() if value != usual)
    return LocalDenoiser(D, f"pca_locality(threshold={word(threshold)}{words})", collection, progress=progress)
