"""The wheel: builds, installs into an environment that has nothing else, and runs an artifact there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import nanobind
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from tiny_model import nested_ladder, tiny_config, write_random_artifact

import edgesdk

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
SUFFIXES = {".c", ".cpp", ".h", ".inc"}
BUILD = Path(os.environ.get("EDGE_BUILD_DIR", ROOT / "build"))

RUN = """
import importlib.util, json, sys
import edgesdk
model = edgesdk.load(sys.argv[1], level=1)
logits = model.logits([1, 2, 3])
try:
    edgesdk.build
except edgesdk.MissingExtraError as error:
    missing = str(error)
print(json.dumps({
    "torch": importlib.util.find_spec("torch") is not None,
    "level": model.level,
    "shape": logits.shape,
    "finite": bool((abs(logits) < 1e9).all()),
    "missing": missing,
}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, f"-Cbuild-dir={BUILD}/wheel", "-w", str(out), str(ROOT)], check=True)
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def empty_environment(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run([str(folder / "bin" / "pip"), "install", "--quiet", str(wheel)], check=True)
    return folder


def run(*command: object) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, env=environment, timeout=120)


def test_the_wheel_holds_what_it_should_and_no_more(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in ("py.typed", "bin/edge-run", "include/edge.h", "formats/SPEC.md", "targets/probe.sh"):
        assert f"edgesdk/{wanted}" in names
    native = {name.removeprefix("edgesdk/native/") for name in names if name.startswith("edgesdk/native/")}
    others = {name for name in names if name.startswith("edgesdk/") and not name.startswith("edgesdk/native/")}
    compiled_by_users = "edgesdk/formats/exports/llama_logits.cpp"  # against their llama.cpp
    suffixes = {Path(name).suffix for name in others - {"edgesdk/bin/edge-run", compiled_by_users}}
    assert compiled_by_users in others
    assert suffixes <= {".py", ".pyi", ".typed", ".so", ".h", ".json", ".md", ".sh", ".toml"}
    assert [name for name in others if name.endswith(".h")] == ["edgesdk/include/edge.h"]
    kinds = {".c", ".cl", ".cmake", ".cpp", ".cu", ".h", ".in", ".inc", ".java", ".map", ".txt"}
    wanted = {
        path.relative_to(ROOT).as_posix()
        for folder in ("cmake", "kernels", "device")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in kinds
    }
    assert native == wanted | {"CMakeLists.txt"}
    sources = {f"edgesdk/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "formats").rglob("*.py")}
    assert sources <= set(names)


def test_it_says_what_of_others_is_compiled_in(wheel):
    """CycloneDX by its own schema, where PEP 770 has it, with the versions that the compiler read."""
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/sboms/edgesdk.cdx.json")]
    text = archive.read(name).decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bill = json.loads(text)
    assert bill["metadata"]["component"]["version"] == edgesdk.__version__
    found = {one["name"]: one["version"] for one in bill["components"]}
    installed = {package: version(package) for package in ("nanobind", "nlohmann-json")}
    assert found.items() >= installed.items()
    headers = Path(nanobind.include_dir()).parent / "ext" / "robin_map"
    assert re.findall(r"define TSL_RH_VERSION_\w+ (\d+)", next(headers.rglob("robin_growth_policy.h")).read_text()) == (
        found["robin-map"].split(".")
    )


def test_everything_that_is_included_is_ours_or_in_the_bill():
    """Headers of the native sources: the standard library's, the system's, our own, and those that the bill names."""
    paths = [path for folder in ("kernels", "device") for path in (ROOT / folder).rglob("*.*")]
    sources = [path for path in paths if path.suffix in SUFFIXES]
    included = {name for path in sources for name in re.findall(r"^#include <(.+)>", path.read_text(), re.M)}
    others = {name.split("/")[0] for name in included if "/" in name} - {"sys", "linux"}
    assert others == {"nlohmann", "nanobind"}


def test_it_runs_an_artifact_without_torch(empty_environment, tmp_path):
    config = tiny_config()
    write_random_artifact(tmp_path / "tiny.edge", config, nested_ladder(config))
    result = run(empty_environment / "bin" / "python", "-c", RUN, tmp_path / "tiny.edge")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    missing = report.pop("missing")
    assert report == {"torch": False, "level": 1, "shape": [3, config.vocab_size], "finite": True}
    assert "is not installed\nhint: pip install 'edgesdk[cloud]'" in missing


def test_the_command_says_what_it_lacks(empty_environment):
    result = run(empty_environment / "bin" / "edgesdk", "--help")
    assert result.returncode == 1
    assert result.stderr.endswith("hint: pip install 'edgesdk[cli]'\n")


def test_the_native_program_runs(empty_environment):
    (program,) = empty_environment.glob("lib/python*/site-packages/edgesdk/bin/edge-run")
    result = run(program, "--version")
    assert result.returncode == 0, result.stderr
    assert edgesdk.__version__ in result.stdout
