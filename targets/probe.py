"""Asks a device what it is: one script that runs by `sh` anywhere, and its answer read in one place."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgesdk.targets.condition import CONDITION_SCRIPT, Condition, parse_condition
from edgesdk.targets.connections import Connection

__all__ = ["Cluster", "DeviceInfo", "parse_probe", "probe"]

_SCRIPT = Path(__file__).parent / "probe.sh"
_QUIET_S = 60.0
# A name of the engine's kernel sets -> the words of /proc/cpuinfo that it needs, on either architecture.
_ISA: dict[str, tuple[frozenset[str], ...]] = {
    "neon": (frozenset({"asimd"}),),
    "dotprod": (frozenset({"asimddp"}),),
    "i8mm": (frozenset({"i8mm"}),),
    "fp16": (frozenset({"asimdhp"}),),
    "bf16": (frozenset({"bf16"}), frozenset({"avx512_bf16"})),
    "sve": (frozenset({"sve"}),),
    "sve2": (frozenset({"sve2"}),),
    "avx2": (frozenset({"avx2", "fma"}),),
    "avxvnni": (frozenset({"avx2", "avx_vnni"}),),
    "avx512vnni": (frozenset({"avx512f", "avx512bw", "avx512vl", "avx512_vnni"}),),
}
_MACHINES = {"arm64": "aarch64", "amd64": "x86_64"}
_CORES = {
    "0xd03": "Cortex-A53",
    "0xd04": "Cortex-A35",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd09": "Cortex-A73",
    "0xd0a": "Cortex-A75",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd0d": "Cortex-A77",
    "0xd40": "Neoverse-V1",
    "0xd41": "Cortex-A78",
    "0xd42": "Cortex-A78AE",
    "0xd44": "Cortex-X1",
    "0xd46": "Cortex-A510",
    "0xd47": "Cortex-A710",
    "0xd48": "Cortex-X2",
    "0xd49": "Neoverse-N2",
    "0xd4d": "Cortex-A715",
    "0xd4e": "Cortex-X3",
    "0xd4f": "Neoverse-V2",
    "0xd80": "Cortex-A520",
    "0xd81": "Cortex-A720",
    "0xd82": "Cortex-X4",
}


@dataclass(frozen=True)
class Cluster:
    """Processors that share a clock. max_mhz: 0 where the system does not tell; core: "" likewise."""

    n_threads: int
    max_mhz: int
    core: str


@dataclass(frozen=True)
class DeviceInfo:
    """What a device says of itself; "" and 0 stand for what it does not tell.

    machine: architecture, `aarch64` or `x86_64`; isa: kernel sets it can run; gpu_apis: those whose library is there
    """

    model: str
    soc: str
    machine: str
    os: str
    android: bool
    libc: str
    n_threads: int
    n_cores: int
    clusters: tuple[Cluster, ...]
    isa: tuple[str, ...]
    memory_bytes: int
    available_bytes: int
    gpu: str
    gpu_apis: tuple[str, ...]
    condition: Condition

    def as_dict(self) -> dict[str, Any]:
        """As plain data for JSON."""
        return asdict(self)


def probe(connection: Connection) -> DeviceInfo:
    """Asks a device. Raises DeviceError when it cannot be reached."""
    text = connection.run(_SCRIPT.read_text("utf-8") + CONDITION_SCRIPT, quiet_s=_QUIET_S).text
    return parse_probe(text, parse_condition(text))


def parse_probe(text: str, condition: Condition) -> DeviceInfo:
    """Reads what probe.sh printed."""
    fields: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals:
            fields.setdefault(key, []).append(" ".join(value.split()))
    one = {key: values[0] for key, values in fields.items()}
    machine = _MACHINES.get(one.get("machine", ""), one.get("machine", ""))
    clusters = _clusters(fields.get("cluster", []), one)
    n_threads = _integer(one.get("n_threads")) or sum(cluster.n_threads for cluster in clusters)
    words = set(one.get("features", "").lower().split())
    return DeviceInfo(
        model=_model(one),
        soc=_soc(one),
        machine=machine,
        os=_os(one),
        android="android" in one,
        libc=one.get("libc", ""),
        n_threads=n_threads,
        n_cores=_n_cores(one) or n_threads,
        clusters=clusters,
        isa=tuple(name for name, choices in _ISA.items() if any(needed <= words for needed in choices)),
        memory_bytes=_integer(one.get("memory_kb")) * 1024,
        available_bytes=_integer(one.get("available_kb")) * 1024,
        gpu=_gpu(one),
        gpu_apis=_gpu_apis(one),
        condition=condition,
    )


def _integer(text: str | None) -> int:
    return int(text) if text is not None and text.isdigit() else 0


def _model(one: Mapping[str, str]) -> str:
    if "model" in one:
        brand = one.get("brand", "")
        return one["model"] if one["model"].lower().startswith(brand.lower()) else f"{brand} {one['model']}"
    board = one.get("tree_model") or " ".join(filter(None, (one.get("dmi_vendor"), one.get("dmi_product"))))
    return board or one.get("hostname", "")


def _soc(one: Mapping[str, str]) -> str:
    if "soc_model" in one:
        return " ".join(filter(None, (one.get("soc_maker"), one["soc_model"])))
    chips = re.findall(r"(?:nvidia|brcm|rockchip|qcom|amlogic|allwinner),\S+", one.get("tree_compatible", ""))
    chip = chips[-1] if chips else ""
    return one.get("cpu_model") or chip or one.get("cpu_hardware") or one.get("platform", "")


def _os(one: Mapping[str, str]) -> str:
    if "android" in one:
        return f"Android {one['android']} (API {one.get('android_sdk', '?')})"
    name = one.get("os") or one.get("kernel", "")
    tegra = re.search(r"R(\d+).*?REVISION: ([\d.]+)", one.get("tegra", ""))
    return f"{name}, L4T {tegra[1]}.{tegra[2]}" if tegra else name


def _clusters(lines: list[str], one: Mapping[str, str]) -> tuple[Cluster, ...]:
    parts = one.get("parts", "").split()
    found = []
    for line in lines:
        processors, khz, _ = (*line.split(";"), "", "")[:3]
        numbers = [int(word) for word in processors.split() if word.isdigit()]
        names = {_CORES.get(parts[n].lower(), parts[n]) for n in numbers if n < len(parts)}
        found.append(Cluster(len(numbers), _integer(khz) // 1000, "/".join(sorted(names))))
    merged: dict[tuple[int, str], int] = {}
    for cluster in found:
        key = (cluster.max_mhz, cluster.core)
        merged[key] = merged.get(key, 0) + cluster.n_threads
    if not merged and _integer(one.get("n_threads")):
        names = {_CORES.get(part.lower(), part) for part in parts}
        mhz = round(float(one["cpu_mhz"])) if re.fullmatch(r"\d+(\.\d+)?", one.get("cpu_mhz", "")) else 0
        return (Cluster(_integer(one.get("n_threads")), mhz, "/".join(sorted(names))),)
    return tuple(Cluster(n, mhz, core) for (mhz, core), n in merged.items())


def _n_cores(one: Mapping[str, str]) -> int:
    """Physical cores where the system tells them apart from hardware threads."""
    packages, cores = (one.get(f"x86 {key}", "").split() for key in ("physical id", "core id"))
    return len(set(zip(packages, cores, strict=False)))


def _gpu(one: Mapping[str, str]) -> str:
    tree = one.get("tree_compatible", "")
    if "nvidia" in one:
        return one["nvidia"]
    if "nvidia,tegra234" in tree:
        return "NVIDIA Ampere (Orin)"
    if "nvidia,tegra" in tree:
        return "NVIDIA (Tegra)"
    if "brcm,bcm2712" in tree:
        return "VideoCore VII"
    if "brcm,bcm2711" in tree:
        return "VideoCore VI"
    if "kgsl" in one:
        return one["kgsl"] if "adreno" in one["kgsl"].lower() else f"Adreno {one['kgsl']}"
    return one.get("mali") or one.get("egl") or one.get("drm", "")


def _gpu_apis(one: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(name for name in ("cuda", "opencl", "vulkan") if name in one)
