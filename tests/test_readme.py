"""What the README shows runs."""

from __future__ import annotations

import re
from pathlib import Path

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_lines_run() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    # Read from the top: what one block defines the next ones use.
    scope: dict[str, object] = {}
    for block in blocks:
        exec(block, scope)
    assert {"x0_hat", "post", "border", "landing", "reached"} <= scope.keys()
    assert scope["x0_hat"].shape == (3, 1, 8, 8)  # pyright: ignore[reportAttributeAccessIssue]
    assert scope["landing"].x.shape == (8, 1, 8, 8)  # pyright: ignore[reportAttributeAccessIssue]


def test_pictures_and_files_that_it_names_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (Path(__file__).parents[1] / target).exists(), target
