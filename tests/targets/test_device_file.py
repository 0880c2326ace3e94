"""devices.toml: what it may say, and that every mistake is named at once."""

from __future__ import annotations

import pytest

from edgesdk.errors import UsageError
from edgesdk.targets.device_file import NamedDevice, read_device_file
from edgesdk.targets.devices import Device, find_device, list_devices

GOOD = """
[pi]
kind = "ssh"
address = "me@raspberrypi"
root = "/srv/edgesdk"

[bench-phone]
kind = "adb"
address = "192.168.1.7:5555"

[scratch]
kind = "local"
"""


def test_it_names_devices(tmp_path):
    path = tmp_path / "devices.toml"
    path.write_text(GOOD)
    assert read_device_file(path) == [
        NamedDevice("pi", "ssh", "me@raspberrypi", "/srv/edgesdk"),
        NamedDevice("bench-phone", "adb", "192.168.1.7:5555", ""),
        NamedDevice("scratch", "local", "", ""),
    ]
    assert find_device("pi") == Device("pi", "ssh", "me@raspberrypi", root="/srv/edgesdk")
    assert find_device("me@raspberrypi").name == "pi"
    assert [device.name for device in list_devices()[0]][:4] == ["local", "pi", "bench-phone", "scratch"]


def test_without_a_file_there_are_none(tmp_path):
    assert read_device_file(tmp_path / "absent.toml") == []
    assert find_device("local").full_name == "local"


def test_every_mistake_is_named_at_once(tmp_path):
    path = tmp_path / "devices.toml"
    path.write_text(
        'loose = 3\n[all]\nkind = "ssh"\naddress = "x"\n[a]\nkind = "usb"\naddress = "x"\nport = 22\n'
        '[b]\nkind = "adb"\n[c]\nkind = "ssh"\naddress = "x"\nroot = "$(id)"\n'
    )
    with pytest.raises(UsageError) as caught:
        read_device_file(path)
    for part in (
        "`loose` is 3",
        "`all` cannot be",
        "`a.kind` is 'usb'",
        "`a.port` is unknown",
        "`b.address`",
        "`c.root`",
    ):
        assert part in caught.value.message
    assert "docs/devices.md" in caught.value.hint


def test_what_is_no_toml(tmp_path):
    path = tmp_path / "devices.toml"
    path.write_text("[pi")
    with pytest.raises(UsageError, match="is no TOML"):
        read_device_file(path)


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    (tmp_path / "devices.toml").write_text(GOOD)
    with pytest.raises(UsageError, match="no device is called `toaster`") as caught:
        find_device("toaster")
    assert "bench-phone" in caught.value.hint


def test_one_name_for_two_devices(tmp_path, monkeypatch):
    (tmp_path / "devices.toml").write_text(GOOD)
    (tmp_path / "config").write_text("Host pi other\n  User me\n")
    monkeypatch.setenv("EDGE_SSH_CONFIG", str(tmp_path / "config"))
    with pytest.raises(UsageError, match="2 devices are called `pi`") as caught:
        find_device("pi")
    assert caught.value.hint == "--device ssh:me@raspberrypi"
    assert find_device("ssh:pi").address == "pi"
