"""Writes the files of tests/hostile.py into a fuzzer's corpus: python tests/fuzz/hostile_seeds.py FOLDER."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hostile import CASES, SSM_CASES, TOKENIZER_CASES
from tiny_model import nested_ladder, tiny_config, tiny_ssm_config, write_random_artifact


def main() -> None:
    """The good files, and every hostile one made from them."""
    folder = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as temporary:
        for name, config, cases in (
            ("attention", tiny_config(), CASES + TOKENIZER_CASES),
            ("ssm", tiny_ssm_config(), SSM_CASES),
        ):
            path = Path(temporary) / name
            write_random_artifact(path, config, nested_ladder(config))
            good = path.read_bytes()
            (folder / f"good-{name}").write_bytes(good)
            for case in cases:
                (folder / f"hostile-{name}-{case.name.replace(' ', '-')}").write_bytes(case.make(good))


if __name__ == "__main__":
    main()
