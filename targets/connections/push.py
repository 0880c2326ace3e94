"""Pushes a file so that the device holds it whole or not at all: part file, hash on the device, rename.

A push that broke goes on where it stopped. What the device already holds of the same bytes, such as a smaller level of
the same artifact, is taken from there.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from edgesdk.errors import DeviceError
from edgesdk.targets.connections.connection import Connection

__all__ = ["file_sha256", "push_bytes", "push_file"]

Progress = Callable[[int, int], None]
"""Called with (bytes that are there, bytes in all)."""

_BLOCK_BYTES = 1 << 18
_HASH_S = 300.0  # a slow card hashes a gigabyte within this
_STALL_S = 60.0
_SHA256 = """hash() {
  { sha256sum "$@" 2>/dev/null || toybox sha256sum "$@" 2>/dev/null || shasum -a 256 "$@" 2>/dev/null; } | cut -c1-64
}
"""
# final, part, folder: quoted paths; n_bytes of the file that is wanted. Prints name=value lines.
_EXAMINE = """umask 022
mkdir -p {folder} || exit 1
for old in {final}.*.part; do
  if [ -f "$old" ] && [ "$old" != {part} ]; then rm -f "$old"; fi
done
if [ -f {final} ]; then
  size=$(wc -c < {final}) || exit 1
  echo final_bytes=$size
  if [ $size -le {n_bytes} ]; then
    echo sha256=$(hash {final})
  else
    echo sha256=$(head -c {n_bytes} {final} | hash -)
  fi
fi
if [ -f {part} ]; then echo part_bytes=$(wc -c < {part}); fi
set -- $(df -Pk {folder} 2>/dev/null | tail -n 1)
echo free_kb=$4
"""
_FINISH = """found=$(hash {part})
echo sha256=$found
[ "$found" = {sha256} ] && chmod {mode} {part} && mv -f {part} {final}
"""


def push_file(
    connection: Connection,
    path: Path,
    remote: str,
    *,
    n_bytes: int | None = None,
    sha256: str | None = None,
    mode: int = 0o644,
    progress: Progress | None = None,
) -> int:
    """Makes `remote` the first `n_bytes` (default: all) of a file and returns how many bytes crossed the link.

    sha256: of those bytes, where it is known already
    Raises DeviceError; `remote` is then what it was before, and the next try goes on behind the bytes that arrived.
    """
    total = path.stat().st_size if n_bytes is None else n_bytes
    wanted = sha256 or file_sha256(path, total)
    names = _names(remote, wanted)
    state = _examine(connection, names, total)
    held, there = state.get("final_bytes", ""), int(state.get("part_bytes", "0") or 0)
    n_common = min(int(held), total) if held else 0
    same = n_common > 0 and state.get("sha256") == (wanted if n_common == total else file_sha256(path, n_common))
    if same and held == str(total):
        _change_mode(connection, names, mode)
        return 0
    if there > total:
        connection.remove(f"{remote}.{wanted[:16]}.part")
        there = 0
    _need_space(connection, state.get("free_kb", ""), total - there)
    if same and n_common > there:
        _run(connection, "head -c {n} {final} > {part}".format(n=n_common, **names), names, "copy", quiet_s=_HASH_S)
        there = n_common
    sent = total - there
    if sent > 0:
        _send(connection, names, _blocks(path, there, total, progress), there, total)
    finished = connection.run(_SHA256 + _FINISH.format(sha256=wanted, mode=f"{mode:o}", **names), quiet_s=_HASH_S)
    if finished.status:
        found = _fields(finished.text).get("sha256", "")
        connection.remove(f"{remote}.{wanted[:16]}.part")
        if not found:
            raise DeviceError(
                f"`{connection.name}` cannot hash files: it has neither sha256sum nor toybox nor shasum",
                hint="install coreutils or busybox on it",
            )
        if found != wanted:
            raise DeviceError(
                f"`{remote}` arrived on `{connection.name}` with SHA-256 {found[:16]}…, expected {wanted[:16]}…",
                hint="run the command again; if it happens again, see the device's storage and the cable",
            )
        raise DeviceError(f"`{connection.name}` cannot write `{remote}`: {finished.words}")
    if progress is not None:
        progress(total, total)
    return sent


def push_bytes(connection: Connection, data: bytes, remote: str) -> None:
    """Makes `remote` a small file with these bytes, whole or not at all. Raises DeviceError."""
    part = shlex.quote(f"{remote}.new")
    finished = connection.run(f"cat > {part} && mv -f {part} {shlex.quote(remote)}", data=data)
    if finished.status:
        connection.remove(f"{remote}.new")
        raise _refused(connection, finished.words)


def file_sha256(path: Path, n_bytes: int) -> str:
    """SHA-256 of the first bytes of a file, in hex."""
    digest = hashlib.sha256()
    for block in _blocks(path, 0, n_bytes, None):
        digest.update(block)
    return digest.hexdigest()


def _names(remote: str, sha256: str) -> dict[str, str]:
    """Quoted paths. A part file carries the hash it is to have: parts of another content are never gone on with."""
    return {
        "final": shlex.quote(remote),
        "part": shlex.quote(f"{remote}.{sha256[:16]}.part"),
        "folder": shlex.quote(str(PurePosixPath(remote).parent)),
    }


def _examine(connection: Connection, names: dict[str, str], n_bytes: int) -> dict[str, str]:
    finished = connection.run(_SHA256 + _EXAMINE.format(n_bytes=n_bytes, **names), quiet_s=_HASH_S)
    if finished.status:
        raise _refused(connection, finished.words)
    return _fields(finished.text)


def _fields(text: str) -> dict[str, str]:
    return {key: value.strip() for key, _, value in (line.partition("=") for line in text.splitlines())}


def _need_space(connection: Connection, free_kb: str, n_bytes: int) -> None:
    if free_kb.isdigit() and int(free_kb) * 1024 < n_bytes:
        raise DeviceError(
            f"`{connection.name}` has {int(free_kb) * 1024:,} bytes free, the push needs {n_bytes:,}",
            hint="remove something there, or push a smaller level (`--level 0`, `--budget 80MB`)",
        )


def _send(connection: Connection, names: dict[str, str], blocks: Iterator[bytes], there: int, total: int) -> None:
    script = "umask 077; cat >> {part} && echo written".format(**names)
    out, err = bytearray(), bytearray()
    try:
        status = connection.stream(script, out.extend, err.extend, feed=blocks, quiet_s=_STALL_S)
    except DeviceError as error:
        raise DeviceError(
            f"{error.message}; {total:,} bytes were to be pushed, {there:,} were there before",
            hint="run the command again: it goes on behind the bytes that arrived",
        ) from error
    if status or b"written" not in out:
        words = " ".join(err.decode("utf-8", "replace").split())
        if "no space" in words.lower() or "quota" in words.lower():
            connection.run("rm -f {part}".format(**names))
        raise _refused(connection, words)


def _run(connection: Connection, script: str, names: dict[str, str], what: str, *, quiet_s: float) -> None:
    finished = connection.run(script, quiet_s=quiet_s)
    if finished.status:
        connection.run("rm -f {part}".format(**names))
        raise _refused(connection, f"{what}: {finished.words}")


def _change_mode(connection: Connection, names: dict[str, str], mode: int) -> None:
    connection.run("chmod {mode:o} {final}".format(mode=mode, **names))


def _refused(connection: Connection, words: str) -> DeviceError:
    """The error behind what the device's own programs said when a file could not be written."""
    lowered = words.lower()
    if "no space" in lowered or "quota" in lowered:
        return DeviceError(
            f"the storage of `{connection.name}` is full",
            hint="remove something there, or push a smaller level (`--level 0`, `--budget 80MB`)",
        )
    if any(said in lowered for said in ("permission denied", "read-only", "not permitted", "not a directory")):
        return DeviceError(
            f"`{connection.name}` does not let this user write to `{connection.root}`: {words}",
            hint='give it another folder: `root = "..."` in devices.toml (docs/devices.md)',
        )
    return DeviceError(
        f"`{connection.name}` could not write the file" + (f": {words}" if words else ""),
        hint="run the command again: it goes on behind the bytes that arrived",
    )


def _blocks(path: Path, begin: int, end: int, progress: Progress | None) -> Iterator[bytes]:
    with open(path, "rb") as file:
        file.seek(begin)
        done = begin
        while done < end:
            if progress is not None:
                progress(done, end)
            block = file.read(min(_BLOCK_BYTES, end - done))
            if not block:
                return
            done += len(block)
            yield block
