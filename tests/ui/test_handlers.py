"""The three moves: read the form, call the studio, say what came of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from studio.app import Studio
from studio.errors import InvalidRequest, NotAllowed, SettingsError, StudioError, UnknownModel
from studio.schema.request import GenerationRequest
from studio.settings import Settings
from studio.ui.handlers import Handlers, http_settings
from tests.engine.faces.made import made_file


def show(handlers: Handlers, **fields: Any) -> dict[Any, Any]:
    request = GenerationRequest(model="sprout", **fields)
    return {component: update["value"] for component, update in handlers.form.fill(request.model_dump()).items()}


def send(handlers: Handlers, **parcel: Any) -> dict[Any, Any]:
    return handlers.fill({handlers.parcel: json.dumps(parcel)})


def told(handlers: Handlers, updates: dict[Any, Any]) -> dict[str, Any]:
    outcome: dict[str, Any] = updates[handlers.outcome]
    return outcome


def value(handlers: Handlers, updates: dict[Any, Any], name: str) -> Any:
    return updates[handlers.form.controls[name]]["value"]


def test_submit_enqueues_what_the_form_shows(handlers: Handlers, studio: Studio) -> None:
    outcome = told(handlers, handlers.submit(show(handlers, prompt="a fox", steps=3, seed=7)))
    job = studio.queue.job(outcome["job"])
    assert (job.request.prompt, job.request.steps, job.request.seed, job.source) == ("a fox", 3, 7, "ui")
    assert outcome["position"] == 1


def test_submit_draws_a_seed(handlers: Handlers, studio: Studio) -> None:
    outcome = told(handlers, handlers.submit(show(handlers)))
    assert studio.queue.job(outcome["job"]).request.seed >= 0


def test_submit_refuses_what_is_not_possible(handlers: Handlers, studio: Studio) -> None:
    values = {**show(handlers), handlers.form.controls["steps"]: 0}
    with pytest.raises(InvalidRequest):
        handlers.submit(values)
    with pytest.raises(StudioError, match="missing"):
        handlers.submit(show(handlers, prompt="<lora:missing:1>"))
    assert studio.queue.jobs() == []


def test_a_new_browser_gets_the_defaults(handlers: Handlers) -> None:
    updates = handlers.open_page("new")
    assert value(handlers, updates, "model") == "sprout"
    assert value(handlers, updates, "width") == 128
    assert updates[handlers.form.controls["model"]]["choices"] == [
        ("sprout [0123456789]", "sprout"),
        ("oak/old", "oak/old"),
    ]
    assert updates[handlers.form.controls["vae"]]["choices"][0] == ("Automatic", "Automatic")


def test_a_browser_gets_its_form_back(handlers: Handlers, studio: Studio) -> None:
    studio.save_form("mine", {"prompt": "half a thought", "steps": 11, "model": "gone", "sampler_options": {"rho": 4}})
    updates = handlers.open_page("mine")
    assert value(handlers, updates, "prompt") == "half a thought"
    assert value(handlers, updates, "steps") == 11
    assert value(handlers, updates, "model") == "sprout"
    assert value(handlers, updates, "sampler_options.rho") == 4
    assert value(handlers, handlers.open_page("other"), "prompt") == ""


@pytest.mark.parametrize("browser", ["", "../x", "<script>", "a" * 1000])
def test_an_odd_browser_still_gets_a_page(handlers: Handlers, browser: str) -> None:
    updates = handlers.open_page(browser)
    assert value(handlers, updates, "model") == "sprout"
    assert "could not be restored" in told(handlers, updates)["notes"][0]


def test_a_part_leaves_the_rest(handlers: Handlers) -> None:
    updates = send(handlers, request={"seed": 9})
    assert set(updates) == {handlers.form.controls["seed"], handlers.outcome}


def test_a_picture_fills_everything(handlers: Handlers) -> None:
    request = {"prompt": "a fox", "steps": 5, "seed": 9, "model": "sprout [0123456789]", "sampler": "euler A"}
    updates = send(handlers, request=request, whole=True, notes=["read from a picture"])
    assert value(handlers, updates, "model") == "sprout"
    assert value(handlers, updates, "sampler") == "Euler a"
    assert value(handlers, updates, "sampler_options.eta") == ""
    assert value(handlers, updates, "batch_size") == 1
    assert told(handlers, updates)["notes"] == ["read from a picture"]


def test_a_picture_of_another_model_says_so(handlers: Handlers) -> None:
    for name in ("elm", "broken"):
        updates = send(handlers, request={"steps": 5, "model": name}, whole=True)
        assert handlers.form.controls["model"] not in updates
        assert name in told(handlers, updates)["notes"][0]


def test_a_pictures_refiner_is_shown_by_its_name_here(handlers: Handlers) -> None:
    part = {"checkpoint": "sprout [0123456789]", "switch_at": 0.6, "by_steps": True}
    updates = send(handlers, request={"steps": 5, "refiner": part}, whole=True)
    assert value(handlers, updates, "refiner.checkpoint") == "sprout"
    assert value(handlers, updates, "refiner.switch_at") == 0.6
    assert value(handlers, updates, "refiner.by_steps") is True
    for name in ("elm", "broken"):
        updates = send(handlers, request={"steps": 5, "refiner": {**part, "checkpoint": name}}, whole=True)
        assert value(handlers, updates, "refiner.checkpoint") == ""
        assert name in told(handlers, updates)["notes"][0]


def test_a_pictures_second_checkpoint_is_shown_by_its_name_here_and_an_unknown_one_is_the_same(
    handlers: Handlers,
) -> None:
    for name, shown in (("sprout [0123456789]", "sprout"), ("", ""), ("elm", ""), ("broken", "")):
        part = {"checkpoint": name, "scale": 1.5}
        updates = send(handlers, request={"steps": 5, "hires": part}, whole=True)
        assert value(handlers, updates, "hires.checkpoint") == shown
        assert value(handlers, updates, "hires.on") is True
        assert value(handlers, updates, "hires.scale") == 1.5
        notes = told(handlers, updates)["notes"]
        assert [name in note for note in notes] == ([True] if name in ("elm", "broken") else [])
    updates = handlers.refresh()
    offered = [name for _, name in updates[handlers.form.controls["hires.checkpoint"]]["choices"]]
    assert offered == ["", *(name for _, name in updates[handlers.form.controls["model"]]["choices"])]


def test_refiners_on_offer_are_none_and_the_checkpoints_that_can_be_used(handlers: Handlers) -> None:
    updates = handlers.refresh()
    offered = [name for _, name in updates[handlers.form.controls["refiner.checkpoint"]]["choices"]]
    assert offered == ["", *(name for _, name in updates[handlers.form.controls["model"]]["choices"])]
    assert "broken" not in offered


@pytest.mark.parametrize("text", [None, "", "[1]", "{", 5])
def test_a_broken_parcel_is_refused(handlers: Handlers, text: Any) -> None:
    with pytest.raises(InvalidRequest):
        handlers.fill({handlers.parcel: text})


def test_a_parcel_may_hold_anything(handlers: Handlers) -> None:
    updates = send(handlers, request=[1], notes="x", whole=True)
    assert told(handlers, updates) == {"filled": [], "notes": []}


def test_the_checkpoint_brings_its_native_size(handlers: Handlers, studio: Studio) -> None:
    controls = handlers.form.controls
    asked = {controls["model"]: "oak/old", controls["width"]: 128, controls["height"]: 128}
    updates = handlers.select_model(asked)
    assert value(handlers, updates, "width") == value(handlers, updates, "height") == 512
    assert studio.settings.sd_model_checkpoint == "oak/old"
    chosen_by_hand = {**asked, controls["width"]: 200}
    assert controls["width"] not in handlers.select_model(chosen_by_hand)
    with pytest.raises(UnknownModel):
        handlers.select_model({**asked, controls["model"]: "elm"})


def test_refresh_looks_again(handlers: Handlers) -> None:
    updates = handlers.refresh()
    assert told(handlers, updates) == {"refreshed": True, "notes": ["2 checkpoints found."]}


def test_settings_are_stored(handlers: Handlers, studio: Studio) -> None:
    outcome = told(handlers, handlers.change_setting("default_steps", 31))
    assert outcome["settings"]["default_steps"] == studio.settings.default_steps == 31
    written = studio.paths.settings_file.stat().st_mtime_ns
    assert told(handlers, handlers.change_setting("default_steps", "31")) == {"setting": "default_steps"}
    assert studio.paths.settings_file.stat().st_mtime_ns == written
    with pytest.raises(SettingsError) as refused:
        handlers.change_setting("default_steps", 0)
    assert refused.value.field == "setting:default_steps"
    with pytest.raises(NotAllowed):
        handlers.change_setting("auth", "me:1234")


def test_secrets_stay_on_the_server() -> None:
    shown = http_settings(Settings(auth="me:secret"))
    assert not {"auth", "host", "listen", "share"} & set(shown)
    assert "theme" in shown


def test_styles_are_offered_found_and_missed(handlers: Handlers, studio: Studio) -> None:
    box, file = handlers.form.controls["styles"], studio.paths.root / "styles.csv"
    assert handlers.refresh()[box]["choices"] == []
    file.write_text("name,prompt,negative_prompt\nink,ink {prompt},\n")
    assert handlers.refresh()[box]["choices"] == ["ink"]
    assert send(handlers, request={"styles": ["ink"]})[box]["value"] == ["ink"]
    missed = send(handlers, request={"styles": ["oil"]})
    assert box not in missed
    assert "'oil'" in told(handlers, missed)["notes"][0]
    file.write_bytes(b"\xff")
    damaged = handlers.open_page("a")
    assert damaged[box]["choices"] == []
    assert "styles.csv cannot be read, line 1" in told(handlers, damaged)["notes"][0]


def test_a_picture_with_a_style_shows_it(handlers: Handlers, studio: Studio) -> None:
    (studio.paths.root / "styles.csv").write_text("name,prompt,negative_prompt\nink,ink {prompt},photo\n")
    text = "ink a fox\nNegative prompt: blurry, photo\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 1"
    read = studio.read_infotext(text).request
    assert (read["prompt"], read["negative_prompt"], read["styles"]) == ("a fox", "blurry", ("ink",))
    updates = send(handlers, request={**read, "styles": list(read["styles"])}, whole=True)
    assert value(handlers, updates, "styles") == ["ink"]
    plain = studio.read_infotext("a fox\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 1").request
    assert value(handlers, send(handlers, request=plain, whole=True), "styles") == []


def test_upscaler_models_are_offered_under_both_names(handlers: Handlers) -> None:
    choices = handlers.open_page("new")[handlers.form.controls["hires.upscaler"]]["choices"]
    assert choices[0] == ("Latent", "Latent")
    assert choices[-2:] == [
        ("4x-Sharp", "4x-Sharp"),
        ("sub/RealESRGAN_x2plus (R-ESRGAN 2x+)", "sub/RealESRGAN_x2plus"),
    ]
    updates = send(handlers, request={"steps": 5, "hires": {"upscaler": "R-ESRGAN 2x+", "scale": 1.5}}, whole=True)
    assert value(handlers, updates, "hires.upscaler") == "sub/RealESRGAN_x2plus"
    updates = send(handlers, request={"steps": 5, "hires": {"upscaler": "8x-Gone", "scale": 1.5}}, whole=True)
    assert value(handlers, updates, "hires.upscaler") == "Latent"
    assert value(handlers, updates, "hires.scale") == 1.5
    assert "no upscaler named '8x-Gone'" in told(handlers, updates)["notes"][0]


def test_restorers_of_faces_are_on_offer_and_one_that_is_not_here_is_told(handlers: Handlers, studio: Studio) -> None:
    box, folder = handlers.form.controls["face_restoration"], studio.paths.face_restoration
    both = [("None", ""), ("CodeFormer", "CodeFormer"), ("GFPGAN", "GFPGAN")]
    assert handlers.refresh()[box]["choices"] == both
    missed = send(handlers, request={"face_restoration": "GFPGAN"})
    assert box not in missed and "lacks GFPGAN" in told(handlers, missed)["notes"][0]
    for network, name in (("GFPGAN", "GFPGANv1.3"), ("GFPGAN", "GFPGANv1.4"), ("RetinaFace", "detector")):
        made_file(folder, network, name)
    assert handlers.refresh()[box]["choices"] == [*both, ("GFPGANv1.3", "GFPGANv1.3")]
    assert send(handlers, request={"face_restoration": "gfpganv1.4"})[box]["value"] == "GFPGAN"
