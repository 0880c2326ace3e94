"""Says in the report's header when the installed package is older than this checkout; lets programs be interrupted."""

from __future__ import annotations

import importlib.util
import signal
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "edgesdk": ROOT / "src" / "edgesdk",
    **{f"edgesdk.{name}": ROOT / name for name in ("cloud", "device", "formats", "targets")},
}


def pytest_configure() -> None:
    """A shell that starts tests in the background lets them ignore Ctrl-C, and so would what they start."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str:
    spec = importlib.util.find_spec("edgesdk")
    if spec is None or not spec.submodule_search_locations:
        return "edgesdk is not installed: run `make install`"
    package = Path(next(iter(spec.submodule_search_locations)))
    stale = []
    for name, folder in FOLDERS.items():
        installed = package.joinpath(*name.split(".")[1:])
        for source in folder.rglob("*.py"):
            if "engine" in source.relative_to(folder).parts:
                continue
            copy = installed / source.relative_to(folder)
            if not copy.is_file() or copy.read_bytes() != source.read_bytes():
                stale.append(source.relative_to(ROOT).as_posix())
    return f"edgesdk from {package}" + (f", OLDER than {', '.join(sorted(stale))}: run `make install`" if stale else "")
