"""The packages are faces: they hand names on and define none, and none of the names hides a module."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [
    path.relative_to(ROOT) for door in ("optimal", "neural", "figures") for path in sorted((ROOT / door).rglob("*.py"))
]
FACES = [path for path in FILES if path.name == "__init__.py"]
MODULES = [path for path in FILES if not path.name.startswith("__")]


@pytest.mark.parametrize("path", FACES, ids=str)
def test_a_face_defines_nothing(path: Path) -> None:
    for node in ast.parse((ROOT / path).read_text()).body:
        listed = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        assert listed or isinstance(node, ast.Import | ast.ImportFrom | ast.Expr), ast.unparse(node)


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_module_is_found_by_its_path(path: Path) -> None:
    """`import package.name as name` gives the module, not a function of its name that the package hands on."""
    package, _, name = ".".join(path.with_suffix("").parts).rpartition(".")
    importlib.import_module(f"{package}.{name}")
    assert getattr(sys.modules[package], name) is sys.modules[f"{package}.{name}"]
