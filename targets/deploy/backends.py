"""Which backends a device can use, and which one `auto` means there."""

from __future__ import annotations

from edgesdk.targets.connections import Connection
from edgesdk.targets.deploy.deployment import Deployment, error_and_hint

__all__ = ["default_backend", "refusal"]


def refusal(connection: Connection, deployment: Deployment, backend: str) -> str:
    """Why `edge-run` cannot use a backend there, in one line; "" where it can.

    A GPU is opened for that: the first time its kernels are compiled and tested, and kept.
    """
    if backend == "cpu":
        return ""
    finished = connection.run(deployment.command(["info", "--json", f"--backend={backend}"]), quiet_s=None)
    if not finished.status:
        return ""
    told = "; hint: ".join(filter(None, error_and_hint(finished.stderr.decode("utf-8", "replace"))))
    return told or f"`edge-run` ended with status {finished.status} and said nothing"  # a driver may crash


def default_backend(connection: Connection, deployment: Deployment) -> tuple[str, str]:
    """What `auto` means for a deployment, and why in one line ("" where nothing is known).

    The backend that its bundle names as the fastest for answers, if the device can use it; else `edge-run` chooses.
    One backend computes a whole conversation, so that of prompts (`prefill_backend`) is not asked.
    """
    fastest = deployment.decode_backend
    if not fastest:
        return "auto", ""
    refused = refusal(connection, deployment, fastest)
    if refused:
        return "auto", f"{fastest}, which decodes fastest as its bundle says, cannot be used: {refused}"
    return fastest, "it decodes fastest, as its bundle says"
