"""The pieces of the clip method, each against a closed form or a second way to compute it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import fields
from functools import reduce
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as functional

from studio.errors import SettingsError, TrainingError
from studio.schema.training import (
    ClipMethod,
    MethodSettings,
    TrainingConfig,
    load_training_config,
    parse_training_config,
)
from studio.training.card import BEGIN, END, fill_card
from studio.training.counter import generator
from studio.training.data.scenes.captions import plain_caption
from studio.training.data.scenes.holdout import any_held_out
from studio.training.data.scenes.scene import draw_scene
from studio.training.data.scenes.swaps import SWAPS, wrong_scene
from studio.training.data.scenes.vocabulary import OBJECTS
from studio.training.methods.contrastive.augment import augment
from studio.training.methods.contrastive.evaluate import Question, figures_table, retrieval, swap_test, zero_shot
from studio.training.methods.contrastive.export import expand
from studio.training.methods.contrastive.model import build_clip, caption_vectors
from studio.training.methods.contrastive.objective import contrastive_loss
from studio.training.methods.contrastive.train import same_caption
from studio.training.methods.scratch.text import TOKENIZER_FOLDER, CompactVocabulary, load_tokenizer, tokenize
from studio.training.runs import prepare_run
from studio.training.schedule import warm_up_then_cosine

REPOSITORY = Path(__file__).resolve().parents[2]
TINY = ClipMethod.model_validate(
    {
        "text": {"width": 16, "layers": 1, "heads": 2},
        "vision": {"width": 16, "layers": 1, "heads": 2, "side": 16, "patch": 8},
        "projection": 8,
    }
)


def units(seed: int, *shape: int) -> torch.Tensor:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return functional.normalize(drawn, dim=-1)


def test_the_loss_is_the_mean_cost_of_both_choices_without_equal_captions() -> None:
    pictures, captions, wrong = units(1, 5, 8), units(2, 5, 8), units(3, 5, 8)
    captions[3] = captions[1]
    same = torch.eye(5, dtype=torch.bool)
    same[1, 3] = same[3, 1] = True
    costs = []
    for i in range(5):
        others = [j for j in range(5) if j != i and {i, j} != {1, 3}]
        own = 7 * float(pictures[i] @ captions[i])
        candidates = [own, *(7 * float(pictures[i] @ captions[j]) for j in others), 7 * float(pictures[i] @ wrong[i])]
        costs.append(np.log(np.exp(candidates).sum()) - own)
        candidates = [own, *(7 * float(pictures[j] @ captions[i]) for j in others)]
        costs.append(np.log(np.exp(candidates).sum()) - own)
    loss, _ = contrastive_loss(pictures, captions, wrong, same, torch.tensor(7.0, dtype=torch.float64))
    assert float(loss) == pytest.approx(np.mean(costs), abs=1e-9)


def test_a_batch_of_one_caption_asks_only_about_the_wrong_ones() -> None:
    vector = units(1, 1, 4).expand(6, 4)
    same = torch.ones(6, 6, dtype=torch.bool)
    assert float(contrastive_loss(vector, vector, vector, same, torch.tensor(50.0))[0]) == pytest.approx(np.log(2) / 2)
    loss, right = contrastive_loss(vector, vector, -vector, same, torch.tensor(50.0))
    assert float(loss) == pytest.approx(0, abs=1e-9) and float(right) == 1


def test_captions_are_the_same_by_meaning_or_by_words() -> None:
    rows = np.array([[1, 2], [3, 4], [1, 2], [5, 6]], dtype=np.int32)
    same = same_caption(np.array([0, 1, 2, 1]), rows)
    assert same.tolist() == [
        [True, False, True, False],
        [False, True, False, True],
        [True, False, True, False],
        [False, True, False, True],
    ]


def test_changes_to_pictures_are_small_repeatable_and_never_mirror() -> None:
    ramp = torch.linspace(-0.8, 0.8, 32).expand(64, 3, 32, 32).clone()
    changed = augment(ramp, generator(1, "test", 0))
    assert torch.equal(changed, augment(ramp, generator(1, "test", 0)))
    assert changed.shape == ramp.shape and changed.abs().max() <= 1
    assert 0.01 < (changed - ramp).abs().mean() < 0.15
    assert len({picture.numpy().tobytes() for picture in changed}) == 64
    assert (changed[..., 16:].mean(dim=(1, 2, 3)) > changed[..., :16].mean(dim=(1, 2, 3)) + 0.4).all()


@pytest.mark.parametrize("held_out", [False, True])
def test_each_swap_changes_one_fact_and_the_caption(held_out: bool) -> None:
    fields_of = {"object": {"main"}, "colour": {"main"}, "relation": {"main", "partner"}}
    seen = dict.fromkeys(SWAPS, 0)
    for index in range(600):
        scene = draw_scene(3, index, held_out=held_out)
        for name, swap in SWAPS.items():
            other = swap(scene, generator(3, name, index))
            if other is None:
                continue
            seen[name] += 1
            changed = {
                field.name for field in fields(scene) if getattr(scene, field.name) != getattr(other, field.name)
            }
            assert changed == fields_of.get(name, {name})
            assert plain_caption(other) != plain_caption(scene)
            if name in ("object", "colour"):
                assert (other.main.kind == scene.main.kind) is (name == "colour")
    assert min(seen.values()) >= 5, seen


def test_wrong_captions_of_training_hold_no_held_out_combination_and_every_fact_is_swapped() -> None:
    pairs = [(draw_scene(4, i), wrong_scene(draw_scene(4, i), generator(4, "wrong", i))) for i in range(400)]
    assert not [wrong for _, wrong in pairs if any_held_out(wrong.pairs())]
    changed = {
        field.name
        for scene, wrong in pairs
        for field in fields(scene)
        if getattr(scene, field.name) != getattr(wrong, field.name)
    }
    assert changed == {"main", "background", "time", "count", "partner", "size", "style"}


def test_a_captions_vector_does_not_change_with_padding_or_with_the_whole_vocabulary() -> None:
    ids = tokenize(load_tokenizer(), ["a red fox in the snow", "two blue hearts"])
    vocabulary = CompactVocabulary.of(ids)
    rows = torch.from_numpy(vocabulary.compact(ids).astype(np.int64))
    torch.manual_seed(0)
    compact = build_clip(TINY, vocabulary.size, int(rows[0, 0]), int(rows[0, -1])).eval()
    full = expand(TINY, compact, vocabulary)
    with torch.no_grad():
        short, long = caption_vectors(compact, rows[:, :10]), caption_vectors(compact, rows)
        whole = caption_vectors(full, torch.from_numpy(ids).long())
    assert torch.allclose(short, long, atol=1e-6) and torch.allclose(long, whole, atol=1e-6)
    assert torch.allclose(whole.norm(dim=1), torch.ones(2), atol=1e-6)


def test_retrieval_counts_right_first_places_in_each_gallery() -> None:
    pictures = np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 0]]
    captions = np.eye(4, dtype=np.float32)[[0, 2, 2, 3, 0]]
    captions[1, 0] = 0.5
    assert retrieval(pictures, captions, 2) == {
        "gallery": 2,
        "image_to_text_r1": pytest.approx(3 / 4),  # picture 1 fits neither caption of its gallery
        "text_to_image_r1": pytest.approx(3 / 4),
    }


def test_zero_shot_and_swaps_with_vectors_that_know_the_words() -> None:
    """A text's vector is its bag of words; a picture's is its caption's: both tests must then be all right, and all wrong when negated."""
    questions = [Question(i, draw_scene(9, i, held_out=True), "") for i in range(150)]
    names: dict[str, int] = {}

    def read(texts: list[str]) -> np.ndarray:
        vectors = np.zeros((len(texts), 400), dtype=np.float32)
        for row, text in enumerate(texts):
            for place, word in enumerate(text.replace(",", "").split()):
                vectors[row, names.setdefault(word, len(names))] += 1 + 0.01 * place
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    told = read([plain_caption(question.scene) for question in questions])
    right, wrong = swap_test(questions, told, told, read), swap_test(questions, -told, told, read)
    assert {name for name in right if not name.endswith("_pictures")} == {f"swap_{name}" for name in SWAPS}
    assert all(value == 1 for name, value in right.items() if not name.endswith("_pictures"))
    assert all(value == 0 for name, value in wrong.items() if not name.endswith("_pictures"))
    figures = zero_shot(questions, told, read)
    assert figures["object_choices"] == len(OBJECTS) and figures["object_zero_shot"] > 0.8
    assert zero_shot(questions, -told, read)["object_zero_shot"] < 0.1


def test_the_rate_rises_and_falls_to_zero() -> None:
    assert warm_up_then_cosine(0, 100, 10) == pytest.approx(0.1)
    assert warm_up_then_cosine(9, 100, 10) == warm_up_then_cosine(10, 100, 10) == 1
    assert warm_up_then_cosine(55, 100, 10) == pytest.approx(0.5)
    assert warm_up_then_cosine(100, 100, 10) == pytest.approx(0)


def test_the_figures_table_is_replaced_and_the_rest_of_the_card_kept(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text(f"# a\n{BEGIN}\nold\n{END}\nz\n")
    fill_card(card, figures_table({"share": 1.0, "pictures": 1200}))
    fill_card(card, figures_table({"share": 0.5, "pictures": 1200}))
    assert card.read_text() == f"# a\n{BEGIN}\n| | |\n|---|---|\n| share | 0.500 |\n| pictures | 1,200 |\n{END}\nz\n"
    card.write_text("# a\n")
    with pytest.raises(TrainingError, match="no marks"):
        fill_card(card, "")


def test_the_shipped_recipe_makes_a_folder_of_at_most_15_mb_and_its_card_can_be_filled() -> None:
    config = load_training_config(REPOSITORY / "recipes" / "sprout-clip.toml")
    assert isinstance(config.method, ClipMethod) and config.export_to == "checkpoints/sprout-clip"
    model = build_clip(config.method, 49408, 49406, 49407)
    weights = 2 * sum(parameter.numel() for parameter in model.parameters())
    tokenizer = sum(file.stat().st_size for file in TOKENIZER_FOLDER.iterdir())
    assert weights + tokenizer + 100_000 < 15_000_000
    card = (REPOSITORY / config.export_to / "README.md").read_text("utf-8")
    assert card.index(BEGIN) < card.index(END)


@pytest.mark.parametrize(
    "part, named",
    [
        ({"text": {"width": 16, "heads": 3}}, "3 heads"),
        ({"vision": {"side": 64, "patch": 12}}, "patches of 12"),
        ({"contrastive": {"batch": 1}}, "contrastive.batch = 1"),
    ],
)
def test_a_bad_recipe_is_refused(part: dict[str, object], named: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_training_config({"name": "x", "method": {"kind": "clip", **part}}, "recipe")
    assert named in caught.value.message


METHODS: tuple[type[MethodSettings], ...] = get_args(TrainingConfig.model_fields["method"].annotation)


@pytest.mark.parametrize("settings", METHODS, ids=lambda settings: settings.__name__)
def test_every_method_names_its_steps_and_a_run_may_be_given_more(
    settings: type[MethodSettings], tmp_path: Path
) -> None:
    kind = settings.model_fields["kind"].default
    *parts, steps = settings.steps_field
    data = 'data = { path = "pictures" }\n' if settings.model_fields["data"].is_required() else ""
    recipe, runs = tmp_path / "recipe.toml", []
    for number in (10, 20):
        table = ".".join(["method", *parts])
        body = (
            f'name = "x"\n[method]\nkind = "{kind}"\n{data}'
            + (f"[{table}]\n" if parts else "")
            + f"{steps} = {number}\n"
        )
        recipe.write_text(body)
        runs.append(prepare_run(recipe, tmp_path / "runs"))
        assert reduce(getattr, settings.steps_field, runs[-1].config().method) == number
    assert runs[0].path == runs[1].path
    recipe.write_text(body + "batch = 7\n")
    assert prepare_run(recipe, tmp_path / "runs").path != runs[0].path


MEMBER = """
import json, sys, torch
from studio.training.methods.contrastive.objective import contrastive_loss
from studio.training.parallel import Team
torch.set_num_threads(1)
team = Team.from_environment()
source = torch.Generator().manual_seed(0)
inputs = [torch.randn(6, 4, generator=source) for _ in range(3)]
towers = [torch.nn.Parameter(torch.randn(4, 3, generator=source)) for _ in range(2)]
scale = torch.nn.Parameter(torch.tensor(3.0))
mine = team.part(6)
pictures, captions, wrong = (
    torch.nn.functional.normalize(each[mine] @ tower, dim=1)
    for each, tower in zip(inputs, [towers[0], towers[1], towers[1]])
)
vectors = [team.gather(part) for part in (pictures, captions, wrong)]
loss, _ = contrastive_loss(*vectors, torch.eye(6, dtype=torch.bool), scale)
loss.backward()
team.average_gradients([*towers, scale])
print(json.dumps([loss.item(), *(weight.grad.flatten().tolist() for weight in [*towers, scale])]))
"""


def test_two_processes_have_the_loss_and_the_gradients_of_the_whole_batch() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}

    def start(rank: int, size: int) -> subprocess.Popen[bytes]:
        environment = {**shared, "RANK": str(rank), "WORLD_SIZE": str(size)}
        return subprocess.Popen([sys.executable, "-c", MEMBER], cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE)

    members = [start(0, 1), start(0, 2), start(1, 2)]
    alone, *both = [json.loads(member.communicate(timeout=200)[0].splitlines()[-1]) for member in members]
    for answer in both:
        assert answer[0] == pytest.approx(alone[0], rel=1e-5)
        for found, expected in zip(answer[1:], alone[1:], strict=True):
            assert found == pytest.approx(expected, abs=1e-5)
