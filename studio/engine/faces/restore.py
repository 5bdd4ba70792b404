"""Restoring the faces of a finished picture, with networks that are loaded once and kept while they are needed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import nn

from studio.engine.faces.codeformer import CodeFormer
from studio.engine.faces.detector import find_faces
from studio.engine.faces.geometry import Floats, cropped, pasted, similarity, template
from studio.engine.faces.gfpgan import Gfpgan
from studio.engine.faces.retinaface import RetinaFace, Shapes
from studio.engine.hardware import Hardware
from studio.engine.loading_weights import Filling, Weights, empty
from studio.errors import EngineError, IncompatibleFile, NotFound
from studio.families.faces import DETECTOR, face_sources, unwrapped
from studio.schema.faces import FaceArchitecture, FacePlan

Restore = Callable[[Image.Image], Image.Image]
Restorer = CodeFormer | Gfpgan
RESTORERS: dict[FaceArchitecture, type[CodeFormer] | type[Gfpgan]] = {"CodeFormer": CodeFormer, "GFPGAN": Gfpgan}
"""Networks by name. Each has the `size` of its faces, and takes CodeFormer's weight beside them."""
M = TypeVar("M", bound=nn.Module)
State = tuple[str, int, int]


class FaceKeeper:
    """Loads what a job's face restoration needs, unless it is loaded already and its files are the same.

    The networks compute in float32, as they were published: a face is small, and there is one of it.
    """

    def __init__(self, hardware: Hardware) -> None:
        self._hardware = hardware
        self._loaded: dict[str, tuple[State, nn.Module]] = {}

    def restore(self, plan: FacePlan) -> Restore:
        """What restores the faces of a picture. Loaded networks stay: a plot may go from one restorer to the other.

        Raises `NotFound` for a file that is gone, `DamagedFile`, and `IncompatibleFile` for one with weights of another network.
        """
        detector = self._network(RetinaFace, DETECTOR, plan.detector)
        network = self._network(RESTORERS[plan.architecture], plan.architecture, plan.file)
        device = self._hardware.device
        return partial(restored, detector=detector, network=network, weight=plan.weight, device=device)

    def keep_only(self, plan: FacePlan | None) -> bool:
        """Unload what `plan` does not need; whether there was anything."""
        idle = self._loaded.keys() - ({DETECTOR, plan.architecture} if plan else set())
        for name in idle:
            del self._loaded[name]
        return bool(idle)

    def release(self) -> None:
        """Unload everything and give the memory back."""
        if self._loaded:
            self._loaded.clear()
            self._hardware.free()

    def _network(self, make: type[M], name: str, file: str) -> M:
        try:
            found = Path(file).stat()
        except OSError:
            message = f"{file} is gone. Put it back, or turn face restoration off."
            raise NotFound(message, field="face_restoration") from None
        state = (file, found.st_size, found.st_mtime_ns)
        held = self._loaded.get(name)
        if held and held[0] == state and isinstance(held[1], make):
            return held[1]
        self._loaded.pop(name, None)
        network = load_network(make, name, Path(file), self._hardware.device)
        self._loaded[name] = (state, network)
        return network


def load_network(make: Callable[[Shapes], M], name: str, path: Path, device: torch.device) -> M:
    """The network that `make` builds from the shapes of a file's weights, with these weights, float32. Raises as `FaceKeeper.restore`."""
    weights = Weights([path])
    shapes = {unwrapped(key): shape for key, shape in weights.shapes.items()}
    try:
        module = empty(partial(make, shapes), name)
    except IncompatibleFile:
        raise IncompatibleFile(
            f"{path.name} holds no {name} that is known here: its weights have other names or sizes.",
            field="face_restoration",
        ) from None
    choose = partial(face_sources, present=weights.shapes.keys())
    filled: M = Filling(module, weights, choose, torch.float32, name).from_file(device)
    return filled


@torch.inference_mode()
def restored(
    picture: Image.Image, *, detector: RetinaFace, network: Restorer, weight: float, device: torch.device
) -> Image.Image:
    """`picture`, RGB, with every face that is found painted anew; the very same where there is none.

    Raises `EngineError` when the network gives no numbers.
    """
    faces = find_faces(picture, detector, device)
    if not faces:
        return picture
    whole: Floats = np.asarray(picture, np.float32)
    result = whole
    for face in faces:
        matrix = similarity(face.landmarks, template(network.size))
        anew = _painted_anew(cropped(whole, matrix, network.size), network, weight, device)
        result = pasted(result, anew, matrix)
    return Image.fromarray(result.round().clip(0, 255).astype(np.uint8))


def _painted_anew(face: Floats, network: Restorer, weight: float, device: torch.device) -> Floats:
    """A face [size, size, 3] in 0..255 as the network sees it."""
    planes = torch.from_numpy((face.round() / 127.5 - 1).astype(np.float32)).permute(2, 0, 1)[None].to(device)
    answer = network(planes, weight)[0].float().cpu()
    if not bool(torch.isfinite(answer).all()):
        raise EngineError(
            "Face restoration gave no numbers (NaN). Its file may be damaged: choose another restorer, or turn it off."
        )
    found: Floats = ((answer.clamp(-1, 1) + 1) * 127.5).permute(1, 2, 0).numpy()
    return found
