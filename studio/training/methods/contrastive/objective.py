"""The contrastive loss: every picture is to pick its caption, every caption its picture."""

from __future__ import annotations

import torch
import torch.nn.functional as functional


def contrastive_loss(
    pictures: torch.Tensor, captions: torch.Tensor, wrong: torch.Tensor, same: torch.Tensor, scale: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Symmetric InfoNCE (Radford et al. 2021, arXiv:2103.00020, figure 3) with hard negatives, and the share of pictures that pick rightly.

    ``pictures`` and ``captions`` (n, d) are unit vectors, row i of one belonging to row i of the other; ``wrong`` (n, d) holds for each
    picture a caption more, which it alone must tell from its own (after Yuksekgonul et al. 2023, arXiv:2210.01936); ``same`` (n, n) says which
    captions tell the same as caption i: they are no mistakes and take no part in its choice; ``scale`` multiplies the cosines.
    Guessing costs (log n + log(n + 1)) / 2.
    """
    own = torch.eye(len(pictures), dtype=torch.bool, device=pictures.device)
    logits = (scale * pictures @ captions.T).masked_fill(same & ~own, -torch.inf)
    against = scale * (pictures * wrong).sum(dim=1, keepdim=True)
    choices = torch.cat([logits, against], dim=1)
    labels = torch.arange(len(pictures), device=pictures.device)
    loss = (functional.cross_entropy(choices, labels) + functional.cross_entropy(logits.T, labels)) / 2
    return loss, (choices.argmax(dim=1) == labels).float().mean()
