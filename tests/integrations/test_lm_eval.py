"""Real lm-eval on small local tasks: its results are those computed by hand from the engine's logits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from device_artifacts import TEMPLATE, write_tiny
from scipy.special import log_softmax

import edgesdk

pytestmark = pytest.mark.filterwarnings("default")  # lm-eval and what it imports warn about each other
TASKS = Path(__file__).parent / "lm_eval_tasks"
CONTEXT, BOS = 64, 256


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (TASKS / f"{name}.jsonl").read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("lm_eval") / "tiny.edge", chat=True)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """The tasks of this folder, with the absolute paths that the json reader of `datasets` wants."""
    folder = tmp_path_factory.mktemp("tasks")
    for source in TASKS.glob("*.yaml"):
        data = TASKS / f"{source.stem.removeprefix('edge_')}.jsonl"
        lines = ["dataset_kwargs:", f"  data_files: {{test: {json.dumps(str(data))}}}"]
        (folder / source.name).write_text(source.read_text("utf-8") + "\n".join(lines) + "\n", "utf-8")
    return folder


@pytest.fixture(scope="module")
def evaluated(tiny, tasks, tmp_path_factory):
    """Results of level 1 on all tasks, through lm-eval's own registry."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
        import lm_eval
        from lm_eval.tasks import TaskManager

        import edgesdk.integrations.lm_eval  # noqa: F401 - registers `edgesdk`

        return lm_eval.simple_evaluate(
            model="edgesdk",
            model_args=f"path={tiny},level=1,threads=1,context={CONTEXT}",
            tasks=["edge_questions", "edge_texts", "edge_continue"],
            task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
            batch_size=1,
            bootstrap_iters=0,
        )


def token_scores(model: edgesdk.Model, text: str, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Log probability of the tokens of a text from the one at `first` on, and whether each is the likeliest."""
    tokens = model.tokenize(text)
    logits = model.logits(tokens)[first - 1 : -1].astype(np.float64)
    scores = log_softmax(logits, axis=-1)[np.arange(len(logits)), tokens[first:]]
    return scores, logits.argmax(-1) == np.array(tokens[first:])


def test_multiple_choice_is_what_the_logits_say(tiny, evaluated):
    model = edgesdk.load(tiny, level=1, threads=1, context=CONTEXT)
    samples = sorted(evaluated["samples"]["edge_questions"], key=lambda sample: sample["doc_id"])
    right = []
    for row, sample in zip(rows("questions"), samples, strict=True):
        first = len(model.tokenize(row["question"]))
        by_hand = [token_scores(model, f"{row['question']} {choice}", first) for choice in row["choices"]]
        for (scores, greedy), ((score, is_greedy),) in zip(by_hand, sample["resps"], strict=True):
            assert float(score) == pytest.approx(scores.sum(), abs=1e-4)
            assert str(is_greedy) == str(greedy.all())
        best = int(np.argmax([scores.sum() for scores, _ in by_hand]))
        right.append(best == row["answer"])
    assert evaluated["results"]["edge_questions"]["acc,none"] == np.mean(right)


def test_rolling_scores_each_token_once_across_windows(tiny, evaluated):
    model = edgesdk.load(tiny, level=1, threads=1, context=CONTEXT)
    samples = sorted(evaluated["samples"]["edge_texts"], key=lambda sample: sample["doc_id"])
    total, n_bytes = 0.0, 0
    for row, sample in zip(rows("texts"), samples, strict=True):
        tokens = model.tokenize(row["text"])
        by_hand = 0.0
        for begin in range(0, len(tokens), CONTEXT):
            window = tokens[begin : begin + CONTEXT]
            missing = CONTEXT - len(window) if begin else 0  # the last window is filled up with what came before
            before = [BOS] if not begin else tokens[begin - 1 - missing : begin]
            logits = model.logits([*before, *window][:-1]).astype(np.float64)[-len(window) :]
            by_hand += log_softmax(logits, axis=-1)[np.arange(len(window)), window].sum()
        ((score,),) = sample["resps"]
        assert float(score) == pytest.approx(by_hand, abs=1e-3)
        total, n_bytes = total + by_hand, n_bytes + len(row["text"].encode())
    assert len(tokens) > 3 * CONTEXT
    found = evaluated["results"]["edge_texts"]["byte_perplexity,none"]
    assert found == pytest.approx(np.exp(-total / n_bytes), rel=1e-5)


def test_generation_is_what_the_model_generates(tiny, evaluated):
    model = edgesdk.load(tiny, level=1, threads=1, context=CONTEXT)
    samples = sorted(evaluated["samples"]["edge_continue"], key=lambda sample: sample["doc_id"])
    for row, sample in zip(rows("continue"), samples, strict=True):
        prompt = row["prompt"].encode()[-(CONTEXT - 12) :].decode()  # one byte is one token here
        assert sample["resps"] == [[model.generate(prompt, max_tokens=12, stop="\n\n")]]
    assert len(samples[2]["doc"]["prompt"]) > CONTEXT


def test_the_results_say_what_was_measured(tiny, evaluated):
    level = edgesdk.load(tiny).levels[1]
    config = evaluated["config"]
    assert (config["model"], config["level"], config["rate"]) == ("edgesdk", 1, level.rate)
    assert (config["mapped_bytes"], config["context"]) == (level.mapped_bytes, CONTEXT)


@pytest.fixture(scope="module")
def adapter(tiny):
    from edgesdk.integrations.lm_eval import EdgeLM

    return EdgeLM(str(tiny), rate=0, context=CONTEXT)


def instances(*arguments: tuple) -> list:
    from lm_eval.api.instance import Instance

    return [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(arguments)]


def test_choices_of_one_token_share_a_pass(adapter, monkeypatch):
    fed = []
    session = adapter._session

    class Counting:
        def logits(self, tokens):
            fed.append(list(tokens))
            return session.logits(tokens)

    monkeypatch.setattr(adapter, "_session", Counting())
    results = adapter.loglikelihood(instances(("x =", "1"), ("y", "23"), ("x =", "2")), disable_tqdm=True)
    assert fed == [list(b"x ="), list(b"y2")]
    scores = log_softmax(session.logits(list(b"x ="))[-1].astype(np.float64))
    assert [results[0][0], results[2][0]] == pytest.approx([scores[ord("1")], scores[ord("2")]], abs=1e-5)


def test_an_empty_context_is_the_first_token(adapter):
    ((score, greedy),) = adapter.loglikelihood(instances(("", "ab")), disable_tqdm=True)
    logits = adapter.model.logits([BOS, ord("a")]).astype(np.float64)
    assert score == pytest.approx(log_softmax(logits, axis=-1)[[0, 1], list(b"ab")].sum(), abs=1e-5)
    assert greedy == (logits.argmax(-1).tolist() == list(b"ab"))


def test_a_context_of_spaces_belongs_to_the_continuation(adapter):
    spaces, none = (adapter.loglikelihood(instances(pair), disable_tqdm=True) for pair in ((" ", "a"), ("", " a")))
    assert spaces == none
    assert len(adapter.generate_until(instances(("", {"max_gen_toks": 3})), disable_tqdm=True)) == 1


def test_a_long_context_loses_its_beginning(adapter):
    (long,), (short,) = (
        adapter.loglikelihood(instances((text, "!")), disable_tqdm=True) for text in ("-" * 9 + "a" * 64, "a" * 64)
    )
    assert long == short
    with pytest.raises(edgesdk.UsageError, match="65 tokens, the context holds 64"):
        adapter.loglikelihood(instances(("a", "b" * 65)), disable_tqdm=True)


def test_chat_prompts_are_the_artifacts_template(adapter):
    history = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Well"}]
    assert adapter.apply_chat_template(history[:1]) == "<bos>[user]Hi\n[assistant]"
    assert adapter.apply_chat_template(history, add_generation_prompt=False) == "<bos>[user]Hi\n[assistant]Well"
    assert adapter.tok_encode("<bos>[u")[:2] == [BOS, ord("[")]
    assert adapter.chat_template(True) == TEMPLATE
    assert adapter.chat_template(False) == ""
    assert "tiny" in adapter.tokenizer_name


@pytest.mark.parametrize(
    ("arguments", "max_tokens", "temperature"),
    [
        ({}, 256, 0.0),
        ({"until": "a", "max_new_tokens": 7, "temperature": 0.7, "do_sample": False, "num_beams": 1}, 7, 0.0),
        ({"until": ["a", ""], "max_gen_toks": 5, "max_new_tokens": 7, "do_sample": True}, 5, 1.0),
        ({"temperature": 0.7, "top_k": 4, "top_p": 0.9}, 256, 0.7),
    ],
    ids=["none", "greedy", "sampled", "temperature"],
)
def test_generation_arguments(arguments, max_tokens, temperature):
    from edgesdk.integrations.generation import GenerationSettings

    settings = GenerationSettings.parse(arguments)
    assert (settings.max_tokens, settings.sampling.temperature) == (max_tokens, temperature)
    assert settings.stops == (("a",) if "until" in arguments else ())
    assert settings.sampling.top_k == arguments.get("top_k", 0)


def test_what_the_engine_cannot_do_is_an_error(adapter):
    from edgesdk.integrations.generation import GenerationSettings

    with pytest.raises(edgesdk.UsageError, match="`num_beams`"):
        GenerationSettings.parse({"num_beams": 4})
    with pytest.raises(edgesdk.UsageError, match="no room for a prompt"):
        adapter.generate_until(instances(("a", {"max_gen_toks": 64})), disable_tqdm=True)
    with pytest.raises(edgesdk.UsageError, match="nothing to score"):
        adapter.loglikelihood(instances(("a", "")), disable_tqdm=True)


def test_without_lm_eval_one_line_says_what_to_install():
    code = (
        "import sys; sys.modules['lm_eval'] = None\n"
        "import edgesdk\n"
        "try:\n    import edgesdk.integrations.lm_eval\n"
        "except edgesdk.MissingExtraError as error:\n    print(error)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[1] == "hint: pip install 'edgesdk[lm-eval]'"


@pytest.mark.slow
def test_the_harness_runs_from_the_shell(tiny, tasks, tmp_path):
    command = [sys.executable, "-m", "edgesdk.integrations.lm_eval", "run", "--model", "edgesdk"]
    command += ["--model_args", f"path={tiny},rate=0,threads=1", "--tasks", "edge_questions"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(tmp_path)}
    result = subprocess.run(
        [*command, "--include_path", str(tasks)], capture_output=True, text=True, env=environment, timeout=300
    )
    assert result.returncode == 0, result.stderr
    assert "edge_questions" in result.stdout
