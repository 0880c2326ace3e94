"""ExecuTorch: programs for any number of tokens and for one compute the level, and its LLM runner takes them."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from export_models import FULL, VOCAB_SIZE, export_request, write_export_model

from edgesdk.cloud.export import Exported, export_level, level_tokenizer
from edgesdk.cloud.tokenizer import to_tokenizers
from edgesdk.errors import UsageError
from edgesdk.formats import Artifact
from edgesdk.formats.exports import find_format, open_level_model

pytest.importorskip("executorch")
pytest.importorskip("torchao")

from edgesdk.formats.exports.executorch import open_runner, read_metadata

# Exporting takes seconds each, whatever the model's size: kind of artifact, level, weights, any number of tokens.
CASES = {
    "float": ("biases", 0, "float", True),
    "8da4w": ("tied", 1, "8da4w", False),
    "8da8w": ("tied", FULL, "8da8w", True),
}
CONTEXT = 256
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # its own libraries warn


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("executorch")
    return {kind: write_export_model(folder / f"{kind}.edge", kind) for kind in ("tied", "biases")}


@pytest.fixture(scope="module")
def exported(artifacts, tmp_path_factory) -> dict[str, Exported]:
    folder = tmp_path_factory.mktemp("exported")
    options = {"context": CONTEXT, "check": True}
    return {
        name: export_level(
            artifacts[kind], level, "executorch", folder / name, weights=weights, dynamic=dynamic, **options
        )
        for name, (kind, level, weights, dynamic) in CASES.items()
    }


def test_the_float_program_computes_the_level(exported):
    found = exported["float"].agreement
    assert found is not None
    assert found.runtime.startswith("executorch ")
    assert found.max_error < 1e-5 * found.max_logit
    assert found.ours == found.theirs


@pytest.mark.parametrize(("name", "kl", "error"), [("8da4w", 1.0, 0.35), ("8da8w", 0.02, 0.1)])
def test_integers_are_near(exported, name, kl, error):
    found = exported[name].agreement
    assert found is not None
    assert 0 < found.kl < kl
    assert found.max_error < error * found.max_logit


def test_four_bits_take_the_bytes_that_they_should(exported, artifacts):
    model = open_level_model(Artifact.open(artifacts["tied"]), 1)
    blocks = [block for i in range(len(model.layers)) for block in (model.attention(i), model.mlp(i))]
    n_linear = sum(values.size for block in blocks for values in block.values() if values.ndim > 1)
    packed = n_linear * (0.5 + 4 / 32) + model.head.size + model.embedding.size  # scales are 32 bits here
    assert packed < exported["8da4w"].n_bytes < packed + 100_000  # the program's own text, and rows that XNNPACK fills


def test_it_answers_what_the_runner_asks(exported):
    wanted = {
        "get_max_seq_len": CONTEXT,
        "get_max_context_len": CONTEXT,
        "get_vocab_size": VOCAB_SIZE,
        "get_n_layers": 3,
        "get_bos_id": 0,
        "get_eos_ids": 2,
        "use_kv_cache": True,
        "enable_dynamic_shape": True,
    }
    assert read_metadata(exported["8da8w"].folder, list(wanted)) == wanted
    assert read_metadata(exported["8da4w"].folder, ["enable_dynamic_shape"]) == {"enable_dynamic_shape": False}


def readable(exported: Exported, artifact: Path) -> tuple[str, str]:
    """A prompt, and what the program says behind it in three tokens: ASCII, as the runner takes no half characters."""
    _, level, weights, dynamic = next(case for case in CASES.values() if case[2] == exported.weights)
    request = export_request(artifact, level, weights, dynamic=dynamic, context=CONTEXT)
    runtime = find_format("executorch")[0].open_runtime(request, exported.folder)
    own = level_tokenizer(Artifact.open(artifact))
    assert own is not None
    tokenizer = to_tokenizers(own)
    for prompt in (a + b for a in string.ascii_letters for b in string.ascii_lowercase):
        tokens = tokenizer.encode(prompt).ids
        said = [int(runtime.step(tokens, 0).argmax())]
        for i in range(2):
            said.append(int(runtime.step(said[-1:], len(tokens) + i).argmax()))
        text = tokenizer.decode(said)
        if min(said) > 2 and max(said) < tokenizer.get_vocab_size() and text.isascii() and text.isprintable():
            return prompt, text
    raise AssertionError("no prompt has a readable answer")


@pytest.mark.parametrize("name", list(CASES))
def test_the_llm_runner_says_the_same(exported, artifacts, name):
    prompt, wanted = readable(exported[name], artifacts[CASES[name][0]])
    assert open_runner(exported[name].folder).generate(prompt, 3) == wanted


def test_rows_that_are_no_groups_are_refused(tmp_path):
    from tiny_model import nested_ladder, tiny_config, write_random_artifact

    config = tiny_config(n_layers=1, d_model=72)
    write_random_artifact(tmp_path / "tiny.edge", config, nested_ladder(config, drop_first=False))
    with pytest.raises(UsageError, match="groups of 32 weights, and rows of this model have 72") as caught:
        export_level(tmp_path / "tiny.edge", 0, "executorch", tmp_path / "out")
    assert "--weights float" in caught.value.hint
    assert not (tmp_path / "out").exists()
