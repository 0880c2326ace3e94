"""Builds on a Ray cluster of two nodes with a worker each: the same bytes, lost workers, and clear errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import ray_tasks
from small_builds import SMALL
from tiny_llama import write_tiny_llama

from edgesdk.cli import main
from edgesdk.cli.options import with_values
from edgesdk.cloud.build import build_model
from edgesdk.cloud.config import AllocateConfig, CalibrateConfig, EvaluateConfig, TuneConfig
from edgesdk.cloud.quantize import tasks
from edgesdk.cloud.tasks import ModelFiles, open_executor
from edgesdk.errors import EdgeError, MissingExtraError, ModelError, UsageError

ray = pytest.importorskip("ray", reason="the package ray is not installed: pip install 'edgesdk[ray]'")

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

CONFIG = replace(  # little but what tasks do
    SMALL,
    calibrate=CalibrateConfig(n_windows=4, window_tokens=32),
    allocate=AllocateConfig(method="uniform", max_rate=0.3, step=0.3),
    tune=TuneConfig(wide_share=0.0, n_epochs=0),
    evaluate=EvaluateConfig(n_windows=1, window_tokens=32),
)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    from ray.cluster_utils import Cluster

    sizes = {"num_cpus": 1, "object_store_memory": 100 << 20, "memory": 2 << 30}
    cluster = Cluster(initialize_head=True, head_node_args={**sizes, "include_dashboard": False})
    cluster.add_node(**sizes)
    ray.cloudpickle.register_pickle_by_value(ray_tasks)  # no node has the tests
    yield cluster.address
    cluster.shutdown()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ray") / "model"
    write_tiny_llama(folder, intermediate_size=192, max_shard_size="100KB")
    return folder


@pytest.fixture(scope="module")
def built(checkpoint: Path) -> Path:
    return build_model(str(checkpoint), checkpoint.parent / "local", CONFIG)


def test_a_cluster_makes_the_same_bytes_in_its_workers(
    built: Path, checkpoint: Path, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkpoint.parent)  # nodes have another working directory: a relative path must do
    path = build_model("model", tmp_path, CONFIG, ray=address)
    assert path.read_bytes() == built.read_bytes()
    assert not ray.is_initialized()


def test_tasks_run_in_processes_of_the_cluster(address: str) -> None:
    with open_executor(address) as executor:
        jobs: list[tuple[object, ...]] = [()] * 8
        pids = [pid for _, pid in executor.run(os.getpid, jobs, n_bytes=1, small=True)]
    assert len(pids) == 8
    assert os.getpid() not in pids


def test_a_worker_that_is_killed_is_replaced_and_the_bytes_are_the_same(
    built: Path, checkpoint: Path, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "killed"
    monkeypatch.setattr(tasks, "_quantize", ray_tasks.KilledOnce(tasks._quantize, marker))
    path = build_model(str(checkpoint), tmp_path / "out", CONFIG, ray=address)
    killed = int(marker.read_text())
    assert killed != os.getpid()
    assert not Path(f"/proc/{killed}").exists()
    assert path.read_bytes() == built.read_bytes()


def test_an_error_on_a_node_is_the_one_that_was_raised_there(checkpoint: Path, address: str) -> None:
    other = ModelFiles(str(checkpoint), (("model.safetensors", 1),))
    with open_executor(address) as executor:
        results = executor.run(ModelFiles.block, [(other, 0)], n_bytes=1, small=True)
        with pytest.raises(ModelError, match=r"on a node of the Ray cluster: .* other sizes"):
            list(results)
        results = executor.run(int, [("x",)], n_bytes=1, small=True)
        with pytest.raises(EdgeError, match="a task failed on a node of the Ray cluster: ValueError"):
            list(results)


def test_a_task_that_no_node_has_room_for_is_refused(address: str) -> None:
    with (
        open_executor(address) as executor,
        pytest.raises(EdgeError, match=r"needs 4000\.0 GB of memory, the largest node .* has 2\.1"),
    ):
        list(executor.run(int, [("1",)], n_bytes=4 * 10**12, small=True))


@pytest.mark.parametrize(("wrong", "error"), [("127.0.0.1:1", EdgeError), ("nowhere", UsageError)])
def test_an_address_without_a_cluster_is_one_clear_error(
    wrong: str, error: type[EdgeError], checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=f"`{wrong}`") as raised:
        build_model(str(checkpoint), tmp_path / "out", CONFIG, ray=wrong)
    assert raised.value.hint
    assert not (tmp_path / "out").exists()


def test_without_the_package_the_extra_is_named(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match="ray"):
        build_model(str(checkpoint), tmp_path / "out", CONFIG, ray="auto")
    assert main(["build", str(checkpoint), "-o", str(tmp_path / "out"), "--ray"]) == 1
    assert "pip install 'edgesdk[ray]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (["build", "m", "--ray"], ["build", "m", "--ray", "auto"]),
        (["build", "--ray", "-o", "x", "m"], ["build", "--ray", "auto", "-o", "x", "m"]),
        (["build", "m", "--ray", "h:1", "-o", "x"], ["build", "m", "--ray", "h:1", "-o", "x"]),
        (["build", "m", "--ray=h:1"], ["build", "m", "--ray=h:1"]),
        (["run", "x", "--", "--ray"], ["run", "x", "--", "--ray"]),
    ],
)
def test_the_address_may_be_left_out(given: list[str], meant: list[str]) -> None:
    assert with_values(given) == meant
