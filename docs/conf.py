"""Sphinx: the API reference from the docstrings, `make docs`. The pages need no network."""

from __future__ import annotations

import importlib
import itertools
import re
import sys
from importlib.metadata import version as version_of
from pathlib import Path

from docutils.nodes import SkipNode

sys.path.insert(0, str(Path(__file__).parent))
from notation import latex, mathml

project = "optimal-diffusion"
version = release = version_of(project)
language = "en"
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_parser"]
myst_heading_anchors = 3
# Links to files that are no pages.
suppress_warnings = ["myst.xref_missing"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"{project} {version}"
html_copy_source = False
html_static_path = ["_static"]
html_extra_path = ["explore.html"]
html_css_files = ["wide.css"]
html_math_renderer = "mathml"

default_role = "py:obj"
highlight_language = "none"
smartquotes = False
autodoc_default_options = {"special-members": "__call__"}
html_show_copyright = False
# A method that overrides another repeats nothing.
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_attr_annotations = False
napoleon_use_ivar = True
napoleon_use_rtype = False
# Plain text: a colon in it does not end a type.
napoleon_custom_sections = ["Returns", "Yields"]

_CODE = re.compile(r"(`[^`]+`)")
_NAME = re.compile(r"`[A-Za-z_][\w.]*`")
_SEVERAL = re.compile(r"( +)(\w+(?:, \w+)+): (.*)")


def to_rest(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Docstrings here are plain text: keep indented blocks as they stand, make tables, escape what reST would read."""
    # Of a property napoleon takes what comes before a colon in the first line for its type: so the first is empty.
    made: list[str] = ["\\"] if what in ("attribute", "data", "property") else []
    if "Attributes:" in lines:
        lines[:] = _one_each(lines)
    i = 0
    while i < len(lines):
        line = lines[i]
        indent = len(line) - len(line.lstrip())
        if line.lstrip().startswith("|") and "|--" in "".join(lines[i + 1 : i + 2]):
            end = next((j for j in range(i, len(lines)) if not lines[j].lstrip().startswith("|")), len(lines))
            made += _table(lines[i:end], " " * indent)
            i = end
        elif indent >= _base(made) + 4 and _starts_block(made) and not line.lstrip().startswith(">>>"):
            base = " " * _base(made)
            end = i
            while end < len(lines) and (not lines[end].strip() or lines[end].startswith(base + "    ")):
                end += 1
            formula = latex(lines[i:end])
            if formula is None:
                made += [f"{base}::", "", *lines[i:end], ""]
            else:
                made += [f"{base}.. math::", f"{base}   :no-wrap:", "", f"{base}   {formula}", ""]
            i = end
        else:
            made.append(line if line.lstrip().startswith((">>>", "...")) else _escaped(line))
            i += 1
    lines[:] = made


def _one_each(lines: list[str]) -> list[str]:
    """Attributes that share an entry, one by one: Sphinx would take the first for a type."""
    made: list[str] = []
    inside = False
    for i, line in enumerate(lines):
        inside = line == "Attributes:" or (inside and (not line or line.startswith(" ")))
        several = _SEVERAL.fullmatch(line) if inside else None
        if several is None:
            made.append(line)
            continue
        indent, names, text = several.groups()
        rest = itertools.takewhile(lambda below, indent=indent: below.startswith(f"{indent} "), lines[i + 1 :])
        *first, last = names.split(", ")
        rest = list(rest)
        for name in first:
            made += [f"{indent}{name}: {text}", *rest]
        made.append(f"{indent}{last}: {text}")
    return made


def _starts_block(made: list[str]) -> bool:
    return len(made) >= 2 and not made[-1].strip()


def _base(made: list[str]) -> int:
    """Indentation of the paragraph above."""
    above = next((line for line in reversed(made) if line.strip()), "")
    return len(above) - len(above.lstrip())


def _escaped(line: str) -> str:
    def part(text: str) -> str:
        if _CODE.fullmatch(text):
            return text if _NAME.fullmatch(text) else f"`{text}`"
        return re.sub(r"([*|\\]|_\b)", r"\\\1", text)

    return "".join(map(part, _CODE.split(line)))


def _table(rows: list[str], indent: str) -> list[str]:
    cells = [[cell.strip() for cell in row.strip().strip("|").split("|")] for row in rows if "|--" not in row]
    made = ["", f"{indent}.. list-table::", f"{indent}   :header-rows: 1", ""]
    for row in cells:
        row = [*row, *[""] * (len(cells[0]) - len(row))]
        made += [f"{indent}   {'* -' if k == 0 else '  -'} {_escaped(cell)}" for k, cell in enumerate(row)]
    return [*made, ""]


def resolve(app, env, node, content):
    """Names of the two doors, `sample` or `optimal.sample`, lead to where they are documented."""
    target = node.get("reftarget", "")
    for door in ("optimal", "neural"):
        found = vars(importlib.import_module(door)).get(target.removeprefix(f"{door}."))
        if callable(found) and hasattr(found, "__qualname__"):
            module, domain = found.__module__, env.domains["py"]
            for place in (module, module.rpartition(".")[0]):
                full = f"{place}.{found.__qualname__}"
                if full in domain.objects:
                    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", full, node, content)
    return None


def defaults(app, what, name, obj, options, signature, returned):
    """Defaults made by a factory, which Sphinx cannot read."""
    return (signature or "").replace("<factory>", "...") or None, returned


def inline_math(self, node) -> None:
    self.body.append(mathml(node.astext(), display=False))
    raise SkipNode


def block_math(self, node) -> None:
    self.body.append(f'<div class="math">{mathml(node.astext(), display=True)}</div>\n')
    raise SkipNode


def setup(app) -> None:
    app.add_html_math_renderer("mathml", (inline_math, None), (block_math, None))
    app.connect("autodoc-process-docstring", to_rest, priority=400)
    app.connect("autodoc-process-signature", defaults)
    app.connect("missing-reference", resolve)
