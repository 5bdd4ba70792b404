"""Where things lie on disk, and the only ways to build a path from outside text or to write a user's file."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from studio.errors import NotAllowed, StorageError

REPOSITORY = Path(__file__).resolve().parent.parent
_NAME_PART = re.compile(r"[^\x00-\x1f<>:\"|?*\\/]{1,255}")
_PORTS = "123456789¹²³"  # Windows reads the raised digits as digits
_RESERVED = {
    "CON",
    "PRN",
    "AUX",
    "NUL",
    "CONIN$",
    "CONOUT$",
    *(f"{port}{i}" for port in ("COM", "LPT") for i in _PORTS),
}


@dataclass(frozen=True)
class Paths:
    """All folders of one installation, below `root` (the repository, or `--data-dir`)."""

    root: Path

    @property
    def checkpoints(self) -> Path:
        """Checkpoints: .safetensors files and diffusers folders."""
        return self.root / "checkpoints"

    @property
    def loras(self) -> Path:
        """LoRA files."""
        return self.root / "loras"

    @property
    def embeddings(self) -> Path:
        """Embeddings (textual inversion)."""
        return self.root / "embeddings"

    @property
    def hypernetworks(self) -> Path:
        """Hypernetworks."""
        return self.root / "hypernetworks"

    @property
    def text_encoders(self) -> Path:
        """Text encoders in files of their own."""
        return self.root / "text_encoders"

    @property
    def upscalers(self) -> Path:
        """Models that enlarge pictures (ESRGAN)."""
        return self.root / "upscalers"

    @property
    def vae(self) -> Path:
        """Separate VAE files."""
        return self.checkpoints / "vae"

    @property
    def vae_approx(self) -> Path:
        """The tiny autoencoder (TAESD)."""
        return self.root / "vae_approx"

    @property
    def face_restoration(self) -> Path:
        """The networks that find faces and restore them."""
        return self.root / "face_restoration"

    @property
    def wildcards(self) -> Path:
        """Text files that `__name__` in a prompt draws lines from. Styles lie in `root` itself: styles.csv."""
        return self.root / "wildcards"

    @property
    def datasets(self) -> Path:
        """Training data that came as ZIP files, unpacked: a folder each."""
        return self.root / "datasets"

    @property
    def captioners(self) -> Path:
        """Models that describe pictures, a folder each."""
        return self.root / "captioners"

    @property
    def outputs(self) -> Path:
        """Everything the program makes."""
        return self.root / "outputs"

    @property
    def init_images(self) -> Path:
        """Pictures that saved ones began with, and masks, under names made of their pixels."""
        return self.outputs / "init-images"

    @property
    def waiting_images(self) -> Path:
        """Pictures that were given to begin with, and masks, which no saved picture began with yet."""
        return self.state / "init-images"

    @property
    def state(self) -> Path:
        """Queue, index, previews, latents, hash cache: can be deleted, pictures and settings stay."""
        return self.outputs / ".studio"

    @property
    def database(self) -> Path:
        """The SQLite queue and picture index."""
        return self.state / "studio.sqlite3"

    @property
    def previews(self) -> Path:
        """Step previews, one folder a job."""
        return self.state / "previews"

    @property
    def latents(self) -> Path:
        """The latents of steps, one folder a job."""
        return self.state / "latents"

    @property
    def training_caches(self) -> Path:
        """Encoded pictures and captions of training, by content."""
        return self.state / "training"

    @property
    def converted(self) -> Path:
        """Copies of checkpoints in the format that a processor paints in."""
        return self.state / "converted"

    @property
    def uploads(self) -> Path:
        """What Gradio keeps of uploads."""
        return self.state / "uploads"

    @property
    def runs(self) -> Path:
        """Training runs."""
        return self.outputs / "runs"

    @property
    def settings_file(self) -> Path:
        """The user's settings, JSON."""
        return self.root / "settings.json"

    @property
    def embedded_checkpoints(self) -> Path:
        """Models that ship with the program; listed also when `root` is elsewhere."""
        return REPOSITORY / "checkpoints"


def is_reserved(name: str) -> bool:
    """Whether Windows takes `name` for a device: `CON`, `nul.txt`, `COM1 .png`."""
    return name.split(".")[0].rstrip().upper() in _RESERVED


def safe_join(root: Path, *parts: str) -> Path:
    """`root` / parts, or `NotAllowed` when the result would lie outside `root` or a part is no legal name anywhere.

    Each part may hold '/' separated names. Absolute paths, '..', drive letters, control characters and names that
    Windows reserves are refused; symbolic links are resolved before the check.
    """
    names = [name for part in parts for name in part.split("/")]
    for name in names:
        if not _NAME_PART.fullmatch(name) or name in {".", ".."} or name[-1] in " ." or is_reserved(name):
            raise NotAllowed(f"{'/'.join(parts)!r} is not a name inside {root.name!r}.")
    base = root.resolve()
    joined = base.joinpath(*names).resolve()
    if joined == base or base not in joined.parents:
        raise NotAllowed(f"{'/'.join(parts)!r} is not inside {root.name!r}.")
    return joined


def atomic_write(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a reader (or a crash) sees the old file or the new one, never a part.

    Raises `StorageError` naming the folder when the disk is full or cannot be written; the old file is then intact.
    """
    with atomic_target(path) as temporary:
        temporary.write_bytes(data)


@contextlib.contextmanager
def atomic_target(path: Path) -> Iterator[Path]:
    """An empty file in the folder of `path`, to be filled; it takes the place of `path` when the block ends, and vanishes when the block raises.

    temp file in the same folder -> filled -> fsync -> os.replace -> fsync of the folder. An `OSError` of the block becomes a `StorageError` too.
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name[:40]}.", suffix=".tmp", dir=path.parent)
        with os.fdopen(handle, "wb"):
            yield Path(temporary)
            os.fsync(handle)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        temporary = None
        _sync_folder(path.parent)
    except OSError as error:
        raise storage_error(path.parent, error) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def storage_error(folder: Path, error: OSError) -> StorageError:
    """One sentence about why `folder` could not be written."""
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG):
        return StorageError(f"The disk is full: nothing more can be written to {folder}.")
    reason = (error.strerror or str(error)).rstrip(".")
    return StorageError(f"{folder} cannot be written: {reason}.")


def _sync_folder(folder: Path) -> None:
    """Make a rename durable; Windows cannot open folders and needs no such call."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
