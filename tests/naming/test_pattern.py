"""Tags: what the vectors cannot hold."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from studio.naming import TAGS, PictureFacts, expand, picture_facts
from studio.naming.facts import timestamp
from studio.schema.models import ModelInfo
from studio.schema.request import RunOptions
from tests.engine.samples import resolved_request

NOW = datetime(2026, 1, 31, 23, 59, 58, tzinfo=timezone(timedelta(hours=2)))


@pytest.mark.parametrize(
    "pattern, text",
    [
        ("[datetime]", "20260131235958"),
        ("[datetime<%H-%M><utc>]", "21-59"),
        ("[datetime<%H-%M><America>]", "23-59"),
        ("[datetime<%H-%M><../../etc/passwd>]", "23-59"),
        ("[model_hash]", ""),
        ("a-[model_hash]-b", "-b"),
        ("[prompt_words]", "a _ b"),
    ],
)
def test_values(pattern: str, text: str) -> None:
    assert expand(pattern, PictureFacts(prompt="a \\ (b)", now=NOW)).text == text


class Strict(datetime):
    """As on Windows, where a format that is not known is an error."""

    def strftime(self, form: str) -> str:
        if "%Q" in form:
            raise ValueError("Invalid format string")
        return super().strftime(form)


def test_a_time_format_that_the_system_refuses_is_the_usual_one() -> None:
    assert expand("[datetime<%Q>]", PictureFacts(now=Strict(2026, 1, 31, 23, 59, 58))).text == "20260131235958"


@pytest.mark.parametrize(
    "pattern, complaint",
    [
        ("[seed<1>]", r"\[seed<1>\] in a file name cannot be filled in: it takes no arguments, 1 are given"),
        ("[prompt_hash<8><9>]", "it takes 1 arguments, 2 are given"),
        ("[prompt_hash<x>]", "invalid literal"),
        ("[scheduler]", "There is no sampler named 'Nope'"),
    ],
)
def test_complaints_say_what_is_wrong(pattern: str, complaint: str) -> None:
    text, problems = expand(pattern, PictureFacts(seed=1, sampler="Nope"))
    assert text == pattern.split("<")[0].rstrip("]") + "]"
    with pytest.raises(ValueError, match=complaint):
        raise ValueError(*problems)


def test_every_tag_works_for_a_picture_of_a_job() -> None:
    request = resolved_request(batch_size=2, batch_count=2)
    model = ModelInfo(kind="vae", name="v", path="/m/kl.f8.pt", layout="file", family="sd1", size=1, mtime=0.0)
    oak = request.model.model_copy(update={"name": "sub/oak", "short_hash": "0123456789"})
    request = request.model_copy(update={"vae": model, "model": oak})
    facts = picture_facts(request, 2, 0.0, lambda: b"rgb")
    for name in TAGS:
        text, problems = expand(f"<[{name}]>", facts)
        assert problems == []
        assert (text == f"<[{name}]>") == (name == "user"), name  # nobody is named
    named = request.model_copy(update={"options": RunOptions(user="Ada")})
    assert expand("<[user]>", picture_facts(named, 2, 0.0)).text == "<Ada>"
    text = (
        "[seed] [seed_first] [seed_last] [batch_number] [generation_number] [model_name] [vae_filename] [job_timestamp]"
    )
    assert expand(text, facts).text == f"9 7 10 1 3 oak kl {timestamp(0.0)}"
