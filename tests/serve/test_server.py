"""Which level a server takes, what it says where it listens, and what it lacks."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from device_artifacts import write_tiny
from served import Served

import edgesdk
from edgesdk.cli import main
from edgesdk.serve import server
from edgesdk.serve.server import is_loopback, load_for_sessions, needed_bytes


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("server") / "tiny.edge", max_context=4096)


def test_a_budget_is_for_all_sessions(path):
    with edgesdk.load(path) as model:
        one = model.estimate(1)
        assert needed_bytes(model, 1, 1) == one.total_bytes
        for level in range(3):
            needed = needed_bytes(model, level, 4)
            assert needed == model.estimate(level).mapped_bytes + 4 * (
                model.estimate(level).kv_bytes + model.estimate(level).workspace_bytes
            )
            with load_for_sessions(path, 4, budget=needed)[0] as chosen:
                assert chosen.level == level
            _, reason = load_for_sessions(path, 4, budget=needed)
            assert reason.startswith(
                f"level {level} of 0..2: the largest that fits with 4 sessions, {needed} of {needed}"
            )
        smallest = needed_bytes(model, 0, 4)
    with pytest.raises(edgesdk.MemoryBudgetError, match=f"4 sessions of 2048 tokens needs {smallest} bytes") as error:
        load_for_sessions(path, 4, budget=smallest - 1)
    assert "--max-concurrent" in error.value.hint
    with load_for_sessions(path, 4, budget=smallest - 1, context=256)[0] as chosen:
        assert chosen.context == 256


def test_a_level_or_a_rate_is_taken_as_given(path):
    with load_for_sessions(path, 4, level=1)[0] as model:
        assert model.level == 1
    with load_for_sessions(path, 4, rate=0.0)[0] as model:
        assert model.level == 2
    with load_for_sessions(path, 4)[0] as model:
        assert model.level == 2
    with pytest.raises(edgesdk.UsageError, match="given together"):
        load_for_sessions(path, 4, level=1, budget="1GB")


def test_memory_is_watched_when_asked_for(path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        server, "load", lambda *given, **how: asked.append(how.get("adaptive")) or edgesdk.load(*given, **how)
    )
    for n_sessions in (1, 4):
        server.load_for_sessions(path, n_sessions, adaptive=True)[0].close()
        server.load_for_sessions(path, n_sessions)[0].close()
    assert [adaptive for adaptive in asked if adaptive is not None] == [True, False, True, False]


def test_a_gpu_that_was_asked_for_and_is_not_there_is_an_error(path, monkeypatch):
    monkeypatch.setenv("EDGE_OPENCL_DEVICE", "no such name")
    for n_sessions in (1, 4):
        with pytest.raises(edgesdk.EngineError, match=r"no OpenCL|OpenCL has no device"):
            load_for_sessions(path, n_sessions, backend="opencl")
        with load_for_sessions(path, n_sessions, backend="cpu")[0] as model:
            assert model.backend.name == "cpu"


def test_a_gpu_serves_the_same_text(path, tmp_path):
    """By sessions in turns, on PoCL where there is no GPU; what computes is told everywhere."""
    environment = {"EDGE_CACHE_DIR": str(tmp_path)}
    try:
        server = Served(path, "--backend", "opencl", "--max-concurrent", 3, "--level", 1, **environment)
    except AssertionError as error:
        if os.environ.get("EDGE_REQUIRE_OPENCL") or not re.search("error: (no OpenCL|OpenCL has no)", str(error)):
            raise
        pytest.skip(f"SKIPPED no OpenCL device (apt-get install pocl-opencl-icd): {error}")
    with server, server.client() as client:
        assert server.report["backend"] == client.models.retrieve(server.name).meta["backend"] == "opencl"
        prompts = [f"Request {i}" for i in range(6)]

        def ask(prompt):
            return client.completions.create(model=server.name, prompt=prompt, max_tokens=12, temperature=0)

        with ThreadPoolExecutor(6) as threads:
            answers = list(threads.map(ask, prompts))
        assert {answer.system_fingerprint for answer in answers} == {f"edgesdk-{edgesdk.__version__}-level-1-opencl"}
        found = [answer.choices[0].text for answer in answers]
    assert "backend opencl: " in server.remarks
    with edgesdk.load(path, level=1) as model:
        expected = [model.generate(prompt, max_tokens=12) for prompt in prompts]
    assert found == expected or "PoCL" not in server.remarks  # which rounds as the CPU does


def test_a_cut_file_offers_what_it_holds(path, tmp_path):
    cut = tmp_path / "cut.edge"
    with edgesdk.load(path) as model:
        cut.write_bytes(path.read_bytes()[: model.levels[1].file_bytes])
    with load_for_sessions(cut, 2, budget="1GB")[0] as model:
        assert model.level == 1


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.3.2.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False)],
)
def test_which_addresses_are_this_machine_s(host, expected):
    assert is_loopback(host) is expected


def test_a_port_that_is_taken(path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", str(path), "--port", str(taken.getsockname()[1])]) == 1
    captured = capsys.readouterr()
    assert "cannot listen at 127.0.0.1" in captured.err
    assert "hint: give another --port" in captured.err
    assert captured.out == ""


def test_it_says_when_others_can_reach_it(path):
    for options, environment, expected in (
        (["--host", "0.0.0.0"], {}, "anyone there can use this server"),
        (["--host", "0.0.0.0"], {"EDGE_API_KEY": "key"}, "travel unencrypted"),
        ([], {}, None),
    ):
        with Served(path, *options, **environment) as served:
            assert served.url.startswith("http://")
        said = "over the network" in served.remarks
        assert said == (expected is not None)
        assert expected is None or expected in served.remarks
        assert served.process.returncode == 130


def test_without_its_packages_one_line_says_what_to_install(path):
    code = (
        "import sys; sys.modules['uvicorn'] = None\n"
        "from edgesdk.cli import main\n"
        f"sys.exit(main(['serve', {str(path)!r}]))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr == (
        "error: the server needs `uvicorn`, which is not installed\nhint: pip install 'edgesdk[serve]'\n"
    )
