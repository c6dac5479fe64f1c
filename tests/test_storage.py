"""What several processes share: who is at work, who may enter a folder, who may read what was written."""

from __future__ import annotations

import os
import subprocess
import sys

from optimal.storage import running


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
