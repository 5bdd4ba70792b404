"""The prompt inspector over REST."""

from __future__ import annotations

from typing import Any

import httpx

ROUTE = "/studio/v1/prompt/inspect"


def ask(client: httpx.Client, **fields: Any) -> dict[str, Any]:
    answer = client.post(ROUTE, json=fields)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_the_whole_answer(client: httpx.Client) -> None:
    answer = ask(client, prompt="a (fox:1.5) [x::2] <lora:inc>", negative_prompt="", steps=4, sampler="Euler")
    assert answer == {
        "steps": 4,
        "calls": 4,
        "prompt": {
            "drawn": "no",
            "wording": "",
            "branches": [
                {
                    "weight": 1.0,
                    "segments": [{"first": 1, "last": 3, "wording": 0}, {"first": 4, "last": 4, "wording": 1}],
                    "wordings": [
                        wording("a (fox:1.5) x", "x", ["a", 1.0], ["fox", 1.5], ["x", 1.0]),
                        wording("a (fox:1.5)", "", ["a", 1.0], ["fox", 1.5]),
                    ],
                    "more_wordings": 0,
                }
            ],
            "more_branches": 0,
            "mentions": [
                {
                    "kind": "lora",
                    "text": "<lora:inc>",
                    "detail": "",
                    "problem": "There is no LoRA named 'inc'. Did you mean 'ink'?",
                    "choices": ["ink"],
                    "place": {"start": 19, "line": 1, "column": 20},
                }
            ],
            "more_mentions": 0,
            "notes": [],
        },
        "negative_prompt": {
            "drawn": "no",
            "wording": "",
            "branches": [
                {
                    "weight": 1.0,
                    "segments": [{"first": 1, "last": 4, "wording": 0}],
                    "wordings": [wording("", "")],
                    "more_wordings": 0,
                }
            ],
            "more_branches": 0,
            "mentions": [],
            "more_mentions": 0,
            "notes": [],
        },
    }


def wording(text: str, own: str, *tokens: list[Any]) -> dict[str, Any]:
    told = [{"text": text, "weight": weight, "joined": False, "vectors": 0} for text, weight in tokens]
    chunk = {"tokens": told, "padding": 75 - len(told), "ended": "end", "in_padding": []}
    return {"text": text, "own": own, "tokens": len(told), "chunks": [chunk], "more_chunks": 0}


def test_what_is_not_given_is_what_a_fresh_form_shows(client: httpx.Client) -> None:
    answer = ask(client)
    assert (answer["steps"], answer["calls"]) == (20, 20)


def test_bad_fields_are_refused_as_they_are_for_painting(client: httpx.Client) -> None:
    for fields, status, word in [
        ({"steps": 0}, 422, "steps"),
        ({"nonsense": 1}, 422, "nonsense"),
        ({"sampler": "Eular"}, 400, "'Euler'"),
        ({"prompt": "x" * 50_001}, 422, "prompt"),
    ]:
        answer = client.post(ROUTE, json=fields)
        assert answer.status_code == status
        assert word in answer.json()["error"]["message"]


def test_long_prompts_are_cut_in_what_is_told(client: httpx.Client) -> None:
    answer = client.post(ROUTE, json={"prompt": "[a|b|c|d|e|f] " + "word, " * 8000, "steps": 150})
    assert len(answer.content) < 400_000
    (branch,) = answer.json()["prompt"]["branches"]
    assert branch["wordings"][0]["tokens"] == 16_001
    assert branch["more_wordings"] > 0
