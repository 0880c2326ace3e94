"""Which devices there are, and the connection to the one that a name means."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgesdk.errors import DeviceError, UsageError
from edgesdk.targets.connections import AdbConnection, Connection, LocalConnection, SshConnection
from edgesdk.targets.connections.adb import adb_devices
from edgesdk.targets.connections.ssh import ssh_aliases
from edgesdk.targets.device_file import read_device_file

__all__ = ["Device", "connect", "find_device", "list_devices"]

_CONNECTIONS: dict[str, type[LocalConnection] | type[AdbConnection] | type[SshConnection]] = {
    "local": LocalConnection,
    "adb": AdbConnection,
    "ssh": SshConnection,
}


@dataclass(frozen=True)
class Device:
    """One device that a name may mean.

    state: `ready` as far as is known without asking it, else adb's word, or `not asked` for an alias of the ssh
    configuration; model: another name it answers to, "" none; root: "" is the default of its kind
    """

    name: str
    kind: str
    address: str
    state: str = "ready"
    model: str = ""
    root: str = ""

    @property
    def full_name(self) -> str:
        """KIND:ADDRESS, which no other device has."""
        return "local" if (self.kind, self.address) == ("local", "local") else f"{self.kind}:{self.address}"


def list_devices(hosts: Sequence[str] = (), *, file: Path | None = None) -> tuple[list[Device], list[str]]:
    """All known devices and, apart, what kept others from being found (adb is not installed).

    This machine, the devices of devices.toml, what adb sees, `hosts` (user@host or aliases), aliases of the ssh
    configuration. file: another devices.toml.
    """
    remarks: list[str] = []
    named = read_device_file(file)
    devices = [Device("local", "local", "local")]
    try:
        attached = adb_devices()
    except DeviceError as error:
        attached = []
        remarks.append(str(error).replace("\nhint:", ";"))
    seen = {one.serial: one for one in attached}
    for one in named:
        found = seen.get(one.address) if one.kind == "adb" else None
        state = "ready" if found is None or found.state == "device" else found.state
        address = one.name if one.kind == "local" else one.address
        devices.append(Device(one.name, one.kind, address, state, found.model if found else "", one.root))
    taken = {(device.kind, device.address) for device in devices}
    for phone in attached:
        if ("adb", phone.serial) not in taken:
            state = "ready" if phone.state == "device" else phone.state
            devices.append(Device(phone.serial, "adb", phone.serial, state, phone.model))
    devices += [Device(host, "ssh", host) for host in dict.fromkeys(hosts) if ("ssh", host) not in taken]
    taken = {(device.kind, device.address) for device in devices}
    devices += [Device(alias, "ssh", alias, "not asked") for alias in ssh_aliases() if ("ssh", alias) not in taken]
    return devices, remarks


def find_device(name: str, *, file: Path | None = None) -> Device:
    """The device that a name means: of devices.toml, a serial number, a model, an ssh alias, user@host, KIND:ADDRESS.

    Raises UsageError for a name that none has, and for one that several have.

    Example:
        find_device("adb:192.168.1.7:5555")
    """
    kind, colon, address = name.partition(":")
    devices, remarks = list_devices(file=file)
    found = [one for one in devices if name in {one.name, one.full_name, one.address, one.model} - {""}]
    if len(found) > 1:
        names = ", ".join(f"{one.full_name} ({one.name})" for one in found)
        raise UsageError(f"{len(found)} devices are called `{name}`: {names}", hint=f"--device {found[0].full_name}")
    if found:
        return found[0]
    if colon and address and kind in {"adb", "ssh"}:
        return Device(address, kind, address)
    if "@" in name:
        return Device(name, "ssh", name)
    if re.fullmatch(r"[^\s:]+:\d+", name):
        return Device(name, "adb", name)
    known = ", ".join(one.name for one in devices)
    raise UsageError(
        f"no device is called `{name}`" + (f" ({'; '.join(remarks)})" if remarks else ""),
        hint=f"known: {known}; others are given as user@host, ssh:HOST or adb:HOST:PORT",
    )


def connect(device: Device) -> Connection:
    """The connection to a device; adb connects here, ssh with every call. Raises DeviceError."""
    connection = _CONNECTIONS[device.kind](device.address, name=device.name, root=device.root)
    if device.kind == "adb":
        connection.check()
    return connection
