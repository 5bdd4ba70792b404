"""What a single-file checkpoint or VAE is, from the header of its .safetensors file alone.

A header is untrusted text: nothing here raises on odd content. What cannot be painted with has `problem` set, one sentence
for the user.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from studio.families.header import Header, Shapes, metadata, shapes, starts
from studio.families.hypernetwork_signature import looks_like_one
from studio.families.lora_signature import describe_lora
from studio.families.spec import FamilySpec
from studio.families.table import family
from studio.schema.models import Family, PredictionType

Variant = Literal["base", "inpaint", "edit"]
Part = Literal["unet", "vae", "text_encoder", "text_encoder_2"]

UNET_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."
_VARIANT_OF_CHANNELS: dict[int, Variant] = {8: "edit", 9: "inpaint"}
_PLAIN_NAME = re.compile(r"[\w .,+()-]+")
_TOKEN_TABLES = ("embeddings.token_embedding.weight", "token_embedding.weight")

# A key that only files of one foreign architecture have -> what to call it.
_FOREIGN = {
    "joint_blocks.0.context_block.adaLN_modulation.1.weight": "Stable Diffusion 3",
    "double_blocks.0.img_attn.norm.key_norm.scale": "Flux",
    "double_blocks.0.img_attn.qkv.weight": "Flux",
    "down_blocks.0.0.channelwise.0.weight": "Stable Cascade",
    "transformer_blocks.0.attn.norm_added_q.weight": "Qwen-Image",
    "cap_embedder.1.weight": "Lumina",
}
# The same for variants of a known architecture that need another sampler or more inputs.
_VARIANTS_NOT_PAINTED = {
    "edm_mean": "Playground 2.5 (EDM noise levels)",
    "edm_vpred.sigma_max": "CosXL (EDM noise levels)",
    f"{UNET_PREFIX}time_embed.cond_proj.weight": "a U-Net with distilled guidance",
    f"{UNET_PREFIX}time_embedding.cond_proj.weight": "a U-Net with distilled guidance",
}


@dataclass(frozen=True)
class CheckpointSignature:
    """What a file or folder is. `problem` says why it cannot be used for painting, None when it can.

    `prediction_type` is what the file says, else the family's default; `states_prediction` tells which of the two.
    For a VAE the family is "unknown": the families' autoencoders have the same shapes.
    """

    kind: Literal["checkpoint", "vae", "lora", "other"]
    family: Family = "unknown"
    variant: Variant = "base"
    parts: frozenset[Part] = frozenset()
    native_size: int = 512
    prediction_type: PredictionType = "epsilon"
    states_prediction: bool = False
    zero_terminal_snr: bool = False
    text_widths: tuple[int, ...] = ()
    """Width of the token vectors of each text encoder; empty where they are not inside."""
    problem: str | None = None


def describe_checkpoint(header: Header) -> CheckpointSignature:
    """Judge any .safetensors file by the parsed JSON of its header."""
    found, meta = shapes(header), metadata(header)
    if f"{UNET_PREFIX}input_blocks.0.0.weight" in found:
        return _checkpoint(found, meta)
    if vae_prefix(found) is not None:
        return _vae(found)
    lora = describe_lora(header)
    if lora.modules:
        return CheckpointSignature(
            "lora", lora.family, problem="This is a LoRA, not a checkpoint: put it into the loras folder."
        )
    return CheckpointSignature("other", problem=_other(found))


def pickle_problem(name: str) -> str:
    """What to tell about a .ckpt, .pt, .pth or .bin file called `name`. A name that a shell might read otherwise is left out of the command."""
    said = name if _PLAIN_NAME.fullmatch(name) and not name.startswith("-") else "FILE"
    said = f'"{said}"' if re.search(r"[ ()]", said) else said
    return (
        f"{name} is a pickle file, which can run code when it is opened; only .safetensors is loaded. "
        f"To convert it, without running anything: python launch.py convert {said}"
    )


def _text_widths(found: Shapes, spec: FamilySpec) -> tuple[int, ...]:
    """Of the encoders whose table of token vectors is in the file."""
    tables = (
        found.get(f"{prefix}{tail}", ())
        for encoder in spec.encoders
        if (prefix := encoder_prefix(found, encoder.prefixes)) is not None
        for tail in _TOKEN_TABLES
    )
    return tuple(shape[1] for shape in tables if len(shape) == 2)


def encoder_prefix(found: Shapes, prefixes: tuple[str, ...]) -> str | None:
    """Which of an encoder's possible prefixes the file uses, None when the encoder is not in it."""
    return next((prefix for prefix in prefixes for tail in _TOKEN_TABLES if prefix + tail in found), None)


def vae_prefix(found: Shapes) -> str | None:
    """What stands before the autoencoder's keys ("first_stage_model." or nothing); None when there is none."""
    candidates = (VAE_PREFIX, "")
    return next((prefix for prefix in candidates if f"{prefix}decoder.conv_in.weight" in found), None)


def _checkpoint(found: Shapes, meta: dict[str, str]) -> CheckpointSignature:
    channels = found[f"{UNET_PREFIX}input_blocks.0.0.weight"][1:2]
    name = _family_of(found)
    if name == "unknown":
        problem = f"The U-Net reads text states {_context(found)} wide, which belongs to no known family (768, 1024, 1280 or 2048)."
        return CheckpointSignature("checkpoint", parts=frozenset({"unet"}), problem=problem)
    spec = family(name)
    parts: set[Part] = {"unet"}
    if f"{VAE_PREFIX}decoder.conv_in.weight" in found:
        parts.add("vae")
    parts |= {encoder.name for encoder in spec.encoders if encoder_prefix(found, encoder.prefixes)}
    variant: Variant = _VARIANT_OF_CHANNELS.get(channels[0] if channels else 0, "base")
    stated = _stated_prediction(found, meta)
    return CheckpointSignature(
        kind="checkpoint",
        family=name,
        variant=variant,
        parts=frozenset(parts),
        native_size=_stated_size(meta) or spec.native_size,
        prediction_type=stated or ("epsilon" if variant != "base" else spec.prediction_type),
        states_prediction=stated is not None or variant != "base",
        zero_terminal_snr="ztsnr" in found or meta.get("ss_zero_terminal_snr") == "True",
        text_widths=_text_widths(found, spec),
        problem=_checkpoint_problem(found, parts, [encoder.name for encoder in spec.encoders]),
    )


def _family_of(found: Shapes) -> Family:
    """By the kind of text encoder inside; by the width of the text states when there is none."""
    by_encoder: dict[str, Family] = {
        "conditioner.embedders.0.model.": "sdxl_refiner",  # the base model has CLIP-L in that place
        "conditioner.embedders.": "sdxl",
        "cond_stage_model.model.": "sd2",
        "cond_stage_model.transformer.": "sd1",
    }
    inside = next((name for prefix, name in by_encoder.items() if starts(found, prefix)), None)
    return inside or family_of_context(_context(found))


def family_of_context(width: int | None) -> Family:
    """The family whose U-Net reads text states `width` wide."""
    names: tuple[Family, ...] = ("sd1", "sd2", "sdxl", "sdxl_refiner")
    return next((name for name in names if family(name).context == width), "unknown")


def _context(found: Shapes) -> int | None:
    for key, shape in found.items():
        if key.startswith(UNET_PREFIX) and key.endswith(".attn2.to_k.weight") and len(shape) == 2:
            return shape[1]
    return None


def _stated_prediction(found: Shapes, meta: dict[str, str]) -> PredictionType | None:
    """NoobAI's marker keys, the Stability AI model metadata standard (modelspec) and its dialects: ComfyUI's, sd-scripts'."""
    said = (meta.get("modelspec.prediction_type") or meta.get("modelspec.predict_key", "")).lower()
    trained_on_v = not said and meta.get("ss_v_parameterization") == "True"
    if "v_pred" in found or said in {"v", "v_prediction"} or trained_on_v:
        return "v_prediction"
    architecture = meta.get("modelspec.architecture", "").lower()
    if said == "epsilon" or architecture == "stable-diffusion-v2-512":
        return "epsilon"
    return "v_prediction" if architecture in {"stable-diffusion-v2-768-v", "stable-diffusion-v2-1-768-v"} else None


def _stated_size(meta: dict[str, str]) -> int | None:
    """modelspec.resolution is "768x768"."""
    width = meta.get("modelspec.resolution", "").lower().partition("x")[0]
    return int(width) if width.isascii() and width.isdigit() and len(width) <= 4 and 64 <= int(width) <= 2048 else None


def _checkpoint_problem(found: Shapes, parts: set[Part], encoders: list[Part]) -> str | None:
    special = next((title for key, title in _VARIANTS_NOT_PAINTED.items() if key in found), None)
    if special:
        return f"This is {special}, which is not supported."
    if starts(found, "control_model."):
        return "This is a ControlNet, not a checkpoint."
    wanted: list[Part] = ["unet", "vae", *encoders]
    missing = [part for part in wanted if part not in parts]
    if missing:
        return f"The file has no {' and no '.join(missing)} inside; a checkpoint needs {', '.join(wanted)}."
    return None


def _vae(found: Shapes) -> CheckpointSignature:
    prefix = vae_prefix(found)
    shape = found[f"{prefix}decoder.conv_in.weight"]
    channels = shape[1] if len(shape) == 4 else 0
    problem = None
    if channels == 16:
        problem = "This autoencoder has 16 latent channels (Stable Diffusion 3, Flux); SD 1.x, 2.x and SDXL have 4."
    elif len(shape) != 4:
        problem = "This autoencoder is not for pictures."
    elif f"{prefix}encoder.conv_in.weight" not in found:
        problem = "This autoencoder has no encoder, only a decoder."
    return CheckpointSignature("vae", parts=frozenset({"vae"}), problem=problem)


def _other(found: Shapes) -> str:
    if not found:
        return "The file holds no tensors."
    for key, title in _FOREIGN.items():
        if key in found or UNET_PREFIX + key in found:
            return f"This is a {title} model; known families are Stable Diffusion 1.x, 2.x and XL."
    if starts(found, "control_model.") or starts(found, "controlnet_"):
        return "This is a ControlNet, not a checkpoint."
    if "emb_params" in found or {"clip_l", "clip_g"} & found.keys() or starts(found, "string_to_param"):
        return "This is an embedding (textual inversion), not a checkpoint: put it into the embeddings folder."
    if looks_like_one(found):
        return "This is a hypernetwork, not a checkpoint: put it into the hypernetworks folder."
    if "input_blocks.0.0.weight" in found or "conv_in.weight" in found:
        return "The file holds a bare U-Net; a checkpoint needs the text encoder and the autoencoder too."
    first = ", ".join(sorted(found)[:3])
    return f"The file is no checkpoint of a known family (Stable Diffusion 1.x, 2.x, XL); its first keys are {first[:200]}."
