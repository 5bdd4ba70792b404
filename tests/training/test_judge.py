"""The judge's parts: what it is asked, how its answers are read and held against a scene, how pictures are made worse, its folder."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from studio.errors import TrainingError
from studio.paths import REPOSITORY
from studio.schema.training import JudgeMethod, load_training_config
from studio.training.data.scenes.scene import Scene, Thing, draw_scene
from studio.training.data.scenes.vocabulary import OBJECTS, TIMES
from studio.training.methods.judge.augment import PAINTED, TRAINING, Strength, half_worsened, worsen
from studio.training.methods.judge.groups import GROUPS, group_of, pick_scenes, split
from studio.training.methods.judge.judge import Judge, Seen, build_network, split_answers, to_tensor
from studio.training.methods.judge.method import judge_loss
from studio.training.methods.judge.network import kind_centres, kind_scores
from studio.training.methods.judge.questions import KINDS, QUESTIONS, UNASKED, answers, targets
from studio.training.methods.judge.verdict import Share, tally, verdicts

FOX, CAT, DOG = (next(kind for kind in OBJECTS if kind.name == name) for name in ("fox", "cat", "dog"))
CHANNELS = (8, 8)
STILL = Strength(zoom=0, shift=0, wobble=0, fine_blur=0, coarse_blur=0, noise=0, contrast=0, brightness=0)


def seen(*kinds: str, at: dict[str, tuple[float, float]] | None = None, **said: str) -> Seen:
    """A judge's sight in which ``kinds`` are the likeliest, in this order, and every other answer is the first."""
    shares = np.zeros(len(KINDS), dtype=np.float32)
    for rank, kind in enumerate(kinds):
        shares[KINDS.index(kind)] = 2.0**-rank
    centres = np.full((len(KINDS), 2), 0.5, dtype=np.float32)
    for kind, place in (at or {}).items():
        centres[KINDS.index(kind)] = place
    return Seen(shares, centres, {question: choices[0] for question, choices in QUESTIONS.items()} | said)


# -- questions --------------------------------------------------------------------------------------------------------


def test_every_scene_is_answered_in_words_that_the_judge_knows() -> None:
    asked: Counter[str] = Counter()
    for index in range(600):
        for question, answer in answers(draw_scene(3, index)).items():
            assert answer in QUESTIONS[question]
            asked[question] += 1
    assert asked.keys() == QUESTIONS.keys()


def test_what_a_scene_leaves_open_is_not_asked() -> None:
    pair = Scene(Thing(FOX), partner=Thing(CAT), relation="and")
    assert answers(pair).keys() == {"background", "time", "style"}
    assert (
        answers(replace(pair, relation="below"))["arrangement"]
        == answers(replace(pair, relation="above"))["arrangement"]
    )
    assert answers(Scene(Thing(FOX), count=3))["count"] == "3"
    assert "size" not in answers(Scene(Thing(FOX), count=3))


def test_targets_share_between_the_kinds_shown_and_mark_open_questions() -> None:
    shares, labels = targets([Scene(Thing(FOX), partner=Thing(CAT), relation="left"), Scene(Thing(DOG), size="big")])
    assert shares.sum(axis=1).tolist() == [1, 1]
    assert shares[0, [KINDS.index("fox"), KINDS.index("cat")]].tolist() == [0.5, 0.5]
    columns = list(QUESTIONS)
    assert labels[0, columns.index("count")] == UNASKED
    assert QUESTIONS["size"][labels[1, columns.index("size")]] == "big"


def test_groups_are_filled_as_asked_in_rising_order() -> None:
    quotas = split(60, dict.fromkeys(GROUPS, 1.0))
    picked = pick_scenes(11, quotas, held_out=True)
    assert Counter(group_of(scene) for _, scene in picked) == quotas
    indices = [index for index, _ in picked]
    assert indices == sorted(set(indices))
    assert all(scene == draw_scene(11, index, held_out=True) for index, scene in picked)


def test_a_group_that_does_not_occur_is_an_error() -> None:
    with pytest.raises(TrainingError, match="count 9"):
        pick_scenes(0, {"count 9": 1}, held_out=False)


def test_parts_add_up_to_the_whole() -> None:
    assert split(10, {"a": 1, "b": 1, "c": 1}) == {"a": 4, "b": 3, "c": 3}


# -- network ----------------------------------------------------------------------------------------------------------


def test_evidence_in_one_cell_is_mass_on_its_kind_and_place() -> None:
    maps = torch.zeros(1, 3, 4, 4)
    maps[0, 1, 3, 0] = 50
    assert kind_scores(maps).exp()[0].tolist() == pytest.approx([0, 1, 0], abs=1e-6)
    assert kind_centres(maps)[0, 1].tolist() == pytest.approx([0.125, 0.875])
    assert kind_centres(maps)[0, 0].tolist() == pytest.approx([0.5, 0.5])


def test_scores_of_kinds_are_the_sum_over_places_of_one_softmax() -> None:
    maps = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0))
    both = maps.flatten(1).softmax(dim=1).view_as(maps)
    assert torch.allclose(kind_scores(maps).exp(), both.sum(dim=(2, 3)), atol=1e-6)


def test_the_loss_is_the_cross_entropy_of_what_is_asked() -> None:
    scene = Scene(Thing(FOX), partner=Thing(CAT), relation="and")
    shares, labels = map(torch.from_numpy, targets([scene, scene]))
    maps = torch.randn(2, len(KINDS), 2, 2, generator=torch.Generator().manual_seed(0))
    scores = torch.randn(2, sum(map(len, QUESTIONS.values())), generator=torch.Generator().manual_seed(1))
    loss, _ = judge_loss(maps, scores, shares, labels)
    mass = maps.double().flatten(1).softmax(dim=1).view_as(maps).sum(dim=(2, 3))
    expected = -mass[:, [KINDS.index("fox"), KINDS.index("cat")]].log().mean()
    for question, part in split_answers(scores.double()).items():
        if question in answers(scene):
            right = QUESTIONS[question].index(answers(scene)[question])
            expected = expected - 0.3 * part.softmax(dim=1)[:, right].log().mean()
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_a_judge_says_the_same_after_it_was_saved_and_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    judge = Judge(build_network(CHANNELS), CHANNELS, 32)
    judge.save(tmp_path / "judge", {"accuracy": {"object": 1.0}})
    pictures = list(np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8))
    for before, after in zip(judge.look(pictures), Judge.load(tmp_path / "judge").look(pictures), strict=True):
        assert np.allclose(before.shares, after.shares, atol=1e-3)
        assert np.allclose(before.centres, after.centres, atol=1e-3)
        assert before.answers == after.answers
    assert json.loads((tmp_path / "judge" / "config.json").read_text())["accuracy"] == {"object": 1.0}


def test_pictures_of_another_size_are_resized() -> None:
    judge = Judge(build_network(CHANNELS), CHANNELS, 32)
    small = np.full((32, 32, 3), 90, dtype=np.uint8)
    large = np.full((128, 128, 3), 90, dtype=np.uint8)
    first, second = judge.look([small, large])
    assert np.allclose(first.shares, second.shares, atol=1e-6)


def test_a_judge_of_other_words_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"judge\.toml"):
        Judge.load(tmp_path)
    Judge(build_network(CHANNELS), CHANNELS, 32).save(tmp_path, {})
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "kinds": ["fox"]}))
    with pytest.raises(TrainingError, match="other objects"):
        Judge.load(tmp_path)


def test_the_shipped_recipe_makes_a_judge_of_at_most_two_megabytes() -> None:
    config = load_training_config(REPOSITORY / "recipes" / "judge.toml")
    assert isinstance(config.method, JudgeMethod) and config.export_to == "bench/judge"
    count = sum(value.numel() for value in build_network(config.method.channels).state_dict().values())
    assert count * 2 < 2_000_000


# -- verdicts ---------------------------------------------------------------------------------------------------------


def test_one_object_is_right_when_it_is_the_likeliest() -> None:
    scene = Scene(Thing(FOX), named=False)
    assert verdicts(scene, seen("fox", "cat"))["object"]
    assert not verdicts(scene, seen("cat", "fox"))["object"]


def test_two_objects_are_right_in_either_order_but_only_together() -> None:
    scene = Scene(Thing(FOX), partner=Thing(CAT), named=False)
    assert verdicts(scene, seen("cat", "fox", "dog"))["objects"]
    assert not verdicts(scene, seen("cat", "dog", "fox"))["objects"]
    assert "object" not in verdicts(scene, seen("cat")) and "relation" not in verdicts(scene, seen("cat"))


@pytest.mark.parametrize(
    "relation, fox, arrangement",
    [
        ("left", (0.2, 0.5), "side by side"),
        ("right", (0.8, 0.5), "side by side"),
        ("above", (0.5, 0.2), "stacked"),
        ("below", (0.5, 0.8), "stacked"),
        ("on", (0.5, 0.2), "on"),
    ],
)
def test_a_relation_needs_the_arrangement_and_the_places(
    relation: str, fox: tuple[float, float], arrangement: str
) -> None:
    scene = Scene(Thing(FOX), partner=Thing(CAT), relation=relation, named=False)  # type: ignore[arg-type]
    opposite = (1 - fox[0], 1 - fox[1])
    right = seen("fox", "cat", at={"fox": fox, "cat": opposite}, arrangement=arrangement)
    exchanged = seen("fox", "cat", at={"fox": opposite, "cat": fox}, arrangement=arrangement)
    alone = seen("fox", "cat", at={"fox": fox, "cat": opposite}, arrangement="alone")
    assert [verdicts(scene, each)["relation"] for each in (right, exchanged, alone)] == [True, False, False]


def test_only_what_the_caption_says_is_judged() -> None:
    time = next(iter(TIMES))
    scene = Scene(Thing(FOX), background="grass", named=False, time=time)
    assert verdicts(scene, seen("fox", time=time, count="1")) == {"object": True, "time": True, "count": True}
    told = replace(scene, named=True, time="", style="sticker", size="big")
    said = seen("fox", background="grass", style="flat", size="big", count="2")
    assert verdicts(told, said) == {
        "object": True, "background": True, "style": False, "size": True, "count": False,
    }  # fmt: skip


def test_a_tally_counts_by_question() -> None:
    found = tally([{"object": True, "count": False}, {"object": False}, {"object": True}])
    assert found == {"object": Share(2, 3), "count": Share(0, 1)}
    assert found["object"].value == pytest.approx(2 / 3)


# -- worse pictures ---------------------------------------------------------------------------------------------------


def pictures(count: int, side: int = 32) -> torch.Tensor:
    return to_tensor(np.random.default_rng(1).integers(0, 256, (count, side, side, 3), dtype=np.uint8))


def test_without_strength_nothing_changes() -> None:
    before = pictures(2)
    assert torch.allclose(worsen(before, torch.Generator().manual_seed(0), STILL), before, atol=1e-5)


@pytest.mark.parametrize("strength", [TRAINING, PAINTED])
def test_worse_pictures_stay_in_range_and_follow_from_the_generator(strength: Strength) -> None:
    before = pictures(3)
    first, again, other = (worsen(before, torch.Generator().manual_seed(seed), strength) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape == before.shape and first.abs().max() <= 1


def test_blur_takes_fine_detail_and_keeps_the_mean() -> None:
    before = pictures(1)
    after = worsen(before, torch.Generator().manual_seed(0), replace(STILL, fine_blur=1.0, coarse_blur=1.0))
    assert after.diff(dim=-1).abs().mean() < 0.8 * before.diff(dim=-1).abs().mean()
    assert float(after.mean()) == pytest.approx(float(before.mean()), abs=0.01)


def test_a_shift_moves_left_and_right_alike_and_never_mirrors() -> None:
    before = torch.full((64, 3, 32, 32), -1.0)
    before[:, :, 12:20, 2:8] = 1
    after = worsen(before, torch.Generator().manual_seed(0), replace(STILL, shift=0.04))
    columns = torch.arange(32) + 0.5
    centres = (after.add(1).sum(dim=(1, 2)) * columns).sum(dim=1) / after.add(1).sum(dim=(1, 2, 3))
    assert centres.max() < 7 and centres.min() > 3
    assert float(centres.mean()) == pytest.approx(5, abs=0.2)


def test_every_other_picture_is_learned_as_it_was_drawn() -> None:
    before = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(3)) * 2 - 1
    after = half_worsened(before, torch.Generator().manual_seed(0))
    assert [torch.equal(old, new) for old, new in zip(before, after, strict=True)] == [False, True, False, True]
    assert torch.equal(after[::2], worsen(before[::2], torch.Generator().manual_seed(0), TRAINING))
