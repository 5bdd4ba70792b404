"""Emphasis: what the weight in `(word:1.2)` does to the text encoder's hidden states."""

from __future__ import annotations

from torch import Tensor

from studio.schema.request import Emphasis


def apply_emphasis(mode: Emphasis, states: Tensor, weights: Tensor) -> Tensor:
    """Hidden states [N, 77, D] after weighting by `weights` [N, 77]; float32 where they were changed.

    - "Original": multiply each token's vector, then rescale the whole tensor so that its mean is the old one (A1111).
    - "No norm": multiply only; steadier where the mean is close to zero, as it is for SDXL.
    - "Ignore", "None": unchanged. (With "None" the brackets were literal text, so there are no weights either.)
    """
    if mode in ("Ignore", "None"):
        return states
    full = states.float()
    weighted = full * weights.to(full)[..., None]
    if mode == "No norm":
        return weighted
    scale = full.mean() / weighted.mean()
    return weighted * scale.where(scale.isfinite(), 1.0)
