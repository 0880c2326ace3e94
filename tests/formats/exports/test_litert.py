"""LiteRT: prefill and decode signatures compute the level in ai-edge-litert."""

from __future__ import annotations

from pathlib import Path

import pytest
from export_models import FULL, write_export_model

from edgesdk.cloud.export import export_level

pytest.importorskip("litert_torch")
interpreter = pytest.importorskip("ai_edge_litert.interpreter")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # its own libraries warn


@pytest.fixture(scope="module")
def artifact(tmp_path_factory) -> Path:
    return write_export_model(tmp_path_factory.mktemp("litert") / "tiny.edge", "biases")


@pytest.mark.parametrize("level", [0, FULL])
def test_the_float_model_computes_the_level(artifact, level, tmp_path):
    done = export_level(artifact, level, "litert", tmp_path / "out", weights="float", context=192, check=True)
    found = done.agreement
    assert found is not None
    assert found.max_error < 1e-5 * found.max_logit
    assert found.ours == found.theirs
    model = interpreter.Interpreter(model_path=str(done.folder / "model.tflite"))
    signatures = model.get_signature_list()
    assert sorted(signatures) == ["decode", "prefill_96"]
    caches = [f"kv_cache_{kind}_{i}" for kind in "kv" for i in range(2 if level == 0 else 3)]
    assert sorted(signatures["decode"]["inputs"]) == sorted([*caches, "tokens", "input_pos"])
    assert sorted(signatures["decode"]["outputs"]) == sorted([*caches, "logits"])
    assert sorted(signatures["prefill_96"]["outputs"]) == sorted(caches)


def test_integers_are_near_and_take_fewer_bytes(artifact, tmp_path):
    plain = export_level(artifact, FULL, "litert", tmp_path / "float", weights="float", context=192)
    done = export_level(artifact, FULL, "litert", tmp_path / "out", weights="int8", context=192, check=True)
    assert done.agreement is not None
    assert 0 < done.agreement.kl < 0.05
    assert done.n_bytes < 0.5 * plain.n_bytes
    assert sorted(path.name for path in done.folder.iterdir()) == sorted(path.name for path in plain.folder.iterdir())
