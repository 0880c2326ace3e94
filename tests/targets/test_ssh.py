"""Hosts behind the stock ssh: what goes wrong, and what the user is told."""

from __future__ import annotations

import pytest
from adbd import free_port
from link_proxy import LinkProxy

from edgesdk.errors import DeviceError, UsageError
from edgesdk.targets.connections import SshConnection
from edgesdk.targets.connections.ssh import ssh_aliases
from edgesdk.targets.devices import connect, find_device, list_devices


def test_an_alias_of_the_configuration(sshd):
    assert ssh_aliases() == ["board", "stranger", "unknown-key"]
    device = find_device("board")
    assert (device.kind, device.state) == ("ssh", "not asked")
    assert connect(device).run("echo here").stdout == b"here\n"


def test_a_host_that_was_asked_for_is_listed_once(sshd):
    names = [device.name for device in list_devices(["board", "me@elsewhere"])[0]]
    assert names.count("board") == 1
    assert "me@elsewhere" in names


@pytest.mark.parametrize(
    ("alias", "message", "hint"),
    [
        ("stranger", "does not let this user in", "ssh-copy-id"),
        ("unknown-key", "host key of `unknown-key` is not known", "by hand"),
        ("no-such-host.invalid", "cannot be resolved", "spelling"),
    ],
)
def test_a_host_that_cannot_be_entered(sshd, alias, message, hint):
    with pytest.raises(DeviceError, match=message) as caught:
        SshConnection(alias).check()
    assert hint in caught.value.hint


def test_a_host_that_is_down(sshd):
    sshd.write_client(free_port())
    with pytest.raises(DeviceError, match="refuses connections"):
        SshConnection("board").check()


def test_a_host_that_comes_back(sshd):
    proxy = LinkProxy(sshd.port)
    sshd.write_client(proxy.port)
    connection = SshConnection("board")
    connection.check()
    proxy.close()
    with pytest.raises(DeviceError):
        connection.run("true")
    sshd.write_client(sshd.port)
    assert connection.run("echo back").stdout == b"back\n"


@pytest.mark.parametrize("address", ["", "-oProxyCommand=id", "a b"])
def test_an_address_is_never_an_option(address):
    with pytest.raises(UsageError, match="no ssh host"):
        SshConnection(address)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("@@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @@\nHost key verification failed.", "another host key"),
        ("ssh: connect to host x port 22: Connection timed out", "did not answer"),
        ("ssh: connect to host x port 22: No route to host", "no way to"),
        ("Connection closed by 10.0.0.1 port 22", "closed the connection"),
    ],
)
def test_words_of_ssh(words, message):
    error = SshConnection("x").explain(words)
    assert message in error.message
    assert error.hint
