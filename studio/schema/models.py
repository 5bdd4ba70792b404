"""What the library knows about a model file or folder. Facts only: reading them needs no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Family = Literal["sd1", "sd2", "sdxl", "sdxl_refiner", "unknown"]
ModelKind = Literal["checkpoint", "lora", "vae", "embedding", "hypernetwork", "text_encoder", "upscaler"]
Layout = Literal["file", "folder"]
PredictionType = Literal["epsilon", "v_prediction"]


class ModelInfo(BaseModel):
    """One entry of the library.

    `sha256` and the short hashes are empty until the background hasher has read the file: a hash is never invented.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: ModelKind
    name: str = Field(
        description="File stem or folder name; for models in sub-folders with the relative path, '/' separated"
    )
    path: str = Field(description="Absolute path of the file or folder")
    layout: Layout
    family: Family
    size: int = Field(description="Bytes; for folders the sum of the weights")
    mtime: float = Field(description="Modification time, seconds since the epoch")
    sha256: str | None = None
    short_hash: str | None = Field(
        None,
        description="10 hex digits for checkpoints, VAEs and text encoders, 12 for LoRAs and embeddings, as A1111 shows them",
    )
    model_id: str | None = Field(
        None, description="For diffusers folders, which have no A1111 hash: 12 hex over the weight files"
    )
    native_size: int = Field(512, description="Pixels per side the model was trained at")
    prediction_type: PredictionType = "epsilon"
    inpaint: bool = False
    edit: bool = Field(False, description="It follows instructions about a picture (instruct-pix2pix)")
    text_widths: tuple[int, ...] = Field(
        (),
        description="Width of the token vectors of each text encoder: what a checkpoint or a text encoder has, what an embedding is for; "
        "empty where the file does not tell",
    )
    vectors: int = Field(0, description="Embedding: how many tokens it takes in a prompt")
    enlarges: int = Field(0, description="Upscaler: how many times larger a picture becomes")
    problem: str | None = Field(None, description="Why the model cannot be used, in one sentence; empty when it can")
    trigger: str = Field("", description="LoRA: trigger words from its metadata")
    alias: str = Field("", description="LoRA: ss_output_name from its metadata")
    preview: str | None = Field(None, description="Absolute path of a preview picture beside the model")
    metadata: dict[str, str] = Field(
        default_factory=dict, description="LoRA: safetensors metadata, untrusted text, size-capped"
    )

    @property
    def title(self) -> str:
        """`name [hash]` once the hash is known, the form A1111 clients send back."""
        return f"{self.name} [{self.short_hash}]" if self.short_hash else self.name

    @property
    def short_title(self) -> str:
        """The same as A1111's infotext has it: of a file without the sub-folder."""
        name = self.name if self.layout == "folder" else self.name.rpartition("/")[2]
        return f"{name} [{self.short_hash}]" if self.short_hash else name
