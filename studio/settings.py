"""Settings: where they come from, what they may be.

Order of precedence: command line > STUDIO_* environment > settings file > default. Every field below is also the
environment variable STUDIO_<FIELD> and a key of `settings.json`. Settings give defaults and decide how the program runs;
they never change the pixels of a request that names its values.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.config import JsonDict

from studio.errors import SettingsError
from studio.paths import atomic_write
from studio.schema.complaint import first_complaint
from studio.schema.faces import DEFAULT_WEIGHT, FaceArchitecture
from studio.schema.levers import LEVERS, Levers
from studio.schema.request import PictureFormat

PREFIX = "STUDIO_"


def _setting(
    default: Any,
    help_text: str,
    *,
    group: str,
    http: bool = True,
    minimum: float | None = None,
    maximum: float | None = None,
) -> Any:
    """A field with its help, its group on the Settings page, and whether it may be changed over HTTP."""
    extra: JsonDict = {"group": group, "http": http}
    return Field(default, description=help_text, ge=minimum, le=maximum, json_schema_extra=extra)


class Settings(BaseModel):
    """All settings. Frozen: a change makes a new object (`updated`)."""

    model_config = ConfigDict(frozen=True, extra="ignore", validate_default=True)

    # How the program runs: command line, environment or file only, never over HTTP.
    host: str = _setting("127.0.0.1", "Address to listen on", group="Server", http=False)
    port: int = _setting(
        7860,
        "Port; the next free one is taken unless this was given explicitly",
        group="Server",
        http=False,
        minimum=1,
        maximum=65535,
    )
    listen: bool = _setting(False, "Listen on all addresses (0.0.0.0); needs auth", group="Server", http=False)
    share: bool = _setting(
        False,
        "Make a public Gradio link; a password is made and printed when none is given",
        group="Server",
        http=False,
    )
    auth: str = _setting("", "USER:PASSWORD for page, API, docs and files", group="Server", http=False)
    browser: bool = _setting(True, "Open the browser at start", group="Server", http=False)
    device: Literal["auto", "cpu", "cuda", "mps"] = _setting("auto", "Device to paint on", group="Server", http=False)
    attention: Literal["auto", "sdpa", "chunked", "flash", "xformers"] = _setting(
        "auto", "Attention kernel; auto is chunked for bfloat16 on a processor, else sdpa", group="Server", http=False
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = _setting(
        "auto",
        "Number format to paint in; auto is the fastest that the device computes in, fp32 the exact reference",
        group="Server",
        http=False,
    )
    compile: Literal["off", "blocks", "graphs"] = _setting(
        "off",
        "Compile the U-Net's transformer blocks (CUDA): the first picture of a size takes longer, all others less; "
        "graphs also records them as CUDA graphs, which spares the processor and takes more memory",
        group="Server",
        http=False,
    )
    without: Levers = _setting(
        "",
        f"What makes painting faster and is to be left out, to find out what it does: names with commas between, of {', '.join(LEVERS)}",
        group="Server",
        http=False,
    )
    checkpoints_in_memory: int = _setting(
        4,
        "Checkpoints that stay loaded, as far as the memory goes, so that changing between them takes no time",
        group="Server",
        http=False,
        minimum=1,
        maximum=20,
    )
    converted_checkpoints_gb: float = _setting(
        10.0,
        "Disk for copies of checkpoints in the format that a processor paints in, in GB, so that loading one again takes little time; "
        "what was used longest ago goes first; 0: none",
        group="Server",
        http=False,
        minimum=0,
        maximum=100_000,
    )
    torch: Literal["auto", "cpu", "cuda", "rocm"] = _setting(
        "auto", "torch build that launch.py installs", group="Server", http=False
    )
    max_queue: int = _setting(100, "Jobs that may wait", group="Server", http=False, minimum=1, maximum=10_000)

    # Defaults of the form.
    sd_model_checkpoint: str = _setting("", "Selected checkpoint; empty takes the first one", group="Models")
    sd_vae: str = _setting("Automatic", "Selected VAE", group="Models")
    CLIP_stop_at_last_layers: int = _setting(1, "Clip skip", group="Models", minimum=1, maximum=12)
    default_sampler: str = _setting("DPM++ 2M", "Sampling method of a fresh form", group="Defaults")
    default_schedule: str = _setting("Automatic", "Schedule type of a fresh form", group="Defaults")
    default_steps: int = _setting(20, "Steps of a fresh form", group="Defaults", minimum=1, maximum=150)
    default_cfg_scale: float = _setting(7.0, "CFG scale of a fresh form", group="Defaults", minimum=0, maximum=100)
    randn_source: Literal["CPU", "GPU", "NV"] = _setting("CPU", "Where noise is drawn", group="Defaults")
    emphasis: Literal["Original", "No norm", "Ignore", "None"] = _setting(
        "Original", "How (word:1.2) weights act", group="Defaults"
    )
    face_restoration_model: FaceArchitecture = _setting(
        "CodeFormer", "Network that restores faces where A1111's REST asks for it without a name", group="Defaults"
    )
    code_former_weight: float = _setting(
        DEFAULT_WEIGHT,
        "CodeFormer's weight in a fresh form: 0 has the strongest effect",
        group="Defaults",
        minimum=0,
        maximum=1,
    )
    lora_weight: float = _setting(
        0.8, "Weight that a click on a LoRA card inserts", group="Defaults", minimum=-5, maximum=5
    )

    # Files. Names and values are A1111's; patterns are explained in docs/reference-file-names.md.
    samples_format: PictureFormat = _setting(
        "png", "Format of saved pictures; only png keeps every pixel", group="Files"
    )
    jpeg_quality: int = _setting(
        80, "Quality of saved JPEG, WebP and AVIF pictures", group="Files", minimum=1, maximum=100
    )
    samples_filename_pattern: str = _setting(
        "", "File names of pictures; empty is [seed], or [seed]-[prompt_spaces] without sub-folders", group="Files"
    )
    save_images_add_number: bool = _setting(True, "Put a running number in front of file names", group="Files")
    save_to_dirs: bool = _setting(True, "Sub-folders for pictures and grids", group="Files")
    directories_filename_pattern: str = _setting(
        "[date]", "Names of the sub-folders; empty is [prompt_words]", group="Files"
    )
    save_txt: bool = _setting(False, "Write the infotext also into a .txt file beside the picture", group="Files")
    add_user_name_to_info: bool = _setting(
        False, "Write the name of the login into the infotext of pictures, where there is one", group="Files"
    )
    grid_save: bool = _setting(True, "Save a grid of all pictures of a job that makes more than one", group="Files")
    grid_format: PictureFormat = _setting("png", "File format of grids", group="Files")

    training_and_painting: Literal["picture first", "training first", "together"] = _setting(
        "picture first",
        "When a training run uses the painting device: it pauses for a picture, pictures wait for it, or both go on",
        group="Training",
    )

    training_cache_gb: float = _setting(
        20.0,
        "Disk for encoded pictures and captions of training, in GB; what was used longest ago goes first, nothing of a run that trains; 0: no bound",
        group="Training",
        minimum=0,
    )

    # The page.
    theme: Literal["dark", "light", "system"] = _setting("dark", "Colours of the page", group="Page")
    preview_every: int = _setting(
        1, "Draw a preview every n steps; 0 turns previews off", group="Page", minimum=0, maximum=150
    )
    keep_previews: int = _setting(
        200, "Jobs whose step previews are kept on disk", group="Page", minimum=1, maximum=100_000
    )
    keep_latents: bool = _setting(
        True, "Keep the latents of every step of what the page asks for, to decode and to branch from", group="Page"
    )
    latents_limit: int = _setting(
        2000,
        "Megabytes of latents that are kept on disk; the oldest jobs go first",
        group="Page",
        minimum=1,
        maximum=10_000_000,
    )


def environment_values(environ: Mapping[str, str]) -> dict[str, str]:
    """The STUDIO_* variables that name a setting, keyed by field. Unknown STUDIO_ variables are ignored."""
    fields = {name.upper(): name for name in Settings.model_fields}
    found = ((fields.get(key.removeprefix(PREFIX)), value) for key, value in environ.items() if key.startswith(PREFIX))
    return {name: value for name, value in found if name is not None and value != ""}


def load_settings(file: Path, environ: Mapping[str, str], overrides: Mapping[str, Any]) -> tuple[Settings, list[str]]:
    """Settings from all sources, and notes for the user.

    A damaged settings file is moved to `settings.json.bad-<n>` and defaults are used; the notes say so.
    A value from the environment or the command line that is not allowed raises `SettingsError`.
    """
    stored, notes = _read_file(file)
    values = {**stored, **environment_values(environ), **overrides}
    try:
        return Settings.model_validate(values), notes
    except ValidationError as error:
        raise settings_error(error) from None


def updated(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """A copy with `changes`. Raises `SettingsError` naming the field, its value and what is allowed."""
    try:
        return Settings.model_validate({**settings.model_dump(), **changes})
    except ValidationError as error:
        raise settings_error(error) from None


def store_settings(file: Path, changes: Mapping[str, Any]) -> None:
    """Merge `changes` into the settings file, atomically. Keys of newer versions are kept."""
    stored, _ = _read_file(file, raw=True)
    atomic_write(file, json.dumps({**stored, **changes}, indent=2, ensure_ascii=False, sort_keys=True).encode() + b"\n")


def settings_error(error: ValidationError) -> SettingsError:
    """The first complaint, as one sentence."""
    complaint = first_complaint(error, Settings)
    return SettingsError(f"Setting {complaint.sentence('file')}", field=complaint.field)


def _read_file(file: Path, *, raw: bool = False) -> tuple[dict[str, Any], list[str]]:
    """The file's known, valid keys (or all keys when `raw`), and notes about what was wrong."""
    try:
        text = file.read_text("utf-8")
    except FileNotFoundError:
        return {}, []
    except (OSError, UnicodeDecodeError) as error:
        return {}, [_set_aside(file, str(error))]
    try:
        data = json.loads(text)
        if not isinstance(data, dict):
            raise ValueError("it holds no object")
    except ValueError as error:
        return {}, [_set_aside(file, str(error))]
    if raw:
        return data, []
    notes, good = [], {}
    for key, value in data.items():
        if key not in Settings.model_fields:
            continue
        try:
            Settings.model_validate({key: value})
            good[key] = value
        except ValidationError as error:
            notes.append(f"{file.name}: {settings_error(error).message} The default is used.")
    return good, notes


def _set_aside(file: Path, reason: str) -> str:
    """Keep a damaged file under a free name, so that nothing is overwritten."""
    number = next(n for n in range(1, 10_000) if not file.with_name(f"{file.name}.bad-{n}").exists())
    kept = file.with_name(f"{file.name}.bad-{number}")
    try:
        file.replace(kept)
    except OSError:
        return f"{file} cannot be read ({reason}); defaults are used."
    return f"{file} was damaged ({reason}); it is kept as {kept.name} and defaults are used."
