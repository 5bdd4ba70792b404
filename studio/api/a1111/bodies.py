"""The bodies of A1111's txt2img and img2img: its fields with its defaults."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from studio.schema.parts import Text


class PaintBody(BaseModel):
    """What both have. Null means the default. Unknown fields are ignored with a warning."""

    model_config = ConfigDict(extra="allow")

    prompt: str | None = ""
    negative_prompt: str | None = ""
    styles: list[str] | None = None
    seed: int | None = -1
    subseed: int | None = -1
    subseed_strength: float | None = 0
    seed_resize_from_h: int | None = -1
    seed_resize_from_w: int | None = -1
    sampler_name: str | None = None
    sampler_index: str | None = Field("Euler", description="Old name of sampler_name")
    scheduler: str | None = None
    batch_size: int | None = 1
    n_iter: int | None = 1
    steps: int | None = 50
    cfg_scale: float | None = 7.0
    width: int | None = 512
    height: int | None = 512
    restore_faces: bool | None = None
    tiling: bool | None = None
    do_not_save_samples: bool | None = False
    do_not_save_grid: bool | None = False
    eta: float | None = None
    denoising_strength: float | None = None
    s_min_uncond: float | None = None
    s_churn: float | None = None
    s_tmax: float | None = None
    s_tmin: float | None = None
    s_noise: float | None = None
    override_settings: dict[str, Any] | None = None
    override_settings_restore_afterwards: bool | None = True
    refiner_checkpoint: str | None = None
    refiner_switch_at: float | None = None
    disable_extra_networks: bool | None = False
    comments: dict[str, Any] | None = None
    force_task_id: Text | None = Field(None, max_length=200, description="What the progress route calls the job")
    script_name: str | None = None
    script_args: list[Any] | None = Field(default_factory=list)
    send_images: bool | None = True
    save_images: bool | None = False
    alwayson_scripts: dict[str, Any] | None = Field(default_factory=dict)
    infotext: str | None = Field(None, description="Generation text; fills every field that is not given")
    branch: dict[str, Any] | None = Field(
        None,
        description="Ours: `step` and `origin`, as in the native API; its origin fills every field that is not given",
    )

    @model_validator(mode="before")
    @classmethod
    def _whole_characters(cls, body: Any) -> Any:
        """What is echoed in `parameters` must be text that an answer can hold."""
        try:
            json.dumps(body, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("it has half a character (an unpaired surrogate) in it") from None
        return body


class Txt2ImgBody(PaintBody):
    """txt2img: a second pass may follow."""

    firstpass_image: str | None = None
    enable_hr: bool | None = False
    firstphase_width: int | None = 0
    firstphase_height: int | None = 0
    hr_scale: float | None = 2.0
    hr_upscaler: str | None = None
    hr_second_pass_steps: int | None = 0
    hr_resize_x: int | None = 0
    hr_resize_y: int | None = 0
    hr_checkpoint_name: str | None = None
    hr_sampler_name: str | None = None
    hr_scheduler: str | None = None
    hr_prompt: str | None = ""
    hr_negative_prompt: str | None = ""
    hr_additional_modules: list[str] | None = Field(
        None, description="Forge's: VAE and text encoders of the second pass; null: the same"
    )
    hr_cfg: float | None = Field(None, description="Forge's; null is the CFG scale")


class Img2ImgBody(PaintBody):
    """img2img: a picture to begin with, and a mask of what is painted anew. Without a mask its fields mean nothing."""

    init_images: list[str] | None = Field(
        None, description="The picture: base64, with or without `data:image/…;base64,`; one each call"
    )
    denoising_strength: float | None = 0.75
    resize_mode: int | None = Field(
        0,
        description="0 Just resize, 1 Crop and resize, 2 Resize and fill, 3 Just resize (latent upscale)",
    )
    image_cfg_scale: float | None = Field(None, description="Of instruct-pix2pix checkpoints; null: 1.5")
    mask: str | None = Field(None, description="The mask's picture, white where is painted; null or empty: none")
    mask_blur: int | None = Field(None, description="Both of mask_blur_x and mask_blur_y")
    mask_blur_x: int | None = 4
    mask_blur_y: int | None = 4
    mask_round: bool | None = True
    inpainting_fill: int | None = Field(0, description="0 fill, 1 original, 2 latent noise, 3 latent nothing")
    inpaint_full_res: bool | None = Field(True, description="Only masked; false is the whole picture")
    inpaint_full_res_padding: int | None = 0
    inpainting_mask_invert: int | None = Field(0, description="1 paints where the mask is dark")
    initial_noise_multiplier: float | None = None
    latent_mask: str | None = None
    include_init_images: bool | None = Field(False, description="Echo the pictures in `parameters`")
