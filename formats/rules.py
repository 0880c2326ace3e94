"""The rules of SPEC.md that tie the header's parts together; each failure names its rule and field."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from edgesdk.errors import ArtifactError
from edgesdk.formats.optional_fields import ACTIVATIONS, check_optional_fields
from edgesdk.formats.tiles import CODEBOOK_BITS, PANEL_BITS, TILE_ROWS, packed_bytes, padded_bytes

if TYPE_CHECKING:
    from edgesdk.formats.reader import Artifact, TensorInfo

__all__ = ["TABLES", "check", "integer", "integers", "number", "objects", "row_panels", "weight_shapes"]

_PAGE = 4096
_MAX_BLOCKS = 100_000
_LIMIT = 1 << 53
_RATE_TOLERANCE = 1e-4


def integer(value: Any, field: str, rule: str) -> int:
    """A non-negative integer below 2^53, or an error."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _LIMIT:
        raise ArtifactError(f"{field} is {value!r}, expected an integer >= 0 (rule {rule})")
    return value


def integers(value: Any, field: str, rule: str) -> list[int]:
    """A list of non-negative integers, or an error."""
    if not isinstance(value, list):
        raise ArtifactError(f"{field} is {value!r}, expected a list of integers (rule {rule})")
    return [integer(v, field, rule) for v in value]


def number(value: Any, field: str, rule: str) -> float:
    """A finite number, or an error."""
    try:
        finite = not isinstance(value, bool) and isinstance(value, (int, float)) and math.isfinite(value)
    except OverflowError:  # an integer that no float can hold
        finite = False
    if not finite:
        raise ArtifactError(f"{field} is {value!r}, expected a finite number (rule {rule})")
    return float(value)


def objects(value: Any, field: str, rule: str, most: int) -> list[Mapping[str, Any]]:
    """A list of 1 to `most` JSON objects, or an error."""
    if not isinstance(value, list) or not 1 <= len(value) <= most or not all(isinstance(v, dict) for v in value):
        raise ArtifactError(f"{field} is no list of 1 to {most} objects (rule {rule})")
    return value


def check(artifact: Artifact) -> None:
    """Checks sections 3 to 6; raises ArtifactError."""
    _check_model(artifact.edge)
    _check_runs(artifact)
    _check_levels(artifact)
    _check_panels(artifact)
    _check_norms(artifact)


def weight_shapes(block: Mapping[str, Any], kept: tuple[int, ...], d_model: int) -> dict[str, tuple[int, int]]:
    """Rows and columns of a block's packed weights when it keeps `kept` of its axes."""
    if block["kind"] == "attention":
        qk, vo = kept
        heads, kv_heads = block["n_heads"], block["n_kv_heads"]
        return {
            "q": (heads * qk, d_model),
            "k": (kv_heads * qk, d_model),
            "v": (kv_heads * vo, d_model),
            "o": (d_model, heads * vo),
        }
    if block["kind"] == "ssm":
        state, head = kept
        rows, states = block["n_heads"] * head, block["n_groups"] * state
        shapes = {"z": (rows, d_model), "x": (rows, d_model), "b": (states, d_model), "c": (states, d_model)}
        return {**shapes, "out": (d_model, rows)}
    (width,) = kept
    gate = {"gate": (width, d_model)} if block["gated"] else {}
    return {**gate, "up": (width, d_model), "down": (d_model, width)}


_AXES = {"attention": ("qk", "vo"), "mlp": ("width",), "ssm": ("state", "head")}
_ROW_BIASES = {"attention": ("q", "k"), "mlp": ("gate", "up"), "ssm": ("z", "x", "b", "c")}
_CONV_KERNELS = range(2, 9)


def _check_model(edge: Mapping[str, Any]) -> None:
    model = edge.get("model")
    if not isinstance(model, dict):
        raise ArtifactError("`model` is missing (rule 3)")
    for field in ("d_model", "vocab_size", "max_context"):
        if integer(model.get(field), f"model.{field}", "3") < 1:
            raise ArtifactError(f"model.{field} is 0 (rule 3)")
    if model["d_model"] % 8:
        raise ArtifactError(f"model.d_model is {model['d_model']}, no multiple of 8 (rule 3)")
    for field in ("norm_eps", "embedding_scale"):
        number(model.get(field), f"model.{field}", "3")
    if not isinstance(model.get("tied_head"), bool):
        raise ArtifactError("model.tied_head is not true or false (rule 3)")
    names: set[str] = set()
    for i, block in enumerate(objects(model.get("blocks"), "model.blocks", "3", most=_MAX_BLOCKS)):
        kind, block_name = block.get("kind"), block.get("name")
        if not isinstance(block_name, str) or block_name in names:
            raise ArtifactError(f"model.blocks[{i}].name is {block_name!r}, expected a name of its own (rule 3)")
        names.add(block_name)
        if not isinstance(kind, str) or kind not in _AXES:
            raise ArtifactError(f"model.blocks[{i}] has kind {kind!r}, expected one of {sorted(_AXES)} (rule 3)")
        axes = block.get("axes")
        if not isinstance(axes, dict) or sorted(axes) != sorted(_AXES[kind]):
            raise ArtifactError(f"model.blocks[{i}].axes should have {_AXES[kind]} (rule 3)")
        for name, pair in axes.items():
            numbers = integers(pair, f"model.blocks[{i}].axes.{name}", "3")
            if len(numbers) != 2 or min(numbers) < 1:
                raise ArtifactError(f"model.blocks[{i}].axes.{name} is {pair}, expected [size, quantum] (rule 3)")
        row_bias = block.get("row_bias", [])
        if not isinstance(row_bias, list) or not all(role in _ROW_BIASES[kind] for role in row_bias):
            raise ArtifactError(f"model.blocks[{i}].row_bias is {row_bias!r}, known are {_ROW_BIASES[kind]} (rule 3)")
        if kind == "attention":
            _check_attention(block, i)
        elif kind == "ssm":
            _check_ssm(block, i)
        else:
            _check_mlp(block, i)
    check_optional_fields(model, int(edge["format_version"].split(".")[0]))


def _check_mlp(block: Mapping[str, Any], i: int) -> None:
    gated, activation = block.get("gated"), block.get("activation")
    if not isinstance(gated, bool) or activation not in (ACTIVATIONS if gated else ("relu2",)):
        raise ArtifactError(
            f"model.blocks[{i}] has gated {gated!r} and activation {activation!r}, "
            f"expected true and one of {ACTIVATIONS}, or false and 'relu2' (rule 3)"
        )
    if not gated and "gate" in block.get("row_bias", []):
        raise ArtifactError(f"model.blocks[{i}].row_bias names a gate, and there is none (rule 3)")


def _check_attention(block: Mapping[str, Any], i: int) -> None:
    heads = integer(block.get("n_heads"), f"model.blocks[{i}].n_heads", "3")
    kv_heads = integer(block.get("n_kv_heads"), f"model.blocks[{i}].n_kv_heads", "3")
    number(block.get("softmax_scale"), f"model.blocks[{i}].softmax_scale", "3")
    if kv_heads < 1 or heads < 1 or heads % kv_heads:
        raise ArtifactError(f"model.blocks[{i}]: {kv_heads} key/value heads do not divide {heads} heads (rule 3)")
    _check_quanta(block, i)


def _check_quanta(block: Mapping[str, Any], i: int) -> None:
    for name, (size, quantum) in block["axes"].items():
        if size % quantum or quantum % 8:
            raise ArtifactError(f"model.blocks[{i}].axes.{name} is {[size, quantum]} (rule 3)")


def _check_ssm(block: Mapping[str, Any], i: int) -> None:
    where = f"model.blocks[{i}]"
    heads = integer(block.get("n_heads"), f"{where}.n_heads", "3")
    for name in ("n_groups", "norm_groups"):
        groups = integer(block.get(name), f"{where}.{name}", "3")
        if heads < 1 or groups < 1 or heads % groups:
            raise ArtifactError(f"{where}.{name} is {groups} and does not divide {heads} heads (rule 3)")
    if integer(block.get("conv_kernel"), f"{where}.conv_kernel", "3") not in _CONV_KERNELS:
        raise ArtifactError(f"{where}.conv_kernel is {block['conv_kernel']}, expected 2 to 8 (rule 3)")
    limits = block.get("step_limits")
    if not isinstance(limits, list) or len(limits) != 2:
        raise ArtifactError(f"{where}.step_limits is {limits!r}, expected [least, most] (rule 3)")
    least = number(limits[0], f"{where}.step_limits", "3")
    most = math.inf if limits[1] is None else number(limits[1], f"{where}.step_limits", "3")
    if not 0 <= least <= most:
        raise ArtifactError(f"{where}.step_limits is {limits}, expected 0 <= least <= most (rule 3)")
    _check_quanta(block, i)


def _vectors(block: Mapping[str, Any], kept: tuple[int, ...], d_model: int) -> dict[str, tuple[str, int]]:
    """Dtype and number of values of what a block keeps in float; what follows an axis only while it is there."""
    biases = block.get("row_bias", [])
    if block["kind"] == "attention":
        rows = {"q": block["n_heads"] * kept[0], "k": block["n_kv_heads"] * kept[0]}
        vectors = {"inv_freq": rows["k"] // 2} | {f"{role}.bias": rows[role] for role in biases}
    elif block["kind"] == "mlp":
        vectors = {f"{role}.bias": kept[0] for role in biases}
    else:
        return _ssm_vectors(block, kept, d_model)
    return {name: ("F32", size) for name, size in vectors.items()}


def _ssm_vectors(block: Mapping[str, Any], kept: tuple[int, ...], d_model: int) -> dict[str, tuple[str, int]]:
    """Dtype and number of values of what a mixer keeps in float; what follows an axis only while it is there."""
    state, head = kept
    heads, taps = block["n_heads"], block["conv_kernel"] + 1
    rows, states = heads * head, block["n_groups"] * state
    vectors = {"dt": ("F16", heads * d_model), **dict.fromkeys(("dt.bias", "a", "d"), ("F32", heads))}
    cut = {"x.conv": rows * taps, "b.conv": states * taps, "c.conv": states * taps, "gain": rows}
    cut |= {f"{role}.bias": rows if role in ("z", "x") else states for role in block.get("row_bias", [])}
    return vectors | {name: ("F32", size) for name, size in cut.items()}


def _check_vectors(artifact: Artifact, k: int) -> None:
    """The float pieces that level k uses hold what its blocks keep, and each block has one bias at most (rule 3)."""
    model = artifact.edge["model"]
    by_stem: dict[str, list[TensorInfo]] = {}
    for name in artifact.used_names(k):
        by_stem.setdefault(name.rpartition("/")[0], []).append(artifact.tensors[name])
    for block, kept in zip(model["blocks"], artifact.levels[k].allocation, strict=True):
        for name, (dtype, size) in _vectors(block, kept, model["d_model"]).items():
            stem = f"{block['name']}.{name}"
            total = sum(t.shape[0] if _is_vector(t, dtype) else _LIMIT for t in by_stem.get(stem, []))
            if total != size:
                raise ArtifactError(f"level {k}: the pieces of `{stem}` are not {size} {dtype} values (rule 3)")
        biases = by_stem.get(f"{block['name']}.bias", [])
        if len(biases) > 1 or any(not _is_vector(t, "F16") or t.shape != (model["d_model"],) for t in biases):
            raise ArtifactError(f"level {k}: `{block['name']}.bias` is not one F16 vector (rule 3)")


def _is_vector(tensor: TensorInfo, dtype: str) -> bool:
    return len(tensor.shape) == 1 and tensor.dtype == dtype


def _check_runs(artifact: Artifact) -> None:
    offset, first = 0, 0
    top = len(artifact.levels) - 1
    for i, run in enumerate(artifact.runs):
        if run.begin != offset or run.end < run.begin or run.begin % _PAGE or run.end % _PAGE:
            raise ArtifactError(
                f"runs[{i}] covers {run.begin}..{run.end}, expected whole pages from {offset} (rule 5.1)"
            )
        if run.first_level < first or not run.first_level <= run.last_level <= top:
            raise ArtifactError(f"runs[{i}] is for levels {run.first_level}..{run.last_level} of 0..{top} (rule 5.1)")
        offset, first = run.end, run.first_level
    end = max((t.end for t in artifact.tensors.values()), default=0)
    if offset != end:
        raise ArtifactError(f"runs end at {offset}, the tensors at {end} (rule 5.1)")
    for name, run in artifact.run_of.items():
        tensor = artifact.tensors[name]
        if not run.begin <= tensor.begin <= tensor.end <= run.end:
            raise ArtifactError(f"tensor `{name}` crosses the end of a run (rule 5.3)")
        if name.rpartition("/")[2] != str(run.first_level) and not name.startswith("pad."):
            raise ArtifactError(f"tensor `{name}` lies in a run of level {run.first_level} (rule 5.3)")


def _check_levels(artifact: Artifact) -> None:
    blocks = artifact.edge["model"]["blocks"]
    before: tuple[tuple[int, ...], ...] = tuple((0,) * len(b["axes"]) for b in blocks)
    rate = math.inf
    for level in artifact.levels:
        k = level.index
        mapped = sum(r.end - r.begin for r in artifact.runs if r.first_level <= k <= r.last_level)
        needed = artifact.data_offset + max((r.end for r in artifact.runs if r.first_level <= k), default=0)
        if (level.mapped_bytes, level.file_bytes) != (mapped, needed):
            raise ArtifactError(
                f"levels[{k}] says {level.mapped_bytes} mapped and {level.file_bytes} file bytes, "
                f"runs say {mapped} and {needed} (rule 6.2)"
            )
        if not level.rate < rate:
            raise ArtifactError(f"levels[{k}].rate is {level.rate}, not below {rate} (rule 6.3)")
        _check_allocation(blocks, level.allocation, before, k)
        before, rate = level.allocation, level.rate
    if before != tuple(tuple(size for size, _ in b["axes"].values()) for b in map(_ordered, blocks)):
        raise ArtifactError("the last level does not keep every axis whole (rule 6.1)")
    if artifact.levels[-1].rate != 0:
        raise ArtifactError(f"the last level has rate {artifact.levels[-1].rate}, expected 0 (rule 6.3)")


def _ordered(block: Mapping[str, Any]) -> dict[str, Any]:
    return {**block, "axes": {name: block["axes"][name] for name in _AXES[block["kind"]]}}


def _check_allocation(
    blocks: list[Mapping[str, Any]],
    kept: tuple[tuple[int, ...], ...],
    before: tuple[tuple[int, ...], ...],
    level: int,
) -> None:
    if len(kept) != len(blocks):
        raise ArtifactError(f"levels[{level}].allocation lists {len(kept)} blocks of {len(blocks)} (rule 6.1)")
    for b, (block, now, smaller) in enumerate(zip(blocks, kept, before, strict=True)):
        axes = [block["axes"][name] for name in _AXES[block["kind"]]]
        legal = len(now) == len(axes) and all(
            (n == size or n % quantum == 0) and n <= size for n, (size, quantum) in zip(now, axes, strict=True)
        )
        if not legal or (0 in now and any(now)):
            raise ArtifactError(f"levels[{level}].allocation[{b}] is {list(now)}, axes are {axes} (rule 6.1)")
        if any(n < s for n, s in zip(now, smaller, strict=True)):
            raise ArtifactError(f"levels[{level}].allocation[{b}] shrinks from {smaller} to {now} (rule 6.1)")


def _check_panels(artifact: Artifact) -> None:
    panels = artifact.edge.get("panels")
    codebooks = artifact.edge.get("codebooks")
    if not isinstance(panels, dict) or not isinstance(codebooks, list):
        raise ArtifactError("`panels` or `codebooks` is missing (rule 4)")
    for i, codebook in enumerate(codebooks):
        ok = isinstance(codebook, list) and len(codebook) in _CODEBOOK_SIZES and all(map(_is_value, codebook))
        if not ok or codebook != sorted(codebook):
            raise ArtifactError(
                f"codebooks[{i}] is {str(codebook)[:80]}, "
                f"expected {_CODEBOOK_SIZES} ascending integers from -32 to 31 (rule 4)"
            )
    for name, box in panels.items():
        _check_panel(artifact, name, box, codebooks)
    tables = {stem for weight in TABLES for stem in row_panels(weight, artifact.tensors)}
    _check_all_have_panels(artifact, panels)
    for name, box in panels.items():
        if name.rpartition("/")[0] in tables:
            _check_table_panel(artifact, name, box)
    for level in artifact.levels:
        _check_coverage(artifact, panels, level.index)
        _check_vectors(artifact, level.index)


TABLES = ("embed", "head")
_TABLE_BITS = (3, 4, 6, 8)
_CODEBOOK_SIZES = tuple(1 << bits for bits in CODEBOOK_BITS)


def _is_value(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -32 <= value <= 31


def _check_panel(artifact: Artifact, name: str, box: Any, codebooks: list[list[int]]) -> None:
    if not isinstance(box, list) or len(box) != 7:
        raise ArtifactError(f"panels.{name} is {box!r}, expected seven integers (rule 4)")
    row_begin, row_end, column_begin, column_end, bits, group = integers(box[:6], f"panels.{name}", "4")
    tensor = artifact.tensors.get(name)
    legal = row_begin < row_end and column_begin < column_end and group and group % 8 == 0 and group <= 128
    if bits not in PANEL_BITS:
        raise ArtifactError(
            f"panels.{name} has {bits} bits, expected one of {PANEL_BITS} (rule 4)", hint="update edgesdk"
        )
    if not legal or (column_end - column_begin) % 8 or column_begin % group:
        raise ArtifactError(f"panels.{name} is {box} (rule 4.1)")
    _check_codebook(name, bits, box[6], codebooks)
    size = padded_bytes(row_end - row_begin, column_end - column_begin, bits, group)
    if tensor is None or tensor.dtype != "U8" or tensor.shape != (size,):
        found = "no tensor" if tensor is None else f"{tensor.dtype} {tensor.shape}"
        raise ArtifactError(f"panel {name} has {found}, its shape needs U8 ({size},) (rule 4.3)")


def _check_codebook(name: str, bits: int, index: Any, codebooks: list[list[int]]) -> None:
    """A panel names a codebook with a value for every code, or -1 where codes are values themselves (rule 4)."""
    if isinstance(index, bool) or not isinstance(index, int):
        raise ArtifactError(f"panels.{name} names codebook {index!r}, expected an integer (rule 4)")
    if bits not in CODEBOOK_BITS:
        if index != -1:
            raise ArtifactError(f"panels.{name} has {bits} bits and codebook {index}, expected -1 (rule 4)")
        return
    if not 0 <= index < len(codebooks):
        raise ArtifactError(f"panels.{name} names codebook {index} of {len(codebooks)} (rule 4)")
    if len(codebooks[index]) != 1 << bits:
        raise ArtifactError(
            f"panels.{name} has {bits} bits and codebook {index} of {len(codebooks[index])} values, "
            f"expected {1 << bits} (rule 4)"
        )


def row_panels(weight: str, tensors: Iterable[str]) -> list[str]:
    """Names, without levels, of the panels of a weight: its own, or of TABLES NAME.0, NAME.1 ... instead (rule 3)."""
    if weight not in TABLES:
        return [weight]
    stems = {name.rpartition("/")[0] for name in tensors}
    if weight in stems:
        return [weight]
    return list(itertools.takewhile(stems.__contains__, (f"{weight}.{i}" for i in itertools.count())))


def _check_all_have_panels(artifact: Artifact, panels: Mapping[str, Any]) -> None:
    """Every tensor with the name of a weight has a panel (rule 4)."""
    model = artifact.edge["model"]
    weights = {
        f"{block['name']}.{role}"
        for block in model["blocks"]
        for role in weight_shapes(block, (0,) * len(block["axes"]), 0)
    }
    for weight in TABLES[: 1 if model["tied_head"] else 2]:
        weights.update(row_panels(weight, artifact.tensors))
    for name in artifact.tensors:
        if name.rpartition("/")[0] in weights and name not in panels:
            raise ArtifactError(f"tensor `{name}` has no panel (rule 4)")


def _check_table_panel(artifact: Artifact, name: str, box: list[int]) -> None:
    """Panels of the embedding and the head are rows of whole tiles: looked up by row, and multiplied."""
    model = artifact.edge["model"]
    whole_tiles = box[0] % TILE_ROWS == 0 and (box[1] % TILE_ROWS == 0 or box[1] == model["vocab_size"])
    if not whole_tiles or box[2:4] != [0, model["d_model"]]:
        raise ArtifactError(f"panel {name} covers {box[:4]}, expected whole tiles of {TILE_ROWS} rows (rule 3)")
    if box[4] not in _TABLE_BITS:
        raise ArtifactError(f"panel {name} has {box[4]} bits, expected one of {_TABLE_BITS} (rule 3)")


def _check_norms(artifact: Artifact) -> None:
    """Gains of norms are whole in level 0 (rule 3)."""
    model = artifact.edge["model"]
    expected = {"norm": model["d_model"]}
    for block in model["blocks"]:
        expected[f"{block['name']}.norm"] = model["d_model"]
        if block.get("post_norm"):
            expected[f"{block['name']}.post_norm"] = model["d_model"]
        if block.get("qk_norm"):
            expected |= {f"{block['name']}.{role}_norm": block["axes"]["qk"][0] for role in "qk"}
    for name, size in expected.items():
        tensor = artifact.tensors.get(f"{name}/0")
        if tensor is None or tensor.dtype != "F32" or tensor.shape != (size,):
            found = "no tensor" if tensor is None else f"{tensor.dtype} {tensor.shape}"
            raise ArtifactError(f"`{name}/0` is {found}, expected F32 ({size},) (rule 3)")


def _check_coverage(artifact: Artifact, panels: Mapping[str, Any], k: int) -> None:
    """Every weight of level k is tiled exactly, in order, by row panels or by column panels (rules 4.2 and 6.3)."""
    level = artifact.levels[k]
    model = artifact.edge["model"]
    by_weight: dict[str, list[list[int]]] = {}
    for name in artifact.used_names(k):
        if name in panels:
            by_weight.setdefault(name.rpartition("/")[0], []).append(panels[name])
    block_bytes = 0
    _check_groups(model, level.allocation, by_weight)
    expected = {"embed": (model["vocab_size"], model["d_model"])}
    if not model["tied_head"]:
        expected["head"] = expected["embed"]
    for block, kept in zip(model["blocks"], level.allocation, strict=True):
        shapes = weight_shapes(block, kept, model["d_model"])
        shapes = {role: shape for role, shape in shapes.items() if 0 not in shape}
        for role, shape in shapes.items():
            boxes = by_weight.get(f"{block['name']}.{role}", [])
            block_bytes += sum(packed_bytes(b[1] - b[0], b[3] - b[2], b[4], b[5]) for b in boxes)
            expected[f"{block['name']}.{role}"] = shape
    for weight, shape in expected.items():
        boxes = [box for stem in row_panels(weight, artifact.tensors) for box in by_weight.pop(stem, [])]
        by_rows = all(b[2] == 0 and b[3] == shape[1] for b in boxes)
        ends = [(b[0], b[1]) if by_rows else (b[2], b[3]) for b in boxes]
        whole = by_rows or all(b[0] == 0 and b[1] == shape[0] for b in boxes)
        joined = all(a[1] == b[0] for a, b in itertools.pairwise(ends))
        if not (boxes and whole and joined and ends[0][0] == 0 and ends[-1][1] == shape[0 if by_rows else 1]):
            raise ArtifactError(f"level {k}: the panels of {weight} do not cover {shape} (rule 4.2)")
        if len({b[5] for b in boxes}) != 1:
            raise ArtifactError(f"level {k}: the panels of {weight} have different groups (rule 4.1)")
    if by_weight:
        raise ArtifactError(f"level {k} has panels of unknown weights: {sorted(by_weight)[:5]} (rule 4.2)")
    if level.block_bytes != block_bytes:
        raise ArtifactError(f"levels[{k}].block_bytes is {level.block_bytes}, panels say {block_bytes} (rule 6.3)")
    top = artifact.levels[-1].block_bytes
    if abs(level.rate - (1 - block_bytes / top if top else 0)) > _RATE_TOLERANCE:
        raise ArtifactError(f"levels[{k}].rate is {level.rate}, its block_bytes give another one (rule 6.3)")


def _check_groups(
    model: Mapping[str, Any], allocation: tuple[tuple[int, ...], ...], by_weight: Mapping[str, list[list[int]]]
) -> None:
    """All weights of a block that read the normed residual have one group (rule 4.1): all but the last."""
    for block, kept in zip(model["blocks"], allocation, strict=True):
        roles = list(weight_shapes(block, kept, model["d_model"]))[:-1]
        groups = {box[5] for role in roles for box in by_weight.get(f"{block['name']}.{role}", [])}
        if len(groups) > 1:
            raise ArtifactError(f"the weights of `{block['name']}` have the groups {sorted(groups)} (rule 4.1)")
