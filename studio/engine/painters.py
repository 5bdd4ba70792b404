"""What paints the batches of a job: one pass of one checkpoint, or several that follow each other, made when their turns come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from PIL import Image

from studio.engine.branching import BranchPass
from studio.engine.canvas import Canvas
from studio.engine.coding import Coding
from studio.engine.eight_bit import Storage
from studio.engine.hardware import Hardware
from studio.engine.hires import TwoPasses, second_pass
from studio.engine.keeper import ModelKeeper
from studio.engine.latents import start_point
from studio.engine.leaving import Ask
from studio.engine.loaded import LoadedCheckpoint
from studio.engine.loading import LatentFacts
from studio.engine.lora import LoraWeights
from studio.engine.painting import Painter
from studio.engine.passes import DenoisingPass, Lift, sampling_plan
from studio.engine.refiner import RefinerPass, check_latents
from studio.engine.sd_upscale import TiledPasses, enlarged_source
from studio.schema.models import ModelInfo
from studio.schema.resolved import ResolvedRequest

Load = Callable[[ModelInfo, ResolvedRequest], LoadedCheckpoint]
"""Gives a checkpoint that a job comes to while it paints."""


def merged_loras(resolved: ResolvedRequest) -> tuple[LoraWeights, ...]:
    """What is merged into the weights of a request's checkpoint."""
    return tuple(weights for use in resolved.loras if (weights := LoraWeights.of(use)).te or weights.unet)


class Painters:
    """Makes what paints one job.

    Args:
        job: what to paint.
        keeper: has the checkpoints.
        coding: the job's autoencoders, and how memory is saved.
        hardware: where.
        load: gives a checkpoint that may not be in memory.
        ask: raises `Left` where the batch is not wanted any more.
    """

    def __init__(
        self,
        job: ResolvedRequest,
        keeper: ModelKeeper,
        coding: Coding,
        hardware: Hardware,
        load: Load,
        ask: Ask,
    ) -> None:
        self._job = job
        self._keeper = keeper
        self._coding = coding
        self._hardware = hardware
        self._load = load
        self._ask = ask

    def painter(self, loaded: LoadedCheckpoint, kept: bytes, canvas: Canvas | None) -> Painter:
        """What paints a batch that begins with the checkpoint `loaded`, and with what is on the `canvas`; `kept` are the latents that a branch goes on from."""
        job, first_storage = self._job, loaded.storage
        given = [canvas] if canvas else []

        def make(part: ResolvedRequest, lift: Lift | None = None, begins: Sequence[Canvas] = given) -> DenoisingPass:
            current, same = loaded, part.model.path == job.model.path and Storage.of(job, part.model) == first_storage
            if not same or not self._keeper.holds(loaded):  # another one needed the room
                current = self._load(part.model, job)
            current.read_with(part.text_encoders, merged_loras(part))
            self._ask()
            if part.source is None:
                begins = ()
            elif begins:
                lift = Lift(part.source.denoising_strength, exact_steps=part.source.exact_steps)
            painting = self._pass(current, part, lift, begins)
            self._ask()  # its prompts are read
            return painting

        def first() -> DenoisingPass | BranchPass:
            if job.branch is None:
                return make(job)
            latent, device = loaded.model.latent, self._hardware.device
            shape = (1, latent.channels, job.height // latent.scale, job.width // latent.scale)
            return BranchPass(job, make, start_point(kept, job.branch.step, shape, self._hardware.backend, device))

        if job.sd_upscale:

            def over(tiles: Sequence[Image.Image]) -> DenoisingPass:
                return make(job, begins=[Canvas(tile, tile) for tile in tiles])

            return TiledPasses(
                job, partial(enlarged_source, job, self._coding.upscaler), over, partial(self._coding.tile, job)
            )
        plan = job.hires
        if plan is None or plan.denoising_strength == 0:
            return first()
        part, lift = second_pass(job), Lift(plan.denoising_strength)
        table = loaded.table_for(job.noise_schedule, downcast=job.downcast_alphas)
        begin = partial(self._coding.begun, job, loaded.model.latent)
        return TwoPasses(
            first,
            partial(make, part, lift),
            partial(self._coding.enlarged, job),
            begin,
            sampling_plan(part, table, lift).steps,
        )

    def _pass(
        self, loaded: LoadedCheckpoint, part: ResolvedRequest, lift: Lift | None, begins: Sequence[Canvas]
    ) -> DenoisingPass:
        """A pass of the job, with its refiner. `begins` are the pictures that it begins with; see `DenoisingPass` for `lift`, which it has with them."""
        refiner = None
        if part.refiner is not None:
            open_pass = partial(self._open_refiner, part, loaded.model.latent, lift, begins)
            refiner = RefinerPass(part.refiner, open_pass)
        coding = self._coding
        source = coding.source(loaded, part, begins) if begins else None
        grey = coding.vae("encoder", part, loaded) if source is None and loaded.model.inpaint else None
        return DenoisingPass(
            loaded, part, self._hardware, coding.saving, refiner, lift=lift, source=source, encoder=grey
        )

    def _open_refiner(
        self, part: ResolvedRequest, latent: LatentFacts, lift: Lift | None, begins: Sequence[Canvas]
    ) -> tuple[LoadedCheckpoint, DenoisingPass]:
        """The refiner's checkpoint and pass. LoRAs and embeddings go into it where they fit, as in AUTOMATIC1111; its text encoders are its own."""
        assert part.refiner is not None
        model = part.refiner.model
        self._keeper.stage.change()  # what has painted until now makes room
        loaded = self._load(model, self._job)
        check_latents(latent, loaded.model)
        same = model.family == part.model.family
        update = {
            "model": model, "prediction_type": "Automatic", "loras": part.loras if same else (),
            "embeddings": part.embeddings if same or model.family == "sdxl_refiner" else (),
        }  # fmt: skip
        finishing = part.model_copy(update=update)
        loaded.read_with((), merged_loras(finishing))
        self._ask()
        # Its latents are those that the first pass leaves: only a checkpoint that is told of the picture beside them needs it.
        told = begins if loaded.model.inpaint or loaded.model.edit else ()
        source = self._coding.source(loaded, finishing, told) if told else None
        painting = DenoisingPass(loaded, finishing, self._hardware, self._coding.saving, lift=lift, source=source)
        self._ask()  # its prompts are read
        self._coding.saving.hand_over(loaded)
        return loaded, painting
