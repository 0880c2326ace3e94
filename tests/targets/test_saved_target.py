"""From a measured device to a build for it: `profile --save-target`, `build --targets`, `deploy`, `run`."""

from __future__ import annotations

import json
import platform

import pytest
from bundles import CACHE
from tiny_llama import write_tiny_llama

import edgesdk
from edgesdk.cli import main
from edgesdk.targets.profile import load_profile

pytestmark = pytest.mark.slow
KERNEL_SETS = {"avx2", "avx512vnni", "neon", "dotprod", "i8mm"}
SETTING = ["--levels", "0,2", "--threads", "1", "--runs", "1", "--decode-tokens", "4", "--prompt-tokens", "8"]


def test_a_build_for_a_machine_that_was_measured(out, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EDGESDK_CACHE", str(CACHE))
    monkeypatch.chdir(tmp_path)
    arguments = ["profile", str(out / "model.edge"), "--device", "local", *SETTING, "--save-target", "mine", "--json"]
    assert main(arguments) == 0
    (device,) = json.loads(capsys.readouterr().out)["devices"]

    write_tiny_llama(tmp_path / "tiny")
    build = ["build", str(tmp_path / "tiny"), "--preset", "fast", "--max-rate", "0.4", "--step", "0.2", "-o", "built"]
    assert main([*build, "--targets", "mine"]) == 2
    assert "./mine.toml" in capsys.readouterr().err
    assert main([*build, "--targets", "./mine.toml"]) == 0
    assert "mine: level" in capsys.readouterr().err

    manifest = json.loads((tmp_path / "built" / "mine" / "manifest.json").read_text("utf-8"))
    share = load_profile(f"linux-{platform.machine()}").memory_share
    assert manifest["target"] == "mine"
    assert manifest["isa_floor"] == [isa for isa in device["info"]["isa"] if isa in KERNEL_SETS]
    assert manifest["default_budget_bytes"] == int(device["info"]["memory_bytes"] * share)
    measured = device["read_gb_per_s"]
    assert manifest["limits"]["memory_gb_per_s"] == pytest.approx(measured, abs=0.01)
    levels = manifest["artifact"]["levels"]
    for level, limit in zip(levels, manifest["limits"]["tokens_per_s"], strict=True):
        assert limit == pytest.approx(measured * 1e9 / level["token_bytes"], rel=0.01)

    assert main(["deploy", "built/mine", "--device", "local"]) == 0
    capsys.readouterr()
    assert main(["run", "built/mine", "The ladder", "--device", "local", "-n", "8"]) == 0
    expected = edgesdk.load("built/model.edge").generate("The ladder", max_tokens=8)
    assert capsys.readouterr().out == expected + "\n"
