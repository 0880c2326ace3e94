"""English text out of a Debian package, the same for everybody who installs the same version of it."""

from __future__ import annotations

import gzip
import hashlib
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["DebianText", "read_debian_text"]

PACKAGE = "anarchism"  # An Anarchist FAQ: nearly two million words of prose in Markdown
_HELD_OUT = 20  # one file in so many is not trained on
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")


@dataclass(frozen=True)
class DebianText:
    """package, version, sha256: of the .deb file. training, held_out: text of different files of the package."""

    package: str
    version: str
    sha256: str
    training: str
    held_out: str


def read_debian_text(folder: Path, package: str = PACKAGE) -> DebianText:
    """Downloads the package into `folder` (apt-get download), unless it is there, and reads its Markdown files."""
    folder.mkdir(parents=True, exist_ok=True)
    found = sorted(folder.glob(f"{package}_*.deb"))
    if not found:
        done = subprocess.run(["apt-get", "download", package], cwd=folder, capture_output=True, text=True)
        found = sorted(folder.glob(f"{package}_*.deb"))
        if not found:
            raise SystemExit(
                f"error: cannot download the Debian package {package}: {done.stderr.strip()}\n"
                "hint: run `apt-get update` first, or put its .deb file into " + str(folder)
            )
    deb = found[-1]
    with tempfile.TemporaryDirectory() as temporary:
        subprocess.run(["dpkg-deb", "-x", deb, temporary], check=True)
        texts = [_plain(gzip.decompress(p.read_bytes())) for p in sorted(Path(temporary).rglob("*.md.gz"))]
    if not texts:
        raise SystemExit(f"error: {deb.name} has no Markdown files, expected *.md.gz")
    held_out = [text for i, text in enumerate(texts) if i % _HELD_OUT == _HELD_OUT // 2]
    training = [text for i, text in enumerate(texts) if i % _HELD_OUT != _HELD_OUT // 2]
    digest = hashlib.sha256(deb.read_bytes()).hexdigest()
    return DebianText(package, deb.name.split("_")[1], digest, "\n\n".join(training), "\n\n".join(held_out))


def _plain(raw: bytes) -> str:
    """Markdown without the targets of its links, paragraphs on one line each."""
    text = _LINK.sub(r"\1", raw.decode("utf-8", errors="replace")).replace("\\", "")
    paragraphs = (" ".join(part.split()) for part in re.split(r"\n\s*\n", text))
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)
