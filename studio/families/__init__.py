"""Model families: what a file or folder is, which configuration it has, how its keys are named. No torch.

A family is one file (`sd1.py`, `sd2.py`, `sdxl.py`, `sdxl_refiner.py`) and a row in `table.py`.
"""

from __future__ import annotations

from studio.families.embedding_signature import EmbeddingSignature, describe_embedding
from studio.families.folder import describe_folder, folder_weight_files, is_model_folder, is_network_folder
from studio.families.hypernetwork_signature import HypernetworkSignature, describe_hypernetwork
from studio.families.lora_signature import LoraSignature, describe_lora
from studio.families.signature import CheckpointSignature, describe_checkpoint
from studio.families.spec import EncoderSpec, FamilySpec, PreviewFactors
from studio.families.table import FAMILIES, family

__all__ = [
    "FAMILIES",
    "CheckpointSignature",
    "EmbeddingSignature",
    "EncoderSpec",
    "FamilySpec",
    "HypernetworkSignature",
    "LoraSignature",
    "PreviewFactors",
    "describe_checkpoint",
    "describe_embedding",
    "describe_folder",
    "describe_hypernetwork",
    "describe_lora",
    "family",
    "folder_weight_files",
    "is_model_folder",
    "is_network_folder",
]
