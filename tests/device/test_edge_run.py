"""The native program: what it prints, its exit status, and what memory it takes."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from device_artifacts import edge_run, edge_run_path, write_tiny

import edgesdk


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("run") / "tiny.edge")


def test_generate_equals_the_python_api(path):
    options = {"max_tokens": 20, "temperature": 30.0, "top_k": 50, "top_p": 0.9, "min_p": 0.01, "seed": 4}
    expected = edgesdk.load(path, level=1).generate("Hello", **options)
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    plain = edge_run("generate", path, "--level", 1, "--prompt", "Hello", *flags)
    assert plain.returncode == 0, plain.stderr
    assert plain.stdout == expected + "\n"
    report = json.loads(edge_run("generate", path, "--level=1", "--json", "--prompt=-", *flags, text="Hello").stdout)
    assert (report["text"], report["level"], report["prompt_tokens"]) == (expected, 1, 5)


def test_budgets_choose_levels(path):
    model = edgesdk.load(path)
    for level in range(3):
        budget = model.estimate(level).total_bytes
        result = edge_run("generate", path, "--prompt", "x", "--max-tokens", 1, "--budget", budget, "--json")
        assert json.loads(result.stdout)["level"] == level
    result = edge_run("generate", path, "--prompt", "x", "--budget", "10KiB")
    assert result.returncode == 1
    assert result.stdout == ""
    error, hint = result.stderr.splitlines()
    assert error.startswith("error: ")
    assert "bytes are missing" in error
    assert hint.startswith("hint: ")


def test_info_and_selftest(path):
    report = json.loads(edge_run("info", path, "--json").stdout)
    assert [level["index"] for level in report["levels"]] == [0, 1, 2]
    assert {"index", "rate", "mapped_bytes", "file_bytes", "ppl", "kl", "gave_up"} <= set(report["levels"][0])
    assert "perplexity" in edge_run("info", path).stdout
    report = json.loads(edge_run("selftest", path, "--json").stdout)
    assert report["isa"] == edgesdk.device.isa()
    assert report["backends"][:2] == ["cpu", "opencl"]
    assert len(report["logits_hash"]) == 16
    assert edge_run("selftest").returncode == 0


def test_bench_reports_every_level(path):
    report = json.loads(edge_run("bench", path, "--all-levels", "--runs=1", "--decode-tokens=4", "--json").stdout)
    assert [row["level"] for row in report["levels"]] == [0, 1, 2]
    assert len({row["logits_hash"] for row in report["levels"]}) == 3
    for row in report["levels"]:
        assert row["decode_tokens_per_s"] > 0
        assert row["gb_per_s"] == pytest.approx(row["decode_tokens_per_s"] * row["token_bytes"] / 1e9)
        assert 0 < row["token_bytes"] < row["mapped_bytes"]
        assert row["burst_us"] > 0
        assert len(row["prefill_seconds"]) == len(row["decode_seconds"]) == 1
        assert row["decode_tokens_per_s"] == pytest.approx(4 / row["decode_seconds"][0])
        assert row["first_token_ms"] > row["load_ms"] > 0
        assert row["peak_rss_bytes"] > row["mapped_bytes"]


def test_bench_measures_behind_a_context(path):
    """The tokens before the prompt change the logits of what follows, and how they were fed does not."""
    shared = ("bench", path, "--level=1", "--runs=1", "--decode-tokens=4", "--no-probe", "--json")
    reports = [
        json.loads(edge_run(*shared, f"--start={start}", f"--prompt-tokens={30 - start}").stdout)["levels"][0]
        for start in (0, 20)
    ]
    assert [row["position"] for row in reports] == [0, 20]
    assert "read_gb_per_s" not in reports[0]
    assert reports[0]["logits_hash"] == reports[1]["logits_hash"]


def test_bench_of_one_kernel():
    """The probe of memory by itself, as benchmarks use it; a wrong name says what is there."""
    shared = ("bench", "--kernels", "--threads=1", "--bytes=4MiB")
    rows = json.loads(edge_run(*shared, "--op=stream_read", "--json").stdout)["kernels"]
    assert [(row["op"], row["shape"]) for row in rows] == [
        ("stream_read", "4194304 bytes"),
        ("stream_read", "300000 bytes"),
    ]
    assert all(row["gb_per_s"] > 0 for row in rows)
    failed = edge_run(*shared, "--op=no_such_op")
    assert failed.returncode == 2
    assert "no_such_op" in failed.stderr
    assert "stream_read" in failed.stderr


def test_bench_tells_where_the_time_goes(path):
    """The times are parts of the whole; products read each weight once a token, and only they and attention count."""
    sizes = ("--runs=1", "--prompt-tokens=20", "--decode-tokens=4")
    shared = ("bench", path, "--level=1", "--threads=1", *sizes, "--no-probe")
    row = json.loads(edge_run(*shared, "--ops", "--json").stdout)["levels"][0]
    products = {"qkv", "o", "gate_up", "down", "head"}
    for part, n_tokens, n_passes in (("prefill", 20, 1), ("decode", 4, 4)):
        times = row["ops"][part]
        ops = {op["op"]: op for op in times["ops"]}
        assert times["tokens"] == n_tokens
        assert 0.5 * times["seconds"] < sum(op["seconds"] for op in ops.values()) <= times["seconds"]
        read = sum(ops[name]["bytes"] for name in products)
        assert abs(read / n_passes / row["token_bytes"] - 1) < 0.01  # token_bytes has one row of the embedding more
        assert {name for name, op in ops.items() if op["gb_per_s"] is not None} == products | {"attention"}
        assert ops["head"]["calls"] == n_passes
        assert ops["norm"]["calls"] == ops["qkv"]["calls"] + ops["gate_up"]["calls"] + ops["head"]["calls"]
    printed = edge_run(*shared, "--ops").stdout
    assert "decode, microseconds per token" in printed
    assert "ops" not in json.loads(edge_run(*shared, "--json").stdout)["levels"][0]


def test_weights_that_cannot_be_locked_say_why(path):
    """The limit of locked memory binds only without the right to ignore it: the error names it, and a way out."""
    script = 'ulimit -l 8; exec setpriv --bounding-set -ipc_lock --inh-caps -ipc_lock "$@"'
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed")
    command = ["bash", "-c", script, "-", str(edge_run_path()), "generate", str(path), "--prompt", "x", "--lock"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode == 0 or "setpriv" in result.stderr:
        pytest.skip("this process may always lock memory")
    assert "RLIMIT_MEMLOCK" in result.stderr
    assert "hint: raise `ulimit -l`" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["dance", "x.edge"],
        ["generate"],
        ["generate", "x.edge", "--budget", "much"],
        ["generate", "x.edge", "--level", "1", "--rate", "0.2"],
        ["generate", "x.edge", "--rate", "2"],
        ["generate", "x.edge", "--colour"],
        ["generate", "x.edge", "--prompt"],
    ],
)
def test_a_wrong_command_line(arguments):
    result = edge_run(*arguments)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert result.stdout == ""


def test_help_and_version():
    assert "edge-run generate" in edge_run("--help").stdout
    assert edge_run("--version").stdout == f"edge-run {edgesdk.__version__}\n"


def test_peak_memory_is_what_was_announced(tmp_path):
    """Mapped weights, cache and workspace, and at most 10 % beside them."""
    shape = {"n_layers": 8, "d_model": 512, "n_heads": 8, "n_kv_heads": 4, "head_dim": 64}
    path = write_tiny(tmp_path / "big.edge", width=1536, vocab_size=30000, max_context=2048, **shape)
    announced = edgesdk.load(path, context=2048).estimate(2, 2048)
    result = edge_run("generate", path, "--prompt", "x" * 1500, "--max-tokens", 8, "--json")
    assert result.returncode == 0, result.stderr
    peak = json.loads(result.stdout)["peak_rss_bytes"]
    assert announced.mapped_bytes < peak <= 1.1 * announced.total_bytes
