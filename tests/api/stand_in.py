"""A studio over a `FakeEngine` and a library of three invented models, and a real server around it.

Run as a script it is a server process: `python -m tests.api.stand_in FOLDER PORT STEP_SECONDS`.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import uvicorn
from fastapi import FastAPI

from studio.api.auth import is_exposed
from studio.api.server import create_app
from studio.app import Studio
from studio.building import add_queue
from studio.engine.fake import FakeEngine
from studio.errors import UnknownModel, UnknownName
from studio.infotext import write_infotext
from studio.library.faces import face_plan, restorer_names
from studio.library.init_images import InitImages
from studio.library.styles import StyleBook
from studio.library.wildcards import WildcardFolder
from studio.paths import Paths
from studio.prompt import Style
from studio.schema.engine import Engine
from studio.schema.faces import FacePlan
from studio.schema.models import ModelInfo, ModelKind
from studio.schema.resolved import InitImage
from studio.settings import Settings
from studio.upscalers import stems_of


def model(kind: ModelKind, name: str, **fields: Any) -> ModelInfo:
    facts: dict[str, Any] = {"kind": kind, "name": name, "path": f"/models/{name}.safetensors", "layout": "file",
                             "family": "sd1", "size": 1, "mtime": 0.0, "native_size": 128, **fields}  # fmt: skip
    return ModelInfo.model_validate(facts)


class StandInLibrary:
    """What `studio.library.Library` offers, with no models on disk."""

    def __init__(self, paths: Paths) -> None:
        self.styles = StyleBook(paths.root)
        self.wildcards = WildcardFolder(paths.wildcards)
        self.init_images = InitImages(paths.init_images, paths.waiting_images)
        self.models = [
            model("checkpoint", "sprout", short_hash="0123456789", sha256="0123456789" + "a" * 54),
            model("checkpoint", "oak/old", native_size=512),
            model("checkpoint", "broken", problem="The file is truncated."),
        ]
        self.faces = paths.face_restoration
        self.refreshed = 0

    def refresh(self) -> None:
        self.refreshed += 1

    def start_hashing(self) -> None: ...

    def close(self) -> None: ...

    def lora_hashes(self) -> dict[str, str]:
        return {}

    def checkpoints(self) -> list[ModelInfo]:
        return self.models

    def vaes(self) -> list[ModelInfo]:
        return [model("vae", "sharp", short_hash="abcdef0123")]

    def loras(self) -> list[ModelInfo]:
        return [model("lora", "ink", alias="ink-style", metadata={"ss_output_name": "ink-style"})]

    def checkpoint(self, name: str | None) -> ModelInfo:
        if not name:
            return self.models[0]
        for info in self.models:
            if name in (info.name, info.title, info.short_hash):
                return info
        raise UnknownModel.of("checkpoint", name, [info.name for info in self.models], field="model")

    def text_encoders(self) -> list[ModelInfo]:
        return [model("text_encoder", "clip_l", family="unknown", text_widths=(768,))]

    def text_encoder(self, name: str) -> ModelInfo:
        if name == "clip_l":
            return self.text_encoders()[0]
        raise UnknownModel.of("text encoder", name, ["clip_l"], field="text_encoders")

    def vae(self, name: str | None) -> ModelInfo | None:
        if name in (None, "Automatic", "None"):
            return None
        if name == "sharp":
            return self.vaes()[0]
        raise UnknownModel.of("VAE", str(name), ["sharp"], field="vae")

    def face_plan(self, name: str, weight: float) -> FacePlan:
        return face_plan(self.faces, name, weight)

    def face_restorers(self) -> list[str]:
        return restorer_names(self.faces)

    def lora(self, name: str) -> ModelInfo:
        if name in ("ink", "ink-style"):
            return self.loras()[0]
        raise UnknownName.of("LoRA", name, ["ink"], field="prompt")

    def hypernetworks(self) -> list[ModelInfo]:
        return [model("hypernetwork", "anime"), model("hypernetwork", "cracked", problem="The file is truncated.")]

    def hypernetwork(self, name: str) -> ModelInfo:
        for info in self.hypernetworks():
            if name == info.name:
                return info
        raise UnknownName.of("hypernetwork", name, ["anime"], field="prompt")

    def embeddings(self) -> list[ModelInfo]:
        facts: dict[str, Any] = {"vectors": 4, "text_widths": (768,), "short_hash": "fedcba987654"}
        return [
            model("embedding", "soft/wash", **facts),
            model("embedding", "grand", family="sdxl", vectors=2, text_widths=(768, 1280)),
            model("embedding", "pickled", problem="pickled.pt is a pickle file."),
        ]

    def embedding(self, name: str) -> ModelInfo:
        for info in self.embeddings():
            if name == info.name:
                return info
        raise UnknownName.of("embedding", name, ["soft/wash"], field="prompt")

    def embedding_hashes(self) -> dict[str, str]:
        return {"wash": "fedcba987654", "grand": ""}

    def upscalers(self) -> list[ModelInfo]:
        return [
            model("upscaler", "4x-Sharp", enlarges=4),
            model("upscaler", "sub/RealESRGAN_x2plus", enlarges=2),
            model("upscaler", "odd", problem="This is no upscaler."),
        ]

    def upscaler(self, name: str) -> ModelInfo:
        for info in self.upscalers():
            if name == info.name or info.name.rpartition("/")[2] in stems_of(name):
                return info
        raise UnknownName.of("upscaler", name, [info.name for info in self.upscalers()])

    def init_image(self, name: str) -> InitImage:
        return self.init_images.find(name)

    def style(self, name: str) -> Style:
        return self.styles.find(name)

    def wildcard(self, name: str) -> list[str]:
        return self.wildcards.lines(name)


def make_studio(folder: Path, engine: Engine | None = None, **settings: Any) -> Studio:
    """A studio in `folder`, not started."""
    paths, chosen = Paths(folder), Settings(**settings)
    painter = engine or FakeEngine(infotext=lambda resolved, index: write_infotext(resolved, index, "v1"))
    studio = Studio(chosen, paths, cast("Any", StandInLibrary(paths)), None, painter, exposed=is_exposed(chosen))
    add_queue(studio)
    return studio


@contextlib.contextmanager
def serving(
    studio: Studio, mount: Callable[[FastAPI], FastAPI] | None = None, host: str | None = None
) -> Iterator[str]:
    """A started server in a thread; its address."""
    config = uvicorn.Config(
        create_app(studio, mount, host=host), host="127.0.0.1", port=0, log_level="error", lifespan="on",
        proxy_headers=False, timeout_graceful_shutdown=3,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    studio.start()
    thread.start()
    try:
        deadline = time.monotonic() + 20
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        studio.queue.events.close()
        studio.queue.sketches.close()
        server.should_exit = True
        thread.join(20)
        studio.close()


if __name__ == "__main__":
    slow = FakeEngine(step_seconds=float(sys.argv[2]))
    with serving(make_studio(Path(sys.argv[1]), slow)) as address:
        print(address, flush=True)
        threading.Event().wait()
