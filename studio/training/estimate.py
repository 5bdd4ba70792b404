"""How much memory a run will take, from the headers of its checkpoint and its settings, before anything is loaded. Needs no torch.

    while loading   process + U-Net, text encoders and autoencoder in the run's number formats
    while training  process + U-Net + what stays beside it + learning numbers x (4 weights where they are not the U-Net's own + 4 gradient + optimizer
                    + 4 average) + activations

Activations are what the backward pass needs of the forward pass: bytes a latent pixel and picture, counted for the U-Nets of ``_ACTIVATIONS`` in bf16 (torch 2.13,
``saved_tensors_hooks``, without attention's matrix, which no kernel used here keeps), times two for what kernels take beside it; twice that in fp32.
Stable Diffusion 1.5 at 256 pixels, batch 1, bf16 on a CPU: 2.7 GiB while loading and 2.8 GiB while training by this. Measured were 2.6 GiB after loading, 3.05 GiB
while pictures were encoded, and 2.7 to 2.9 GiB between steps; a backward pass once reached 4.8 GiB, when model files were still mapped and counted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path

from studio.errors import DamagedFile
from studio.families.folder import BadFolder, component_files, read_folder
from studio.families.header import Shapes, shapes
from studio.library.header import read_header
from studio.schema.models import ModelInfo
from studio.schema.runs import MemoryEstimate
from studio.schema.training_tuning import FullMethod, LoraMethod, NetworkPart, TextEncoderMethod, TuningMethod

PROCESS = 600 << 20
"""Bytes of a process with torch and diffusers loaded that does nothing yet."""
_UNET, _VAE, _TEXT = "model.diffusion_model.", "first_stage_model.", ("cond_stage_model.", "conditioner.")
_OPTIMIZER = {"adamw": 8, "adamw-8bit": 2, "lion": 4, "adafactor": 1, "prodigy": 16}
"""Bytes of state for each learning number."""
_CHOICES = ("attention", "attention+feed-forward", "attention+feed-forward+conv", "attention+conv")
_ACTIVATIONS: dict[str, tuple[float, dict[str, int]]] = {
    "sprout": (10.9e6, dict(zip(_CHOICES, (6_800, 7_700, 11_800, 11_100), strict=True))),
    "sd1": (860e6, dict(zip(_CHOICES, (297_000, 378_000, 429_000, 372_000), strict=True))),
    "sd2": (866e6, dict(zip(_CHOICES, (241_000, 264_000, 314_000, 257_000), strict=True))),
    "sdxl": (2567e6, dict(zip(_CHOICES, (695_000, 834_000, 889_000, 761_000), strict=True))),
}
"""Of known U-Nets: how many numbers they have, and bytes a latent pixel by what learns. A whole U-Net and text encoders take what attention takes."""
_BESIDE = 2
_CHECKPOINTED = 0.3
"""Share of the activations that gradient checkpointing leaves, roughly."""
_ATTENTION = re.compile(r"\.attn[12]\.(to_q|to_k|to_v|to_out\.0)\.weight$")
_CROSS = ".attn2."
_FEED_FORWARD = re.compile(r"\.ff\.net\.(0\.proj|2)\.weight$")
_PROJECTION = re.compile(r"\.proj_(in|out)\.weight$")
_CONVOLUTION = re.compile(
    r"\.(conv1|conv2|conv_shortcut|time_emb_proj|(down|up)samplers\.0\.conv|in_layers\.2|out_layers\.3|skip_connection|emb_layers\.1|0\.op|[12]\.conv)\.weight$"
)
_ENCODER = re.compile(r"\.((q|k|v|out)_proj|fc1|fc2|c_fc|c_proj|in_proj)[._]weight$")


def estimate(method: TuningMethod, info: ModelInfo, *, short: bool) -> MemoryEstimate:
    """For a run of `method` with the checkpoint `info`; `short`: bf16. Raises `DamagedFile` for one that cannot be read."""
    unet, vae, text = _parts(info)
    size = {True: 2, False: 4}
    frozen = not isinstance(method, FullMethod)
    unet_bytes = _numbers(unet) * size[short and frozen]
    text_bytes, vae_bytes = _numbers(text) * size[short], _numbers(vae) * 4
    learning = _learning(method, unet, text)
    a_number = (4 if frozen else 0) + 4 + _OPTIMIZER[method.optimizer.name] + (4 if method.ema_decay else 0)
    beside = (vae_bytes if method.samples.prompts else 0) + (text_bytes if _texts_learn(method) else 0)
    active = _activations(method, info, _numbers(unet), _pixels_a_latent(vae)) * (1 if short else 2)
    return MemoryEstimate(
        loading=PROCESS + unet_bytes + text_bytes + vae_bytes,
        training=PROCESS + unet_bytes + beside + learning * a_number + active,
        weights=unet_bytes + beside,
        learning=learning * a_number,
        activations=active,
        learning_numbers=learning,
    )


def _parts(info: ModelInfo) -> tuple[Shapes, Shapes, Shapes]:
    """Tensors of the U-Net, the autoencoder and all text encoders."""
    path = Path(info.path)
    if info.layout == "folder":
        try:
            names = read_folder(path).components
            by_part = {part: _shapes(component_files(path / part, part)) for part in names}
        except BadFolder as error:
            raise DamagedFile(f"{info.name}: {error}", field="method.model") from error
        text = {
            f"{part}.{key}": shape
            for part, found in by_part.items()
            if part.startswith("text")
            for key, shape in found.items()
        }
        return by_part.get("unet", {}), by_part.get("vae", {}), text
    found = _shapes([path])
    return (
        {key: shape for key, shape in found.items() if key.startswith(_UNET)},
        {key: shape for key, shape in found.items() if key.startswith(_VAE)},
        {key: shape for key, shape in found.items() if key.startswith(_TEXT)},
    )


def _shapes(files: Iterable[Path]) -> Shapes:
    found: Shapes = {}
    for file in files:
        try:
            found |= shapes(read_header(file))
        except OSError as error:
            raise DamagedFile(f"{file} cannot be read: {error.strerror or error}.", field="method.model") from error
    return found


def _numbers(found: Shapes) -> int:
    return sum(math.prod(shape) for shape in found.values())


def _texts_learn(method: TuningMethod) -> bool:
    return isinstance(method, TextEncoderMethod) or (isinstance(method, LoraMethod) and method.text_encoder)


def _learning(method: TuningMethod, unet: Shapes, text: Shapes) -> int:
    """How many numbers learn."""
    if isinstance(method, FullMethod):
        return _numbers(unet)
    network = method.network if isinstance(method, (LoraMethod, TextEncoderMethod)) else NetworkPart()
    total = 0
    if isinstance(method, LoraMethod):
        convolutions = network.convolutions[0]
        kinds = [_ATTENTION]
        kinds += [_PROJECTION] if network.layers != "attention" else []
        kinds += [_FEED_FORWARD] if "feed-forward" in network.layers else []
        for key, shape in unet.items():
            if _CROSS in key and not network.cross_attention:
                continue
            if any(kind.search(key) for kind in kinds):
                total += _adapter(shape, network.rank, network.kind)
            elif "conv" in network.layers and _CONVOLUTION.search(key):
                total += _adapter(shape, convolutions, network.kind)
    if _texts_learn(method):
        for key, shape in text.items():
            if _ENCODER.search(key):
                parts = 3 if "in_proj" in key else 1  # queries, keys and values in one
                total += parts * _adapter((shape[0] // parts, *shape[1:]), network.rank, network.kind)
    return total


def _adapter(shape: tuple[int, ...], rank: int, kind: str) -> int:
    """Numbers of `down` [r, in, ...] and `up` [out, r, 1, 1], and of the lengths of a DoRA's rows."""
    out, inside = shape[0], math.prod(shape[1:])
    return rank * (inside + out) + (out if kind == "dora" else 0)


def _activations(method: TuningMethod, info: ModelInfo, numbers: int, scale: int) -> int:
    known = _ACTIVATIONS.get(info.family)
    if known is None or not 0.5 < numbers / known[0] < 2:
        known = min(_ACTIVATIONS.values(), key=lambda row: abs(math.log(max(numbers, 1) / row[0])))
    layers = method.network.layers if isinstance(method, LoraMethod) else "attention"
    pixels = method.batch * (method.data.resolution // scale) ** 2
    kept = _CHECKPOINTED if method.gradient_checkpointing else 1.0
    return int(pixels * known[1][layers] * _BESIDE * kept)


def _pixels_a_latent(vae: Shapes) -> int:
    """Picture pixels along a side for one latent pixel: two to the number of halvings in the encoder."""
    halvings = sum(bool(re.search(r"encoder\..*\.(downsample|downsamplers\.0)\.conv\.weight$", key)) for key in vae)
    return int(2**halvings) if vae else 8
