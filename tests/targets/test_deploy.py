"""`edgesdk deploy`, `run --device`, `chat --device`: what lands on a device, and the text that comes back."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from device_bundle import write_bundle

import edgesdk
from edgesdk.cli import main
from edgesdk.errors import DeviceError, UsageError
from edgesdk.formats import Artifact
from edgesdk.targets.connections import LocalConnection
from edgesdk.targets.connections.push import file_sha256
from edgesdk.targets.deploy import deploy, find_deployment, read_bundle
from edgesdk.targets.deploy.deploy import check_fits
from edgesdk.targets.manifest import MANIFEST_SCHEMA
from edgesdk.targets.probe import probe


@pytest.fixture
def named(connection, tmp_path):
    """The connection's device under a name of devices.toml."""
    root = connection.root if connection.kind != "adb" else ""
    root = root.replace(" ", "_")
    (tmp_path / "devices.toml").write_text(
        f'[box]\nkind = "{connection.kind}"\naddress = "{connection.address}"\nroot = "{root}"\n'
    )
    connection.root = root or connection.root
    return connection


def deployed_files(connection) -> list[str]:
    root = shlex.quote(connection.root)
    return sorted(connection.run(f"[ -d {root} ] && cd {root} && find . -type f").text.split())


def test_deploy_pushes_once_and_only_what_changed(named, bundle, capsys):
    assert main(["deploy", str(bundle), "--device", "box", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    program = (bundle / "edge-run").stat().st_size
    whole = (bundle.parent / "model.edge").stat().st_size
    assert report["sent_bytes"] == program + whole
    assert report["version"] == f"edge-run {edgesdk.__version__}"
    assert deployed_files(named) == ["./model/deployed.json", "./model/edge-run", "./model/model.edge"]
    assert main(["deploy", str(bundle), "--device", "box", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sent_bytes"] == 0


def test_a_level_is_a_prefix_that_grows_and_shrinks(named, bundle, tmp_path, capsys):
    artifact = Artifact.open(bundle.parent / "model.edge")
    sizes = [level.file_bytes for level in artifact.levels]
    program = (bundle / "edge-run").stat().st_size
    sent = []
    for level in (0, 1, 0, 2):
        assert main(["deploy", str(bundle), "--device", "box", "--level", str(level), "--json"]) == 0
        sent.append(json.loads(capsys.readouterr().out)["sent_bytes"])
        named.pull(f"{named.root}/model/model.edge", tmp_path / "cut.edge")
        assert Artifact.open(tmp_path / "cut.edge").n_available_levels == level + 1
    assert sent == [program + sizes[0], sizes[1] - sizes[0], 0, sizes[2] - sizes[0]]


def test_a_budget_means_what_it_means_for_load(bundle, tmp_path):
    """Weights, cache and workspace: the level that is pushed is the one that `edgesdk.load` takes on the device."""
    read = read_bundle(bundle)
    connection = LocalConnection(root=str(tmp_path / "root"))
    for level in read.levels:
        for budget, expected in ((level.total_bytes, level.level), (level.total_bytes - 1, level.level - 1)):
            if expected < 0:
                continue
            assert deploy(read, connection, budget_bytes=budget).deployment.level == expected
            with edgesdk.load(read.artifact, budget=budget, threads=1) as model:
                assert model.level == expected
    with pytest.raises(UsageError, match="no level fits") as caught:
        deploy(read, connection, budget_bytes=read.levels[0].total_bytes - 1)
    assert f"the smallest one needs {read.levels[0].total_bytes:,}" in caught.value.hint
    with pytest.raises(UsageError, match="level 9 does not exist"):
        deploy(read, connection, level=9)


def test_the_bundle_of_these_tests_is_one(bundle):
    jsonschema.validate(json.loads((bundle / "manifest.json").read_text("utf-8")), MANIFEST_SCHEMA)


def test_run_gives_the_text_of_the_python_api(named, bundle, capsys):
    expected = edgesdk.load(bundle.parent / "model.edge", level=1).generate('it\'s "quoted" ü', max_tokens=12)
    assert main(["deploy", str(bundle), "--device", "box"]) == 0
    capsys.readouterr()
    for given in (bundle, bundle.parent / "model.edge", Path("model")):
        arguments = ["run", str(given), 'it\'s "quoted" ü', "--device", "box", "--level", "1", "-n", "12"]
        assert main(arguments) == 0
        captured = capsys.readouterr()
        assert captured.out == expected + "\n"
        assert "level 1 of 0..2" in captured.err
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == expected


RECORDS_BACKEND = """#!/bin/sh
case " $* " in *" --version "*) exec {real} "$@";; esac
echo "$*" >> {log}
case " $* " in *" --backend={refused} "*) printf 'error: no {refused} here\\nhint: buy one\\n' >&2; exit 1;; esac
exec {real} $(printf '%s\\n' "$@" | sed 's/--\\(decode-\\)*backend=.*/--backend=cpu/')
"""


@pytest.mark.parametrize(
    ("fastest", "refused", "asked", "expected", "said"),
    [
        ("", "none", "auto", "auto", ""),
        ("cpu", "none", "auto", "cuda --decode-backend=cpu", "backend cuda: cuda for prompts and cpu for answers"),
        ("cpu", "cuda", "auto", "auto", "backend auto: cuda, which is fastest as its bundle says, cannot be used: "),
        ("opencl", "none", "auto", "opencl", "backend opencl: opencl is fastest"),
        (
            "cuda",
            "cuda",
            "auto",
            "auto",
            "backend auto: cuda, which is fastest as its bundle says, cannot be used: ",
        ),
        ("opencl", "none", "cuda", "cuda", ""),
        ("opencl", "none", "auto --adaptive", "auto", ""),
    ],
)
def test_auto_is_the_backend_that_the_bundle_says_is_fastest(
    fastest, refused, asked, expected, said, out, tmp_path, capsys
):
    """The program writes down what it is asked for, and computes on the CPU."""
    folder = tmp_path / "out"
    shutil.copytree(out, folder)
    known = {"backends": ["cpu", "opencl", "cuda"], "prefill_backend": "cuda", "decode_backend": fastest}
    bundle = write_bundle(folder, **{key: value for key, value in known.items() if value})
    jsonschema.validate(json.loads((bundle / "manifest.json").read_text("utf-8")), MANIFEST_SCHEMA)
    root, log = tmp_path / "root", tmp_path / "asked.txt"
    (tmp_path / "devices.toml").write_text(f'[box]\nkind = "local"\naddress = "box"\nroot = "{root}"\n')
    assert main(["deploy", str(bundle), "--device", "box"]) == 0
    program = root / "model" / "edge-run"
    real = program.rename(root / "model" / "edge-run.real")
    program.write_text(RECORDS_BACKEND.format(real=real, log=log, refused=refused))
    program.chmod(0o755)
    capsys.readouterr()
    assert main(["run", str(bundle), "Hello", "--device", "box", "-n", "4", "--backend", *asked.split()]) == 0
    captured = capsys.readouterr()
    assert captured.out == edgesdk.load(folder / "model.edge").generate("Hello", max_tokens=4) + "\n"
    given = [option for option in log.read_text().splitlines()[-1].split() if "backend=" in option]
    assert " ".join(given) == f"--backend={expected}"
    assert said in captured.err
    assert ("backend " in captured.err) == bool(said)
    assert ("; hint: buy one" in captured.err) == (refused == "cuda")


def test_exit_codes_come_through(named, bundle, capsys):
    assert main(["deploy", str(bundle), "--device", "box"]) == 0
    assert main(["run", str(bundle), "x", "--device", "box", "--budget", "1KB"]) == 1
    assert "bytes are missing" in capsys.readouterr().err
    assert main(["run", str(bundle), "x", "--device", "box", "--level", "1", "--rate", "0.1"]) == 2


def test_chat_talks_line_by_line(named, bundle):
    assert main(["deploy", str(bundle), "--device", "box"]) == 0
    arguments = [
        "chat",
        str(bundle),
        "--device",
        "box",
        "--temperature",
        "0",
        "-n",
        "5",
        "--json",
        "--system",
        "be brief",
    ]
    result = subprocess.run(
        [sys.executable, "-m", "edgesdk", *arguments], input=b"one\ntwo\n", capture_output=True, check=True, timeout=60
    )
    first, second = (json.loads(line) for line in result.stdout.decode().splitlines())
    model = edgesdk.load(bundle.parent / "model.edge")
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "one"}]
    assert first["content"] == model.chat(messages, max_tokens=5)
    messages += [{"role": "assistant", "content": first["content"]}, {"role": "user", "content": "two"}]
    assert second["content"] == model.chat(messages, max_tokens=5)


@pytest.fixture
def endless(out, tmp_path):
    """A bundle whose edge-run prints a word and its process id, then a line each tenth of a second for a minute."""
    folder = tmp_path / "endless"
    folder.mkdir()
    shutil.copy(out / "model.edge", folder / "model.edge")
    bundle = write_bundle(folder)
    program = bundle / "edge-run"
    program.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && { echo edge-run 0; exit 0; }\necho "pid $$"\n'
        "n=0; while [ $n -lt 600 ]; do echo $n; n=$((n + 1)); sleep 0.1; done\n"
    )
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"][0]["sha256"] = file_sha256(program, program.stat().st_size)
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    return bundle


def test_ctrl_c_stops_the_program_on_the_device(named, endless):
    """Text streams while the program runs; an interrupt of the command ends the process over there."""
    assert main(["deploy", str(endless), "--device", "box"]) == 0
    command = [sys.executable, "-m", "edgesdk", "run", str(endless), "x", "--device", "box"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        begin = time.monotonic()
        pid = int(process.stdout.readline().split()[1])
        for n in range(5):
            assert process.stdout.readline() == b"%d\n" % n
        assert time.monotonic() - begin < 30
        assert (Path("/proc") / str(pid)).exists()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 130
    for _ in range(50):
        if not (Path("/proc") / str(pid)).exists():
            break
        time.sleep(0.1)
    assert not (Path("/proc") / str(pid)).exists()


def test_what_is_not_deployed(named, bundle, capsys):
    assert main(["run", str(bundle), "x", "--device", "box"]) == 1
    err = capsys.readouterr().err
    assert "nothing is deployed as `model` on `box`" in err
    assert "hint: edgesdk deploy BUNDLE --device box" in err


def test_another_artifact_under_the_same_name(bundle, tmp_path):
    connection = LocalConnection(root=str(tmp_path / "root"))
    deploy(read_bundle(bundle), connection)
    other = tmp_path / "model.edge"
    other.write_bytes((bundle.parent / "model.edge").read_bytes()[:-1])
    with pytest.raises(DeviceError, match="holds another artifact"):
        find_deployment(connection, other)
    assert find_deployment(connection, Path("model")).level == 2


@pytest.mark.parametrize("name", ["..", "a/b", "", "-x", "a b"])
def test_a_name_is_never_a_path(name, bundle, tmp_path):
    connection = LocalConnection(root=str(tmp_path / "root"))
    if name:
        with pytest.raises(UsageError, match="cannot be the name"):
            deploy(read_bundle(bundle), connection, name=name)
    else:
        assert deploy(read_bundle(bundle), connection, name=name).deployment.name == "model"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"abi": "aarch64-linux-musl"}, "the bundle is for aarch64"),
        ({"abi": "x86_64-linux-gnu.9.99"}, "needs glibc 9.99 or later"),
        ({"isa_floor": ["i8mm"]}, "the bundle needs i8mm"),
    ],
)
def test_a_bundle_for_another_machine(changes, message, out, tmp_path):
    info = probe(LocalConnection())
    if info.machine != "x86_64" or not info.libc:
        pytest.skip("written for x86-64 with glibc")
    shutil.copy(out / "model.edge", tmp_path / "model.edge")
    bundle = read_bundle(write_bundle(tmp_path, **changes))
    connection = LocalConnection(root=str(tmp_path / "root"))
    with pytest.raises(DeviceError, match=re.escape(message)) as caught:
        deploy(bundle, connection)
    assert caught.value.hint
    assert deployed_files(connection) == []
    write_bundle(tmp_path)
    assert deploy(read_bundle(bundle.folder), connection).sent_bytes > 0


def test_a_glibc_bundle_does_not_fit_a_phone(bundle):
    info = replace(probe(LocalConnection()), android=True, libc="")
    with pytest.raises(DeviceError, match="is an Android device") as caught:
        check_fits(replace(read_bundle(bundle), abi=f"{info.machine}-linux-gnu"), info, "phone")
    assert "--targets android" in caught.value.hint


def test_a_program_that_does_not_start(out, tmp_path):
    """Of the right machine by its manifest, yet nothing that it can execute."""
    shutil.copy(out / "model.edge", tmp_path / "model.edge")
    bundle = write_bundle(tmp_path)
    (bundle / "edge-run").write_bytes(b"\x7fELF" + bytes(60))
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"][0]["sha256"] = file_sha256(bundle / "edge-run", 64)
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    connection = LocalConnection(root=str(tmp_path / "root"))
    with pytest.raises(DeviceError, match="does not start"):
        deploy(read_bundle(bundle), connection)
    assert "./model/deployed.json" not in deployed_files(connection)


def test_a_bundle_behind_a_link(bundle, tmp_path):
    (tmp_path / "elsewhere").symlink_to(bundle)
    read = read_bundle(tmp_path / "elsewhere")
    assert deploy(read, LocalConnection(root=str(tmp_path / "root"))).deployment.level == 2


def test_a_bundle_that_was_changed(out, tmp_path):
    shutil.copy(out / "model.edge", tmp_path / "model.edge")
    bundle = read_bundle(write_bundle(tmp_path))
    with open(bundle.program, "ab") as file:
        file.write(b"x")
    with pytest.raises(UsageError, match="the manifest says"):
        deploy(bundle, LocalConnection(root=str(tmp_path / "root")))


def test_every_mistake_of_a_manifest_is_named(out, tmp_path):
    shutil.copy(out / "model.edge", tmp_path / "model.edge")
    bundle = write_bundle(tmp_path)
    manifest = json.loads((bundle / "manifest.json").read_text())
    del manifest["abi"], manifest["artifact"]["sha256"], manifest["artifact"]["levels"][1]["total_bytes"]
    del manifest["format_version"]
    manifest["files"] = []
    manifest["target"] = 3
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UsageError) as caught:
        read_bundle(bundle)
    for part in (
        "`abi` is missing",
        "`artifact.sha256` is missing",
        "`artifact.levels[1].total_bytes` is missing",
        "`format_version` is missing",
        "`target` is 3",
        "`files` does not name `edge-run`",
    ):
        assert part in caught.value.message


@pytest.mark.parametrize(("text", "message"), [("{", "is no JSON"), ("[]", "no JSON object"), (None, "is no bundle")])
def test_what_is_no_manifest(text, message, tmp_path):
    if text is not None:
        (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_bundle(tmp_path)


def test_a_newer_manifest(out, tmp_path):
    shutil.copy(out / "model.edge", tmp_path / "model.edge")
    with pytest.raises(UsageError, match="format version 2, this edgesdk reads 1"):
        read_bundle(write_bundle(tmp_path, format_version=2))


def test_devices_lists_this_machine(capsys):
    assert main(["devices", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)[0]
    assert (first["name"], first["kind"], first["state"], first["error"]) == ("local", "local", "ready", None)
    assert first["info"]["n_threads"] == os.cpu_count()
    assert main(["devices"]) == 0
    assert "local" in capsys.readouterr().out


def test_devices_lists_what_is_named(named, capsys):
    assert main(["devices", "--json"]) == 0
    listed = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert listed["box"]["state"] == "ready"
    assert listed["box"]["info"]["machine"] == listed["local"]["info"]["machine"]


def test_devices_asks_hosts_only_when_told(sshd, capsys):
    assert main(["devices", "--host", "board", "--json"]) == 0
    listed = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert (listed["board"]["state"], listed["stranger"]["state"]) == ("ready", "not asked")
    assert main(["devices", "--host", "stranger", "--json"]) == 0
    listed = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert listed["stranger"]["state"] == "not reached"
    assert "ssh-copy-id" in listed["stranger"]["error"]["hint"]
