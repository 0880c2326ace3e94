"""What devices say of themselves, read from answers in the form that such systems give; and this machine's own.

The answers in probes/ were put together from what these systems are known to print, not recorded on them.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from edgesdk.targets import probe as module
from edgesdk.targets.condition import Condition, held_back, parse_condition
from edgesdk.targets.connections import LocalConnection
from edgesdk.targets.energy import Energy, measured_script, parse_energy
from edgesdk.targets.probe import Cluster, parse_probe, probe

ANSWERS = Path(__file__).parent / "probes"
COOL = Condition()


def answer(name: str):
    return parse_probe((ANSWERS / f"{name}.txt").read_text(), COOL)


def test_a_phone():
    info = answer("android")
    assert (info.model, info.soc, info.os, info.android) == (
        "google Pixel 7",
        "Google Tensor G2",
        "Android 13 (API 33)",
        True,
    )
    assert info.clusters == (
        Cluster(4, 1803, "Cortex-A55"),
        Cluster(2, 2348, "Cortex-A78"),
        Cluster(2, 2850, "Cortex-X1"),
    )
    assert info.isa == ("neon", "dotprod", "fp16")
    assert (info.memory_bytes, info.available_bytes) == (7818508 * 1024, 3011872 * 1024)
    assert info.gpu.startswith("Mali-G710")
    assert info.gpu_apis == ("opencl", "vulkan")


def test_a_jetson():
    info = answer("jetson")
    assert info.model == "NVIDIA Jetson Orin Nano Developer Kit"
    assert info.os == "Ubuntu 22.04.4 LTS, L4T 36.3.0"
    assert info.clusters == (Cluster(6, 1510, "Cortex-A78AE"),)
    assert (info.gpu, info.gpu_apis) == ("NVIDIA Ampere (Orin)", ("cuda",))
    assert not info.android
    assert info.libc == "glibc 2.35"


def test_a_raspberry_pi():
    info = answer("pi")
    assert (info.model, info.soc) == ("Raspberry Pi 5 Model B Rev 1.0", "brcm,bcm2712")
    assert info.clusters == (Cluster(4, 2400, "Cortex-A76"),)
    assert "dotprod" in info.isa and "i8mm" not in info.isa
    assert info.gpu == "VideoCore VII"


def test_a_laptop():
    info = answer("x86")
    assert (info.model, info.machine) == ("LENOVO 21CB", "x86_64")
    assert (info.n_threads, info.n_cores) == (16, 8)
    assert info.isa == ("avx2",)
    assert info.clusters == (Cluster(16, 1397, ""),)


def test_what_a_device_does_not_tell_is_empty():
    info = parse_probe("machine=arm64\nnonsense\n=\nmemory_kb=much\n", COOL)
    assert (info.machine, info.memory_bytes, info.clusters, info.isa, info.model) == ("aarch64", 0, (), (), "")


@pytest.mark.parametrize("shell", ["sh", "dash", "busybox sh"])
def test_this_machine(shell, monkeypatch):
    program, *arguments = shell.split()
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    monkeypatch.setattr(LocalConnection, "command", lambda self, script: [program, *arguments, "-c", script])
    info = probe(LocalConnection())
    assert info.machine == platform.machine()
    assert info.n_threads >= 1
    assert 1 <= info.n_cores <= info.n_threads
    assert info.memory_bytes == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < info.available_bytes < info.memory_bytes
    assert info.os
    from edgesdk.device import isa

    assert isa() == "reference" or isa() in info.isa


def test_the_script_writes_nothing_to_stderr():
    finished = LocalConnection().run(module._SCRIPT.read_text())
    assert (finished.status, finished.stderr) == (0, b"")


def test_a_phone_that_is_warm():
    text = "zone=battery;31000\nzone=cpu-1-0;71200\nzone=broken;-273000\nzone=off;0\ncooling=thermal-cpufreq-0;2\n"
    text += "cooling=fan;3\nandroid_status=3\nclock=2850000;2401000;2401000\nclock=1803000;1803000;600000\n"
    condition = parse_condition(text)
    assert condition == Condition(71.2, "cpu-1-0", "severe", None, True, 0.842)
    assert held_back(Condition(clock_limit=1.0), condition) == (
        True,
        "thermal status severe; the system slows processors down to cool them; clocks were limited to 84%",
    )


@pytest.mark.parametrize(
    ("bits", "status"),
    [("0x0", "none"), ("0x50000", "none"), ("0x50005", "under-voltage, throttled"), ("0x8", "soft temperature limit")],
)
def test_a_pi_says_what_limits_it(bits, status):
    assert parse_condition(f"pi_throttled={bits}").status == status


def test_a_processor_that_was_throttled():
    before, after = (parse_condition(f"throttle_count={n}") for n in (3, 5))
    assert held_back(before, after) == (True, "processors were throttled 2 times")
    assert held_back(before, before) == (False, "")
    assert held_back(COOL, COOL) == (None, "the device does not tell")


def test_energy_of_counters_that_wrap():
    begin = "energy_source=rapl\nuptime=10.00\nenergy_uj=900;999\nenergy_uj=500;999\n"
    text = f"{begin}noise\nenergy_uj=100;999\nenergy_uj=700;999\nuptime=12.00\n"
    assert parse_energy(text) == Energy("rapl", round(400e-6, 3), 2.0, round(200e-6, 3))
    large = text.replace("100;999", "4000900;262143328850")
    assert parse_energy(large.replace(";999", ";262143328850")).joules == pytest.approx(4.0, abs=1e-3)


def test_energy_of_power_that_was_sampled():
    text = "energy_source=ina\nuptime=1.0\npower_mv_ma=5000;1000\npower_mv_ma=5000;3000\nuptime=3.5\n"
    assert parse_energy(text) == Energy("ina", 25.0, 2.5, 10.0)
    text = "energy_source=battery\nuptime=1.0\npower_uv_ua=4000000;-500000\nuptime=2.0\n"
    assert parse_energy(text) == Energy("battery", 2.0, 1.0, 2.0)


@pytest.mark.parametrize("text", ["", "energy_source=none\nuptime=1.0\nuptime=2.0", "energy_source=rapl\nuptime=1.0\n"])
def test_energy_that_is_not_available(text):
    assert parse_energy(text) == Energy("not available")


@pytest.mark.parametrize("status", [0, 3])
def test_a_measured_command_keeps_its_output_and_status(status):
    finished = LocalConnection().run(measured_script(f"sh -c 'echo out; echo err >&2; exit {status}'"))
    assert (finished.status, finished.stdout) == (status, b"out\n")
    assert b"err\n" in finished.stderr
    assert b"uptime=" in finished.stderr


def test_an_interrupted_measurement_ends_its_program(tmp_path):
    script = measured_script(f"sh -c 'echo $$ > {tmp_path}/pid; echo begun; exec sleep 60'")

    def interrupt(data):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LocalConnection().stream(script, interrupt, lambda data: None)
    pid = (tmp_path / "pid").read_text().strip()
    state = subprocess.run(["ps", "-o", "stat=", "-p", pid], capture_output=True, text=True, check=False).stdout
    assert state.strip()[:1] in ("", "Z")
