"""Where the tiny autoencoder (TAESD) lies, and what to say when it does not."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from studio.errors import IncompatibleFile, UnknownModel
from studio.families.tiny_vae import HOME, STEMS, Half, tiny_vae_names
from studio.library.scan import PICKLES


def find_tiny_vae(folder: Path, latent_space: str, half: Half) -> Path:
    """The file in `folder` with this half for a latent space. Files that came or went count at once.

    Raises `UnknownModel` when there is none, `IncompatibleFile` when it is there as a pickle only; both say what to put where.
    """
    names = tiny_vae_names(latent_space, half)
    for name in names:
        if (folder / name).is_file():
            return folder / name
    first, *others = names
    source = f"{HOME}/{STEMS[latent_space]}"
    pickles = (PurePosixPath(name).with_suffix(ending) for name in names for ending in PICKLES)
    pickle = next((name for name in pickles if (folder / name).is_file()), None)
    if pickle is not None:
        raise IncompatibleFile(
            f"{pickle} in {folder} is a pickle file, which can run code when it is opened: python launch.py convert {pickle.name} writes it anew, "
            f"or put {first} there, from {source}.",
            field=f"vae_{half}",
        )
    raise UnknownModel(
        f"There is no TAESD {half} for this checkpoint: put {first} into {folder}, or {' or '.join(others)}, which have both halves. "
        f"They are at {source}.",
        field=f"vae_{half}",
    )
