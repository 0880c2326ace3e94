"""The GPU backends against the CPU, on whatever OpenCL device there is (PoCL where there is no GPU).

A device that rounds divisions and square roots to the nearest, as PoCL does, gives the CPU's bits. Others may differ by
what one step of int8 codes makes of it: TOLERANCE, as the root mean square of the error over that of the logits.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from device_artifacts import SHAPES, SPLITS, edge_run
from numpy.typing import NDArray
from tiny_model import mix_bits, nested_ladder, table_bits, tiny_config, tiny_ssm_config, write_random_artifact

from edgesdk.cli import main
from edgesdk.errors import ArtifactError, HashError, MemoryBudgetError, UsageError
from edgesdk.formats.tiles import PANEL_BITS

try:
    from edgesdk.device import Model, _native, load
except ImportError as error:
    pytest.skip(f"the native engine is not built: {error}", allow_module_level=True)

TOLERANCE = 0.02
pytestmark = pytest.mark.usefixtures("cache")


def run_both(path: Path, tokens: list[int], **options: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits of all tokens: those of the CPU, and those of OpenCL."""
    with load(path, **options) as model:
        expected = model.logits(tokens)
    with load(path, backend="opencl", **options) as model:
        assert model.backend.name == "opencl"
        return expected, model.logits(tokens)


def assert_agree(expected: NDArray[np.float32], found: NDArray[np.float32], *, exact: bool) -> None:
    assert expected.std() > 0.1
    error = np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2))
    assert error < TOLERANCE
    if exact:
        np.testing.assert_array_equal(found, expected)


def rounds_exactly(path: Path) -> bool:
    with load(path, level=0, backend="opencl") as model:
        return "PoCL" in model.backend.driver


@pytest.mark.parametrize("kv_bits", [8, 16])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_level_gives_the_logits_of_the_cpu(shape: str, kv_bits: int, opencl: None, tmp_path: Path) -> None:
    """One weight has panels of all widths of bits, at each level; prompts of several chunks, and one token."""
    config = tiny_config(**SHAPES[shape])
    write_random_artifact(tmp_path / "four.edge", config, nested_ladder(config))
    mix_bits(tmp_path / "four.edge", tmp_path / "mixed.edge", lambda name: PANEL_BITS[sum(name.encode()) % 5])
    exact = rounds_exactly(tmp_path / "four.edge")
    for name in ("four.edge", "mixed.edge"):
        for level in range(3):
            tokens = np.random.default_rng(level).integers(0, 300, 77).tolist()
            options: dict[str, Any] = {"level": level, "kv_bits": kv_bits, "chunk": 33}
            assert_agree(*run_both(tmp_path / name, tokens, **options), exact=exact)
            assert_agree(*run_both(tmp_path / name, tokens[:1], **options), exact=exact)


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
def test_blocks_of_each_width_give_the_logits_of_the_cpu(bits: int, opencl: None, tmp_path: Path) -> None:
    config = tiny_config()
    roles = dict.fromkeys(("q", "k", "v", "o", "gate", "up", "down"), bits)
    write_random_artifact(tmp_path / "tiny.edge", config, nested_ladder(config), bits=roles)
    tokens = np.random.default_rng(bits).integers(0, 300, 9).tolist()
    assert_agree(*run_both(tmp_path / "tiny.edge", tokens, level=1), exact=rounds_exactly(tmp_path / "tiny.edge"))


@pytest.mark.parametrize("shape", ["grouped", "untied, biases"])
def test_rows_of_other_bits_give_the_logits_of_the_cpu(shape: str, opencl: None, tmp_path: Path) -> None:
    config = tiny_config(**SHAPES[shape])
    path = tmp_path / "rows.edge"
    write_random_artifact(path, config, nested_ladder(config), model_bits=table_bits(config))
    exact = rounds_exactly(path)
    for level in range(3):
        assert_agree(*run_both(path, list(range(0, 300, 5)), level=level), exact=exact)


MIXERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "hybrid": {"attention": True, "biases": True},
    "one group": {"n_groups": 1, "norm_groups": 1, "conv_kernel": 2, "step_limits": (0.01, 0.5)},
    "odd sizes": {"d_model": 72, "n_heads": 3, "n_groups": 3, "norm_groups": 1, "head_dim": 48, "state_size": 48},
    "eight taps": {"conv_kernel": 8, "n_groups": 4, "head_dim": 64, "state_size": 16},
    "many heads": {"n_heads": 8, "head_dim": 16, "state_size": 64, "norm_groups": 4, "n_layers": 3},
}


@pytest.mark.parametrize("shape", MIXERS)
def test_mixers_give_the_logits_of_the_cpu(shape: str, opencl: None, tmp_path: Path) -> None:
    """A prompt in chunks, which the states pass from one to the next, one token, and an answer behind a rewind."""
    config = tiny_ssm_config(**MIXERS[shape])
    write_random_artifact(tmp_path / "mixers.edge", config, nested_ladder(config))
    exact = rounds_exactly(tmp_path / "mixers.edge")
    for level in range(3):
        tokens = np.random.default_rng(level).integers(0, 300, 77).tolist()
        for part in (tokens, tokens[:1]):
            assert_agree(*run_both(tmp_path / "mixers.edge", part, level=level, chunk=33), exact=exact)
    texts = []
    for backend in ("cpu", "opencl"):
        with load(tmp_path / "mixers.edge", level=2, backend=backend) as model:
            session = model.session()
            texts.append([session.generate(prompt, max_tokens=20) for prompt in ("one two", "one", "three")])
    assert not exact or texts[0] == texts[1]


@pytest.mark.parametrize("kv_bits", [8, 16])
def test_windows_reach_over_blocks_of_keys(kv_bits: int, opencl: None, tmp_path: Path) -> None:
    config = tiny_config(norms=("qk_norm",), windows=(70, None, 5), softcap=20.0, n_layers=3)
    write_random_artifact(tmp_path / "tiny.edge", config, nested_ladder(config))
    tokens = np.random.default_rng(4).integers(0, 300, 300).tolist()
    exact = rounds_exactly(tmp_path / "tiny.edge")
    assert_agree(*run_both(tmp_path / "tiny.edge", tokens, kv_bits=kv_bits), exact=exact)


def test_an_answer_is_the_same_sampled_here_or_there(tiny: Path, opencl: None) -> None:
    """With few candidates tokens come from the device, else from logits that are read back; logprobs; a rewind."""
    with load(tiny, level=2) as cpu, load(tiny, level=2, backend="opencl") as gpu:
        if not rounds_exactly(tiny):
            pytest.skip("SKIPPED tokens may differ where logits may")
        few: dict[str, Any] = {"temperature": 0.8, "top_k": 20, "top_p": 0.9, "seed": 5}
        plain: tuple[dict[str, Any], ...] = ({}, {"temperature": 0.8, "seed": 3}, {"repetition_penalty": 1.3})
        for options in (*plain, few, {**few, "min_p": 0.1, "temperature": 3.0}, {**few, "repetition_penalty": 1.3}):
            texts = [model.generate("one two", max_tokens=40, **options) for model in (cpu, gpu)]
            assert texts[0] == texts[1]
        answers = []
        for model in (cpu, gpu):
            session = _native.Session(model._native)
            found: list[Any] = []
            for _ in range(2):
                session.feed(np.array([5, 6, 7], np.int32), False, False)
                found += [(session.next(), session.logprobs(3)) for _ in range(5)]
                session.rewind(2)
            answers.append(found)
        assert answers[0] == answers[1]


TALKERS: dict[str, Any] = {
    "attention": tiny_config(),
    "windows": tiny_config(norms=("qk_norm",), windows=(70, None, 5), softcap=20.0, n_layers=3),
    "mixers": tiny_ssm_config(attention=True, biases=True),
}


def talk(model: Model) -> list[Any]:
    """Logits and tokens of a conversation that goes to and fro between prompts and answers, and is rewound."""
    session = _native.Session(model._native)
    tokens = np.random.default_rng(5).integers(0, 300, 150).astype(np.int32)
    found: list[Any] = []
    for first, last in ((0, 75), (75, 80), (80, 81), (81, 147)):
        found.append(session.feed(tokens[first:last], True, True))
        found += [session.next() for _ in range(7)]
    session.rewind(90)
    found.append(session.feed(tokens[:3], True, True))
    for token in tokens[3:9]:
        found.append(session.feed(token.reshape(1), False, True))
    session.rewind(2)
    found.append(session.feed(tokens[9:12], True, True))
    return found


@pytest.mark.parametrize("kv_bits", [8, 16])
@pytest.mark.parametrize("talker", TALKERS)
@pytest.mark.parametrize("split", SPLITS)
def test_two_backends_talk_like_one(split: str, talker: str, kv_bits: int, opencl: None, tmp_path: Path) -> None:
    """What one side remembers goes to the other one to the bit, in both directions, at each level."""
    path = tmp_path / "tiny.edge"
    write_random_artifact(path, TALKERS[talker], nested_ladder(TALKERS[talker]))
    exact = rounds_exactly(path)
    for level in range(3):
        options: dict[str, Any] = {"level": level, "kv_bits": kv_bits, "chunk": 33, "context": 190}
        with load(path, **options) as one, load(path, **options, **SPLITS[split]) as two:
            names = (two.backend.name, two.backend.decode_name)
            assert names == (SPLITS[split]["backend"], SPLITS[split]["decode_backend"])
            assert two.backend.device != ""
            expected, found = talk(one), talk(two)
            assert len(expected) == len(found) == 4 * 8 + 8
            if not exact:
                pytest.skip("SKIPPED the texts of two backends: this device rounds otherwise than the CPU")
            for right, given in zip(expected, found, strict=True):
                np.testing.assert_array_equal(given, right)


@pytest.mark.parametrize("split", SPLITS)
def test_two_backends_change_the_level_together(split: str, opencl: None, tiny: Path) -> None:
    tokens = np.random.default_rng(1).integers(0, 300, 20).astype(np.int32)
    with load(tiny, level=2, **SPLITS[split]) as model, load(tiny, level=1) as other:
        session = _native.Session(model._native)
        session.feed(tokens[:10], False, False)
        session.next()
        session.rewind(10)
        model.set_level(1)
        found = session.feed(tokens[10:], True, True)
        assert_agree(other.logits(tokens.tolist())[10:], found, exact=rounds_exactly(tiny))


def test_two_backends_that_cannot_be_combined_say_so(tiny: Path, opencl: None) -> None:
    with pytest.raises(UsageError, match="prompts on cuda and single tokens on opencl") as refused:
        load(tiny, backend="cuda", decode_backend="opencl")
    assert "name `cpu`" in str(refused.value.hint)
    with pytest.raises(UsageError, match="prompts on auto and single tokens on opencl"):
        load(tiny, backend="auto", decode_backend="opencl")
    with pytest.raises(UsageError, match="decode_backend is 'auto'"):
        load(tiny, decode_backend="auto")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="adaptive"):
        load(tiny, decode_backend="opencl", adaptive=True)
    with load(tiny, backend="auto", decode_backend="cpu") as model:
        assert model.backend.decode_name == "cpu"
    with load(tiny, decode_backend="cpu") as model:
        assert (model.backend.name, model.backend.decode_name, model.backend.device) == ("cpu", "cpu", "")


def test_edge_run_takes_two_backends(tiny: Path, opencl: None, cache: Path) -> None:
    arguments = ["bench", tiny, "--level", 1, "--prompt-tokens", 9, "--decode-tokens", 3, "--runs", 1]
    arguments += ["--json", "--no-probe"]
    rows = []
    for backends in ([], ["--backend", "opencl", "--decode-backend", "cpu"], ["--decode-backend", "opencl"]):
        run = edge_run(*arguments, *backends, EDGE_CACHE_DIR=str(cache))
        assert run.returncode == 0, run.stderr
        rows.append(json.loads(run.stdout)["levels"][0])
    names = [(row["backend"], row["decode_backend"]) for row in rows]
    assert names == [("cpu", "cpu"), ("opencl", "cpu"), ("cpu", "opencl")]
    if rounds_exactly(tiny):
        assert len({row["logits_hash"] for row in rows}) == 1
    wrong = edge_run("generate", tiny, "--prompt", "a", "--decode-backend", "auto")
    assert wrong.returncode == 2
    assert "expected cpu, opencl or cuda" in wrong.stderr


def test_the_command_takes_two_backends(
    tiny: Path, opencl: None, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGE_CACHE_DIR", str(cache))
    texts = []
    for backends in ([], ["--backend", "opencl", "--decode-backend", "cpu"]):
        assert main(["run", str(tiny), "a b c", "--level", "1", "-n", "12", *backends]) == 0
        captured = capsys.readouterr()
        texts.append(captured.out)
        assert ("prompts on opencl, answers on cpu: " in captured.err) == bool(backends)
    assert texts[0] == texts[1] or not rounds_exactly(tiny)


def test_sessions_in_several_threads_share_the_device(tiny: Path, opencl: None) -> None:
    with load(tiny, level=2, backend="opencl") as model, ThreadPoolExecutor(4) as threads:
        prompts = [f"prompt {i}" for i in range(8)]
        expected = [model.generate(prompt, max_tokens=12) for prompt in prompts]
        assert list(threads.map(lambda prompt: model.generate(prompt, max_tokens=12), prompts)) == expected


def test_a_damaged_level_is_refused_before_it_is_used(tiny: Path, opencl: None, tmp_path: Path) -> None:
    damaged = bytearray(tiny.read_bytes())
    damaged[-5000] ^= 1
    (tmp_path / "damaged.edge").write_bytes(damaged)
    with pytest.raises(HashError):
        load(tmp_path / "damaged.edge", level=2, backend="opencl")


def test_the_level_can_change(tiny: Path, opencl: None) -> None:
    """On a GPU a conversation is computed again at the new level: its answer is that of a model loaded there."""
    tokens = np.random.default_rng(1).integers(0, 300, 20).tolist()
    with load(tiny, level=2, backend="opencl") as model, load(tiny, level=1, backend="opencl") as other:
        session = _native.Session(model._native)
        session.feed(np.array(tokens[:10], np.int32), False, False)
        held = model.backend.device_bytes
        model.set_level(1)
        found = session.feed(np.array(tokens[10:], np.int32), True, True)
        np.testing.assert_array_equal(found, other.logits(tokens)[10:])
        assert model.level == 1
        assert model.backend.device_bytes < held + other.estimate(1).total_bytes


def test_a_level_that_is_left_and_comes_back_at_once_keeps_the_conversation(tiny: Path, opencl: None) -> None:
    """Both changes come while a token is computed: the session only sees that its level lies elsewhere."""
    texts = []
    for n_changes in (0, 2):
        with load(tiny, level=2, backend="opencl") as model:
            session, pieces = _native.Session(model._native), []

            def take(text: str, model=model, pieces=pieces, n_changes=n_changes) -> bool:
                if not pieces and n_changes:
                    model.set_level(1)
                    model.set_level(2)
                pieces.append(text)
                return True

            session.generate(np.array(model.tokenize("one two three"), np.int32), 24, [], take)
            texts.append("".join(pieces))
    assert texts[0] == texts[1]
    assert len(texts[0]) > 4


def test_the_second_load_compiles_nothing(tiny: Path, opencl: None, tmp_path: Path) -> None:
    """Two processes with one cache, and one without any that may be written."""
    arguments = ["bench", tiny, "--level", 0, "--prompt-tokens", 4, "--decode-tokens", 2, "--runs", 1, "--json"]
    arguments += ["--no-probe", "--backend", "opencl"]
    counts, hashes = [], []
    for folder in ("cache", "cache", "/proc/none"):
        run = edge_run(*arguments, EDGE_CACHE_DIR=str(tmp_path / folder))
        assert run.returncode == 0, run.stderr
        counts.append(int(re.findall(r'"compiled": ?(\d+)', run.stdout)[0]))
        hashes.append(re.findall(r'"logits_hash": ?"(\w+)"', run.stdout)[0])
    assert counts == [1, 0, 1]
    assert len(set(hashes)) == 1
    kept = sorted(path.suffix for path in (tmp_path / "cache" / "gpu").iterdir())
    assert kept == [".passed", ".program"]


def test_a_damaged_cache_is_compiled_again(tiny: Path, opencl: None, cache: Path, tmp_path: Path) -> None:
    shutil.copytree(cache / "gpu", tmp_path / "gpu")
    for program in (tmp_path / "gpu").glob("*.program"):
        program.write_bytes(b"no program")
    arguments = ["generate", tiny, "--prompt", "a", "--max-tokens", 2, "--backend", "opencl"]
    run = edge_run(*arguments, EDGE_CACHE_DIR=str(tmp_path))
    assert run.returncode == 0, run.stderr


def test_what_cannot_run_on_a_gpu_says_so(tiny: Path, opencl: None, tmp_path: Path) -> None:
    config = tiny_config(n_layers=1, n_heads=1, n_kv_heads=1, head_dim=520)
    write_random_artifact(tmp_path / "long.edge", config, nested_ladder(config))
    with pytest.raises(ArtifactError, match="heads of more than 512 elements"):
        load(tmp_path / "long.edge", backend="opencl")
    with pytest.raises(UsageError, match="adaptive"):
        load(tiny, backend="opencl", adaptive=True)
    with pytest.raises(MemoryBudgetError, match="bytes are missing"):
        load(tiny, backend="opencl", budget=1000)


def test_auto_takes_no_processor_for_a_gpu(tiny: Path, opencl: None) -> None:
    with load(tiny, backend="auto") as model:
        if model.backend.name == "cpu":
            assert "opencl: " in model.backend.reason and "cuda: " in model.backend.reason
        else:
            assert "PoCL" not in model.backend.driver


def test_no_device_is_an_error_with_a_way_out(tiny: Path) -> None:
    with pytest.raises(UsageError, match="backend is 'vulkan'"):
        load(tiny, backend="vulkan")  # type: ignore[arg-type]
    run = edge_run("generate", tiny, "--prompt", "a", "--backend", "opencl", EDGE_OPENCL_DEVICE="no such name")
    assert run.returncode == 1
    assert "hint: " in run.stderr or "no such name" in run.stderr
    assert edge_run("generate", tiny, "--prompt", "a", "--backend", "vulkan").returncode == 2


@pytest.mark.parametrize("talker", ["attention", "mixers"])
def test_operations_are_timed_on_the_device(talker: str, opencl: None, cache: Path, tmp_path: Path) -> None:
    """The same calls and bytes as on the CPU; times as the queue tells them, which are part of the whole."""
    path = tmp_path / "tiny.edge"
    write_random_artifact(path, TALKERS[talker], nested_ladder(TALKERS[talker]))
    arguments = ["bench", path, "--level", 2, "--prompt-tokens", 40, "--decode-tokens", 8, "--runs", 1, "--ops"]
    rows: list[dict[str, Any]] = []
    for backends in ([], ["--backend", "opencl"], ["--backend", "opencl", "--decode-backend", "cpu"]):
        run = edge_run(*arguments, "--json", "--no-probe", "--threads", 1, *backends, EDGE_CACHE_DIR=str(cache))
        assert run.returncode == 0, run.stderr
        rows.append(json.loads(run.stdout)["levels"][0]["ops"])
    for row in rows:
        for phase in ("prefill", "decode"):
            assert 0 < sum(op["seconds"] for op in row[phase]["ops"]) <= row[phase]["seconds"]
    cpu, gpu, both = ({op["op"]: op for op in row["prefill"]["ops"]} for row in rows)
    assert cpu.keys() == gpu.keys() == both.keys()
    for name, op in cpu.items():
        assert (gpu[name]["calls"], gpu[name]["bytes"]) == (op["calls"], op["bytes"])
        assert (both[name]["calls"], both[name]["bytes"]) == (op["calls"], op["bytes"])
        assert (gpu[name]["seconds"] > 0) == (op["calls"] > 0)
    decode = [{op["op"]: op["calls"] for op in row["decode"]["ops"]} for row in rows]
    assert decode[2] == decode[0]
    assert decode[1]["store"] == decode[1]["attention"] == decode[0]["attention"]  # the CPU stores and attends at once


DEMO = Path(os.environ.get("EDGE_BUILD_DIR", "build")) / "demo" / "smollm2.edge"


@pytest.mark.slow
@pytest.mark.skipif(not DEMO.is_file(), reason="SKIPPED the demo's artifact is not built (make demo)")
@pytest.mark.parametrize("level", [0, -1])
def test_smollm2_answers_like_on_the_cpu(level: int, opencl: None) -> None:
    """48 tokens, greedily, at the smallest level and the full one."""
    with load(DEMO, level=0) as model:
        level = level % len(model.levels)
    texts = []
    for backend in ("cpu", "opencl"):
        with load(DEMO, level=level, context=256, backend=backend) as model:
            texts.append(model.generate("The capital of France is", max_tokens=48))
    assert len(texts[0]) > 40
    assert texts[0] == texts[1]
