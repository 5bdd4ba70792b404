"""The counter beside a prompt box, for a prompt that is edited over the steps or put together of parts."""

from __future__ import annotations

from studio.prompt.chunks import Tokenizer, count_tokens
from studio.prompt.comments import strip_comments
from studio.prompt.composition import split_composition
from studio.prompt.embeddings import NO_EMBEDDINGS, EmbeddingNames
from studio.prompt.networks import extract_networks
from studio.prompt.schedule import parse_schedule

STEPS = 150
"""Steps over which the wordings are looked for: the most that can be asked for."""


def count_longest(
    text: str, tokenizer: Tokenizer | None = None, embeddings: EmbeddingNames = NO_EMBEDDINGS
) -> tuple[int, int]:
    """`count_tokens` of the longest wording. Raises `InvalidRequest` as it does."""
    clean, _ = extract_networks(strip_comments(text))
    stretches = (stretch for part, _ in split_composition(clean) for stretch in parse_schedule(part, STEPS))
    return max(count_tokens(wording, tokenizer, embeddings) for wording in {stretch.text for stretch in stretches})
