"""Bundles for 64-bit ARM on stand-ins of a phone and a board: `devices`, `deploy`, `run`, `profile`, and the same text.

The stock adb, ssh and scp carry everything; the shells at the other end run ARM programs under qemu as a Cortex-A76.
"""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from adbd import Adbd
from arm_device import SYSROOT, ArmMachine
from bundles import make_bundle
from device_artifacts import edge_run, write_tiny
from sshd import Sshd

import edgesdk
from edgesdk.cli import main
from edgesdk.targets.deploy import read_bundle
from edgesdk.targets.measure import MEASURED_SCHEMA

pytestmark = pytest.mark.slow
PROMPT = 'it\'s "quoted" ü'
SETTING = ["--levels", "1", "--threads", "1", "--runs", "1", "--decode-tokens", "4", "--prompt-tokens", "8"]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("arm") / "tiny.edge", chat=True)


@pytest.fixture
def android(artifact, adb, tmp_path):
    """(bundle, kind, address, root) of a phone behind adb, for the static program."""
    bundle = make_bundle(artifact, "android", artifact.parent)
    device = Adbd(tmp_path / "phone", model="Arm_phone")
    device.environment.update(ArmMachine(tmp_path / "machine", android=True).environment)
    device.start()
    yield bundle, "adb", device.serial, ""
    device.stop()


@pytest.fixture(scope="module")
def arm_sshd(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arm-sshd")
    server = Sshd(folder / "sshd", environment=ArmMachine(folder / "machine", android=False).environment)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def jetson(artifact, arm_sshd, of_its_own, tmp_path, monkeypatch):
    """(bundle, kind, address, root) of a board behind ssh, for the program that needs glibc."""
    if not (SYSROOT / "lib" / "ld-linux-aarch64.so.1").exists():
        pytest.skip(f"no glibc for 64-bit ARM in {SYSROOT} (apt-get install libc6-arm64-cross)")
    monkeypatch.setenv("EDGE_SSH_CONFIG", str(arm_sshd.config))
    return make_bundle(artifact, "jetson", artifact.parent), "ssh", "board", str(tmp_path / "board")


@pytest.fixture(params=["android", "jetson"])
def arm(request, tmp_path) -> Path:
    """The bundle for the device that is called `arm`."""
    bundle, kind, address, root = request.getfixturevalue(request.param)
    (tmp_path / "devices.toml").write_text(f'[arm]\nkind = "{kind}"\naddress = "{address}"\nroot = "{root}"\n')
    return bundle


def test_from_devices_to_a_profile(arm, artifact, tmp_path, capsys):
    assert main(["devices", "--json"]) == 0
    listed = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    info = listed["arm"]["info"]
    phone = listed["arm"]["kind"] == "adb"
    assert (info["machine"], info["android"], info["n_threads"]) == ("aarch64", phone, 2)
    assert info["isa"] == ["neon", "dotprod", "fp16"]
    assert info["clusters"][0]["core"] == "Cortex-A76"

    assert main(["deploy", str(arm), "--device", "arm", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["version"] == f"edge-run {edgesdk.__version__}"
    assert report["sent_bytes"] == (arm / "edge-run").stat().st_size + artifact.stat().st_size

    for level in range(3):
        expected = edgesdk.load(artifact, level=level).generate(PROMPT, max_tokens=16)
        arguments = ["run", str(arm), PROMPT, "--device", "arm", "--level", str(level), "-n", "16"]
        assert main([*arguments, "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert (report["level"], report["text"]) == (level, expected)
    assert main(arguments) == 0
    assert capsys.readouterr().out == expected + "\n"

    assert main(["profile", str(arm), "--device", "arm", *SETTING, "--ops", "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    jsonschema.validate(measured, MEASURED_SCHEMA)
    (device,) = measured["devices"]
    (row,) = device["results"]
    assert (device["kind"], device["info"]["machine"], row["isa"]) == (listed["arm"]["kind"], "aarch64", "dotprod")
    assert {op["op"] for op in row["ops"]["decode"]["ops"]} >= {"qkv", "attention", "o", "gate_up", "down", "head"}
    bench = ["bench", artifact, "--level=1", "--prompt-tokens=8", "--decode-tokens=4", "--runs=1", "--json"]
    assert row["logits_hash"] == json.loads(edge_run(*bench).stdout)["levels"][0]["logits_hash"]


def test_the_bundle_of_this_machine_is_refused(arm, out, capsys):
    (own,) = (path.parent for path in out.glob("*/manifest.json"))
    if read_bundle(own).abi.startswith("aarch64"):
        pytest.skip("this machine is a 64-bit ARM one itself")
    assert main(["deploy", str(own), "--device", "arm"]) == 1
    said = capsys.readouterr().err
    assert "`arm` is aarch64" in said
    assert "--targets" in said
