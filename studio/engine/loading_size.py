"""How much memory a checkpoint is going to take: from the headers of its files, before anything of it is read."""

from __future__ import annotations

import functools
import math
from pathlib import Path

from studio.engine.eight_bit import Storage
from studio.engine.fingerprint import Fingerprint
from studio.engine.hardware import Hardware
from studio.engine.loading import IDLE_PREFIXES
from studio.errors import DamagedFile
from studio.families.signature import VAE_PREFIX
from studio.library.header import METADATA, read_header


def stored_bytes(files: Fingerprint, storage: Storage, hardware: Hardware) -> int:
    """Bytes of the weights once they are loaded, whatever number format the files are in; averaged copies (EMA) are not loaded.

    In eight bits that is near enough: norms and token tables, which stay as they are, are counted as all others. Files that cannot be read count nothing:
    loading them tells why.
    """
    vae, others = _weights(files)
    return vae * hardware.vae_dtype.itemsize + others * storage.bytes_each(hardware.dtype, hardware.device)


@functools.lru_cache(maxsize=64)
def _weights(files: Fingerprint) -> tuple[int, int]:
    """How many numbers the VAE has, and how many the other networks."""
    vae = others = 0
    for name, _, _ in files:
        path = Path(name)
        for key, shape in _shapes(path).items():
            count = 0 if key.startswith(IDLE_PREFIXES) else math.prod(shape)
            if path.parent.name == "vae" or key.startswith(VAE_PREFIX):
                vae += count
            else:
                others += count
    return vae, others


def _shapes(path: Path) -> dict[str, list[int]]:
    """By the names of its tensors; nothing of a file that has none or is damaged."""
    try:
        header = read_header(path) if path.suffix == ".safetensors" else {}
    except (DamagedFile, OSError):
        return {}
    return {key: entry["shape"] for key, entry in header.items() if key != METADATA}
