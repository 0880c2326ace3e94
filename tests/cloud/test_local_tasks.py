"""Tasks in processes of their own."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

BUILD = """
import time
from edgesdk.cloud.tasks.local import LocalExecutor

if __name__ == "__main__":
    for _, _ in LocalExecutor().run(time.sleep, [(0.01,)] * 2 + [(600,)] * 4, n_bytes=1, small=False):
        print("done", flush=True)
"""


@pytest.mark.skipif(len(psutil.Process().cpu_affinity() or [0]) < 2, reason="SKIPPED one core: no other processes")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_build_leaves_no_processes(how: signal.Signals, tmp_path: Path) -> None:
    """They waited for work for ever, each with a few hundred megabytes."""
    (tmp_path / "build.py").write_text(BUILD)
    with subprocess.Popen([sys.executable, tmp_path / "build.py"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"done\n"
        workers = [one for one in psutil.Process(process.pid).children() if "spawn_main" in " ".join(one.cmdline())]
        assert len(workers) >= 2
        process.send_signal(how)
    deadline = time.monotonic() + 30
    while any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)
