"""Puts a bundle on a device so that `edge-run` runs there, and finds it again."""

from __future__ import annotations

from edgesdk.targets.deploy.backends import fastest_backends, refusal
from edgesdk.targets.deploy.bundle import Bundle, read_bundle
from edgesdk.targets.deploy.deploy import Deployed, deploy
from edgesdk.targets.deploy.deployment import Deployment, error_and_hint, find_deployment

__all__ = [
    "Bundle",
    "Deployed",
    "Deployment",
    "deploy",
    "error_and_hint",
    "fastest_backends",
    "find_deployment",
    "read_bundle",
    "refusal",
]
