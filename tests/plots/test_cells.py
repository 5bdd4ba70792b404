"""The requests of a plot: their order, their seeds, and what is refused."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from studio.errors import StudioError
from studio.plots import expanded
from studio.prompt import Style
from studio.resolve import fixed, resolve
from studio.schema.request import GenerationRequest, make_request
from studio.schema.resolved import ResolvedRequest
from tests.infotext.test_round_trip import Library


def asked(**plot: Any) -> GenerationRequest:
    more = plot.pop("more", {})
    return make_request({"prompt": "a red fox", "seed": 5, "plot": plot, **more})


def seeds() -> Callable[[], int]:
    counter = itertools.count(100)
    return lambda: next(counter)


def test_they_go_along_x_then_y_then_z() -> None:
    request = asked(
        x_type="Steps", x_values="8, 9", y_type="CFG Scale", y_values="1-3", z_type="Clip skip", z_values="1,2"
    )
    labels, cells = expanded(request, seeds())
    assert labels == (("8", "9"), ("1", "2", "3"), ("1", "2"))
    assert [(c.steps, c.cfg_scale, c.clip_skip) for c in cells] == [
        (x, y, z) for z in (1, 2) for y in (1, 2, 3) for x in (8, 9)
    ]
    assert {c.seed for c in cells} == {5} and all(c.plot is None for c in cells)


def test_one_axis_is_enough_and_none_is_no_plot() -> None:
    labels, cells = expanded(asked(y_type="Steps", y_values="8, 9"), seeds())
    assert labels == (("",), ("8", "9"), ("",)) and len(cells) == 2
    assert asked(x_values="1").plot is None


@pytest.mark.parametrize("random, wanted", [(False, [100] * 4), (True, [-1] * 4)])
def test_the_seed_is_drawn_once_unless_each_shall_have_its_own(random: bool, wanted: list[int]) -> None:
    plot = {"x_type": "Steps", "x_values": "8,9", "y_type": "CFG Scale", "y_values": "2,3", "random_seeds": random}
    assert [cell.seed for cell in expanded(asked(**plot, more={"seed": -1}), seeds())[1]] == wanted


def test_a_drawn_value_of_a_seed_axis_is_the_same_in_every_row() -> None:
    labels, cells = expanded(asked(x_type="Seed", x_values="-1, 5, -1", y_type="Steps", y_values="8,9"), seeds())
    assert labels[0] == ("100", "5", "101")
    assert [cell.seed for cell in cells] == [100, 5, 101] * 2


def test_parts_that_two_axes_fill_together_are_there_at_the_end() -> None:
    plot = {"x_type": "Var. seed", "x_values": "7, 8", "y_type": "Var. strength", "y_values": "0, 0.5"}
    found = [
        cell.variation and (cell.variation.seed, cell.variation.strength)
        for cell in expanded(asked(**plot), seeds())[1]
    ]
    assert found == [None, None, (7, 0.5), (8, 0.5)]


@pytest.mark.parametrize(
    "plot, reason, field",
    [
        ({"x_type": "Steps", "x_values": "a"}, "plot.x_values = 'a' is not possible for Steps", "plot.x_values"),
        ({"z_type": "Steps"}, "there are no values", "plot.z_values"),
        ({"x_type": "Steps", "x_values": "1-401"}, "401 pictures; at most 400", "plot.x_values"),
        ({"x_type": "Steps", "x_values": "1", "z_type": "Steps", "z_values": "2"}, "Two axes change Steps", "plot.y_type"),
        ({"y_type": "Denoising", "y_values": "0.4"}, "Denoising '0.4': the picture has no second pass", "plot.y_values"),
        ({"x_type": "CFG Scale", "x_values": "500"}, "cfg_scale = 500.0 is not possible", "plot"),
        ({"x_type": "Sampler", "x_values": "Euler, Speedy"}, "Speedy", "sampler"),
        ({"x_type": "Steps", "x_values": "3", "more": {"batch_size": 2}}, "one picture in each cell, not 2", "batch_size"),
        ({"x_type": "Steps", "x_values": "3", "more": {"batch_count": 2}}, "set batch count", "batch_count"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_is_painted(plot: dict[str, Any], reason: str, field: str) -> None:
    with pytest.raises(StudioError) as caught:
        resolve(asked(**plot), Library(), seeds())
    assert reason in caught.value.message
    assert caught.value.field == field


def test_resolved_beside_its_plot_it_is_its_first_picture() -> None:
    found = resolve(asked(x_type="Steps", x_values="8,9", y_type="Sampler", y_values="Euler, Heun"), Library(), seeds())
    assert found.plot is not None
    assert [(one.steps, one.sampler) for one in found.plot.cells] == [
        (8, "Euler"),
        (9, "Euler"),
        (8, "Heun"),
        (9, "Heun"),
    ]
    assert (found.steps, found.sampler, found.picture_count) == (8, "Euler", 4)
    assert found.picture(3) == (found.plot.cells[3], 0)
    assert all(one.plot is None for one in found.plot.cells)


def test_what_is_kept_of_an_order_gives_the_same_plot_again() -> None:
    request = asked(
        x_type="Seed",
        x_values="-1, 9",
        y_type="Prompt S/R",
        y_values="red, blue",
        more={"seed": -1, "variation": {"seed": -1, "strength": 0.1}},
    )
    first = resolve(request, Library(), seeds())
    kept = fixed(request, first)
    assert kept.plot is not None and kept.plot.x_values == "100, 9"
    second = resolve(kept, Library(), lambda: 7)
    assert second.plot is not None and first.plot is not None
    assert [one.seeds for one in second.plot.cells] == [one.seeds for one in first.plot.cells]
    assert kept.variation is not None and kept.variation.seed == 101
    assert {one.variation and one.variation.seeds for one in first.plot.cells} == {(101,)}
    common = asked(x_type="Steps", x_values="8,9", more={"seed": -1})
    resolved = resolve(common, Library(), seeds())
    assert fixed(common, resolved).seed == resolved.seeds[0] == 100


class Changing(Library):
    """A library whose style and wildcard are others later."""

    word = "ink drawing of"

    def style(self, name: str) -> Style:
        return Style(name, f"{self.word} {{prompt}}", "")

    def wildcard(self, name: str) -> list[str]:
        return [self.word]


def texts(request: GenerationRequest, resolved: ResolvedRequest) -> tuple[GenerationRequest, list[str]]:
    assert resolved.plot is not None
    return fixed(request, resolved), [one.positive.text for one in resolved.plot.cells]


def test_what_waits_is_what_was_asked_for_whatever_becomes_of_styles_and_wildcards() -> None:
    library = Changing()
    request = asked(x_type="Steps", x_values="8,9", more={"prompt": "a {red|red} fox, __how__", "styles": ["ink"]})
    kept, words = texts(request, resolve(request, library, seeds(), selected_checkpoint="painter"))
    assert words == ["ink drawing of a red fox, ink drawing of"] * 2
    assert (kept.prompt, kept.styles, kept.model) == (words[0], (), "painter")
    library.word = "photo of"
    again = resolve(kept, library, seeds(), selected_checkpoint="grand")
    assert texts(kept, again) == (kept, words)
    # What an axis changes stays as it is: the pictures have no words in common.
    searched = asked(x_type="Prompt S/R", x_values="red,blue", more={"prompt": "a red fox", "styles": ["ink"]})
    kept, words = texts(searched, resolve(searched, library, seeds(), selected_checkpoint="painter"))
    assert words == ["photo of a red fox", "photo of a blue fox"]
    assert (kept.prompt, kept.styles, kept.model) == ("a red fox", ("ink",), "painter")


def test_a_plot_of_checkpoints(tmp_path: Path) -> None:
    found = resolve(asked(x_type="Checkpoint name", x_values="painter, grand"), Library(), seeds())
    assert found.plot is not None
    assert [one.model.name for one in found.plot.cells] == ["painter", "grand"]
