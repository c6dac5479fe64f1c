"""The parameters that were fitted to a network, as a table a place: levels down, theories across."""

from __future__ import annotations

from collections.abc import Mapping

from optimal.denoiser import Denoiser

from ..theories import Fitted
from .tables import number, table

__all__ = ["parameters"]

_CUT = "* The least or the greatest value that was tried, where others lie beyond it: a longer list might have another."


def parameters(theories: Mapping[str, Mapping[str, Denoiser]]) -> str:
    """Tables as HTML.

    Args:
        theories: place -> name -> theory; of those with a fitted parameter the value at each level, with a star where
            it is the least or the greatest that was tried and others lie beyond.
    """
    parts: list[str] = []
    for place, named in theories.items():
        fitted = {name: theory for name, theory in named.items() if isinstance(theory, Fitted)}
        if fitted:
            parts.append(_table(place, fitted))
    if any("*" in part for part in parts):
        parts.append(f"<p>{_CUT}</p>")
    return "".join(parts)


def _table(place: str, fitted: Mapping[str, Fitted]) -> str:
    levels = sorted({sigma for theory in fitted.values() for sigma in theory.sigmas.tolist()}, reverse=True)
    rows = [("", [number(sigma), *(_value(theory, sigma) for theory in fitted.values())]) for sigma in levels]
    caption = f"With which value each theory is nearest to the network on {place}, of other draws than it is judged on"
    return table(["σ", *fitted], rows, caption)


def _value(theory: Fitted, sigma: float) -> str:
    value = theory.at(sigma)
    return f"{value:.4g}" + (" *" if value in theory.cut else "")
