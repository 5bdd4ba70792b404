"""Wildcards and choices: what is drawn, how often, and what stays text."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.errors import InvalidRequest, UnknownName
from studio.prompt import expand, literal

LINES = {
    "colour": ["red", "3::blue"],
    "animals/cats": ["lynx", "{big|small} puma"],
    "coloured": ["__colour__ __animals/cats__"],
    "loop": ["x __loop__"],
    "twice": ["__once__ __once__"],
    "once": ["a|b", "c"],
}
for level in range(20):
    LINES[f"d{level}"] = [f"__d{level + 1}__ __d{level + 1}__"]
LINES["d20"] = ["x"]


def lookup(name: str) -> list[str]:
    if name not in LINES:
        raise UnknownName.of("wildcard", name, LINES)
    return LINES[name]


def drawn(text: str, times: int = 200) -> Counter[str]:
    return Counter(expand(text, lookup, str(seed)) for seed in range(times))


@pytest.mark.parametrize(
    "text, possible",
    [
        ("a {red|blue} fox", {"a red fox", "a blue fox"}),
        ("{a|{b|c}}", {"a", "b", "c"}),
        ("{a|}!", {"a!", "!"}),
        ("{2$$a|b|c}", {"a, b", "b, a", "a, c", "c, a", "b, c", "c, b"}),
        ("{1-2$$ and $$a|b}", {"a", "b", "a and b", "b and a"}),
        ("{0-1$$a|b}", {"", "a", "b"}),
        ("{2-$$a|b}", {"a, b", "b, a"}),
        ("{-1$$a|b}", {"a", "b"}),
        ("{2-1$$a|b}", {"a", "b", "a, b", "b, a"}),
        ("{999$$a|b}", {"a, b", "b, a"}),
        ("{2$$__colour__}", {"red, blue", "blue, red"}),
        ("__colour__", {"red", "blue"}),
        ("__colour____colour__", {"redred", "redblue", "bluered", "blueblue"}),
        ("__animals/cats__", {"lynx", "big puma", "small puma"}),
        ("{[a|b]|c}", {"[a|b]", "c"}),
        ("{[a|b}", {"[a", "b"}),
        ("{0::a|b}", {"b"}),
        ("{[a::0.5]|b}", {"[a::0.5]", "b"}),
        ("{ {a|b}", {"{ a", "{ b"}),
        ("(a:{1.1|1.2})", {"(a:1.1)", "(a:1.2)"}),
        ("<lora:{a|b}:1>", {"<lora:a:1>", "<lora:b:1>"}),
    ],
)
def test_what_can_be_drawn(text: str, possible: set[str]) -> None:
    assert set(drawn(text)) == possible


@pytest.mark.parametrize(
    "text",
    ["{prompt}", "{a}", "{}", "a|b", "[a|b]", "{a", "a}", "snake__case__name", "__ a __", "____", "__", "a_b_c", "\\{a|b}",
     "\\__colour__", "{a\\|b}", "<lora:my__colour__lora:1>", "{2$$", "50$$", "{[a|b]}"],
)  # fmt: skip
def test_what_is_no_form_stays(text: str) -> None:
    assert expand(text, lookup, "1") == text == literal(text)


def test_weights() -> None:
    counts = drawn("__colour__", 1000)
    assert 650 < counts["blue"] < 850
    counts = drawn("{9::a|b}", 1000)
    assert 830 < counts["a"] < 960
    firsts = Counter(text.split(", ")[0] for text in drawn("{2$$8::a|b|c}", 600).elements())
    assert 400 < firsts["a"] < 550


def test_the_seed_alone_decides() -> None:
    text = "{a|b|c} {1-3$$a|b|c} __coloured__"
    assert [expand(text, lookup, str(seed)) for seed in range(9)] == [
        expand(text, lookup, str(seed)) for seed in range(9)
    ]
    assert len(drawn(text)) > 20


def test_what_luck_puts_together_is_escaped() -> None:
    assert expand("{_|_}_colour__", lookup, "1") == "\\__colour\\__"
    assert set(drawn("{__twice__ x")) == {"{a|b a|b x", "{a|b c x", "{c a|b x", "{c c x"}
    assert set(drawn("{__once__}")) == {"\\{a|b}", "{c}"}


PIECES = st.lists(
    st.sampled_from(["{", "}", "[", "]", "|", "__", "_", "\\", "2$$", "1-2$$", ", $$", "3::", "a", " ", "colour", "__once__"]),
    max_size=25,
)  # fmt: skip


@given(PIECES.map("".join), st.integers(0, 5))
def test_a_drawn_text_draws_nothing_more(text: str, seed: int) -> None:
    try:
        result = expand(text, lookup, str(seed))
    except UnknownName:
        return
    assert expand(result, lookup, "other") == result
    assert literal(result) == result


@given(PIECES.map("".join))
def test_a_literal_text_differs_by_backslashes_only(text: str) -> None:
    assert expand(literal(text), lookup, "1") == literal(text)
    assert literal(text).replace("\\", "") == text.replace("\\", "")


@pytest.mark.parametrize(
    "text, said",
    [
        ("__loop__", "50 deep"),
        ("__d0__", "10,000 options"),
        ("{0::a|0::b}", "weight above 0"),
        ("{a|b}" * 10_001, "10,000 options"),
        (f"{{{'a' * 30_000}|{'b' * 30_000}}}" * 2, "50,000"),
    ],
)
def test_what_would_never_end_is_refused(text: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        expand(text, lookup, "1")


def test_an_unknown_wildcard_is_named() -> None:
    with pytest.raises(UnknownName, match=r"'color'.*'colour'"):
        expand("a __color__ fox", lookup, "1")


@pytest.mark.parametrize(
    "text",
    ["{" * 500_000 + "}" * 500_000, "{[|" * 333_000 + "}" * 300, "{a|" * 250_000 + "}" * 250_000, "__a b c" * 140_000,
     "{1$$a" * 200_000, "_" * 1_000_000, "{" + "[|" * 500_000 + "}", "{1$$" + "x" * 1_000_000, "{" * 1_000_000,
     "{" + "|]" * 500_000 + "}", "[{" * 500_000],
)  # fmt: skip
def test_a_megabyte_costs_no_more_than_its_length(text: str) -> None:
    began = time.process_time()
    literal(text)
    assert time.process_time() - began < 20  # a square of the length would take hours
