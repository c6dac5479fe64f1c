"""What people have that is no run: one sentence says what it is and how it is opened; nothing is unpickled."""

from __future__ import annotations

import json
import pickle
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from neural import open_model
from neural.__main__ import main

ROOT = Path(__file__).parents[1]
FUNCTION = r"name a function of yours .* python:package\.module\.function \(docs/networks\.md"


class Ran:
    """What a pickle does when it is read."""

    happened = False

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return setattr, (Ran, "happened", True)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    net = nn.Linear(2, 2)
    torch.save(net.state_dict(), tmp_path / "weights.pt")
    torch.save(net, tmp_path / "whole.pth")
    torch.save(net.state_dict(), tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    torch.save(net.state_dict(), tmp_path / "unnamed")
    (tmp_path / "bomb.pkl").write_bytes(pickle.dumps(Ran()))
    pytest.importorskip("safetensors.torch").save_file(net.state_dict(), tmp_path / "weights.safetensors")
    (tmp_path / "mine.py").write_text("")
    config = json.dumps({"_class_name": "UNet2DModel", "_diffusers_version": "0.30.0"})
    for folder in ("pipe/unet", "pipe/scheduler", "flat", "bare", "full", "empty"):
        (tmp_path / folder).mkdir(parents=True)
    for path in ("pipe/model_index.json", "pipe/unet/config.json", "flat/config.json", "bare/config.json"):
        (tmp_path / path).write_text(config)
    (tmp_path / "flat/scheduler_config.json").write_text("{}")
    torch.save(net.state_dict(), tmp_path / "full/weights.bin")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("named", "sentence"),
    [
        *(
            (name, f"^{name} holds weights or a network .* is not unpickled here: {FUNCTION}")
            for name in ("weights.pt", "whole.pth", "old.ckpt", "unnamed", "bomb.pkl")
        ),
        ("weights.safetensors", f"^weights.safetensors holds weights of another program, .*: {FUNCTION}"),
        ("full", f"^full is no folder of a run, and weights.bin in it has no network with it: {FUNCTION}"),
        ("mine.py", r"a function in it that returns a network is named python:mine\.function$"),
        ("pipe", "^pipe is a pipeline of diffusers: it is named diffusers:pipe$"),
        ("pipe/model_index.json", "its folder is named diffusers:pipe$"),
        ("pipe/unet", "it is named diffusers:pipe/unet$"),
        ("flat", "it is named diffusers:flat$"),
        ("bare", r"without the scheduler .* name it diffusers:bare, or .*from_unet\(network, scheduler\)"),
        ("mymodels.edm", r"a function edm of one's own is named python:mymodels\.edm$"),
        ("mymodels.py:edm", r"is named python:mymodels\.edm$"),
        ("mymodels:edm", r"is named python:mymodels\.edm$"),
        ("digits", "comes with the toolkit is pretrained:digits$"),
        ("nowhere.pt", "no such folder or file$"),
        ("runs/mine", "no such folder or file$"),
        ("empty", r"no checkpoint \(step-….safetensors\) in empty$"),
    ],
)
def test_what_is_no_run_is_said_with_its_right_name(place: Path, named: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        open_model(named)
    assert "\n" not in str(caught.value)
    assert not Ran.happened


@pytest.mark.parametrize("command", ["compare", "report", "explain"])
def test_commands_say_it_too(place: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "weights.pt", "--dataset", "two-points"]) == 2
    assert re.search(f"^error: weights.pt holds .*{FUNCTION}", capsys.readouterr().err, re.MULTILINE)


MODULE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self): super().__init__(); self.one = nn.Linear(2, 2)
    def forward(self, x, sigma): return self.one(x)

class Timed(Net):
    def forward(self, x, t): return self.one(x)

class Sized(Net):
    def __init__(self, width): super().__init__()

held = Net()
weights = held.state_dict()
def whole(): return Net()
def none(): Net()
def alone(): return Net().state_dict()
def nested(): return {"model": Net().state_dict(), "step": 3}
def kind(): return Net
def pair(): return Net(), 3
def timed(): return Timed()
def on(device): return Net()
def keyed(*, width): return Net()
def again(): return "python:ours.none"
def itself(x, sigma): return 0 * x
def optional(width=3): return Net()
"""


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "ours.py").write_text(MODULE)
    (tmp_path / "lacks.py").write_text("import not_installed_here\n")
    (tmp_path / "falls.py").write_text("open('weights of nobody')\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("ours", None)


@pytest.mark.parametrize(
    ("named", "sentence"),
    [
        ("none", r"^python:ours\.none returned None: it should return the network with its weights"),
        ("again", r"^python:ours\.none returned None"),
        ("alone", "alone returned a state_dict, weights without their network: it should return"),
        ("weights", "weights is a state_dict, weights without their network"),
        ("nested", "nested returned a dict: it should return the network"),
        ("kind", "kind returned the class Net: it should return the network"),
        ("pair", "pair returned a tuple: it should return the network"),
        ("Net", "Net is a class, and what it makes without arguments has whatever weights its constructor gives: name"),
        ("Sized", "Sized is a class"),
        ("timed", r"^python:ours\.timed: Timed is called with \(x, t\), and neither"),
        ("on", "on is called without arguments and wants device: name a function of no arguments"),
        ("keyed", "keyed is called without arguments and wants width"),
        ("hold", "module 'ours' has no attribute 'hold'; it has held$"),
    ],
)
def test_what_a_function_returns_is_a_network_or_a_sentence(ours: None, named: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        open_model(f"python:ours.{named}")


@pytest.mark.parametrize("named", ["whole", "held", "itself", "optional"])
def test_networks_are_taken(ours: None, named: str) -> None:
    assert open_model(f"python:ours.{named}")(torch.ones(3, 2), 1.0).shape == (3, 2)


def test_a_missing_module_is_said_with_the_folder_that_is_searched(
    ours: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"the current folder, {re.escape(str(tmp_path))}, is searched first"):
        open_model("python:no_such_module.f")
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each])
    with pytest.raises(ValueError, match=f"the current folder, {re.escape(str(tmp_path / 'inner'))}, is not searched"):
        open_model("python:no_such_module.f")
    with pytest.raises(ValueError, match=r"No module named 'not_installed_here'$"):
        open_model("python:lacks.f")
    with pytest.raises(ValueError, match="cannot be imported: FileNotFoundError: "):
        open_model("python:falls.f")


def test_the_example_is_where_the_sentences_say() -> None:
    assert "## From a file of weights" in (ROOT / "docs/networks.md").read_text()
