"""Nothing talks to a network unasked: programs have no means to, Python code is watched, all of it runs without one."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_llama import write_tiny_llama

import edgesdk

PACKAGE = Path(edgesdk.__file__).parent
NETWORK = {"socket", "connect", "bind", "listen", "accept", "accept4", "getaddrinfo", "gethostbyname", "sendto"}

# Everything that a build and a run do; any use of a socket, by whichever package, ends the program.
USE = """
import sys

def watch(event, arguments):
    if event.startswith("socket.") or event in ("urllib.Request", "http.client.connect", "ftplib.connect"):
        raise SystemExit(f"network: {event} {arguments}")

sys.addaudithook(watch)
try:
    __import__("socket").getaddrinfo("localhost", 80)
except SystemExit as seen:
    print(seen)

from pathlib import Path
from small_builds import SMALL
from edgesdk.cloud.build import build_model
from edgesdk.formats import verify_artifact
import edgesdk

path = build_model(sys.argv[1], Path(sys.argv[2]), SMALL)
verify_artifact(path)
with edgesdk.load(path, adaptive=True) as model:
    model.generate("Hello", max_tokens=4)
    model.chat([{"role": "user", "content": "Hello"}], max_tokens=4)
    model.set_level(0, recompute="background")
    model.verify()
print("done")
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("network") / "model"
    write_tiny_llama(folder, intermediate_size=192)
    template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    (folder / "chat_template.jinja").write_text(template)
    return folder


def use(model: Path, out: Path, *before: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    command = [*before, sys.executable, "-c", USE, str(model), str(out)]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, timeout=300)


def test_a_build_and_a_run_open_no_socket(model: Path, tmp_path: Path) -> None:
    done = use(model, tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    seen, last = done.stdout.split("\n")[0], done.stdout.strip().rpartition("\n")[2]
    assert seen.startswith("network: socket.getaddrinfo")  # the watch works
    assert last == "done"


def test_all_of_it_works_where_there_is_no_network(model: Path, tmp_path: Path) -> None:
    alone = ["unshare", "--map-root-user", "--net"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("no network namespace can be made here (unshare --map-root-user --net)")
    assert "eth" not in subprocess.run([*alone, "cat", "/proc/net/dev"], capture_output=True, text=True).stdout
    done = use(model, tmp_path / "out", *alone)
    assert done.returncode == 0, done.stdout + done.stderr
    program, artifact = PACKAGE / "bin" / "edge-run", tmp_path / "out" / "model.edge"
    command = [*alone, str(program), "generate", str(artifact), "--prompt", "Hello", "--max-tokens", "4"]
    native = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert native.returncode == 0, native.stderr


@pytest.mark.parametrize("name", ["device/_native*.so", "bin/edge-run"])
def test_the_engine_has_no_means_to_talk_to_a_network(name: str) -> None:
    """Its undefined symbols are all that it can ask of the C library."""
    (program,) = PACKAGE.glob(name)
    symbols = subprocess.run(["nm", "-D", "--undefined-only", str(program)], capture_output=True, text=True, check=True)
    asked = {line.split()[-1].partition("@")[0] for line in symbols.stdout.splitlines()}
    assert "mmap" in asked | {name.removesuffix("64") for name in asked}
    assert not asked & NETWORK


def test_no_code_reads_pickles_or_runs_the_code_of_a_model() -> None:
    """Of the whole package: no module that unpickles, no torch.load, no eval or exec, nobody's trust_remote_code."""
    modules, calls = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}, {"eval", "exec", "torch.load"}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                assert not {name.name.partition(".")[0] for name in node.names} & modules, path
            elif isinstance(node, ast.ImportFrom):
                assert (node.module or "").partition(".")[0] not in modules, path
            elif isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in calls, path
                assert not {word.arg for word in node.keywords} & {"trust_remote_code", "allow_pickle"}, path
