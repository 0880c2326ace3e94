"""Under a real control group: one that eats memory makes an adaptive model give levels up instead of being killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import ExitStack

import pytest
from control_group import control_group
from tiny_model import nested_ladder, tiny_config, write_random_artifact

MIB = 1 << 20
PROGRAM = """
import json, os, sys, time
path, processes, adaptive = sys.argv[1], sys.argv[2], sys.argv[3] == "True"
open(processes, "w").write(str(os.getpid()))
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
    with ExitStack() as stack:
        try:
            made = stack.enter_context(control_group(160 * MIB))
        except OSError as error:
            pytest.skip(f"no control group with a memory limit can be made here: {error}")
        yield made


def test_levels_are_given_up_before_the_limit_and_come_back(group, tmp_path):
    config = tiny_config(n_layers=6, d_model=512, width=4096, n_heads=8, n_kv_heads=4, head_dim=64)
    path = tmp_path / "wide.edge"
    write_random_artifact(path, config, nested_ladder(config))

    def run(adaptive: bool) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", PROGRAM, str(path), str(group.processes), str(adaptive)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    assert run(False).returncode == -signal.SIGKILL
    found = run(True)
    assert found.returncode == 0, found.stderr
    top, low, after, same = json.loads(found.stdout)
    assert (top, after, same) == (2, 2, True)
    assert low < top
