"""What a report reads from a header, against shares and bits computed by hand from shapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_model import CODEBOOKS, mix_bits, nested_ladder, random_weight, tiny_config, write_random_artifact

from edgesdk.errors import TruncatedError, UsageError
from edgesdk.formats import Artifact, ArtifactWriter, Piece
from edgesdk.formats.tiles import CODEBOOK_BITS, pack_panel, packed_bytes
from edgesdk.report.ladders import read_ladder, short_labels


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    path = tmp_path_factory.mktemp("ladders") / "plain.edge"
    config = tiny_config()
    write_random_artifact(path, config, nested_ladder(config))
    return path


def test_at_one_width_of_codes_a_block_keeps_what_its_axes_keep(plain):
    ladder = read_ladder(plain, "x")
    artifact = Artifact.open(plain)
    full = artifact.levels[-1].allocation
    for level, figures in zip(artifact.levels, ladder.levels, strict=True):
        shares = [sum(kept) / sum(whole) for kept, whole in zip(level.allocation, full, strict=True)]
        assert figures.kept == pytest.approx(shares, abs=0.02)  # groups at an edge may be short
        assert figures.kept_weights == pytest.approx(1 - level.rate, abs=0.02)
        assert 4.4 < figures.bits_per_weight < 5
    assert 0.0 in ladder.levels[0].kept  # the smallest level leaves a block out
    assert set(ladder.levels[-1].kept) == {1.0}


def test_bits_are_the_mean_over_a_weights_panels(plain, tmp_path):
    path = tmp_path / "mixed.edge"
    mix_bits(plain, path, lambda name: {"0": 2, "1": 8, "2": 3}[name.rpartition("/")[2]])
    artifact = Artifact.open(path)
    for level in range(3):
        ladder = read_ladder(path, "x", level)
        assert ladder.bits_level == level
        assert ladder.model_bits == {"embed": 3.0}  # 2 bits, raised to what an embedding has at least
        for block, kept in zip(ladder.bits, artifact.levels[level].allocation, strict=True):
            for role, found in block.bits.items():
                if not any(kept):
                    assert found is None
                    continue
                sizes = {}
                for k in range(level + 1):
                    box = artifact.edge["panels"].get(f"{block.block}.{role}/{k}")
                    if box is not None:
                        sizes[(2, 8, 3)[k]] = (box[1] - box[0]) * (box[3] - box[2])
                assert found == pytest.approx(sum(b * n for b, n in sizes.items()) / sum(sizes.values()))
    assert {bits for block in read_ladder(path, "x", 0).bits for bits in block.bits.values()} == {2.0, None}


def with_replaced_weights(source: Path, target: Path, small_bits: int) -> None:
    """Two levels of full width: the smaller one has block weights of its own, with fewer bits."""
    artifact = Artifact.open(source)
    top = len(artifact.levels) - 1
    writer = ArtifactWriter(2)
    rng = np.random.default_rng(0)
    block_bytes = [0, 0]
    stems = dict.fromkeys(name.rpartition("/")[0] for name in artifact.used_names(top))
    for stem in stems:
        names = artifact.pieces(stem, top)
        boxes = [artifact.edge["panels"].get(name) for name in names]
        if boxes[0] is None or stem == "embed":
            data = np.concatenate([np.asarray(artifact.tensor(name)) for name in names])
            writer.add(Piece(stem, 0, 1, str(data.dtype), data.shape, data, boxes[0] and tuple(boxes[0])))
            continue
        rows, columns, group = boxes[-1][1], boxes[-1][3], boxes[-1][5]
        for level, bits in enumerate((small_bits, 4)):
            weight = random_weight(rng, rows, columns, bits, group)
            data = pack_panel(weight.codes, weight.scales, bits, group)
            box = (0, rows, 0, columns, bits, group, CODEBOOK_BITS.index(bits))
            writer.add(Piece(stem, level, level, "uint8", data.shape, data, box))
            block_bytes[level] += packed_bytes(rows, columns, bits, group)
    levels = [
        {"rate": 1 - size / block_bytes[1], "block_bytes": size, "allocation": artifact.levels[top].allocation}
        for size in block_bytes
    ]
    kept = {key: artifact.edge[key] for key in ("model", "tokenizer")}
    writer.write(target, kept | {"codebooks": [CODEBOOKS[bits] for bits in CODEBOOK_BITS]}, levels)


def test_a_level_with_panels_of_its_own_gives_up_bits_not_weights(plain, tmp_path):
    path = tmp_path / "replaced.edge"
    with_replaced_weights(plain, path, 2)
    small = read_ladder(path, "x", 0)
    assert {bits for block in small.bits for bits in block.bits.values()} == {2.0}
    assert {bits for block in read_ladder(path, "x").bits for bits in block.bits.values()} == {4.0}
    assert [level.kept_weights for level in small.levels] == [1.0, 1.0]
    assert small.levels[1].bits_per_weight - small.levels[0].bits_per_weight == pytest.approx(2.0)
    share = small.levels[0].bits_per_weight / small.levels[1].bits_per_weight
    assert small.levels[0].kept == pytest.approx([share] * 4, abs=0.02)
    assert (small.text, small.source_perplexity) == ("", None)


def test_levels_that_a_cut_file_lacks_are_listed_but_have_no_bits(plain, tmp_path):
    cut = tmp_path / "cut.edge"
    cut.write_bytes(plain.read_bytes()[: Artifact.open(plain).levels[1].file_bytes])
    assert len(read_ladder(cut, "x", 1).levels) == 3
    with pytest.raises(TruncatedError):
        read_ladder(cut, "x", 2)
    with pytest.raises(UsageError, match="level 7"):
        read_ladder(cut, "x", 7)


@pytest.mark.parametrize(
    ("paths", "labels"),
    [
        (["a/model.edge"], ["model.edge"]),
        (["a/model.edge", "b/model.edge"], ["a/model.edge", "b/model.edge"]),
        (["x/a/model.edge", "y/a/model.edge", "z.edge"], ["x/a/model.edge", "y/a/model.edge", None]),
        (["same.edge", "same.edge"], ["same.edge", "same.edge"]),
    ],
)
def test_labels_tell_files_apart(paths, labels):
    for found, wanted in zip(short_labels([Path(path) for path in paths]), labels, strict=True):
        assert found.endswith("z.edge") if wanted is None else found == wanted
