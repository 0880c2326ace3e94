"""`python -m edgesdk` is the `edgesdk` command."""

from __future__ import annotations

import sys

from edgesdk.cli import main

if __name__ == "__main__":
    sys.exit(main())
