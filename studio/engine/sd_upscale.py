"""A picture enlarged and painted tile by tile (A1111's script SD upscale): passes over its tiles, put together again.

The first tile has the picture's seed and each further one the next, as in A1111 with one tile at a time. How many are painted at once changes nothing
but the time, as for pictures; A1111 begins anew with each batch, so that its pictures cannot be painted again without knowing how large they were.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from PIL import Image
from torch import Tensor

from studio.engine.enlarging import Enlarging, Work, enlarged_picture
from studio.engine.loaded import LoadedCheckpoint
from studio.engine.passes import DenoisingPass
from studio.engine.preview import JPEG_QUALITY, preview_size
from studio.engine.tiles import Box, Patchwork
from studio.engine.upscale import Load
from studio.library.init_images import open_init_image
from studio.samplers.types import Step
from studio.schema.parts import MAX_SEED
from studio.schema.resolved import ResolvedRequest

Make = Callable[[Sequence[Image.Image]], DenoisingPass]
"""A pass over tiles, which it begins with."""
Decode = Callable[[Tensor, LoadedCheckpoint], Image.Image]
"""The picture of finished latents [C, h, w] of a checkpoint."""


def enlarged_source(resolved: ResolvedRequest, load: Load) -> Work[Image.Image]:
    """The picture that the job begins with, as large as it is to be; a model is applied once at least. `load` gives it."""
    plan, source = resolved.sd_upscale, resolved.source
    assert plan is not None and source is not None
    picture = open_init_image(source.image).convert("RGB")
    model = load(plan.upscaler_model) if plan.upscaler_model else None
    return enlarged_picture(picture, (plan.width, plan.height), plan.upscaler, model, at_least_once=True)


class TiledPasses:
    """Stands for `DenoisingPass` in a job that is painted in tiles; a batch of its is one picture.

    Args:
        resolved: the job; it has the part `sd_upscale`.
        enlarge: gives the picture to be cut; called once, for all pictures of the job.
        make: makes the pass over the tiles of a batch, when its turn comes.
        decode: makes a picture of a tile's latents.
    """

    def __init__(
        self, resolved: ResolvedRequest, enlarge: Callable[[], Work[Image.Image]], make: Make, decode: Decode
    ) -> None:
        plan = resolved.sd_upscale
        assert plan is not None
        self._plan, self._resolved = plan, resolved
        self._enlarge, self._make, self._decode = enlarge, make, decode
        self._boxes = self._fresh().boxes
        self._size = resolved.batch_size
        self._large: Image.Image | None = None
        self._in_use: DenoisingPass | None = None
        self._begins: list[int] = []
        self._preview = Image.new("RGB", preview_size(plan.width, plan.height))
        self.picture: Image.Image | None = None
        """The last picture, when all of its steps are done."""

    @property
    def total(self) -> int:
        """Steps over all tiles of a picture; an estimate where samplers choose their own."""
        assert self._in_use is not None
        left = -(-len(self._boxes) // self._size) - len(self._begins)
        return self._begins[-1] + (left + 1) * self._in_use.total

    @property
    def painter(self) -> LoadedCheckpoint:
        """See `DenoisingPass`."""
        assert self._in_use is not None
        return self._in_use.painter

    def steps(self, seeds: Sequence[int], subseeds: Sequence[int] = ()) -> Iterator[Step | Enlarging]:
        """The steps of one picture over all of its tiles, counted through, with its one seed and variation seed; and how far enlarging is."""
        large = self._large = self._large or (yield from self._enlarge())
        self._preview = large.resize(self._preview.size, Image.Resampling.BILINEAR)
        pieces, done, self._begins, self.picture = self._fresh(), 0, [], None
        for number in range(0, len(self._boxes), self._size):
            boxes = self._boxes[number : number + self._size]
            current = self._in_use = self._make([large.crop(box) for box in boxes])
            self._begins.append(done)
            last: Step | None = None
            for last in current.steps(*self._seeds(seeds, subseeds, number, len(boxes))):
                yield replace(last, index=last.index + self._begins[-1])
            assert last is not None, "a plan has at least one step"
            done += last.index + 1
            for box, latents in zip(boxes, current.settled(last.x), strict=True):
                tile = self._decode(latents, current.painter)
                pieces.add(tile)
                self._paste(self._preview, tile, box)
        self.picture = pieces.picture

    def preview(self, index: int, tiles: Sequence[Image.Image]) -> bytes:
        """A JPEG of the whole picture at step `index`, with what its batch of tiles looks like there; these may be of any size."""
        batch = max(bisect_right(self._begins, index) - 1, 0)
        shown = self._preview.copy()
        for box, tile in zip(self._boxes[batch * self._size :], tiles, strict=False):
            self._paste(shown, tile, box)
        buffer = io.BytesIO()
        shown.save(buffer, "JPEG", quality=JPEG_QUALITY)
        return buffer.getvalue()

    @staticmethod
    def _seeds(seeds: Sequence[int], subseeds: Sequence[int], first: int, count: int) -> tuple[list[int], list[int]]:
        """Those of `count` tiles from tile `first` on. The variation seed is the same for all."""
        return [(seeds[0] + first + i) % (MAX_SEED + 1) for i in range(count)], list(subseeds) * count

    def _fresh(self) -> Patchwork:
        return Patchwork((self._plan.width, self._plan.height), self._plan.tile, self._plan.overlap)

    def _paste(self, whole: Image.Image, tile: Image.Image, box: Box) -> None:
        """Into a preview, the tile made as small."""
        across, down = whole.width / self._plan.width, whole.height / self._plan.height
        left, top, right, bottom = (round(side * scale) for side, scale in zip(box, (across, down) * 2, strict=True))
        size = (max(right - left, 1), max(bottom - top, 1))
        whole.paste(tile.resize(size, Image.Resampling.BILINEAR), (left, top))
