"""A pass: from seeds to finished latents, step by step; from pure noise (txt2img), or from given latents with noise over them.

A pass is built once per job, from the loaded checkpoint and the request, and then run once for every batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from studio.engine.attention import TextProjections
from studio.engine.deep_cache import DeepCacheUNet
from studio.engine.denoise import Condition, GuidedUNet, Timeline
from studio.engine.encode import encoded
from studio.engine.hardware import Hardware
from studio.engine.hypernetwork import set_hypernetworks
from studio.engine.loaded import LoadedCheckpoint
from studio.engine.loading import LoadedModel, LoadedVae
from studio.engine.lora_courses import progress
from studio.engine.padding import evened
from studio.engine.refiner import RefinerPass
from studio.engine.saving import Saving
from studio.engine.source import MaskedDenoiser, SourceLatents, blended
from studio.engine.token_merging import set_merging
from studio.engine.transfer import lag, soon
from studio.engine.wrapping import set_wrapping
from studio.errors import EngineError
from studio.samplers.guidance import NegativeSkip, is_guided
from studio.samplers.noise import ImageNoise
from studio.samplers.noise_table import NoiseTable
from studio.samplers.planning import SamplingPlan, img2img_steps, plan
from studio.samplers.types import GuidedDenoiser, Step
from studio.schema.resolved import PromptBranch, ResolvedRequest, WeightedText

EMPTY: WeightedText = (("", 1.0),)


@dataclass(frozen=True)
class StartPoint:
    """Where a pass goes on from: latents `x` [B, C, h, w] of the level `sigma`, after `step` steps of another pass."""

    x: Tensor
    sigma: float
    step: int


@dataclass(frozen=True)
class Lift:
    """That a pass goes on from clean latents, lifted to a noise level: with what part of the steps, or exactly as many as asked for."""

    strength: float
    exact_steps: bool = True

    def steps(self, asked: int) -> int:
        """How many are run."""
        return img2img_steps(asked, self.strength, exact_steps=self.exact_steps)[1] + 1


class DenoisingPass:
    """One pass of one job, from noise or from a picture.

    Encodes the prompts and plans the sampler when built; raises `UnknownName` and `InvalidRequest` as `plan` does, and what
    `EmbeddingVectors.load` raises. `loaded` begins the picture, and finishes it unless a `refiner` takes over. With a
    `lift` it goes on from given latents: those of `source`, or what `steps` is given. `encoder` encodes the grey picture that an inpainting
    U-Net is told of where there is none, the checkpoint's own VAE if it is not given.
    """

    def __init__(
        self,
        loaded: LoadedCheckpoint,
        resolved: ResolvedRequest,
        hardware: Hardware,
        saving: Saving,
        refiner: RefinerPass | None = None,
        *,
        lift: Lift | None = None,
        source: SourceLatents | None = None,
        encoder: LoadedVae | None = None,
    ) -> None:
        self._resolved = resolved
        self._source = source
        self._refiner = refiner
        self._hardware = hardware
        self._saving = saving
        self.loaded = loaded
        self._table = loaded.table_for(resolved.noise_schedule, downcast=resolved.downcast_alphas)
        self._plan = sampling_plan(resolved, self._table, lift)
        self._scale = resolved.cfg_scale * self._plan.guidance_factor
        latent = loaded.model.latent
        self._shape = (latent.channels, resolved.height // latent.scale, resolved.width // latent.scale)
        self._embeddings = loaded.embeddings.load(resolved.embeddings)
        self._hypernetworks = loaded.hypernetworks.load(resolved.hypernetworks)
        self._courses = loaded.loras.courses(resolved.loras, hardware.dtype)
        branches = resolved.positive.branches
        guided = is_guided(self._plan.sampler, resolved.cfg_scale, [branch.weight for branch in branches])
        self._image_scale = _image_scale(loaded.model, resolved) if source else None
        guided = guided or self._image_scale is not None
        wanted = guided or resolved.padding == "chunks"  # the prompt becomes as long as the negative one
        steps = lift.steps(resolved.steps) if lift else resolved.steps
        self._skipping = NegativeSkip.of(resolved.sampler_options, self._plan.sampler, steps)
        with torch.inference_mode(), saving.only("text", loaded):
            positive = [self._timeline(branch) for branch in branches]
            negative = self._timeline(resolved.negative.branches[0], is_negative=True) if wanted else None
            empty = self._condition(EMPTY, False).states if resolved.padding == "chunks" else None
            self._positive, self._negative = evened(positive, negative, resolved.padding, empty)
            self._concat = source.channels if source else None
            if self._concat is None and loaded.model.inpaint:
                own = LoadedVae(loaded.model.vae, latent, loaded.stage)
                self._concat = blank_inpaint_channels(encoder or own, self._shape, resolved.tiling)
            if self._concat is None and loaded.model.edit:
                self._concat = torch.zeros(1, *self._shape, device=hardware.device)

    @property
    def total(self) -> int:
        """Steps of one batch; an estimate for samplers that choose their own."""
        return self._plan.steps

    @property
    def painter(self) -> LoadedCheckpoint:
        """The checkpoint that painted the last step."""
        refined = self._refiner.painter if self._refiner else None
        return refined or self.loaded

    def total_from(self, start: StartPoint) -> int:
        """The number of the last step when it goes on from `start`. Raises `InvalidRequest` when nothing is left to do there."""
        return start.step + self._plan.below(start.sigma)[0].steps

    def steps(
        self,
        seeds: Sequence[int],
        subseeds: Sequence[int] = (),
        start: StartPoint | None = None,
        *,
        init: Tensor | None = None,
    ) -> Iterator[Step]:
        """Denoise one batch, one generator per picture; `subseeds` are its variation seeds. Close the iterator to stop.

        `init` are the clean latents [B, C, h, w] that a pass with a lift, and no source, goes on from.

        From `start` on it runs the rest of its own plan: steps are counted on, and prompts and noise are what they would be
        there. Draws that the steps before may have taken are passed over.
        The caller's code runs outside inference mode. Raises `EngineError` when the latents are no numbers any more, looked
        for after the first step (a damaged model shows at once; on a card the next is handed to it first) and the last.
        """
        last: Step | None = None
        refuse_nan: Callable[[], None] | None = None
        taken = 0
        with self._saving.only("unet", self.loaded):
            with torch.inference_mode():
                running = self._running(seeds, subseeds, start, init)
            while (step := _advance(running)) is not None:
                if refuse_nan is None:
                    refuse_nan = self._numbers(step, seeds)
                if taken == lag(self._hardware.device):
                    refuse_nan()
                last, taken = step, taken + 1
                yield step
        if last is not None:
            self._numbers(last, seeds)()

    def settled(self, x: Tensor) -> Tensor:
        """The latents [B, C, h, w] to decode, of those after the last step: what is not masked is the source's own, without any rest
        of noise."""
        masked = self._source
        if masked is None or masked.mask is None:
            return x
        with torch.inference_mode():
            return blended(x, masked.latents * (1 - masked.mask), masked.mask)

    def _running(
        self, seeds: Sequence[int], subseeds: Sequence[int], start: StartPoint | None, init: Tensor | None
    ) -> Iterator[Step]:
        """The sampler's steps of one batch, ready to be asked for."""
        resolved, source, device = self._resolved, self._source, self._hardware.device
        scale = self.loaded.model.latent.scale
        noise = batch_noise(resolved, seeds, subseeds, self._shape, scale, device)
        first = noise.start()
        if source is not None:
            init = source.init(plain_noise(resolved, seeds, self._shape, device))
            first = first * source.noise_multiplier
        plan, x, calls, done = self._plan, self._plan.start(first, init, resolved.extra_noise), 0, 0
        if start is not None:
            plan, skipped, calls = plan.below(start.sigma)
            x, done = start.x, start.step
            noise.skip(max(done, skipped))
        return _counted(plan.run(self._painting(calls, init), x, noise), done)

    def _painting(self, calls: int, init: Tensor | None) -> GuidedDenoiser:
        """What the sampler calls, after `calls` model calls. Nobody else may hold on to it: a refiner may need the memory."""
        first = self.denoiser(calls)
        painting = self._refiner.after(first, self._table, self.total, calls) if self._refiner else first
        del first
        if self._source is None or self._source.mask is None or init is None:
            return painting
        return MaskedDenoiser(painting, init, self._source.mask, before=self._plan.sampler.timesteps)

    def _numbers(self, step: Step, seeds: Sequence[int]) -> Callable[[], None]:
        """Begin to look whether the latents after a `step` are numbers; the answer raises `EngineError` if they are not."""
        arrived = soon(torch.isfinite(step.x).flatten(1).all(dim=1))
        where = f"{self.painter.model.info.name} gave no numbers (NaN) at step {step.index + 1} of {self.total}"

        def refuse() -> None:
            finite = arrived()[0].tolist()
            bad = [str(seed) for seed, good in zip(seeds, finite, strict=True) if not good]
            if bad:
                raise EngineError(f"{where} for seed {', '.join(bad)}. {self._nan_reasons}")

        return refuse

    @property
    def _nan_reasons(self) -> str:
        short = (
            " Or its numbers are too large for float16, in which this device paints: start the program with --precision fp32 then."
            if self._hardware.dtype == torch.float16
            else ""
        )
        return f"The checkpoint or a LoRA may be damaged, or a LoRA weight or the CFG scale far too high.{short}"

    def denoiser(self, calls: int = 0, steps: int | None = None) -> GuidedUNet:
        """The checkpoint as the sampler sees it, after `calls` model calls of another one, in a run of `steps` steps, its own unless another began it."""
        unet, interval = self.loaded.model.unet, self._resolved.deep_cache
        set_wrapping(unet, self._resolved.tiling)
        set_hypernetworks(unet, self._hypernetworks)
        set_merging(unet, self._resolved.token_merging_ratio, *self._shape[1:])
        self.loaded.loras.attach(self._courses)
        steps, calls_twice = steps or self.total, self._plan.sampler.second_order
        # A graph would be compiled anew with each, and keys and values change with the weights of LoRAs.
        without = self._hardware.without
        keeps = self._hardware.compiled == "off" and not self._courses and "kept-keys" not in without
        return GuidedUNet(
            unet if interval == 1 else DeepCacheUNet(unet, interval),
            self._table.timestep,
            self.loaded.prediction(self._resolved.prediction_type),
            self._positive,
            self._negative,
            self._scale,
            self._hardware.dtype,
            self._concat,
            calls=calls,
            before=lambda call: self._courses.at(progress(call, second_order=calls_twice), steps),
            skip=self._skips,
            split=self._saving.split or "one-pass" in without,
            projections=TextProjections() if keeps else None,
            image_scale=self._image_scale,
        )

    def _skips(self, call: int, sigma: float) -> bool:
        """Whether a model call leaves the negative prompt out. Timesteps are whole or far from it: rounding takes away what float32 adds."""
        level = round(self._table.timestep(sigma), 2) if self._plan.sampler.timesteps else sigma
        return self._skipping.skips(call, level)

    def _timeline(self, branch: PromptBranch, *, is_negative: bool = False) -> Timeline:
        conditions = [self._condition(text, is_negative) for text in branch.texts]
        return Timeline(tuple((end, conditions[place]) for end, place in branch.stretches), branch.weight)

    def _condition(self, text: WeightedText, is_negative: bool) -> Condition:
        resolved, conditioner = self._resolved, self.loaded.conditioner
        states = conditioner.encode(
            text,
            clip_skip=resolved.clip_skip,
            emphasis=resolved.emphasis,
            weights=self.loaded.text_key(),
            is_negative=is_negative,
            embeddings=self._embeddings,
        )
        crop = (resolved.sdxl_crop_left, resolved.sdxl_crop_top)
        return conditioner.condition(states, resolved.width, resolved.height, crop, is_negative=is_negative)


def sampling_plan(resolved: ResolvedRequest, table: NoiseTable, lift: Lift | None = None) -> SamplingPlan:
    """The run of one pass, from noise or, with a `lift`, from given latents. Raises as `plan` does."""
    return plan(
        resolved.sampler,
        resolved.schedule,
        resolved.steps,
        table,
        resolved.sampler_options,
        strength=lift.strength if lift else None,
        exact_steps=lift is not None and lift.exact_steps,
    )


def batch_noise(
    resolved: ResolvedRequest,
    seeds: Sequence[int],
    subseeds: Sequence[int],
    shape: tuple[int, int, int],
    scale: int,
    device: torch.device,
) -> ImageNoise:
    """All noise that one batch of a request needs, float32 on `device`.

    Args:
        resolved: where its source, seed delta, variation strength and seed resize come from.
        seeds: one per picture of the batch.
        subseeds: variation seeds of the same pictures; empty without a variation.
        shape: latents of one picture, [C, h, w].
        scale: pixels per latent and side, for the size that the seed is resized from.
    """
    old, variation = resolved.seed_resize, resolved.variation
    return ImageNoise(
        seeds,
        shape,
        source=resolved.rng,
        device=device,
        dtype=torch.float32,
        ensd=resolved.sampler_options.ensd,
        subseeds=subseeds,
        subseed_strength=variation.strength if variation else 0.0,
        resize_from=(old.height // scale, old.width // scale) if old else None,
    )


def plain_noise(
    resolved: ResolvedRequest, seeds: Sequence[int], shape: tuple[int, int, int], device: torch.device
) -> Tensor:
    """The start noise [B, C, h, w] of the seeds alone, without variation or another size."""
    return ImageNoise(seeds, shape, source=resolved.rng, device=device, dtype=torch.float32).start()


def blank_inpaint_channels(vae: LoadedVae, shape: tuple[int, int, int], wraps: bool = False) -> Tensor:
    """What an inpainting U-Net is told beside the noise when there is no picture: [1, 1 + C, h, w].

    A mask of ones (paint everywhere) and the latents of a grey picture, as A1111 feeds it in txt2img. Raises as `encoded`.
    """
    _, height, width = shape
    grey = encoded(torch.zeros(3, height * vae.latent.scale, width * vae.latent.scale), vae, wraps=wraps)[None]
    return torch.cat((torch.ones_like(grey[:, :1]), grey), dim=1)


def _image_scale(model: LoadedModel, resolved: ResolvedRequest) -> float | None:
    """How strictly the picture is kept that instructions are about; None where that is as any other guidance."""
    scale = resolved.source.image_cfg_scale if resolved.source and model.edit else 1.0
    return None if scale == 1 else scale


def _counted(running: Iterator[Step], done: int) -> Iterator[Step]:
    """The same steps with numbers that count on from `done`."""
    for step in running:
        yield replace(step, index=step.index + done) if done else step


@torch.inference_mode()
def _advance(running: Iterator[Step]) -> Step | None:
    return next(running, None)
