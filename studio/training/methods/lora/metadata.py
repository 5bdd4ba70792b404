"""What a LoRA file says of itself: sd-scripts' `ss_…`, the hashes `sshs_…`, Stability AI's `modelspec.…` 1.0.1, and where it comes from.

All values are text. Times obey SOURCE_DATE_EPOCH (https://reproducible-builds.org/specs/source-date-epoch/), so that two runs of one recipe
can be compared byte by byte.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from safetensors.torch import save

from studio import __version__
from studio.library.hashes import LEGACY_DIGITS, LEGACY_LENGTH, LEGACY_OFFSET, legacy_hash
from studio.schema.models import Family, ModelInfo
from studio.schema.training_tuning import NetworkPart, TuningMethod
from studio.training.checkpoint import Tensors
from studio.training.data.dataset import Dataset
from studio.training.data.prepare import target_size
from studio.training.runs import RunFolder, read_events

BASE_VERSIONS: dict[Family, str] = {"sd1": "sd_v1", "sd2": "sd_v2", "sdxl": "sdxl_base_v1-0"}
ARCHITECTURES: dict[Family, str] = {
    "sd1": "stable-diffusion-v1",
    "sd2": "stable-diffusion-v2-512",
    "sdxl": "stable-diffusion-xl-v1-base",
}
MOST_TAGS = 500
"""Tags whose frequency is told; the rarest are left out."""
_HEADER_LENGTH = 8


@dataclass(frozen=True)
class Facts:
    """What a file's metadata is made of."""

    run: RunFolder
    method: TuningMethod
    network: NetworkPart
    base: ModelInfo
    dataset: Dataset
    seed: int
    step: int
    name: str
    learns: tuple[str, ...]
    """Parts of the model that learned: unet, text_encoder, text_encoder_2."""


def lora_metadata(facts: Facts, tensors: Tensors) -> dict[str, str]:
    """All entries of the file of `tensors`."""
    spoken = _sd_scripts(facts)
    plain = save(tensors, spoken)
    body = hashlib.sha256(
        memoryview(plain)[_HEADER_LENGTH + int.from_bytes(plain[:_HEADER_LENGTH], "little") :]
    ).hexdigest()
    legacy = hashlib.sha256(plain[LEGACY_OFFSET : LEGACY_OFFSET + LEGACY_LENGTH]).hexdigest()[:LEGACY_DIGITS]
    return {
        **spoken,
        "sshs_model_hash": body,
        "sshs_legacy_hash": legacy,
        **model_spec(facts, f"{_architecture(facts.base)}/lora", body),
        "studio.run": facts.run.id,
        "studio.dataset": facts.dataset.digest,
        "studio.step": str(facts.step),
        "studio.base": facts.base.sha256 or facts.base.model_id or "",
    }


def model_spec(facts: Facts, architecture: str, body_hash: str) -> dict[str, str]:
    """Entries of https://github.com/Stability-AI/ModelSpec that programs read."""
    side = facts.method.data.resolution
    spec = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": architecture,
        "modelspec.implementation": "diffusers",
        "modelspec.title": facts.name,
        "modelspec.resolution": f"{side}x{side}",
        "modelspec.date": datetime.fromtimestamp(int(now()), timezone.utc).isoformat(timespec="seconds"),
        "modelspec.prediction_type": "v" if facts.base.prediction_type == "v_prediction" else "epsilon",
        "modelspec.hash_sha256": f"0x{body_hash}",
    }
    return spec | ({"modelspec.trigger_phrase": facts.method.data.trigger} if facts.method.data.trigger else {})


def now() -> float:
    """Seconds since 1970: SOURCE_DATE_EPOCH where it is set."""
    return float(os.environ.get("SOURCE_DATE_EPOCH") or time.time())


def _sd_scripts(facts: Facts) -> dict[str, str]:
    method, data, items = facts.method, facts.method.data, facts.dataset.items
    began = next((event.time for event in read_events(facts.run)[0]), now())
    folder = Path(data.path).name or "data"
    images = sum(item.repeats for item in items)
    epochs = facts.step * method.batch * method.optimizer.accumulate / max(images, 1)
    entries: dict[str, object] = {
        **_network(facts),
        **_base(facts.base),
        "ss_output_name": facts.name,
        "ss_resolution": f"({data.resolution}, {data.resolution})",
        "ss_clip_skip": "None",
        "ss_num_train_images": images,
        "ss_num_reg_images": 0,
        "ss_tag_frequency": json.dumps({folder: tag_frequency(facts.dataset)}),
        "ss_dataset_dirs": json.dumps(
            {folder: {"n_repeats": max(item.repeats for item in items), "img_count": len(items)}}
        ),
        "ss_bucket_info": json.dumps(_buckets(facts)) if data.buckets else "null",
        "ss_enable_bucket": data.buckets,
        "ss_flip_aug": data.flip,
        "ss_learning_rate": method.optimizer.learning_rate,
        "ss_unet_lr": method.optimizer.learning_rate if "unet" in facts.learns else "None",
        "ss_text_encoder_lr": _text_rate(facts),
        "ss_optimizer": method.optimizer.name,
        "ss_lr_scheduler": method.rate.name,
        "ss_lr_warmup_steps": round(method.rate.warmup * method.steps),
        "ss_seed": facts.seed,
        "ss_steps": facts.step,
        "ss_max_train_steps": method.steps,
        "ss_epoch": int(epochs),
        "ss_num_epochs": -(-method.steps * method.batch * method.optimizer.accumulate // max(images, 1)),
        "ss_batch_size_per_device": method.batch,
        "ss_gradient_accumulation_steps": method.optimizer.accumulate,
        "ss_max_grad_norm": method.optimizer.clip_norm,
        "ss_caption_dropout_rate": data.caption_dropout,
        "ss_noise_offset": method.loss.noise_offset or "None",
        "ss_min_snr_gamma": method.loss.min_snr_gamma or "None",
        "ss_training_started_at": now() if "SOURCE_DATE_EPOCH" in os.environ else began,
        "ss_training_finished_at": now(),
        "ss_training_comment": f"Latent Studio {__version__}",
    }
    return {key: str(value) for key, value in entries.items()}


def tag_frequency(dataset: Dataset) -> dict[str, int]:
    """How often each comma-separated part of a caption occurs, the most frequent first."""
    counts = Counter(
        tag.strip() for item in dataset.items for caption in item.captions for tag in caption.split(",") if tag.strip()
    )
    return dict(counts.most_common(MOST_TAGS))


def _network(facts: Facts) -> dict[str, object]:
    network = facts.network
    arguments: dict[str, object] = {"layers": network.layers} if "unet" in facts.learns else {}
    if not network.cross_attention and "unet" in facts.learns:
        arguments["cross_attention"] = "False"
    if network.layers.endswith("conv") and "unet" in facts.learns:
        rank, alpha = network.convolutions
        arguments |= {"conv_dim": str(rank), "conv_alpha": str(alpha)}
    if network.kind == "dora":
        arguments["dora_wd"] = "True"
    return {
        "ss_network_module": "networks.lora",
        "ss_network_dim": network.rank,
        "ss_network_alpha": network.scale_alpha,
        "ss_network_args": json.dumps(arguments),
        "ss_network_dropout": network.dropout or "None",
    }


def _base(base: ModelInfo) -> dict[str, object]:
    entries: dict[str, object] = {
        "ss_base_model_version": BASE_VERSIONS.get(base.family, "sd_v1"),
        "ss_v2": base.family == "sd2",
        "ss_v_parameterization": base.prediction_type == "v_prediction",
        "ss_sd_model_name": Path(base.path).name,
    }
    if base.layout == "file":
        entries |= {"ss_sd_model_hash": legacy_hash(Path(base.path)), "ss_new_sd_model_hash": base.sha256 or ""}
    return entries


def _architecture(base: ModelInfo) -> str:
    if base.family == "sd2" and base.prediction_type == "v_prediction":
        return "stable-diffusion-v2-768-v"
    return ARCHITECTURES.get(base.family, "stable-diffusion-v1")


def _text_rate(facts: Facts) -> object:
    if not any(part.startswith("text_encoder") for part in facts.learns):
        return "None"
    return facts.method.optimizer.learning_rate * (
        facts.method.optimizer.text_rate_factor if "unet" in facts.learns else 1
    )


def _buckets(facts: Facts) -> dict[str, object]:
    sizes = Counter(target_size(item.size, facts.method.data) for item in facts.dataset.items)
    rows = {
        str(index): {"resolution": list(size), "count": count}
        for index, (size, count) in enumerate(sorted(sizes.items()))
    }
    return {"buckets": rows}
