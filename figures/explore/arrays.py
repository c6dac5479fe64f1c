"""The numbers of the page to explore."""

from __future__ import annotations

import math

import numpy as np
import torch

from optimal import Dataset, FlowMap, OptimalDenoiser, forward_statistics, karras, load
from optimal.reference import GaussianMixture
from optimal.schedules import curve_of, path_kl_grid, start_level

from ..common import border_of, generator, provenance
from ..config import Config
from .others import answers, network_of

__all__ = ["TITLE", "compute"]

TITLE = "A page to explore: σ slider and draggable x on points, means and landings over σ on images"

_MOST_POINTS = 2000
"""Points a browser evaluates while one drags."""
_LARGE = 2 * 10**8
_SOURCES, _STEPS = 6, 18


def compute(config: Config) -> dict[str, np.ndarray]:
    """Everything on the page: five deltas and digits, or what --dataset names in place of either.

    Returns:
        Points: toy_points (N, d), toy_sigmas (2,) the range, toy_centre (d,) and toy_reach of the view, toy_border;
        on the line toy_border_sigmas (S,) and toy_separatrices (S, distinct points − 1). Images: sigmas (K,)
        decreasing, source_index (M,), sources (M, *event), noisy and means (M, K, *event), landings (L, *event), the
        distinct ones, and landing (M, K) which of them, hit (M, K) whether it is the source, captured (M, K) the noise
        level from which on that is proven, 0 on a border between basins; counts and leads (M, K), exp(entropy) and top
        weight; quartiles (K, 3) of the counts over the data; border, border_low, border_high, draws; others
        (R, M, K, *event), what others answer, and other_names (R,); grids (G, steps), levels of samplers, and
        grid_names (G,); names (L,) of the landings and source_names (M,), if they have any; toy_last, where the images
        come before the points. What the data are: toy_dataset …, dataset ….

    Raises:
        ValueError: points of more than two values that are no images; more than 2,000 of them.
    """
    data = config.load("digits")
    if data.is_image:
        # The user's own data come first on the page.
        first = {} if config.dataset is None else {"toy_last": np.array(True)}
        return _points(config, load("five-deltas")) | _images(config, data) | first
    if data.event not in ((1,), (2,)):
        raise ValueError(f"explore shows images, or points of one or two values, {data.name} has shape {data.event}")
    if len(data) > _MOST_POINTS:
        raise ValueError(
            f"explore evaluates points in the browser, at most {_MOST_POINTS:,}, {data.name} has {len(data):,}: "
            f"--option n={_MOST_POINTS}"
        )
    return _points(config, data)


def _points(config: Config, data: Dataset) -> dict[str, np.ndarray]:
    D = OptimalDenoiser(data)
    points = data.points.double()
    low, high = points.amin(0), points.amax(0)
    radius = float((high - low).max()) / 2 or 1.0
    draws = 500 if config.quick else 4000
    border = border_of(config, D, draws).sigma
    most = 5 * radius
    least = min(most / 200, border / 10) if 0 < border < math.inf else most / 200
    arrays = {f"toy_{key}": value for key, value in provenance(data).items()} | {
        "toy_points": points.numpy(),
        "toy_sigmas": np.array([least, most]),
        "toy_centre": ((low + high) / 2).numpy(),
        "toy_reach": np.array(2 * radius),
        "toy_border": np.array(border),
    }
    if data.event == (1,):
        sigmas = torch.logspace(math.log10(most), math.log10(least), 121, dtype=torch.float64)
        arrays["toy_border_sigmas"] = sigmas.numpy()
        arrays["toy_separatrices"] = GaussianMixture(data.points, 0.0).separatrices(sigmas).numpy()
    return arrays


def _images(config: Config, data: Dataset) -> dict[str, np.ndarray]:
    D, model = OptimalDenoiser(data), network_of(config, data)
    high = start_level(D)
    least, most = (0.0, math.inf) if model is None else (model.sigma_min, model.sigma_max)
    levels = 13 if config.quick else 33
    low, high = max(high / 1600, least), min(high, most)
    sigmas = torch.logspace(math.log10(high), math.log10(low), levels, dtype=torch.float64).clamp(low, high)
    count = min(_SOURCES, len(data))
    # Spread over the data, since neighbours in a file are often alike.
    source = (torch.arange(count) * len(data) // count + len(data) // (2 * count)) % len(data)
    x0 = data[source.numpy()]
    eps = torch.randn(x0.shape, generator=generator(config, 3))
    event = [1] * len(data.event)
    noisy = x0[:, None] + sigmas.float().view(1, -1, *event) * eps[:, None]
    queries, per_query = noisy.flatten(0, 1), sigmas.repeat(count)
    posterior = D.posterior(queries, per_query)
    landed = FlowMap(D).land(queries, per_query)
    index = landed.index
    distinct, landing = index.unique(return_inverse=True)
    hit = (D.take(index).view(noisy.shape) == x0[:, None]).flatten(2).all(2)
    draws = 64 if config.quick or data.array.size > _LARGE else 256
    along = forward_statistics(D, sigmas, draws=draws, generator=generator(config), progress=True)
    border = border_of(config, D, draws)
    quantiles = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    shape = (count, levels)
    others = dict(answers(D, data, model, source, noisy, sigmas))
    grids = {"EDM": karras(_STEPS, sigma_max=high)}
    if 0 < border.sigma < math.inf:
        curve = curve_of(D, sigma_max=high, nodes=32, draws=64, generator=generator(config, 4))
        grids["path KL"] = path_kl_grid(curve, _STEPS)
    named = {}
    if data.names is not None:
        for key, of in (("names", distinct), ("source_names", source)):
            named[key] = np.array([data.names[k] for k in of.tolist()])
    return (
        provenance(data)
        | named
        | {
            "other_names": np.array(list(others)),
            "others": torch.stack(list(others.values())).numpy() if others else np.empty((0, *noisy.shape)),
            "grid_names": np.array(list(grids)),
            "grids": torch.stack([grid[:-1] for grid in grids.values()]).numpy(),
            "captured": landed.captured.view(shape).numpy(),
            "sigmas": sigmas.numpy(),
            "source_index": source.numpy(),
            "sources": x0.numpy(),
            "noisy": noisy.numpy(),
            "means": posterior.mean.view(noisy.shape).numpy(),
            "landings": D.take(distinct).numpy(),
            "landing_index": distinct.numpy(),
            "landing": landing.view(shape).numpy(),
            "hit": hit.numpy(),
            "counts": posterior.effective_count.view(shape).numpy(),
            "leads": posterior.top_weight.view(shape).numpy(),
            "quartiles": along.effective_count.quantile(quantiles, dim=1).T.numpy(),
            "border": np.array(border.sigma),
            "border_low": np.array(border.low),
            "border_high": np.array(border.high),
            "draws": np.array(draws),
        }
    )
