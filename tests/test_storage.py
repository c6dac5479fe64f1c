"""What several processes share: who is at work, who may enter a folder, who may read what was written."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from optimal.storage import locked, replacing, running

HOLDER = """
import sys, time
from pathlib import Path
from optimal.storage import locked
with locked(Path(sys.argv[1]), "holding"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_one_at_a_time(tmp_path: Path) -> None:
    inside: list[int] = []

    def enter(_: int) -> None:
        with locked(tmp_path / "new" / "lock", "counting") as held:
            assert held
            inside.append(1)
            assert len(inside) == 1
            time.sleep(0.02)
            inside.pop()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(enter, range(8)))


@pytest.mark.slow
def test_who_waits_for_long_says_so_and_a_dead_owner_blocks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("optimal.storage.processes._PATIENCE", 0.1)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        killer = threading.Timer(0.4, holder.send_signal, [signal.SIGKILL])
        killer.start()
        with locked(tmp_path / "lock", "decoding faces") as held:
            assert held
            killer.join()
            assert holder.wait() == -signal.SIGKILL
    said = capsys.readouterr().err
    assert said == f"another process is decoding faces: waiting for it (lock {tmp_path / 'lock'})\n"


def test_a_short_wait_is_silent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with locked(tmp_path / "lock", "something"):
        pass
    assert capsys.readouterr() == ("", "")


def test_nobody_waits_where_there_can_be_no_lock(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with locked(tmp_path / "file" / "lock", "something") as held:
        assert not held


@pytest.mark.parametrize(("umask", "mode"), [(0o002, 0o664), (0o022, 0o644), (0o077, 0o600)])
def test_a_file_has_the_permissions_of_any_other(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        with replacing(tmp_path / "a.txt") as path:
            path.write_text("whole")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == mode


def test_who_is_at_work() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, text=True)
    assert running(child.pid)
    assert running(os.getpid())
    assert running(1)  # another user's, unless this one is root
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not running(child.pid)  # a zombie until it is waited for
    child.communicate()
    assert not running(child.pid)
    assert not running(2**40)
