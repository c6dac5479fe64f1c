"""What may surround a call, what may be asked under it, and how far the answers may be off.

`SURROUNDINGS` are contexts: autocast, a default dtype, a precision of products, threads, a grad mode. `QUESTIONS` ask
the same in another way: in other batches, another order, layout or dtype, of a copy. A `Case` is what is promised of
one implementation: it makes a denoiser, asks it, and knows the right answers, which are those of float64 by direct
differences, or, of landings, those of a plain call in float64.

The promises, each stated once here:

    mean                    1e-5 relative, and 4 times its own estimate     tests/test_exactness.py, `error_estimate`
    log weights             1e-3 nats within 20 of the leader               tests/test_exactness.py
    log density             1e-6 relative or 1e-3 nats                      tests/test_exactness.py
    entropy                 1e-4 nats                                       tests/test_exactness.py
    variance                2e-4 σ²                                         `Posterior.variance`
    covariance product      2e-4 σ² ‖v‖                                     `OptimalDenoiser.covariance_product`
    gradient                2e-4 ‖v‖                                        the same over σ²
    leader                  within 1e-3 nats of the first                   the log weights'
    landings, nearest       equal
    float64 x               1e-4 of all these                               "answered in float64 throughout"
    error bound             at least the error                              "proven"
"""

from __future__ import annotations

import contextlib
import copy
import functools
import pickle
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from problems import absolute_error, density_error, log_weight_error, reference_posterior, row_error
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from optimal import OptimalDenoiser

__all__ = [
    "QUESTIONS",
    "SURROUNDINGS",
    "Answers",
    "Asked",
    "Case",
    "Products",
    "check_sums",
    "plainly",
    "precision_tree",
    "precisions",
    "right_sums",
    "sums",
]

Answers = dict[str, Tensor]
SOME = 24
"""Rows that are asked where their number does not matter."""
_BACKENDS: tuple[Any, ...] = (torch.backends.mkldnn.matmul, torch.backends.cuda.matmul)  # pyright: ignore


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def products(precision: str) -> Iterator[None]:
    before, *each = precisions()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        for backend, precision in zip(_BACKENDS, each, strict=True):
            backend.fp32_precision = precision


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


SURROUNDINGS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "autocast bfloat16": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast float16": lambda: torch.autocast("cpu", torch.float16),
    "default dtype float64": lambda: default_dtype(torch.float64),
    # Stands for a default device of cuda: what is put on it by mistake fails.
    "default device": lambda: torch.device("meta"),
    "products high": lambda: products("high"),
    "products medium": lambda: products("medium"),
    "one thread": lambda: threads(1),
    "two threads": lambda: threads(2),
    "no_grad": torch.no_grad,
    "inference mode": torch.inference_mode,
}


def precisions() -> tuple[str, ...]:
    """All that says how float32 products are made."""
    return torch.get_float32_matmul_precision(), *(backend.fp32_precision for backend in _BACKENDS)


def precision_tree(branch: int) -> list[tuple[Callable[[], str], Callable[[str], object]]]:
    """How the precision is read and set: of all products, of those of a backend, of its matrix products."""
    backends: Any = torch.backends
    mkldnn, levels = backends.mkldnn, [backends, (backends.mkldnn, backends.cudnn)[branch], _BACKENDS[branch]]

    def write(level: Any, value: str) -> None:
        if level is mkldnn:
            # Its attribute sets all backends.
            mkldnn.set_flags(_fp32_precision=value)
        else:
            level.fp32_precision = value

    return [(lambda level=level: level.fp32_precision, functools.partial(write, level)) for level in levels]


class Products(TorchDispatchMode):
    """Watches every matrix product: of which dtype it is, and which precision was set for it.

    Attributes:
        seen: (dtype, precision of the CPU's products, of CUDA's) of all of them.
    """

    _NAMES = ("mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot")

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[Any, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__.split(".")[0] in self._NAMES:
            self.seen.add((args[-1].dtype, *precisions()[1:]))
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class Asked:
    """A question, as it was asked.

    Attributes:
        rows: (b,) which rows of the case's x.
        x: (b, *event) what was given for them.
        answers: in the order of `rows`, with points numbered as in the case's data.
    """

    rows: Tensor
    x: Tensor
    answers: Answers


@dataclass(frozen=True, eq=False)
class Case:
    """A promise of one implementation.

    Attributes:
        name: of it.
        data: () -> the data.
        make: data -> the denoiser.
        ask: (D, x (b, *event), sigma (b,)) -> answers, a row each.
        x: (B, *event) float32 queries.
        sigma: (B,) float64.
        right: (x, sigma) -> the right answers, x in float64.
        check: (answers, right, x, sigma) -> None; fails where they are too far apart.
        grad: whether it needs gradients.
    """

    name: str
    data: Callable[[], Tensor]
    make: Callable[[Any], OptimalDenoiser]
    ask: Callable[[OptimalDenoiser, Tensor, Tensor], Answers]
    x: Tensor
    sigma: Tensor
    right: Callable[[Tensor, Tensor], Answers]
    check: Callable[[Answers, Answers, Tensor, Tensor], None]
    grad: bool = False

    def __repr__(self) -> str:
        return self.name

    @functools.cached_property
    def expected(self) -> Answers:
        return self.right(self.x.double(), self.sigma)

    def fresh(self) -> OptimalDenoiser:
        """A denoiser that has answered nothing yet."""
        return self.make(self.data())

    def holds(self, asked: Asked) -> None:
        sigma = self.sigma[asked.rows]
        same = torch.equal(asked.x.double(), self.x[asked.rows].double())
        if same:
            right = {name: values[asked.rows] for name, values in self.expected.items()}
        else:
            right = self.right(asked.x.double(), sigma)
        assert asked.answers, "nothing was answered"
        self.check(asked.answers, right, asked.x, sigma)


def _some(case: Case) -> Tensor:
    return torch.arange(min(len(case.x), SOME), device="cpu")


def plainly(case: Case, D: OptimalDenoiser) -> Asked:
    """The first rows of a case, as they are."""
    return _part(case, _some(case), D)


def _part(case: Case, rows: Tensor, D: OptimalDenoiser | None = None, x: Tensor | None = None) -> Asked:
    x = case.x[rows] if x is None else x
    return Asked(rows, x, case.ask(case.fresh() if D is None else D, x, case.sigma[rows]))


def _batch(case: Case, size: int) -> Asked:
    D, count = case.fresh(), min(len(case.x), 8 if size == 1 else size)
    parts = [_part(case, rows, D) for rows in torch.arange(count).split(size)]
    answers = {name: torch.cat([part.answers[name] for part in parts]) for name in parts[0].answers}
    return Asked(torch.arange(count), case.x[:count], answers)


def _rows_shuffled(case: Case) -> Asked:
    return _part(case, _some(case)[torch.randperm(len(_some(case)), generator=torch.Generator().manual_seed(1))])


_POINTS = ("leader", "index", "nearest")


def _data_shuffled(case: Case) -> Asked:
    data = case.data()
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(2))
    rows = _some(case)
    asked = _part(case, rows, case.make(data[order]))
    answers = dict(asked.answers)
    for name in _POINTS:
        if name in answers:
            found = answers[name]
            answers[name] = torch.where(found < 0, found, order[found.clamp_min(0)])
    if "weights" in answers:
        answers["weights"] = answers["weights"][:, order.argsort()]
    return Asked(rows, asked.x, answers)


def _not_contiguous(case: Case) -> Asked:
    rows = _some(case)
    x = torch.stack([case.x[rows], -case.x[rows]], dim=-1)[..., 0]
    assert not x.is_contiguous() or x.numel() == 1
    return _part(case, rows, x=x)


def _expanded(case: Case) -> Asked:
    rows = torch.full((5,), min(2, len(case.x) - 1))
    return _part(case, rows, x=case.x[rows[:1]].expand(5, *case.x.shape[1:]))


def _dtype(case: Case, dtype: torch.dtype) -> Asked:
    rows = _some(case)
    return _part(case, rows, x=case.x[rows].to(dtype))


def _pickled(case: Case) -> Asked:
    return _part(case, _some(case), pickle.loads(pickle.dumps(case.fresh())))


def _copied(case: Case) -> Asked:
    return _part(case, _some(case), copy.deepcopy(case.fresh()))


QUESTIONS: dict[str, Callable[[Case], Asked]] = {
    "batches of 1": lambda case: _batch(case, 1),
    "a batch of 64": lambda case: _batch(case, 64),
    "a batch of 65": lambda case: _batch(case, 65),
    "a batch of 500": lambda case: _batch(case, 500),
    "rows shuffled": _rows_shuffled,
    "data shuffled": _data_shuffled,
    "not contiguous": _not_contiguous,
    "expanded": _expanded,
    "float16": lambda case: _dtype(case, torch.float16),
    "bfloat16": lambda case: _dtype(case, torch.bfloat16),
    "float64": lambda case: _dtype(case, torch.float64),
    "pickled": _pickled,
    "deep-copied": _copied,
}


def directions(x: Tensor) -> Tensor:
    """A v for every row: some function of its values, so that it goes with them wherever they go."""
    v = torch.sin(1e3 * x.double().flatten(1)).roll(1, 1) + 0.1
    return (v / v.norm(dim=1, keepdim=True)).reshape(x.shape)


def sums(D: OptimalDenoiser, x: Tensor, sigma: Tensor, *, weights: bool = True) -> Answers:
    """All that one pass or two over the data answer."""
    post, v = D.posterior(x, sigma), directions(x).to(x.dtype)
    z, levels = D.query(x, sigma)
    found = {
        "mean": post.mean,
        "call": D(x, sigma),
        "average": D.points.restored(D.evaluator.moments(z, levels, single=x.dtype != torch.float64).average),
        "bound": post.error_bound,
        "estimate": post.error_estimate,
        "log density": post.log_density,
        "entropy": post.entropy,
        "leader": post.top_index,
        "top weight": post.top_weight,
        "variance": post.variance,
        "covariance product": D.covariance_product(x, sigma, v),
        "score": D.score(x, sigma),
    }
    if weights:
        found["weights"] = D.weights(x, sigma)
    if not torch.is_inference_mode_enabled():
        with torch.enable_grad():
            y = x.detach().clone().requires_grad_()
            found["gradient"] = torch.autograd.grad((D(y, sigma) * v).sum(), y)[0]
    return found


def right_sums(points: Tensor) -> Callable[[Tensor, Tensor], Answers]:
    """The right answers to `sums` over the points, (N, *event)."""
    flat = points.double().flatten(1)

    def right(x: Tensor, sigma: Tensor) -> Answers:
        reference = reference_posterior(points, x, sigma)
        weights, mean = reference.log_weights.exp(), reference.mean.flatten(1)
        v = directions(x).flatten(1)
        along = v @ flat.T - (v * mean).sum(1, keepdim=True)
        product = ((weights * along) @ flat - (weights * along).sum(1, keepdim=True) * mean).reshape(x.shape)
        return {
            "mean": reference.mean,
            "log density": reference.log_density,
            "entropy": reference.entropy,
            "variance": reference.variance,
            "log weights": reference.log_weights,
            "covariance product": product,
        }

    return right


def check_sums(found: Answers, right: Answers, x: Tensor, sigma: Tensor) -> None:
    """Every promise of the sums, for x in its dtype."""
    # Results in the dtype of x are rounded to it.
    rounding = torch.finfo(x.dtype).eps if x.dtype != torch.float32 else 0.0
    precise = x.dtype == torch.float64
    exact = 1e-4 if precise else 1.0
    logs, mean, variance = right["log weights"], right["mean"], right["variance"]
    lengths = mean.flatten(1).norm(dim=1)
    near = 1e-5 * exact + 4 * found["estimate"].nan_to_num(nan=0.0)
    turned = right["covariance product"].flatten(1)

    def off(name: str, scale: Tensor | float = 1.0) -> Tensor:
        return (found[name].double().flatten(1) - turned * scale).norm(dim=1)

    # v is rounded to the dtype of x as well; ‖Cov‖ is at most the variance.
    spread = 2e-4 * exact * sigma.square() + rounding * (turned.norm(dim=1) + variance)
    score = (mean - x.double()).flatten(1) / sigma.square()[:, None]
    errors = {
        "mean": row_error(found["mean"], mean) / (near + rounding),
        "call": row_error(found["call"], mean) / (near + rounding),
        "log density": density_error(found["log density"], right["log density"]) / exact,
        "entropy": absolute_error(found["entropy"], right["entropy"]) / (1e-4 * exact),
        "variance": absolute_error(found["variance"], variance) / (2e-4 * exact * sigma.square() + 1e-9 * variance),
        "leader": (logs.amax(1) - logs.gather(1, found["leader"][:, None])[:, 0]) / (1e-3 * exact),
        "top weight": absolute_error(found["top weight"].log(), logs.amax(1)) / (1e-3 * exact),
        "covariance product": off("covariance product") / spread,
        "score": (found["score"].double().flatten(1) - score).norm(dim=1)
        / (near * lengths / sigma.square() + (1e-6 + rounding) * score.norm(dim=1)),
    }
    half = x.dtype in (torch.float16, torch.bfloat16)
    if "weights" in found:
        within = 4.0 if half else 20.0
        limit = 1e-3 * exact + 2 * rounding
        errors["weights"] = log_weight_error(found["weights"], logs, within) / limit
    if "gradient" in found:
        errors["gradient"] = off("gradient", 1 / sigma.square()[:, None]) / (spread / sigma.square())
    for name, error in errors.items():
        worst = int(error.nan_to_num(nan=torch.inf).argmax())
        assert error[worst] <= 1, f"{name} is {error[worst]:.3g} times its promise off at sigma = {sigma[worst]:g}"
    proven = ~found["bound"].isnan()
    error = row_error(found["average"], mean)
    # The reference itself is right to about 1e-13.
    assert (error[proven] <= found["bound"][proven] + 1e-12).all(), "the proven bound is false"
    for name in ("log density", "entropy", "top weight", "variance", "bound"):
        assert found[name].dtype == torch.float64, name
    for name in ("mean", "call", "covariance product", "score"):
        assert found[name].dtype == x.dtype, name
