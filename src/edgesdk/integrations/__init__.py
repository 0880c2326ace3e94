"""Adapters to tools of others, one module each; every one is an extra and is imported by its full name."""
