"""Records the terminal session of the README: a model built for two targets, and put on a phone and a board.

    python benchmarks/session.py [--model smollm2] [--preset fast] [--out build/session]      # or: make bench-session

Phone and board are the stand-ins of the tests: a small adbd behind the stock adb, OpenSSH's sshd on the loopback; their
shells run 64-bit ARM programs under qemu, so speeds are an emulator's. Commands and all that they print go to the
terminal and to build/bench/session.txt. A second run takes the build that is there.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from figures import BENCH

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from adbd import Adbd, AdbServer
from arm_device import ArmMachine
from sshd import Sshd

PROMPT = "The capital of France is"
SETTING = "--threads 1 --prompt-tokens 16 --decode-tokens 8 --runs 2"
DEVICES = """[phone]
kind = "adb"
address = "{phone}"

[board]
kind = "ssh"
address = "board"
root = "{root}"
"""


class Session:
    """Runs commands in a folder and keeps what a terminal would have shown."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = {**os.environ, "NO_COLOR": "1", **environment}
        self.text = ""

    def run(self, command: str) -> None:
        """One line as it would be typed; `edgesdk` is this environment's. Ends the recording where it fails."""
        self._show(f"$ {command}\n")
        words = shlex.split(command)
        arguments = [sys.executable, "-m", *words] if words[0] == "edgesdk" else words
        with subprocess.Popen(
            arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=self._environment, cwd=self._folder
        ) as process:
            for line in process.stdout or ():
                self._show(line.decode("utf-8", "replace"))
        if process.returncode:
            raise SystemExit(f"error: `{command}` ended with {process.returncode}")

    def _show(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()
        self.text += text


def start_devices(stack: ExitStack, folder: Path) -> dict[str, str]:
    """Starts phone and board until the stack closes; returns what `edgesdk` needs to know them by name."""
    server = AdbServer(folder)
    stack.callback(server.stop)
    phone = Adbd(folder / "phone", model="Stand_in")
    phone.environment.update(ArmMachine(folder / "phone-machine", android=True).environment)
    phone.start()
    stack.callback(phone.stop)
    board = Sshd(folder / "sshd", environment=ArmMachine(folder / "board-machine", android=False).environment)
    board.start()
    stack.callback(board.stop)
    others = re.compile(r"^Host (stranger|unknown-key)\n(  .*\n)+\n?", re.MULTILINE)
    board.config.write_text(others.sub("", board.config.read_text()))
    named = folder / "devices.toml"
    named.write_text(DEVICES.format(phone=phone.serial, root=folder / "board"))
    environment = {name: server.environment[name] for name in ("ANDROID_ADB_SERVER_PORT", "ANDROID_USER_HOME")}
    return {**environment, "EDGE_DEVICES": str(named), "EDGE_SSH_CONFIG": str(board.config)}


def record(session: Session, model: str, preset: str, folder: Path) -> None:
    """From a model to figures of its smallest and its full level on two devices."""
    session.run(f"edgesdk build {model} --preset {preset} --targets android,jetson -o out")
    session.run("edgesdk devices")
    manifest = json.loads((folder / "out" / "android" / "manifest.json").read_text("utf-8"))
    levels = f"--levels 0,{len(manifest['artifact']['levels']) - 1}"
    for device, bundle in (("phone", "out/android"), ("board", "out/jetson-orin-nano")):
        session.run(f"edgesdk deploy {bundle} --device {device}")
        session.run(f"edgesdk run {bundle} '{PROMPT}' --device {device} -n 8")
        session.run(f"edgesdk profile {bundle} --device {device} {levels} {SETTING}")
    session.run("edgesdk deploy out/android --device phone")


def main() -> None:
    """Records."""
    parser = argparse.ArgumentParser(description="record the terminal session of the README")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--out", type=Path, default=BENCH.parent / "session")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    BENCH.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="edgesdk-session-")))
        try:
            session = Session(arguments.out, start_devices(stack, folder))
        except pytest.skip.Exception as missing:
            raise SystemExit(f"error: {missing}") from missing
        record(session, arguments.model, arguments.preset, arguments.out)
    kept = session.text.replace(str(folder), "/stand-in")
    (BENCH / "session.txt").write_text(kept, "utf-8")
    sys.stdout.write(f"wrote {BENCH / 'session.txt'}\n")


if __name__ == "__main__":
    main()
