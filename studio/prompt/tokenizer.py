"""CLIP's byte-pair encoding, the one all Stable Diffusion 1.x, 2.x and XL text encoders share.

Lower-cased text is split into words, numerals and punctuation, each written in bytes and merged by rank (Sennrich et al.
2016, arXiv:1508.07909; vocabulary of Radford et al. 2021, arXiv:2103.00020). Built on the `tokenizers` library, which is
loaded when the first text is encoded: no transformers, no torch. The ids equal those of transformers 5. Older tools
repaired the text with ftfy first; curly quotes, ligatures and HTML entities give other ids there.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tokenizers import Tokenizer

VOCABULARY = Path(__file__).resolve().parent.parent / "families" / "data" / "clip_tokenizer"
BOS = 49406
"""<|startoftext|>"""
EOS = 49407
"""<|endoftext|>"""
COMMA = 267
"""A comma that ends a word."""

_SPECIAL = ("<|startoftext|>", "<|endoftext|>")
_WORD_END = "</w>"
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class Piece(NamedTuple):
    """What a token stands for: its letters, lower-case as the vocabulary has them, and whether a word ends with it.

    Of tokens that are only some bytes of a character the first gives the whole character, the others nothing.
    """

    text: str
    ends_word: bool


class ClipTokenizer:
    """Text to ids. Safe to share between threads.

    `folder` holds `vocab.json` and `merges.txt`; the shipped CLIP vocabulary by default.
    """

    def __init__(self, folder: Path = VOCABULARY) -> None:
        self._folder = folder

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, without start and end. `<|startoftext|>` and `<|endoftext|>` in the text become those tokens."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def pieces(self, text: str) -> Iterator[Piece]:
        """What each of the tokens of `encode(text)` stands for, in the same order."""
        from tokenizers.decoders import ByteLevel

        letters, told = ByteLevel(), 0
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        for token, (start, end) in zip(encoding.tokens, encoding.offsets, strict=True):
            bare = token.removesuffix(_WORD_END)
            shown = letters.decode([bare])
            if "\ufffd" in shown:
                shown = text[max(start, told) : end]
            told = end
            yield Piece(shown, bare != token or token in _SPECIAL)

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers
        from tokenizers.models import BPE

        model = BPE.from_file(
            str(self._folder / "vocab.json"),
            str(self._folder / "merges.txt"),
            continuing_subword_prefix="",
            end_of_word_suffix=_WORD_END,
            unk_token="<|endoftext|>",
        )
        tokenizer = Tokenizer(model)
        spaces = normalizers.Replace(Regex(r"\s+"), " ")
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), spaces, normalizers.Lowercase()])
        words = pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        tokenizer.add_special_tokens([AddedToken(token, special=True) for token in _SPECIAL])
        return tokenizer


@cache
def shipped_tokenizer() -> ClipTokenizer:
    """The tokenizer with CLIP's own vocabulary, one for the whole process."""
    return ClipTokenizer()
