"""Trained networks that come with the toolkit: each a folder of a run with its network only, and what was measured.

`python -m neural pretrain NAME` trains one again; `open_model("pretrained:NAME")` opens it.
"""

from .recipes import RECIPES, Recipe, recipe
from .shelf import About, about, folder_of, names

__all__ = ["RECIPES", "About", "Recipe", "about", "folder_of", "names", "recipe"]
