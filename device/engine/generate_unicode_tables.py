"""Writes unicode_tables.h: character classes for the pre-tokenizers and the data of Unicode NFC.

The tables must agree with the Hugging Face `tokenizers` library, whose parts follow different Unicode versions (its NFC
is older than its regular expressions, and those are older than its digit test). So the library itself is asked about
every code point.

    python device/engine/generate_unicode_tables.py      (needs `tokenizers`; writes beside this file)
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path

import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers

CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
HANGUL = range(0xAC00, 0xD7A4)
LETTER, NUMBER, SPACE, DIGIT_FLAG = 1, 2, 3, 4
NFC, NFD = normalizers.NFC(), normalizers.NFD()

HEADER = """\
// Written by generate_unicode_tables.py from tokenizers {version}; do not edit.
// Over 500 lines because it is data: nothing in it is read or changed by hand.
#pragma once
#include <cstdint>

namespace edge {{
"""


def matching(pattern: str) -> set[int]:
    """Code points that the library's regular expressions match with `pattern`, which must not match U+0000."""
    split = pre_tokenizers.Split(Regex(f"(?!{pattern})(?m:.|\\n)"), "removed")
    found: set[int] = set()
    for begin in range(0, len(CODE_POINTS), 8192):
        text = "\0".join(map(chr, CODE_POINTS[begin : begin + 8192]))
        for piece, _ in split.pre_tokenize_str(text):
            found.update(map(ord, piece))
    return found


def individual_digits() -> set[int]:
    """Code points that the library's `Digits` step splits off."""
    digits = pre_tokenizers.Digits(individual_digits=True)
    return {c for c in CODE_POINTS if len(digits.pre_tokenize_str(f"a{chr(c)}a")) == 3}


def character_classes() -> list[int]:
    """Class of each code point, surrogates included: LETTER, NUMBER, SPACE or 0, and DIGIT_FLAG."""
    classes = [0] * 0x110000
    for pattern, value in ((r"\p{L}", LETTER), (r"\p{N}", NUMBER), (r"\s", SPACE)):
        for c in matching(pattern):
            if classes[c]:
                raise ValueError(f"U+{c:04X} is in two classes")
            classes[c] = value
    for c in individual_digits():
        classes[c] |= DIGIT_FLAG
    return classes


def full_decompositions() -> dict[int, str]:
    """Canonical decomposition, to the end, of every code point that has one (Hangul follows from arithmetic)."""
    whole = {c: NFD.normalize_str(chr(c)) for c in CODE_POINTS if c not in HANGUL}
    return {c: text for c, text in whole.items() if text != chr(c)}


def decomposition_pairs(full: dict[int, str]) -> dict[int, tuple[int, int]]:
    """One step of decomposition: (first, second), or (only, 0)."""
    by_text = {text: c for c, text in full.items() if NFC.normalize_str(chr(c)) == chr(c)}
    by_text |= {text: c for c, text in full.items() if text not in by_text}
    pairs = {}
    for c, text in full.items():
        if len(text) == 1:
            pairs[c] = (ord(text), 0)
        else:
            first = ord(text[0]) if len(text) == 2 else by_text[text[:-1]]
            pairs[c] = (first, ord(text[-1]))
    return pairs


def combining_classes(full: dict[int, str]) -> list[int]:
    """Canonical combining class of each code point, found by watching which marks it is moved across."""
    highest = "\u0345"
    marks = {unicodedata.combining(highest): highest}
    for c in CODE_POINTS:  # the library does not move every mark that Unicode moves; those cannot serve as a measure
        if c not in full and NFD.normalize_str(f"a{highest}{chr(c)}") == f"a{chr(c)}{highest}":
            marks.setdefault(unicodedata.combining(chr(c)), chr(c))
    values = sorted(k for k in marks if k)

    def moves_before(c: int, mark: str) -> bool:
        return chr(c) != mark and NFD.normalize_str(f"a{mark}{chr(c)}") == f"a{chr(c)}{mark}"

    def moves_behind(c: int, mark: str) -> bool:
        return chr(c) != mark and NFD.normalize_str(f"a{chr(c)}{mark}") == f"a{mark}{chr(c)}"

    classes = [0] * 0x110000
    for c in CODE_POINTS:
        if c in full or c in HANGUL:
            continue
        if moves_before(c, highest) or moves_behind(c, marks[values[0]]):
            classes[c] = next((v for v in values if not moves_behind(c, marks[v])), values[-1])
    return classes


def boundaries(classes: list[int], shift: int) -> list[int]:
    """Run-length form: (first code point of a run) << shift | class."""
    return [c << shift | classes[c] for c in range(0x110000) if c == 0 or classes[c] != classes[c - 1]]


def composition_order(pairs: dict[int, tuple[int, int]]) -> list[int]:
    """Positions in the sorted decompositions whose pair composes again, ordered by that pair."""
    codes = sorted(pairs)
    composing = [i for i, c in enumerate(codes) if pairs[c][1] and NFC.normalize_str(chr(c)) == chr(c)]
    for i in composing:
        if NFC.normalize_str("".join(map(chr, pairs[codes[i]]))) != chr(codes[i]):
            raise ValueError(f"U+{codes[i]:04X} is not composed from its pair")
    return sorted(composing, key=lambda i: pairs[codes[i]])


def array(comment: str, declaration: str, values: Iterable[int], text: Callable[[int], str]) -> str:
    """A C++ array with lines of at most 118 columns."""
    lines, line = [], "   "
    for value in values:
        item = f" {text(value)},"
        if len(line) + len(item) > 118:
            lines.append(line)
            line = "   "
        line += item
    return "\n".join([f"\n// {comment}", f"inline constexpr {declaration}[] = {{", *lines, line, "};\n"])


def main() -> None:
    """Writes the header beside this file."""
    full = full_decompositions()
    pairs = decomposition_pairs(full)
    packed = [c << 42 | a << 21 | b for c, (a, b) in sorted(pairs.items())]
    parts = [
        HEADER.format(version=tokenizers.__version__),
        array(
            "first code point of a run << 3 | class: 1 letter, 2 number, 3 white space, 0 other; 4 more: a split digit",
            "uint32_t kCharacterClasses",
            boundaries(character_classes(), 3),
            hex,
        ),
        array(
            "first code point of a run << 8 | canonical combining class",
            "uint32_t kCombiningClasses",
            boundaries(combining_classes(full), 8),
            hex,
        ),
        array(
            "code point << 42 | first << 21 | second (0: there is only a first), ascending",
            "uint64_t kDecompositions",
            packed,
            hex,
        ),
        array(
            "indices into kDecompositions of those that compose again, by (first, second)",
            "uint16_t kCompositions",
            composition_order(pairs),
            str,
        ),
        "\n}  // namespace edge\n",
    ]
    Path(__file__).with_name("unicode_tables.h").write_text("".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
