"""Scripts, files and faults by all three ways, with the stock adb, ssh and scp."""

from __future__ import annotations

import hashlib
import os
import random
import shlex
import stat
import subprocess
import threading
import time
from pathlib import Path

import pytest

from edgesdk.errors import DeviceError
from edgesdk.targets.connections import AdbConnection, LocalConnection, SshConnection, push_bytes, push_file

MEGABYTE = 1_000_000
FULL = """#!/bin/sh
head -c 1000000
echo "cat: write error: No space left on device" >&2
exit 1
"""


@pytest.fixture
def payload(tmp_path) -> Path:
    path = tmp_path / "payload.bin"
    path.write_bytes(random.Random(7).randbytes(8 * MEGABYTE))
    return path


def files(connection) -> list[str]:
    """Names under the root, as the device itself lists them."""
    root = shlex.quote(connection.root)
    return sorted(connection.run(f"[ -d {root} ] && cd {root} && find . -type f").text.split())


def alive(connection, pid: int) -> bool:
    """A process that has ended and was not waited for yet is a zombie, which is not alive."""
    state = connection.run(f"cat /proc/{pid}/stat 2>/dev/null").text
    return bool(state) and state.rpartition(")")[2].split()[0] != "Z"


def test_output_and_status_come_apart(connection):
    finished = connection.run("echo out; echo err >&2; exit 7")
    assert (finished.status, finished.stdout, finished.stderr) == (7, b"out\n", b"err\n")
    assert connection.run("true").status == 0
    assert connection.run("no-such-program-here").status == 127


def test_bytes_come_through_as_they_are(connection):
    data = bytes(range(256)) * 1000 + b"\r\n\x00\x1a\xff"
    finished = connection.run("cat", data=data)
    assert finished.stdout == data
    assert connection.run("head -c 3", data=data * 20).stdout == data[:3]


def test_quoted_words_arrive_whole(connection):
    words = ["a b", "it's", '"$HOME"', "`id`", "a\nb", "*", "\\", "-n", "ümlaut", "; exit 9 #", ""]
    finished = connection.run("printf '%s|' " + " ".join(map(shlex.quote, words)))
    assert finished.stdout == b"".join(word.encode() + b"|" for word in words)


def test_output_comes_while_the_program_runs(connection):
    seen = []
    status = connection.stream(
        "echo first; sleep 1; echo second", lambda data: seen.append((time.monotonic(), data)), lambda data: None
    )
    assert status == 0
    assert b"".join(data for _, data in seen) == b"first\nsecond\n"
    assert seen[-1][0] - seen[0][0] > 0.7


def test_an_interrupt_ends_the_program_on_the_device(connection):
    pids = []

    def interrupt(data):
        pids.append(int(data.split()[0]))
        raise KeyboardInterrupt

    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        connection.stream("echo $$; exec sleep 60", interrupt, lambda data: None)
    assert time.monotonic() - begin < 10
    assert not alive(connection, pids[0])


def test_a_program_that_ignores_the_interrupt_is_killed(connection):
    pids = []

    def interrupt(data):
        pids.append(int(data.split()[0]))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        connection.stream("trap '' INT; echo $$; while :; do sleep 0.1; done", interrupt, lambda data: None)
    assert not alive(connection, pids[0])


def test_silence_is_an_error(connection):
    with pytest.raises(DeviceError, match="did not answer for 1 s") as caught:
        connection.run("exec sleep 30", quiet_s=1)
    assert caught.value.hint


def test_push_and_pull(connection, payload, tmp_path):
    remote = f"{connection.root}/a/payload.bin"
    calls = []
    sent = push_file(connection, payload, remote, mode=0o755, progress=lambda *call: calls.append(call))
    assert sent == 8 * MEGABYTE
    assert calls[-1] == (8 * MEGABYTE, 8 * MEGABYTE)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert files(connection) == ["./a/payload.bin"]
    assert connection.run(f"[ -x {shlex.quote(remote)} ]").status == 0
    connection.pull(remote, tmp_path / "back.bin")
    assert (tmp_path / "back.bin").read_bytes() == payload.read_bytes()
    assert push_file(connection, payload, remote, mode=0o644) == 0
    assert connection.run(f"[ -x {shlex.quote(remote)} ]").status == 1
    connection.remove(f"{connection.root}/a", f"{connection.root}/absent")
    assert files(connection) == []


def test_pulling_what_is_not_there(connection, tmp_path):
    with pytest.raises(DeviceError, match=r"no file|cannot copy"):
        connection.pull("/nowhere/at/all", tmp_path / "back.bin")
    assert not (tmp_path / "back.bin").exists()


def test_only_what_is_missing_is_sent(connection, payload):
    remote = f"{connection.root}/payload.bin"
    data = payload.read_bytes()
    assert push_file(connection, payload, remote, n_bytes=3 * MEGABYTE) == 3 * MEGABYTE
    assert push_file(connection, payload, remote) == 5 * MEGABYTE
    assert digest(connection, remote) == hashlib.sha256(data).hexdigest()
    assert push_file(connection, payload, remote, n_bytes=2 * MEGABYTE) == 0
    assert digest(connection, remote) == hashlib.sha256(data[: 2 * MEGABYTE]).hexdigest()
    payload.write_bytes(b"x" + data[1:])
    assert push_file(connection, payload, remote) == 8 * MEGABYTE
    assert files(connection) == ["./payload.bin"]


def digest(connection, remote: str) -> str:
    return connection.run(f"sha256sum {shlex.quote(remote)}").text.split()[0]


def test_a_part_that_is_damaged_is_found_out(connection, payload):
    remote = f"{connection.root}/payload.bin"
    wanted = hashlib.sha256(payload.read_bytes()).hexdigest()
    push_bytes(connection, b"old", remote) if connection.run(
        f"mkdir -p {shlex.quote(connection.root)}"
    ).status == 0 else None
    push_bytes(connection, b"damaged" * 1000, f"{remote}.{wanted[:16]}.part")
    with pytest.raises(DeviceError, match=r"arrived on .* with SHA-256"):
        push_file(connection, payload, remote)
    assert connection.run(f"cat {shlex.quote(remote)}").stdout == b"old"
    assert files(connection) == ["./payload.bin"]
    assert push_file(connection, payload, remote) == 8 * MEGABYTE


def test_a_link_that_is_cut_goes_on_where_it_stopped(link, payload):
    """The plug is pulled in the middle of a push: one error, no half file, and the next try sends the rest alone."""
    connection, proxy = link
    remote = f"{connection.root}/payload.bin"
    proxy.cut_after = 4 * MEGABYTE
    with pytest.raises(DeviceError) as caught:
        push_file(connection, payload, remote)
    assert proxy.n_cuts == 1
    assert "run the command again" in caught.value.hint
    connection.check()
    (part,) = files(connection)
    assert part.endswith(".part")
    sent = push_file(connection, payload, remote)
    assert 0 < sent < 7 * MEGABYTE
    assert files(connection) == ["./payload.bin"]
    assert digest(connection, remote) == hashlib.sha256(payload.read_bytes()).hexdigest()


def test_a_link_that_is_cut_ends_a_stream(link):
    connection, proxy = link
    threading.Timer(1.0, proxy.cut).start()
    with pytest.raises(DeviceError, match="broke") as caught:
        connection.stream("echo begun; exec sleep 20", lambda data: None, lambda data: None)
    assert caught.value.hint
    connection.check()
    assert connection.run("echo back").stdout == b"back\n"


@pytest.fixture
def full_disk(tmp_path, monkeypatch):
    """A `cat` that finds the disk full after a million bytes. Returns the folder that holds it."""
    folder = tmp_path / "full"
    folder.mkdir()
    (folder / "cat").write_text(FULL)
    (folder / "cat").chmod(0o755)
    return folder


@pytest.mark.parametrize("kind", ["local", "adb"])
def test_a_full_disk(kind, full_disk, payload, tmp_path, request, monkeypatch):
    path = f"{full_disk}{os.pathsep}{os.environ['PATH']}"
    if kind == "local":
        connection = LocalConnection(root=str(tmp_path / "root"))
        monkeypatch.setenv("PATH", path)
    else:
        phone = request.getfixturevalue("phone")
        phone.environment["PATH"] = path
        connection = AdbConnection(phone.serial)
        connection.check()
    remote = f"{connection.root}/payload.bin"
    with pytest.raises(DeviceError, match=r"storage of .* is full") as caught:
        push_file(connection, payload, remote)
    assert "--level" in caught.value.hint
    assert files(connection) == []
    (full_disk / "cat").unlink()
    assert push_file(connection, payload, remote) == 8 * MEGABYTE


def test_too_little_space_is_said_before_anything_is_sent(payload, tmp_path, monkeypatch):
    shim = tmp_path / "bin"
    shim.mkdir()
    (shim / "df").write_text("#!/bin/sh\necho Filesystem\necho /dev/x 9000 8000 1000 89% /\n")
    (shim / "df").chmod(0o755)
    monkeypatch.setenv("PATH", f"{shim}{os.pathsep}{os.environ['PATH']}")
    connection = LocalConnection(root=str(tmp_path / "root"))
    with pytest.raises(DeviceError, match="1,024,000 bytes free, the push needs 8,000,000"):
        push_file(connection, payload, f"{connection.root}/payload.bin")
    assert files(connection) == []


def test_a_disk_that_is_really_full(payload, tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this process may not mount a small file system")
    try:
        connection = LocalConnection(root=str(folder / "root"))
        with pytest.raises(DeviceError, match="bytes free"):
            push_file(connection, payload, f"{connection.root}/payload.bin")
        assert push_file(connection, payload, f"{connection.root}/payload.bin", n_bytes=MEGABYTE) == MEGABYTE
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_folder_that_cannot_be_written(payload, tmp_path):
    (tmp_path / "file").write_text("")
    connection = LocalConnection(root=str(tmp_path / "file" / "root"))
    with pytest.raises(DeviceError, match="does not let this user write") as caught:
        push_file(connection, payload, f"{connection.root}/payload.bin")
    assert "devices.toml" in caught.value.hint


def test_a_part_is_for_its_owner_alone(tmp_path, payload):
    connection = LocalConnection(root=str(tmp_path / "root"))
    push_file(connection, payload, f"{connection.root}/payload.bin", mode=0o640)
    assert stat.S_IMODE((tmp_path / "root" / "payload.bin").stat().st_mode) == 0o640


@pytest.mark.parametrize(
    ("connection", "message"),
    [(AdbConnection("x"), "`adb` is not installed"), (SshConnection("x"), "`ssh` is not installed")],
    ids=["adb", "ssh"],
)
def test_a_missing_program_says_how_to_install_it(connection, message, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match=message) as caught:
        connection.check()
    assert "apt install" in caught.value.hint
    with pytest.raises(DeviceError, match=message):
        connection.run("true")
