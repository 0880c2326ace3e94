"""Signatures over the header, by a local key: what is refused, and that a cut file keeps its signature."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hostile import join, split
from tiny_model import nested_ladder, tiny_config, write_random_artifact

from edgesdk.cli import main
from edgesdk.errors import EdgeError, HashError, MissingExtraError, SignatureError, TruncatedError, UsageError
from edgesdk.formats import Artifact, check_signature, sign_artifact, verify_artifact


def make_key(
    folder: Path, name: str, curve: ec.EllipticCurve | None = None, password: bytes = b""
) -> tuple[Path, Path]:
    """A private and a public key as PEM, on P-256 unless said otherwise."""
    return write_key(folder, name, ec.generate_private_key(curve or ec.SECP256R1()), password)


def write_key(folder: Path, name: str, key: Any, password: bytes = b"") -> tuple[Path, Path]:
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    lock = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    pem = serialization.Encoding.PEM
    private.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, lock))
    public.write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_key(tmp_path_factory.mktemp("keys"), "own")


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    config = tiny_config()
    write_random_artifact(tmp_path / "tiny.edge", config, nested_ladder(config))
    return tmp_path / "tiny.edge"


@pytest.fixture
def signed(artifact: Path, keys: tuple[Path, Path]) -> Path:
    assert sign_artifact(artifact, key=keys[0]) == artifact.with_name("tiny.edge.sig")
    return artifact


def test_what_was_signed_is_accepted(signed: Path, keys: tuple[Path, Path]) -> None:
    check_signature(signed, key=keys[1])
    assert sorted(path.name for path in signed.parent.iterdir()) == ["tiny.edge", "tiny.edge.sig"]


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_other_curves(artifact: Path, tmp_path: Path, curve: ec.EllipticCurve) -> None:
    private, public = make_key(tmp_path, "other", curve)
    check_signature(artifact, sign_artifact(artifact, tmp_path / "elsewhere", key=private), key=public)


def test_a_key_with_a_password(artifact: Path, tmp_path: Path) -> None:
    locked, public = make_key(tmp_path, "locked", password=b"secret")
    with pytest.raises(UsageError, match="no private key"):
        sign_artifact(artifact, key=locked)
    with pytest.raises(UsageError, match="no private key"):
        sign_artifact(artifact, key=locked, password="wrong")
    check_signature(artifact, sign_artifact(artifact, key=locked, password="secret"), key=public)


def test_a_cut_file_keeps_its_signature_and_min_level_refuses_it(signed: Path, keys: tuple[Path, Path]) -> None:
    os.truncate(signed, Artifact.open(signed).levels[1].file_bytes)
    check_signature(signed, key=keys[1])
    check_signature(signed, key=keys[1], min_level=1)
    with pytest.raises(TruncatedError, match="level 2"):
        check_signature(signed, key=keys[1], min_level=2)
    assert verify_artifact(signed, min_level=1).n_available_levels == 2
    with pytest.raises(TruncatedError, match="level 2"):
        verify_artifact(signed, min_level=2)


def test_another_header_is_refused_though_its_hashes_are_right(signed: Path, keys: tuple[Path, Path]) -> None:
    outer, edge, data = split(signed.read_bytes())
    edge["model"]["name"] = "somebody else's"
    signed.write_bytes(join(outer, edge, data))
    verify_artifact(signed)
    with pytest.raises(SignatureError, match="not what the key"):
        check_signature(signed, key=keys[1])


def test_other_data_are_refused_by_their_hash(signed: Path, keys: tuple[Path, Path]) -> None:
    with open(signed, "r+b") as file:
        file.seek(Artifact.open(signed).data_offset + Artifact.open(signed).runs[0].begin)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    check_signature(signed, key=keys[1])
    with pytest.raises(HashError):
        verify_artifact(signed)


def test_another_key_and_another_files_signature_are_refused(
    signed: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    stranger, public = make_key(tmp_path, "stranger")
    with pytest.raises(SignatureError, match="not what the key"):
        check_signature(signed, key=public)
    config = tiny_config(width=192)
    write_random_artifact(tmp_path / "second.edge", config, nested_ladder(config))
    with pytest.raises(SignatureError, match="not what the key"):
        check_signature(tmp_path / "second.edge", tmp_path / "tiny.edge.sig", key=keys[1])
    sign_artifact(signed, key=stranger)
    with pytest.raises(SignatureError, match="not what the key"):
        check_signature(signed, key=keys[1])


def test_every_kind_of_damage_to_a_signature_is_one_error(signed: Path, keys: tuple[Path, Path]) -> None:
    signature = signed.with_name("tiny.edge.sig")
    good = signature.read_bytes()
    bundle = json.loads(good)
    envelope = bundle["dsseEnvelope"]
    damaged = [b"", b"\xff\xfe", b"{}", b"[1]", b"null", good[: len(good) // 2], b"[" * 100_000, b"x" * (1 << 20)]
    damaged += [
        json.dumps({**bundle, "dsseEnvelope": {**envelope, **change}}).encode()
        for change in ({"signatures": []}, {"payload": ""}, {"payload": "e30="}, {"payloadType": "text/plain"})
    ]
    for text in damaged:
        signature.write_bytes(text)
        with pytest.raises(SignatureError, match="not what the key"):
            check_signature(signed, key=keys[1])
    signature.write_bytes(b"x" * ((1 << 20) + 1))
    with pytest.raises(SignatureError, match="no signature is so large"):
        check_signature(signed, key=keys[1])
    signature.unlink()
    with pytest.raises(SignatureError, match="cannot be read"):
        check_signature(signed, key=keys[1])


def test_no_key_and_wrong_keys(artifact: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "no.pem").write_text("no key")
    edwards = write_key(tmp_path, "edwards", ed25519.Ed25519PrivateKey.generate())
    koblitz = make_key(tmp_path, "koblitz", ec.SECP256K1())
    for private in (tmp_path / "no.pem", tmp_path / "missing.pem", keys[1], edwards[0], koblitz[0]):
        with pytest.raises(UsageError, match="no private key"):
            sign_artifact(artifact, key=private)
    sign_artifact(artifact, key=keys[0])
    for public in (tmp_path / "no.pem", tmp_path / "missing.pem", keys[0], edwards[1], koblitz[1]):
        with pytest.raises(UsageError, match="no public key"):
            check_signature(artifact, key=public)
    for whom in ({}, {"key": keys[1], "identity": "me", "issuer": "them"}, {"identity": "me"}, {"issuer": "them"}):
        with pytest.raises(UsageError, match="whom to trust"):
            check_signature(artifact, **whom)  # type: ignore[arg-type]


def test_nothing_is_left_where_it_cannot_be_written(artifact: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(EdgeError):
        sign_artifact(artifact, tmp_path / "missing" / "signature", key=keys[0])
    assert not list(tmp_path.glob("**/*.partial"))


def test_the_extra_is_named(artifact: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(MissingExtraError, match="signatures need"):
        sign_artifact(artifact, key=keys[0])


def test_the_command_line(
    artifact: Path, keys: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, signature = [str(artifact)], str(tmp_path / "s.json")
    assert main(["sign", *own]) == 2
    assert main(["sign", *own, "--key", str(keys[0]), "-o", signature, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"path": str(artifact), "signature": signature}
    trust = ["--key", str(keys[1]), "--signature", signature]
    assert main(["verify", *own, *trust, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["signed"] is True
    assert main(["verify", *own, *trust, "--min-level", "2"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("3 levels, signed")
    assert main(["verify", *own, "--key", str(keys[1])]) == 1
    assert main(["verify", *own, "--signature", signature]) == 2
    assert main(["verify", *own, "--identity", "me@example.com"]) == 2
    assert main(["verify", *own, "--min-level", "3"]) == 2


def test_the_stock_tool_reads_our_signature(signed: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    """Model signing's own command accepts the header and our signature."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "header").write_bytes(signed.read_bytes()[: Artifact.open(signed).data_offset])
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(folder)]
    command += ["--signature", str(signed.with_name("tiny.edge.sig")), "--public_key", str(keys[1])]
    assert subprocess.run(command, capture_output=True, text=True).returncode == 0
