"""Who made an artifact: a detached signature over its header, which holds the SHA-256 of everything else.

The signature is that of OpenSSF model signing (a Sigstore bundle around an in-toto statement; the `model-signing`
package). The file that it names is `header`: the first 8 + header_bytes bytes of the artifact. An artifact that was cut
at a level keeps its signature, since it keeps its header.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType

from edgesdk.errors import EdgeError, MissingExtraError, SignatureError, UsageError
from edgesdk.formats.reader import Artifact

__all__ = ["check_signature", "sign_artifact", "signature_path"]

_MAX_SIGNATURE_BYTES = 1 << 20
_SIGN_HINT = "sign it with `edgesdk sign`, or say where its signature lies with --signature"
_KEY_HINT = "make one: openssl ecparam -name prime256v1 -genkey -noout -out key.pem; openssl ec -in key.pem -pubout"


def signature_path(path: Path) -> Path:
    """Where the signature of an artifact lies unless it is said: beside it, with `.sig` behind its name."""
    return path.with_name(path.name + ".sig")


def sign_artifact(
    path: Path | str, signature: Path | None = None, *, key: Path | None = None, password: str | None = None
) -> Path:
    """Writes the signature of an artifact, as a whole or not at all, and returns its path.

    key: a private key on P-256, P-384 or P-521 as PEM, password: of that key; without a key Sigstore signs: this needs
    the network, and an identity (that of the CI job that this runs in, or a login in the browser)
    Raises ArtifactError, UsageError (no such key), MissingExtraError, and EdgeError where it cannot be written.
    """
    signing = _package("signing")
    artifact = Artifact.open(path)
    target = signature or signature_path(artifact.path)
    partial = target.with_name(target.name + ".partial")
    config = signing.Config()
    if key is None:
        config.use_sigstore_signer(use_ambient_credentials=True)
    else:
        with _own_errors(f"`{key}` is no private key that this can use", UsageError, _KEY_HINT):
            config.use_elliptic_key_signer(private_key=key, password=password.encode() if password else None)
    try:
        with _header_folder(artifact) as folder, _own_errors(f"`{path}` could not be signed", EdgeError, ""):
            config.sign(folder, partial)
        os.replace(partial, target)
    except OSError as error:
        raise EdgeError(f"could not write `{target}`: {error.strerror}", hint="give another path with -o") from error
    finally:
        partial.unlink(missing_ok=True)
    return target


def check_signature(
    path: Path | str,
    signature: Path | None = None,
    *,
    key: Path | None = None,
    identity: str | None = None,
    issuer: str | None = None,
    min_level: int = 0,
) -> None:
    """Checks that an artifact's header is what the holder of a key, or an identity, signed.

    The bytes behind the header are not read: their hashes are in it, `load` and `verify_artifact` check them.
    key: the public key as PEM; identity, issuer: as Sigstore knows them, such as a mail address and the URL of the
    service that it logs in with (this needs the network)
    min_level: the file must hold this level; a signature does not say at which level a file was cut
    Raises SignatureError, TruncatedError (cut below min_level), ArtifactError, UsageError and MissingExtraError.
    """
    if (key is None) == (identity is None) or (identity is None) != (issuer is None):
        raise UsageError("whom to trust is not clear", hint="give a public key, or an identity and its issuer")
    verifying = _package("verifying")
    artifact = Artifact.open(path)
    artifact.level(min_level)
    config = verifying.Config()
    if key is None:
        config.use_sigstore_verifier(identity=identity, oidc_issuer=issuer)
    else:
        with _own_errors(f"`{key}` is no public key that this can use", UsageError, _KEY_HINT):
            config.use_elliptic_key_verifier(public_key=key)
    place = signature or signature_path(artifact.path)
    try:
        n_bytes = place.stat().st_size
    except OSError as error:
        raise SignatureError(f"`{place}` cannot be read: {error.strerror}", hint=_SIGN_HINT) from error
    if n_bytes > _MAX_SIGNATURE_BYTES:
        raise SignatureError(f"`{place}` has {n_bytes} bytes: no signature is so large", hint=_SIGN_HINT)
    whom = f"the key `{key}`" if key else f"`{identity}`"
    with (
        _header_folder(artifact) as folder,
        _own_errors(f"`{path}` is not what {whom} signed in `{place}`", SignatureError, "do not use this file"),
    ):
        config.verify(folder, place)


def _package(part: str) -> ModuleType:
    try:
        from model_signing import signing, verifying
    except ModuleNotFoundError as missing:
        raise MissingExtraError(
            f"signatures need `{missing.name}`, which is not installed", hint="pip install 'edgesdk[sign]'"
        ) from missing
    found: dict[str, ModuleType] = {"signing": signing, "verifying": verifying}
    return found[part]


@contextmanager
def _header_folder(artifact: Artifact) -> Iterator[Path]:
    """A folder with a copy of the header, which is what model signing takes."""
    with tempfile.TemporaryDirectory(prefix="edge-signature-") as folder:
        with open(artifact.path, "rb") as file:
            (Path(folder) / "header").write_bytes(file.read(artifact.data_offset))
        yield Path(folder)


@contextmanager
def _own_errors(message: str, kind: type[EdgeError], hint: str) -> Iterator[None]:
    """What the package raises, for hostile signatures and keys anything at all, as one error of ours."""
    try:
        with redirect_stdout(sys.stderr):  # it prints warnings
            yield
    except Exception as error:  # it names none: parsers, cryptography and network each raise their own
        said = str(error) or type(error).__name__
        raise kind(f"{message}: {said}", hint=hint) from error
