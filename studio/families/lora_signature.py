"""What a LoRA file is, from the header of its .safetensors file alone: family, naming, algorithm, parts, ranks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from studio.families.header import Header, Shapes, metadata, shapes
from studio.families.lora_keys import Algorithm, LoraKey, LoraPart, Naming, algorithm_of, parse_lora_key
from studio.families.table import FAMILIES, family
from studio.schema.models import Family

_TITLES: dict[Algorithm, str] = {
    "loha": "a LoHa",
    "lokr": "a LoKr",
    "glora": "a GLoRA",
    "oft": "an OFT adapter",
    "ia3": "an IA3 adapter",
    "full": "a LyCORIS file of full weight differences",
}
# Key fragments of LoRAs for families we do not have.
_FOREIGN = {
    "double_blocks": "Flux",
    "single_transformer_blocks": "Flux",
    "joint_blocks": "Stable Diffusion 3",
    "lora_te3": "Stable Diffusion 3",
    "lora_prior_": "Stable Cascade",
    "transformer.": "a transformer model",
    "lora_transformer_": "a transformer model",
}
# What trainers write into ss_base_model_version and modelspec.architecture.
_SAID: dict[str, Family] = {
    "sdxl": "sdxl",
    "stable-diffusion-xl": "sdxl",
    "sd_v1": "sd1",
    "sd_1": "sd1",
    "stable-diffusion-v1": "sd1",
    "sd_v2": "sd2",
    "sd_2": "sd2",
    "stable-diffusion-v2": "sd2",
}


@dataclass(frozen=True)
class LoraSignature:
    """What a LoRA file is. `family` "unknown" is no problem by itself: the shapes decide when it is applied."""

    family: Family
    naming: Naming
    algorithm: Algorithm
    parts: frozenset[LoraPart]
    ranks: tuple[int, ...]
    """Distinct ranks, ascending."""
    modules: int
    """How many layers it changes."""
    problem: str | None


def describe_lora(header: Header) -> LoraSignature:
    """Judge any .safetensors file of the loras folder by the parsed JSON of its header."""
    found, meta = shapes(header), metadata(header)
    parsed = {key: understood for key in found if (understood := parse_lora_key(key))}
    algorithm = algorithm_of(found)
    downs = {key: found[key] for key, understood in parsed.items() if understood.role == "down"}
    if algorithm == "lora" and any(len(shape) == 4 and shape[2:] != (1, 1) for shape in downs.values()):
        algorithm = "locon"
    layers = {(understood.part, understood.layer) for understood in parsed.values()}
    namings = Counter(understood.naming for understood in parsed.values())
    return LoraSignature(
        family=_family(found, parsed, meta),
        naming=namings.most_common(1)[0][0] if namings else "unknown",
        algorithm=algorithm,
        parts=frozenset(part for part, _ in layers),
        ranks=tuple(sorted({shape[0] for shape in downs.values() if shape})),
        modules=len(layers),
        problem=_problem(found, algorithm, bool(downs)),
    )


def _family(found: Shapes, parsed: dict[str, LoraKey], meta: dict[str, str]) -> Family:
    by_shape = {family(name).context: family(name).name for name in FAMILIES.names()}
    for key, understood in parsed.items():
        reads_text = understood.part == "unet" and understood.layer.endswith(("attn2_to_k", "attn2_to_v"))
        if understood.role == "down" and reads_text and len(found[key]) >= 2 and found[key][1] in by_shape:
            return by_shape[found[key][1]]
    if any(understood.part == "text_encoder_2" for understood in parsed.values()):
        return "sdxl"
    said = (meta.get("modelspec.architecture", "") or meta.get("ss_base_model_version", "")).lower()
    stated = next((name for start, name in _SAID.items() if said.startswith(start)), None)
    return stated or _family_of_text_layers(found, parsed)


def _family_of_text_layers(found: Shapes, parsed: dict[str, LoraKey]) -> Family:
    """A LoRA on the text encoder alone: CLIP-L is 768 wide, OpenCLIP-H 1024."""
    for key, understood in parsed.items():
        if understood.part == "text_encoder" and understood.role == "down" and understood.layer.endswith("q_proj"):
            if key.startswith("lora_te1_"):
                return "sdxl"
            width = found[key][1] if len(found[key]) >= 2 else 0
            return {768: "sd1", 1024: "sd2"}.get(width, "unknown")  # type: ignore[return-value]
    return "unknown"


def _problem(found: Shapes, algorithm: Algorithm, has_factors: bool) -> str | None:
    foreign = next((title for part, title in _FOREIGN.items() if any(part in key for key in found)), None)
    if foreign:
        return f"This LoRA is for {foreign}; known families are Stable Diffusion 1.x, 2.x and XL."
    if algorithm in _TITLES:
        return f"This is {_TITLES[algorithm]}, a kind of adapter that is not supported yet; plain LoRA, LoCon and DoRA are."
    if not has_factors:
        return "The file holds no LoRA weights."
    return None
