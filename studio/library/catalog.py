"""`Library`: all models of an installation, and the thread that hashes them.

Looking is cheap: a refresh lists folders, and only what changed is read again. Small models are hashed when they are looked
up, so that the first picture already carries the hash; large ones in the background, once in their life.
"""

from __future__ import annotations

import threading
from pathlib import Path

from studio.errors import UnknownModel, UnknownName
from studio.families.tiny_vae import Half
from studio.library.embeddings import word_of
from studio.library.faces import face_plan, restorer_names
from studio.library.hashes import (
    CHECKPOINT_DIGITS,
    EMBEDDING_DIGITS,
    LEGACY_OFFSET,
    LORA_DIGITS,
    HashCache,
    file_hashes,
    folder_id,
    legacy_hash,
    lora_short_hash,
)
from studio.library.init_images import InitImages
from studio.library.lookup import find_model
from studio.library.shelf import Entry, File, Place, Shelf
from studio.library.styles import StyleBook
from studio.library.tiny_vae import find_tiny_vae
from studio.library.wildcards import WildcardFolder
from studio.paths import Paths
from studio.prompt.styles import Style
from studio.schema.faces import FacePlan
from studio.schema.models import ModelInfo, ModelKind
from studio.schema.resolved import InitImage
from studio.upscalers import UPSCALERS, stems_of

DEFAULT_CHECKPOINT = "sprout-v1"
"""Taken where nobody chose: the model that ships with the program."""
NO_VAE = ("", "automatic", "none")
HASHED_AT_ONCE = 64 * 1024 * 1024
"""Bytes that are hashed while somebody waits."""


class Library:
    """All models below `paths`, of every kind, styles and wildcards. Thread-safe. The first question makes it look around."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._cache = HashCache(paths.state / "hashes.json")
        roots = dict.fromkeys((paths.checkpoints.absolute(), paths.embedded_checkpoints.absolute()))
        vae = paths.vae.absolute()
        self._models = Shelf(*(Place(root, "checkpoint", skip=(vae,)) for root in roots), Place(vae, "vae"))
        self.styles = StyleBook(paths.root)
        self.wildcards = WildcardFolder(paths.wildcards)
        self.init_images = InitImages(paths.init_images, paths.waiting_images)
        self._loras = Shelf(Place(paths.loras.absolute(), "lora"))
        self._embeddings = Shelf(Place(paths.embeddings.absolute(), "embedding"))
        self._hypernetworks = Shelf(Place(paths.hypernetworks.absolute(), "hypernetwork"))
        self._text_encoders = Shelf(Place(paths.text_encoders.absolute(), "text_encoder"))
        self._upscalers = Shelf(Place(paths.upscalers.absolute(), "upscaler"))
        self._hasher = _Hasher(self)

    # -- lists ---------------------------------------------------------------------------------------------------------

    def checkpoints(self) -> list[ModelInfo]:
        """All checkpoints, also those that cannot be used: see their `problem`."""
        return self._list("checkpoint")

    def vaes(self) -> list[ModelInfo]:
        """All separate VAEs."""
        return self._list("vae")

    def text_encoders(self) -> list[ModelInfo]:
        """All text encoders in files of their own."""
        return self._list("text_encoder")

    def loras(self) -> list[ModelInfo]:
        """All LoRAs."""
        return self._list("lora")

    def embeddings(self) -> list[ModelInfo]:
        """All embeddings. Files that came or went count at once: a prompt names embeddings without saying so, and never misses one."""
        self._embeddings.look()
        return self._list("embedding")

    def hypernetworks(self) -> list[ModelInfo]:
        """All hypernetworks."""
        return self._list("hypernetwork")

    def upscalers(self) -> list[ModelInfo]:
        """All upscaler models."""
        return self._list("upscaler")

    def embedding_hashes(self) -> dict[str, str]:
        """The word of every usable embedding, and its short hash, "" while that is not known."""
        return {word_of(info): info.short_hash or "" for info in self._list("embedding") if not info.problem}

    def lora_hashes(self) -> dict[str, str]:
        """Short hash -> name of every LoRA whose hash is known: A1111's, and Forge's, which is over the whole file."""
        found: dict[str, str] = {}
        for info in self.loras():
            found.update({info.sha256[:LORA_DIGITS]: info.name} if info.sha256 else {})
            found.update({info.short_hash: info.name} if info.short_hash else {})
        return found

    # -- one model -----------------------------------------------------------------------------------------------------

    def checkpoint(self, name: str | None) -> ModelInfo:
        """The checkpoint called `name`: name, title, file name, stem, hash or legacy hash.

        None is the model that ships with the program, or the first usable one. Raises `UnknownModel` with near matches.
        """
        info = self._default() if name is None else self._find("checkpoint", name)
        if info is not None:
            return info
        if name is None:
            folder = self._paths.checkpoints
            message = f"There is no usable checkpoint: put a .safetensors file or a diffusers folder into {folder}."
            raise UnknownModel(message, field="model")
        raise UnknownModel.of("checkpoint", name, [model.name for model in self.checkpoints()], field="model")

    def vae(self, name: str) -> ModelInfo | None:
        """The VAE called `name`; None for "Automatic" and "None". Raises `UnknownModel` with near matches."""
        if name.strip().casefold() in NO_VAE:
            return None
        info = self._find("vae", name)
        if info is None:
            raise UnknownModel.of("VAE", name, [model.name for model in self.vaes()], field="vae")
        return info

    def text_encoder(self, name: str) -> ModelInfo:
        """The text encoder called `name`. Raises `UnknownModel` with near matches."""
        info = self._find("text_encoder", name)
        if info is None:
            known = [model.name for model in self.text_encoders()]
            raise UnknownModel.of("text encoder", name, known, field="text_encoders")
        return info

    def tiny_vae(self, latent_space: str, half: Half) -> Path:
        """The file of the tiny autoencoder's half; see `find_tiny_vae`."""
        return find_tiny_vae(self._paths.vae_approx.absolute(), latent_space, half)

    def face_plan(self, name: str, weight: float) -> FacePlan:
        """The files that restore faces; see `studio.library.faces.face_plan`."""
        return face_plan(self._paths.face_restoration.absolute(), name, weight)

    def face_restorers(self) -> list[str]:
        """What `face_plan` may be asked for."""
        return restorer_names(self._paths.face_restoration.absolute())

    def lora(self, name: str) -> ModelInfo:
        """The LoRA called `name`, which may also be its alias. Raises `UnknownName` with near matches."""
        info = self._find("lora", name)
        if info is None:
            raise UnknownName.of("LoRA", name, [model.name for model in self.loras()], field="prompt")
        return info

    def embedding(self, name: str) -> ModelInfo:
        """The embedding called `name`. Raises `UnknownName` with near matches."""
        info = self._find("embedding", name)
        if info is None:
            raise UnknownName.of("embedding", name, [model.name for model in self.embeddings()], field="prompt")
        return info

    def hypernetwork(self, name: str) -> ModelInfo:
        """The hypernetwork called `name`. Raises `UnknownName` with near matches."""
        info = self._find("hypernetwork", name)
        if info is None:
            known = [model.name for model in self.hypernetworks()]
            raise UnknownName.of("hypernetwork", name, known, field="prompt")
        return info

    def upscaler(self, name: str) -> ModelInfo:
        """The upscaler model called `name`, which may also be A1111's name of it. Raises `UnknownName` with near matches."""
        found = (self._find("upscaler", known) for known in (name, *stems_of(name)))
        info = next((info for info in found if info), None)
        if info is None:
            known = [*UPSCALERS.names(), *(model.name for model in self.upscalers())]
            raise UnknownName.of("upscaler", name, known)
        return info

    def style(self, name: str) -> Style:
        """The style called `name`. Raises `UnknownName` with near matches, `DamagedFile`."""
        return self.styles.find(name)

    def wildcard(self, name: str) -> list[str]:
        """The lines of a wildcard; see `WildcardFolder.lines`."""
        return self.wildcards.lines(name)

    def init_image(self, name: str) -> InitImage:
        """The kept picture called `name`; see `InitImages.find`."""
        return self.init_images.find(name)

    # -- keeping up ----------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Look at the folders again. Only new and changed files are read."""
        self._models.refresh()
        self._loras.refresh()
        self._embeddings.refresh()
        self._hypernetworks.refresh()
        self._text_encoders.refresh()
        self._upscalers.refresh()
        self._hasher.wake()

    def start_hashing(self) -> None:
        """Begin hashing what is not hashed yet, in the background, now and after every refresh."""
        self._hasher.start()

    def close(self) -> None:
        """Stop hashing. Idempotent."""
        self._hasher.close()

    def unhashed_files(self) -> list[File]:
        """Weight files of sound models whose hashes are not known."""
        entries = [entry for kind in ("checkpoint", "vae") for entry in self._models.entries(kind)]
        entries += [*self._loras.entries("lora"), *self._embeddings.entries("embedding")]
        entries += self._hypernetworks.entries("hypernetwork")
        entries += self._text_encoders.entries("text_encoder")
        entries += self._upscalers.entries("upscaler")
        files = [file for entry in entries if not entry.info.problem for file in entry.files]
        return [file for file in files if self._cache.get(*file) is None]

    def hash_file(self, file: File, stop: threading.Event | None = None) -> None:
        """Hash one file into the cache, unless it is known, gone or changed, or `stop` is set meanwhile."""
        if self._cache.get(*file) is not None:
            return
        try:
            hashes = file_hashes(file.path, stop.is_set if stop else lambda: False)
            after = file.path.stat()
        except OSError:
            return
        if hashes and (after.st_size, after.st_mtime_ns) == file[1:]:
            self._cache.put(*file, hashes)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _shelf(self, kind: ModelKind) -> Shelf:
        own = {
            "lora": self._loras,
            "embedding": self._embeddings,
            "hypernetwork": self._hypernetworks,
            "upscaler": self._upscalers,
            "text_encoder": self._text_encoders,
        }
        return own.get(kind, self._models)

    def _list(self, kind: ModelKind) -> list[ModelInfo]:
        return [self._with_hashes(entry) for entry in self._shelf(kind).entries(kind)]

    def _default(self) -> ModelInfo | None:
        usable = [info for info in self.checkpoints() if not info.problem]
        chosen = next((info for info in usable if info.name == DEFAULT_CHECKPOINT), usable[0] if usable else None)
        return None if chosen is None else self._find("checkpoint", chosen.name)

    def _find(self, kind: ModelKind, name: str) -> ModelInfo | None:
        """Look up; look around once more when nothing fits, or what fits has changed on disk."""
        shelf = self._shelf(kind)
        info = find_model(name, self._list(kind), _legacy)
        entry = shelf.entry(info.path) if info else None
        if entry is None or not entry.is_current():
            shelf.refresh()
            self._hasher.wake()
            info = find_model(name, self._list(kind), _legacy)
            entry = shelf.entry(info.path) if info else None
        if info is None or entry is None:
            return None
        if not info.problem and info.size <= HASHED_AT_ONCE:
            for file in entry.files:
                self.hash_file(file)
        return self._with_hashes(entry)

    def _with_hashes(self, entry: Entry) -> ModelInfo:
        """The model with the hashes that are known."""
        info = entry.info
        known = [self._cache.get(*file) for file in entry.files]
        if info.problem or not known:
            return info
        if info.layout == "folder":
            names = [file.path.relative_to(info.path).as_posix() for file in entry.files]
            digests = [hashes.sha256 for hashes in known if hashes]
            if len(digests) < len(names):
                return info
            return info.model_copy(update={"model_id": folder_id(zip(names, digests, strict=True))})
        hashes = known[0]
        sha256 = hashes.sha256 if hashes else None
        digits = EMBEDDING_DIGITS if info.kind == "embedding" else CHECKPOINT_DIGITS
        short = lora_short_hash(info.metadata, hashes) if info.kind == "lora" else sha256 and sha256[:digits]
        return info.model_copy(update={"sha256": sha256, "short_hash": short})


def _legacy(info: ModelInfo) -> str | None:
    """None for a folder, and for a file so short that all of its size share one legacy hash."""
    try:
        return legacy_hash(Path(info.path)) if info.layout == "file" and info.size > LEGACY_OFFSET else None
    except OSError:
        return None


class _Hasher:
    """The background thread: one round over all models after each `wake`."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._stop = threading.Event()
        self._wanted = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        if self._thread is None:
            self._wanted.set()
            self._thread = threading.Thread(target=self._run, name="library-hasher", daemon=True)
            self._thread.start()

    def wake(self) -> None:
        self._wanted.set()

    def close(self) -> None:
        self._stop.set()
        self._wanted.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while self._wanted.wait() and not self._stop.is_set():
            self._wanted.clear()
            for file in self._library.unhashed_files():
                if self._stop.is_set():
                    return
                self._library.hash_file(file, self._stop)
