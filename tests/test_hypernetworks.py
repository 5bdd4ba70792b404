"""Which hypernetworks act in a pass, by tags and by the request's fields; how a request says so in one way only."""

from __future__ import annotations

import pytest

from studio.engine.hires import second_pass
from studio.errors import IncompatibleFile, InvalidRequest, UnknownName
from studio.infotext import parse_infotext, write_infotext
from studio.resolve import fixed
from studio.schema.parts import HiresPass
from studio.schema.request import GenerationRequest, make_request
from studio.schema.resolved import HypernetworkUse
from tests.test_resolve import run


def shown(uses: tuple[HypernetworkUse, ...]) -> list[tuple[str, float, bool]]:
    return [(use.name, use.multiplier, use.tagged) for use in uses]


def found(prompt: str, own: str = "", strength: float = 1.0) -> list[tuple[str, float, bool]]:
    return shown(run(GenerationRequest(prompt=prompt, hypernetwork=own, hypernetwork_strength=strength)).hypernetworks)


def test_tags_act_in_their_order_and_then_the_field() -> None:
    tags = "<hypernet:glaze:0.5> a <lora:ink:1> <hypernet:ink>"
    assert found(tags) == [("glaze", 0.5, True), ("ink", 1.0, True)]
    assert found("a", "ink", 0.4) == [("ink", 0.4, False)]
    assert found("<hypernet:glaze:0.5>", "ink") == [("glaze", 0.5, True), ("ink", 1.0, False)]
    assert found("<hypernet:ink:0.5>", "ink") == [("ink", 0.5, True)], "the tag says how strongly"


def test_what_has_no_strength_is_none() -> None:
    assert found("<hypernet:glaze:0> <hypernet:ink:-0.5>") == [("ink", -0.5, True)]
    assert found("", "unknown", 0.0) == found("", "None") == found("", " ") == []
    assert found("<hypernet:ink:0>", "ink") == []


@pytest.mark.parametrize(
    "prompt, own, error, field",
    [
        ("<hypernet:gone>", "", UnknownName, "prompt"),
        ("", "gone", UnknownName, "hypernetwork"),
        ("<hypernet:ink:x>", "", InvalidRequest, "prompt"),
        ("", "cracked", IncompatibleFile, "hypernetwork"),
    ],
)
def test_what_is_not_possible_names_its_field(prompt: str, own: str, error: type[Exception], field: str) -> None:
    with pytest.raises(error) as caught:
        found(prompt, own)
    assert getattr(caught.value, "field", None) == field


def test_the_second_pass_has_those_of_its_own_prompt_and_the_field() -> None:
    hires = HiresPass(prompt="an owl <hypernet:glaze:0.2>")
    resolved = run(GenerationRequest(prompt="<hypernet:ink:0.5>", hypernetwork="ink", hires=hires))
    assert shown(resolved.hypernetworks) == [("ink", 0.5, True)]
    second = second_pass(resolved)
    assert shown(second.hypernetworks) == [("glaze", 0.2, True), ("ink", 1.0, False)]
    assert shown(resolved.all_hypernetworks) == [("ink", 0.5, True), ("glaze", 0.2, True), ("ink", 1.0, False)]
    same = run(GenerationRequest(prompt="<hypernet:ink:0.5>", hires=HiresPass()))
    assert shown(second_pass(same).hypernetworks) == shown(same.hypernetworks)


@pytest.mark.parametrize(
    "fields",
    [
        {"hypernetwork": "ink", "hypernetwork_strength": 0.0},
        {"hypernetwork": "ink", "hypernetwork_strength": 0.3, "prompt": "<hypernet:ink:1>"},
        {"hypernetwork_strength": 0.3},
    ],
)
def test_what_does_nothing_is_not_kept(fields: dict[str, object]) -> None:
    request = make_request({"seed": 1, "prompt": "", **fields})
    resolved = run(request)
    answer = fixed(request, resolved)
    assert (answer.hypernetwork, answer.hypernetwork_strength) == ("", 1.0)
    assert "Hypernet" not in write_infotext(resolved, 0, "1").split("Steps")[1]


def test_the_text_has_the_field_and_tags_stay_in_the_prompt() -> None:
    request = GenerationRequest(seed=1, prompt="a <hypernet:glaze:0.5>", hypernetwork="ink", hypernetwork_strength=0.25)
    text = write_infotext(run(request), 0, "1")
    assert text.startswith("a <hypernet:glaze:0.5>\nSteps")
    assert "Hypernet: ink, Hypernet strength: 0.25" in text
    parsed = parse_infotext(text)
    assert parsed.request["prompt"] == "a <hypernet:glaze:0.5>"
    assert (parsed.request["hypernetwork"], parsed.request["hypernetwork_strength"]) == ("ink", 0.25)
    assert parsed.prompt == "a <hypernet:glaze:0.5><hypernet:ink:0.25>", "as A1111 reads it"


def test_a_text_of_nothing_or_of_too_much() -> None:
    line = "Steps: 2, Sampler: Euler, Seed: 1, RNG: CPU, Model: a"
    assert "hypernetwork" not in parse_infotext(f"a\n{line}, Hypernet: None").request
    strong = parse_infotext(f"a\n{line}, Hypernet: ink.pt, Hypernet strength: 1.5")
    assert (strong.request["hypernetwork"], strong.request["hypernetwork_strength"]) == ("ink", 1)
    assert any("Hypernet strength 1.5 is not between 0 and 1" in note for note in strong.notes)
