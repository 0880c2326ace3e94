"""`edgesdk profile`: figures that agree with what edge-run says, in every form of the report."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from device_artifacts import edge_run

from edgesdk.cli import main
from edgesdk.errors import DeviceError, UsageError
from edgesdk.report.operations import operation_rows
from edgesdk.targets.connections import LocalConnection
from edgesdk.targets.deploy import deploy, find_deployment, read_bundle
from edgesdk.targets.measure import MEASURED_SCHEMA, Plan, measure_device, summary, target_profile, write_target_profile
from edgesdk.targets.measure.figures import CSV_COLUMNS
from edgesdk.targets.measure.sweep import _settings
from edgesdk.targets.probe import probe
from edgesdk.targets.profile import _read

QUICK = ["--runs", "2", "--decode-tokens", "4", "--prompt-tokens", "8"]


@pytest.fixture(scope="module")
def measured(out, tmp_path_factory):
    folder = tmp_path_factory.mktemp("measured")
    artifact = str(out / "model.edge")
    files = [
        "--csv",
        str(folder / "x.csv"),
        "--html",
        str(folder / "x.html"),
        "--save-target",
        str(folder / "mine.toml"),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_DEVICES", str(folder / "none.toml"))
        patch.setenv("ADB", str(folder / "no_adb"))
        text = io.StringIO()
        with contextlib.redirect_stdout(text):
            arguments = ["profile", artifact, "--device", "local", "--threads", "1", *QUICK[:4]]
            assert main([*arguments, "--prompt-tokens", "8,16", *files, "--json"]) == 0
    return folder, json.loads(text.getvalue())


def test_the_json_follows_its_schema(measured):
    _, report = measured
    jsonschema.validate(report, MEASURED_SCHEMA)
    (device,) = report["devices"]
    settings = [(row["level"], row["prompt_tokens"]) for row in device["results"]]
    assert settings == [(level, prompt) for level in range(3) for prompt in (8, 16)]


def test_the_schema_refuses_what_is_missing(measured):
    _, report = measured
    broken = json.loads(json.dumps(report))
    del broken["devices"][0]["results"][0]["energy"]
    with pytest.raises(jsonschema.ValidationError, match="energy"):
        jsonschema.validate(broken, MEASURED_SCHEMA)


def test_figures_fit_each_other(measured):
    _, report = measured
    for row in report["devices"][0]["results"]:
        assert row["gb_per_s"] == pytest.approx(row["decode_tokens_per_s"]["p50"] * row["token_bytes"] / 1e9, rel=1e-6)
        assert row["share_of_read"] == pytest.approx(row["gb_per_s"] / row["read_gb_per_s"])
        assert row["first_token_ms"] > row["load_ms"] > 0
        assert row["peak_rss_bytes"] > row["mapped_bytes"] > row["token_bytes"]
        for phase in ("prefill", "decode"):
            speed = row[f"{phase}_tokens_per_s"]
            assert speed["p95"] <= speed["p50"]
            assert speed["spread"] >= 0
    hashes = {(row["level"], row["prompt_tokens"]): row["logits_hash"] for row in report["devices"][0]["results"]}
    assert len(set(hashes.values())) == 6


def test_the_same_logits_as_edge_run_alone(measured, out):
    _, report = measured
    alone = edge_run(
        "bench", out / "model.edge", "--level=1", "--prompt-tokens=8", "--decode-tokens=4", "--json", "--runs=1"
    )
    expected = json.loads(alone.stdout)["levels"][0]
    row = next(r for r in report["devices"][0]["results"] if (r["level"], r["prompt_tokens"]) == (1, 8))
    for key in ("logits_hash", "mapped_bytes", "token_bytes", "isa", "rate"):
        assert row[key] == expected[key]


def test_the_csv_has_a_line_per_measurement(measured):
    folder, report = measured
    with open(folder / "x.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == CSV_COLUMNS
    results = report["devices"][0]["results"]
    assert len(rows) == len(results)
    for line, row in zip(rows, results, strict=True):
        assert float(line["decode_tokens_per_s_p50"]) == row["decode_tokens_per_s"]["p50"]
        assert line["energy_source"] == row["energy"]["source"]
        assert line["device"] == "local"


def test_the_page_is_whole_and_has_every_figure(measured):
    folder, report = measured
    page = (folder / "x.html").read_text("utf-8")
    root = ElementTree.fromstring(page.partition("\n")[2])
    (picture,) = root.iter("img")
    assert picture.get("src", "").startswith("data:image/png;base64,")
    assert not list(root.iter("script"))
    text = "".join(root.itertext())
    for row in report["devices"][0]["results"]:
        assert f"{row['decode_tokens_per_s']['p50']:.1f}" in text
        assert f"{row['peak_rss_bytes']:,}" in text
    if report["devices"][0]["results"][0]["energy"]["joules"] is None:
        assert "not available" in text


def test_operations(out, tmp_path, capsys):
    """Their times are parts of the whole, in every form of the report; what was not asked for is null."""
    arguments = ["profile", str(out / "model.edge"), "--device", "local", "--threads", "1,2", "--levels", "0,2", *QUICK]
    page = tmp_path / "x.html"
    assert main([*arguments, "--ops", "--html", str(page), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    jsonschema.validate(report, MEASURED_SCHEMA)
    text = "".join(ElementTree.fromstring(page.read_text("utf-8").partition("\n")[2]).itertext())
    for row in report["devices"][0]["results"]:
        for phase, n_tokens in (("prefill", 8), ("decode", 4)):
            times = row["ops"][phase]
            assert times["tokens"] == n_tokens
            assert 0 < sum(op["seconds"] for op in times["ops"]) <= times["seconds"]
            products = {op["op"] for op in times["ops"] if op["bytes"]}
            assert products >= {"qkv", "attention", "o", "gate_up", "down", "head"}
            cells = operation_rows(times, row["read_gb_per_s"])
            assert sum(float(line[3].rstrip("%")) for line in cells) == pytest.approx(100, abs=1)
            assert all(line[2] in text for line in cells)
    assert main([*arguments, "--ops"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("operations of decoding") == printed.count("operations of a prompt of 8 tokens") == 2
    assert "level 2, cpu, 2 threads" in printed
    assert "level 0, cpu" not in printed
    for name in ("gate_up", "attention", "other"):
        assert re.search(rf"^{name} +\S+ +[\d,.]+ +[\d.]+% ", printed, re.MULTILINE)
    assert main([*arguments, "--html", str(page), "--json"]) == 0
    assert {str(row["ops"]) for row in json.loads(capsys.readouterr().out)["devices"][0]["results"]} == {"None"}
    assert "Operations" not in page.read_text("utf-8")


def test_the_target_profile_is_what_was_measured(measured):
    folder, report = measured
    (device,) = report["devices"]
    profile = _read(folder / "mine.toml")
    assert profile == target_profile("mine", device, report["created"])
    assert profile.memory_bytes == device["info"]["memory_bytes"]
    assert profile.memory_gb_per_s == pytest.approx(device["read_gb_per_s"], abs=0.01)
    assert "Measured" in profile.notes
    own = target_profile("mine", {**device, "target": "a-target-of-my-own"}, report["created"])
    assert own == profile


def test_the_target_profile_knows_the_fastest_backends(measured, tmp_path):
    """At the largest level and the longest prompt; nothing where the CPU alone was measured."""
    _, report = measured
    (device,) = report["devices"]
    alone = target_profile("mine", device, report["created"])
    assert (alone.prefill_backend, alone.decode_backend) == ("", "")
    rows = json.loads(json.dumps(device["results"]))
    for row in rows:
        row["backend"] = "cuda"
        largest = (row["level"], row["prompt_tokens"]) == (2, 16)
        row["prefill_tokens_per_s"]["p50"] *= 2 if largest else 0.5
        row["decode_tokens_per_s"]["p50"] *= 0.5 if largest else 2
    profile = target_profile("mine", {**device, "results": device["results"] + rows}, report["created"])
    assert (profile.prefill_backend, profile.decode_backend) == ("cuda", "cpu")
    assert {"cpu", "cuda"} <= set(profile.backends)
    write_target_profile(tmp_path / "mine.toml", profile)
    assert _read(tmp_path / "mine.toml") == profile


def test_every_way_to_a_device(connection, bundle, tmp_path):
    deploy(read_bundle(bundle), connection, level=1)
    calls = []
    plan = Plan(threads=(1,), prompt_tokens=(8,), decode_tokens=4, n_runs=1)
    deployment = find_deployment(connection, bundle)
    device = measure_device(connection, deployment, plan, lambda *call: calls.append(call))
    assert [row["level"] for row in device["results"]] == [0, 1]
    assert device["kind"] == connection.kind
    assert calls[-1][1:] == (3, 3)
    with pytest.raises(UsageError, match="level 2 is not on the device"):
        measure_device(connection, deployment, Plan(levels=(2,)))


def make_box(bundle, tmp_path, opencl):
    """A device `box` whose edge-run does this when it is asked for OpenCL, and computes on the CPU besides."""
    root = tmp_path / "root"
    (tmp_path / "devices.toml").write_text(f'[box]\nkind = "local"\naddress = "box"\nroot = "{root}"\n')
    done = deploy(read_bundle(bundle), LocalConnection(root=str(root))).deployment
    program, real = Path(done.program), f"{done.program}.real"
    program.rename(real)
    program.write_text(
        "#!/bin/sh\n"
        f'case " $* " in *" --backend=opencl "*) {opencl};; esac\n'
        f"exec {real} $(printf '%s\\n' \"$@\" | sed 's/--backend=.*/--backend=cpu/')\n"
    )
    program.chmod(0o755)


NO_OPENCL = 'printf "error: no OpenCL\\nhint: buy a GPU\\n" >&2; exit 1'


def test_a_backend_that_the_device_lacks_is_told(bundle, tmp_path, capsys):
    """In every form of the report, beside the measurements of the others."""
    make_box(bundle, tmp_path, NO_OPENCL)
    table, page = tmp_path / "x.csv", tmp_path / "x.html"
    arguments = ["profile", str(bundle), "--device", "box", "--levels", "0", "--threads", "1", *QUICK]
    both = [*arguments, "--backends", "opencl,cpu"]
    assert main([*both, "--csv", str(table), "--html", str(page), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    jsonschema.validate(report, MEASURED_SCHEMA)
    (device,) = report["devices"]
    assert [row["backend"] for row in device["results"]] == ["cpu"]
    assert device["unavailable"] == [{"backend": "opencl", "error": "no OpenCL; hint: buy a GPU"}]
    with open(table, newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["device"], line["backend"], line["error"]) for line in lines] == [
        ("box", "cpu", ""),
        ("box", "opencl", "no OpenCL; hint: buy a GPU"),
    ]
    assert "buy a GPU" in "".join(ElementTree.fromstring(page.read_text("utf-8").partition("\n")[2]).itertext())
    assert main(both) == 0
    assert "opencl cannot be used: no OpenCL; hint: buy a GPU" in capsys.readouterr().out
    assert main([*arguments, "--backends", "opencl"]) == 1
    assert "`box` can use none of the backends: no OpenCL" in capsys.readouterr().err


AT_LEVEL_1 = f'case " $* " in *" --level=1 "*) {NO_OPENCL};; esac'


@pytest.mark.parametrize(
    ("opencl", "n_rows", "told"),
    [
        ("kill -9 $$", 2, "`edge-run` ended with status 137 and said nothing"),
        (AT_LEVEL_1, 3, "level 1: `edge-run` on `box`: no OpenCL; hint: buy a GPU"),
    ],
    ids=["its driver crashes", "a level does not fit"],
)
def test_a_gpu_that_fails_leaves_the_rest(opencl, n_rows, told, bundle, tmp_path, capsys):
    make_box(bundle, tmp_path, opencl)
    arguments = ["profile", str(bundle), "--device", "box", "--levels", "0,1", "--threads", "1", *QUICK]
    assert main([*arguments, "--backends", "opencl,cpu", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    jsonschema.validate(report, MEASURED_SCHEMA)
    (device,) = report["devices"]
    assert device["unavailable"] == [{"backend": "opencl", "error": told}]
    assert len(device["results"]) == n_rows


def test_backends_are_measured_side_by_side(out, tmp_path, monkeypatch, capsys):
    """On PoCL where there is no GPU. A GPU once, however many threads."""
    monkeypatch.setenv("EDGE_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("EDGE_OPENCL_DEVICE", raising=False)
    page, table = tmp_path / "x.html", tmp_path / "x.csv"
    arguments = ["profile", str(out / "model.edge"), "--device", "local", "--levels", "0,1", "--threads", "1,2", *QUICK]
    arguments += ["--backends", "cpu,opencl", "--ops", "--html", str(page), "--csv", str(table), "--json"]
    assert main(arguments) == 0
    report = json.loads(capsys.readouterr().out)
    jsonschema.validate(report, MEASURED_SCHEMA)
    (device,) = report["devices"]
    if device["unavailable"] and not os.environ.get("EDGE_REQUIRE_OPENCL"):
        pytest.skip(f"SKIPPED no OpenCL device (apt-get install pocl-opencl-icd): {device['unavailable']}")
    found = [(row["level"], row["backend"]) for row in device["results"]]
    assert found == [(n, backend) for n in (0, 1) for backend in ("cpu", "cpu", "opencl")]
    assert all(row["ops"] for row in device["results"])
    of_gpu = [row for row in device["results"] if row["backend"] == "opencl"]
    assert all(row["backend_device"] for row in of_gpu)
    assert all(not row["backend_device"] for row in device["results"] if row["backend"] == "cpu")
    if "pthread" in of_gpu[0]["backend_device"]:  # PoCL rounds as the CPU does
        assert len({(row["level"], row["logits_hash"]) for row in device["results"]}) == 2
    text = "".join(ElementTree.fromstring(page.read_text("utf-8").partition("\n")[2]).itertext())
    assert f"opencl {of_gpu[0]['backend_device']}" in text
    assert "Where the time of a decoded token goes" in text
    with open(table, newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["backend_device"] for line in lines] == [row["backend_device"] for row in device["results"]]


def test_all_devices_and_those_that_fail(bundle, tmp_path, capsys):
    root = tmp_path / "root"
    (tmp_path / "devices.toml").write_text(
        f'[a]\nkind = "local"\naddress = "a"\nroot = "{root}"\n[b]\nkind = "local"\naddress = "b"\nroot = "{root}2"\n'
    )
    deploy(read_bundle(bundle), LocalConnection(root=str(root)))
    arguments = ["profile", str(bundle), "--device", "all", "--levels", "0", "--threads", "1", *QUICK]
    assert main([*arguments, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    jsonschema.validate(report, MEASURED_SCHEMA)
    assert [device["name"] for device in report["devices"]] == ["a"]
    failed = {one["name"]: one["error"] for one in report["failures"]}
    assert "nothing is deployed" in failed["b"]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert "throttling:" in captured.out
    assert "b: nothing is deployed" in captured.err


def test_an_edge_run_that_is_too_old(bundle, tmp_path, monkeypatch):
    connection = LocalConnection(root=str(tmp_path / "root"))
    done = deploy(read_bundle(bundle), connection).deployment
    program = tmp_path / "old"
    program.write_text(
        f'#!/bin/sh\n[ "$1" = bench ] || exec {done.program} "$@"\necho \'{{"levels": [{{"level": 0}}]}}\'\n'
    )
    program.chmod(0o755)
    with pytest.raises(DeviceError, match="older than this edgesdk") as caught:
        measure_device(connection, replace(done, program=str(program)), Plan(levels=(0,)))
    assert "deploy it" in caught.value.hint


def test_an_error_of_edge_run_comes_with_its_hint(bundle, tmp_path):
    connection = LocalConnection(root=str(tmp_path / "root"))
    done = deploy(read_bundle(bundle), connection).deployment
    with pytest.raises(DeviceError, match="`edge-run` on `local`: "):
        measure_device(connection, done, Plan(levels=(0,), prompt_tokens=(10**6,)))


def test_statistics():
    assert summary(10, [1.0, 2.0, 5.0]) == {
        "mean": pytest.approx(17 / 3),
        "p50": 5.0,
        "p95": 2.0,
        "spread": pytest.approx(8 / 5),
    }
    assert summary(1, [0.5])["spread"] == 0
    forty = summary(1, [1 / n for n in range(1, 41)])
    assert forty["p95"] == pytest.approx(3)  # 38 of 40 runs have 3 or more
    assert forty["p50"] == pytest.approx(2 / (1 / 20 + 1 / 21))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "local", "--save-target", "x"], "--save-target needs one device"),
        (["--levels", "x"], "--levels is `x`"),
        (["--threads", "0"], "--threads is `0`"),
        (["--prompt-tokens", ""], "nothing to measure"),
        (["--levels", "7"], "level 7 is not on the device"),
        (["--backends", "cpu,vulkan"], "--backends is `cpu,vulkan`, expected names from cpu, opencl, cuda"),
        (["--backends", "opencl", "--save-target", "x"], "--save-target needs the CPU"),
    ],
)
def test_what_cannot_be_measured(arguments, message, out, capsys):
    assert main(["profile", str(out / "model.edge"), "--device", "local", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_plan_is_every_combination():
    info = replace(probe(LocalConnection()), n_cores=4)
    levels = {0: {}, 3: {}}
    chosen = _settings(Plan(prompt_tokens=(8, 16)), levels, info)
    assert [(one.level, one.backend, one.threads, one.prompt_tokens) for one in chosen] == [
        (level, "cpu", threads, prompt) for level in (0, 3) for threads in (1, 4) for prompt in (8, 16)
    ]
    assert [one.threads for one in _settings(Plan(levels=(3,), threads=(2, 1)), levels, info)] == [2, 1]
    both = _settings(Plan(levels=(3,), backends=("cpu", "cuda")), levels, info)
    assert [(one.backend, one.threads) for one in both] == [("cpu", 1), ("cpu", 4), ("cuda", 4)]
