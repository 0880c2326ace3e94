"""A host for the stock `ssh` and `scp` programs: OpenSSH's own sshd on 127.0.0.1, with keys in a scratch folder."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from adbd import free_port

_SERVER = """Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
PidFile {folder}/sshd.pid
AuthorizedKeysFile {folder}/authorized_keys
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PermitRootLogin yes
Subsystem sftp internal-sftp
"""
_CLIENT = """Host board
  HostName 127.0.0.1
  Port {port}
  User {user}
  IdentityFile {folder}/user_key

Host stranger
  HostName 127.0.0.1
  Port {port}
  User {user}
  IdentityFile {folder}/other_key

Host unknown-key
  HostName 127.0.0.1
  Port {port}
  User {user}
  UserKnownHostsFile {folder}/no_hosts

Host *
  KexAlgorithms curve25519-sha256
  IdentitiesOnly yes
  IdentityAgent none
  GlobalKnownHostsFile /dev/null
  UserKnownHostsFile {folder}/known_hosts
"""


class Sshd:
    """Listens from `start` to `stop`; `config` is the client's configuration, which knows it as `board`.

    environment: of what it runs, beside sshd's own
    """

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        program = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
        if program is None or shutil.which("ssh") is None:
            pytest.skip("sshd or ssh is not installed (apt-get install openssh-server openssh-client)")
        self._program = program
        self.folder = folder
        self.port = free_port()
        self.config = folder / "ssh_config"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("host_key", "user_key", "other_key"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True, timeout=20
            )
        (folder / "authorized_keys").write_text((folder / "user_key.pub").read_text())
        extra = " ".join(f"{name}={value}" for name, value in (environment or {}).items())
        settings = _SERVER.format(port=self.port, folder=folder)
        (folder / "sshd_config").write_text(settings + (f"SetEnv {extra}\n" if extra else ""))
        self.write_client(self.port)

    def write_client(self, port: int) -> None:
        """Makes the client connect to another port, such as a proxy's."""
        key = (self.folder / "host_key.pub").read_text()
        ports = dict.fromkeys((self.port, port))
        (self.folder / "known_hosts").write_text("".join(f"[127.0.0.1]:{one} {key}" for one in ports))
        self.config.write_text(_CLIENT.format(port=port, folder=self.folder, user=getpass.getuser()))

    def start(self) -> None:
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # where sshd gives up its rights
        log = self.folder / "log"
        self._process = subprocess.Popen(
            [self._program, "-D", "-f", str(self.folder / "sshd_config"), "-E", str(log)], stdin=subprocess.DEVNULL
        )
        for _ in range(100):
            if self._process.poll() is not None:
                pytest.skip(f"sshd does not start here: {log.read_text() if log.exists() else 'no log'}")
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        pytest.fail("sshd does not listen")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=10)
            self._process = None
