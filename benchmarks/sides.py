"""The two sides of the speed benchmark, and what the machine can do: programs that are started, pinned, and read."""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gguf import GGUFReader
from peer import Peer
from rounds import pinned

from edgesdk.formats import Artifact
from edgesdk.formats.tiles import packed_bytes

__all__ = ["Machine", "OurModel", "PeerModel", "peak_rss_bytes", "seconds_to_first_byte"]

PROMPT = "The steam engine was improved by James Watt, who added a separate condenser to it"  # 16 tokens of SmolLM2
CONTEXT = 2048
Row = dict[str, Any]  # of the JSON that `edge-run bench` prints


@dataclass(frozen=True)
class OurModel:
    """An artifact, run by edge-run."""

    edge_run: Path
    path: Path

    @cached_property
    def artifact(self) -> Artifact:
        """Its checked header."""
        return Artifact.open(self.path)

    @property
    def top(self) -> int:
        """The full level."""
        return len(self.artifact.levels) - 1

    def bench(
        self, level: int, n_threads: int, prompt: int, decode: int, start: int = 0, runs: int = 1
    ) -> dict[str, Any]:
        """One process of `edge-run bench`: medians of `runs`, after one to warm up. start: tokens cached before."""
        context = -(-(start + prompt + decode) // 64) * 64
        options = {"level": level, "threads": n_threads, "context": context, "start": start, "runs": runs}
        options |= {"prompt-tokens": prompt, "decode-tokens": decode}
        command = [*pinned(n_threads), self.edge_run, "bench", self.path, "--no-probe", "--json"]
        report = json.loads(_output([*command, *(f"--{name}={value}" for name, value in options.items())]))
        return dict(report["levels"][0])

    def generate_command(self, n_threads: int, n_tokens: int) -> list[Any]:
        """A process that answers PROMPT at the full level."""
        command = [*pinned(n_threads), self.edge_run, "generate", self.path, "--prompt", PROMPT]
        options = {"level": self.top, "threads": n_threads, "context": CONTEXT, "max-tokens": n_tokens}
        return [*command, *(f"--{name}={value}" for name, value in options.items())]

    def head_bytes(self, level: int | None = None) -> int:
        """Bytes of the output matrix at a level (None: the full one), codes and scales."""
        name = "embed" if self.artifact.edge["model"]["tied_head"] else "head"
        boxes = self._boxes(name, self.top if level is None else level)
        return sum(
            packed_bytes(row_end - row, column_end - column, bits, group)
            for row, row_end, column, column_end, bits, group, _ in boxes
        )

    def bytes_per_token(self, level: int | None = None) -> int:
        """Bytes of weights that decoding one token reads at a level (None: the full one)."""
        return self.artifact.levels[self.top if level is None else level].block_bytes + self.head_bytes(level)

    def block_weights(self) -> int:
        """Weights of all blocks at the full level: multiply-accumulates per token of a prompt, without attention."""
        return sum((box[1] - box[0]) * (box[3] - box[2]) for box in self._boxes("blk.", self.top))

    def _boxes(self, prefix: str, level: int) -> list[list[int]]:
        """Panels of the weights of that name, in the versions that the level uses."""
        panels = self.artifact.edge["panels"]
        return [panels[name] for name in self.artifact.used_names(level) if name in panels and name.startswith(prefix)]

    def macs(self, begin: int, end: int) -> float:
        """Multiply-accumulates of pushing the tokens at these positions through the blocks, attention included."""
        attentions = [block for block in self.artifact.edge["model"]["blocks"] if block["kind"] == "attention"]
        per_key = sum(block["n_heads"] * (block["axes"]["qk"][0] + block["axes"]["vo"][0]) for block in attentions)
        n_pairs = (end * (end + 1) - begin * (begin + 1)) / 2
        return (end - begin) * self.block_weights() + n_pairs * per_key

    def announced_bytes(self) -> int:
        """Mapped bytes, cache and workspace of the full level, as the engine announces them."""
        info = json.loads(_output([self.edge_run, "info", self.path, "--json", f"--context={CONTEXT}"]))
        return int(info["levels"][self.top]["total_bytes"])


@dataclass(frozen=True)
class PeerModel:
    """A GGUF file, run by llama.cpp with its defaults."""

    peer: Peer
    path: Path

    def bench(self, n_threads: int, prompt: int, decode: int, start: int = 0, runs: int = 1) -> float:
        """Tokens per second of llama-bench: of a prompt, or of decoding (give one of them, and 0 for the other)."""
        numbers = f"-t {n_threads} -p {prompt} -n {decode} -d {start} -r {runs} -o json".split()
        command = [*pinned(n_threads), self.peer.program("llama-bench"), "-m", self.path, *numbers]
        (row,) = json.loads(_output(command))
        return float(sorted(row["samples_ts"])[(len(row["samples_ts"]) - 1) // 2])

    def bytes_per_token(self) -> int:
        """Bytes of weights that decoding one token reads: all matrices, but not an embedding that is no head."""
        matrices = {t.name: int(t.n_bytes) for t in GGUFReader(self.path).tensors if len(t.shape) == 2}
        if "output.weight" in matrices:
            del matrices["token_embd.weight"]
        return sum(matrices.values())

    def generate_command(self, n_threads: int, n_tokens: int, *, warm_up: bool) -> list[Any]:
        """A process that continues PROMPT: llama-completion, the program of the peer that does one text and ends."""
        command = [*pinned(n_threads), self.peer.program("llama-completion"), "-m", self.path, "-p", PROMPT]
        command += f"-t {n_threads} -n {n_tokens} -c {CONTEXT} --temp 0 -no-cnv --no-display-prompt".split()
        return command if warm_up else [*command, "--no-warmup"]


@dataclass(frozen=True)
class Machine:
    """What this machine can do at most: the probes of edge-run, which `edgesdk profile` uses on devices, too."""

    edge_run: Path

    def read_gb_per_s(self, n_bytes: int, n_threads: int) -> float:
        """Reading this many bytes of memory again and again."""
        return float(self._probe(n_threads, "stream_read", n_bytes)[0]["gb_per_s"])  # the next row reads caches

    def gmac_per_s(self, n_threads: int) -> float:
        """int8 dot products on registers only, with the best instruction set."""
        return max(float(row["gmac_per_s"]) for row in self._probe(n_threads, "dot_peak", 1))

    def _probe(self, n_threads: int, op: str, n_bytes: int) -> list[dict[str, Any]]:
        options = ["--json", f"--op={op}", f"--bytes={n_bytes}", f"--threads={n_threads}"]
        command = [*pinned(n_threads), self.edge_run, "bench", "--kernels", *options]
        return list(json.loads(_output(command))["kernels"])


def seconds_to_first_byte(command: list[Any]) -> float:
    """From starting a process to its first byte on stdout; the process then ends by itself."""
    begin = time.perf_counter()
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        first = os.read(process.stdout.fileno(), 1)
        elapsed = time.perf_counter() - begin
        process.stdout.read()
    if process.returncode != 0 or not first:
        raise SystemExit(f"error: {command} ended with {process.returncode} and {len(first)} bytes")
    return elapsed


def peak_rss_bytes(command: list[Any]) -> float:
    """The largest resident memory of a process, mapped files included: VmHWM, read until it ends."""
    peak = 0
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        status = Path(f"/proc/{process.pid}/status")
        while process.poll() is None:
            for line in status.read_text().splitlines():
                if line.startswith("VmHWM:"):
                    peak = max(peak, int(line.split()[1]) * 1024)
            time.sleep(0.002)
    if process.returncode != 0:
        raise SystemExit(f"error: {command} ended with {process.returncode}")
    return float(peak)


def _output(command: list[Any]) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"error: {' '.join(map(str, command))}\n{done.stderr[-2000:]}")
    return done.stdout
