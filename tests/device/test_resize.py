"""Another level while sessions go on: what they take along, what they never see, and what goes back to the system."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from device_artifacts import write_tiny
from numpy.typing import NDArray
from reference_model import Memory, ReferenceModel
from resident import resident_bytes
from tiny_model import nested_ladder, tiny_config, tiny_ssm_config, write_random_artifact

import edgesdk
from edgesdk.device import load

TOKENS = np.random.default_rng(8).integers(0, 256, 200).tolist()
SHAPES: dict[str, Any] = {
    "grouped": tiny_config(),
    "odd width": tiny_config(d_model=72, width=168, n_heads=3, n_kv_heads=3, head_dim=24, biases=True),
    "windows, caps": tiny_config(windows=(9, None), softcap=1.5, norms=("post_norm", "qk_norm")),
    "mixers": tiny_ssm_config(attention=True),
    "a mixer is dropped": tiny_ssm_config(n_groups=1, conv_kernel=2),
}
WAYS = ([2, 0], [0, 2], [2, 1, 0, 1, 2], [1, 0, 2])


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("resize") / "tiny.edge", max_context=4096)


def feed(session: Any, tokens: list[int]) -> NDArray[np.float32]:
    return session._native.feed(np.array(tokens, np.int32), True, True)


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_session_goes_on_from_the_cut_state_to_the_bit(shape: str, way: list[int], tmp_path: Path) -> None:
    """The oracle's memory is cut and filled up as SPEC.md orders axes; the engine does it in its own layout."""
    write_random_artifact(tmp_path / "tiny.edge", SHAPES[shape], nested_ladder(SHAPES[shape]))
    model = load(tmp_path / "tiny.edge", level=way[0], threads=2)
    session, memory, begin = model.session(), Memory(), 0
    for step, level in enumerate(way):
        oracle = ReferenceModel(tmp_path / "tiny.edge", level)
        if step:
            model.set_level(level)
            oracle.resize(memory)
        part = TOKENS[begin : begin + 21]
        begin += 21
        np.testing.assert_array_equal(feed(session, part), oracle.logits(part, memory))
        assert session._native.n_exact == (begin if step == 0 else 0)


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"kv_bits": 16},
        {"verify": "eager"},
        {"verify": "off"},
        {"huge_pages": True},
        {"prefault": True, "threads": 3},
        {"chunk": 7},
    ],
    ids=str,
)
def test_what_begins_after_a_change_is_as_if_loaded_at_that_level(path: Path, how: dict[str, Any]) -> None:
    model = load(path, level=2, **how)
    session = model.session()
    session.logits(TOKENS)
    for level in (0, 2, 1, 0, 1, 2):
        model.set_level(level)
        fresh = load(path, level=level, **how)
        assert (model.level, model.rate, model.bytes_per_token) == (level, fresh.rate, fresh.bytes_per_token)
        assert f"level {level} of 0..2" in model.reason
        np.testing.assert_array_equal(session.logits(TOKENS), fresh.logits(TOKENS))
        assert model.generate("Hello", max_tokens=9) == fresh.generate("Hello", max_tokens=9)
        model.verify()


@pytest.mark.parametrize("shape", ["grouped", "mixers"])
def test_recomputing_gives_what_the_level_makes_of_the_whole_text(shape: str, tmp_path: Path) -> None:
    write_random_artifact(tmp_path / "tiny.edge", SHAPES[shape], nested_ladder(SHAPES[shape]))
    model = load(tmp_path / "tiny.edge", level=2, chunk=16)
    session = model.session()
    feed(session, TOKENS[:50])
    for begin, level in ((50, 0), (70, 1), (90, 2)):
        model.set_level(level, recompute=True)
        expected = load(tmp_path / "tiny.edge", level=level).logits(TOKENS[: begin + 20])
        np.testing.assert_array_equal(feed(session, TOKENS[begin : begin + 20]), expected[begin:])
        assert session._native.n_exact == begin + 20
    model.set_level(0)
    feed(session, TOKENS[110:120])
    assert session._native.n_exact == 0
    model.set_level(0, recompute=True)  # the level stays, and what was cut is made whole
    expected = load(tmp_path / "tiny.edge", level=0).logits(TOKENS[:130])
    np.testing.assert_array_equal(feed(session, TOKENS[120:130]), expected[120:])


@pytest.mark.parametrize("shape", ["grouped", "windows, caps", "mixers"])
def test_recomputing_in_the_background_catches_up_with_the_session(shape: str, tmp_path: Path) -> None:
    """Until then each step is that of a session that took its state along; from then on the level's own."""
    config = replace(SHAPES[shape], max_context=4096)
    write_random_artifact(tmp_path / "tiny.edge", config, nested_ladder(config))
    model, plain = (load(tmp_path / "tiny.edge", level=2, context=4096) for _ in range(2))
    tokens = TOKENS * 20
    for begin, level in ((0, 0), (7, 2)):
        text = tokens[begin : begin + 3500]
        expected = load(tmp_path / "tiny.edge", level=level, context=4096).logits(text)
        sessions = [one.session() for one in (model, plain)]
        for session in sessions:
            feed(session, text[:3000])
        model.set_level(level, recompute="background")
        plain.set_level(level)
        for at in range(3000, 3450):
            found, mixed = (feed(session, text[at : at + 1])[0] for session in sessions)
            if np.array_equal(found, expected[at]):
                break
            np.testing.assert_array_equal(found, mixed)
            time.sleep(0.01)
        assert sessions[0]._native.n_exact == at + 1
        assert sessions[1]._native.n_exact == 0
        np.testing.assert_array_equal(feed(sessions[0], text[at + 1 :]), expected[at + 1 :])


def test_what_is_computed_in_the_background_gives_way_to_other_changes(path: Path) -> None:
    model = load(path, level=2, context=4096)
    session = model.session()
    for _ in range(3):
        feed(session, (TOKENS * 20)[:3000])
        model.set_level(0, recompute="background")
        session._native.rewind(1000)  # it computes more than that, and is ended
        feed(session, TOKENS[:5])
        assert session._native.n_exact == 0
        model.set_level(1, recompute="background")
        model.set_level(2)  # while it runs
        feed(session, TOKENS[:5])
        assert session._native.n_exact == 0
        session.reset()
    model.set_level(0, recompute="background")
    model.close()
    with pytest.raises(edgesdk.UsageError, match="recompute is 'later'"):
        load(path).set_level(0, recompute="later")  # type: ignore[arg-type]


def sampled(model: edgesdk.Model) -> Any:
    """A new session at level 2 that draws tokens at random, always the same ones."""
    model.set_level(2)
    native = model.session()._native
    native.set_sampling(30.0, 50, 1.0, 0.0, 1.0, 7)
    return native


@pytest.mark.parametrize("recompute", [False, True])
def test_a_generation_that_runs_changes_between_two_tokens(path: Path, recompute: bool) -> None:
    """A change from inside its own callback: the token that was sampled stays, the next one is the new level's."""
    model, prompt = load(path, level=2), np.array(TOKENS[:30], np.int32)

    def generated(change_at: int) -> list[str]:
        native, pieces = sampled(model), []

        def take(text: str) -> bool:
            pieces.append(text)
            if len(pieces) == change_at:
                model.set_level(0, recompute=recompute)
            return True

        native.generate(prompt, 40, [], take)
        return pieces

    def stepped(change_at: int) -> list[str]:
        native, text, pieces = sampled(model), edgesdk.device._native.Text(model._native, []), []
        native.feed(prompt, False, False)
        for _ in range(40):
            token = native.next()
            if model._native.is_end_token(token):
                break
            pieces.append(text.push(token)[0])
            if sum(map(bool, pieces)) == change_at and pieces[-1]:
                model.set_level(0, recompute=recompute)
        return [piece for piece in (*pieces, text.finish()) if piece]

    plain, changed = generated(1000), generated(5)
    assert changed == stepped(5)
    assert plain == stepped(1000)
    assert changed[:5] == plain[:5]
    assert changed != plain


def test_log_probabilities_are_those_of_the_logits_that_were_sampled_from(path: Path) -> None:
    model = load(path, level=2)
    session = model.session()
    session._native.feed(np.array(TOKENS[:20], np.int32), False, False)
    token = session._native.next()
    expected = session._native.logprobs(3)
    for recompute in (False, True):
        model.set_level(0, recompute=recompute)
        assert session._native.logprobs(3) == expected
        assert expected[0][0] == token
        model.set_level(2)


def test_a_cancel_while_a_conversation_is_computed_again_forgets_only_what_was_new(path: Path) -> None:
    model = load(path, level=2)
    session = model.session()
    feed(session, TOKENS[:100])
    model.set_level(0, recompute=True)
    session.cancel()
    with pytest.raises(edgesdk.CancelledError):
        feed(session, TOKENS[100:110])
    assert session._native.position == 100
    np.testing.assert_array_equal(feed(session, TOKENS[100:]), load(path, level=0).logits(TOKENS)[100:])


def test_wrong_levels_change_nothing(path: Path) -> None:
    model = load(path, level=1)
    for level in (-1, 3):
        with pytest.raises(edgesdk.UsageError):
            model.set_level(level)
    assert model.level == 1
    model.close()
    with pytest.raises(edgesdk.UsageError, match="closed"):
        model.set_level(0)


def test_a_level_that_the_file_lacks_is_refused(path: Path, tmp_path: Path) -> None:
    levels = load(path).levels
    cut = tmp_path / "cut.edge"
    cut.write_bytes(path.read_bytes()[: levels[1].file_bytes])
    model = load(cut, level=0)
    session = model.session()
    expected = session.logits(TOKENS)
    with pytest.raises(edgesdk.TruncatedError, match="needs a file of"):
        model.set_level(2)
    os.truncate(cut, levels[0].file_bytes)  # by somebody else, meanwhile
    with pytest.raises(edgesdk.TruncatedError, match="by now"):
        model.set_level(1)
    assert model.level == 0
    np.testing.assert_array_equal(session.logits(TOKENS), expected)


@pytest.mark.parametrize("verify", ["lazy", "eager"])
def test_a_damaged_increment_is_refused_and_sessions_go_on(path: Path, tmp_path: Path, verify: Any) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[-5000] ^= 1
    broken = tmp_path / "broken.edge"
    broken.write_bytes(damaged)
    model = load(broken, level=0, verify=verify)
    session = model.session()
    feed(session, TOKENS[:20])
    with pytest.raises(edgesdk.HashError, match="SHA-256"):
        model.set_level(2)
    assert model.level == 0
    model.set_level(1)
    model.set_level(0)
    np.testing.assert_array_equal(session.logits(TOKENS), load(path, level=0).logits(TOKENS))


def test_a_file_that_was_written_to_is_checked_anew(path: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.edge"
    own.write_bytes(path.read_bytes())
    model = load(own, level=2)
    for level in (0, 2, 0):
        model.set_level(level)
    with own.open("r+b") as file:
        file.seek(-5000, os.SEEK_END)
        byte = file.read(1)
        file.seek(-5000, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(edgesdk.HashError, match="SHA-256"):
        model.set_level(2)
    assert model.level == 0


def test_weights_that_were_damaged_leave_nothing_in_the_cache(path: Path, tmp_path: Path) -> None:
    """With lazy hashes a prompt runs before they have passed: what it cached must not reach the level below."""
    damaged = bytearray(path.read_bytes())
    damaged[-5000] ^= 1
    broken = tmp_path / "broken.edge"
    broken.write_bytes(damaged)
    model = load(broken, level=2)
    session = model.session()
    with pytest.raises(edgesdk.HashError):
        session._native.feed(np.array(TOKENS[:20], np.int32), False, True)
    n_kept = session._native.position
    model.set_level(1)
    expected = load(path, level=1).logits(TOKENS[:n_kept] + TOKENS[20:40])
    np.testing.assert_array_equal(feed(session, TOKENS[20:40]), expected[n_kept:])


@pytest.mark.skipif(not Path("/proc/self/smaps").is_file(), reason="no /proc/self/smaps on this system")
def test_what_a_level_does_not_use_goes_back_to_the_system(tmp_path: Path) -> None:
    config = tiny_config(n_layers=4, d_model=256, width=2048, n_heads=8, n_kv_heads=4, head_dim=64)
    path = tmp_path / "wide.edge"
    write_random_artifact(path, config, nested_ladder(config))
    model = load(path, level=2, prefault=True)
    sessions = [model.session() for _ in range(2)]
    for session in sessions:
        session.logits(TOKENS)
    mapped = [level.mapped_bytes for level in model.levels]
    assert mapped[2] > 1.5 * mapped[0] > 1e6
    assert resident_bytes(path) == mapped[2]
    for level in (0, 2, 1, 0):
        model.set_level(level)  # all sessions rest: none of them keeps the level before
        assert resident_bytes(path) == mapped[level]
        sessions[0].logits(TOKENS)
        assert resident_bytes(path) == mapped[level]


def test_caches_shrink_with_the_level(tmp_path: Path) -> None:
    config = tiny_config(n_layers=4, head_dim=64, max_context=16384)
    write_random_artifact(tmp_path / "tiny.edge", config, nested_ladder(config))
    model = load(tmp_path / "tiny.edge", level=2, context=16384, threads=1)
    session = model.session()
    session.logits((TOKENS * 30)[:5000])

    def anonymous_bytes() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))

    before = anonymous_bytes()
    model.set_level(0)
    needs = [model.estimate(level) for level in (0, 2)]
    freed, expected = before - anonymous_bytes(), (needs[1].kv_bytes - needs[0].kv_bytes) * 5000 / 16384
    assert 0.7 * expected < freed, f"{freed} bytes of {expected}"


def test_levels_change_while_sessions_of_several_threads_generate(path: Path) -> None:
    model = load(path, level=2, threads=2)
    stop, errors = threading.Event(), []

    def work(index: int) -> None:
        session = model.session()
        try:
            while not stop.is_set():
                session.generate(f"prompt {index}", max_tokens=20, temperature=20.0, seed=index)
                assert np.isfinite(session.logits(TOKENS[: 5 * index + 3])).all()
                model.generate("shared", max_tokens=3)
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    rng = np.random.default_rng(3)
    ways: Any = (False, True, "background")
    for _ in range(60):
        model.set_level(int(rng.integers(3)), recompute=ways[rng.integers(3)])
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors
    model.set_level(1)
    np.testing.assert_array_equal(model.logits(TOKENS), load(path, level=1).logits(TOKENS))


def test_trimming_gives_levels_up_and_takes_them_back(path: Path) -> None:
    model = load(path, level=2)
    expected = [load(path, level=level).logits(TOKENS) for level in range(3)]
    for severity in ("moderate", "low", "critical"):
        model.trim(severity)
        assert model.level < 2
        assert "told that memory is short" in model.reason
        np.testing.assert_array_equal(model.logits(TOKENS), expected[model.level])
    assert model.level == 0
    model.trim("none")
    assert model.level == 2
    np.testing.assert_array_equal(model.logits(TOKENS), expected[2])
    with pytest.raises(edgesdk.UsageError, match="severity is 'all'"):
        model.trim("all")  # type: ignore[arg-type]


def test_an_adaptive_model_with_enough_memory_stays_where_it_is(path: Path) -> None:
    with load(path, level=1, adaptive=True) as model:
        assert model.generate("Hello", max_tokens=20) == load(path, level=1).generate("Hello", max_tokens=20)
        assert model.level == 1


CUT_WHILE_MAPPED = """
import os, sys, edgesdk
path, verify = sys.argv[1:]
model = edgesdk.load(path, level=2, verify=verify)
levels, session = model.levels, model.session()
os.truncate(path, levels[1].file_bytes)
for _ in range(2):
    try:
        session.logits(list(range(100)))
    except edgesdk.EdgeError as error:
        print(type(error).__name__, error.message)
model.set_level(1)
print(session.logits(list(range(100))).tobytes() == edgesdk.load(path).logits(list(range(100))).tobytes())
os.truncate(path, 8192)
try:
    print(len(model.tokenize("one <bos> two", special=True)), "tokens")
except edgesdk.EdgeError as error:
    print(type(error).__name__, error.message)
try:
    session.logits(list(range(50, 150)))
except edgesdk.EdgeError as error:
    print(type(error).__name__, error.message)
"""


@pytest.mark.parametrize("verify", ["off", "lazy"])
def test_a_file_that_is_cut_while_it_is_mapped_is_an_error(tmp_path: Path, verify: str) -> None:
    """Its pages raise SIGBUS. A level that is whole can still be run; nothing made of lost pages leaves the engine."""
    config = tiny_config(n_layers=4, d_model=256, width=2048, n_heads=8, n_kv_heads=4, head_dim=64)
    path = tmp_path / "wide.edge"
    write_random_artifact(path, config, nested_ladder(config))
    command = [sys.executable, "-c", CUT_WHILE_MAPPED, str(path), verify]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    first, second, recovered, tokens, last = done.stdout.splitlines()
    if verify == "off":
        assert first == second == "EngineError the file was cut, or could not be read, while it was mapped"
    assert recovered == "True"
    assert tokens == "EngineError the file was cut, or could not be read, while it was mapped"
    assert last.startswith(("EngineError", "HashError"))
