"""Decode speed of every family that llama.cpp runs, too: random models of moderate real shapes, both sides at 4 bits.

    python benchmarks/family_speed.py [--family qwen3 mamba2 ...] [--rounds 5] [--threads 1 2]

Checkpoints are written by transformers and converted by llama.cpp's own converter to Q4_0 (family_shapes.py); ours have
random codes of as many bits. Both sides are pinned and run in turn (rounds.py). Writes build/bench/family-speed.json
(build/bench/family-speed/part.json for some families or threads), and all samples beside the models. --quick is a smoke
run on two layers of two families.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from family_shapes import QUICK, SHAPES, ConversionError, write_checkpoint, write_ours, write_theirs
from figures import BENCH, Figure, write_figures
from peer import Peer, build_peer, find_peer
from rounds import Samples, take_rounds
from sides import OurModel, PeerModel
from speed_plan import Model

import edgesdk

COMMAND = "python benchmarks/family_speed.py"
DECODE_TOKENS = 128


def find_model(name: str, shape: dict[str, Any], edge_run: Path, peer: Peer, out: Path) -> Model | None:
    """Both sides' files, written into `out` where they are missing or older than what writes them.

    None, with a line that says why, where llama.cpp does not take the family.
    """
    ours, theirs, folder = out / f"{name}.edge", out / f"{name}-q4_0.gguf", out / f"{name}-hf"
    newest = max(Path(__file__).with_name(f"{module}.py").stat().st_mtime for module in ("family_shapes", "shapes"))
    if not all(path.is_file() and path.stat().st_mtime > newest for path in (ours, theirs)):
        print(f"writing {name}", flush=True)
        write_checkpoint(folder, shape)
        write_ours(ours, folder)
        try:
            write_theirs(theirs, folder, peer)
        except ConversionError as error:
            print(f"SKIPPED: {name}: llama.cpp does not take it: {error}", flush=True)
            return None
        for file in folder.glob("*.safetensors"):
            file.unlink()
    return Model(name, OurModel(edge_run, ours), PeerModel(peer, theirs))


def decode(model: Model, n_threads: int, n_tokens: int) -> float:
    """Tokens per second of the full level, after a prompt of one token."""
    return float(model.ours.bench(model.ours.top, n_threads, 1, n_tokens)["decode_tokens_per_s"])


def figures_of(model: Model, threads: list[int], samples: dict[str, Samples]) -> list[Figure]:
    """Speeds per number of threads, and the bytes that a token reads."""
    assert model.peer is not None, "no family is measured alone"
    made = []
    for t in threads:
        ours, peer = (samples[f"{model.name} x{t} {side}"].median for side in ("ours", "peer"))
        name = f"decode, {model.name}, {t} thread{'s' * (t > 1)}"
        made.append(Figure(name, ours, peer, ours / peer, None, "tokens/s", COMMAND))
    ours, peer = (side.bytes_per_token() / 1e6 for side in (model.ours, model.peer))
    return [*made, Figure(f"weights read for a token, {model.name}", ours, peer, peer / ours, None, "MB", COMMAND)]


def main() -> None:
    """Writes what is missing, measures, prints, writes."""
    parser = argparse.ArgumentParser(description="decode speed of all families against llama.cpp")
    parser.add_argument("--family", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--edge-run", type=Path, default=Path(edgesdk.__file__).parent / "bin" / "edge-run")
    parser.add_argument("--out", type=Path, help="folder of the models and samples (build/bench/family-speed)")
    parser.add_argument("--quick", action="store_true", help="a smoke run; its figures mean nothing")
    arguments = parser.parse_args()
    out = arguments.out or BENCH / "family-speed"
    out.mkdir(parents=True, exist_ok=True)
    shapes = QUICK if arguments.quick else {name: SHAPES[name] for name in arguments.family}
    stem = "quick-" if arguments.quick else ""
    n_tokens = 8 if arguments.quick else DECODE_TOKENS
    peer = find_peer() or build_peer()
    found_models = (find_model(f"{stem}{name}", shape, arguments.edge_run, peer, out) for name, shape in shapes.items())
    models = [model for model in found_models if model]
    measurements = {}
    for model in models:
        for t in arguments.threads:
            measurements[f"{model.name} x{t} ours"] = partial(decode, model, t, n_tokens)
            measurements[f"{model.name} x{t} peer"] = partial(model.peer.bench, t, 0, n_tokens)
    samples = take_rounds(measurements, arguments.rounds, partial(print, flush=True))
    found = [figure for model in models for figure in figures_of(model, arguments.threads, samples)]
    for f in found:
        print(f"{f.figure}: {f.ours:.1f}, llama.cpp {f.peer:.1f} {f.unit}, ratio {f.ratio:.2f}")
    disturbed = sum(s.disturbed for s in samples.values())
    if disturbed:
        print(f"WARNING: other processes were busy during {disturbed} of {len(samples) * arguments.rounds} samples")
    kept = {key: asdict(s) for key, s in samples.items()}
    (out / "samples.json").write_text(json.dumps(kept, indent=1, allow_nan=False) + "\n", "utf-8")
    whole = set(shapes) == set(SHAPES) and set(arguments.threads) >= {1, 2} and not arguments.quick
    print(f"wrote {write_figures('family-speed' if whole else str(out / 'part'), found)}")


if __name__ == "__main__":
    main()
