"""Solvers by name."""

from __future__ import annotations

import dataclasses
import difflib
from typing import Any, get_type_hints

from ..converted import converted
from .consistency import Consistency
from .dpm_solver import DPMSolver
from .dpm_solver_pp import DPMSolverPP
from .edm_stochastic import EDMStochastic
from .euler import Euler
from .heun import Heun
from .reverse_sde import ReverseSDE
from .sde_dpm_solver_pp import SDEDPMSolverPP
from .solver import Solver
from .unipc import UniPC

__all__ = ["SOLVERS", "solver_of"]

SOLVERS: dict[str, type[Solver]] = {
    "euler": Euler,
    "heun": Heun,
    "edm_stochastic": EDMStochastic,
    "dpm_solver": DPMSolver,
    "dpm_solver_pp": DPMSolverPP,
    "unipc": UniPC,
    "sde_dpm_solver_pp": SDEDPMSolverPP,
    "reverse_sde": ReverseSDE,
    "consistency": Consistency,
}
_ELSEWHERE = {
    "ddim": '"euler"',
    "ddpm": '"euler" with eta=1',
    "euler_a": '"euler" with eta=1',
    "euler_ancestral": '"euler" with eta=1',
    "edm": '"heun", and "edm_stochastic"',
    "dpm_2": '"dpm_solver" with order=2',
    "dpmpp": '"dpm_solver_pp"',
    "dpmpp_2m": '"dpm_solver_pp" with order=2',
    "dpmpp_3m": '"dpm_solver_pp" with order=3',
    "dpmpp_2m_sde": '"sde_dpm_solver_pp"',
    "uni_pc": '"unipc"',
    "unipc_bh2": '"unipc" with variant="bh2"',
    "lcm": '"consistency"',
}
"""What others call a solver, in lower case and with _, and what it is here."""


def solver_of(solver: str | Solver, options: dict[str, Any]) -> Solver:
    """The solver of a name, with its options; one given as an object is handed back.

    Args:
        solver: a name of `SOLVERS`, or a `Solver`.
        options: fields of the named solver; words are taken for values, "no" for False, by what each is.

    Raises:
        ValueError: unknown name or option, a value that the solver refuses, or options beside an object.

    Example:
        >>> solver_of("euler", {"eta": 0.5})
        Euler(eta=0.5)
    """
    if isinstance(solver, Solver):
        if options:
            raise ValueError(f"options {', '.join(options)} go into the solver object, or its name with options")
        return solver
    if solver not in SOLVERS:
        near = difflib.get_close_matches(str(solver), SOLVERS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        plain = str(solver).lower().replace("+", "p").replace("-", "_").replace(" ", "_").removeprefix("sample_")
        if plain in _ELSEWHERE:
            hint = f"here it is {_ELSEWHERE[plain]}; "
        raise ValueError(f"unknown solver {solver!r}; {hint}known are {', '.join(SOLVERS)}")
    kind = SOLVERS[solver]
    known = [field.name for field in dataclasses.fields(kind)]  # pyright: ignore[reportArgumentType]
    for name in options:
        if name not in known:
            raise ValueError(f"{solver} has no option {name!r}; it has {', '.join(known) or 'none'}")
    kinds = get_type_hints(kind)
    return kind(**{name: converted(name, value, kinds[name]) for name, value in options.items()})
