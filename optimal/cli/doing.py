"""What each command of `python -m optimal` does: it asks, writes its files, and says in sentences what was found."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from ..border import default_draws
from ..datasets import Dataset
from ..devices import device_of
from ..randomness import stream
from ..schedule import karras
from ..storage import replacing
from .answers import (
    denoised,
    described,
    destination,
    expected,
    names_of,
    optimum,
    sampled,
    shown_points,
    solver_on,
    under,
)
from .commands import AtPoint, Border, Common, Denoise, Info, Sample, Schedule, Where, label_of
from .estimate import in_words, seconds_of_the_border
from .levels import Grid
from .located import LEVELS, located
from .options import parse_options
from .output import suffixed, writable
from .point_files import place_of, read_point
from .room import require_room, require_single
from .run import say
from .scheduled import expected_schedule, scheduled
from .sheets import Tile, save_sheet
from .wording import (
    about,
    counted_points,
    drawn,
    guided_towards,
    located_at,
    named,
    nats,
    parts,
    points_of,
    pushed,
    speciation,
    words_of,
    written,
)

__all__ = ["Told", "answered"]

Told = tuple[dict[str, Any], list[str]]
"""What was found, as plain values, and in sentences."""
_COLUMNS = 6
"""Of a picture, at most."""
_QUICK_DRAWS = 64
_QUICK_STARTS = 128


def answered(command: Common, data: Dataset) -> Told:
    """Do what a command of `optimal.cli.commands` asks of data."""
    return _DOES[type(command)](command, data)


def _planned(data: Dataset, what: str, seconds: float | None = None) -> Told:
    """What a dry run says."""
    time = "" if seconds is None else f", about {in_words(seconds)}"
    found: dict[str, Any] = {"plan": what} | ({} if seconds is None else {"seconds": seconds})
    return found, [data.describe(), f"{what}{time}; nothing was computed"]


def _info(command: Info, data: Dataset) -> Told:
    device = device_of(command.device)
    if command.dry_run:
        return _planned(data, "copies, spread and top eigenvalue of the data", expected("info", data))
    found = described(data, device=device, say=say)
    return found, [
        data.describe(),
        f"from {data.source}; licence: {data.licence}",
        *parts(data),
        f"copies of earlier points: {found['duplicates']:,}, leaving {found['distinct']:,} distinct points",
        f"standard deviation of a value {found['standard_deviation']:.4g}, top eigenvalue of the covariance "
        f"{found['top_eigenvalue']:.4g}",
        speciation(found),
        f"collapse predicted at sigma_C = {found['sigma_C']:.4g}, for as many Gaussian points: below it one point is "
        "left (`border` measures it)",
    ]


def _border(command: Border, data: Dataset) -> Told:
    draws = command.draws
    if draws is None:
        draws = default_draws(len(names_of(command.orbit)) * len(data) * math.prod(data.event))
    draws = min(draws, _QUICK_DRAWS) if command.quick else draws
    device = device_of(command.device)
    if command.dry_run:
        D = under(optimum(data, device, label_of(command)), command.orbit)
        seconds = seconds_of_the_border(D, draws, levels=LEVELS)
        return _planned(data, f"the border by {draws} draws", seconds)
    found = located(data, draws, command.seed, label=label_of(command), group=command.orbit, device=device, say=say)
    count, entropy = found["count"], found["entropy"]
    return found, [
        about(data, label_of(command), command.orbit),
        f"median effective count of 2 at sigma = {located_at(count)}: the border between mode seeking and mode "
        "refining",
        f"mean entropy of 1 nat at sigma = {located_at(entropy)}: the collapse of Biroli et al. 2024",
        f"95% bootstrap intervals, {draws} draws, seed {command.seed}",
        *([] if command.json else drawn(found["curve"])),
    ]


def _x(command: AtPoint, data: Dataset) -> tuple[torch.Tensor, list[Tile]]:
    """x, (1, *event), and the pictures of it: before it the source, where noise was added to that."""
    if not 0 < command.sigma < math.inf:
        raise ValueError(f"sigma must be positive and finite, got {command.sigma:g}")
    x, notes = read_point(command.image, data, command.value_range)
    for note in notes:
        say(note)
    tiles: list[Tile] = []
    if command.add_noise:
        require_single("sigma", command.sigma)
        place = place_of(command.image, data)
        own = (Path(command.image).name,) if place is None else words_of(data, place)
        tiles.append(Tile(x, ("source", *own)))
        x = x + command.sigma * torch.randn(x.shape, generator=stream(command.seed, "queries"))
    return x[None], [*tiles, Tile(x, ("x", f"sigma = {command.sigma:g}"))]


def _denoise(command: Denoise, data: Dataset) -> Told:
    if command.top < 1:
        raise ValueError(f"top must be at least 1, got {command.top}")
    x, before = _x(command, data)
    device = device_of(command.device)
    if command.dry_run:
        return _planned(data, f"E[x0 | x] at sigma = {command.sigma:g}", expected("denoise", data))
    out = writable(command.out, "denoised", ".npy", *_pictures(data))
    mean, found = denoised(
        data,
        x,
        command.sigma,
        command.top,
        label=label_of(command),
        guidance=command.guidance,
        interval=command.interval,
        group=command.orbit,
        device=device,
        say=say,
    )
    path = suffixed(out, ".npy")
    with replacing(path) as temporary:
        np.save(temporary, mean[0].numpy())
    files = [path]
    guided = command.guidance is not None
    answer = "the guided answer" if guided else "E[x0 | x]"
    if data.is_image:
        rows = shown_points(data, found["points"], command.orbit)
        tiles = [*before, Tile(mean[0], (answer, f"of {counted_points(found['effective_count'])}"))]
        for row, point in zip(rows, found["points"], strict=True):
            own = words_of(data, point["index"], point.get("element"))
            tiles.append(Tile(row, (f"weight {point['weight']:.3g}", *own)))
        files.append(save_sheet(tiles, suffixed(out, ".png"), columns=_COLUMNS))
    found["files"] = [str(file) for file in files]
    blend = "that of the class" if guided else "the answer"
    return found, [
        about(data, label_of(command), command.orbit),
        *([pushed(found)] if guided else []),
        f"at sigma = {command.sigma:g} {blend} blends {counted_points(found['effective_count'])} (effective count), "
        f"{nats(found['entropy'])}",
        "most probable: " + ", ".join(f"{named(data, point)} {point['weight']:.3g}" for point in found["points"]),
        *([f"{answer} = {', '.join(f'{v:.6g}' for v in mean.flatten())}"] if mean.numel() <= 2 else []),
        written(files, f"{_before(command)}, {answer}, the points" if data.is_image else ""),
    ]


def _pictures(data: Dataset) -> tuple[str, ...]:
    """Endings of the pictures that are written beside arrays."""
    return (".png",) if data.is_image else ()


def _before(command: AtPoint) -> str:
    return "the source, x" if command.add_noise else "x"


def _where(command: Where, data: Dataset) -> Told:
    if command.out is not None and not data.is_image:
        raise ValueError(f"--out is a picture, and {data.name} holds no images")
    x, before = _x(command, data)
    device = device_of(command.device)
    if command.dry_run:
        return _planned(data, f"the landing of x from sigma = {command.sigma:g}", expected("where", data))
    out = writable(command.out or "where", "where", ".png") if data.is_image else None
    mean, found = destination(data, x, command.sigma, label=label_of(command), device=device, say=say)
    end, leader = (data.called(found[name]) for name in ("index", "leader"))
    sentences = [about(data, label_of(command), None), f"x becomes data point {end} ({found['sure']})"]
    if math.prod(data.event) <= 2:
        sentences[-1] += f", which is {', '.join(f'{v:.6g}' for v in data[found['index']].flatten())}"
    sentences += [
        f"at sigma = {command.sigma:g} it holds {found['weight']:.3g} of the posterior; the leader is "
        f"{leader} with {found['leader_weight']:.3g}, the effective count {found['effective_count']:.4g}"
    ]
    if out:
        sure = f"certain at {min(found['captured'], command.sigma):.3g}" if found["captured"] else "undecided"
        answer = ("E[x0 | x]", f"of {counted_points(found['effective_count'])}")
        lines = ("becomes", *words_of(data, found["index"]), sure)
        tiles = [*before, Tile(mean[0], answer), Tile(data[found["index"]], lines)]
        files = [save_sheet(tiles, suffixed(out, ".png"), columns=_COLUMNS)]
        found["files"] = [str(file) for file in files]
        sentences.append(written(files, f"{_before(command)}, E[x0 | x], the destination"))
    return found, sentences


def _sample(command: Sample, data: Dataset) -> Told:
    device = device_of(command.device)
    grid = Grid(command.steps, command.sigma_min, command.sigma_max, command.levels)
    if command.dry_run:
        return _planned(data, f"{command.n} samples, {grid.taken} steps of {command.solver}")
    out = writable(command.out, "samples", ".npz", *_pictures(data))
    arrays, found = sampled(
        data,
        command.n,
        command.solver,
        grid,
        seed=command.seed,
        options=parse_options(command.solver_option),
        label=label_of(command),
        guidance=command.guidance,
        interval=command.interval,
        group=command.orbit,
        device=device,
        say=say,
    )
    path = suffixed(out, ".npz")
    with replacing(path) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **{name: value.numpy() for name, value in arrays.items()})
    files = [path]
    if data.is_image:
        ends = zip(arrays["samples"], found["index"], found.get("element") or [None] * command.n, strict=True)
        tiles = [Tile(x, words_of(data, k, element) if k >= 0 else ("no point",)) for x, k, element in ends]
        files.append(save_sheet(tiles, suffixed(out, ".png")))
    found["files"] = [str(file) for file in files]
    return found, [
        about(data, label_of(command), command.orbit),
        *([] if command.guidance is None else [guided_towards(command, data)]),
        f"{command.n} samples, {found['steps']} steps of {command.solver} from sigma = {found['sigma_max']:g}"
        f"{_why_from(command)}, {found['nfe']} calls each" + (", in the span of the data" if found["in_span"] else ""),
        f"{found['copies']} of them are {points_of(command.orbit)}, {found['different']} different ones",
        written(files),
    ]


def _why_from(command: Sample) -> str:
    given = command.sigma_max is not None or command.levels is not None
    return "" if given else " (where these data are lost in noise: --sigma-max)"


def _schedule(command: Schedule, data: Dataset) -> Told:
    starts, judged = command.starts, command.judged
    if command.quick:
        starts, judged = min(starts, _QUICK_STARTS), min(judged, 2 * _QUICK_STARTS)
    if command.dry_run:
        require_room("n", command.n)
        solver = solver_on(karras(command.n), command.solver, parse_options(command.solver_option))
        seconds = expected_schedule(data, command.n, command.objective, starts, judged, solver)
        return _planned(data, f"a grid of {command.n} steps for {command.solver}, by {command.objective}", seconds)
    found = scheduled(
        data,
        command.n,
        command.solver,
        command.objective,
        options=parse_options(command.solver_option),
        sigma_max=command.sigma_max,
        gaussian_start=command.gaussian_start,
        starts=starts,
        judged=judged,
        seed=command.seed,
        say=say,
    )
    levels = [f"{level:.6g}" for level in found["sigmas"]]
    lines = [
        data.describe(),
        f"{command.n} steps for {command.solver}, by {command.objective}: {', '.join(levels)}",
    ]
    if command.gaussian_start:
        lines.append(f"the Gaussian's flow takes noise from sigma = {found['sigma_max']:g} to {levels[0]} in no call")
    if found["designed"] is None:
        lines.append(f"{command.solver} draws noise: its ends are no function of the start, and are not judged")
    else:
        for name, grid in (("this grid", found["designed"]), ("EDM's", found["edm"])):
            lines.append(
                f"{name}: {grid['wrong']:.1%} [{grid['low']:.1%}, {grid['high']:.1%}] of {found['judged']} other "
                f"starts end on another point than the exact flow, {grid['nfe']} calls each"
            )
        if "design" in found:
            lines.append(f"of the {found['starts']} starts that it was designed on {found['design']['wrong']:.1%} do")
        if found["designed"]["wrong"] >= found["edm"]["wrong"] > 0:
            lines.append("this grid is no better than EDM's here: --objective landings is made for that share")
    if command.gaussian_start:
        return found, [*lines, "other libraries begin with plain noise at the first level, which this grid is not for"]
    lines += [
        f"the same levels elsewhere; the shares hold for samplers that step as {command.solver} does, and no others:",
        f"diffusers, a scheduler whose set_timesteps takes sigmas=[{', '.join(levels)}]",
        f"k-diffusion: torch.tensor([{', '.join(levels)}]); ComfyUI, custom sigmas: {', '.join(levels)}",
        f"here: sample {_as_typed(command)} --solver {command.solver} --levels {' '.join(levels)}",
    ]
    return found, lines


def _as_typed(command: Common) -> str:
    """The data and their options as a shell takes them."""
    return shlex.join([command.data, *(word for option in command.option for word in ("--option", option))])


_DOES: Mapping[type[Common], Callable[[Any, Dataset], Told]] = MappingProxyType(
    {
        Info: _info,
        Denoise: _denoise,
        Sample: _sample,
        Border: _border,
        Where: _where,
        Schedule: _schedule,
    }
)
