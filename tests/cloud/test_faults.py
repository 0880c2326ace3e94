"""A build on a disk that fills up, and one that is killed at every stage: an error or none, the same file after all."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from small_builds import SMALL
from tiny_llama import write_tiny_llama

from edgesdk.cloud.build import build_model
from edgesdk.cloud.config import RecoverConfig
from edgesdk.errors import EdgeError
from edgesdk.formats import verify_artifact

CONFIG = replace(SMALL, recover=RecoverConfig(n_epochs=1, batch_windows=8))
KILLS = (  # stage, and how many reports of progress of it come before
    ("read", 0),
    ("sample", 0),
    ("calibrate", 0),
    ("calibrate", 2),
    ("sort", 0),
    ("quantize", 0),
    ("quantize", 3),
    ("allocate", 0),
    ("allocate", 4),
    ("tune", 0),
    ("recover", 0),
    ("recover", 2),
    ("pack", 0),
    ("evaluate", 0),
    ("evaluate", 2),
    ("write", 0),
)
KILLED = """
import os, signal, sys
from test_faults import CONFIG
from edgesdk.cloud.build import build_model

model, out, *at = sys.argv[1:]
seen = 0

def progress(step, done, total):
    global seen
    if step == at[0]:
        if seen == int(at[1]):
            os.kill(os.getpid(), signal.SIGKILL)
        seen += 1

build_model(model, out, CONFIG, progress=progress)
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults") / "model"
    write_tiny_llama(folder, intermediate_size=192)
    return folder


@pytest.fixture(scope="module")
def expected(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return build_model(str(checkpoint), tmp_path_factory.mktemp("whole") / "out", CONFIG).read_bytes()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system in memory, of one page yet; `resize` changes it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no small disk can be made (this needs root): {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def resize(folder: Path, n_bytes: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={n_bytes}", str(folder)], check=True)


def test_a_disk_that_is_full_is_an_error_and_the_next_try_goes_on(
    checkpoint: Path, expected: bytes, small_disk: Path
) -> None:
    out, errors = small_disk / "out", list[tuple[str, str | None]]()
    for n_pages in range(8, 4000, 24):
        resize(small_disk, n_pages * 4096)
        try:
            path = build_model(str(checkpoint), out, CONFIG)
            break
        except EdgeError as error:  # its frames hold tensors that lie on the disk: only its words are kept
            errors.append((error.message, error.hint))
        gc.collect()
        assert not list(out.rglob("*.partial"))
        assert not (out / "model.edge").exists() or verify_artifact(out / "model.edge")
    else:
        pytest.fail(f"no build ended: {errors[-1]}")
    assert path.read_bytes() == expected
    assert all("No space left" in message and hint for message, hint in errors)
    full = {Path(message.split("`")[1]).relative_to(out).parts[1:] for message, _ in errors}
    assert {parts[0].split("-")[0] for parts in full if parts} >= {"moments", "codes", "model"}  # what needs most room
    assert len(full) > 5  # and at different files of it


def test_a_build_that_is_killed_again_and_again_ends_in_the_same_file(
    checkpoint: Path, expected: bytes, tmp_path: Path
) -> None:
    """Killed at the beginning of every stage, and inside those that have parts; each run goes on with what there is."""
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    for stage, event in KILLS:
        own = [sys.executable, "-c", KILLED, str(checkpoint), str(tmp_path / "out"), stage, str(event)]
        child = subprocess.run(own, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True)
        assert child.returncode == -signal.SIGKILL, (stage, event, child.stderr)
        assert not (tmp_path / "out" / "model.edge").exists()
    assert build_model(str(checkpoint), tmp_path / "out", CONFIG).read_bytes() == expected
