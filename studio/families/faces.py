"""Networks that restore faces, and the one that finds them: which file is which, by the names of its weights. No torch.

| network | from | its file |
|---|---|---|
| GFPGAN (Wang et al., 2021) | https://github.com/TencentARC/GFPGAN | `GFPGANv1.4`, `GFPGANv1.3` |
| CodeFormer (Zhou et al., 2022) | https://github.com/sczhou/CodeFormer | `codeformer` |
| RetinaFace with ResNet-50 (Deng et al., 2020), the detector | https://github.com/xinntao/facexlib | `detection_Resnet50_Final` |

They are published as .pth files. A .safetensors file holds the same weights under the same names; a detector's may all begin with
`module.`, as they do in the published one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import get_args

from studio.families.layout import Source
from studio.schema.faces import FaceArchitecture

DETECTOR = "RetinaFace"
RESTORERS: tuple[FaceArchitecture, ...] = get_args(FaceArchitecture)
PUBLISHED = {
    "CodeFormer": ("codeformer", "https://github.com/sczhou/CodeFormer/releases"),
    "GFPGAN": ("GFPGANv1.4", "https://github.com/TencentARC/GFPGAN/releases"),
    DETECTOR: ("detection_Resnet50_Final", "https://github.com/xinntao/facexlib/releases"),
}
"""Stem of the published file, and where it is."""
WRAPPER = "module."
_MARKS = {
    "CodeFormer": ("position_emb", "quantize.embedding.weight", "idx_pred_layer.1.weight"),
    "GFPGAN": ("conv_body_first.weight", "final_linear.weight", "stylegan_decoder.constant_input.weight"),
    DETECTOR: ("body.layer4.0.conv1.weight", "fpn.output1.0.weight", "LandmarkHead.0.conv1x1.weight"),
}


def face_network(keys: Collection[str]) -> str:
    """Which of `PUBLISHED` has weights of these names; "" for none of them."""
    return next((name for name, marks in _MARKS.items() if set(_own(marks, keys)) <= set(keys)), "")


def face_sources(wanted: Iterable[str], present: Collection[str]) -> dict[str, Source]:
    """Where the weights `wanted` by a network stand in a file that has the names `present`."""
    names = tuple(wanted)
    return {name: Source(key) for name, key in zip(names, _own(names, present), strict=True)}


def unwrapped(name: str) -> str:
    """A weight's name without what training on several cards puts before it."""
    return name.removeprefix(WRAPPER)


def _own(names: Iterable[str], present: Collection[str]) -> list[str]:
    """`names` as a file calls them."""
    return [name if name in present else WRAPPER + name for name in names]
