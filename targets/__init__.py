"""Device profiles: what a target machine is, as data (`profiles/*.toml`)."""

from __future__ import annotations

from edgesdk.targets.profile import Profile, load_profile, profile_names

__all__ = ["Profile", "load_profile", "profile_names"]
