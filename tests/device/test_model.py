"""The Python API on a tiny artifact: selection, logits, generation, streaming, threads, errors."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from device_artifacts import write_tiny

import edgesdk
from edgesdk.device.model import parse_bytes

TOKENS = np.random.default_rng(5).integers(0, 256, 300).tolist()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("model") / "tiny.edge", max_context=4096)


@pytest.fixture(scope="module")
def logits(path):
    """From one thread, at every level."""
    return [edgesdk.load(path, level=level, threads=1).logits(TOKENS) for level in range(3)]


@pytest.mark.parametrize("threads", [2, 3, 5])
@pytest.mark.parametrize("level", [0, 2])
def test_logits_do_not_depend_on_the_number_of_threads(path, logits, level, threads):
    assert np.array_equal(edgesdk.load(path, level=level, threads=threads).logits(TOKENS), logits[level])


@pytest.mark.parametrize("sizes", [[1] * 300, [127, 173], [128, 128, 44], [255, 1, 44], [3, 290, 7]])
def test_logits_do_not_depend_on_how_tokens_are_cut(path, logits, sizes):
    session = edgesdk.load(path, threads=2).session()
    begin = 0
    for size in sizes:
        part = np.array(TOKENS[begin : begin + size], np.int32)
        assert np.array_equal(session._native.feed(part, True, True), logits[2][begin : begin + size])
        begin += size


@pytest.mark.parametrize("isa", ["reference", "avx2", "avxvnni", "avx512vnni", "neon", "dotprod", "i8mm"])
def test_logits_do_not_depend_on_the_kernels(path, isa):
    from device_artifacts import edge_run

    arguments = ("bench", path, "--level", 1, "--prompt-tokens", 40, "--decode-tokens", 3, "--runs", 1, "--json")
    forced = edge_run(*arguments, EDGE_ISA=isa)
    if forced.returncode != 0:
        assert "EDGE_ISA" in forced.stderr or isa in forced.stderr
        pytest.skip(forced.stderr.strip())
    assert f'"isa":"{isa}"' in forced.stdout

    def hashed(text: str) -> str:
        return text.partition('"logits_hash":')[2][:18]

    assert hashed(forced.stdout) == hashed(edge_run(*arguments).stdout) != ""


def test_a_16_bit_cache_is_close_to_the_8_bit_one(path, logits):
    wide = edgesdk.load(path, kv_bits=16, threads=1).logits(TOKENS)
    assert not np.array_equal(wide, logits[2])
    assert np.sqrt(np.mean((wide - logits[2]) ** 2)) < 0.05 * logits[2].std()


def test_rewinding_gives_the_same_as_starting_anew(path, logits):
    session = edgesdk.load(path, threads=1).session()
    session._native.feed(np.array([*TOKENS[:50], 7, 8, 9], np.int32), False, False)
    session._native.rewind(50)
    assert session._native.position == 50
    assert np.array_equal(session._native.feed(np.array(TOKENS[50:], np.int32), True, True), logits[2][50:])


def test_levels_tell_the_ladder(path):
    with edgesdk.load(path, level=1) as model:
        assert [level.index for level in model.levels] == [0, 1, 2]
        assert (model.level, model.rate) == (1, model.levels[1].rate)
        assert model.levels[0].rate > model.levels[1].rate > model.levels[2].rate == 0
        assert model.levels[2].file_bytes == path.stat().st_size
        assert model.levels[0].perplexity is None
        assert "level 1" in model.reason


def test_selection(path):
    model = edgesdk.load(path)
    assert model.level == 2
    totals = [model.estimate(level).total_bytes for level in range(3)]
    for level, total in enumerate(totals):
        assert edgesdk.load(path, budget=total).level == level
        if level:
            assert edgesdk.load(path, budget=total - 1).level == level - 1
        assert edgesdk.load(path, rate=model.levels[level].rate).level == level
    with pytest.raises(edgesdk.MemoryBudgetError, match="1 bytes are missing") as error:
        edgesdk.load(path, budget=totals[0] - 1)
    assert "--context" in error.value.hint
    memory = model.estimate(0)
    assert memory.total_bytes == memory.mapped_bytes + memory.kv_bytes + memory.workspace_bytes
    assert model.estimate(0, 64, kv_bits=16).kv_bytes > model.estimate(0, 64).kv_bytes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0.99}, "out of range"),
        ({"rate": -0.1}, "out of range"),
        ({"level": 3}, "does not exist"),
        ({"level": -1}, "level is -1"),
        ({"level": 0, "rate": 0.1}, "given together"),
        ({"budget": "80 pounds"}, "no number of bytes"),
        ({"context": 5000}, "takes up to 4096"),
        ({"context": 0}, "context is 0"),
        ({"kv_bits": 4}, "kv_bits is 4"),
        ({"threads": 1000}, "threads is 1000"),
        ({"verify": "never"}, "verify is 'never'"),
    ],
)
def test_wrong_arguments(path, options, message):
    with pytest.raises(edgesdk.UsageError, match=message):
        edgesdk.load(path, **options)


def test_a_missing_file(tmp_path):
    with pytest.raises(edgesdk.EngineError, match="No such file"):
        edgesdk.load(tmp_path / "none.edge")


@pytest.mark.parametrize(
    ("text", "expected"), [(5, 5), ("80MB", 80_000_000), ("80 MiB", 83_886_080), ("1.5KiB", 1536), ("2gb", 2 * 10**9)]
)
def test_parse_bytes(text, expected):
    assert parse_bytes(text) == expected


def test_greedy_generation_follows_the_logits(path):
    model = edgesdk.load(path, threads=2)
    tokens = model.tokenize("Hello")
    expected = []
    for _ in range(12):
        token = int(model.logits(tokens + expected)[-1].argmax())
        if token == 257:
            break
        expected.append(token)
    assert model.generate("Hello", max_tokens=12) == model.detokenize(expected)


def test_streaming_gives_the_same_text_and_sampling_repeats(path):
    model = edgesdk.load(path)
    options = {"max_tokens": 60, "temperature": 30.0, "top_k": 80, "top_p": 0.9, "min_p": 0.01}
    whole = model.generate("Hello", seed=11, **options)
    pieces = list(model.generate("Hello", seed=11, stream=True, **options))
    assert "".join(pieces) == whole
    assert len(pieces) > 10
    assert model.generate("Hello", seed=12, **options) != whole


def test_stop_text_is_never_shown(path):
    model = edgesdk.load(path)
    options = {"max_tokens": 60, "temperature": 30.0, "seed": 11}
    whole = model.generate("Hello", **options)
    stop = whole[20:23]
    expected = whole[: whole.index(stop)]
    assert model.generate("Hello", stop=stop, **options) == expected
    assert "".join(model.generate("Hello", stop=["nowhere", stop], stream=True, **options)) == expected


def test_a_closed_stream_ends_the_generation(path):
    model = edgesdk.load(path)
    stream = model.generate("Hello", max_tokens=3000, temperature=30.0, stream=True, repetition_penalty=1.5)
    assert isinstance(next(stream), str)
    stream.close()
    assert model.generate("Hello", max_tokens=3) == edgesdk.load(path).generate("Hello", max_tokens=3)


def test_cancel_from_another_thread(path):
    model = edgesdk.load(path)
    session = model.session()
    done = threading.Event()

    def cancel() -> None:
        while not done.wait(0.01):
            session.cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    try:
        with pytest.raises(edgesdk.CancelledError):
            [session.logits(TOKENS * 6) for _ in range(1000)]
    finally:
        done.set()
        thread.join()
    session.reset()
    assert session.logits(TOKENS[:2]).shape == (2, 300)


def test_a_cancel_between_two_calls_ends_the_next_one_only(path):
    session = edgesdk.load(path).session()
    expected = session.logits(TOKENS[:2])
    session.cancel()
    with pytest.raises(edgesdk.CancelledError):
        session.logits(TOKENS[:2])
    np.testing.assert_array_equal(session.logits(TOKENS[:2]), expected)
    session.cancel()
    with pytest.raises(edgesdk.CancelledError):
        session.generate("Hello")
    session.cancel()
    session.reset()
    np.testing.assert_array_equal(session.logits(TOKENS[:2]), expected)


@pytest.mark.parametrize(
    "how",
    [
        {"threads": 1},
        {"threads": 2, "pin": True},
        {"threads": 3, "prefault": True},
        {"threads": 8, "chunk": 5},
        {"threads": 2, "chunk": 1},
        {"huge_pages": True},
        {"huge_pages": True, "prefault": True, "chunk": 4096},
    ],
)
def test_how_it_runs_does_not_change_a_bit(path, how):
    """Threads, chunks and where the weights lie: the same logits, and the same from one token at a time."""
    tokens = (TOKENS * 20)[:150]
    expected = edgesdk.load(path, threads=1, chunk=150).logits(tokens)
    model = edgesdk.load(path, **how)
    np.testing.assert_array_equal(model.logits(tokens), expected)
    memory = model.estimate(model.level)
    assert memory.total_bytes == memory.mapped_bytes + memory.kv_bytes + memory.workspace_bytes


def test_wrong_ways_to_run(path):
    for how in ({"chunk": 0}, {"chunk": 5000}, {"kv_bits": 4}, {"threads": 300}):
        with pytest.raises(edgesdk.UsageError):
            edgesdk.load(path, **how)


def test_sessions_of_several_threads(path, logits):
    model = edgesdk.load(path, threads=2)
    results = {}

    def work(index: int) -> None:
        session = model.session()
        results[index] = [session.logits(TOKENS[index:]) for _ in range(3)], model.logits(TOKENS[: index + 1])

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index in range(4):
        own, shared = results[index]
        assert all(np.array_equal(part, own[0]) for part in own)
        assert np.array_equal(shared, logits[2][: index + 1])
    assert np.array_equal(results[0][0][0], logits[2])


def test_context_is_a_limit(path):
    model = edgesdk.load(path, context=20)
    assert model.logits(TOKENS[:20]).shape == (20, 300)
    with pytest.raises(edgesdk.UsageError, match="context of 20") as error:
        model.logits(TOKENS[:21])
    assert "up to 4096" in error.value.hint
    with pytest.raises(edgesdk.UsageError, match="fills the whole context"):
        model.generate("x" * 20)
    assert len(model.generate("x" * 15, max_tokens=100, temperature=30.0)) <= 5 * len("<unused100>")


def test_tokens_must_be_in_the_vocabulary(path):
    model = edgesdk.load(path)
    for tokens in ([300], [-1], [1 << 40]):
        with pytest.raises(edgesdk.UsageError):
            model.logits(tokens)
    assert model.logits([]).shape == (0, 300)


def test_a_closed_model(path):
    model = edgesdk.load(path)
    session = model.session()
    model.close()
    with pytest.raises(edgesdk.UsageError, match="closed"):
        model.generate("x")
    assert session.logits([1]).shape == (1, 300)


@pytest.mark.parametrize("verify", ["lazy", "eager"])
def test_a_flipped_bit_never_becomes_a_result(path, tmp_path, verify):
    damaged = bytearray(path.read_bytes())
    damaged[-5000] ^= 1
    broken = tmp_path / "broken.edge"
    broken.write_bytes(damaged)
    with pytest.raises(edgesdk.HashError, match="SHA-256"):
        edgesdk.load(broken, verify=verify).logits([1])
    with pytest.raises(edgesdk.HashError, match="SHA-256"):
        edgesdk.load(broken, verify=verify).generate("x")
    off = edgesdk.load(broken, verify="off")
    assert off.logits([1]).shape == (1, 300)
    with pytest.raises(edgesdk.HashError):
        off.verify()
    assert edgesdk.load(broken, level=0, verify=verify).logits([1]).shape == (1, 300)


def test_a_cut_file_is_a_smaller_model(path, tmp_path, logits):
    whole = edgesdk.load(path)
    for level in whole.levels:
        cut = tmp_path / "cut.edge"
        cut.write_bytes(path.read_bytes()[: level.file_bytes])
        model = edgesdk.load(cut)
        assert model.level == level.index
        assert [one.available for one in model.levels] == [one.index <= level.index for one in whole.levels]
        assert np.array_equal(model.logits(TOKENS), logits[level.index])
    cut.write_bytes(path.read_bytes()[: whole.levels[0].file_bytes])
    with pytest.raises(edgesdk.TruncatedError, match="holds levels"):
        edgesdk.load(cut, level=2)
    with pytest.raises(edgesdk.TruncatedError, match="holds levels"):
        edgesdk.load(cut, level=0, min_level=1)
    with pytest.raises(edgesdk.UsageError, match="level 3 does not exist"):
        edgesdk.load(path, min_level=3)
    assert edgesdk.load(path, level=0, min_level=2).level == 0
    cut.write_bytes(path.read_bytes()[: whole.levels[0].file_bytes - 1])
    with pytest.raises(edgesdk.TruncatedError, match="smallest level"):
        edgesdk.load(cut)


def test_memory_budget():
    granted, why = edgesdk.device.memory_budget()
    assert granted > 0
    assert "reserve" in why
