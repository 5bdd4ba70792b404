"""Whether prompt and negative prompt have different numbers of chunks, which is when padding one of them makes a difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from studio.prompt.chunks import chunk_prompt
from studio.prompt.embeddings import EmbeddingNames
from studio.prompt.schedule import active_stretch
from studio.prompt.tokenizer import shipped_tokenizer
from studio.schema.resolved import PromptBranch


def lengths_differ(
    positive: Sequence[PromptBranch], negative: PromptBranch, vectors: Mapping[str, int] | None = None
) -> bool:
    """Whether at some model call the longest of `positive` has more or fewer chunks than `negative`.

    `vectors` is how many tokens each embedding takes that they may name.
    """
    names, tokenizer = EmbeddingNames(vectors or {}), shipped_tokenizer()
    branches = (*positive, negative)
    counts = [[len(chunk_prompt(text, tokenizer, embeddings=names)) for text in branch.texts] for branch in branches]
    for call in {end for branch in branches for end, _ in branch.stretches}:
        *longest, own = (
            count[branch.stretches[active_stretch([end for end, _ in branch.stretches], call)][1]]
            for branch, count in zip(branches, counts, strict=True)
        )
        if max(longest) != own:
            return True
    return False
