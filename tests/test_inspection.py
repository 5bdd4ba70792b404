"""The prompts of a request with everything they name, told without stopping at the first mistake."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from studio.app import Studio
from studio.errors import UnknownName
from studio.inspection import SHOWN_NAMES, Inspection, Mention, Place
from studio.prompt import Style, chunk_prompt, shipped_tokenizer
from studio.schema.request import GenerationRequest
from tests.api.stand_in import make_studio, model


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    folder: Path = tmp_path_factory.mktemp("data")
    made = make_studio(folder)
    made.paths.wildcards.mkdir(parents=True, exist_ok=True)
    (made.paths.wildcards / "colour.txt").write_text("red\n(blue:1.2)\n")
    (made.paths.wildcards / "self.txt").write_text("a __self__\n")
    (made.paths.wildcards / "empty.txt").write_text("# nothing\n")
    (made.paths.wildcards / "lost.txt").write_text("a __colur__ thing\n")
    made.library.styles.save(Style("inky", "{prompt}, ink", "photo"))
    yield made
    made.close()


def look(studio: Studio, prompt: str = "", negative: str = "", **fields: Any) -> Inspection:
    return studio.inspect(GenerationRequest(prompt=prompt, negative_prompt=negative, **fields))


def words(inspection: Inspection, branch: int = 0, wording: int = 0) -> list[str]:
    return [token.text for token in inspection.prompt.branches[branch].wordings[wording].chunks[0].tokens]


def test_known_and_unknown_loras(studio: Studio) -> None:
    (changing,) = look(studio, "<lora:ink:0.5:0@0,1@0.5>").prompt.mentions
    assert changing.detail == "text 0.5, U-Net 0@0, 1@0.5"
    side = look(studio, "a fox\n <lora:inkk:0.8> <lora:ink:0.5:1> <lora:ink-style> <lora:ink:x>").prompt
    assert side.mentions == [
        Mention(
            "lora", "<lora:inkk:0.8>", problem="There is no LoRA named 'inkk'. Did you mean 'ink'?", choices=("ink",),
            place=Place(7, 2, 2),
        ),
        Mention("lora", "<lora:ink:x>", problem="'x' in <lora:ink:x> must be a number such as 0.8.", place=Place(57, 2, 52)),
        Mention("lora", "<lora:ink:0.5:1>", detail="text 0.5, U-Net 1", place=Place(23, 2, 18)),
        Mention("lora", "<lora:ink-style>", detail="1", place=Place(40, 2, 35)),
    ]  # fmt: skip


def test_known_and_unknown_hypernetworks(studio: Studio) -> None:
    """The one that is unknown is told first, with its reason: it is what the page shows in red."""
    side = look(studio, "<hypernet:anime:0.5> <hypernet:anim> <hypernet:anime:x>").prompt
    assert side.mentions == [
        Mention(
            "hypernetwork", "<hypernet:anim>", problem="There is no hypernetwork named 'anim'. Did you mean 'anime'?",
            choices=("anime",), place=Place(21, 1, 22),
        ),
        Mention(
            "hypernetwork", "<hypernet:anime:x>", problem="'x' in <hypernet:anime:x> must be a number such as 0.8.",
            place=Place(37, 1, 38),
        ),
        Mention("hypernetwork", "<hypernet:anime:0.5>", detail="0.5", place=Place(0, 1, 1)),
    ]  # fmt: skip
    assert side.notes == []


def test_tags_that_do_nothing(studio: Studio) -> None:
    both = look(studio, "<lyco:old:1> fox", "<lora:nothing> AND b")
    assert both.prompt.mentions == [Mention("network", "<lyco:old:1>", detail="ignored", place=Place(0, 1, 1))]
    assert "lyco" in both.prompt.notes[0]
    assert [mention.problem for mention in both.negative_prompt.mentions] == [""]
    assert ["Tags in the negative" in both.negative_prompt.notes[0], "AND" in both.negative_prompt.notes[1]] == [
        True,
        True,
    ]


def test_wildcards_of_a_seed_are_those_that_are_painted(studio: Studio) -> None:
    request = GenerationRequest(prompt="a __colour__ {cat|dog|owl}, [x:__colour__:0.5]", seed=7, steps=9)
    shown, resolved = studio.inspect(request).prompt, studio.resolve(request)
    assert (shown.drawn, shown.wording) == ("seed", resolved.positive.text)
    assert [(mention.text, mention.detail) for mention in shown.mentions] == [("__colour__", "2 lines")]
    (branch,) = resolved.positive.branches
    for text, wording in zip(branch.texts, shown.branches[0].wordings, strict=True):
        (chunk,) = chunk_prompt(text, shipped_tokenizer())
        (card,) = wording.chunks
        assert [token.weight for token in card.tokens] == list(chunk.weights[1 : 1 + len(card.tokens)])
    assert shown.branches[0].segments[0].last == 5


def test_an_open_seed_gives_an_example_that_stays(studio: Studio) -> None:
    shown = [look(studio, "a {red|blue|green|grey} fox", seed=-1).prompt for _ in range(2)]
    assert shown[0] == shown[1]
    assert shown[0].drawn == "example"
    assert look(studio, "a {red} fox").prompt.drawn == "no"


def test_all_unknown_wildcards_are_told_and_stay_as_written(studio: Studio) -> None:
    side = look(studio, "a __colur__, __empty__, __colour__ __../x__ __lost__", seed=3).prompt
    wrong = {mention.text: mention for mention in side.mentions if mention.problem}
    assert set(wrong) == {"__colur__", "__empty__", "__../x__"}
    assert wrong["__colur__"].choices == ("colour",)
    assert wrong["__colur__"].place == Place(2, 1, 3)
    assert "no options" in wrong["__empty__"].problem
    assert side.wording.startswith("a __colur__, __empty__, ")
    assert side.wording.endswith("a __colur__ thing")
    assert look(studio, "a __colur__").prompt.drawn == "no"


def test_what_came_with_a_wildcard_has_no_place(studio: Studio) -> None:
    side = look(studio, "__lost__").prompt
    assert [(mention.text, mention.place) for mention in side.mentions if mention.problem] == [("__colur__", None)]


def test_styles(studio: Studio) -> None:
    both = look(studio, "fox", "bad", styles=["inky", "inkyy"])
    assert words(both) == ["fox", ",", "ink"]
    assert both.negative_prompt.branches[0].wordings[0].tokens == 3
    assert [(mention.text, bool(mention.problem)) for mention in both.prompt.mentions] == [
        ("inkyy", True),
        ("inky", False),
    ]


def test_a_prompt_that_cannot_be_drawn(studio: Studio) -> None:
    side = look(studio, "__self__").prompt
    assert [mention.kind for mention in side.mentions] == ["prompt", "wildcard"]
    assert "nested" in side.mentions[0].problem
    assert side.branches[0].wordings[0].tokens > 0


def test_a_bad_weight_has_its_place(studio: Studio) -> None:
    side = look(studio, "a 🦊\n(red:1.2.3)").prompt
    assert side.mentions[0].kind == "weight"
    assert side.mentions[0].place == Place(9, 2, 6)
    assert "'1.2.3'" in side.mentions[0].problem


def test_notes(studio: Studio) -> None:
    assert "Comments" in look(studio, "a # b").prompt.notes[0]
    assert "BREAK" in look(studio, "(a BREAK b)").prompt.notes[0]
    assert "brackets and BREAK" in look(studio, "(a)", emphasis="None").prompt.notes[0]
    assert "Ignore" in look(studio, "(a)", emphasis="Ignore").prompt.notes[0]
    assert "own steps" in look(studio, "[a|b]", sampler="DPM adaptive").prompt.notes[0]
    assert look(studio, "[a|b] (c)").prompt.notes == []


def test_samplers_of_second_order_count_calls(studio: Studio) -> None:
    both = look(studio, "[a:b:8]", sampler="Heun", steps=10)
    assert (both.steps, both.calls) == (10, 20)
    assert [(each.first, each.last) for each in both.prompt.branches[0].segments] == [(1, 9), (10, 20)]
    with pytest.raises(UnknownName):
        look(studio, sampler="Hein")


def test_only_so_many_names_are_looked_up(studio: Studio) -> None:
    asked: list[str] = []
    unknown = " ".join(f"<lora:unknown{number}>" for number in range(300))
    wild = " ".join(f"__unknown{number}__" for number in range(300))
    lookup = studio.library.wildcard

    def wildcard(name: str) -> list[str]:
        asked.append(name)
        return lookup(name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(studio.library, "wildcard", wildcard)
        side = look(studio, f"{wild} {unknown}").prompt
    assert len(asked) == SHOWN_NAMES
    assert (len(side.mentions), side.more_mentions) == (SHOWN_NAMES, 600 - SHOWN_NAMES)


def test_embeddings_that_fit_and_that_do_not(studio: Studio) -> None:
    files = [
        model("embedding", "soft (v2)", vectors=3),
        model("embedding", "sub/Ink", vectors=1),
        model("embedding", "grand", vectors=2, family="sdxl"),
        model("embedding", "torn", problem="The file is truncated."),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(studio.library, "embeddings", lambda: files)
        both = look(studio, r"pink ink, [grand:Soft \(v2\):0.5] torn", "a (grand:0.5), grandeur")
        none = look(studio, "pink ink", model="nowhere")
    told = {mention.text: mention for mention in both.prompt.mentions}
    assert list(told) == ["grand", "torn", "ink", r"Soft \(v2\)"]
    assert told["ink"] == Mention("embedding", "ink", detail="1 vector", place=Place(5, 1, 6))
    assert told[r"Soft \(v2\)"] == Mention("embedding", r"Soft \(v2\)", detail="3 vectors", place=Place(17, 1, 18))
    assert told["grand"].problem.startswith("Embedding 'grand' was made for Stable Diffusion XL")
    assert told["torn"].problem.endswith("read as ordinary words: The file is truncated.")
    first, second = both.prompt.branches[0].wordings
    assert [(token.text, token.vectors) for token in second.chunks[0].tokens][2:4] == [(",", 0), ("soft (v2)", 3)]
    assert (first.tokens, second.tokens) == (5, 7)
    assert [(mention.text, mention.place) for mention in both.negative_prompt.mentions] == [("grand", Place(3, 1, 4))]
    assert none.prompt.mentions == []
