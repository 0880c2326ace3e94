"""Who may import whom (docs/architecture.md), read from the source, and what a plain import costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "edgesdk": ROOT / "src" / "edgesdk",
    "edgesdk.cloud": ROOT / "cloud",
    "edgesdk.device": ROOT / "device",
    "edgesdk.formats": ROOT / "formats",
    "edgesdk.integrations": ROOT / "src" / "edgesdk" / "integrations",
    "edgesdk.report": ROOT / "src" / "edgesdk" / "report",
    "edgesdk.serve": ROOT / "src" / "edgesdk" / "serve",
    "edgesdk.targets": ROOT / "targets",
}
# Layer -> the other layers that it may import, and the packages from outside the standard library.
MAY_IMPORT: dict[str, set[str]] = {
    "edgesdk": {
        "edgesdk.errors",
        "edgesdk.cloud",
        "edgesdk.device",
        "edgesdk.formats",
        "edgesdk.report",
        "edgesdk.serve",
        "edgesdk.targets",
    },
    "edgesdk.cloud": {"edgesdk", "edgesdk.errors", "edgesdk.formats", "edgesdk.targets"},
    "edgesdk.device": {"edgesdk.errors", "edgesdk.formats"},
    "edgesdk.formats": {"edgesdk.errors"},
    "edgesdk.integrations": {"edgesdk", "edgesdk.errors", "edgesdk.device", "edgesdk.formats"},
    "edgesdk.report": {"edgesdk.errors", "edgesdk.formats"},
    "edgesdk.serve": {"edgesdk", "edgesdk.errors", "edgesdk.device"},
    "edgesdk.targets": {"edgesdk.errors"},
}
OUTSIDE: dict[str, set[str]] = {
    "edgesdk": {"rich", "typer"},
    "edgesdk.cloud": {"gguf", "huggingface_hub", "jinja2", "numpy", "ray", "safetensors", "tokenizers", "torch"},
    "edgesdk.device": {"jinja2", "numpy"},
    "edgesdk.formats": {"model_signing", "numpy"},
    "edgesdk.integrations": {"lm_eval", "numpy", "tqdm"},
    "edgesdk.report": {"matplotlib", "numpy"},
    "edgesdk.serve": {"anyio", "pydantic", "pydantic_core", "starlette", "uvicorn"},
    "edgesdk.targets": {"tomli"},
}
EXTRA = {"cloud/chat_template.py": {"edgesdk.device"}, "cloud/evaluate.py": {"edgesdk.device"}}
COPIED = ROOT / "formats" / "exports" / "hf_files"  # goes into exports as it is; nothing imports it


def sources() -> list[tuple[str, Path]]:
    """What is installed, each file with its innermost layer; device/engine holds C++ and a generator of its tables."""
    layers = {path: layer for layer, folder in FOLDERS.items() for path in sorted(folder.rglob("*.py"))}
    left_out = {ROOT / "device" / "engine", COPIED}
    return [(layer, path) for path, layer in layers.items() if not left_out & set(path.parents)]


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import in line {node.lineno}"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def layer_of(name: str) -> str:
    parts = name.split(".")
    folder = ".".join(parts[:2])
    return folder if folder in FOLDERS or folder == "edgesdk.errors" else "edgesdk"


@pytest.mark.parametrize(("layer", "path"), sources(), ids=lambda value: str(value).removeprefix(f"{ROOT}/"))
def test_imports_follow_the_layers(layer, path):
    allowed = MAY_IMPORT[layer] | {layer} | EXTRA.get(path.relative_to(ROOT).as_posix(), set())
    wrong = []
    for name in imported(path):
        top = name.split(".")[0]
        if top == "edgesdk":
            # `from edgesdk import __version__` is the only thing that other layers want from the top.
            if layer_of(name) not in allowed or (layer != "edgesdk" and name == "edgesdk.load"):
                wrong.append(name)
        elif top not in sys.stdlib_module_names and top not in OUTSIDE[layer]:
            wrong.append(name)
    assert not wrong, f"{layer} must not import {sorted(wrong)}"


def test_the_check_sees_a_forbidden_import(tmp_path):
    (tmp_path / "x.py").write_text("def f():\n    import torch\n    from edgesdk.cloud import build\n")
    assert imported(tmp_path / "x.py") == {"torch", "edgesdk.cloud.build"}
    assert layer_of("edgesdk.cloud.build") == "edgesdk.cloud"
    assert layer_of("edgesdk.errors.EdgeError") == "edgesdk.errors"
    assert layer_of("edgesdk.__version__") == "edgesdk"


def test_the_device_half_leaves_heavy_packages_alone():
    code = (
        "import sys, edgesdk, edgesdk.device, edgesdk.formats, edgesdk.targets, edgesdk.cli\n"
        "import edgesdk.integrations, edgesdk.report, edgesdk.serve, edgesdk.serve.limits\n"
        "from importlib import import_module\n"
        "from edgesdk.formats.exports import FORMATS\n"
        "for one in FORMATS: import_module(f'edgesdk.formats.exports.{one.name}')\n"
        "heavy = {'torch', 'safetensors', 'gguf', 'tokenizers', 'typer', 'rich', 'lm_eval', 'matplotlib',\n"
        "         'pydantic', 'starlette', 'uvicorn', 'onnx', 'onnxruntime', 'executorch', 'torchao',\n"
        "         'litert_torch', 'ai_edge_litert', 'ai_edge_quantizer', 'transformers'}\n"
        "print(*sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-P", "-c", code] if sys.version_info >= (3, 11) else [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == []


def test_importing_the_top_imports_nothing_else():
    code = "import sys, edgesdk\nprint(*sorted(n for n in sys.modules if n.startswith('edgesdk') or n == 'numpy'))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT / "tests"
    )
    assert result.stdout.split() == ["edgesdk", "edgesdk.errors"]
