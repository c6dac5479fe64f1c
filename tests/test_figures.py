"""All figures but the first, tested on their numbers."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from drawn import differences, faults
from series import shown

from figures import (
    border,
    difficulty,
    distilled,
    fewstep,
    generalise,
    grids,
    guidance,
    measurements,
    prop4,
    samples,
    schedules,
    steps,
    students,
    theories,
    trained,
    trajectories,
)
from figures.__main__ import FIGURES, main
from figures.config import Config
from figures.gallery import make, make_together
from figures.networks import prepare
from figures.output import stem
from figures.waiting import seconds
from neural.config import TECHNIQUES
from neural.studies import table
from optimal import OptimalDenoiser, load, speciation_sigma
from optimal.cli.estimate import Pace
from optimal.reference import GaussianMixture
from optimal.regimes import top_eigenvalue
from optimal.samplers import SOLVERS

pytestmark = pytest.mark.slow

matplotlib.use("Agg")

QUICK = Config(dataset="digits", quick=True, option=("n=400",))


@pytest.fixture(scope="module")
def of_border() -> dict[str, np.ndarray]:
    return border.compute(QUICK)


@pytest.fixture(scope="module")
def of_trajectories() -> dict[str, np.ndarray]:
    return trajectories.compute(QUICK)


@pytest.fixture(scope="module")
def of_steps() -> dict[str, np.ndarray]:
    return steps.compute(QUICK)


@pytest.fixture(scope="module")
def of_schedules() -> dict[str, np.ndarray]:
    return schedules.compute(QUICK)


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Config]:
    """Small networks, trained once into a cache of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPTIMAL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield Config(quick=True)


@pytest.fixture(scope="module")
def of_trained(networks: Config) -> dict[str, np.ndarray]:
    return trained.compute(networks)


@pytest.fixture(scope="module")
def of_theories() -> dict[str, np.ndarray]:
    return theories.compute(Config())


@pytest.fixture(scope="module")
def of_generalise() -> dict[str, np.ndarray]:
    return generalise.compute(Config())


@pytest.fixture(scope="module")
def of_difficulty() -> dict[str, np.ndarray]:
    return difficulty.compute(Config())


@pytest.fixture(scope="module")
def of_students(networks: Config) -> dict[str, np.ndarray]:
    return students.compute(networks)


@pytest.fixture(scope="module")
def of_samples(networks: Config) -> dict[str, np.ndarray]:
    return samples.compute(networks)


@pytest.fixture(scope="module")
def of_fewstep(networks: Config) -> dict[str, np.ndarray]:
    return fewstep.compute(networks)


@pytest.fixture(scope="module")
def of_guidance() -> dict[str, np.ndarray]:
    return guidance.compute(Config(quick=True))


@pytest.fixture(scope="module")
def of_measurements() -> dict[str, np.ndarray]:
    return measurements.compute(Config(quick=True))


@pytest.fixture(scope="module")
def of_distilled() -> dict[str, np.ndarray]:
    return distilled.compute(QUICK)


@pytest.fixture(scope="module")
def of_prop4() -> dict[str, np.ndarray]:
    return prop4.compute(QUICK)


@pytest.fixture(scope="module")
def of_grids() -> dict[str, np.ndarray]:
    return grids.compute(QUICK)


@pytest.mark.parametrize("i", [0, 1])
def test_border_curves(of_border: dict[str, np.ndarray], i: int) -> None:
    column = {key[2:]: value for key, value in of_border.items() if key.startswith(f"{i}_")}
    sigmas, place = column["sigmas"], float(column["border"])
    assert (np.diff(sigmas) < 0).all()
    medians = column["counts"][:, 1]
    assert medians[sigmas > 1.5 * place].min() > 2 > medians[sigmas < place / 1.5].max()
    assert column["border_low"] <= place <= column["border_high"]
    # From blind to sure: the leader is the source, and nothing is left of the variance.
    found, mmse, slope = (column[name][:, 0] for name in ("found", "mmse", "mmse_slope"))
    assert found[-1] == 1
    assert found[0] < 0.5
    assert mmse[-1] < 1e-6
    assert mmse[0] == pytest.approx(1, abs=0.1)
    # The slope drawn is that of the curve drawn: both from the same draws, by different formulas.
    gained = -np.trapezoid(slope, np.log(sigmas))
    assert gained == pytest.approx(mmse[0] - mmse[-1], rel=0.35)
    for name in ("found", "mmse", "mmse_slope"):
        value, low, high = column[name].T
        assert ((low <= value) & (value <= high)).all()


def test_border_captures_every_trajectory(of_border: dict[str, np.ndarray]) -> None:
    for i in (0, 1):
        captured, last_change = of_border[f"{i}_captured"], of_border[f"{i}_last_change"]
        assert (captured > 0).all()
        changed = ~np.isnan(last_change)
        assert (last_change[changed] > captured[changed]).all()


def test_border_of_the_data_set_asked_for(of_border: dict[str, np.ndarray]) -> None:
    assert of_border["names"].tolist() == ["five-deltas", "digits"]
    assert int(of_border["size"]) == int(of_border["1_size"]) == 400
    D = OptimalDenoiser(load("digits", n=400))
    assert float(of_border["1_speciation"]) == pytest.approx(speciation_sigma(top_eigenvalue(D)))


def test_lines_end_where_mass_says(of_trajectories: dict[str, np.ndarray]) -> None:
    """In one dimension the flow keeps the order, and a fifth of the start goes to each of five points."""
    index, points = of_trajectories["line_index"], of_trajectories["line_points"][:, 0]
    ends = points[index]
    assert (np.diff(ends) >= 0).all()
    # The lines start on the quantiles of a Gaussian, the flow's own density at σ = 20 is a little wider.
    assert np.abs(np.bincount(index, minlength=5) - 12).max() <= 1
    paths = of_trajectories["line_paths"][:, :, 0]
    assert (np.diff(paths, axis=1) > 0).all()
    np.testing.assert_allclose(paths[-1], ends, atol=0.1)


def test_density_is_that_of_the_noisy_data(of_trajectories: dict[str, np.ndarray]) -> None:
    import torch

    points, y = of_trajectories["line_points"], of_trajectories["line_y"]
    mixture = GaussianMixture(torch.from_numpy(points), 0.0)
    for row in (0, 50, 90):
        sigma = float(of_trajectories["line_sigmas"][row])
        log_density = mixture.log_density(torch.from_numpy(y)[:, None] * (1 + sigma**2) ** 0.5, sigma)
        expected = (log_density - log_density.max()).exp().numpy()
        np.testing.assert_allclose(of_trajectories["line_density"][row], expected, atol=1e-9)


def test_strips_end_on_data(of_trajectories: dict[str, np.ndarray]) -> None:
    points = load("digits", n=400).points.numpy()
    for end, last in zip(of_trajectories["ends"], of_trajectories["denoised"][:, -1], strict=True):
        assert np.abs(points - end).max(axis=(1, 2, 3)).min() < 1e-5
        assert np.abs(last - end).max() < 0.5
    assert of_trajectories["noisy"].shape == of_trajectories["denoised"].shape == (4, 15, 1, 8, 8)


def test_every_solver_by_name_is_compared() -> None:
    """But for the one that takes a flow map in place of D."""
    assert {options["solver"] for options in steps.SOLVERS.values()} == {*SOLVERS} - {"consistency"}


def test_calls_are_counted_in_their_part(of_steps: dict[str, np.ndarray]) -> None:
    n, solvers = of_steps["steps"], of_steps["solvers"].tolist()
    for name, whole, above in (
        ("Euler (DDIM)", n, n),
        ("Heun (EDM)", 2 * n - 1, 2 * n),
        ("DPM-Solver-3", 3 * n - 2, 3 * n),
        ("DPM-Solver++ 2M", n, n),
        ("UniPC-3", n, n),
        ("SDE-DPM-Solver++ 2M", n, n),
    ):
        i = solvers.index(name)
        np.testing.assert_array_equal(of_steps["whole_nfe"][i], whole)
        np.testing.assert_array_equal(of_steps["below_nfe"][i], whole)
        np.testing.assert_array_equal(of_steps["above_nfe"][i], above)


def test_more_steps_find_the_exact_end(of_steps: dict[str, np.ndarray]) -> None:
    solvers = of_steps["solvers"].tolist()
    for part in steps.PARTS:
        other, distance = of_steps[f"{part}_other"][:, :, 0], of_steps[f"{part}_distance"]
        for name in ("Euler (DDIM)", "Heun (EDM)", "DPM-Solver++ 2M", "UniPC-2"):
            i = solvers.index(name)
            assert other[i, -1] <= 0.3
            assert other[i, -1] <= other[i, 0]
            # All end on data points: none elsewhere is no distance.
            assert (distance[i, -1] < 1e-6) == (other[i, -1] == 0)
    # Stochastic samplers go elsewhere however many steps they take.
    for name in ("reverse SDE", "SDE-DPM-Solver++ 2M"):
        assert of_steps["whole_other"][solvers.index(name), -1, 0] > 0.9
    assert int(of_steps["trajectories"]) + int(of_steps["uncaptured"]) == 32


def test_intervals_of_steps(of_steps: dict[str, np.ndarray]) -> None:
    """The interval holds its share and has a width at 0 and 1; so many calls at least, at most, by its ends."""
    for part in steps.PARTS:
        share, low, high = np.moveaxis(of_steps[f"{part}_other"], 2, 0)
        assert (low <= share).all()
        assert (share <= high).all()
        assert (high - low > 0.1).all()
        needed, least, most = np.nan_to_num(of_steps[f"{part}_needed"], nan=np.inf).T
        assert (least <= needed).all()
        assert (needed <= most).all()


def test_one_step_is_the_denoiser(of_steps: dict[str, np.ndarray]) -> None:
    """From the border, one step of any solver without churn returns D there."""
    solvers = of_steps["solvers"].tolist()
    others = [i for i, name in enumerate(solvers) if not name.startswith("EDM stochastic")]
    assert len(np.unique(of_steps["below_distance"][others, 0])) == 1


@pytest.mark.parametrize(
    ("other", "needed"),
    [
        ([0.5, 0.04, 0.2, 0.05, 0.0], 7.0),
        ([0.5, 0.3, 0.2, 0.1, 0.0], 9.0),
        ([0.0, 0.0, 0.0, 0.0, 0.0], 1.0),
        ([0.0, 0.0, 0.0, 0.0, 0.2], np.nan),
    ],
)
def test_calls_needed(other: list[float], needed: float) -> None:
    found = steps.calls_needed(np.array([[1.0, 3.0, 5.0, 7.0, 9.0]]), np.array([other]))
    np.testing.assert_array_equal(found, [needed])


def test_the_mean_is_smooth_and_the_flow_map_has_five_values(of_distilled: dict[str, np.ndarray]) -> None:
    points, x = of_distilled["toy_positions"], of_distilled["toy_x"]
    assert set(of_distilled["toy_flow"].flatten()) == set(points.astype(np.float64))
    assert len(np.unique(of_distilled["toy_mean"].round(3))) > 1000
    # The lines drawn are the borders of the areas drawn.
    basin = (x[None, :, None] > of_distilled["toy_borders"][:, None, :]).sum(2)
    clear = np.abs(x[None, :, None] - of_distilled["toy_borders"][:, None, :]).min(2) > 1e-3
    np.testing.assert_array_equal(np.sort(points)[basin][clear], of_distilled["toy_flow"][clear])


def test_landings_are_images_of_the_data(of_distilled: dict[str, np.ndarray]) -> None:
    images = load("digits", n=400).points.numpy()
    hit, landings, sources = (of_distilled[name] for name in ("hit", "landings", "sources"))
    for source, row, flags in zip(sources, landings, hit, strict=True):
        for landing, is_source in zip(row, flags, strict=True):
            assert (images == landing).all(axis=(1, 2, 3)).any()
            assert (landing == source).all() == is_source
    sigmas, place = of_distilled["sigmas"], float(of_distilled["border"])
    assert hit[:, sigmas < place / 3].all()
    assert not hit[:, sigmas > 30 * place].any()
    below = sigmas < place / 3
    assert np.abs(of_distilled["means"][:, below] - sources[:, None]).max() < 0.1


@pytest.mark.parametrize("i", [0, 1])
def test_shares_of_landings(of_prop4: dict[str, np.ndarray], i: int) -> None:
    column = {key[2:]: value for key, value in of_prop4.items() if key.startswith(f"{i}_")}
    sigmas, place = column["sigmas"], float(column["border"])
    assert sigmas[-1] == pytest.approx(max(place / 20, sigmas[0] / 8000))
    for name in ("source", "leader", "nearest_to_mean", "leader_is_source"):
        assert column[name][-1, 0] == column[name][-1, 2] == 1 > column[name][-1, 1]
    assert (column["distance"][-1] < 1e-6).all()
    assert column["source"][0, 0] < 0.5
    assert column["distance"][0, 1] > 0.3
    assert (np.diff(column["distance"], axis=1) >= 0).all()
    assert of_prop4["basin_borders"].shape == (len(of_prop4["basin_sigmas"]), 4)


def test_grids_fall_at_their_order(of_grids: dict[str, np.ndarray]) -> None:
    np.testing.assert_allclose(of_grids["toy_slopes"], [1, 2, 2, 3], atol=0.15)
    assert of_grids["points"].tolist() == [1, 2, 4, 8, 16]
    # One grid point is D at σ_max, whatever the solver; more points, fewer wrong ends.
    assert len(np.unique(of_grids["distance"][:, 0, 0])) == 1
    assert (of_grids["other"][:, -1, 0] < 0.5).all()
    assert (of_grids["other"][:, 0, 0] > 0.9).all()
    for name in ("other", "distance"):
        value, low, high = np.moveaxis(of_grids[name], 2, 0)
        assert ((low <= value) & (value <= high)).all()
        assert ((low < high) | (value == 0)).all()


def test_stages_of_the_grids(of_grids: dict[str, np.ndarray]) -> None:
    """Stage 0 is D for every grid, the last stage the flow map on it."""
    jump = of_grids["jump"]
    euler = of_grids["solvers"].tolist().index("Euler (DDIM)")
    np.testing.assert_allclose(jump[0], np.broadcast_to(jump[0, 0], jump[0].shape), rtol=1e-12)
    for j in range(5):
        np.testing.assert_allclose(jump[j, j], of_grids["distance"][euler, j])
        assert np.isnan(jump[j + 1 :, j]).all()


def test_a_trained_network_is_measured_on_the_data_and_where_it_goes(of_trained: dict[str, np.ndarray]) -> None:
    assert of_trained["names"].tolist() == ["toy"]
    assert of_trained["0_places"].tolist() == ["data", "trajectory"]
    sigmas = of_trained["0_sigmas"]
    for place in ("data", "trajectory"):
        share, weight = (of_trained[f"0_{row}_{place}"] for row in ("gap_share", "gap_over_sigma_square"))
        assert (share[:, 1] <= share[:, 0]).all()
        assert (share[:, 0] <= share[:, 2]).all()
        # One gap: its ratio to the share is E‖D − mean‖², which falls with noise and is at most the data's variance.
        spread = weight[:, 0] * sigmas**2 / share[:, 0]
        assert (spread < 1.2 * 2.08).all()
        assert spread[-1] < 0.1 * spread[0]
    # Far below the border even a hardly trained network is right: preconditioning sees to it.
    assert of_trained["0_gap_share_data"][0, 0] < 0.05


def test_students_beside_the_flow_map(of_students: dict[str, np.ndarray]) -> None:
    points = load("five-deltas").points.flatten().numpy()
    assert set(of_students["flow"].flatten()) == set(points)
    assert set(of_students["jump_flow"]) == set(points)
    for prefix in ("", "digits_"):
        for name in ("one_same", "same_consistency", "same_multistep"):
            share, low, high = np.moveaxis(of_students[f"{prefix}{name}"], 1, 0)
            assert ((low <= share) & (share <= high) & (low < high)).all()
    assert of_students["one_same"].shape == of_students["digits_one_same"].shape == (4, 3)
    assert (of_students["one_same"][:, 0] > 0.2).all()
    # Below all noise the boundary condition holds: the output is x.
    assert of_students["same_consistency"][-1, 0] > 0.8


def test_samples_are_marked_as_memorised(of_samples: dict[str, np.ndarray]) -> None:
    methods = of_samples["methods"].tolist()
    most = {name: "2 calls" if name == "progressive" else "4 calls" for name in TECHNIQUES}
    assert {f"{name} student: {n}" for name in TECHNIQUES for n in ("1 call", most[name])} < set(methods)
    assert of_samples["samples"].shape == (len(methods), 14, 1, 8, 8)
    assert of_samples["memorised"].shape == (len(methods), 14)
    assert of_samples["memorised"][methods.index("optimum: its exact flow")].all()
    assert of_samples["share"][methods.index("optimum: its exact flow"), 0] == 1


@pytest.mark.parametrize("i", [0, 1])
def test_few_steps_of_every_method(of_fewstep: dict[str, np.ndarray], i: int) -> None:
    methods = of_fewstep["methods"].tolist()
    k = methods.index("optimum, heun")
    assert of_fewstep[f"{i}_{k}_nfe"].tolist() == [1, 3, 7]
    # The noises of five points are not random, and what comes of them has no interval.
    rows = (3, 3) if i else (3,)
    same = of_fewstep[f"{i}_{methods.index('optimum, euler')}_same"]
    assert same.shape == rows
    assert (np.diff(same.reshape(3, -1)[:, 0]) >= 0).all()
    assert of_fewstep[f"{i}_floor"].shape == rows[1:]
    assert of_fewstep[f"{i}_{methods.index('progressive student')}_nfe"].tolist() == ([1, 2, 4], [1, 2])[i]
    for technique in ("consistency", "knowledge", "multistep"):
        assert of_fewstep[f"{i}_{methods.index(f'{technique} student')}_nfe"].tolist() == [1, 2, 4]
    for k in range(len(methods)):
        assert (of_fewstep[f"{i}_{k}_wasserstein"] > 0).all()


def test_theories_is_the_shipped_table(of_theories: dict[str, np.ndarray]) -> None:
    """Row by row, picture by picture; and the optimum accounts for nothing of the deviation from itself."""
    cells = table("theories")
    assert of_theories["names"].tolist() == list(cells)
    for i, name in enumerate(cells):
        column = {key[2:]: value for key, value in of_theories.items() if key.startswith(f"{i}_")}
        assert column["theories"][0] == "optimum"
        rows = {(r["on"], r["theory"], r["sigma"]): r for r in cells[name].tables["held"]}
        for place, on in enumerate(("data", "trajectory")):
            for k, theory in enumerate(column["theories"].tolist()):
                for j, sigma in enumerate(column["sigmas"].tolist()):
                    value, low, high = column["accounted"][place, k, j]
                    assert value == rows[on, theory, sigma]["accounted"]
                    assert low <= value <= high
                    assert theory != "optimum" or value == 0
        assert column["gap_share"][0, 3, 0] == rows["data", "optimum", column["sigmas"][3]]["gap_share"]
        # No theory that is nearest lies below the optimum, unless nothing is nearer.
        for place in (0, 1):
            for j, nearest in enumerate(column["nearest"][place].tolist()):
                names = column["theories"].tolist()
                first = next(k for k, each in enumerate(names) if f"{nearest},".startswith(f"{each},"))
                assert column["accounted"][place, first, j, 0] >= 0
        pictures = {(row["theory"], row["noise"]): row["image"] for row in cells[name].tables["pictures"]}
        shown = column["pictures"][1, 2]
        assert np.round((shown + 1) * 127.5).astype(int).flatten().tolist() == pictures["optimum", 2]


def test_generalise_is_the_shipped_table(of_generalise: dict[str, np.ndarray]) -> None:
    """Row by row, picture by picture; nothing of it is made while it is drawn."""
    cells = table("generalise")
    assert of_generalise["names"].tolist()[0] == "digits"
    for i, name in enumerate(of_generalise["names"].tolist()):
        column = {key[2:]: value for key, value in of_generalise.items() if key.startswith(f"{i}_")}
        assert (np.diff(column["sizes"]) > 0).all()
        for j, size in enumerate(column["sizes"].tolist()):
            tables = cells[f"{name}-{size}"].tables
            level = float(column["sigma"])
            gaps = [row for row in tables["gap"] if row["sigma"] == pytest.approx(level) and row["level"] == "shared"]
            assert {row["on"]: row["gap_share"] for row in gaps} == {
                "data": column["gap_data"][j, 0],
                "held-out": column["gap_held"][j, 0],
            }
            assert column["memorised"][j].tolist() == [
                tables["samplers"][0][f"memorised{end}"] for end in ("", "_low", "_high")
            ]
            pictures = {(row["method"], row["noise"]): row["image"] for row in tables["pictures"]}
            shown = column["pictures"][1, 0, j]
            assert np.round((shown + 1) * 127.5).astype(int).flatten().tolist() == pictures["first", 1]
            assert ("pairs" in tables) == (j < len(column["alike"]))
        assert np.isnan(column["pictures"][:, 1, -1]).all()


def test_networks_go_from_copies_to_samples_that_they_agree_on(of_generalise: dict[str, np.ndarray]) -> None:
    """What the figure is drawn to show, beyond its intervals."""
    for i in range(len(of_generalise["names"])):
        column = {key[2:]: value for key, value in of_generalise.items() if key.startswith(f"{i}_")}
        assert column["memorised"][0, 1] > column["memorised"][-1, 2]
        assert column["alike"][-1, 1] > column["alike"][0, 2]
        assert column["apart"][-1, 2] < column["apart"][0, 1]
        # The networks are nearer to each other than their optima are.
        assert (column["apart"][:, 2] < column["optimum_apart"][:, 1]).all()
        assert column["gap_data"][0, 2] < column["gap_held"][0, 1]


def test_difficulty_is_the_shipped_table(of_difficulty: dict[str, np.ndarray]) -> None:
    """Number by number; nothing of it is made while it is drawn."""
    arrays, cells = of_difficulty, table("difficulty").values()
    assert arrays["learners"].tolist() == ["denoiser", *TECHNIQUES]
    for name in arrays["learners"].tolist():
        mine = {cell.data["data"]["points"]: cell.tables for cell in cells if cell.name.endswith(f"-{name}")}
        assert arrays[f"{name}_sizes"].tolist() == sorted(mine)
        for i, size in enumerate(sorted(mine)):
            rows = {row["steps"]: row for row in mine[size]["samplers"]}
            for key, taken in (("same", 1), ("same_2", 2), ("same_18", 18)):
                if f"{name}_{key}" in arrays:
                    found = arrays[f"{name}_{key}"][i].tolist()
                    assert found == [rows[taken][f"same{end}"] for end in ("", "_low", "_high")]
            if f"{name}_pairs" in arrays:
                assert arrays[f"{name}_pairs"][i, 0] == rows[1]["same_pairs"]
    with pytest.raises(ValueError, match="difficulty takes no --dataset: it shows a study of digits"):
        difficulty.compute(QUICK)


def test_the_law_of_difficulty_is_found_where_it_holds() -> None:
    """Shares on the line give it back, with an interval of no width; noise widens it around the truth."""
    sizes = np.array([10.0, 30, 100, 300, 1000])
    shares = 1 / (1 + np.exp(1.5 * np.log(sizes) - 6))
    a, b, at, low, high = difficulty.law(sizes, shares)
    truth = np.exp((6 - np.log(9)) / 1.5)
    np.testing.assert_allclose([a, b, at, low, high], [6, 1.5, truth, truth, truth], rtol=1e-6)
    noisy = shares * (1 + 0.1 * np.array([0, -1, 1, -1, 1]) * (1 - shares))
    _, _, at, low, high = difficulty.law(sizes, noisy)
    assert low < at < high
    assert low < truth < high
    assert np.isnan(difficulty.law(sizes[:2], shares[:2])).all()


def test_grids_made_for_landings_land_better(of_schedules: dict[str, np.ndarray]) -> None:
    a = of_schedules
    names, value, low, high = a["grids"].tolist(), *np.moveaxis(a["wrong"], 2, 0)
    held = np.isfinite(value)
    assert ((low <= value) & (value <= high))[held].all()
    published = [names.index(name) for name in ("EDM (ρ = 7)", "even in log σ", "cosine", "kl-optimal")]
    assert held[published].all()
    own, begun = names.index("landings"), names.index("landings, from the Gaussian")
    assert (value[own] < value[published].min(0)).all()
    assert value[begun].sum() < value[own].sum()
    # Levels decrease from the start, or where the Gaussian leads.
    for name, levels in zip(names, a["levels"], strict=True):
        if np.isfinite(levels).all():
            assert (np.diff(levels) < 0).all()
            assert (levels[0] < 0.2 * a["high"]) == (name in ("landings, from the Gaussian", "the same, calibrated"))


def test_guidance_reaches_fewer_points_and_less_so_in_an_interval(of_guidance: dict[str, np.ndarray]) -> None:
    a = of_guidance
    plain, guided, within = a["toy_shares"][:, :, 0]
    assert plain.sum() == pytest.approx(1, abs=0.01)
    assert guided[2] > 1.5 * plain[2]
    assert max(guided[0], guided[-1]) < 0.5 * min(plain[0], plain[-1])
    assert np.abs(within - plain).max() < 0.5 * np.abs(guided - plain).max()
    for way in ("optimum", "network"):
        assert a[f"{way}_reached"][-1, 0] < a[f"{way}_within_reached"][-1, 0]
        assert a[f"{way}_away"][-1, 0] > a[f"{way}_away"][0, 0]
        # w = 1 is the conditional one, with and without an interval.
        for name in ("reached", "variation", "away"):
            assert np.array_equal(a[f"{way}_{name}"][0], a[f"{way}_within_{name}"][0])
    assert a["uniform"][1] <= a["optimum_variation"][0, 2]
    with pytest.raises(ValueError, match="guidance takes no --dataset: it shows digits and a network"):
        guidance.compute(QUICK)


def test_the_exact_optimum_finds_the_posterior_and_solvers_do_not(of_measurements: dict[str, np.ndarray]) -> None:
    a = of_measurements
    for i in range(4):
        for column in ("variation", "excluded", "none"):
            for way in ("exact", "dps", "pigdm", "diffpir"):
                value, low, high = a[f"{i}_{way}_{column}"].T
                assert ((low <= value) & (value <= high)).all()
        # What as many exact draws have, and the sampler's few steps.
        assert a[f"{i}_exact_variation"][-1, 0] <= a[f"{i}_counting"][2] + 0.1
        assert a[f"{i}_exact_excluded"][-1, 0] <= 0.04
        for way in ("dps", "pigdm", "diffpir"):
            assert a[f"{i}_{way}_variation"][-1, 0] > a[f"{i}_exact_variation"][-1, 0] + 0.05
        assert a[f"{i}_exact_none"][-1, 0] == 0
        assert (np.diff(a[f"{i}_chances"]) <= 0).all()
        assert a[f"{i}_effective"].min() >= 1
    assert a["3_diffpir_excluded"][-1, 0] > 0.5
    # The most probable image under the mask agrees with what is seen to within its noise.
    seen, likely = a["0_seen"], a["0_likely"][0]
    assert np.nanstd(seen - likely) == pytest.approx(float(a["noises"][0]), rel=0.3)
    with pytest.raises(ValueError, match="measurements takes no --dataset: it shows observations"):
        measurements.compute(QUICK)


def test_total_variation_and_what_is_possible_by_hand() -> None:
    import torch

    shares = torch.tensor([[0.5, 0.4995, 0.0005, 0.0], [0.0, 0.0, 0.25, 0.75]], dtype=torch.float64)
    assert measurements.possible(shares).tolist() == [[True, True, False, False], [False, False, True, True]]
    index = torch.tensor([[0, 0, 1, 3], [3, 3, 3, 2]])
    assert measurements.distances(index, shares).tolist() == pytest.approx([0.25, 0.0], abs=1e-12)


def test_theories_takes_no_data() -> None:
    with pytest.raises(ValueError, match="theories takes no --dataset: it shows a study of digits, faces and emoji"):
        theories.compute(QUICK)


def test_generalise_takes_no_data() -> None:
    with pytest.raises(ValueError, match="generalise takes no --dataset: it shows a study of digits and emoji"):
        generalise.compute(QUICK)


def test_networks_are_trained_once(
    networks: Config, of_fewstep: dict, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that a figure needs comes with the toolkit or is in the cache now; nothing is trained again; without what
    comes with it, what differs is."""
    capfd.readouterr()
    prepare(networks, ("toy", "digits"), ("toy", "digits"))
    assert "training" not in capfd.readouterr().err
    monkeypatch.setattr("figures.networks.names", list)
    prepare(dataclasses.replace(networks, seed=1), ("toy", "digits"))
    shown = capfd.readouterr().err
    assert "training 2 networks: 100%" in shown
    assert "300/300" in shown


@pytest.mark.parametrize("name", ["trained", "students", "samples", "fewstep"])
def test_figures_of_presets_take_no_data(name: str) -> None:
    with pytest.raises(ValueError, match=r"presets? (toy|digits)"):
        FIGURES[name].compute(QUICK)


@pytest.mark.parametrize("name", [name for name in FIGURES if name != "fig1"])
def test_every_figure_shows_what_is_saved_beside_it(name: str, request: pytest.FixtureRequest) -> None:
    """Every array as the curve, band, image or word that it is, once, in the style of its legend; no text cut off."""
    arrays = request.getfixturevalue(f"of_{name}")
    panels, legend, unseen = shown(name, arrays)
    assert not unseen
    figure = FIGURES[name].draw(arrays)
    assert differences(figure, panels, legend) == []
    assert faults(figure) == []


def test_points_of_the_users(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Points in the plane, in units of their own, through the command line."""
    path = tmp_path / "points.npy"
    np.save(path, (300 * np.random.default_rng(0).standard_normal((40, 2))).astype(np.float32))
    common = ["--dataset", str(path), "--option", "value_range=None", "--quick", "--out", str(tmp_path)]
    assert main(["border", *common]) == 0
    assert "points.npy: N = 40, shape 2" in capsys.readouterr().out
    with np.load(tmp_path / "border-points-npy-value_range-None-quick.npz") as arrays:
        assert 10 < float(arrays["1_border"]) < 1000
    for name in ("trajectories", "distilled"):
        assert main([name, *common]) == 2
        assert f"{name} draws images" in capsys.readouterr().err
    assert main(["prop4", "grids", *common]) == 0
    with np.load(tmp_path / "prop4-points-npy-value_range-None-quick.npz") as arrays:
        assert arrays["1_source"][-1, 0] == 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "fig1"),
        ({"quick": True}, "fig1-quick"),
        ({"seed": 3}, "fig1-seed-3"),
        ({"dataset": "digits"}, "fig1-digits"),
        ({"dataset": "/a/b/ffhq-64x64.zip", "option": ("n=100",)}, "fig1-ffhq-64x64-zip-n-100"),
        ({"dataset": "../Bilder älter/"}, "fig1-Bilder-älter"),
        ({"dataset": ".."}, "fig1-data"),
    ],
)
def test_only_the_gallery_has_the_figures_own_name(options: dict, expected: str) -> None:
    assert stem("fig1", Config(**options)) == expected


def test_names_are_short_and_apart() -> None:
    long = [stem("fig1", Config(dataset="x" * 200, option=(f"n={n}",))) for n in (10, 11)]
    assert len(set(long)) == 2
    assert all(len(name) <= 80 for name in long)


def test_how_long_it_takes_is_said_first(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is drawn, for data of one's own by what a call takes; what is short is not announced."""
    order: list[str] = []
    monkeypatch.setattr("figures.waiting.pace_of_the_optimum", lambda D, rows, span: Pace(0.01, 0.001))
    monkeypatch.setattr("figures.waiting.slowness", lambda: 1.0)
    monkeypatch.setattr("figures.__main__.make", lambda name, _: order.append(capfd.readouterr().err) or name)
    np.save(tmp_path / "images.npy", np.zeros((2000, 3, 64, 64), np.uint8))
    command = ["--dataset", str(tmp_path / "images.npy"), "--out", str(tmp_path)]
    assert (
        main(["steps", *command])
        == main(["trajectories", "--dataset", "digits", "--quick", "--out", str(tmp_path)])
        == 0
    )
    assert re.search(r"this will take about \d+ (s|min)", order[0])
    assert order[1] == ""
    for name, module in FIGURES.items():
        assert seconds(name, module, Config(quick=True)) < seconds(name, module, Config())
        if hasattr(module, "rows"):
            assert module.rows(True, 10**5) < module.rows(False, 10**5)
            assert seconds(name, module, Config(dataset=str(tmp_path / "images.npy"))) > 10


def test_figures_drawn_together_are_those_drawn_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    together, alone = (dataclasses.replace(QUICK, out=tmp_path / name) for name in ("together", "alone"))
    make_together(["fig1", "trajectories", "explore"], together)
    shown = capfd.readouterr()
    assert all(f"{name}: {tmp_path}" in shown.out for name in ("fig1", "trajectories", "explore"))
    assert "figures: 100%" in shown.err
    assert "3/3" in shown.err
    assert "fig1: " in make("fig1", alone)
    file = f"{stem('fig1', QUICK)}.npz"
    with np.load(together.out / file) as theirs, np.load(alone.out / file) as ours:
        assert theirs.files == ours.files
        for name in ours.files:
            if ours[name].dtype.kind == "f":
                np.testing.assert_allclose(theirs[name], ours[name], rtol=1e-4, atol=1e-4)
    # What one of them has to say ends all, in its words.
    with pytest.raises(ValueError, match="unknown data set 'nowhere'"):
        make_together(["fig1", "trajectories"], dataclasses.replace(together, dataset="nowhere", option=()))


def test_the_gallery_is_drawn_in_its_order_and_waits_for_networks_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    monkeypatch.setattr("figures.__main__.make_together", lambda names, *_: order.extend(names))
    monkeypatch.setattr("figures.__main__.prepare", lambda *_: order.append("networks"))
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert main(["all", "--out", str(tmp_path)]) == 0
    assert [name for name in order if name in FIGURES] == list(FIGURES)
    assert order[0] == "fig1"
    assert order.index("networks") == order.index("trained") - 1
    order.clear()
    assert main(["all", "--dataset", "digits", "--out", str(tmp_path)]) == 0
    assert order == [
        name
        for name in [*FIGURES, "explore"]
        if name
        not in (
            *("trained", "generalise", "students", "difficulty"),
            *("samples", "fewstep", "guidance", "measurements", "theories"),
        )
    ]
    gallery = (Path(__file__).parents[1] / "docs" / "gallery.md").read_text()
    assert list(dict.fromkeys(re.findall(r"python -m figures (\w+)`\*\*", gallery))) == list(FIGURES)[1:]


@pytest.mark.parametrize("name", [name for name, module in FIGURES.items() if hasattr(module, "OWN")])
def test_a_figure_of_its_own_data_says_so_before_any_work(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--dry-run"]):
        assert main([name, "--dataset", "digits", *words]) == 2
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err.startswith(f"error: {name} takes no --dataset: it shows ")
