"""The compiler on models that do not fit: one block at a time, and what it does when memory is short."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_builds import SMALL
from tiny_llama import TEXT, write_tiny_llama
from torch import Tensor

from edgesdk.cloud import ordered, reference, sample
from edgesdk.cloud.build import build_model
from edgesdk.cloud.checkpoint import Checkpoint, open_checkpoint
from edgesdk.cloud.config import BuildConfig
from edgesdk.cloud.families import load_model
from edgesdk.cloud.memory import available_bytes, block_bytes
from edgesdk.cloud.tasks import inputs, local
from edgesdk.cloud.tasks.local import LocalExecutor
from edgesdk.cloud.tune import student
from edgesdk.cloud.workdir import WorkDirectory
from edgesdk.errors import ModelError

N_LAYERS = 8


class Held:
    """Bytes of weights that are alive at once: of every tensor that was read, sorted or dequantized."""

    def __init__(self) -> None:
        self._seen: list[weakref.ref[Tensor]] = []
        self.most = 0

    def see(self, *tensors: Tensor) -> None:
        self._seen = [seen for seen in self._seen if seen() is not None] + [weakref.ref(tensor) for tensor in tensors]
        alive = [tensor.untyped_storage() for seen in self._seen if (tensor := seen()) is not None]
        self.most = max(self.most, sum({s.data_ptr(): s.nbytes() for s in alive}.values()))

    def watched(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            self.see(*(result.values() if isinstance(result, Mapping) else [result]))
            return result

        return call


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("memory") / "model"
    write_tiny_llama(folder, num_hidden_layers=N_LAYERS, tie_word_embeddings=False, max_shard_size="100KB")
    return folder


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    found = Held()
    for module, name in (
        (reference, "load_block"),
        (inputs, "load_block"),
        (ordered, "sort_block"),
        (reference, "_double"),
        (student, "mask_block"),
    ):
        monkeypatch.setattr(module, name, found.watched(getattr(module, name)))
    monkeypatch.setattr(Checkpoint, "tensor", found.watched(Checkpoint.tensor))
    monkeypatch.setattr(student, "_SMALL_ELEMENTS", 0)
    return found


def on_text(config: BuildConfig, folder: Path) -> BuildConfig:
    text = folder / "text.txt"
    text.write_text(TEXT * 8, encoding="utf-8")
    return replace(
        config,
        calibrate=replace(config.calibrate, text=str(text), n_windows=4),
        evaluate=replace(config.evaluate, text=str(text)),
        quantize=replace(config.quantize, method="rtn"),
    )


def sizes(checkpoint: Path) -> tuple[int, int]:
    """Bytes of the largest block, and of all blocks, in float32."""
    config = load_model(open_checkpoint(str(checkpoint)))
    found = [block_bytes(config, index) for index in range(len(config.blocks))]
    return max(found), sum(found)


def test_no_step_holds_more_than_a_few_blocks(checkpoint: Path, tmp_path: Path, held: Held) -> None:
    """In float64 a block counts twice; embedding and head lie in files."""
    largest, everything = sizes(checkpoint)
    build_model(str(checkpoint), tmp_path / "out", on_text(SMALL, tmp_path))
    assert largest < held.most < 5 * largest < everything / 2


def test_the_count_sees_a_step_that_holds_the_model(checkpoint: Path, held: Held) -> None:
    opened = open_checkpoint(str(checkpoint))
    decoder = reference.Decoder.open(opened, load_model(opened))
    whole = [decoder.block_weights(index) for index in range(2 * N_LAYERS)]
    assert held.most > sizes(checkpoint)[1]
    assert len(whole) == 2 * N_LAYERS


def test_sampling_is_refused_where_the_model_does_not_fit(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "available_bytes", lambda: (1 << 30) + 1000)
    with pytest.raises(ModelError, match="GB for its weights") as raised:
        build_model(str(checkpoint), tmp_path / "out", SMALL)
    assert "--calibration-text" in raised.value.hint


def test_as_many_processes_as_memory_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    monkeypatch.setattr(local.os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(local, "_run_elsewhere", lambda function, jobs, n: (started.append(n), iter(()))[1])
    for room, wanted in ((10, []), (25, [2]), (90, [8]), (1000, [8])):
        started.clear()
        monkeypatch.setattr(local, "available_bytes", lambda room=room: room)
        found = list(LocalExecutor().run(abs, [(-i,) for i in range(8)], n_bytes=10, small=False))
        assert started == wanted
        assert found == ([] if wanted else [(i, i) for i in range(8)])


def write_system(root: Path, groups: str, files: Mapping[str, object]) -> None:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 8000 kB\n")
    (root / "proc/self/cgroup").write_text(groups)
    for name, value in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")


@pytest.mark.parametrize(
    ("groups", "files", "wanted"),
    [
        ("0::/\n", {}, 8000 << 10),
        (
            "0::/a/b\n",
            {
                "a/memory.max": 1000,
                "a/memory.current": 700,
                "a/memory.stat": "anon 400\ninactive_file 100\nactive_file 50",
                "a/b/memory.max": "max",
                "a/b/memory.current": 10,
                "a/b/memory.stat": "",
            },
            450,
        ),
        (
            "5:cpu:/a\n4:memory:/a\n0::/\n",
            {
                "memory/a/memory.limit_in_bytes": 1000,
                "memory/a/memory.usage_in_bytes": 900,
                "memory/a/memory.stat": "total_inactive_file 30",
            },
            130,
        ),
    ],
    ids=["no limit", "version 2", "version 1"],
)
def test_free_memory_is_what_system_and_control_group_leave(
    groups: str, files: Mapping[str, object], wanted: int, tmp_path: Path
) -> None:
    write_system(tmp_path, groups, files)
    assert available_bytes(tmp_path) == wanted


def test_free_memory_of_this_machine_is_a_sane_figure(tmp_path: Path) -> None:
    assert 1 << 20 < available_bytes() < 1 << 50
    assert available_bytes(tmp_path) == 1 << 62


def test_inverse_factors_are_made_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgesdk.cloud.factor import inverse_factor, widened

    x = torch.randn(400, 300, generator=torch.Generator().manual_seed(0))
    moment = x.T @ x / len(x)
    exact = moment.double()
    damped = exact + 0.01 * float(exact.diagonal().mean()) * torch.eye(300, dtype=torch.float64)
    wanted = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True).float()
    pointers: list[int] = []
    monkeypatch.setattr("edgesdk.cloud.factor.widened", lambda m: (w := widened(m), pointers.append(w.data_ptr()))[0])
    double = torch.Tensor.float
    monkeypatch.setattr(torch.Tensor, "float", lambda t: (pointers.append(t.data_ptr()), double(t))[1])
    assert torch.equal(inverse_factor(moment, 0.01), wanted)
    assert len(pointers) == 2 and pointers[0] == pointers[1]
    indefinite = torch.diag(torch.tensor([1.0] * 19 + [-0.5]))  # too little damping twice: what was overwritten is back
    factor = inverse_factor(indefinite, 0.01)
    assert torch.allclose(
        factor.T @ factor, torch.linalg.inv(indefinite + float(indefinite.diagonal().mean()) * torch.eye(20))
    )


def test_zeros_of_a_work_directory_lie_in_a_file_that_is_gone(tmp_path: Path) -> None:
    work = WorkDirectory(tmp_path, "step", "0")
    zeros = work.zeros((300, 1000))
    assert zeros.shape == (300, 1000) and zeros.dtype == torch.float32 and not zeros.any()
    assert list(work.folder.iterdir()) == []
    zeros += 1
    begin = zeros.data_ptr()
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    (own,) = [m for m in maps if int(m[0].split("-")[0], 16) <= begin < int(m[0].split("-")[1], 16)]
    assert own[5].startswith(str(work.folder)) and own[1] == "rw-s"
    assert float(zeros.sum()) == 300_000
