"""Peak memory of the compiler on a checkpoint that does not fit: a 7B shape under a limit of 6 GiB.

    python benchmarks/large_model.py [--layers 8] [--blocks 2] [--bits 4] [--limit 6] [--keep [--resume]]

Writes a sharded float32 checkpoint of Llama-2-7B's sizes with random weights, one layer a shard, and runs the whole
compiler on it in a process (with all that it starts) whose control group has the limit. Every step runs over every
layer, but GPTQ: only the first --blocks blocks are quantized, to --bits bits (to others they are rounded), and the
first rows of the embedding; later blocks and rows take their codes, which is what a build that goes on where it was
would find. Anonymous memory of the process tree is sampled; its peak is held against three times the largest block
plus statistics.
Writes build/bench/large_model.json; `make bench-large_model` runs it. Linux; the limit needs root (control groups,
version 1 or 2), without it only the samples are checked.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from figures import BENCH, Figure, write_figures
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from control_group import ControlGroup, control_group

D_MODEL, WIDTH, N_HEADS, VOCAB = 4096, 11008, 32, 32000
FULL_LAYERS = 32
WINDOWS, WINDOW_TOKENS, EVALUATION_TOKENS = 4, 64, 128
TEXT = Path(__file__).parents[1] / "docs" / "LOG.md"
SAMPLE_SECONDS = 0.05
COMMAND = "python benchmarks/large_model.py"


def write_checkpoint(folder: Path, n_layers: int) -> None:
    """Random weights, a layer at a time; about 0.8 GB each, and 1 GB for embedding and head."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)

    def matrix(rows: int, columns: int) -> torch.Tensor:
        return torch.randn(rows, columns, generator=generator).mul_(columns**-0.5)

    def gain() -> torch.Tensor:
        return torch.rand(D_MODEL, generator=generator) + 0.5

    places: dict[str, str] = {}

    def save(number: int, tensors: dict[str, torch.Tensor]) -> None:
        name = f"model-{number + 1:05d}-of-{n_layers + 1:05d}.safetensors"
        save_file(tensors, folder / name, {"format": "pt"})
        places.update(dict.fromkeys(tensors, name))

    for layer in range(n_layers):
        below = f"model.layers.{layer}."
        tensors = {f"{below}self_attn.{role}_proj.weight": matrix(D_MODEL, D_MODEL) for role in "qkvo"}
        tensors |= {f"{below}mlp.{role}_proj.weight": matrix(WIDTH, D_MODEL) for role in ("gate", "up")}
        tensors[f"{below}mlp.down_proj.weight"] = matrix(D_MODEL, WIDTH)
        tensors |= {f"{below}{norm}.weight": gain() for norm in ("input_layernorm", "post_attention_layernorm")}
        save(layer, tensors)
    embedding = torch.randn(VOCAB, D_MODEL, generator=generator)
    whole = {"model.embed_tokens.weight": embedding, "model.norm.weight": gain()}
    save(n_layers, {**whole, "lm_head.weight": matrix(VOCAB, D_MODEL)})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    config = {
        "model_type": "llama",
        "hidden_size": D_MODEL,
        "intermediate_size": WIDTH,
        "num_hidden_layers": n_layers,
        "num_attention_heads": N_HEADS,
        "num_key_value_heads": N_HEADS,
        "vocab_size": VOCAB,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    (folder / "config.json").write_text(json.dumps(config))
    write_tokenizer(folder)


def write_tokenizer(folder: Path) -> None:
    """A small byte-level BPE: token ids below 1000 are enough to fill windows."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1000, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([TEXT.read_text("utf-8")], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(special))


def configuration() -> Any:
    """Every step of the default build, on little text."""
    from edgesdk.cloud.config import (
        AllocateConfig,
        BuildConfig,
        CalibrateConfig,
        EvaluateConfig,
        QuantizeConfig,
        TuneConfig,
    )

    return BuildConfig(
        calibrate=CalibrateConfig(text=str(TEXT), n_windows=WINDOWS, window_tokens=WINDOW_TOKENS),
        allocate=AllocateConfig(
            n_windows=1, window_tokens=32, cost_windows=1, max_rate=0.4, step=0.2, min_bits=3, fractions=(0.6,)
        ),
        quantize=QuantizeConfig(model_bits=4),
        tune=TuneConfig(wide_windows=1, batch_windows=2),
        evaluate=EvaluateConfig(text=str(TEXT), n_windows=1, window_tokens=EVALUATION_TOKENS),
    )


def limited(quantize: Callable[..., None], n_blocks: int, exact: Sequence[int]) -> Callable[..., None]:
    """Quantizes the first blocks, to `exact` numbers of bits, and rounds them to others.

    Later blocks get links to the codes of a block of their kind.
    """
    from edgesdk.cloud.stored import codes_name

    def run(
        files: Any,
        model: Any,
        config: Any,
        calibration: Any,
        work: Any,
        wanted: Iterable[tuple[int, str, int]],
        executor: Any,
        progress: Any = None,
    ) -> None:
        wanted = list(wanted)
        first = dict.fromkeys((index % n_blocks, role, bits) for index, role, bits in wanted)
        rounded = replace(config, quantize=replace(config.quantize, method="rtn"))
        for settings, own in ((config, True), (rounded, False)):
            some = [version for version in first if (version[2] in exact) == own]
            quantize(files, model, settings, calibration, work, some, executor, progress)
        for index, role, bits in wanted:
            if not work.has(codes_name(index, role, bits)):
                os.link(work.path(codes_name(index % n_blocks, role, bits)), work.path(codes_name(index, role, bits)))

    return run


def limited_rows(quantize: Callable[..., Any], n_rows: int) -> Callable[..., Any]:
    """Quantizes n_rows of embedding and head; other rows repeat them."""
    made: dict[tuple[int, bool], Any] = {}

    def run(weight: torch.Tensor, group: int, bits: int, moment: torch.Tensor | None = None) -> Any:
        key = bits, moment is None  # the embedding has none
        if key not in made:
            made[key] = quantize(weight[:n_rows], group, bits, moment)
        own = made[key]
        rows = np.arange(len(weight)) % n_rows
        return replace(own, codes=own.codes[rows], scales=own.scales[rows])

    return run


def compile_limited(folder: Path, out: Path, n_blocks: int, bits: Sequence[int], n_rows: int) -> None:
    """In the limited process: builds, and says on stdout which step has begun."""
    import edgesdk
    from edgesdk.cloud import build
    from edgesdk.device import load  # what evaluation needs: imported here, so that the first sample has it

    build.quantize_blocks = limited(build.quantize_blocks, n_blocks, bits)
    build.quantize_rows = limited_rows(build.quantize_rows, n_rows)
    last = ""

    def progress(step: str, done: int, total: int) -> None:
        nonlocal last
        if step != last:
            last = step
            print(step, flush=True)

    print("imports", load.__name__ and "", flush=True)
    time.sleep(1)
    edgesdk.build(str(folder), out, configuration(), progress=progress)


@dataclass
class Peaks:
    """Anonymous bytes of a process and all that it started, by step."""

    pid: int
    step: str = "start"
    by_step: dict[str, int] = field(default_factory=dict)
    smaps: int = 0
    done: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        """Samples until `done`; the exact count of smaps_rollup at every new high."""
        while not self.done.wait(SAMPLE_SECONDS):
            pids = tree(self.pid)
            now = sum(status_bytes(pid, "RssAnon") for pid in pids)
            if now > max(self.by_step.values(), default=0):
                self.smaps = max(self.smaps, sum(smaps_anonymous(pid) for pid in pids))
            self.by_step[self.step] = max(now, self.by_step.get(self.step, 0))


def tree(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:
            continue
        for child in children:
            found += tree(int(child))
    return found


def status_bytes(pid: int, name: str) -> int:
    """A field of /proc/PID/status, in bytes; 0 when the process is gone."""
    return sum(int(line.split()[1]) << 10 for line in lines(pid, "status") if line.startswith(f"{name}:"))


def smaps_anonymous(pid: int) -> int:
    """Anonymous bytes by the page tables."""
    return sum(int(line.split()[1]) << 10 for line in lines(pid, "smaps_rollup") if line.startswith("Anonymous:"))


def lines(pid: int, name: str) -> list[str]:
    """Of a file of a process that may be gone."""
    try:
        return Path(f"/proc/{pid}/{name}").read_text().splitlines()
    except OSError:
        return []


def run_limited(
    folder: Path, out: Path, n_blocks: int, bits: Sequence[int], n_rows: int, limit_bytes: int
) -> tuple[Peaks, int]:
    """Runs the build; returns the peaks, and the highest use of the control group, page cache included (0: none)."""
    own = [sys.executable, __file__, "--child", str(folder), str(out), "--blocks", str(n_blocks)]
    own += ["--bits", *map(str, bits), "--rows", str(n_rows)]
    with ExitStack() as stack:
        group: ControlGroup | None = None
        try:
            group = stack.enter_context(control_group(limit_bytes))
        except OSError as error:
            print(f"no control group can be made: {error}; only samples are checked")
        join = "" if group is None else f"echo $$ > {group.processes} && "
        child = subprocess.Popen(["sh", "-c", f'{join}exec "$@"', "sh", *own], stdout=subprocess.PIPE, text=True)
        peaks = Peaks(child.pid)
        watcher = threading.Thread(target=peaks.watch)
        watcher.start()
        begin = time.monotonic()
        for line in child.stdout or ():
            before = peaks.by_step.get(peaks.step, 0)
            peaks.step = line.strip()
            print(f"{before / 1e6:8.0f} MB\n{time.monotonic() - begin:7.0f} s  {peaks.step:12}", end="", flush=True)
        status = child.wait()
        peaks.done.set()
        watcher.join()
        highest = 0 if group is None else group.highest_bytes()
    if status:
        raise SystemExit(f"the build ended with status {status}; peaks until then: {peaks.by_step}")
    return peaks, highest


def statistics_bytes(out: Path) -> dict[str, int]:
    """What is known of the text: the parts of the bound beside the blocks."""
    moments = max((out / "work").glob("moments-*/moments-*.safetensors"), key=lambda path: path.stat().st_size)
    stream = 4 * D_MODEL * max(WINDOWS * WINDOW_TOKENS, EVALUATION_TOKENS)
    return {
        "moments of the largest block": moments.stat().st_size,
        "the largest of them in float64, being inverted": 8 * WIDTH**2,
        "residual stream of the text, before a layer and now": 2 * stream,
    }


def report(out: Path, peaks: Peaks, highest: int, n_layers: int, n_blocks: int, limit_bytes: int) -> int:
    """Prints peaks, bound and an estimate for all layers; returns 1 when the bound is broken."""
    block = 4 * 3 * D_MODEL * WIDTH
    statistics = statistics_bytes(out)
    bound, peak = 3 * block + sum(statistics.values()), max(peaks.by_step.values())
    print("\npeak of anonymous memory, by step:")
    for step, n_bytes in peaks.by_step.items():
        print(f"  {step:12} {n_bytes / 1e6:8.0f} MB")
    print(f"peak {peak / 1e6:.0f} MB (RssAnon), {peaks.smaps / 1e6:.0f} MB (smaps_rollup)")
    print(f"bound {bound / 1e6:.0f} MB = 3 x {block / 1e6:.0f} MB (gate, up, down in float32)")
    for name, n_bytes in statistics.items():
        print(f"  + {n_bytes / 1e6:.0f} MB {name}")
    strict = 3 * block + statistics["moments of the largest block"]
    print(f"without the float64 copy and the stream it would be {strict / 1e6:.0f} MB")
    if highest:
        print(f"control group: {highest / 2**30:.2f} of {limit_bytes / 2**30:.2f} GiB at most, page cache included")
    seconds = json.loads((out / "build.json").read_text())["seconds"]
    print(f"\nseconds by step, {n_layers} layers, {n_blocks} blocks quantized: {seconds}")
    figures = [
        Figure("peak anonymous MB against the bound", peak / 1e6, bound / 1e6, bound / peak, 1.0, "MB", COMMAND),
        Figure(
            "peak anonymous MB against the limit", peak / 1e6, limit_bytes / 1e6, limit_bytes / peak, 1.0, "MB", COMMAND
        ),
    ]
    print(f"wrote {write_figures('large_model', figures)}")
    return int(peak > bound)


def main() -> int:
    """Writes the checkpoint, builds under the limit, reports."""
    parser = argparse.ArgumentParser(description="peak memory of a build of a 7B shape")
    parser.add_argument("--layers", type=int, default=8, help=f"of {FULL_LAYERS}: 2 GB of disk each")
    parser.add_argument("--blocks", type=int, default=2, help="that are quantized; even: attention and MLP alternate")
    parser.add_argument("--bits", type=int, nargs="+", default=[4], help="to which GPTQ is run")
    parser.add_argument("--rows", type=int, default=1 << 14, help="of the embedding; a build does so many at once")
    parser.add_argument("--limit", type=float, default=6.0, help="GiB")
    parser.add_argument("--folder", type=Path, default=BENCH / "large_model")
    parser.add_argument("--keep", action="store_true", help="keep checkpoint and build for another run")
    parser.add_argument("--resume", action="store_true", help="go on with a build that was kept: peaks of what is left")
    parser.add_argument("--child", type=Path, nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        compile_limited(*given.child, given.blocks, given.bits, given.rows)
        return 0
    model, out, limit_bytes = given.folder / "model", given.folder / "out", int(given.limit * 2**30)
    if not (model / "tokenizer_config.json").is_file():
        write_checkpoint(model, given.layers)
    n_bytes = sum(path.stat().st_size for path in model.glob("*.safetensors"))
    print(f"{n_bytes / 2**30:.2f} GiB in {given.layers} layers, limit {given.limit:.2f} GiB", flush=True)
    if not given.resume:
        shutil.rmtree(out, ignore_errors=True)
    peaks, highest = run_limited(model, out, given.blocks, given.bits, given.rows, limit_bytes)
    status = report(out, peaks, highest, given.layers, given.blocks, limit_bytes)
    if not given.keep:
        shutil.rmtree(given.folder)
    return status


if __name__ == "__main__":
    raise SystemExit(main())
