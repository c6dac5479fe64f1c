"""`python -m neural pretrain`: the shipped networks, trained and measured again."""

from __future__ import annotations

import torch

from optimal.cli import as_json, in_words, writable
from optimal.cli.run import say

from ..commands import Pretrain
from ..pretrained import RECIPES, About, about, names, recipe
from ..pretrained.again import again, measured, ship, verdict

__all__ = ["pretrain"]


def pretrain(command: Pretrain) -> None:
    """Networks trained to their end, one after the other, each beside the shipped one."""
    if command.threads is not None and command.threads < 1:
        raise ValueError(f"threads must be at least 1, got {command.threads}")
    wanted = [recipe(name) for name in command.names or RECIPES]
    known = {what.name: _known(what.name) for what in wanted}
    for what in wanted:
        then = known[what.name]
        took = f"{in_words(then.seconds)} on {then.machine}" if then else "not known how long"
        say(f"{what.name}: {took}")
    out = writable(command.out, "", folder=True)
    if command.dry_run:
        names = [what.name for what in wanted]
        told = as_json({"networks": names, "out": str(out)})
        print(told if command.json else f"{', '.join(names)} into {out}; nothing was trained")
        return
    if command.threads is not None:
        torch.set_num_threads(command.threads)
    tell = say if command.json else print
    made: dict[str, str] = {}
    for what in wanted:
        run = again(what, out)
        then = known[what.name]
        if then is not None:
            verdict(then, measured(what, run, seed=then.seed), tell)
        if command.ship:
            found, size = ship(what, run)
            tell(f"{what.name}: shipped, {size / 1e6:.1f} MB{' in half precision' if found.half else ''}")
        else:
            tell(f"{what.name}: {run}")
        made[what.name] = str(run)
    if command.json:
        print(as_json({"networks": made, "shipped": command.ship}))


def _known(name: str) -> About | None:
    """What is known of the shipped network; None where there is none, or a damaged one."""
    if name not in names():
        return None
    try:
        return about(name)
    except ValueError as error:
        say(f"warning: {error}")
        return None
