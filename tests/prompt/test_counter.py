"""The counter of prompts that read otherwise from step to step."""

from __future__ import annotations

import pytest

from studio.prompt import count_longest, count_tokens, shipped_tokenizer


@pytest.mark.parametrize(
    "prompt",
    [
        "a very small red fox",
        "a [very small red:blue:0.5] fox",
        "a fox AND a very small red fox AND snow :0.5",
        "[a|a very small red] fox",
        "a very small red fox <lora:a very long name that is no token:0.5>",
    ],
)
def test_the_longest_wording_counts(prompt: str) -> None:
    clip = shipped_tokenizer()
    assert count_longest(prompt, clip) == count_tokens("a very small red fox", clip) == (5, 75)
