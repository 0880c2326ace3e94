"""Devices for the tests of this folder: this machine, the stand-in behind the stock adb, sshd on the loopback."""

from __future__ import annotations

import subprocess

import pytest
from adbd import Adbd, AdbServer
from device_artifacts import write_tiny
from device_bundle import write_bundle
from link_proxy import LinkProxy
from sshd import Sshd

from edgesdk.targets.connections import AdbConnection, Connection, LocalConnection, SshConnection


@pytest.fixture(autouse=True)
def of_its_own(tmp_path, monkeypatch):
    """No test sees the user's own devices, keys or settings."""
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("ADB", str(tmp_path / "no_adb"))  # no server of the machine's own is started
    monkeypatch.setenv("EDGE_DEVICES", str(tmp_path / "devices.toml"))
    monkeypatch.setenv("EDGE_SSH_CONFIG", str(tmp_path / "no_ssh_config"))


@pytest.fixture(scope="session")
def adb_server(tmp_path_factory):
    server = AdbServer(tmp_path_factory.mktemp("adb"))
    yield server
    server.stop()


@pytest.fixture
def adb(adb_server, of_its_own, monkeypatch):
    """The stock client, with a server that knows only the test's own devices."""
    monkeypatch.setenv("ADB", adb_server.program)
    for name, value in adb_server.environment.items():
        monkeypatch.setenv(name, value)
    yield adb_server
    subprocess.run([adb_server.program, "disconnect"], check=False, capture_output=True, timeout=20)


@pytest.fixture
def phone(adb, tmp_path):
    device = Adbd(tmp_path / "phone")
    device.start()
    yield device
    device.stop()


@pytest.fixture(scope="session")
def sshd_server(tmp_path_factory):
    server = Sshd(tmp_path_factory.mktemp("sshd"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def sshd(sshd_server, of_its_own, monkeypatch):
    sshd_server.write_client(sshd_server.port)
    monkeypatch.setenv("EDGE_SSH_CONFIG", str(sshd_server.config))
    return sshd_server


@pytest.fixture(params=["local", "adb", "ssh"])
def connection(request, tmp_path) -> Connection:
    """A device that answers, by each of the three ways; its root is empty."""
    root = tmp_path / "device root"
    if request.param == "local":
        return LocalConnection(root=str(root))
    if request.param == "adb":
        phone = request.getfixturevalue("phone")
        made: Connection = AdbConnection(phone.serial)
    else:
        request.getfixturevalue("sshd")
        made = SshConnection("board", root=str(root))
    made.check()
    return made


@pytest.fixture(params=["adb", "ssh"])
def link(request, tmp_path):
    """A connection whose link goes through a proxy that can be cut: (connection, proxy)."""
    if request.param == "adb":
        proxy = LinkProxy(request.getfixturevalue("phone").port)
        made: Connection = AdbConnection(f"127.0.0.1:{proxy.port}")
    else:
        server = request.getfixturevalue("sshd")
        proxy = LinkProxy(server.port)
        server.write_client(proxy.port)
        made = SshConnection("board", root=str(tmp_path / "root"))
    made.check()
    yield made, proxy
    proxy.close()


@pytest.fixture(scope="session")
def out(tmp_path_factory):
    """What a build leaves: OUT/model.edge, and OUT/linux-x86_64 with this machine's own edge-run and a manifest."""
    folder = tmp_path_factory.mktemp("out")
    write_tiny(folder / "model.edge", chat=True)
    write_bundle(folder)
    return folder


@pytest.fixture
def bundle(out):
    (folder,) = (path.parent for path in out.glob("*/manifest.json"))
    return folder
