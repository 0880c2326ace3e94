"""`edgesdk serve` as a process of its own, for the tests of serve/."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import psutil


class Served:
    """A running server; use it as a context."""

    def __init__(self, path: Path, *options: object, **environment: str) -> None:
        command = [sys.executable, "-m", "edgesdk", "serve", str(path), "--port", "0", "--json", *map(str, options)]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "NO_COLOR": "1", **environment},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            _, remarks = self.process.communicate()
            raise AssertionError(f"the server did not begin: {remarks}")
        self.report = json.loads(line)
        self.url: str = self.report["url"]
        self.name: str = self.report["model"]
        self.remarks = ""

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            _, self.remarks = self.process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def client(self, **options: Any) -> openai.OpenAI:
        return openai.OpenAI(**{"base_url": f"{self.url}/v1", "api_key": "none", "max_retries": 0, **options})

    def async_client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=300)

    def health(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/health", timeout=60) as response:
            return dict(json.load(response))

    def wait_for(self, held: Callable[[dict[str, Any]], bool], seconds: float = 60) -> dict[str, Any]:
        """The first health report for which this holds."""
        deadline = time.monotonic() + seconds
        while not held(report := self.health()):
            assert time.monotonic() < deadline, f"still {report}"
            time.sleep(0.02)
        return report

    def rss_bytes(self) -> int:
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def mapped_bytes(self, path: Path) -> int:
        """Bytes of address space that map this file."""
        lines = Path(f"/proc/{self.process.pid}/maps").read_text().splitlines()
        ranges = [line.split()[0].split("-") for line in lines if line.endswith(f" {path}")]
        return sum(int(end, 16) - int(begin, 16) for begin, end in ranges)
