"""The optimum of a class, without a point, of smoothed data: each against the data that it stands for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from optimal import Dataset, FlowMap, OptimalDenoiser, guided, load

Normal = Callable[..., Tensor]

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # torch.func.jvp's own.
LABELS = np.array([4, 7, 4, 4, 9, 7] * 10)


def labelled(data: Tensor, labels: np.ndarray = LABELS) -> Dataset:
    return Dataset("some", data.float().numpy(), labels)


@pytest.fixture
def data(normal: Normal) -> Dataset:
    return labelled(normal(60, 63))


def test_a_class_is_its_points(data: Dataset, method: str, normal: Normal) -> None:
    D, x = OptimalDenoiser(data, method=method), normal(5, 63)
    assert D.classes.tolist() == [4, 7, 9]
    for label in (4, 7, 9):
        own = torch.from_numpy(np.flatnonzero(data.labels == label))
        part, of_class = OptimalDenoiser(data.points[own], method="dense"), D.given(label)
        found, expected = of_class.posterior(x, 4.0), part.posterior(x, 4.0)
        assert (found.mean - expected.mean).abs().max() <= 1e-12
        assert (found.log_density - expected.log_density).abs().max() <= 1e-10
        assert torch.equal(found.top_index, own[expected.top_index])
        assert of_class is D.given(torch.tensor(label))
        assert torch.equal(FlowMap(of_class).index(x, 4.0), own[FlowMap(part).index(x, 4.0)])


def test_a_label_a_row(data: Dataset, normal: Normal) -> None:
    D, x = OptimalDenoiser(data), normal(7, 63)
    labels, sigmas = torch.tensor([7, 4, 9, 4, 7, 7, 4]), torch.linspace(0.5, 6.0, 7)
    G = D.given(labels)
    rows = [D.given(int(label)).posterior(x[b : b + 1], float(sigmas[b])) for b, label in enumerate(labels)]
    found = G.posterior(x, sigmas)
    for name in ("mean", "log_density", "entropy", "top_index", "top_weight", "variance"):
        expected = torch.cat([getattr(row, name) for row in rows])
        assert (getattr(found, name) - expected).abs().max() <= 1e-11, name
    assert torch.equal(G(x, sigmas), found.mean)
    scores = torch.cat([D.given(int(c)).score(x[b : b + 1], float(sigmas[b])) for b, c in enumerate(labels)])
    assert (G.score(x, sigmas) - scores).abs().max() <= 1e-12
    assert D.given(labels[:0])(x[:0], 1.0).shape == (0, 63)
    assert D.given(labels[:0]).posterior(x[:0], 1.0).entropy.shape == (0,)
    with pytest.raises(ValueError, match="labels must be one a row: 7 of them for 3 rows"):
        G(x[:3], 1.0)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(G.posterior(x, sigmas).log_density.sum(), x)
    assert (gradient - G.score(x.detach(), sigmas)).abs().max() <= 1e-12


@pytest.mark.parametrize("sigma", [0.02, 1.0, 4.0, 50.0])
def test_the_classes_make_up_the_whole(data: Dataset, method: str, sigma: float, normal: Normal) -> None:
    a = 2 * normal(60)
    for D in (OptimalDenoiser(data, method=method), OptimalDenoiser(data, method=method).weighted(a)):
        x = (data.points[:6].double() + sigma * normal(6, 63)).requires_grad_()
        found = D.by_class(x, sigma)
        shares = found.log_probabilities.exp()
        assert found.classes.tolist() == [4, 7, 9]
        assert (shares.sum(1) - 1).abs().max() <= 1e-14
        assert ((shares[..., None] * found.means).sum(1) - D(x, sigma)).abs().max() <= 1e-12
        weights = D.weights(x.detach(), sigma)
        own = torch.stack([weights[:, torch.from_numpy(data.labels == c)].sum(1) for c in (4, 7, 9)], 1)
        # Log densities of this size are known to so many digits.
        assert (shares - own).abs().max() <= 1e-12 * (1 + 63 / sigma**2)
        (gradient,) = torch.autograd.grad(D.class_log_probabilities(x, sigma)[:, 1].sum(), x)
        expected = (D.given(7)(x, sigma) - D(x, sigma)) / sigma**2
        assert (gradient - expected).abs().max() <= 1e-11 * (1 + 1 / sigma**2)


def test_guidance_of_a_class_is_what_the_posterior_says(data: Dataset, normal: Normal) -> None:
    """D_c + (w − 1)(1 − P(c|x))(D_c − D_¬c)."""
    D, x = OptimalDenoiser(data), normal(4, 63)
    others = D.weighted(torch.where(D.labels == 7, -torch.inf, 0.0))
    found = D.by_class(x, 4.0)
    rest = 1 - found.log_probabilities[:, 1:2].exp()
    expected = found.means[:, 1] + 2.0 * rest * (found.means[:, 1] - others(x, 4.0))
    assert (guided(D.given(7), D, weight=3.0)(x, 4.0) - expected).abs().max() <= 1e-12
    assert (guided(D.given(torch.full((4,), 7)), D, weight=3.0)(x, 4.0) - expected).abs().max() <= 1e-12


def test_merging_classes_and_classes_of_one(normal: Normal) -> None:
    points, x = normal(6, 3), normal(5, 3)
    apart = OptimalDenoiser(labelled(points, np.arange(6)))
    for c in range(6):
        assert (apart.given(c)(x, 1.0) - points[c].float()).abs().max() <= 1e-15
    merged = OptimalDenoiser(labelled(points, np.arange(6) // 2))
    log_p = apart.class_log_probabilities(x, 1.0)
    pairs = torch.logaddexp(log_p[:, ::2], log_p[:, 1::2])
    assert (merged.class_log_probabilities(x, 1.0) - pairs).abs().max() <= 1e-13
    # Two points ±u: P is logistic in 2⟨x, u⟩/σ².
    u = normal(1, 3).float().double()
    two = OptimalDenoiser(labelled(torch.cat([-u, u]), np.arange(2)))
    expected = torch.nn.functional.logsigmoid(2 * (x @ u.T) / 0.25)
    assert (two.class_log_probabilities(x, 0.5)[:, 1:] - expected).abs().max() <= 1e-12


def test_classes_of_images_from_a_map(tmp_path: Path, normal: Normal) -> None:
    digits = load("digits")
    np.save(tmp_path / "digits.npy", digits.array)
    mapped = Dataset("mapped", np.load(tmp_path / "digits.npy", mmap_mode="r"), digits.labels)
    D, M = OptimalDenoiser(digits), OptimalDenoiser(mapped, memory=20_000)
    assert M.points.streamed
    x, labels = normal(6, 1, 8, 8).float(), torch.tensor([3, 1, 4, 1, 5, 9])
    for sigma in (0.1, 2.0):
        alone = torch.cat([D.given(int(c))(x[b : b + 1], sigma) for b, c in enumerate(labels)])
        assert (M.given(labels)(x, sigma) - alone).abs().max() <= 1e-5
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert (D.given(labels)(x, sigma) - alone).abs().max() <= 1e-5
        shares = D.class_log_probabilities(x, sigma)
        assert shares.shape == (6, 10)
        assert (D.class_log_probabilities(x.double(), sigma) - shares).abs().max() <= 1e-2


def test_labels_that_are_no_classes(normal: Normal) -> None:
    points = normal(4, 3)
    one_hot = OptimalDenoiser(labelled(points, np.eye(4, dtype=np.float32)[[2, 2, 0, 1]]))
    assert one_hot.labels.tolist() == [2, 2, 0, 1]
    for labels, message in [
        (None, "some has no labels"),
        (np.full((4, 2), 0.5, dtype=np.float32), r"whole numbers or one-hot to be classes, got float32 \(4, 2\)"),
        (np.zeros(4, dtype=np.float32), "whole numbers or one-hot"),
    ]:
        with pytest.raises(ValueError, match=message):
            OptimalDenoiser(Dataset("some", points.float().numpy(), labels)).given(0)
    with pytest.raises(ValueError, match="data without labels have no classes"):
        OptimalDenoiser(points).class_log_probabilities(points, 1.0)
    for label in (3, torch.tensor([0, 3])):
        with pytest.raises(ValueError, match="there are no points of class 3, the classes are 0, 1, 2"):
            one_hot.given(label)
    for label in (0.5, True, torch.tensor([True]), torch.tensor([0.0]), "0"):
        with pytest.raises(ValueError, match="labels must be a whole number, or a tensor"):
            one_hot.given(label)  # pyright: ignore
    with pytest.raises(ValueError, match=r"got shape \(1, 2\)"):
        one_hot.given(torch.zeros(1, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="there are no points of class 2, the classes are 0, 1"):
        one_hot.weighted(torch.tensor([-torch.inf, -torch.inf, 0.0, 0.0])).given(2)
    beyond = labelled(points, np.array([0, 1, 2, 2**63], dtype=np.uint64))
    with pytest.raises(ValueError, match="must be below 2⁶³, got 9223372036854775808"):
        OptimalDenoiser(beyond).given(0)


def test_classes_and_places_as_numpy_has_them(data: Dataset, normal: Normal) -> None:
    D, x = OptimalDenoiser(data), normal(5, 63)
    for one in (np.int64(7), np.uint8(7), np.array(7), torch.tensor(7)):
        assert torch.equal(D.given(one)(x, 3.0), D.given(7)(x, 3.0))
        assert torch.equal(D.without(one)(x, 3.0), D.without(7)(x, 3.0))
    assert data.labels is not None
    some = data.labels[:5]
    assert torch.equal(D.given(some)(x, 3.0), D.given(torch.from_numpy(some))(x, 3.0))
    assert torch.equal(D.without(some.astype(np.int16))(x, 3.0), D.without(torch.from_numpy(some))(x, 3.0))
    for wrong in (np.array([True]), np.array([0.5]), np.bool_(True)):
        with pytest.raises(ValueError, match="labels must be a whole number, or a tensor"):
            D.given(wrong)  # pyright: ignore


def test_all_classes_of_no_rows(data: Dataset) -> None:
    found = OptimalDenoiser(data).by_class(torch.zeros(0, 63), 1.0)
    assert found.means.shape == (0, 3, 63)
    assert found.log_probabilities.shape == (0, 3)


def test_classes_and_observations_under_transforms_where_the_data_are_a_map(tmp_path: Path, normal: Normal) -> None:
    """That the data have not been written to is looked up within `torch.func.jvp`, too."""
    np.save(tmp_path / "points.npy", normal(60, 63).float().numpy())
    D = OptimalDenoiser(Dataset("some", np.load(tmp_path / "points.npy", mmap_mode="r"), LABELS))
    matrix, x, v = normal(2, 63), normal(3, 63), normal(3, 63)
    known = D.measured(matrix, normal(3, 2), 1.0, rows=True)
    for one in (
        lambda z: known(z, 4.0),
        lambda z: D.measured(matrix, torch.zeros(2), 1.0)(z, 4.0),
        lambda z: D.by_class(z, 4.0).log_probabilities,
    ):
        found = torch.func.jvp(one, (x,), (v,))[1]
        assert (found - (one(x + 1e-5 * v) - one(x - 1e-5 * v)) / 2e-5).abs().max() <= 1e-7


@pytest.mark.parametrize("bandwidth", [1e-200, 1e60, 1e200])
def test_bandwidths_whose_squares_are_no_numbers(bandwidth: float, normal: Normal) -> None:
    data, x = normal(9, 63), normal(3, 63)
    S = OptimalDenoiser(data).smoothed(bandwidth)
    if bandwidth == 1e200:
        with pytest.raises(ValueError, match=r"sigma must lie between .* got 1e\+200"):
            S(x, 1.0)
    else:
        # Far above data and noise, x is all that is known; far below, nothing is smoothed.
        expected = OptimalDenoiser(data)(x, 1.0) if bandwidth < 1 else x
        assert (S(x, 1.0) - expected).abs().max() <= 1e-12


@pytest.mark.parametrize("sigma", [1e-3, 0.3, 2.0, 100.0])
@pytest.mark.parametrize("kind", ["float64", "float32", "bytes"])
def test_without_a_point_is_the_data_without_it(normal: Normal, method: str, kind: str, sigma: float) -> None:
    data = normal(40, 1, 7, 9)
    if kind == "bytes":
        data = (60 * data + 127).clamp(0, 255).to(torch.uint8)
    dtype = torch.float64 if kind == "float64" else torch.float32
    clean = data.float().div(127.5).sub(1) if kind == "bytes" else data
    index = torch.tensor([0, 5, 5, 39, 17])
    x = (clean[index].double() + sigma * normal(5, 1, 7, 9)).to(dtype)
    D = OptimalDenoiser(data, method=method)
    L = D.without(index)
    found = L.posterior(x, sigma)
    tolerance = 1e-12 if kind == "float64" else 1e-5
    for b, j in enumerate(index.tolist()):
        kept = torch.arange(40) != j
        part = OptimalDenoiser(data[kept])
        expected = part.posterior(x[b : b + 1], sigma)
        assert (found.mean[b] - expected.mean[0]).abs().max() <= tolerance * 4
        assert (found.log_density[b] - expected.log_density[0]).abs() <= tolerance * found.log_density[
            b
        ].abs().clamp_min(10)
        assert found.top_index[b] == kept.nonzero().squeeze(1)[expected.top_index[0]]
        assert (D.without(j)(x[b : b + 1], sigma) - expected.mean).abs().max() <= tolerance * 4
    assert not (found.top_index == index).any()
    assert torch.equal(L(x, sigma), found.mean)


def test_without_from_the_posterior_where_it_can_be_had(normal: Normal) -> None:
    """(D − w_j y_j)/(1 − w_j), the weight of none near 1; and copies of a point stay."""
    data = normal(30, 4)
    data[7] = data[3]
    a = normal(30)
    for D in (OptimalDenoiser(data), OptimalDenoiser(data).weighted(a)):
        x, index = normal(6, 4), torch.tensor([3, 7, 0, 1, 2, 29])
        weights = D.weights(x, 2.0)
        own = weights.gather(1, index[:, None])
        expected = (D(x, 2.0) - own * data[index]) / (1 - own)
        found = D.without(index).posterior(x, 2.0)
        assert (found.mean - expected).abs().max() <= 1e-13
        log_prior = D.log_weights[index]
        density = D.posterior(x, 2.0).log_density + torch.log1p(-own.squeeze(1)) - torch.log1p(-log_prior.exp())
        assert (found.log_density - density).abs().max() <= 1e-13
    at = data[[3]]
    assert (OptimalDenoiser(data).without(torch.tensor([3]))(at, 1e-3) - at).abs().max() <= 1e-15
    assert OptimalDenoiser(data).without(torch.tensor([3])).posterior(at, 1e-3).top_index.item() == 7


def test_without_in_small_blocks_and_under_transforms(normal: Normal) -> None:
    """A block of the one point that a row does not know has a leader of no account; derivatives follow the rows."""
    data, x = normal(9, 63), normal(9, 63)
    index = torch.arange(9)
    small = OptimalDenoiser(data, memory=1).without(index)
    assert (small(x, 3.0) - OptimalDenoiser(data).without(index)(x, 3.0)).abs().max() <= 1e-12
    two = OptimalDenoiser(data[:2], memory=1).without(torch.tensor([0, 1, 1]))
    assert (two(x[:3], 3.0) - data[[1, 0, 0]]).abs().max() <= 1e-15 * 8
    L = OptimalDenoiser(data).without(index)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(L.posterior(leaf, 3.0).log_density.sum(), leaf)
    assert (gradient - L.score(x, 3.0)).abs().max() <= 1e-12
    v = normal(9, 63)
    (jacobian,) = torch.autograd.grad(L(leaf, 3.0), leaf, v)
    parts = [OptimalDenoiser(data[index != j]).covariance_product(x[j : j + 1], 3.0, v[j : j + 1]) for j in range(9)]
    assert (jacobian * 9 - torch.cat(parts)).abs().max() <= 1e-11
    columns = torch.func.vmap(lambda t: torch.func.jvp(lambda s: L(s, 3.0), (x,), (t,))[1])(torch.stack([v, 2 * v]))
    assert (columns[1] - 2 * jacobian).abs().max() <= 1e-11


def test_without_what_has_nearly_all_of_the_prior() -> None:
    data = torch.tensor([[0.0], [1.0], [5.0]], dtype=torch.float64)
    a = torch.tensor([0.0, -50.0, -60.0], dtype=torch.float64)
    D = OptimalDenoiser(data).weighted(a)
    found = D.without(torch.tensor([0])).posterior(torch.tensor([[0.3]], dtype=torch.float64), 1.0)
    expected = D.without(0).posterior(torch.tensor([[0.3]], dtype=torch.float64), 1.0)
    assert (found.log_density - expected.log_density).abs() <= 1e-12
    assert (found.mean - expected.mean).abs() <= 1e-12
    gone = D.weighted(torch.tensor([0.0, -torch.inf, 0.0]))
    assert torch.equal(gone.without(torch.tensor([1]))(data[:1], 1.0), gone(data[:1], 1.0))


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (60, "index must lie between 0 and 59, got 60"),
        (torch.tensor([0, -1]), "got -1"),
        (0.5, "whole number"),
        (torch.tensor([0.0]), "whole number"),
        (True, "whole number"),
    ],
)
def test_bad_index(data: Dataset, index: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OptimalDenoiser(data).without(index)


def test_nothing_is_left() -> None:
    D = OptimalDenoiser(torch.ones(1, 2))
    for index in (0, torch.tensor([0])):
        with pytest.raises(ValueError, match="at least one point"):
            D.without(index)
    with pytest.raises(ValueError, match="index must be one a row: 1 of them for 2 rows"):
        OptimalDenoiser(torch.eye(2)).without(torch.tensor([0]))(torch.eye(2), 1.0)


def test_smoothed_data_are_the_data_with_noise(normal: Normal) -> None:
    """D_s by quadrature over the noise of one value of each point, and by its score."""
    data, x, s, sigma = normal(4, 1), normal(5, 1), 0.4, 0.7
    D = OptimalDenoiser(data)
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    many = (data + s * torch.from_numpy(nodes)).reshape(-1, 1)
    fine = OptimalDenoiser(many).weighted(torch.from_numpy(weights).log().repeat(4))
    S = D.smoothed(s)
    assert (S(x, sigma) - fine(x, sigma)).abs().max() <= 1e-10
    assert (S.score(x, sigma) - (S(x, sigma) - x) / sigma**2).abs().max() <= 1e-12
    assert (S.log_density(x, sigma) - fine.posterior(x, sigma).log_density).abs().max() <= 1e-10
    assert torch.equal(D.smoothed(0.0)(x, sigma), D(x, sigma))
    # Its flow from σ to 0 is the flow of D from √(σ² + s²) to s.
    ends = FlowMap(D).flow(x, math.hypot(sigma, s), s)
    state, levels = x.clone(), torch.linspace(sigma, 0, 801, dtype=torch.float64).tolist()
    for high, low in itertools.pairwise(levels):
        slope = (state - S(state, high)) / high
        middle = state + (low - high) / 2 * slope
        at = (high + low) / 2
        state = state + (low - high) * (middle - S(middle, at)) / at
    assert (state - ends).abs().max() <= 1e-3
    assert torch.equal(D.tempered(4.0)(x, sigma), D(x, 2 * sigma))
    weights_4 = (D.weights(x, sigma).log() / 4).softmax(1)
    assert (D.tempered(4.0)(x, sigma) - weights_4 @ data).abs().max() <= 1e-12
    for bad in (-1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="bandwidth must be finite and not negative"):
            D.smoothed(bad)
        with pytest.raises(ValueError, match="temperature must be finite and positive"):
            D.tempered(bad)
