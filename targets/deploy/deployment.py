"""What lies on a device under a name: ROOT/NAME/ with `edge-run`, the artifact and a record, `deployed.json`."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgesdk.errors import DeviceError, UsageError
from edgesdk.targets.connections import Connection
from edgesdk.targets.connections.push import file_sha256

__all__ = [
    "RECORD",
    "Deployment",
    "check_name",
    "deployment_name",
    "error_and_hint",
    "find_deployment",
    "same_artifact",
]

RECORD = "deployed.json"
_NO_RECORD = 44


@dataclass(frozen=True)
class Deployment:
    """One deployment. artifact, program: paths on the device; sha256: of the whole artifact that it was cut from.

    level: the largest level that was pushed; backends, prefill_backend, decode_backend: those of the bundle
    """

    name: str
    target: str
    folder: str
    artifact: str
    program: str
    sha256: str
    level: int
    file_bytes: int
    backends: tuple[str, ...]
    prefill_backend: str = ""
    decode_backend: str = ""

    def command(self, arguments: Sequence[str]) -> str:
        """The script that runs `edge-run COMMAND ARTIFACT OPTIONS` and becomes its process."""
        command, *options = arguments
        return "exec " + " ".join(map(shlex.quote, (self.program, command, self.artifact, *options)))

    def record(self) -> bytes:
        """The text of deployed.json; without backends that are not known, which older readers do not take."""
        fields = {name: value for name, value in asdict(self).items() if value != ""}
        return (json.dumps({"format_version": 1, **fields}, indent=2) + "\n").encode()


def error_and_hint(stderr: str) -> tuple[str, str]:
    """The last error that `edge-run` told there, and its hint; without one the end of what it said."""
    lines = stderr.splitlines()
    errors = [line.partition("error: ")[2] for line in lines if "error: " in line]
    hints = [line.removeprefix("hint: ") for line in lines if line.startswith("hint: ")]
    return errors[-1] if errors else " ".join(stderr.split())[-300:], hints[-1] if hints else ""


def check_name(name: str) -> str:
    """A name that is safe as a folder, or UsageError."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name):
        raise UsageError(
            f"`{name}` cannot be the name of a deployment",
            hint="use letters, digits, `.`, `_` and `-`: --name my-model",
        )
    return name


def deployment_name(given: Path) -> str:
    """The name that a bundle, an artifact or a bare name means: `model` for OUT/android and OUT/model.edge."""
    if given.is_dir():
        try:
            return Path(json.loads((given / "manifest.json").read_text("utf-8"))["artifact"]["path"]).stem
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"`{given}` is no bundle", hint="give a bundle, an .edge file or a deployment's name"
            ) from error
    return check_name(given.stem if given.suffix == ".edge" else str(given))


def find_deployment(connection: Connection, given: Path) -> Deployment:
    """The deployment of a bundle, an artifact or a name. Raises DeviceError when it is not there or another."""
    name = deployment_name(given)
    record = f"{connection.root}/{name}/{RECORD}"
    path = shlex.quote(record)
    finished = connection.run(f"[ -f {path} ] || exit {_NO_RECORD}; cat {path}")
    hint = f"edgesdk deploy BUNDLE --device {connection.name}" + ("" if name == "model" else f" --name {name}")
    if finished.status == _NO_RECORD:
        raise DeviceError(f"nothing is deployed as `{name}` on `{connection.name}`", hint=hint)
    try:
        fields: dict[str, Any] = json.loads(finished.text)
        fields.pop("format_version")
        found = Deployment(**{**fields, "backends": tuple(fields["backends"])})
    except (ValueError, KeyError, TypeError) as error:
        raise DeviceError(f"`{record}` on `{connection.name}` cannot be read", hint=hint) from error
    if not same_artifact(given, found.sha256):
        raise DeviceError(f"`{connection.name}` holds another artifact as `{name}` than `{given}`", hint=hint)
    return found


def same_artifact(given: Path, sha256: str) -> bool:
    """Whether a bundle or an artifact on this machine is what was deployed; a bare name always is."""
    if given.is_dir():
        manifest = json.loads((given / "manifest.json").read_text("utf-8"))
        return bool(manifest["artifact"].get("sha256") == sha256)
    return not given.is_file() or file_sha256(given, given.stat().st_size) == sha256
