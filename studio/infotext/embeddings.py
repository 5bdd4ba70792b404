"""Embeddings by their hash: a picture's word finds the local file even if that has another name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from studio.infotext.loras import index_hashes, local_name
from studio.prompt.networks import outside_networks

_SIGNS = re.compile(r"([\\()\[\]])")
_ESCAPED = re.compile(r"\\([\\()\[\]])")
_MAX_WORD = 200
_SHOWN = 12


def with_embeddings(
    prompts: tuple[str, str], named: Mapping[str, str], local: Mapping[str, str]
) -> tuple[tuple[str, str], list[str]]:
    """`prompts` with the words of embeddings that have another name here replaced by that name, and notes for the user.

    `named` is word -> hash of those that a text names, `local` word -> short hash of those that are here; a hash that is not known is "".
    """
    known = index_hashes({short_hash: word for word, short_hash in local.items() if short_hash})
    here = {_without_separators(word): short_hash for word, short_hash in local.items()}
    changes: dict[str, str] = {}
    missing: list[str] = []
    for word, digits in named.items():
        own = here.get(_without_separators(word))
        target = local_name(digits, known) if digits else None
        if own and digits and (own.startswith(digits) or digits.startswith(own)):
            continue
        if target is not None and len(word) <= _MAX_WORD:
            changes[_key(word)] = target
        elif own is None:
            missing.append(f"{word[:_MAX_WORD]} {digits}".strip())
    first, second = (_replaced(prompt, changes) for prompt in prompts)
    notes = ["Embeddings were pointed at local files with the same hash."] if (first, second) != prompts else []
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        notes.append(
            f"Embeddings (TI hashes) that are not here, so that their names are ordinary words: {'; '.join(missing[:_SHOWN])}{more}."
        )
    return (first, second), notes


def in_prompt(word: str) -> str:
    """`word` as it is written in a prompt, where brackets weigh."""
    return _SIGNS.sub(r"\\\1", word)


def _replaced(prompt: str, changes: Mapping[str, str]) -> str:
    if not changes:
        return prompt
    pattern = re.compile("|".join(_patterns(changes)), re.IGNORECASE)
    return outside_networks(
        prompt, lambda text: pattern.sub(lambda found: in_prompt(changes[_key(_ESCAPED.sub(r"\1", found[0]))]), text)
    )


def _patterns(words: Iterable[str]) -> Iterable[str]:
    """For each word a pattern of it in a prompt, as a whole word, its brackets escaped or not; the longest first."""
    for word in sorted(words, key=len, reverse=True):
        inner = r"\s+".join(
            "".join(rf"\\?{re.escape(sign)}" if _SIGNS.match(sign) else re.escape(sign) for sign in part)
            for part in word.split()
        )
        before = r"(?<!\w)" if re.match(r"\w", word) else ""
        after = r"(?!\w)" if re.search(r"\w\Z", word) else ""
        yield f"{before}{inner}{after}"


def _key(word: str) -> str:
    """Equal for what a prompt does not tell apart."""
    return " ".join(word.split()).lower()


def _without_separators(word: str) -> str:
    """As a list of hashes shows it, whatever the case."""
    return _key(word.replace(":", "").replace(",", ""))
