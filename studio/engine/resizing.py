"""Pictures of one shape in another, as A1111's resize modes do it. Sizes are (width, height) in pixels."""

from __future__ import annotations

from PIL import Image

from studio.schema.source import ResizeMode

Size = tuple[int, int]


def resized(picture: Image.Image, size: Size, mode: ResizeMode) -> Image.Image:
    """`picture` at `size`: stretched, or covering it with the rest cut off, or whole with its edges drawn out.

    The latent upscale stretches what needs pixels all the same; its latents are another matter.
    """
    if mode == "Crop and resize":
        return _cropped(picture, size)
    if mode == "Resize and fill":
        return _filled(picture, size)
    return picture.resize(size, Image.Resampling.LANCZOS)


def _cropped(picture: Image.Image, size: Size) -> Image.Image:
    width, height = size
    wider = width / height > picture.width / picture.height
    whole = (
        (width, picture.height * width // picture.width)
        if wider
        else (picture.width * height // picture.height, height)
    )
    left, top = width // 2 - whole[0] // 2, height // 2 - whole[1] // 2
    result = Image.new(picture.mode, size)
    result.paste(picture.resize(whole, Image.Resampling.LANCZOS), (left, top))
    return result


def _filled(picture: Image.Image, size: Size) -> Image.Image:
    width, height = size
    narrower = width / height < picture.width / picture.height
    whole = (
        (width, picture.height * width // picture.width)
        if narrower
        else (picture.width * height // picture.height, height)
    )
    whole = (max(whole[0], 1), max(whole[1], 1))
    inner = picture.resize(whole, Image.Resampling.LANCZOS)
    left, top = width // 2 - whole[0] // 2, height // 2 - whole[1] // 2
    result = Image.new(picture.mode, size)
    result.paste(inner, (left, top))
    for edge, place in _edges(inner, (left, top), size):
        if place[2] > place[0] and place[3] > place[1]:
            result.paste(edge.resize((place[2] - place[0], place[3] - place[1])), place[:2])
    return result


def _edges(
    inner: Image.Image, corner: tuple[int, int], size: Size
) -> list[tuple[Image.Image, tuple[int, int, int, int]]]:
    """The outermost rows (or columns) of `inner`, whose `corner` lies at that place, and the boxes they are drawn out over."""
    (left, top), (width, height) = corner, size
    right, bottom = left + inner.width, top + inner.height
    if inner.width >= width:
        return [
            (inner.crop((0, 0, inner.width, 1)), (0, 0, width, top)),
            (inner.crop((0, inner.height - 1, inner.width, inner.height)), (0, bottom, width, height)),
        ]
    return [
        (inner.crop((0, 0, 1, inner.height)), (0, 0, left, height)),
        (inner.crop((inner.width - 1, 0, inner.width, inner.height)), (right, 0, width, height)),
    ]
