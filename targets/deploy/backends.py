"""Which backends a device can use, and which one `auto` means there."""

from __future__ import annotations

from edgesdk.targets.connections import Connection
from edgesdk.targets.deploy.deployment import Deployment, error_and_hint

__all__ = ["fastest_backends", "refusal"]


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


def fastest_backends(connection: Connection, deployment: Deployment) -> tuple[dict[str, str], str]:
    """Options of `edge-run` that `auto` means for a deployment, and why in one line ("" where nothing is known).

    The backends that its bundle names as the fastest for prompts and for answers, if the device can use them; else
    `edge-run` chooses. Two may take turns where one is the CPU; of two others that for answers computes everything.
    """
    decode = deployment.decode_backend
    if not decode:
        return {"--backend": "auto"}, ""
    prefill = deployment.prefill_backend or decode
    if "cpu" not in (prefill, decode):
        prefill = decode
    for backend in {prefill: None, decode: None}:
        if refused := refusal(connection, deployment, backend):
            return {"--backend": "auto"}, f"{backend}, which is fastest as its bundle says, cannot be used: {refused}"
    if prefill == decode:
        return {"--backend": decode}, f"{decode} is fastest, as its bundle says"
    options = {"--backend": prefill, "--decode-backend": decode}
    return options, f"{prefill} for prompts and {decode} for answers are fastest, as its bundle says"
