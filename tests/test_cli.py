"""The command line from outside: exit status, what goes where, and that every error has a way out."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import jsonschema
import pytest
from device_artifacts import write_tiny
from tiny_model import nested_ladder, tiny_config, write_random_artifact

import edgesdk
from edgesdk.cli import main
from edgesdk.formats import Artifact
from edgesdk.formats.ladder import LADDER_SCHEMA, level_table

COMMANDS = [
    "build",
    "bundle",
    "run",
    "chat",
    "inspect",
    "verify",
    "sign",
    "eval",
    "export",
    "report",
    "serve",
    "devices",
    "deploy",
    "profile",
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "tiny.edge"
    config = tiny_config()
    write_random_artifact(path, config, nested_ladder(config))
    return path


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_and_json(command, capsys):
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"edgesdk {command}" in text
    assert "Examples:" in text
    assert "--json" in text


def test_help_of_the_whole_names_every_command(capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(command in text for command in COMMANDS)


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"edgesdk {edgesdk.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["frobnicate"], "frobnicate", "edgesdk --help"),
        (["inspect"], "FILE", "edgesdk inspect --help"),
        (["run", "x.edge", "p", "--max-tokens", "many"], "--max-tokens", "edgesdk run --help"),
        (["run", "x.edge", "p", "--rate", "0.1", "--level", "2"], "rate and level", "give one of"),
    ],
    ids=["command", "argument", "value", "together"],
)
def test_usage_errors_are_two_lines_and_status_2(arguments, message, hint, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    first, second = captured.err.splitlines()
    assert first.startswith("error: ")
    assert message in first
    assert second.startswith("hint: ")
    assert hint in second
    assert captured.out == ""


def test_our_errors_are_status_1_with_a_hint(tiny, tmp_path, capsys):
    damaged = bytearray(tiny.read_bytes())
    damaged[-5000] ^= 1
    path = tmp_path / "damaged.edge"
    path.write_bytes(damaged)
    assert main(["verify", str(path)]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert "SHA-256" in captured.err
    assert "\nhint: " in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--axes", "depth", "unknown axes 'depth'"),
        ("--max-bits", "5", "max_bits is 5, expected 4 or 6"),
        ("--max-file-growth", "-1", "max_file_growth is -1.0, expected 0 or more"),
    ],
)
def test_what_a_build_cannot_do_is_said_before_it_begins(option, value, message, tmp_path, capsys):
    assert main(["build", "smollm2", "-o", str(tmp_path / "out"), option, value]) != 0
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", [["build", "smollm2"], ["bundle", "x.edge"]], ids=lambda value: value[0])
def test_a_target_that_cannot_be_bundled_is_said_before_anything_begins(command, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    assert main([*command, "-o", str(out), "--targets", "android,toaster"]) == 2
    assert "error: target `toaster` is unknown\nhint: known targets: android, " in capsys.readouterr().err
    monkeypatch.setenv("ANDROID_NDK_HOME", str(tmp_path))
    assert main([*command, "-o", str(out), "--targets", "android"]) == 1
    assert "ANDROID_NDK_HOME is " in capsys.readouterr().err
    assert not out.exists()


def test_build_bundles_for_targets(tiny, tmp_path, monkeypatch, capsys):
    """What `edgesdk build --targets` hands on; the builds themselves are tested in tests/targets."""
    from edgesdk.cli import build as command

    asked = []

    def bundle_artifact(path, profiles, out):
        asked.append((path, [profile.name for profile in profiles], out))
        return [out / profile.name / "manifest.json" for profile in profiles]

    monkeypatch.setattr(edgesdk, "build", lambda *_, **__: tiny)
    monkeypatch.setattr(command, "check_targets", lambda profiles: None)
    monkeypatch.setattr(command, "bundle_artifact", bundle_artifact)
    assert main(["build", "smollm2", "-o", str(tmp_path), "--targets", "android,jetson", "--json"]) == 0
    assert asked == [(tiny, ["android", "jetson-orin-nano"], tmp_path)]
    captured = capsys.readouterr()
    jsonschema.validate(json.loads(captured.out), LADDER_SCHEMA)
    assert f"wrote {tmp_path / 'jetson-orin-nano'}" in captured.err


@pytest.mark.parametrize("options", [[], ["--adaptive"]])
def test_memory_is_watched_when_asked_for(options, tiny, monkeypatch, capsys):
    asked = []

    def load(*arguments, **options):
        asked.append(options["adaptive"])
        return really_load(*arguments, **options)

    really_load = edgesdk.load
    monkeypatch.setattr(edgesdk, "load", load)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert main(["run", str(tiny), "Hello", "-n", "2", *options]) == 0
    assert main(["chat", str(tiny), *options]) == 0
    assert asked == [bool(options)] * 2


@pytest.mark.parametrize(("given", "block_bits", "model_bits"), [([], 4, 6), (["4"], 4, 6), (["6"], 6, 8)])
def test_more_bits_are_for_embedding_and_head_too(given, block_bits, model_bits, tmp_path, monkeypatch):
    asked = []

    def build_model(model, out, config, **_):
        asked.append(config.quantize)
        raise edgesdk.EdgeError("stopped here")

    monkeypatch.setattr(edgesdk, "build", build_model)
    options = [part for value in given for part in ("--max-bits", value)]
    assert main(["build", "smollm2", "-o", str(tmp_path / "out"), *options]) == 1
    assert [(q.max_bits, q.model_bits) for q in asked] == [(block_bits, model_bits)]


def test_debug_lets_the_exception_through(tmp_path):
    with pytest.raises(edgesdk.EdgeError):
        main(["--debug", "inspect", str(tmp_path / "absent.edge")])
    with pytest.raises(edgesdk.EdgeError):
        main(["inspect", str(tmp_path / "absent.edge"), "--debug"])


def test_inspect_json_is_the_level_table(tiny, capsys):
    assert main(["inspect", str(tiny), "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    jsonschema.validate(table, LADDER_SCHEMA)
    assert table == level_table(Artifact.open(tiny))


def test_inspect_header_is_the_metadata(tiny, capsys):
    assert main(["inspect", str(tiny), "--header"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(dict(Artifact.open(tiny).edge)))


def test_inspect_shows_model_levels_and_origin(tiny, capsys):
    assert main(["inspect", str(tiny)]) == 0
    text = capsys.readouterr().out
    for part in ("tiny (llama)", "2 attention, 2 mlp", "3 levels", "mapped", "source random"):
        assert part in text


def test_inspect_says_why_an_axis_stays_whole_and_what_windows_are(tmp_path, capsys):
    config = tiny_config(norms=("qk_norm",), windows=(9, None))
    write_random_artifact(tmp_path / "normed.edge", config, nested_ladder(config))
    assert main(["inspect", str(tmp_path / "normed.edge")]) == 0
    text = capsys.readouterr().out
    assert "format 2.0" in text
    assert "1 attention blocks see the last 9 tokens; the key/value cache keeps all of them" in text
    assert "query and key heads stay whole at every level (axis qk): QK-norm" in text


def test_a_cut_file_is_announced(tiny, tmp_path, capsys):
    levels = level_table(Artifact.open(tiny))
    cut = tmp_path / "cut.edge"
    cut.write_bytes(tiny.read_bytes()[: levels[1]["file_bytes"]])
    assert main(["inspect", str(cut)]) == 0
    assert "holds 0 to 1" in capsys.readouterr().out
    assert main(["verify", str(cut), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["n_levels"], report["n_available_levels"]) == (3, 2)


def test_a_defect_is_one_line_without_traceback():
    code = "import sys, edgesdk.cli.app as a\na.app.command('defect')(lambda: 1 // 0)\nsys.exit(a.run(['defect']))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "NO_COLOR": "1"}
    )
    assert result.returncode == 1
    assert result.stderr.startswith("error: this is a defect in edgesdk: ZeroDivisionError")
    assert "Traceback" not in result.stderr


def test_without_typer_one_line_says_what_to_install():
    code = "import sys; sys.modules['typer'] = None\nfrom edgesdk.cli import main\nsys.exit(main(['--help']))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr == (
        "error: the command line needs `typer`, which is not installed\nhint: pip install 'edgesdk[cli]'\n"
    )


def test_no_colour_without_a_terminal(tiny):
    environment = {key: value for key, value in os.environ.items() if key not in {"NO_COLOR", "FORCE_COLOR"}}
    result = subprocess.run(
        [sys.executable, "-m", "edgesdk", "inspect", str(tiny)], capture_output=True, env=environment
    )
    assert result.returncode == 0
    assert b"\x1b" not in result.stdout + result.stderr


def test_run_prints_what_the_api_generates(tiny, capsys):
    expected = edgesdk.load(tiny, level=1).generate("abc", max_tokens=6)
    assert main(["run", str(tiny), "abc", "--level", "1", "-n", "6"]) == 0
    captured = capsys.readouterr()
    assert captured.out == expected + "\n"
    assert captured.err.startswith("level 1 of 0..2")
    assert main(["run", str(tiny), "abc", "--level", "1", "-n", "6", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["text"], report["level"], report["prompt"]) == (expected, 1, "abc")


def test_run_reads_the_prompt_from_stdin(tiny, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("from outside"))
    assert main(["run", str(tiny), "-", "-n", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["prompt"] == "from outside"


def test_chat_answers_each_line_and_remembers(tmp_path, capsys, monkeypatch):
    path = write_tiny(tmp_path / "chat.edge", chat=True)
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\ntwo\n"))
    assert main(["chat", str(path), "--system", "be brief", "--temperature", "0", "-n", "5", "--json"]) == 0
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    model = edgesdk.load(path)
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "one"}]
    assert first["content"] == model.chat(messages, max_tokens=5)
    messages += [{"role": "assistant", "content": first["content"]}, {"role": "user", "content": "two"}]
    assert second["content"] == model.chat(messages, max_tokens=5)


def test_chat_without_a_template_has_a_way_out(tiny, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("hello\n"))
    assert main(["chat", str(tiny)]) == 2
    assert "error: this artifact has no chat template\nhint: " in capsys.readouterr().err


def test_a_budget_that_is_too_small_is_one_error(tiny, capsys):
    assert main(["run", str(tiny), "abc", "--budget", "1KB"]) == 1
    captured = capsys.readouterr()
    assert captured.err.count("error: ") == 1
    assert captured.out == ""


def test_export_writes_the_level_that_is_meant(tiny, tmp_path, capsys):
    table = level_table(Artifact.open(tiny))
    enough = edgesdk.load(tiny, level=1).estimate(1).total_bytes
    given = [
        (["--level", "1"], 1),
        (["--rate", str(table[0]["rate"])], 0),
        (["--budget", str(enough)], 1),
        ([], len(table) - 1),
    ]
    for i, (options, level) in enumerate(given):
        out = tmp_path / str(i)
        assert main(["export", str(tiny), "--to", "gguf", "-o", str(out), "--json", *options]) == 0
        printed = json.loads(capsys.readouterr().out)
        assert (printed["level"], printed["format"], printed["weights"]) == (level, "gguf", "iq4_nl")
        assert printed["n_bytes"] == (out / "model.gguf").stat().st_size
        assert printed["check"] is None


def test_export_prints_remarks_and_the_check(tiny, tmp_path, capsys):
    assert main(["export", str(tiny), "--to", "hf", "-o", str(tmp_path / "out"), "--level", "0", "--check"]) == 0
    printed = capsys.readouterr()
    assert "trust_remote_code=True" in printed.err
    wrote, figures, ours, theirs = printed.out.splitlines()
    assert wrote.startswith(f"wrote level 0 as hf (float) to {tmp_path / 'out'}, 0.")
    assert "max error" in figures and "top-1 100.0%" in figures
    assert ours.removeprefix("artifact: ") == theirs.removeprefix("export:   ")


@pytest.mark.parametrize(
    ("options", "message", "status"),
    [
        (["--to", "hf", "--level", "9"], "level 9 does not exist", 2),
        (["--to", "coreml"], "no export is called `coreml`", 2),
        (["--to", "hf", "--rate", "0", "--level", "1"], "--level and --rate were given together", 2),
        (["--to", "gguf", "--weights", "q2_k"], "gguf stores no weights as `q2_k`", 2),
        (["--to", "hf", "--budget", "1kB"], "needs", 1),
    ],
)
def test_export_refuses_in_one_line_with_a_way_out(options, message, status, tiny, tmp_path, capsys):
    assert main(["export", str(tiny), "-o", str(tmp_path / "out"), *options]) == status
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ") and message in printed.err
    assert len(printed.err.splitlines()) == 2 and "hint: " in printed.err
    assert list(tmp_path.iterdir()) == []
