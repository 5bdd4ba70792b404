"""Values of an axis: numbers and ranges as A1111 writes them, words, and what each does to a request."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.plots.axes import FIELDS, MAX_RANGE, WORDED, axis_values, decimals, integers, switches, words
from studio.schema.parts import HiresPass
from studio.schema.plot import AxisType
from studio.schema.request import GenerationRequest, make_request
from studio.schema.source import Mask, Source

PICTURE = "0" * 32
WHOLE = GenerationRequest(prompt="a red fox, a cat", negative_prompt="a dog", seed=1, hires=HiresPass())
OVER = GenerationRequest(prompt="a red fox", source=Source(image=PICTURE), mask=Mask(image=PICTURE))


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("1", [1]),
        ("1, 2,3 ,", [1, 2, 3]),
        ("1-5", [1, 2, 3, 4, 5]),
        ("5-1", [5, 4, 3, 2, 1]),
        ("1-10 (+3)", [1, 4, 7, 10]),
        ("10-1(-4)", [10, 6, 2]),
        ("-3 - -1", [-3, -2, -1]),
        ("1-9 [3]", [1, 5, 9]),
        ("4-4 [1]", [4]),
        ("0.1-0.5 (+0.2)", [0.1, 0.3, 0.5]),
        ("0-1 [3], 7", [0, 0.5, 1, 7]),
        (".5, 1., 2e1", [0.5, 1, 20]),
        ("-1", [-1]),
    ],
)
def test_numbers_and_ranges(text: str, wanted: list[float]) -> None:
    assert decimals(text) == pytest.approx(wanted)


@pytest.mark.parametrize(
    "text, reason",
    [
        ("a", "'a' is no number"),
        ("1-", "no range like"),
        ("1-5 (-1)", "never comes to its end"),
        ("1-5 (0)", "never comes to its end"),
        ("1-5 [0]", "a range may have 1 to 1000"),
        ("0-1e9", "no number"),
        ("0-100000", f"a range may have {MAX_RANGE}"),
        ("1-9 [99999999]", "asks for 99999999"),
    ],
)
def test_what_is_no_range_is_named(text: str, reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        decimals(text)
    assert reason in str(caught.value)


def test_whole_numbers_are_whole() -> None:
    assert integers("8-12 (+2)") == [8, 10, 12]
    with pytest.raises(ValueError, match=r"8\.5 is not a whole number"):
        integers("8.5")


def test_words_are_a_line_of_a_csv_file() -> None:
    assert words('red, "dark, green",  blue ,,') == ["red", "dark, green", "blue"]
    assert words('"a ""b"""') == ['a "b"']
    assert words("one,\ntwo") == ["one", "two"]
    assert words(" ") == []


def test_switches_have_several_spellings() -> None:
    assert switches("True, false, YES, 0") == [True, False, True, False]
    with pytest.raises(ValueError, match="'maybe' is neither"):
        switches("maybe")


def applied(kind: str, text: str) -> str:
    """What is wrong with the text, or with its values in a request; empty where nothing is."""
    try:
        for _, change in axis_values(kind, text):
            change(WHOLE)
    except ValueError as error:
        return str(error) or "no reason"
    return ""


@given(st.text(max_size=30), st.sampled_from([kind for kind in get_args(AxisType) if kind != "Nothing"]))
def test_any_text_is_values_or_a_reason(text: str, kind: str) -> None:
    reason = applied(kind, text)
    assert reason != "no reason" and not reason.endswith(".")


def test_every_axis_changes_something() -> None:
    """Each type that the schema names is built, and its change is seen in a request that has what it needs."""
    texts: dict[str, str] = {
        **{kind: "3" for kind, (read, _) in FIELDS.items() if read is integers},
        **{kind: "0.4" for kind, (read, _) in FIELDS.items() if read is decimals},
        **{kind: "True" for kind, (read, _) in FIELDS.items() if read is switches},
        **{kind: "elm" for kind, (read, _) in FIELDS.items() if read is words},
        "RNG source": "NV", "Prompt S/R": "fox, owl", "Prompt order": "fox, cat", "Size": "96x64", "Styles": "photo",
        "UniPC Order": "2", "FP8 mode": "Enable", "Face restore": "GFPGAN",
    }  # fmt: skip
    assert {*FIELDS, *WORDED, "Nothing"} == set(get_args(AxisType)) == {*texts, "Nothing"}
    for kind, text in texts.items():
        request = OVER if kind.startswith(("Initial noise", "Cond. Image", "Image CFG")) else WHOLE
        label, change = axis_values(kind, text)[-1]
        changed = change(request)
        assert changed != request, kind
        assert label
        make_request(changed.model_dump())


def test_of_two_places_the_one_that_is_there_changes() -> None:
    ((_, change),) = axis_values("Denoising", "0.3")
    assert (hires := change(WHOLE).hires) and hires.denoising_strength == 0.3
    assert (source := change(OVER).source) and source.denoising_strength == 0.3
    with pytest.raises(ValueError, match=r"no second pass \(Hires. fix\) and no picture to begin with"):
        change(GenerationRequest())


def test_prompt_search_and_replace() -> None:
    values = axis_values("Prompt S/R", 'red fox, "owl, small", a')
    assert [label for label, _ in values] == ["red fox", "owl, small", "a"]
    assert [change(WHOLE).prompt for _, change in values] == ["a red fox, a cat", "a owl, small, a cat", "a a, a cat"]
    (_, same), (_, other) = axis_values("Prompt S/R", "dog, frog")
    assert (same(WHOLE).negative_prompt, other(WHOLE).negative_prompt) == ("a dog", "a frog")
    with pytest.raises(ValueError, match="'bird' is in neither prompt"):
        axis_values("Prompt S/R", "bird, fox")[1][1](WHOLE)


def test_prompt_order() -> None:
    found = {label: change(WHOLE).prompt for label, change in axis_values("Prompt order", "red fox, cat")}
    assert found == {"red fox, cat": "a red fox, a cat", "cat, red fox": "a cat, a red fox"}
    for text, reason in (("fox, owl", "'owl' is not in the prompt"), ("red fox, fox", "overlap")):
        with pytest.raises(ValueError, match=reason):
            axis_values("Prompt order", text)[0][1](WHOLE)
    with pytest.raises(ValueError, match="too many orders"):
        axis_values("Prompt order", "a, b, c, d, e, f")


@pytest.mark.parametrize("text, size", [("512x768", (512, 768)), ("64 X 128", (64, 128)), ("64×64", (64, 64))])
def test_sizes(text: str, size: tuple[int, int]) -> None:
    ((_, change),) = axis_values("Size", text)
    request: Any = change(WHOLE)
    assert (request.width, request.height) == size
    with pytest.raises(ValueError, match="no size like"):
        axis_values("Size", "big")


@pytest.mark.parametrize(
    "before, wanted", [("", ["", "CodeFormer", "", "GFPGANv1.3"]), ("GFPGAN", ["", "GFPGAN", "", "GFPGANv1.3"])]
)
def test_face_restorers_by_name_or_by_yes_and_no(before: str, wanted: list[str]) -> None:
    request = GenerationRequest(face_restoration=before)
    values = axis_values("Face restore", "None, True, false, GFPGANv1.3")
    assert [label for label, _ in values] == ["None", "True", "false", "GFPGANv1.3"]
    assert [change(request).face_restoration for _, change in values] == wanted
