"""States of devices behind adb, as the stock client reports them of the stand-in."""

from __future__ import annotations

import pytest
from adbd import Adbd, free_port

from edgesdk.errors import DeviceError, UsageError
from edgesdk.targets.connections import AdbConnection
from edgesdk.targets.connections.adb import AdbDevice, parse_adb_devices
from edgesdk.targets.devices import connect, find_device, list_devices

LISTED = """* daemon not running; starting now at tcp:5037
* daemon started successfully
List of devices attached
R5CT20ABCDE            device usb:1-2 product:o1s model:SM_G991B device:o1s transport_id:3
0123456789ABCDEF       no permissions (are your udev rules wrong?); see [http://example.org] usb:1-1 transport_id:1
emulator-5554          offline transport_id:2
192.168.1.7:5555       unauthorized transport_id:4

"""


def test_the_list_of_devices_is_read():
    assert parse_adb_devices(LISTED) == [
        AdbDevice("R5CT20ABCDE", "device", "SM_G991B", "o1s"),
        AdbDevice("0123456789ABCDEF", "no permissions", "", ""),
        AdbDevice("emulator-5554", "offline", "", ""),
        AdbDevice("192.168.1.7:5555", "unauthorized", "", ""),
    ]


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ("no permissions", "may not open", "udev rule"),
        ("error: insufficient permissions for device: user in plugdev group", "may not open", "udev rule"),
        ("error: device offline", "does not answer", "plug it in again"),
        ("error: device unauthorized.\nThis adb server's $ADB_VENDOR_KEYS is not set", "has not allowed", "unlock it"),
        ("adb: device 'phone' not found", "not attached", "USB debugging"),
        ("cannot connect to daemon at tcp:5037", "server on this machine", "adb start-server"),
        ("something new", "cannot be reached: something new", "connected"),
    ],
)
def test_each_state_has_a_way_out(words, message, hint):
    error = AdbConnection("phone").explain(words)
    assert message in error.message
    assert hint in error.hint


def test_a_device_over_tcp_is_connected_by_its_address(phone):
    device = find_device(phone.serial)
    assert device.kind == "adb"
    assert connect(device).run("echo here").stdout == b"here\n"
    (listed,) = (one for one in list_devices()[0] if one.kind == "adb")
    assert (listed.name, listed.state, listed.model) == (phone.serial, "ready", "Stand_in")
    assert find_device("Stand_in") == listed


def test_a_reboot(phone):
    """A device that goes away is one error; when it is back the next try works, without adb's own commands."""
    connection = connect(find_device(phone.serial))
    phone.stop()
    with pytest.raises(DeviceError):
        connection.run("echo gone")
    with pytest.raises(DeviceError, match=r"does not take connections|not attached|does not answer"):
        connection.check()
    phone.start()
    connection.check()
    assert connection.run("echo back").stdout == b"back\n"


def test_a_dead_device(adb):
    with pytest.raises(DeviceError, match="does not take connections") as caught:
        connect(find_device(f"127.0.0.1:{free_port()}"))
    assert caught.value.hint


def test_a_serial_that_is_not_attached(adb):
    with pytest.raises(DeviceError, match="not attached"):
        connect(find_device("adb:R5CT20ABCDE"))


def test_a_device_that_has_not_allowed_this_computer(adb, tmp_path):
    device = Adbd(tmp_path / "shy", authorized=False)
    device.start()
    try:
        with pytest.raises(DeviceError, match="has not allowed this computer") as caught:
            connect(find_device(device.serial))
        assert "accept the question" in caught.value.hint
        device.authorized = True
        assert connect(find_device(device.serial)).run("echo yes").stdout == b"yes\n"
    finally:
        device.stop()


def test_a_device_that_never_answers(adb, tmp_path):
    device = Adbd(tmp_path / "mute", silent=True)
    device.start()
    try:
        with pytest.raises(DeviceError) as caught:
            connect(find_device(device.serial))
        assert caught.value.hint
    finally:
        device.stop()


def test_two_devices_of_one_model(phone, tmp_path):
    twin = Adbd(tmp_path / "twin")
    twin.start()
    try:
        for device in (phone, twin):
            connect(find_device(device.serial))
        with pytest.raises(UsageError, match="2 devices are called `Stand_in`") as caught:
            find_device("Stand_in")
        assert caught.value.hint.startswith("--device adb:127.0.0.1:")
        for device in (phone, twin):
            assert find_device(f"adb:{device.serial}").address == device.serial
    finally:
        twin.stop()
