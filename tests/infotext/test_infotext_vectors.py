"""Generation text against AUTOMATIC1111's and Forge's results: tests/vectors/infotext.json, every case we can express."""

from __future__ import annotations

from typing import Any

import pytest

from studio.errors import StudioError, UnknownName
from studio.infotext import parse_infotext, write_infotext
from studio.infotext.dialects import named_hashes
from studio.infotext.fields import for_form, sampler_and_schedule
from studio.infotext.loras import repoint_loras
from studio.infotext.quote import quote, unquote
from studio.infotext.read import find_pairs
from studio.samplers.table import find_sampler, find_schedule, resolve_schedule
from studio.schema.models import ModelInfo
from studio.schema.parts import SamplerOptions, SeedResize
from studio.schema.resolved import ResolvedRequest, VariationPlan
from tests.plans import prompt_plan
from tests.vector_files import load_json

VECTORS = load_json("infotext.json")
FORGE_ONLY = ("VAE", "VAE/TE")
"""Keys that Forge takes away to fill its own; ours keeps them."""


def shown(case: dict[str, Any]) -> str:
    return repr(case.get("text", case))[:60]


def last_line(text: str) -> str:
    return text.strip().split("\n")[-1]


def has_json(pairs: list[list[str]]) -> bool:
    """A value that is JSON: the tools cut it at its first comma, ours does not."""
    return any(value.startswith(("{", "[")) for _, value in pairs)


def as_a1111(case: dict[str, Any]) -> dict[str, str]:
    """The explicit keys without Forge's repair of Flux texts."""
    explicit = dict(case["explicit"])
    if any("Forge Fix" in line for line in case.get("log", [])):
        explicit |= case["a1111_1_8_0"]
        explicit = {key: value for key, value in explicit.items() if value is not None and key != "Schedule type"}
    return {key: str(value) for key, value in explicit.items()}


@pytest.mark.parametrize("case", VECTORS["texts"], ids=shown)
def test_vectors_explicit_keys(case: dict[str, Any]) -> None:
    parsed = parse_infotext(case["text"])
    got = {"Prompt": parsed.prompt, "Negative prompt": parsed.negative_prompt, **parsed.pairs}
    got = {key: value for key, value in got.items() if key not in FORGE_ONLY}
    expected = as_a1111(case)
    if not has_json(case["last_line_pairs"]):
        assert got == expected
        return
    plain = {key: value for key, value in expected.items() if not any(sign in value for sign in '{["')}
    assert {key: got.get(key) for key in plain} == plain


@pytest.mark.parametrize("case", VECTORS["texts"], ids=shown)
def test_vectors_last_line(case: dict[str, Any]) -> None:
    pairs = [list(pair) for pair in find_pairs(last_line(case["text"]))]
    if has_json(case["last_line_pairs"]):
        common = [pair for pair in case["last_line_pairs"] if not any(sign in pair[1] for sign in '{["')]
        assert [pair for pair in pairs if pair in common] == common
    else:
        assert pairs == case["last_line_pairs"]
    assert bool(parse_infotext(case["text"]).pairs) == case["last_line_is_parameters"]


@pytest.mark.parametrize("case", VECTORS["quote"], ids=shown)
def test_vectors_quote(case: dict[str, Any]) -> None:
    assert quote(case["value"]) == case["quoted"]
    assert unquote(case["quoted"]) == str(case["value"])


@pytest.mark.parametrize("case", VECTORS["unquote"], ids=shown)
def test_vectors_unquote(case: dict[str, Any]) -> None:
    assert unquote(case["text"]) == case["value"]


@pytest.mark.parametrize("case", VECTORS["sampler_names"], ids=shown)
def test_vectors_sampler_names(case: dict[str, Any]) -> None:
    """Equal where the tools found the sampler. Where they fell back to the first of the list, ours says it is unknown, or
    knows it after all (another case, an API alias, the longer of two schedule names)."""
    name, ending = case["sampler"] or "", ""
    found = case["run"][0]
    if name.startswith(found):
        ending = name[len(found) :].strip()
    if name.startswith(found) and (not ending or find_schedule(ending).label == case["run"][1]):
        sampler, schedule = sampler_and_schedule(name, case["schedule"])
        assert [sampler.name, schedule.label] == case["run"]
        assert [sampler.name, for_form(sampler, schedule)] == case["paste"]
        return
    try:
        sampler, schedule = sampler_and_schedule(name, case["schedule"])
    except UnknownName:
        return
    known = [sampler.name, *sampler.aliases]
    assert any(name.casefold().startswith(alias.casefold()) for alias in known)
    if ending:
        assert schedule == find_schedule(ending)


@pytest.mark.parametrize("case", VECTORS["lora_repoint"], ids=shown)
def test_vectors_lora_repoint(case: dict[str, Any]) -> None:
    assert repoint_loras(case["prompt"], named_hashes(case["lora_hashes"]), case["local"]) == case["result"]


NEUTRAL = {
    "restore_faces": False,
    "tiling": False,
    "token_merging_ratio": 0,
    "token_merging_ratio_hr": 0,
    "enable_hr": False,
    "user": None,
    "image_cfg_scale": None,
    "init_img_hash": None,
    "use_main_prompt": False,
    "extra": {},
}
OPTIONS = {"eta_noise_seed_delta", "randn_source"}


def expressible(given: dict[str, Any]) -> bool:
    return all(given[key] == value for key, value in NEUTRAL.items()) and set(given["options"]) <= OPTIONS


def variation(given: dict[str, Any]) -> VariationPlan | None:
    if not given["subseed_strength"]:
        return None
    return VariationPlan(seeds=tuple(given["all_subseeds"]), strength=given["subseed_strength"])


def seed_resize(given: dict[str, Any]) -> SeedResize | None:
    size = {"width": given["seed_resize_from_w"], "height": given["seed_resize_from_h"]}
    return SeedResize(**size) if min(size.values()) > 0 else None


def resolved(given: dict[str, Any]) -> ResolvedRequest:
    sampler, schedule = find_sampler(given["sampler_name"]), find_schedule(given["scheduler"])
    running = resolve_schedule(sampler, schedule)
    index = given["index"]
    return ResolvedRequest(
        positive=prompt_plan(given["all_prompts"][index]),
        negative=prompt_plan(given["all_negative_prompts"][index]),
        loras=(),
        model=ModelInfo(
            kind="checkpoint",
            name=given["sd_model_name"],
            path=f"/models/{given['sd_model_name']}.safetensors",
            layout="file",
            family="sd1",
            size=1,
            mtime=0.0,
            short_hash=given["sd_model_hash"],
        ),
        vae=None,
        sampler=sampler.name,
        schedule=running.label,
        schedule_label=running.label if sampler.default_schedule else schedule.label,
        sampler_options=SamplerOptions(eta=given["eta"], ensd=given["options"].get("eta_noise_seed_delta", 0)),
        steps=given["steps"],
        cfg_scale=given["cfg_scale"],
        width=given["width"],
        height=given["height"],
        batch_size=given["batch_size"],
        batch_count=1,
        seeds=tuple(given["all_seeds"]),
        variation=variation(given),
        seed_resize=seed_resize(given),
        clip_skip=given["clip_skip"],
        emphasis="Original",
        rng=given["rng_source"],
    )


@pytest.mark.parametrize("case", [case for case in VECTORS["create"] if expressible(case["input"])], ids=shown)
def test_vectors_create(case: dict[str, Any]) -> None:
    eta = case["input"]["eta"]
    text = write_infotext(resolved(case["input"]), case["input"]["index"], "0.1.0")
    text = text.replace("Version: Latent Studio 0.1.0", "Version: v1.10.1")
    if eta is not None:  # the table's tool was asked for the text alone: its samplers add Eta while they run
        text = text.replace(f", Eta: {eta}", "")
    assert text == case["text"]


@pytest.mark.parametrize("case", VECTORS["create"], ids=shown)
def test_vectors_create_reads_back(case: dict[str, Any]) -> None:
    """All of them are read, also what this program cannot be asked for."""
    parsed = parse_infotext(case["text"])
    got = {"Prompt": parsed.prompt, "Negative prompt": parsed.negative_prompt, **parsed.pairs}
    expected = {key: str(value) for key, value in case["reparsed"].items()}
    assert {key: expected.get(key) for key in got} == got


@pytest.mark.parametrize(
    "case",
    [case for case in load_json("samplers.json")["cases"] if case.get("infotext_extra")],
    ids=lambda case: case["id"],
)
def test_vectors_sampler_parameters(case: dict[str, Any]) -> None:
    """What a run with these options adds to the text."""
    names = {"eta_noise_seed_delta": "ensd", "always_discard_next_to_last_sigma": "discard_penultimate"}
    names |= {"use_old_karras_scheduler_sigmas": "old_karras"}
    options = {
        names.get(key, key): value for key, value in (case.get("options") or {}).items() if key != "randn_source"
    }
    given = {**VECTORS["create"][0]["input"], "sampler_name": case["sampler"], "scheduler": case["schedule"]}
    try:
        plain = resolved(given)
    except StudioError:
        pytest.skip("a sampler or schedule that is not in the table")
    request = plain.model_copy(update={"sampler_options": SamplerOptions(**options)})
    pairs = parse_infotext(write_infotext(request, 0, "0.1.0")).pairs
    expected = {key: str(value) for key, value in case["infotext_extra"].items()}
    assert {key: pairs.get(key) for key in expected} == expected
    base = {
        "Steps",
        "Sampler",
        "Schedule type",
        "CFG scale",
        "Seed",
        "Size-1",
        "Size-2",
        "Model hash",
        "Model",
        "RNG",
        "Version",
    }
    assert set(pairs) - base <= set(expected) | {"Old Karras sigmas"}
