"""Under a real control group: one that eats memory makes an adaptive model give levels up instead of being killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_model import nested_ladder, tiny_config, write_random_artifact

V1, V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
MIB = 1 << 20
PROGRAM = """
import json, os, sys, time
path, group, adaptive = sys.argv[1], sys.argv[2], sys.argv[3] == "True"
open(group + "/cgroup.procs", "w").write(str(os.getpid()))
import edgesdk
model = edgesdk.load(path, adaptive=adaptive, lock=True, threads=1)
session = model.session()
expected = session.generate("Hello", max_tokens=8)
top, held = model.level, []
while model.level == top:  # which no fixed model ever leaves: it is killed
    held.append(bytearray(os.urandom(4096)) * 256)
    time.sleep(0.02)
session.generate("Hello", max_tokens=8)
low, held = model.level, []
deadline = time.monotonic() + 30
while model.level < top and time.monotonic() < deadline:
    time.sleep(0.1)
print(json.dumps([top, low, model.level, session.generate("Hello", max_tokens=8) == expected]))
"""


@pytest.fixture
def group():
    is_v1 = (V1 / "memory.limit_in_bytes").is_file()
    folder = (V1 if is_v1 else V2) / f"edgesdk-test-{os.getpid()}"
    limit = folder / ("memory.limit_in_bytes" if is_v1 else "memory.max")
    try:
        folder.mkdir()
        limit.write_text(str(1 << 30))
    except OSError as error:
        if folder.is_dir():
            folder.rmdir()
        pytest.skip(f"no control group with a memory limit can be made here: {error}")
    yield folder, limit
    for _ in range(50):
        try:
            folder.rmdir()
            break
        except OSError:
            time.sleep(0.1)


def test_levels_are_given_up_before_the_limit_and_come_back(group, tmp_path):
    folder, limit = group
    config = tiny_config(n_layers=6, d_model=512, width=4096, n_heads=8, n_kv_heads=4, head_dim=64)
    path = tmp_path / "wide.edge"
    write_random_artifact(path, config, nested_ladder(config))
    limit.write_text(str(160 * MIB))

    def run(adaptive: bool) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", PROGRAM, str(path), str(folder), str(adaptive)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    assert run(False).returncode == -signal.SIGKILL
    found = run(True)
    assert found.returncode == 0, found.stderr
    top, low, after, same = json.loads(found.stdout)
    assert (top, after, same) == (2, 2, True)
    assert low < top
