"""Bad input to the denoiser: one clear sentence, ValueError, nothing else."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from optimal import OptimalDenoiser

EVENT = (3, 2, 4)
BATCH = 4


@pytest.fixture(scope="module")
def D() -> OptimalDenoiser:
    return OptimalDenoiser(torch.linspace(-1, 1, 5 * 24).reshape(5, *EVENT))


def call(D: OptimalDenoiser, name: str, x: Any, sigma: Any) -> Any:
    if name == "covariance_product":
        return D.covariance_product(x, sigma, x)
    return getattr(D, name)(x, sigma)


@pytest.mark.parametrize("name", ["__call__", "posterior", "score", "weights", "covariance_product"])
@pytest.mark.parametrize(
    ("sigma", "sentence"),
    [
        (0.0, r"sigma must be positive and finite, got 0$"),
        (-1, r"sigma must be positive and finite, got -1$"),
        (math.nan, r"sigma must be positive and finite, got nan$"),
        (math.inf, r"sigma must be positive and finite, got inf$"),
        (torch.tensor([1.0, 2.0, -3.0, 0.0]), r"sigma must be positive and finite, got -3$"),
        (torch.ones(4, 2), r"sigma must have shape \(\) or \(B,\), got \(4, 2\) with B = 4$"),
        (torch.ones(1, 4), r"sigma must have shape \(\) or \(B,\), got \(1, 4\) with B = 4$"),
        (torch.ones(3), r"sigma must have shape \(\) or \(B,\), got \(3,\) with B = 4$"),
        (torch.ones(1), r"sigma must have shape \(\) or \(B,\), got \(1,\) with B = 4$"),
        (torch.ones(4, 1, 2, 1), r"got \(4, 1, 2, 1\) with B = 4$"),
    ],
)
def test_sigma(D: OptimalDenoiser, name: str, sigma: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call(D, name, torch.zeros(BATCH, *EVENT), sigma)


def test_sigma_as_in_edms_loop(D: OptimalDenoiser) -> None:
    """EDM hands its networks sigma as (B, 1, 1, 1)."""
    x, sigma = torch.zeros(BATCH, *EVENT), torch.linspace(0.5, 2.0, BATCH)
    assert torch.equal(D(x, sigma.view(-1, 1, 1, 1)), D(x, sigma))


@pytest.mark.parametrize("name", ["__call__", "posterior", "score", "weights", "covariance_product"])
@pytest.mark.parametrize(
    ("x", "sentence"),
    [
        (torch.zeros(4, 3, 4, 2), r"x must have shape \(B, 3, 2, 4\), got \(4, 3, 4, 2\)$"),
        (torch.zeros(3, 2, 4), r"x must have shape \(B, 3, 2, 4\), got \(3, 2, 4\)$"),
        (torch.zeros(4, 24), r"x must have shape \(B, 3, 2, 4\), got \(4, 24\)$"),
        (torch.zeros(4, *EVENT, dtype=torch.int64), r"x must be floating point, got torch.int64$"),
        (torch.zeros(4, *EVENT, dtype=torch.uint8), r"x must be floating point, got torch.uint8$"),
        (torch.zeros(4, *EVENT).index_fill(0, torch.tensor(2), math.nan), r"x must be finite, row 2 is not$"),
        (torch.zeros(4, *EVENT).index_fill(0, torch.tensor(1), -math.inf), r"x must be finite, row 1 is not$"),
    ],
)
def test_x(D: OptimalDenoiser, name: str, x: torch.Tensor, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call(D, name, x, 1.0)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (torch.empty(0, 2), r"at least one point and one axis, got \(0, 2\)$"),
        (torch.empty(3, 0), r"at least one point and one axis, got \(3, 0\)$"),
        (torch.zeros(3), r"data must have shape \(N, \*event\) .*, got \(3,\)$"),
        (torch.tensor(1.0), r"data must have shape \(N, \*event\) .*, got \(\)$"),
        (torch.zeros(3, 2, dtype=torch.int64), r"data must be floating point, or uint8 for images, got torch.int64$"),
        (torch.zeros(3, 2, dtype=torch.bool), r"data must be floating point, or uint8 for images, got torch.bool$"),
        (torch.tensor([[0.0], [1.0], [math.nan], [math.nan]]), r"data must be finite, point 2 is not$"),
        (torch.tensor([[0.0, 1.0], [math.inf, 1.0]]), r"data must be finite, point 1 is not$"),
        (torch.tensor([[0.0], [1e170]], dtype=torch.float64), r"data must be below 1e150, point 1 is not$"),
    ],
)
@pytest.mark.parametrize("kind", ["tensor", "array"])
def test_data(data: torch.Tensor, kind: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        OptimalDenoiser(data if kind == "tensor" else data.numpy())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"method": "exact"}, r"method must be one of auto, dense, keops, screened, got 'exact'$"),
        ({"memory": 0}, r"memory must be a positive number of bytes, got 0$"),
        ({"memory": -5}, r"memory must be a positive number of bytes, got -5$"),
    ],
)
def test_options(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        OptimalDenoiser(torch.zeros(2, 2), **options)


def test_weights_over_budget() -> None:
    D = OptimalDenoiser(torch.zeros(100, 2), memory=24 * 100 * 3)
    assert D.weights(torch.zeros(3, 2), 1.0).shape == (3, 100)
    with pytest.raises(
        ValueError, match=r"weights of 4 queries over 100 points need 9,600 bytes, over the budget of 7,200"
    ):
        D.weights(torch.zeros(4, 2), 1.0)


def test_direction_of_another_shape(D: OptimalDenoiser) -> None:
    with pytest.raises(ValueError, match=r"v must have the shape of x, \(4, 3, 2, 4\), got \(1, 3, 2, 4\)$"):
        D.covariance_product(torch.zeros(BATCH, *EVENT), 1.0, torch.zeros(1, *EVENT))


@pytest.mark.parametrize(
    "sigma", [2, np.float32(2.0), np.float64(2.0), np.full(4, 2.0), np.array(2.0), torch.tensor(2)]
)
def test_sigma_of_any_kind(D: OptimalDenoiser, sigma: Any) -> None:
    x = torch.linspace(-1, 1, BATCH * 24).reshape(BATCH, *EVENT)
    assert torch.equal(D(x, sigma), D(x, 2.0))


def test_shapes_are_checked_under_pytest(D: OptimalDenoiser) -> None:
    """The import hook of conftest.py is in force: an annotated argument of a wrong shape is refused."""
    with pytest.raises(TypeError, match="index"):
        D.take(torch.zeros(2, 2, dtype=torch.int64))


PLAIN = """
import pickle, sys, json
from types import SimpleNamespace
import numpy as np, torch
from optimal import *
from optimal.span import basis_of
Y = torch.randn(30, 20, generator=torch.Generator().manual_seed(0))
D, x, v, grid = OptimalDenoiser(Y), Y[:2] + 0.1, torch.ones(2, 20), karras(3)
sparse, meta, nested = x.to_sparse(), x.to("meta"), torch.nested.nested_tensor([Y[0], Y[1]])
kept = np.lib.format.open_memmap(sys.argv[1], "w+", np.float32, (30, 20))
kept[:] = Y.numpy()
pickled = pickle.dumps(OptimalDenoiser(np.load(sys.argv[1], mmap_mode="r"), memory=100))
import os; os.remove(sys.argv[1])
found = {}
for line in sys.stdin.read().splitlines():
    try:
        eval(line)
        found[line] = "accepted"
    except Exception as error:
        found[line] = f"{type(error).__name__}: {error}"
print(json.dumps(found))
"""
REFUSED = {
    **dict.fromkeys(
        (
            "D(x.numpy(), 1.0)",
            "D.nearest(x.numpy())",
            "D.two_nearest(x.numpy())",
            "D.neighbours(x.numpy(), 2)",
            "D.weights(x.numpy(), 1.0)",
            "D.covariance_product(x.numpy(), 1.0, v)",
            "sample_in_span(D, x.numpy(), grid)",
            "FlowMap(D)(x.numpy(), 1.0)",
            "FlowMap(D).land(x.numpy(), 1.0)",
            "certify(D, x.numpy(), 1.0)",
        ),
        "x must be a tensor, got ndarray: torch.from_numpy makes one of an array",
    ),
    "sample(D, x.numpy(), grid)": "the start x must be a tensor, got ndarray",
    "D.nearest([1.0])": "x must be a tensor, got list",
    "D.two_nearest(None)": "x must be a tensor, got NoneType",
    **{
        f"D(x, {sigma})": "sigma must be a number or a list, array or tensor of numbers"
        for sigma in (
            "torch.tensor(1 + 5j)",
            "1 + 5j",
            "np.array(1 + 5j)",
            "[1 + 5j, 1.0]",
            "[1.0, np.complex64(1)]",
            "10**400",
        )
    },
    **{f"D({each}, 1.0)": "x must be a dense tensor with values" for each in ("sparse", "meta", "nested")},
    **{f"D.nearest({each})": "x must be a dense tensor with values" for each in ("sparse", "meta", "x.to_mkldnn()")},
    **{
        f"D(x, {each})": "sigma must be a dense tensor with values"
        for each in ("torch.ones(2).to_sparse()", "torch.ones(2, device='meta')")
    },
    **{
        f"OptimalDenoiser({each})": "data must be a dense tensor with values"
        for each in ("sparse", "Y.to_sparse_csr()", "Y.to_mkldnn()", "meta", "nested")
    },
    **{
        f"OptimalDenoiser({each})": "data must be floating point, or uint8 for images, got "
        for each in (
            "Y.numpy().astype(np.longdouble)",
            "Y.numpy().astype(object)",
            "np.full((3, 2), 'a')",
            "np.zeros((3, 2), 'datetime64[s]')",
            "np.zeros((3, 2), [('a', 'f4')])",
            "Y.numpy().astype(complex)",
            "np.zeros((3, 2), np.uint16)",
        )
    },
    **{
        f"OptimalDenoiser(Y, memory={each})": "memory must be a "
        for each in ("'1GB'", "None", "float('nan')", "float('inf')", "1.5", "True", "0", "[1]")
    },
    **{
        f"OptimalDenoiser(Y, tolerance={each})": "tolerance must be "
        for each in ("'x'", "None", "True", "0.0", "float('nan')", "1j")
    },
    **{f"OptimalDenoiser(Y, certified={each})": "certified must be True or False" for each in ("'yes'", "None", "1")},
    "D.covariance_product(x, 1.0, v * float('nan'))": "v must be finite, row 0 is not",
    "D.covariance_product(x, 1.0, v.numpy())": "v must be a real tensor, got ndarray",
    "D.covariance_product(x, 1.0, None)": "v must be a real tensor, got NoneType",
    "D.covariance_product(x, 1.0, v + 1j)": "v must be a real tensor, got torch.complex64",
    "D.covariance_product(x, 1.0, v.to_sparse())": "v must be a dense tensor with values",
    "D.take(torch.tensor([-1]))": "index must lie between 0 and 29, got -1",
    "D.take(torch.tensor([30]))": "index must lie between 0 and 29, got 30",
    "D.take([1])": "index must be a tensor of whole numbers, got list",
    "D.take(np.array([1]))": "index must be a tensor of whole numbers, got ndarray",
    "D.take(torch.tensor([1.0]))": "index must be a tensor of whole numbers, got torch.float32",
    "D.take(torch.tensor(1))": "index must have shape (B,), got ()",
    "sample_in_span(D, x, grid, tolerance='a')": "tolerance must be a number, got 'a'",
    "sample_in_span(D, x, grid, rank='a')": "rank must be a whole number, got 'a'",
    "sample_in_span(D, x, grid, rank=1.5)": "rank must be a whole number, got 1.5",
    "basis_of(D, 1.5)": "rank must be a whole number, got 1.5",
    "FlowMap(D, tolerance='a')": "tolerance must be a number, got 'a'",
    "D.neighbours(x, 'a')": "count must be a whole number, got 'a'",
    "D.neighbours(x, 1.5)": "count must be a whole number, got 1.5",
    "load(None)": "a data set must be named, or given by the path of a file or folder, got None",
    "load(3)": "a data set must be named, or given by the path of a file or folder, got 3",
    "load(b'digits')": "a data set must be named, or given by the path of a file or folder, got b'digits'",
    "pickle.loads(pickled)": "the data must be where they were saved from, there is no file ",
}


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What is said outside pytest, where nothing checks annotations."""
    path = tmp_path_factory.mktemp("data") / "data.npy"
    command = [sys.executable, "-W", "ignore", "-c", PLAIN, str(path)]
    done = subprocess.run(command, input="\n".join(REFUSED), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("line", REFUSED)
def test_one_sentence_outside_pytest(refusals: dict[str, str], line: str) -> None:
    assert refusals[line].startswith(f"ValueError: {REFUSED[line]}"), refusals[line]
    assert "\n" not in refusals[line]


def test_numbers_of_other_types_are_taken() -> None:
    data = torch.randn(30, 20, generator=torch.Generator().manual_seed(0))
    D = OptimalDenoiser(data, memory=np.int64(2**24), tolerance=np.float32(1e-3), certified=np.bool_(True))
    assert D.evaluator.accuracy.memory == 2**24
    assert isinstance(OptimalDenoiser(data, memory=1e8).evaluator.accuracy.memory, int)  # pyright: ignore
    assert torch.equal(D.take(torch.tensor([3, 0], dtype=torch.int32)), data[[3, 0]])
