"""Pictures whose edges meet ("Tiling"): convolutions that look across an edge see the opposite one instead of zeros.

Nothing else in a U-Net or a VAE knows where an edge is, so shifting the noise around the edges shifts the picture.
"""

from __future__ import annotations

import torch


def set_wrapping(module: torch.nn.Module, wraps: bool) -> None:
    """Let the convolutions of `module` wrap around, or pad with zeros as they were built. Costs little; every pass and every decoding says which."""
    for layer in module.modules():
        if isinstance(layer, torch.nn.Conv2d) and layer.padding != (0, 0):
            layer.padding_mode = "circular" if wraps else "zeros"
