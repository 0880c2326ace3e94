"""Runs llama.cpp's own converter on a checkpoint that has the demo model's tokenizer, whatever its family's own is.

    python benchmarks/peer_convert.py TREE FOLDER OUT.gguf

TREE: of llama.cpp (peer.py). The converter knows tokenizers by hashes and asks some families for SentencePiece files;
that is replaced here, and how Nemotron-H's configuration is read: transformers would add experts to it, which NVIDIA's
files have not. A process of its own: it imports the tree's gguf package, not the installed one.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

__all__: list[str] = []


def _pre_tokenizer(model: object, tokenizer: object) -> str:
    """What the hash would say; it is a method of the converter's."""
    return "smollm"


def main() -> None:
    """Converts to the checkpoint's own 16 bits."""
    tree, folder, out = map(Path, sys.argv[1:])
    sys.path[:0] = [str(tree), str(tree / "gguf-py")]
    converter = importlib.import_module("convert_hf_to_gguf")
    package = importlib.import_module("conversion")
    load_hparams = package.ModelBase.load_hparams

    def as_written(folder: Path, is_mistral_format: bool) -> Any:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        return config if "hybrid_override_pattern" in config else load_hparams(folder, is_mistral_format)

    package.ModelBase.load_hparams = staticmethod(as_written)
    model = package.TextModel
    model.get_vocab_base_pre = _pre_tokenizer
    model._set_vocab_sentencepiece = model._set_vocab_gpt2
    importlib.import_module("conversion.phi").Phi3MiniModel.set_vocab = model._set_vocab_gpt2
    # The name: where a Phi-3 is called one, llama.cpp looks for the tokens of its own tokenizer.
    sys.argv = [
        "convert_hf_to_gguf.py",
        str(folder),
        "--outfile",
        str(out),
        "--outtype",
        "bf16",
        "--model-name",
        "random",
    ]
    converter.main()


if __name__ == "__main__":
    main()
