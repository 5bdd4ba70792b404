"""Training runs over HTTP: from a configuration to a finished run, and what is refused."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from studio.app import Studio
from studio.schema.training import TrainingConfig
from studio.training.estimate import estimate
from tests.api.stand_in import make_studio, serving
from tests.api.test_events import messages
from tests.runs.pretend import trainer
from tests.tiny_models import tiny_info

ROOT = "/studio/v1/training"


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    folder = tmp_path_factory.mktemp("data")
    (folder / "pictures").mkdir()
    made = make_studio(folder)
    made.training._command = trainer(0.02)
    yield made
    for process in made.training._processes.values():
        process.kill()
        process.wait(10)


def config(name: str = "duotone", **method: Any) -> dict[str, Any]:
    facts = {"kind": "lora", "model": "sprout", "data": {"path": "pictures"}, "steps": 20, **method}
    return {"name": name, "method": facts}


def created(client: httpx.Client, **changes: Any) -> str:
    answer = client.post(f"{ROOT}/runs", json=config(**changes))
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def until(client: httpx.Client, run_id: str, state: str) -> dict[str, Any]:
    deadline = time.monotonic() + 20
    while (record := client.get(f"{ROOT}/runs/{run_id}").json()["run"])["state"] != state:
        assert time.monotonic() < deadline, record
        time.sleep(0.03)
    return dict(record)


def test_a_run_from_its_configuration_to_its_curves(client: httpx.Client, studio: Studio) -> None:
    run_id = created(client, samples={"prompts": ["a fox"]})
    record = until(client, run_id, "finished")
    assert record["lora"] == "duotone"
    detail = client.get(f"{ROOT}/runs/{run_id}").json()
    assert detail["config"]["method"]["data"]["path"] == str(studio.paths.root / "pictures")
    TrainingConfig.model_validate(detail["config"])
    assert [each["id"] for each in client.get(f"{ROOT}/runs").json()] == [run_id]
    curves = client.get(f"{ROOT}/runs/{run_id}/curves").json()
    points = {curve["name"]: curve["points"] for curve in curves["curves"]}
    assert [point[0] for point in points["loss"]] == list(range(1, 21))
    assert [point[0] for point in points["validation"]] == [10, 20]
    assert curves["offset"] == record["summary"]["offset"]
    (sample,) = client.get(f"{ROOT}/runs/{run_id}/samples").json()
    assert (sample["step"], sample["prompt"]) == (0, "a fox")
    picture = client.get(sample["url"])
    assert picture.content.startswith(b"\x89PNG")
    assert picture.headers["content-type"] == "image/png"
    log = client.get(f"{ROOT}/runs/{run_id}/log", params={"size": 7}).json()
    assert log["text"] == "tep 20\n"
    assert log["size"] > 100


def test_events_can_be_read_on_from_any_byte(client: httpx.Client) -> None:
    run_id = created(client, name="slow", steps=60)
    found, offset = [], 0
    deadline = time.monotonic() + 20
    while not found or found[-1]["kind"] != "finished":
        assert time.monotonic() < deadline
        answer = client.get(f"{ROOT}/runs/{run_id}/events", params={"offset": offset, "limit": 300}).json()
        found, offset = found + answer["events"], answer["offset"]
        time.sleep(0.01)
    assert [event["step"] for event in found if event["kind"] == "step"] == list(range(1, 61))


def test_actions(client: httpx.Client) -> None:
    run_id = created(client, name="long", steps=5000)
    until(client, run_id, "running")
    other = client.post(f"{ROOT}/runs/{run_id}/duplicate").json()
    assert (other["id"], other["state"], other["position"]) == (f"{run_id}-2", "queued", 1)
    assert client.post(f"{ROOT}/runs/{other['id']}/stop").json()["state"] == "stopped"
    assert client.delete(f"{ROOT}/runs/{other['id']}").json() == {"ok": True}
    assert client.get(f"{ROOT}/runs/{other['id']}").status_code == 404
    assert client.delete(f"{ROOT}/runs/{run_id}").status_code == 422
    for action in ("save", "sample", "pause"):
        assert client.post(f"{ROOT}/runs/{run_id}/{action}").status_code == 200
    until(client, run_id, "paused")
    assert client.post(f"{ROOT}/runs/{run_id}/force-stop").status_code == 403
    client.post(f"{ROOT}/runs/{run_id}/resume")
    until(client, run_id, "running")
    client.post(f"{ROOT}/runs/{run_id}/stop")
    until(client, run_id, "stopped")
    assert client.post(f"{ROOT}/runs/{run_id}/explode").status_code == 422


@pytest.mark.parametrize(
    ("change", "status", "field", "words"),
    [
        ({"steps": 0}, 422, "method.lora.steps", "steps = 0"),
        ({"network": {"rank": "many"}}, 422, "method.lora.network.rank", "'many'"),
        ({"sorcery": 1}, 422, "method.lora.sorcery", "sorcery"),
        ({"kind": "magic"}, 422, "method.kind", "magic"),
        ({"model": "elm"}, 404, "model", "elm"),
        ({"model": "broken"}, 422, "method.model", "truncated"),
        ({"data": {"path": "nowhere"}}, 422, "method.data.path", "nowhere"),
        ({"data": {"path": ""}}, 422, "method.data.path", "missing"),
    ],
)
def test_a_bad_configuration_is_refused_with_its_field(
    client: httpx.Client, change: dict[str, Any], status: int, field: str, words: str
) -> None:
    answer = client.post(f"{ROOT}/runs", json=config(**change))
    error = answer.json()["error"]
    assert (answer.status_code, error["field"]) == (status, field), error
    assert words in error["message"]


@pytest.mark.parametrize("name", ["", "../x", "A", "x" * 80, "a/b"])
def test_names_are_file_names(client: httpx.Client, name: str) -> None:
    answer = client.post(f"{ROOT}/runs", json={**config(), "name": name})
    assert (answer.status_code, answer.json()["error"]["field"]) == (422, "name")


def test_nothing_is_written_or_read_outside(client: httpx.Client) -> None:
    answer = client.post(f"{ROOT}/runs", json={**config(), "export_to": "checkpoints/sprout-v1"})
    assert (answer.status_code, answer.json()["error"]["field"]) == (403, "export_to")
    scratch = {"name": "x", "method": {"kind": "scratch", "start": "../../etc"}}
    assert client.post(f"{ROOT}/runs", json=scratch).status_code == 403
    run_id = created(client)
    for path in ("..%2Fconfig.json", "config.json", "..%2f..%2fsettings.json"):
        assert client.get(f"{ROOT}/runs/{run_id}/samples/{path}").status_code == 404
    assert client.get(f"{ROOT}/runs/..%2f..%2f").status_code == 404


def test_the_memory_of_a_run_is_told_before_it_starts(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = client.post(f"{ROOT}/estimate", json=config()).json()["error"]  # the stand-in's checkpoint is no file
    assert gone["field"] == "method.model" and "cannot be read" in gone["message"]
    info = tiny_info("sd1")
    with monkeypatch.context() as patch:
        patch.setattr("studio.runs.check.estimate", lambda method, _, short: estimate(method, info, short=short))
        told = client.post(f"{ROOT}/estimate", json=config()).json()
    assert told["loading"] > 0 and told["training"] > told["weights"] + told["learning"] + told["activations"]
    assert client.post(f"{ROOT}/estimate", json={"name": "x", "method": {"kind": "scratch"}}).json() is None
    assert client.post(f"{ROOT}/estimate", json=config(model="nothing such")).status_code == 404


def test_others_reach_only_the_data_folder(folder: Path, tmp_path: Path) -> None:
    studio = make_studio(folder)
    studio.exposed = True
    (folder / "inside").mkdir(parents=True, exist_ok=True)
    (folder / "link").symlink_to(tmp_path)
    with serving(studio) as address:
        studio.training._command = lambda run, device: ["false"]
        post = lambda path: httpx.post(f"{address}{ROOT}/runs", json=config(data={"path": path}))  # noqa: E731
        assert post("inside").status_code == 200
        for path in (str(tmp_path), "link", "..", "."):
            assert post(path).json()["error"]["field"] == "method.data.path"
            assert post(path).status_code == 403
            scratch = {"name": "x", "method": {"kind": "scratch", "data": {"path": path}}}
            assert httpx.post(f"{address}{ROOT}/runs", json=scratch).status_code == 403
        scratch = {"name": "x", "method": {"kind": "scratch", "data": {"path": "inside"}}}
        made = httpx.post(f"{address}{ROOT}/runs", json=scratch).json()["id"]
        told = httpx.get(f"{address}{ROOT}/runs/{made}").json()["config"]["method"]["data"]
        assert told["path"] == str(folder / "inside")
        scratch["method"]["data"]["path"] = "nowhere"
        assert httpx.post(f"{address}{ROOT}/runs", json=scratch).json()["error"]["field"] == "method.data.path"


def test_the_form_has_schema_and_presets(client: httpx.Client) -> None:
    answer = client.get(f"{ROOT}/form").json()
    assert "LoraMethod" in answer["config"]["$defs"]
    assert {"quick-style", "sdxl"} <= {preset["name"] for preset in answer["presets"]}


def test_the_stream_tells_of_runs_at_once_and_of_every_change(client: httpx.Client, address: str) -> None:
    states: list[str] = []
    with httpx.stream("GET", f"{address}/studio/v1/events", timeout=20) as answer:
        reading = messages(answer)
        first = next(message for message in reading if message["event"] == "training")
        assert len(first["data"]["runs"]) == len(client.get(f"{ROOT}/runs").json())
        run_id = created(client, name="watched", steps=15)
        offsets = []
        for message in reading:
            for record in message["data"].get("runs", []) if message["event"] == "training" else []:
                if record["id"] == run_id:
                    states.append(record["state"])
                    offsets.append(record["summary"]["offset"])
            if states[-1:] == ["finished"]:
                break
    assert offsets == sorted(offsets)
    assert list(dict.fromkeys(states)) in (["queued", "running", "finished"], ["running", "finished"])
    client.delete(f"{ROOT}/runs/{run_id}")
    with httpx.stream("GET", f"{address}/studio/v1/events", timeout=20) as answer:
        again = next(message for message in messages(answer) if message["event"] == "training")
    assert run_id not in [record["id"] for record in again["data"]["runs"]]
