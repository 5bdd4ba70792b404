"""From a `ModelInfo` to modules that can paint: single .safetensors files and diffusers folders, wholly offline.

No pipeline object is made and no class name from a file is believed: the four component classes are chosen here, their
configurations come from the shipped families or from inspected JSON, their weights from .safetensors only.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from studio.engine.eight_bit import PLAIN, Storage
from studio.engine.leaving import Ask
from studio.engine.loading_copies import Copies
from studio.engine.loading_schedule import alphas_cumprod
from studio.engine.loading_weights import Chooser, Filling, Weights, empty, listed
from studio.engine.offload import Stage
from studio.errors import IncompatibleFile, NotFound
from studio.families.configs import Config, shipped_config, text_config, unet_config, vae_config
from studio.families.folder import BadFolder, component_files, describe_folder, read_folder
from studio.families.layout import Source, clip_sources, old_vae_name, open_clip_sources, unet_sources, vae_sources
from studio.families.signature import (
    UNET_PREFIX,
    VAE_PREFIX,
    CheckpointSignature,
    Part,
    describe_checkpoint,
    encoder_prefix,
    pickle_problem,
    vae_prefix,
)
from studio.families.spec import FamilySpec, PreviewFactors
from studio.families.table import family
from studio.schema.models import ModelInfo, PredictionType

_TEXT_OPTIONS = (
    "vocab_size", "hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers", "num_attention_heads",
    "max_position_embeddings", "hidden_act", "layer_norm_eps", "pad_token_id", "bos_token_id", "eos_token_id",
)  # fmt: skip
# Keys of original-layout files that belong to no weight that is run: averaged copies, training constants, counters.
IDLE_PREFIXES = ("model_ema.", "first_stage_model.loss.", "first_stage_model.quantize.", "denoiser.", "loss.")
_IDLE_ENDS = ("position_ids", "logit_scale", "text_projection")
_IDLE = {
    "alphas_cumprod", "alphas_cumprod_prev", "betas", "log_one_minus_alphas_cumprod", "logvar", "lvlb_weights", "posterior_log_variance_clipped",
    "posterior_mean_coef1", "posterior_mean_coef2", "posterior_variance", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod", "v_pred", "ztsnr", "global_step", "epoch", "scale_factor",
}  # fmt: skip
# SD 2.x: the spread of this bias tells models that predict v (above) from those that predict noise (below).
_V_MARKER, _V_SPREAD = f"{UNET_PREFIX}output_blocks.11.1.transformer_blocks.0.norm1.bias", 0.09


Layout = Callable[[torch.dtype], torch.memory_format]
"""How the weights of convolutions are to lie in memory, by number format."""


Place = Callable[[Mapping[Part, int]], torch.device]
"""Where a checkpoint is to lie, by the bytes of its networks, asked before the first weight is read."""


def in_order(dtype: torch.dtype) -> torch.memory_format:
    """The `Layout` of the file."""
    return torch.contiguous_format


@dataclass(frozen=True)
class LatentFacts:
    """The latent space of a model. Decode with `vae.decode(latents / scaling_factor + shift_factor).sample`."""

    channels: int
    scale: int
    """Pixels per latent and side: 2 ** (levels of the autoencoder - 1)."""
    scaling_factor: float
    shift_factor: float
    preview: PreviewFactors


@dataclass
class LoadedVae:
    """An autoencoder that fits a model: its own, a separate one, or a half of the tiny one."""

    module: AutoencoderKL | AutoencoderTiny
    latent: LatentFacts
    stage: Stage = field(default_factory=lambda: Stage(torch.device("cpu")))
    """Where it works if it waits outside of the device."""
    dtype: torch.dtype = torch.float32
    """The number format that it is to work in; where that gave no picture it stays in float32."""
    marks: set[str] = field(default_factory=set)
    """What its work differed in from a whole picture in that format, in the words of the infotext's `Backend`."""
    ask: Ask | None = None
    """Is asked again and again while it works, and raises where that is not wanted any more; None for work that nobody can stop."""


@dataclass
class LoadedModel:
    """A checkpoint ready to paint: modules in eval mode without gradients, and the facts the loop needs."""

    info: ModelInfo
    family: FamilySpec
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoders: tuple[torch.nn.Module, ...]
    """In the order of `family.encoders`."""
    alphas_cumprod: torch.Tensor
    """float64 [T] on the CPU."""
    prediction_type: PredictionType
    latent: LatentFacts
    native_size: int
    inpaint: bool
    edit: bool
    mapped: bool = False
    """Whether its weights lie in a mapped file (see `loading_copies`), but for those that were packed since."""
    notes: tuple[str, ...] = ()
    """What the user may want to know about the file."""

    def added_conditions(
        self,
        pooled: torch.Tensor | None,
        width: int,
        height: int,
        crop: tuple[int, int] = (0, 0),
        *,
        is_negative: bool = False,
    ) -> dict[str, torch.Tensor] | None:
        """`added_cond_kwargs` of the U-Net: None for families that are not told the size of the picture.

        `pooled` [B, P]; `width`, `height` in pixels of the current pass, `crop` (left, top). time_ids [B, 6] are
        (H, W, top, left, H, W) in float32, because bfloat16 cannot tell 1000 from 1001; the refiner's [B, 5] are
        (H, W, top, left, aesthetic score), where the negative prompt has a score of its own.
        """
        if not self.family.size_conditioning:
            return None
        if pooled is None:
            raise ValueError(f"{self.family.title} needs the pooled text")
        left, top = crop
        scores = self.family.aesthetic_scores
        last = [height, width] if scores is None else [scores[is_negative]]
        ids = torch.tensor([[height, width, top, left, *last]], dtype=torch.float32, device=pooled.device)
        return {"text_embeds": pooled, "time_ids": ids.expand(pooled.shape[0], -1)}


@dataclass(frozen=True)
class _Component:
    """One module to be: its configuration and where its weights are."""

    config: Mapping[str, Any]
    weights: Weights
    choose: Chooser


@dataclass(frozen=True)
class _Plan:
    """All that is known before the first weight is read."""

    signature: CheckpointSignature
    spec: FamilySpec
    components: Mapping[Part, _Component]
    scheduler: Mapping[str, Any]
    preview: PreviewFactors


def load_checkpoint(
    info: ModelInfo,
    device: torch.device,
    dtype: torch.dtype,
    *,
    vae_dtype: torch.dtype | None = None,
    layout: Layout = in_order,
    packs: bool = False,
    copies: Copies | None = None,
    storage: Storage = PLAIN,
    place: Place | None = None,
) -> LoadedModel:
    """Load a checkpoint onto `device`, on the CPU from its copy in `copies`, which is made if need be; or where `place` says.

    `vae_dtype` None is `dtype`; `layout` says how weights of convolutions are to lie in memory, `packs` whether large ones of the U-Net
    are packed, which training cannot use (see `packing`). In eight bits, by `storage`, nothing is packed and no copy is used. What the model predicts is what
    the file or its scheduler configuration says; where neither says anything, SD 2.x files are judged by their weights and others by the
    family.
    Raises `NotFound` (the file is gone), `DamagedFile` (cut off, NaN) and `IncompatibleFile` (unknown or foreign
    architecture, pickles, missing parts, folders with program code). Reads no network.
    """
    path = Path(info.path)
    if not path.exists():
        raise NotFound(f"{info.name} is not there any more.")
    plan = _plan_folder(path) if path.is_dir() else _plan_file(path)
    fillings = {
        part: Filling(
            _build(part, component.config),
            component.weights,
            component.choose,
            wanted := vae_dtype if part == "vae" and vae_dtype is not None else dtype,
            part,
            layout(wanted),
            packs and part == "unet" and not storage.eight_bit,
            PLAIN if part == "vae" else storage,
        )
        for part, component in plan.components.items()
    }
    where = place({part: filling.bytes for part, filling in fillings.items()}) if place else device
    copy = copies.copy(fillings) if copies and device.type == "cpu" and not storage.eight_bit else None
    modules = {
        part: filling.from_copy(copy.state(part, filling), copy.release) if copy else filling.from_file(where)
        for part, filling in fillings.items()
    }
    predicted, note = _prediction(plan, info)
    return LoadedModel(
        info=info,
        family=plan.spec,
        unet=modules["unet"],
        vae=modules["vae"],
        text_encoders=tuple(modules[encoder.name] for encoder in plan.spec.encoders),
        alphas_cumprod=alphas_cumprod(plan.scheduler, plan.signature.zero_terminal_snr),
        prediction_type=predicted,
        latent=_latent_facts(modules["vae"], plan.preview),
        native_size=plan.signature.native_size,
        inpaint=plan.signature.variant == "inpaint",
        edit=plan.signature.variant == "edit",
        mapped=copy is not None,
        notes=(*note, *_left_over(plan, fillings.values())),
    )


def load_vae(
    info: ModelInfo, model: LoadedModel, dtype: torch.dtype | None = None, layout: Layout = in_order
) -> LoadedVae:
    """A separate autoencoder file (original or diffusers layout) for `model`, on its device.

    `dtype` None is that of the model's own autoencoder; `layout` as in `load_checkpoint`. The scaling of the latents stays the
    model's: its U-Net was trained with it. Raises as `load_checkpoint`, and `IncompatibleFile` when the latent space has another shape.
    """
    path = Path(info.path)
    _refuse_pickle(path)
    weights = Weights([path])
    signature = describe_checkpoint(weights.header)
    if signature.kind == "checkpoint" and "vae" in signature.parts:
        signature = replace(signature, kind="vae", problem=None)
    prefix = vae_prefix(weights.shapes)
    if signature.kind != "vae" or signature.problem or prefix is None:
        raise IncompatibleFile(f"{path.name}: {signature.problem or 'The file holds no autoencoder.'}")
    config = _fitted(path, lambda: vae_config(model.family, weights.shapes, prefix))
    own = model.vae.config
    config |= {"scaling_factor": own.scaling_factor, "shift_factor": own.shift_factor}
    if (
        config["latent_channels"] != model.latent.channels
        or 2 ** (len(config["block_out_channels"]) - 1) != model.latent.scale
    ):
        raise IncompatibleFile(
            f"{path.name} has {config['latent_channels']} latent channels at 1/{2 ** (len(config['block_out_channels']) - 1)} of the size; "
            f"{model.info.name} needs {model.latent.channels} at 1/{model.latent.scale}."
        )
    choose = _vae_chooser(weights, config, prefix)
    wanted = dtype or model.vae.dtype
    filling = Filling(_build("vae", config), weights, choose, wanted, "autoencoder", layout(wanted))
    return LoadedVae(filling.from_file(model.vae.device), model.latent)


def _plan_file(path: Path) -> _Plan:
    _refuse_pickle(path)
    weights = Weights([path])
    signature = describe_checkpoint(weights.header)
    if signature.kind != "checkpoint" or signature.problem:
        raise IncompatibleFile(f"{path.name}: {signature.problem or 'This is an autoencoder alone, not a checkpoint.'}")
    spec, found = family(signature.family), weights.shapes
    unet = _fitted(path, lambda: unet_config(spec, found, UNET_PREFIX))
    vae = _fitted(path, lambda: vae_config(spec, found, VAE_PREFIX))
    components: dict[Part, _Component] = {
        "unet": _Component(unet, weights, partial(unet_sources, config=unet, prefix=UNET_PREFIX)),
        "vae": _Component(vae, weights, _vae_chooser(weights, vae, VAE_PREFIX)),
    }
    for encoder in spec.encoders:
        prefix = encoder_prefix(found, encoder.prefixes) or encoder.prefixes[0]
        config = _fitted(path, partial(text_config, spec, encoder, found, prefix))
        choose = partial(clip_sources if encoder.layout == "clip" else open_clip_sources, prefix=prefix)
        components[encoder.name] = _Component(config, weights, choose)
    return _Plan(signature, spec, components, shipped_config(spec.name, "scheduler"), spec.preview)


def _plan_folder(path: Path) -> _Plan:
    signature = describe_folder(path)
    if signature.problem:
        raise IncompatibleFile(f"{path.name}: {signature.problem}")
    try:
        configs = read_folder(path)
        files = {part: component_files(path / part, part) for part in configs.components}
    except BadFolder as error:
        raise IncompatibleFile(f"{path.name}: {error}") from None
    spec = family(signature.family)
    components: dict[Part, _Component] = {}
    parts: list[Part] = ["unet", "vae", *(encoder.name for encoder in spec.encoders)]
    for part in parts:
        weights = Weights(files[part], below=path.parent)
        components[part] = _Component(configs.components[part], weights, partial(_folder_sources, weights=weights))
    try:
        preview = spec.preview if configs.preview is None else PreviewFactors.parse(configs.preview)
    except ValueError as error:
        raise IncompatibleFile(f"{path.name}: preview.json cannot be used: {error}.") from None
    return _Plan(signature, spec, components, configs.scheduler, preview)


def _folder_sources(keys: Iterable[str], weights: Weights) -> dict[str, Source]:
    """By its own name, by the name of older libraries, or with `text_model.` put in front or taken away."""

    def place(key: str) -> Source:
        spellings = (key, f"text_model.{key}", key.removeprefix("text_model."), old_vae_name(key))
        return Source(next((name for name in spellings if name in weights.shapes), key))

    return {key: place(key) for key in keys}


def _vae_chooser(weights: Weights, config: Config, prefix: str) -> Chooser:
    """Original layout, or diffusers layout where a separate file is in that."""
    if f"{prefix}encoder.down.0.block.0.conv1.weight" in weights.shapes:
        return partial(vae_sources, config=config, prefix=prefix)
    return partial(_folder_sources, weights=weights)


def _build(part: Part, config: Mapping[str, Any]) -> Any:
    """The module for `part`, without weights. Only options that the class declares are passed on."""
    if part in ("unet", "vae"):
        cls = UNet2DConditionModel if part == "unet" else AutoencoderKL
        options = {name: config[name] for name in inspect.signature(cls.__init__).parameters if name in config}
        return empty(lambda: cls(**options), part)
    text = {name: config[name] for name in _TEXT_OPTIONS if config.get(name) is not None}
    model = CLIPTextModelWithProjection if part == "text_encoder_2" else CLIPTextModel
    return empty(lambda: model(CLIPTextConfig(**text)), part)


def _prediction(plan: _Plan, info: ModelInfo) -> tuple[PredictionType, tuple[str, ...]]:
    """What the U-Net predicts, and a note where that is a judgement."""
    if plan.signature.states_prediction:
        return plan.signature.prediction_type, ()
    weights = plan.components["unet"].weights
    if plan.spec.name == "sd2" and _V_MARKER in weights.shapes:
        spread = float(weights.tensor(Source(_V_MARKER)).float().std(unbiased=False))
        judged: PredictionType = "v_prediction" if spread > _V_SPREAD else "epsilon"
        return judged, (
            f"Judged by its weights, {info.name} predicts {judged}; if that is wrong, choose a prediction type.",
        )
    return info.prediction_type, ()


def _latent_facts(vae: AutoencoderKL, preview: PreviewFactors) -> LatentFacts:
    config = vae.config
    channels = int(config.latent_channels)
    # No map is published for other latent spaces; repeating the family's rows at least shows shapes.
    if len(preview.factors) != channels:
        preview = PreviewFactors(
            tuple(preview.factors[index % len(preview.factors)] for index in range(channels)), preview.bias
        )
    return LatentFacts(
        channels=channels,
        scale=2 ** (len(config.block_out_channels) - 1),
        scaling_factor=float(config.scaling_factor),
        shift_factor=float(config.shift_factor or 0.0),
        preview=preview,
    )


def _left_over(plan: _Plan, fillings: Iterable[Filling]) -> tuple[str, ...]:
    """Account for the file's other keys. Raises `IncompatibleFile` for U-Net weights that nothing would use."""
    used = frozenset[str]().union(*(filling.used for filling in fillings))
    everything = {key for component in plan.components.values() for key in component.weights.shapes}
    rest = sorted(key for key in everything - used if not _idle(key))
    foreign = [key for key in rest if key.startswith(UNET_PREFIX)]
    name = plan.components["unet"].weights.name
    if foreign:
        raise IncompatibleFile(
            f"{name} has {len(foreign)} U-Net weights that {plan.spec.title} does not know: {listed(foreign)}."
        )
    unused = plan.spec.encoders[0].unused_layers and [key for key in rest if ".resblocks." in key]
    rest = [key for key in rest if key not in (unused or [])]
    return (f"{len(rest)} weights of {name} were not used: {listed(rest)}.",) if rest else ()


def _idle(key: str) -> bool:
    return key in _IDLE or key.startswith(IDLE_PREFIXES) or key.endswith(_IDLE_ENDS)


def _fitted(path: Path, make: Callable[[], Config]) -> Config:
    try:
        return make()
    except (ValueError, IndexError) as error:
        raise IncompatibleFile(f"{path.name} is not built like a model of its family: {error}.") from None


def _refuse_pickle(path: Path) -> None:
    if path.suffix.lower() != ".safetensors":
        raise IncompatibleFile(pickle_problem(path.name))
