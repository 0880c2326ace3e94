"""Every rule of SPEC.md has a hostile file, and the NumPy reader refuses it with an error that names a rule."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hostile import CASES, CHAT_CASES, DATA_CASES, EXCEPTIONS, SSM_CASES, TOKENIZER_CASES, Hostile
from hostile_rows import ROW_CASES
from tiny_model import mix_bits, nested_ladder, table_bits, tiny_config, tiny_ssm_config, write_random_artifact

from edgesdk.errors import ArtifactError, HashError, TruncatedError, UsageError
from edgesdk.formats import Artifact, verify_artifact
from edgesdk.formats.axes import frequency_order, head_order
from edgesdk.formats.tiles import PANEL_BITS, code_values, pack_panel, unpack_panel

SPEC = Path(__file__).parents[2] / "formats" / "SPEC.md"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rules") / "good.edge"
    config = tiny_config()
    write_random_artifact(path, config, nested_ladder(config))
    return path


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_a_hostile_file_is_refused(case: Hostile, good: Path, tmp_path: Path) -> None:
    path = tmp_path / "hostile.edge"
    path.write_bytes(case.make(good.read_bytes()))
    with pytest.raises(ArtifactError, match=rf"rule {re.escape(case.rule)}"):
        Artifact.open(path)


@pytest.mark.parametrize("case", ROW_CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_hostile_rows_of_an_embedding_are_refused(case: Hostile, tmp_path: Path) -> None:
    path, config = tmp_path / "hostile.edge", tiny_config()
    write_random_artifact(path, config, nested_ladder(config), model_bits=table_bits(config))
    verify_artifact(path)
    path.write_bytes(case.make(path.read_bytes()))
    with pytest.raises(ArtifactError, match=rf"rule {re.escape(case.rule)}"):
        Artifact.open(path)


def test_a_file_says_the_lowest_version_that_describes_it(tmp_path: Path) -> None:
    found = []
    for norms in ((), ("post_norm",)):
        config = tiny_config(norms=norms)
        for bits in (None, [4, 4, 4], [3, 4, 6], table_bits(config)):
            write_random_artifact(tmp_path / "tiny.edge", config, nested_ladder(config), model_bits=bits)
            found.append(Artifact.open(tmp_path / "tiny.edge").edge["format_version"])
    assert found == ["1.4", "1.4", "1.5", "1.5", "2.0", "2.0", "2.1", "2.1"]


@pytest.fixture(scope="module")
def good_ssm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rules") / "ssm.edge"
    config = tiny_ssm_config()
    write_random_artifact(path, config, nested_ladder(config))
    verify_artifact(path)
    return path


@pytest.mark.parametrize("case", SSM_CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_a_hostile_file_with_mixers_is_refused(case: Hostile, good_ssm: Path, tmp_path: Path) -> None:
    path = tmp_path / "hostile.edge"
    path.write_bytes(case.make(good_ssm.read_bytes()))
    with pytest.raises(ArtifactError, match=rf"rule {re.escape(case.rule)}"):
        Artifact.open(path)


@pytest.fixture(scope="module")
def good_wide(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("rules") / "wide.edge"
    config = tiny_config(d_model=96)
    write_random_artifact(path, config, nested_ladder(config))
    verify_artifact(path)
    return path.read_bytes()


@pytest.mark.parametrize("case", DATA_CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_hostile_data_is_found(case: Hostile, good_wide: bytes, tmp_path: Path) -> None:
    path = tmp_path / "hostile.edge"
    path.write_bytes(case.make(good_wide))
    Artifact.open(path)
    with pytest.raises(ArtifactError, match="SHA-256" if case.rule == "5.4" else rf"rule {re.escape(case.rule)}"):
        verify_artifact(path)


def test_every_rule_has_a_hostile_file() -> None:
    """Numbered rules, and sections that have none, as SPEC.md writes them today."""
    rules: set[str] = set()
    for section in re.split(r"^## ", SPEC.read_text("utf-8"), flags=re.MULTILINE)[1:]:
        number = section.partition(".")[0]
        numbered = re.findall(r"^(\d+)\. ", section.partition("\n")[2], re.MULTILINE)
        rules |= {f"{number}.{n}" for n in numbered} or {number}
    assert {"1.1", "4.3", "6.5", "7", "9.5"} <= rules
    broken = {case.rule for case in (*CASES, *CHAT_CASES, *DATA_CASES, *SSM_CASES, *TOKENIZER_CASES)}
    assert rules - broken == set(EXCEPTIONS), "a rule without a hostile file, or an exception that is none"
    sections = {rule.partition(".")[0] for rule in rules}
    assert broken <= rules | sections, "a hostile file for a rule that SPEC.md does not have"


def test_the_good_file_passes_and_safetensors_reads_it(good: Path) -> None:
    from safetensors.numpy import load_file

    report = verify_artifact(good)
    assert report.n_runs == 5
    assert report.n_available_levels == 3
    artifact = Artifact.open(good)
    tensors = load_file(good)
    assert set(tensors) == set(artifact.tensors)
    name = "blk.0.mlp.down/1"
    assert np.array_equal(tensors[name], artifact.tensor(name))


def test_a_flipped_bit_is_found(good: Path, tmp_path: Path) -> None:
    damaged = bytearray(good.read_bytes())
    damaged[-5000] ^= 1
    path = tmp_path / "damaged.edge"
    path.write_bytes(damaged)
    with pytest.raises(HashError, match="SHA-256"):
        verify_artifact(path)


def test_a_file_cut_at_a_level_boundary_is_a_smaller_model(good: Path, tmp_path: Path) -> None:
    whole = Artifact.open(good)
    for level in whole.levels:
        path = tmp_path / "cut.edge"
        path.write_bytes(good.read_bytes()[: level.file_bytes])
        cut = Artifact.open(path)
        assert cut.n_available_levels == level.index + 1
        assert np.array_equal(cut.weight("blk.0.mlp.down", level.index), whole.weight("blk.0.mlp.down", level.index))
        verify_artifact(path)
    with pytest.raises(UsageError):
        whole.level(3)
    path.write_bytes(good.read_bytes()[: whole.levels[1].file_bytes - 1])
    assert Artifact.open(path).n_available_levels == 1
    with pytest.raises(TruncatedError, match="level 1 needs"):
        Artifact.open(path).level(1)
    path.write_bytes(good.read_bytes()[: whole.levels[0].file_bytes - 1])
    with pytest.raises(TruncatedError, match="smallest level"):
        Artifact.open(path)


def test_smaller_weights_are_prefixes_of_larger_ones(good: Path) -> None:
    artifact = Artifact.open(good)
    small, full = artifact.weight("blk.0.attn.o", 0), artifact.weight("blk.0.attn.o", 2)
    assert small.shape == (64, 96)
    assert full.shape == (64, 192)
    assert np.array_equal(small, full[:, :96])


def test_the_packed_bytes_of_a_tile_by_hand() -> None:
    codes = np.zeros((16, 8), np.uint8)
    codes[2, 1], codes[2, 5] = 7, 9
    scales = np.full((16, 1), 0.5, np.float16)
    packed = pack_panel(codes, scales, 4, 8)
    assert packed.size == 128
    assert packed[4 * 2 + 1] == 7 | 9 << 4
    assert packed[:64].astype(int).sum() == 7 | 9 << 4
    assert packed[64:96].view(np.float16).tolist() == [0.5] * 16
    assert not packed[96:].any()
    eight = pack_panel(codes, scales, 8, 8)
    assert eight[4 * 2 + 1] == 7
    assert eight[64 + 4 * 2 + 1] == 9


@pytest.mark.parametrize(
    ("bits", "row", "column", "code", "expected"),
    [  # position 4 * row + column % 4: 9 in row 2, 41 in row 10, whose bits share bytes 9 of the narrow planes
        (2, 2, 1, 3, {9: 3}),
        (2, 2, 5, 3, {9: 3 << 4}),
        (2, 10, 1, 3, {9: 3 << 2}),
        (2, 10, 5, 2, {9: 2 << 6}),
        (3, 2, 1, 7, {9: 3, 32 + 9: 1 << 2}),
        (3, 10, 5, 7, {9: 3 << 6, 32 + 9: 1 << 4}),
        (3, 6, 5, 4, {32 + 9: 1 << 7}),
        (6, 2, 1, 0b100101, {9: 0b0101, 64 + 9: 0b10}),
        (6, 10, 5, 63, {41: 15 << 4, 64 + 9: 3 << 6}),
    ],
)
def test_the_planes_of_a_unit_by_hand(bits: int, row: int, column: int, code: int, expected: dict[int, int]) -> None:
    codes = np.zeros((16, 8), np.uint8)
    codes[row, column] = code
    packed = pack_panel(codes, np.zeros((16, 1), np.float16), bits, 8)
    assert packed.size == -(-(16 * bits + 32) // 64) * 64
    assert {int(i): int(packed[i]) for i in np.flatnonzero(packed)} == expected


def test_what_codes_stand_for() -> None:
    codes = np.array([[0, 1, 3], [2, 2, 0]], np.uint8)
    assert code_values(codes, 2, np.array([-9, -1, 2, 8], np.float32)).tolist() == [[-9, -1, 8], [2, 2, -9]]
    assert code_values(np.array([[0, 31, 32, 63]], np.uint8), 6).tolist() == [[-32, -1, 0, 31]]
    assert code_values(np.array([[129, 127, 0]], np.uint8), 8).tolist() == [[-127, 127, 0]]
    with pytest.raises(ValueError, match="codebook of 8"):
        code_values(codes, 3, np.zeros(16, np.float32))


@pytest.mark.parametrize("bits", [2, 3, 4, 6])
def test_a_code_that_does_not_fit_is_refused(bits: int) -> None:
    codes = np.full((16, 8), 1 << bits, np.uint8)
    with pytest.raises(ValueError, match=f"does not fit {bits} bits"):
        pack_panel(codes, np.zeros((16, 1), np.float16), bits, 8)


def test_panels_of_all_widths_in_one_file(good: Path, tmp_path: Path) -> None:
    mix_bits(good, tmp_path / "mixed.edge", lambda name: PANEL_BITS[hash_of(name) % len(PANEL_BITS)])
    artifact = Artifact.open(tmp_path / "mixed.edge")
    verify_artifact(artifact.path)
    assert {box[4] for name, box in artifact.edge["panels"].items() if name.startswith("blk.")} == set(PANEL_BITS)
    for name in artifact.edge["panels"]:
        values, _ = artifact.panel(name)
        assert len(np.unique(values)) > 3
        assert np.abs(values).max() <= 127


def hash_of(name: str) -> int:
    return sum(name.encode())


@pytest.mark.parametrize("bits", PANEL_BITS)
@pytest.mark.parametrize(("rows", "columns", "group"), [(16, 8, 8), (48, 144, 24), (20, 40, 32), (33, 96, 64)])
def test_unpack_is_the_inverse_of_pack(rows: int, columns: int, group: int, bits: int) -> None:
    rng = np.random.default_rng(rows * columns)
    codes = rng.integers(0, 1 << bits, (rows, columns)).astype(np.uint8)
    scales = rng.normal(size=(rows, -(-columns // group))).astype(np.float16)
    again = unpack_panel(pack_panel(codes, scales, bits, group), rows, columns, bits, group)
    assert np.array_equal(again[0], codes)
    assert np.array_equal(again[1], scales)


def test_the_order_of_a_head_axis_by_hand() -> None:
    # two heads of eight elements, quantum four: a prefix of eight positions is the first half of both heads
    assert head_order(2, 8, 4, paired=False).tolist() == [0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 12, 13, 14, 15]
    # as RoPE pairs (j, j + 4): the first quantum of a head holds pairs 0 and 1
    assert head_order(1, 8, 4, paired=True).tolist() == [0, 1, 4, 5, 2, 3, 6, 7]
    assert frequency_order(2, 8, 4).tolist() == [0, 1, 4, 5, 2, 3, 6, 7]
