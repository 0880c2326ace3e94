"""The compiler: from a checkpoint to one elastic artifact. `build.py` is the place to start reading."""
