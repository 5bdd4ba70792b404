"""GET and POST options: A1111's settings by their names.

Clients read the whole dictionary as a sign of life, and some post all of it back with one value changed. So values that
are as they were, and names nobody knows, are accepted silently; what decides where files go or who may come in is refused.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from studio.api.changes import change_settings
from studio.api.common import StudioDep
from studio.errors import NotAllowed, StudioError
from studio.settings import Settings

router = APIRouter()

_FIXED: dict[str, Any] = {
    "samples_save": True,
    "samples_format": "png",
    "grid_only_if_multiple": True,
    "enable_pnginfo": True,
    "outdir_samples": "",
    "outdir_txt2img_samples": "outputs/txt2img-images",
    "sd_hypernetwork": "None",
    "eta_noise_seed_delta": 0,
    "eta_ancestral": 1.0,
    "eta_ddim": 0.0,
    "face_restoration": False,
    "live_previews_enable": True,
    "live_previews_image_format": "jpeg",
}
"""What A1111 lets its user choose and is fixed here, or belongs to a request."""

_WRITABLE = {
    "sd_model_checkpoint": "sd_model_checkpoint",
    "sd_vae": "sd_vae",
    "CLIP_stop_at_last_layers": "CLIP_stop_at_last_layers",
    "randn_source": "randn_source",
    "emphasis": "emphasis",
    "face_restoration_model": "face_restoration_model",
    "code_former_weight": "code_former_weight",
    "show_progress_every_n_steps": "preview_every",
    "samples_filename_pattern": "samples_filename_pattern",
    "save_images_add_number": "save_images_add_number",
    "save_to_dirs": "save_to_dirs",
    "directories_filename_pattern": "directories_filename_pattern",
    "save_txt": "save_txt",
    "add_user_name_to_info": "add_user_name_to_info",
    "grid_save": "grid_save",
    "grid_format": "grid_format",
}
_OWN = {name for name, field in Settings.model_fields.items() if (field.json_schema_extra or {}).get("http")}  # type: ignore[union-attr]
_GUARDED_ENDS = ("_dir", "_dirs", "_path", "_folder")


@router.get("/options")
def options(studio: StudioDep) -> dict[str, Any]:
    """The settings under A1111's names."""
    settings = studio.settings
    try:
        model = studio.library.checkpoint(settings.sd_model_checkpoint or None)
        chosen: dict[str, Any] = {"sd_model_checkpoint": model.title, "sd_checkpoint_hash": model.sha256 or ""}
    except StudioError:
        chosen = {"sd_model_checkpoint": None, "sd_checkpoint_hash": ""}
    chosen |= {theirs: getattr(settings, ours) for theirs, ours in _WRITABLE.items() if theirs != "sd_model_checkpoint"}
    return {**_FIXED, **chosen}


@router.post("/options")
def set_options(studio: StudioDep, changes: dict[str, Any]) -> dict[str, Any]:
    """Change some settings; all of them or, when one is refused, none."""
    now = options(studio)
    wanted: dict[str, Any] = {}
    for key, value in changes.items():
        if value is None or (key in now and value == now[key]):
            continue
        if _is_guarded(key):
            raise NotAllowed(f"{key} cannot be changed over HTTP.", field=key)
        if key in _WRITABLE and not (key == "sd_model_checkpoint" and value == ""):
            wanted[_WRITABLE[key]] = value
        elif key in _OWN and key not in now:
            wanted[key] = value
    if wanted:
        change_settings(studio, wanted)
    return {}


def _is_guarded(key: str) -> bool:
    """Who may come in, and where files lie. Sub-folders may be chosen: they never lead out of the outputs folder."""
    if key in _WRITABLE:
        return False
    own = key in Settings.model_fields and key not in _OWN
    return own or key.startswith(("outdir_", "directories_")) or key.endswith(_GUARDED_ENDS)
