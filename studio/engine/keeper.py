"""`ModelKeeper`: the loaded checkpoints, their LoRAs, the VAE and an upscaler model; notices when their files change.

Checkpoints that were used last stay loaded as far as memory and the number allowed go, so that changing between them takes no
time. Room for another one is made before it is loaded, by putting away those whose last use is longest ago.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence, Set
from dataclasses import replace
from pathlib import Path

from studio.engine.conditioning import CACHED_PROMPTS, Conditioner
from studio.engine.eight_bit import PLAIN, Storage
from studio.engine.embeddings import EmbeddingVectors
from studio.engine.enlarging import UpscalerModel
from studio.engine.fingerprint import Fingerprint, fingerprint, states_of
from studio.engine.hardware import Hardware, available_bytes
from studio.engine.hypernetwork import HypernetworkFiles, set_hypernetworks
from studio.engine.loaded import LoadedCheckpoint, noise_table
from studio.engine.loading import LatentFacts, LoadedModel, LoadedVae, load_checkpoint, load_vae
from studio.engine.loading_copies import Copies
from studio.engine.loading_size import stored_bytes
from studio.engine.lora import KEPT_BYTES, LoraStack
from studio.engine.offload import UNET_ROOM, WORKING_MEMORY, Offload, Placing, Stage, offload_notes
from studio.engine.text_files import TextEncoders
from studio.engine.tiny_vae import load_tiny_vae
from studio.errors import NotFound
from studio.families.tiny_vae import Half
from studio.prompt.tokenizer import shipped_tokenizer
from studio.schema.models import ModelInfo
from studio.schema.resolved import ResolvedRequest

KEPT_VAES = 2
"""Separate VAEs that stay loaded: one for each pass."""


class ModelKeeper:
    """Loads what a job asks for, unless it is loaded already and its files are the same.

    Args:
        hardware: where to.
        limit: how many checkpoints may be loaded at once, 1 at least; those of one job count as one.
        copies: where converted copies of checkpoints are kept on disk; None keeps none.
        whole: what is loaded lies on the device as a whole, even if it does not seem to fit, as training needs it.
    """

    def __init__(
        self, hardware: Hardware, limit: int = 1, copies: Copies | None = None, *, whole: bool = False
    ) -> None:
        self.stage = Stage(hardware.device, hardware.free)
        self._hardware = hardware
        self._whole = whole
        self._copies = copies
        self._limit = limit
        self._tokenizer = shipped_tokenizer()
        self._hypernetworks = HypernetworkFiles(hardware.device, hardware.dtype)
        self._held: list[LoadedCheckpoint] = []  # the last used one last
        self._vaes = OrderedDict[tuple[Fingerprint, str, LatentFacts], LoadedVae]()  # the last used one last
        self._tiny: dict[Half, tuple[Hashable, LoadedVae]] = {}
        self._upscaler: tuple[Fingerprint, UpscalerModel] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether no checkpoint is loaded."""
        return not self._held

    def has(self, info: ModelInfo, storage: Storage = PLAIN) -> bool:
        """Whether `checkpoint` returns at once for these. Raises `NotFound` when the file is gone."""
        return self._find(fingerprint(info), storage) is not None

    def held(self, info: ModelInfo) -> LoadedCheckpoint | None:
        """The checkpoint if it is loaded, however it is stored; nothing is put away for it. Raises `NotFound` when the file is gone."""
        return self._find(fingerprint(info))

    def has_room(self, info: ModelInfo, beside: Iterable[ModelInfo], storage: Storage = PLAIN) -> bool:
        """Whether it can be loaded without putting one of `beside` away."""
        stay = {fingerprint(other) for other in beside}
        others = [held for held in self._held if held.fingerprint not in stay]
        return self.has(info, storage) or self._fits(info, others, storage, stay)

    def holds(self, loaded: LoadedCheckpoint) -> bool:
        """Whether `loaded` can still be painted with."""
        return loaded in self._held

    def checkpoint(
        self, info: ModelInfo, beside: Iterable[ModelInfo] = (), storage: Storage = PLAIN
    ) -> LoadedCheckpoint:
        """The checkpoint, loaded if need be. Room is made first; those of `beside` go last, and only if there is none without.

        Stored otherwise it takes the place of itself. Raises `NotFound`, `InvalidRequest` where the device has no such numbers, and what
        `load_checkpoint` raises; then it is not loaded.
        """
        current, stay = fingerprint(info), {fingerprint(other) for other in beside}
        found = self._find(current, storage)
        if found is None:
            storage.check(self._hardware.device)
            self._make_room(info, stay, storage)
            found = self._loaded(info, current, storage, stay)
        else:
            self._held.remove(found)
            if wanted := found.visitor:
                self._clear(stay, lambda held: not held.offload and self._hardware.free_memory() < wanted + UNET_ROOM)
        self._held.append(found)
        return found

    def vae(self, info: ModelInfo | None, loaded: LoadedCheckpoint) -> LoadedVae:
        """The separate VAE `info`, or the checkpoint's own. Raises `NotFound` and what `load_vae` raises."""
        if info is None:
            return LoadedVae(loaded.model.vae, loaded.model.latent, self.stage)
        current = (fingerprint(info), loaded.model.family.name, loaded.model.latent)  # it is built to fit these
        if current not in self._vaes:
            while len(self._vaes) >= KEPT_VAES:
                self._vaes.popitem(last=False)
            vae = load_vae(info, loaded.model, self._hardware.vae_dtype, self._hardware.layout)
            self._hardware.prepare(vae.module)
            self._vaes[current] = replace(vae, stage=self.stage)
        self._vaes.move_to_end(current)
        return self._vaes[current]

    def tiny_vae(self, file: str, half: Half, loaded: LoadedCheckpoint) -> LoadedVae:
        """A half of the tiny autoencoder for the checkpoint. Raises `NotFound` and what `load_tiny_vae` raises."""
        try:
            # It is checked against what it is to decode.
            current = (states_of([Path(file)]), loaded.model.family.latent_space, loaded.model.latent)
        except OSError:
            raise NotFound(f"{file} is gone. Put it back, or choose Full.", field=f"vae_{half}") from None
        if half not in self._tiny or self._tiny[half][0] != current:
            vae = load_tiny_vae(Path(file), half, loaded.model, self._hardware.vae_dtype)
            self._tiny[half] = (current, replace(vae, stage=self.stage))
        return self._tiny[half][1]

    def upscaler(self, info: ModelInfo) -> UpscalerModel:
        """The upscaler model; the one that was used last stays loaded. Raises `NotFound` and what `load_upscaler` raises."""
        current = fingerprint(info)
        if self._upscaler is None or self._upscaler[0] != current:
            self._upscaler = None
            self._upscaler = (current, UpscalerModel(info, self._hardware.device))
        return self._upscaler[1]

    def gather(self) -> None:
        """Bring in what a job before had to put outside of the device, as far as there is room."""
        for held in self._held:
            held.gather()
        if not any(
            held.parked for held in self._held
        ):  # VAEs that were read meanwhile lie outside as well: they are read again
            for key in [key for key, vae in self._vaes.items() if self.stage.is_outside(vae.module)]:
                del self._vaes[key]
            for half in [half for half, (_, vae) in self._tiny.items() if self.stage.is_outside(vae.module)]:
                del self._tiny[half]

    def rest(self) -> None:
        """Let go of what only the job that ends now needed."""
        for held in self._held:
            held.loras.attach(None)

    def _loaded(
        self, info: ModelInfo, current: Fingerprint, storage: Storage, beside: Set[Fingerprint]
    ) -> LoadedCheckpoint:
        hardware = self._hardware
        placing = Placing(hardware, self._visitor(beside), whole=self._whole)
        model = self._read(info, storage, placing)
        hardware.prepare(model.unet, model.vae, moves=placing.offload != Offload.NONE)
        return LoadedCheckpoint(
            model,
            LoraStack(model, hardware.device, 0 if "kept-merges" in hardware.without else KEPT_BYTES),
            EmbeddingVectors(model, self._tokenizer),
            Conditioner(model, self._tokenizer, 0 if "prompt-cache" in hardware.without else CACHED_PROMPTS),
            self._hypernetworks,
            noise_table(model, model.alphas_cumprod),
            current,
            TextEncoders(model, hardware.dtype, hardware.layout, storage),
            self.stage,
            storage,
            placing.offload,
            (*model.notes, *offload_notes(placing.offload, info.name, hardware.device_label)),
        )

    def _read(self, info: ModelInfo, storage: Storage, placing: Placing) -> LoadedModel:
        """Load it where it is to lie; again, with more of it outside of the device, when memory runs out in spite of that."""
        hardware = self._hardware
        try:
            return load_checkpoint(
                info,
                hardware.device,
                hardware.dtype,
                vae_dtype=hardware.vae_dtype,
                layout=hardware.layout,
                packs=hardware.packs,
                copies=self._copies,
                storage=storage,
                place=placing,
            )
        except Exception as error:
            if not placing.once_more(error):
                raise
        hardware.free()
        return self._read(info, storage, placing)

    def _make_room(self, info: ModelInfo, beside: Set[Fingerprint], storage: Storage) -> None:
        """Put away other states of the same files, and what was used longest ago until number and memory allow for `info`."""
        self._put_away([held for held in self._held if held.model.info.path == info.path])
        first = [held for held in self._held if held.fingerprint not in beside]
        self._put_away(first[: max(0, len(first) + 1 - self._limit)])
        self._clear(beside, lambda held: self._is_in_the_way(held, info, storage, beside))

    def _clear(self, beside: Set[Fingerprint], is_in_the_way: Callable[[LoadedCheckpoint], bool]) -> None:
        """Put away what is in the way, asked one after the other: by last use, those of `beside` last; of each first what only saves time."""
        for held in sorted(self._held, key=lambda held: held.fingerprint in beside):
            if is_in_the_way(held) and held.loras.forget():
                self._hardware.free()
            if is_in_the_way(held):
                self._put_away([held])

    def _is_in_the_way(
        self, held: LoadedCheckpoint, info: ModelInfo, storage: Storage, beside: Set[Fingerprint]
    ) -> bool:
        """Whether `info` needs memory that `held` has: of the device, or of the machine where both would wait outside."""
        if self._fits(info, (), storage, beside):
            return False
        return held.offload == Offload.NONE or available_bytes() < self._wanted(info, storage) + WORKING_MEMORY

    def _fits(
        self, info: ModelInfo, without: Iterable[LoadedCheckpoint], storage: Storage, beside: Set[Fingerprint]
    ) -> bool:
        """Whether the device has memory for `info` once `without` are put away, and for what comes of `beside` meanwhile."""
        wanted = self._wanted(info, storage) + self._visitor(beside)
        free = self._hardware.free_memory() - sum(held.mapped_bytes for held in self._held)
        return free + sum(held.bytes for held in without) >= wanted + WORKING_MEMORY

    def _wanted(self, info: ModelInfo, storage: Storage) -> int:
        """Bytes of its weights once it is loaded."""
        return stored_bytes(fingerprint(info), storage, self._hardware)

    def _visitor(self, among: Set[Fingerprint]) -> int:
        """Bytes of the largest network that may come to the device."""
        return max((held.visitor for held in self._held if held.fingerprint in among), default=0)

    def keep_only(self, job: Iterable[ModelInfo]) -> bool:
        """Put away all checkpoints but these; whether there were any."""
        stay = {info.path for info in job}
        others = [held for held in self._held if held.model.info.path not in stay]
        self._put_away(others)
        return bool(others)

    def spare(self, job: ResolvedRequest) -> bool:
        """Put away what `job` does not need: other checkpoints, and what only saves time. Whether there was anything."""
        needed = {fingerprint(info) for info in (*job.all_vaes, *job.upscaler_models)}
        idle = [key for key in self._vaes if key[0] not in needed]
        for key in idle:
            del self._vaes[key]
        if upscaler := self._upscaler is not None and self._upscaler[0] not in needed:
            self._upscaler = None
        tiny: dict[Half, str | None] = {"decoder": job.tiny_decoder, "encoder": job.tiny_encoder}
        halves = [half for half in self._tiny if not tiny[half]]
        for half in halves:
            del self._tiny[half]
        gone = [bool(idle), upscaler, bool(halves), self.keep_only(job.checkpoints)]
        for held in self._held:
            set_hypernetworks(held.model.unet, ())  # the next pass says which again
            gone += [held.loras.forget(), held.text.forget(job.all_text_encoders)]
        return any([*gone, self._hypernetworks.forget(job.all_hypernetworks)])

    def drop(self) -> None:
        """Unload everything and give the memory back."""
        self._put_away(self._held)

    def _find(self, current: Fingerprint, storage: Storage | None = None) -> LoadedCheckpoint | None:
        """By the state of its files, stored in this way, or in any."""
        found = (loaded for loaded in self._held if loaded.fingerprint == current)
        return next((loaded for loaded in found if storage in (None, loaded.storage)), None)

    def _put_away(self, unwanted: Sequence[LoadedCheckpoint]) -> None:
        """Unload these; with the last checkpoint go the separate VAEs, which were made to fit it, and the upscaler model."""
        if not unwanted:
            return
        self._held = [loaded for loaded in self._held if loaded not in unwanted]
        for loaded in unwanted:
            loaded.release()
        if not self._held:
            self._vaes.clear()
            self._upscaler = None
            self._tiny.clear()
        self._hardware.free()
