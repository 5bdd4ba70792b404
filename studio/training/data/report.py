"""What is shown of a data set before anything starts: counts, sizes, captions, and what a run over it takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from statistics import median

from studio.prompt.tokenizer import shipped_tokenizer
from studio.schema.training_data import (
    CaptionEntry,
    CaptionPage,
    DatasetReport,
    DatasetSettings,
    Duplicates,
    Expectation,
    SizeCount,
    TokenLengths,
)
from studio.training.data.dataset import Dataset, Item
from studio.training.data.prepare import target_size, with_trigger

SHOWN = 100
"""Entries of each list; what is beyond is counted."""
LATENT_CHANNELS, LATENT_SCALE = 4, 8
"""Of SD 1.x, 2.x, XL and sprout: a latent has 4 channels and an eighth of the side."""
TEXT_POSITIONS, TEXT_WIDTH = 77, 768
"""Of SD 1.x's text embedding; the others' are of the same order."""
VALUE_BYTES = 4


def describe(
    dataset: Dataset,
    settings: DatasetSettings,
    *,
    epochs: int = 1,
    batch: int = 1,
    seconds_per_step: float | None = None,
) -> DatasetReport:
    """The report on ``dataset``; ``seconds_per_step`` as measured, if it was."""
    sizes = Counter(item.size for item in dataset.items)
    targets = Counter(target_size(item.size, settings) for item in dataset.items)
    captions = {caption for item in dataset.items for caption in item.captions}
    missing = [item.name for item in dataset.items if item.captions == ("",)]
    copies = _duplicates(dataset.items)
    return DatasetReport(
        path=str(dataset.root),
        format=dataset.format,
        digest=dataset.digest,
        pictures=len(dataset.items),
        captions=len(captions - {""}),
        problems=dataset.problems[:SHOWN],
        problem_count=len(dataset.problems),
        notes=dataset.notes,
        sizes=_counts(sizes),
        size_count=len(sizes),
        buckets=_counts(targets),
        enlarged=sum(_is_enlarged(item, settings) for item in dataset.items),
        tokens=token_lengths(captions, settings.trigger),
        without_caption=tuple(missing[:SHOWN]),
        without_caption_count=len(missing),
        duplicates=copies[:SHOWN],
        duplicate_count=len(dataset.items) - len({item.key for item in dataset.items}),
        expectation=expect(dataset, settings, epochs=epochs, batch=batch, seconds_per_step=seconds_per_step),
    )


def expect(
    dataset: Dataset, settings: DatasetSettings, *, epochs: int, batch: int, seconds_per_step: float | None = None
) -> Expectation:
    """Steps, time and memory of a run of ``epochs`` over the data set in batches of ``batch``.

    With buckets a batch holds pictures of one size, so each bucket is filled up by itself in every epoch.
    """
    draws: Counter[tuple[int, int]] = Counter()
    for item in dataset.items:
        draws[target_size(item.size, settings)] += item.repeats
    samples = sum(draws.values())
    steps = epochs * sum(-(-count // batch) for count in draws.values())
    return Expectation(
        epochs=epochs,
        batch=batch,
        samples=samples,
        steps=steps,
        seconds=None if seconds_per_step is None else steps * seconds_per_step,
        cache_bytes=_cache_bytes(dataset, settings),
    )


def token_lengths(captions: Iterable[str], trigger: str = "") -> TokenLengths:
    """Lengths of captions as they are trained on, in CLIP tokens."""
    lengths = [count_tokens(caption, trigger) for caption in captions] or [0]
    return TokenLengths(
        shortest=min(lengths),
        median=float(median(lengths)),
        longest=max(lengths),
        over_75=sum(length > 75 for length in lengths),
    )


def count_tokens(caption: str, trigger: str = "") -> int:
    """CLIP tokens of one caption with its trigger word."""
    return len(shipped_tokenizer().encode(with_trigger(caption, trigger)))


def caption_page(dataset: Dataset, settings: DatasetSettings, offset: int, limit: int) -> CaptionPage:
    """The captions of ``limit`` pictures from ``offset`` on, in the order of the data set."""
    entries = tuple(
        CaptionEntry(
            name=item.name,
            key=item.key,
            captions=tuple(caption for caption in item.captions if caption),
            tokens=max(count_tokens(caption, settings.trigger) for caption in item.captions),
            width=item.size[0],
            height=item.size[1],
        )
        for item in dataset.items[offset : offset + limit]
    )
    return CaptionPage(total=len(dataset.items), offset=offset, entries=entries)


def _counts(sizes: Counter[tuple[int, int]]) -> tuple[SizeCount, ...]:
    ordered = sorted(sizes.items(), key=lambda pair: (-pair[1], pair[0]))
    return tuple(SizeCount(width=width, height=height, count=count) for (width, height), count in ordered[:SHOWN])


def _is_enlarged(item: Item, settings: DatasetSettings) -> bool:
    width, height = target_size(item.size, settings)
    return item.size[0] < width or item.size[1] < height


def _duplicates(items: Iterable[Item]) -> tuple[Duplicates, ...]:
    by_key: dict[str, list[str]] = {}
    for item in items:
        by_key.setdefault(item.key, []).append(item.name)
    return tuple(Duplicates(key=key, names=tuple(names[:SHOWN])) for key, names in by_key.items() if len(names) > 1)


def _cache_bytes(dataset: Dataset, settings: DatasetSettings) -> int:
    """Latents by picture (and mirror image) and size, one embedding a wording; wordings that are shuffled are not kept."""
    pictures = {(item.key, target_size(item.size, settings)) for item in dataset.items}
    pixels = sum(width * height for _, (width, height) in pictures)
    latents = pixels // LATENT_SCALE**2 * LATENT_CHANNELS * VALUE_BYTES * (2 if settings.flip else 1)
    wordings = set() if settings.shuffle else {text for item in dataset.items for text in item.captions}
    return latents + (len(wordings) + 1) * TEXT_POSITIONS * TEXT_WIDTH * VALUE_BYTES
