"""Target machines: profiles as data (`profiles/*.toml`), and bundles of what an app or a board needs to run."""

from __future__ import annotations

from edgesdk.targets.profile import Profile, load_profile, load_profiles, profile_names

__all__ = ["Profile", "load_profile", "load_profiles", "profile_names"]
