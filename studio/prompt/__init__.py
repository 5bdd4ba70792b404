"""Prompt text to text and to structure: pure functions, no models, no torch.

One file for each part of the language, in the order they are applied:

    comments    `# ...` to the end of the line, taken out
    styles      named texts merged into the prompt; recognising them in one
    wildcards   `__name__`, `{a|b}`, `{2$$a|b|c}` -> one wording, by the seed
    networks    `<lora:name:0.8>` tags, taken out of the text
    composition `a AND b :0.5` -> parts with weights
    schedule    `[from:to:when]`, `[a|b]` -> what each part reads like over the steps
    weights     `(word:1.2)`, `[word]`, BREAK -> (text, weight) pairs
    embeddings  names of embeddings in tokens
    tokenizer   CLIP's byte-pair encoding, text -> ids
    chunks      ids -> chunks of 75 between start and end, as the text encoder takes them; counting
    lengths     whether prompt and negative prompt have different numbers of chunks
    inspect     all of it written down, for the inspector beside the prompt
"""

from studio.prompt.chunks import Chunk, PlacedEmbedding, Tokenizer, chunk_prompt, count_tokens
from studio.prompt.comments import strip_comments
from studio.prompt.composition import split_composition
from studio.prompt.counter import count_longest
from studio.prompt.embeddings import NO_EMBEDDINGS, EmbeddingNames, NamedEmbedding
from studio.prompt.networks import NetworkTag, extract_networks, lora_rank, lora_weights
from studio.prompt.schedule import Stretch, active_stretch, parse_schedule
from studio.prompt.styles import Style, apply_styles, extract_style, recognise_styles
from studio.prompt.tokenizer import ClipTokenizer, shipped_tokenizer
from studio.prompt.weights import parse_weights
from studio.prompt.wildcards import expand, literal

__all__ = [
    "NO_EMBEDDINGS",
    "Chunk",
    "ClipTokenizer",
    "EmbeddingNames",
    "NamedEmbedding",
    "NetworkTag",
    "PlacedEmbedding",
    "Stretch",
    "Style",
    "Tokenizer",
    "active_stretch",
    "apply_styles",
    "chunk_prompt",
    "count_longest",
    "count_tokens",
    "expand",
    "extract_networks",
    "extract_style",
    "literal",
    "lora_rank",
    "lora_weights",
    "parse_schedule",
    "parse_weights",
    "recognise_styles",
    "shipped_tokenizer",
    "split_composition",
    "strip_comments",
]
