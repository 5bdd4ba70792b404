"""Errors: they travel as JSON and help with near matches."""

from __future__ import annotations

import json

from studio import errors
from studio.errors import StudioError, UnknownModel, UnknownName, error_text, from_dict


def _tree(cls: type[StudioError]) -> list[type[StudioError]]:
    public = [sub for sub in cls.__subclasses__() if sub.__module__ == errors.__name__]
    return [cls, *(below for sub in public for below in _tree(sub))]


def test_error_text_is_one_short_line() -> None:
    assert error_text(ValueError("a\nb")) == "ValueError: a"
    assert error_text(ValueError()) == "ValueError"
    assert len(error_text(ValueError("x" * 1000))) == 300


def test_every_error_survives_the_pipe() -> None:
    for cls in _tree(StudioError):
        error = cls("it broke: 7", field="steps", choices=["a", "b"])
        back = from_dict(json.loads(json.dumps(error.to_dict())))
        assert type(back) is cls
        assert (back.message, back.field, back.choices) == ("it broke: 7", "steps", ("a", "b"))


def test_codes_are_unique_and_all_errors_are_drawn_in_the_tree() -> None:
    classes = _tree(StudioError)
    assert len({cls.code for cls in classes}) == len(classes)
    for cls in classes:
        assert cls.__name__ in (errors.__doc__ or "")


def test_unknown_name_offers_near_matches() -> None:
    error = UnknownName.of("sampler", "euler A", ["DPM++ 2M", "Euler", "Euler a"])
    assert error.choices[0] == "Euler a"
    assert "'Euler a'" in error.message
    assert "'DPM++ 2M'" not in error.message
    assert UnknownName.of("sampler", "zzz", ["Euler"]).choices == ("Euler",)
    assert "no LoRA yet" in UnknownModel.of("LoRA", "x", []).message


def test_a_private_refinement_travels_as_what_it_refines() -> None:
    class Refined(UnknownName):
        """Another module's own, with the code of its base."""

    assert type(from_dict(Refined("?").to_dict())) is UnknownName


def test_an_unknown_code_is_still_an_error() -> None:
    assert from_dict({"code": "from the future", "message": "?"}).message == "?"
