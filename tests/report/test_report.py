"""`edgesdk report`: the page has every figure of its artifacts, is valid, and trusts none of their names."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from hostile import join, split
from matplotlib.image import imread
from tiny_model import mix_bits, nested_ladder, tiny_config, write_random_artifact

from edgesdk.cli import main
from edgesdk.errors import UsageError
from edgesdk.formats import Artifact
from edgesdk.report import write_report
from edgesdk.report.ladders import read_ladder

HOSTILE = "</title><script>alert(1)</script>\"'&$\\frac{$_\x00\u65e5\u672c" + "x" * 300
POINTS = [
    {"name": "Q4", "mapped_bytes": 99_000, "file_bytes": 99_500, "perplexity": 27.125, "kl": 0.25, "text": "wiki"},
    {"name": HOSTILE, "mapped_bytes": 70_000, "file_bytes": 70_001, "perplexity": 31.5, "text": "wiki"},
]


def measure(path: Path, perplexities: list[float | None], name: str, text: str = "wiki") -> Path:
    """Gives an artifact a name and measured quality, KL a hundredth of the perplexity."""
    outer, edge, data = split(path.read_bytes())
    for level, perplexity in zip(edge["levels"], perplexities, strict=True):
        level["perplexity"], level["kl"] = perplexity, perplexity and perplexity / 100
    edge["model"]["name"] = name
    edge["evaluation"] = {"text": text, "source_perplexity": 24.5}
    path.write_bytes(join(outer, edge, data))
    return path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """One artifact of 4 bits, and one whose name is an attack and whose panels have all bits there are."""
    folder = tmp_path_factory.mktemp("report")
    config = tiny_config()
    write_random_artifact(folder / "plain.edge", config, nested_ladder(config))
    cycle = {}
    mix_bits(
        folder / "plain.edge",
        folder / "_$x$.edge",
        lambda name: cycle.setdefault(name, (2, 3, 4, 6, 8)[len(cycle) % 5]),
    )
    measure(folder / "plain.edge", [40.25, 30.125, 26.0625], "Plain & simple")
    measure(folder / "_$x$.edge", [41.5, 33.25, 25.75], HOSTILE)
    return folder


@pytest.fixture(scope="module")
def written(tiny, tmp_path_factory):
    (tiny / "points.json").write_text(json.dumps(POINTS), "utf-8")
    out = tmp_path_factory.mktemp("out") / "made" / "here"
    return write_report(
        [tiny / "plain.edge", tiny / "_$x$.edge"], out, compare={HOSTILE: tiny / "points.json"}, level=1
    )


def tables(page: Path) -> dict[str, list[list[str]]]:
    """Caption -> rows of cells. Reading it as XML proves that every element is closed and every name escaped."""
    root = ElementTree.fromstring(page.read_text("utf-8").removeprefix("<!DOCTYPE html>\n"))
    found = {}
    for table in root.iter("table"):
        rows = [["".join(cell.itertext()) for cell in row] for row in table.iter("tr")]
        found["".join(table.find("caption").itertext())] = rows
    return found


def test_the_page_has_every_levels_figures(tiny, written):
    found = tables(written.page)
    for label in ("plain.edge", "_$x$.edge"):
        artifact = Artifact.open(tiny / label)
        (caption,) = (caption for caption in found if caption.startswith(f"Levels of {label}"))
        assert len(found[caption]) == 1 + len(artifact.levels)
        for level, row in zip(artifact.levels, found[caption][1:], strict=True):
            assert row[:4] == [
                str(level.index),
                f"{level.rate:.4f}",
                f"{level.mapped_bytes:,}",
                f"{level.file_bytes:,}",
            ]
            assert row[6:] == [f"{level.perplexity:.3f}", f"{level.kl:.4f}"]


def test_tables_of_blocks_are_what_the_heat_maps_show(tiny, written):
    root = ElementTree.fromstring(written.page.read_text("utf-8").removeprefix("<!DOCTYPE html>\n"))
    all_tables = [[["".join(c.itertext()) for c in row] for row in t.iter("tr")] for t in root.iter("table")]
    kept = [rows for rows in all_tables if rows[0][0] == "block"]
    bits = [rows for rows in all_tables if rows[0][0] == "tensor"]
    for label, shares, table in zip(("plain.edge", "_$x$.edge"), kept, bits, strict=True):
        ladder = read_ladder(tiny / label, label, 1)
        assert shares[0] == ["block", "level 0", "level 1", "level 2"]
        expected = [
            [name, *(f"{level.kept[b]:.1%}" for level in ladder.levels)] for b, name in enumerate(ladder.blocks)
        ]
        assert shares[1:] == expected
        rows = [[block.block, role, f"{value:.3g}"] for block in ladder.bits for role, value in block.bits.items()]
        assert table[1:] == [["embed", "", f"{ladder.model_bits['embed']:.3g}"], *rows]


def test_points_of_others_stand_in_a_table(written):
    rows = next(rows for caption, rows in tables(written.page).items() if "script" in caption and rows[0][0] == "name")
    assert [row[0][:4] for row in rows[1:]] == ["</ti", "Q4"]  # by bytes
    assert rows[1][1:] == ["70,000", "70,001", "31.500", "not measured"]
    assert rows[2] == ["Q4", "99,000", "99,500", "27.125", "0.2500"]


def test_names_are_text_and_nothing_is_fetched(written):
    text = written.page.read_text("utf-8")
    root = ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>\n"))
    tags = {element.tag for element in root.iter()}
    assert "script" not in tags
    assert "<script" not in text
    assert "\x00" not in text
    assert "&lt;script&gt;alert(1)" in text
    sources = [image.get("src") for image in root.iter("img")]
    assert len(sources) == 5
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert all(image.get("alt") for image in root.iter("img"))
    assert not any(element.get("href") or element.get("onerror") for element in root.iter())
    assert "http:" not in text.replace('http-equiv="', "")
    assert "https:" not in text


def test_the_pictures_are_drawn(written):
    names = [picture.name for picture in written.pictures]
    assert names == ["quality.png", "kept-1.png", "bits-1.png", "kept-2.png", "bits-2.png"]
    for picture in written.pictures:
        pixels = imread(picture)
        height, width = pixels.shape[:2]
        assert 700 < width < 2000, picture
        assert 300 < height < 2000, picture
        colours = (pixels[..., :3] * 255).astype(np.int64) @ [1, 256, 65536]
        assert len(np.unique(colours)) > 50, picture
        assert (pixels[..., :3].min(-1) < 0.9).mean() > 0.01, picture


def test_the_same_files_give_the_same_report(tiny, written, tmp_path):
    again = write_report(
        [tiny / "plain.edge", tiny / "_$x$.edge"], tmp_path, compare={HOSTILE: tiny / "points.json"}, level=1
    )
    assert again.page.read_bytes() == written.page.read_bytes()


def test_texts_that_differ_are_announced(tiny, written, tmp_path):
    assert "Not the same text" not in written.page.read_text("utf-8")
    other = tmp_path / "other.edge"
    other.write_bytes((tiny / "plain.edge").read_bytes())
    measure(other, [40.0, 30.0, 20.0], "other", text="a book")
    page = write_report([tiny / "plain.edge", other], tmp_path / "out").page.read_text("utf-8")
    assert "Not the same text" in page
    assert "a book; its source has 24.500" in page


def test_without_measured_quality_the_page_says_so(tiny, tmp_path):
    path = tmp_path / "bare.edge"
    path.write_bytes((tiny / "plain.edge").read_bytes())
    measure(path, [None] * 3, "bare")
    written = write_report([path], tmp_path / "out")
    assert [picture.name for picture in written.pictures] == ["kept-1.png", "bits-1.png"]
    (levels,) = (rows for caption, rows in tables(written.page).items() if caption.startswith("Levels"))
    assert all(row[-2:] == ["not measured"] * 2 for row in levels[1:])
    assert "No level was measured" in written.page.read_text("utf-8")


def test_levels_measured_elsewhere_are_a_curve_of_their_own(tiny, tmp_path):
    sizes = {"rate": 0.0, "file_bytes": 70_000, "kl": None, "top1": None}
    rows = [{"index": i, "mapped_bytes": 60_000 + i, "ppl": 40.0 - i, **sizes} for i in range(2)]
    path = tmp_path / "eval.json"
    path.write_text(json.dumps({"text": "/a/wiki", "n_tokens": 1, "source_ppl": None, "levels": rows}))
    page = write_report([tiny / "plain.edge"], tmp_path / "out", compare={"own": path}).page
    assert tables(page)["own"][1] == ["level 0", "60,000", "70,000", "40.000", "not measured"]
    assert "Not the same text" not in page.read_text("utf-8")


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "{}",
        "[]",
        "[1]",
        json.dumps([{**POINTS[0], "perplexity": None}]),
        json.dumps([{**POINTS[0], "perplexity": -1}]),
        json.dumps([{**POINTS[0], "perplexity": float("nan")}]),
        json.dumps([{**POINTS[0], "mapped_bytes": "9"}]),
        json.dumps([{**POINTS[0], "file_bytes": 0}]),
        json.dumps([{**POINTS[0], "kl": "small"}]),
        json.dumps([{**POINTS[0], "name": 3}]),
    ],
)
def test_points_that_are_none_are_one_error(tiny, tmp_path, text):
    (tmp_path / "points.json").write_text(text)
    with pytest.raises(UsageError, match=r"points\.json") as caught:
        write_report([tiny / "plain.edge"], tmp_path / "out", compare={"x": tmp_path / "points.json"})
    assert "perplexity" in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_the_command_prints_what_it_wrote(tiny, tmp_path, capsys):
    arguments = ["report", str(tiny / "plain.edge"), "--compare", f"peer={tiny / 'points.json'}", "-o", str(tmp_path)]
    (tiny / "points.json").write_text(json.dumps(POINTS), "utf-8")
    assert main([*arguments, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["page"] == str(tmp_path / "index.html")
    assert all(Path(picture).is_file() for picture in report["pictures"])
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'index.html'}\n"


@pytest.mark.parametrize("value", ["points.json", "=points.json", "peer="])
def test_a_comparison_needs_a_name_and_a_file(tiny, tmp_path, value, capsys):
    assert main(["report", str(tiny / "plain.edge"), "--compare", value, "-o", str(tmp_path / "out")]) == 2
    assert "hint: write NAME=FILE.json" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_level_that_is_not_there_is_a_usage_error(tiny, tmp_path, capsys):
    assert main(["report", str(tiny / "plain.edge"), "--level", "9", "-o", str(tmp_path)]) == 2
    assert "hint: levels are 0..2" in capsys.readouterr().err


def test_without_matplotlib_one_line_says_what_to_install(tiny, tmp_path):
    code = (
        "import sys; sys.modules['matplotlib'] = None\nfrom edgesdk.cli import main\n"
        f"sys.exit(main(['report', {str(tiny / 'plain.edge')!r}, '-o', {str(tmp_path)!r}]))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.splitlines()[1] == "hint: pip install 'edgesdk[report]'"
