"""How each theory is drawn, the same on the page of `explain` and in the figure `theories`: one map for both.

Colours go by what a theory is made of: greys Gaussians, warm ones what smooths, cold ones what is local. They are read
on light and on dark grounds.
"""

from __future__ import annotations

from typing import Any

from ..theories import EQUIVARIANT, LOCAL
from .charts import Theme

__all__ = ["STYLES", "style_of"]

STYLES: dict[str, dict[str, Any]] = {
    "Gaussian": {"color": "tab:gray"},
    "mixture of 10": {"color": "tab:gray", "linestyle": "--"},
    "mixture of 100": {"color": "tab:gray", "linestyle": ":"},
    "smoothed data": {"color": "tab:orange"},
    "smoothed score": {"color": "tab:red"},
    "temperature": {"color": "tab:purple"},
    LOCAL: {"color": "tab:blue"},
    EQUIVARIANT: {"color": "tab:blue", "linestyle": "--"},
    "patch posterior": {"color": "tab:cyan"},
    "PCA-locality": {"color": "tab:green"},
}
"""By the name up to a comma: what follows says of how many points a theory was made."""
_OTHERS = ("-.", (0, (1, 1)))


def style_of(name: str, theories: list[str], theme: Theme) -> dict[str, Any]:
    """Colour and line of a theory; one that the map does not have is dash-dotted, those of a list in turn."""
    known = STYLES.get(name.partition(",")[0])
    if known is not None:
        return known
    place = [each for each in theories if each.partition(",")[0] not in STYLES].index(name)
    turn, color = divmod(place, len(theme.networks))
    return {"color": theme.networks[color], "linestyle": _OTHERS[turn % len(_OTHERS)]}
