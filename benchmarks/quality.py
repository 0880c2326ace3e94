"""Quality against llama.cpp's quantizations at equal bytes: perplexity, KL to the float source, top-1 agreement.

    python benchmarks/quality.py [--model smollm2|trained] [--preset NAME ...] [--axes width|bits ...]
                                 [--recover] [--artifact NAME=PATH ...] [--windows N]

Both sides start from one F32 GGUF: the neutralised demo model (neutral.py), or the model of train_model.py, and are
measured on the same windows of a text that neither has seen. The peer's importance matrix (peer_quants.py) and our
calibration are made from one text of the same kind. Ours is measured through the engine, with its integer activations.
The peer's files are dequantized and run by the float decoder, without the error that its own integer activations add: a
little in its favour.

Without --preset and --artifact the default artifact is built; with --artifact only what is named is measured.
Writes build/bench/quality.json (one figure per file of the peer), and all points, checks and the picture into
build/bench/quality. `make bench-quality` runs it; the peer is built when it is missing (peer.py).
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from figures import BENCH, Figure, write_figures
from peer import VERSION, build_peer, find_peer
from peer_quants import FORMATS, PeerFile, quantize_all
from quality_plot import draw
from rich.console import Console
from rich.table import Table
from scores import Score, StoredSource, open_decoder, score_decoder
from subjects import Subject, build, find_subject, our_points
from verdicts import Point, Verdict, best_within, judge, sizes_without_rival

from edgesdk.cloud.allocate import AXES
from edgesdk.cloud.config import RECOVER_EPOCHS, preset
from edgesdk.cloud.evaluate import evaluate_levels
from edgesdk.cloud.export import level_decoder
from edgesdk.errors import ModelError
from edgesdk.formats import Artifact

console = Console(highlight=False, width=150)
PEER = "llama.cpp"
TEST_TOKENS = {"smollm2": 8192, "trained": 32768}  # the small one is fast, and formats differ by a tenth of a percent
UNIQL_RATES = (0.05, 0.15, 0.25, 0.35)


def peer_points(subject: Subject, folder: Path, source: StoredSource, formats: Sequence[str]) -> list[Point]:
    """Every file of the peer, measured; what was measured before is read from `folder`."""
    peer = find_peer() or build_peer()
    files = quantize_all(peer, subject.source, subject.calibration, folder, console.print, tuple(formats))
    points = (_peer_point(file, source) for file in files)
    return [point for point in points if point is not None]


def _peer_point(file: PeerFile, source: StoredSource) -> Point | None:
    """None, and a line that says why, for a file with a type that the gguf package cannot dequantize."""
    kept = file.path.with_suffix(f".{source.key[:16]}.json")
    if not kept.is_file() or kept.stat().st_mtime < file.path.stat().st_mtime:
        console.print(f"measuring {file.name}")
        try:
            decoder = open_decoder(file.path)
        except ModelError as error:
            console.print(f"{file.name} is left out: {error}", markup=False)
            return None
        kept.write_text(json.dumps(asdict(score_decoder(decoder, source))), "utf-8")
    score = Score(**json.loads(kept.read_text("utf-8")))
    return Point(PEER, file.name, file.tensor_bytes, file.file_bytes, score, file.types, file.fallbacks)


def cross_check(path: Path, level: Point, subject: Subject, source: StoredSource) -> dict[str, Any]:
    """The two scorers on the same weights, and on the float model: how far apart they are."""
    decoder = open_decoder(subject.source)
    index = int(level.name.split()[1])
    own = score_decoder(decoder, source)
    _, again = evaluate_levels(path, [0], source.windows[:1], source)
    first = score_decoder(decoder, source.first(1))
    dequantized = score_decoder(level_decoder(Artifact.open(path), index), source)
    return {
        "float source": asdict(own),
        "float source, first window, by both": [first.perplexity, again],
        f"{level.ladder} {level.name} dequantized, float activations": asdict(dequantized),
        f"{level.ladder} {level.name} through the engine": asdict(level.score),
        "engine over dequantized, perplexity": level.score.perplexity / dequantized.perplexity,
        "engine less dequantized, KL": level.score.kl - dequantized.kl,
    }


def figures(verdicts: Sequence[Verdict], command: str) -> list[Figure]:
    """One figure per verdict that has two sides."""
    made = []
    for verdict in verdicts:
        if verdict.level is None:
            continue
        peer, level = verdict.peer, verdict.level
        ours, theirs = level.score.perplexity, peer.score.perplexity
        name = f"perplexity of {verdict.ladder} in the {peer.mapped_bytes} bytes of {peer.name}"
        made.append(Figure(name, ours, theirs, theirs / ours, 1.0, "ppl", command))
    return made


def uniql_figures(ladders: Sequence[Sequence[Point]], command: str) -> list[Figure]:
    """KL of UniQL's recipe over that of our level with no more bytes, at rates of its own ladder; wanted: 2."""
    recipe = next((ladder for ladder in ladders if ladder[0].ladder == "uniql"), None)
    made = []
    for ladder in ladders if recipe else ():
        if ladder is recipe:
            continue
        for rate in UNIQL_RATES:
            theirs = min(recipe, key=lambda level: abs(level.rate - rate))
            ours = best_within(ladder, theirs.mapped_bytes)
            if ours is not None:
                name = f"KL of {ladder[0].ladder} in the {theirs.mapped_bytes} bytes of UniQL's recipe at rate {rate}"
                ratio = theirs.score.kl / max(ours.score.kl, 1e-9)
                made.append(Figure(name, ours.score.kl, theirs.score.kl, ratio, 2.0, "nats", command))
    return made


def show(peers: Sequence[Point], ladders: Sequence[Sequence[Point]], source: float) -> None:
    """Tables of all points, largest first."""
    for points in (peers, *ladders):
        if not points:
            continue
        heads = ("", "mapped MB", "file MB", "perplexity", "above source", "KL", "top-1", "matrices")
        table = Table(*heads, title=points[0].ladder, title_justify="left", box=None)
        for p in sorted(points, key=lambda p: -p.mapped_bytes):
            s = p.score
            numbers = f"{s.perplexity:.2f}", f"{s.perplexity / source - 1:.1%}", f"{s.kl:.4f}", f"{s.top1:.1%}"
            types = ", ".join(f"{count} {kind}" for kind, count in p.types.items())
            table.add_row(p.name, f"{p.mapped_bytes / 1e6:.2f}", f"{p.file_bytes / 1e6:.2f}", *numbers, types)
        console.print(table)
    fallen = {p.name: sum(p.fallbacks.values()) for p in peers if p.fallbacks}
    if fallen:
        total = sum(peers[0].types.values())
        counts = sorted(set(fallen.values()))
        console.print(
            f"the peer's formats have blocks of 256 columns, which do not divide the columns of {counts[0]} of {total} "
            "matrices: there it falls back to types with blocks of 32 (see the last column)"
        )


def main() -> None:
    """Measures, judges, draws, writes."""
    parser = argparse.ArgumentParser(description="quality at equal bytes against llama.cpp's quantizations")
    parser.add_argument("--model", choices=("smollm2", "trained"), default="smollm2")
    parser.add_argument("--preset", action="append", default=[], help="build with this preset (repeatable)")
    parser.add_argument(
        "--axes", action="append", default=[], choices=AXES[1:], help="the default one, giving up these only"
    )
    parser.add_argument("--recover", action="store_true", help="build the default one with recovery, too")
    parser.add_argument("--artifact", action="append", default=[], metavar="NAME=PATH", help="measure this one, too")
    parser.add_argument("--windows", type=int, default=None, help="windows of the test text")
    parser.add_argument("--formats", nargs="+", default=list(FORMATS), help="of the peer")
    arguments = parser.parse_args()
    subject = find_subject(arguments.model)
    n_windows = arguments.windows or TEST_TOKENS[subject.name] // subject.window_tokens
    folder = BENCH / "quality" / subject.name
    source = StoredSource.compute(subject.source, subject.windows(n_windows), folder, console.print)
    paths = dict(entry.partition("=")[::2] for entry in arguments.artifact)
    if wrong := [name for name, path in paths.items() if not Path(path).is_file()]:
        parser.error(f"--artifact needs NAME=PATH of a file; wrong: {', '.join(wrong)}")
    peers = peer_points(subject, folder / "peer", source, arguments.formats)
    show(peers, [], source.perplexity)
    for name in arguments.preset or ([] if paths else ["default"]):
        paths[name] = str(build(name, preset(name), subject, folder))
    base = preset("default")
    for axes in arguments.axes:
        config = replace(base, allocate=replace(base.allocate, axes=axes))
        paths[f"{axes} only"] = str(build(f"default-{axes}", config, subject, folder))
    if arguments.recover:
        config = replace(base, recover=replace(base.recover, n_epochs=RECOVER_EPOCHS))
        paths["recovered"] = str(build("default-recovered", config, subject, folder))
    ladders = [our_points(name, Path(path), source) for name, path in paths.items()]
    check = cross_check(Path(next(iter(paths.values()))), ladders[0][-1], subject, source)
    report(subject, folder, peers, ladders, source, check)


def report(
    subject: Subject,
    folder: Path,
    peers: Sequence[Point],
    ladders: Sequence[Sequence[Point]],
    source: StoredSource,
    check: dict[str, Any],
) -> None:
    """Prints and writes everything."""
    show([], ladders, source.perplexity)
    command = "python benchmarks/quality.py" + ("" if subject.name == "smollm2" else f" --model {subject.name}")
    verdicts = [verdict for ladder in ladders for verdict in judge(peers, ladder)]
    lines = [verdict.line() for verdict in verdicts]
    for ladder in ladders:
        alone = sizes_without_rival(peers, ladder)
        if alone:
            smallest = min(alone, key=lambda level: level.mapped_bytes)
            lines.append(
                f"levels of {smallest.ladder} that are smaller than anything of the peer: {len(alone)}, "
                f"down to {smallest.mapped_bytes / 1e6:.1f} MB at perplexity {smallest.score.perplexity:.2f}"
            )
    against_uniql = uniql_figures(ladders, command)
    lines += [f"{f.figure}: {f.ours:.4f}, theirs {f.peer:.4f}, ratio {f.ratio:.2f}" for f in against_uniql]
    for line in (*lines, *(f"check: {name}: {value}" for name, value in check.items())):
        console.print(line)
    text = f"{subject.test.name}, {len(source.windows)} windows of {source.windows.shape[1]} tokens"
    picture = folder / "quality.png"
    draw(picture, peers, ladders, source.perplexity, f"{subject.name} on {text}: our levels and llama.cpp's files")
    points = {
        "model": subject.name,
        "details": subject.details,
        "peer": f"llama.cpp of llama-cpp-python {VERSION}",
        "source_perplexity": source.perplexity,
        "test": {"text": text, "sha256": _sha256(subject.test)},
        "importance_matrix": {"text": subject.calibration.name, "sha256": _sha256(subject.calibration)},
        "points": [
            {**asdict(p), "score": asdict(p.score)} for p in (*peers, *(p for ladder in ladders for p in ladder))
        ],
        "verdicts": lines,
        "check": check,
    }
    (folder / "points.json").write_text(json.dumps(points, indent=1, allow_nan=False) + "\n", "utf-8")
    name = "quality" if subject.name == "smollm2" else f"quality-{subject.name}"
    written = write_figures(name, figures(verdicts, command) + against_uniql)
    console.print(f"wrote {written}, {folder / 'points.json'} and {picture}")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
