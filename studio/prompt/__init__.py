"""Prompt text to structure: pure functions, no models, no torch.

One file for each part of the language, in the order they are applied:

    networks    `<lora:name:0.8>` tags, taken out of the text
    weights     `(word:1.2)`, `[word]`, BREAK -> (text, weight) pairs
    tokenizer   CLIP's byte-pair encoding, text -> ids
    chunks      ids -> chunks of 75 between start and end, as the text encoder takes them; counting
"""

from studio.prompt.chunks import Chunk, Tokenizer, chunk_prompt, count_tokens
from studio.prompt.networks import NetworkTag, extract_networks, lora_rank, lora_weights
from studio.prompt.tokenizer import ClipTokenizer
from studio.prompt.weights import parse_weights

__all__ = [
    "Chunk",
    "ClipTokenizer",
    "NetworkTag",
    "Tokenizer",
    "chunk_prompt",
    "count_tokens",
    "extract_networks",
    "lora_rank",
    "lora_weights",
    "parse_weights",
]
