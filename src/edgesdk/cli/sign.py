"""`edgesdk sign`: a signature for an artifact, which `edgesdk verify` checks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgesdk.cli.console import print_json
from edgesdk.cli.options import Artifact as ArtifactPath
from edgesdk.cli.options import Json, examples
from edgesdk.errors import UsageError
from edgesdk.formats import sign_artifact

__all__ = ["EXAMPLES", "sign"]

EXAMPLES = examples(
    "openssl ecparam -name prime256v1 -genkey -noout -out key.pem",
    "openssl ec -in key.pem -pubout -out key.pub",
    "edgesdk sign model.edge --key key.pem",
    "edgesdk verify model.edge --key key.pub",
    "edgesdk sign model.edge --sigstore --json",
)


def sign(
    path: ArtifactPath,
    key: Annotated[
        Path | None, typer.Option("--key", help="Private key (P-256, P-384 or P-521) as PEM.", show_default=False)
    ] = None,
    sigstore: Annotated[
        bool, typer.Option("--sigstore", help="Sign by an identity, not a key: needs the network and a login.")
    ] = False,
    signature: Annotated[
        Path | None, typer.Option("--signature", "-o", help="Default: FILE.sig.", show_default=False)
    ] = None,
    password: Annotated[
        str | None,
        typer.Option("--password", envvar="EDGE_KEY_PASSWORD", help="Of the key.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Sign the header of a file, which holds the hash of all that is in it; levels may be cut off afterwards.

    The signature has the format of OpenSSF model signing.
    """
    if (key is None) != sigstore:
        raise UsageError("it is not clear who signs", hint="give --key PRIVATE.pem or --sigstore, one of the two")
    made = sign_artifact(path, signature, key=key, password=password)
    if as_json:
        print_json({"path": str(path), "signature": str(made)})
    else:
        typer.echo(str(made))
