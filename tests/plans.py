"""Prompts that say the same at every step, taken apart by hand."""

from __future__ import annotations

from studio.schema.resolved import PromptBranch, PromptPlan


def prompt_plan(text: str, *parts: tuple[str, float]) -> PromptPlan:
    """One branch with one wording: `parts`, or `text` at weight 1."""
    return PromptPlan(text=text, branches=(PromptBranch(texts=(parts or ((text, 1.0),),)),))
