"""`Library`: what it finds, how it names and judges it, how it is asked, and that it keeps up with the disk."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from studio.errors import UnknownModel, UnknownName
from studio.library import Library
from studio.library import scan as scan_module
from studio.library.hashes import LEGACY_OFFSET, legacy_hash
from studio.library.scan import MAX_METADATA, capped
from studio.paths import Paths
from tests.library.models import INPAINT, LORA, SD1, VAE, save, save_folder
from tests.vector_files import load_json


class HomelessPaths(Paths):
    """Paths of an installation that ships no model."""

    @property
    def embedded_checkpoints(self) -> Path:
        return self.root / "shipped"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return HomelessPaths(tmp_path)


@pytest.fixture
def library(paths: Paths) -> Iterator[Library]:
    library = Library(paths)
    yield library
    library.close()


def wait_until_hashed(library: Library) -> None:
    end = time.monotonic() + 10
    while library.unhashed_files():
        assert time.monotonic() < end, "the hasher did not finish"
        time.sleep(0.005)


# -- finding -----------------------------------------------------------------------------------------------------------


def test_an_empty_installation_says_where_to_put_models(library: Library, paths: Paths) -> None:
    assert library.checkpoints() == library.vaes() == library.loras() == []
    with pytest.raises(UnknownModel, match=str(paths.checkpoints)):
        library.checkpoint(None)
    with pytest.raises(UnknownModel, match="There is no checkpoint yet"):
        library.checkpoint("x")


def test_text_encoders_lie_in_a_folder_of_their_own(library: Library, paths: Paths) -> None:
    assert library.text_encoders() == []
    table, layer = "text_model.embeddings.token_embedding.weight", "text_model.encoder.layers.0.mlp.fc1.weight"
    path = save(paths.text_encoders / "sub" / "clip_l.safetensors", {table: [49408, 4], layer: [8, 4]})
    save(paths.text_encoders / "ink.safetensors", LORA)
    (paths.text_encoders / "old.pt").write_bytes(b"x")
    library.refresh()
    ink, old, found = library.text_encoders()
    assert (found.name, found.kind, found.path) == ("sub/clip_l", "text_encoder", str(path))
    assert (found.family, found.text_widths, found.problem) == ("unknown", (4,), None)
    assert "This is a LoRA, not a text encoder" in (ink.problem or "") and "pickle" in (old.problem or "")
    for name in ("sub/clip_l", "clip_l", "CLIP_L.safetensors"):
        assert library.text_encoder(name).path == str(path)
    hashed = library.text_encoder("clip_l")
    assert hashed.short_hash and len(hashed.short_hash) == 10 and library.text_encoder(hashed.short_hash) == hashed
    with pytest.raises(UnknownModel, match="no text encoder named 'clip_g'") as caught:
        library.text_encoder("clip_g")
    assert caught.value.field == "text_encoders"
    assert library.checkpoints() == library.vaes() == []


def test_what_is_found_and_under_which_name(library: Library, paths: Paths) -> None:
    save(paths.checkpoints / "b.safetensors", SD1)
    save(paths.checkpoints / "A v1.5.safetensors", INPAINT)
    save(paths.checkpoints / "sub" / "deep" / "c.safetensors", SD1)
    save_folder(paths.checkpoints / "sub" / "folder.v2")
    save(paths.checkpoints / ".hidden.safetensors", SD1)
    save(paths.checkpoints / "plain-vae.safetensors", VAE)
    save(paths.vae / "x.vae.safetensors", VAE)
    save(paths.loras / "styles" / "l.safetensors", LORA)
    (paths.checkpoints / "notes.txt").write_text("x")
    assert [info.name for info in library.checkpoints()] == ["A v1.5", "b", "sub/deep/c", "sub/folder.v2"]
    assert [info.name for info in library.vaes()] == ["plain-vae", "x.vae"]
    assert [info.name for info in library.loras()] == ["styles/l"]
    assert all(info.problem is None for info in (*library.checkpoints(), *library.vaes(), *library.loras()))


@pytest.mark.parametrize(
    "config, listed", [('{"model_type": "clip"}', []), ("{}", ["pair/model"]), ("x", ["pair/model"])]
)
def test_a_folder_that_holds_a_network_of_another_sort_is_not_listed(
    library: Library, paths: Paths, config: str, listed: list[str]
) -> None:
    save(paths.embedded_checkpoints / "pair" / "model.safetensors", {"logit_scale": []})
    (paths.embedded_checkpoints / "pair" / "config.json").write_text(config)
    assert [info.name for info in library.checkpoints()] == listed
    assert library.vaes() == library.loras() == []


def test_what_a_file_is(library: Library, paths: Paths) -> None:
    path = save(paths.checkpoints / "a.safetensors", INPAINT)
    info = library.checkpoint("a")
    assert (info.kind, info.layout, info.family, info.native_size, info.inpaint) == (
        "checkpoint",
        "file",
        "sd1",
        512,
        True,
    )
    assert (info.path, info.size, info.mtime) == (str(path), path.stat().st_size, pytest.approx(path.stat().st_mtime))


def test_what_a_folder_is(library: Library, paths: Paths) -> None:
    folder = save_folder(paths.checkpoints / "f")
    info = library.checkpoint("f")
    assert (info.layout, info.family, info.native_size, info.prediction_type) == ("folder", "sd1", 128, "v_prediction")
    assert info.size == sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    assert info.short_hash is None
    assert info.model_id is not None
    assert info.title == "f"


def test_the_shipped_model_is_the_default(library: Library, paths: Paths) -> None:
    save(paths.checkpoints / "a.safetensors", SD1)
    assert library.checkpoint(None).name == "a"
    save_folder(paths.embedded_checkpoints / "sprout-v1")
    library.refresh()
    assert library.checkpoint(None).name == "sprout-v1"
    own = save_folder(paths.checkpoints / "sprout-v1", fill=1)
    library.refresh()
    assert library.checkpoint(None).path == str(own)
    assert len(library.checkpoints()) == 2


def test_two_files_of_one_name(library: Library, paths: Paths) -> None:
    save(paths.checkpoints / "a.safetensors", SD1)
    (paths.checkpoints / "a.ckpt").write_bytes(b"pickle")
    infos = {info.name: info for info in library.checkpoints()}
    assert set(infos) == {"a", "a.ckpt"}
    assert infos["a"].problem is None


def test_links_are_followed_and_loops_are_not(library: Library, paths: Paths, tmp_path: Path) -> None:
    elsewhere = save(tmp_path / "elsewhere" / "a.safetensors", SD1).parent
    paths.checkpoints.mkdir(exist_ok=True)
    try:
        (paths.checkpoints / "linked").symlink_to(elsewhere, target_is_directory=True)
        (paths.checkpoints / "direct.safetensors").symlink_to(elsewhere / "a.safetensors")
        (paths.checkpoints / "broken.safetensors").symlink_to(elsewhere / "gone.safetensors")
        (elsewhere / "loop").symlink_to(paths.checkpoints, target_is_directory=True)
    except OSError:
        pytest.skip("no links here")
    assert [info.name for info in library.checkpoints()] == ["direct", "linked/a"]


def test_a_name_that_is_no_text_is_left_out(library: Library, paths: Paths) -> None:
    paths.loras.mkdir(parents=True)
    try:
        (Path(os.fsdecode(os.fsencode(paths.loras) + b"/\xff.safetensors"))).write_bytes(b"x")
    except OSError:
        pytest.skip("the file system has no such names")
    assert library.loras() == []


# -- judging -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".bin", ".CKPT"])
def test_a_pickle_is_listed_with_the_way_to_convert_it(suffix: str, library: Library, paths: Paths) -> None:
    paths.checkpoints.mkdir(parents=True)
    (paths.checkpoints / f"old{suffix}").write_bytes(b"\x80\x04.")
    problem = library.checkpoint("old").problem
    assert problem is not None
    assert problem.endswith(f"python launch.py convert old{suffix}")


def test_a_damaged_file_is_listed_with_its_damage(library: Library, paths: Paths) -> None:
    whole = save(paths.checkpoints / "cut.safetensors", SD1)
    whole.write_bytes(whole.read_bytes()[:-5])
    assert "cut.safetensors is damaged: it is cut off" in (library.checkpoint("cut").problem or "")


def test_damage_inside_a_folder_is_found(library: Library, paths: Paths) -> None:
    folder = save_folder(paths.checkpoints / "f")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"short")
    assert "diffusion_pytorch_model.safetensors is damaged" in (library.checkpoint("f").problem or "")


def test_program_code_in_a_folder_is_refused_and_not_run(library: Library, paths: Paths, tmp_path: Path) -> None:
    folder = save_folder(paths.checkpoints / "f")
    (folder / "pipeline.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')")
    asking = save_folder(paths.checkpoints / "g")
    (asking / "unet" / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": "x.y"}}))
    assert "program code" in (library.checkpoint("f").problem or "")
    assert "auto_map" in (library.checkpoint("g").problem or "")
    assert not (tmp_path / "canary").exists()


def test_things_in_the_wrong_folder(library: Library, paths: Paths) -> None:
    save(paths.checkpoints / "l.safetensors", LORA)
    save(paths.vae / "c.safetensors", SD1)
    save_folder(paths.loras / "f")
    assert "loras folder" in (library.checkpoint("l").problem or "")
    vae = library.vae("c")
    assert vae is not None
    assert "checkpoints folder" in (vae.problem or "")
    assert "checkpoints folder" in (library.lora("f").problem or "")


def test_lora_facts_come_from_its_metadata(library: Library, paths: Paths) -> None:
    facts = {
        "ss_output_name": "Nice Style",
        "modelspec.trigger_phrase": "nicestyle",
        "ss_tag_frequency": "x" * MAX_METADATA,
    }
    save(paths.loras / "a.safetensors", LORA, facts)
    save(paths.loras / "b.safetensors", LORA, {"ss_output_name": "Addams"})
    info = library.lora("nice style")
    assert (info.name, info.alias, info.trigger, info.family) == ("a", "Nice Style", "nicestyle", "sd1")
    assert "ss_tag_frequency" not in info.metadata
    assert library.lora("b").alias == ""


@pytest.mark.parametrize(
    "case",
    [case for case in load_json("hashes.json")["files"] if case["lora"]["is_safetensors"]],
    ids=lambda case: case["name"],
)
def test_vectors_lora_alias(case: dict[str, Any], library: Library, paths: Paths) -> None:
    paths.loras.mkdir(parents=True)
    (paths.loras / case["name"]).write_bytes(base64.b64decode(case["base64"]))
    (info,) = library.loras()
    assert (info.alias or info.name) == case["lora"]["get_alias"]


def test_metadata_is_capped_by_its_longest_entries() -> None:
    metadata = {"long": "x" * MAX_METADATA, "short": "y", "other": "z" * 10}
    assert capped(metadata) == {"short": "y", "other": "z" * 10}


@pytest.mark.parametrize("name", ["l.preview.png", "l.png", "l.jpg", "l.webp"])
def test_a_preview_beside_the_model(name: str, library: Library, paths: Paths) -> None:
    save(paths.loras / "l.safetensors", LORA)
    assert library.lora("l").preview is None
    (paths.loras / name).write_bytes(b"picture")
    library.refresh()
    assert library.lora("l").preview == str(paths.loras / name)


# -- asking ------------------------------------------------------------------------------------------------------------


def test_every_way_to_name_a_checkpoint(library: Library, paths: Paths) -> None:
    path = save(paths.checkpoints / "sub" / "Painter.safetensors", {**SD1, "more": [LEGACY_OFFSET]}, fill=3)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    ways = [
        "sub/Painter",
        "Painter",
        "painter",
        "SUB/PAINTER",
        "sub/Painter.safetensors",
        "Painter.safetensors",
        f"sub/Painter [{digest[:10]}]",
        f"sub/Painter.safetensors [{digest[:10]}]",
        f"renamed [{digest[:10]}]",
        "Painter [0123456789]",
        digest,
        digest[:10],
        digest[:10].upper(),
        f"  {digest[:12]} ",
        legacy_hash(path),
    ]
    library.checkpoint("Painter")
    for way in ways:
        assert library.checkpoint(way).path == str(path), way


def test_a_short_file_has_no_legacy_hash_of_its_own(library: Library, paths: Paths) -> None:
    path = save(paths.checkpoints / "short.safetensors", SD1)
    with pytest.raises(UnknownModel):
        library.checkpoint(legacy_hash(path))


def test_a_hash_counts_more_than_a_name(library: Library, paths: Paths) -> None:
    one = save(paths.checkpoints / "one.safetensors", SD1, fill=1)
    save(paths.checkpoints / "two.safetensors", SD1, fill=2)
    library.checkpoint("one"), library.checkpoint("two")
    digest = hashlib.sha256(one.read_bytes()).hexdigest()
    assert library.checkpoint(f"two [{digest[:10]}]").name == "one"


def test_a_folder_by_its_id(library: Library, paths: Paths) -> None:
    save_folder(paths.checkpoints / "f")
    model_id = library.checkpoint("f").model_id
    (paths.checkpoints / "f").rename(paths.checkpoints / "renamed")
    assert library.checkpoint("renamed").model_id == model_id
    assert library.checkpoint(f"f [{model_id}]").name == "renamed"


def test_what_is_not_there_gets_near_matches(library: Library, paths: Paths) -> None:
    save(paths.checkpoints / "realistic-vision.safetensors", SD1)
    save(paths.loras / "watercolour.safetensors", LORA)
    save(paths.vae / "good.safetensors", VAE)
    with pytest.raises(UnknownModel, match="Did you mean 'realistic-vision'") as caught:
        library.checkpoint("realistic-visoin")
    assert caught.value.choices == ("realistic-vision",)
    with pytest.raises(UnknownName, match="Did you mean 'watercolour'"):
        library.lora("watercolor")
    with pytest.raises(UnknownModel, match="There is no VAE named 'x'"):
        library.vae("x")
    for name in ("Automatic", "None", "automatic", ""):
        assert library.vae(name) is None
    good = library.vae("good")
    assert good is not None


def test_lora_hashes_of_both_kinds(library: Library, paths: Paths) -> None:
    path = save(paths.loras / "a.safetensors", LORA, {"sshs_model_hash": "0123456789abcdef"})
    assert library.loras()[0].short_hash == "0123456789ab"
    library.lora("a")
    whole = hashlib.sha256(path.read_bytes()).hexdigest()
    assert library.lora_hashes() == {"0123456789ab": "a", whole[:12]: "a"}


# -- keeping up --------------------------------------------------------------------------------------------------------


def test_a_new_model_is_found_when_asked_for(library: Library, paths: Paths) -> None:
    assert library.checkpoints() == []
    save(paths.checkpoints / "new.safetensors", SD1)
    assert library.checkpoint("new").name == "new"


def test_a_deleted_model_is_missed_when_asked_for(library: Library, paths: Paths) -> None:
    path = save(paths.checkpoints / "a.safetensors", SD1)
    assert library.checkpoint("a").name == "a"
    path.unlink()
    with pytest.raises(UnknownModel):
        library.checkpoint("a")
    assert library.checkpoints() == []


def test_a_replaced_model_is_read_again(library: Library, paths: Paths) -> None:
    path = save(paths.checkpoints / "a.safetensors", SD1, fill=1)
    before = library.checkpoint("a")
    save(path, INPAINT, fill=2)
    after = library.checkpoint("a")
    assert (before.inpaint, after.inpaint) == (False, True)
    assert before.short_hash != after.short_hash
    folder = save_folder(paths.checkpoints / "f", fill=1)
    model_id = library.checkpoint("f").model_id
    save(folder / "unet" / "diffusion_pytorch_model.safetensors", {"weight": [17]})
    assert library.checkpoint("f").model_id != model_id


def test_a_refresh_reads_only_what_changed(library: Library, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        save(paths.checkpoints / f"m{number}.safetensors", SD1)
    save_folder(paths.checkpoints / "f")
    library.refresh()
    read: list[str] = []
    original = scan_module.read_header
    monkeypatch.setattr(scan_module, "read_header", lambda path: read.append(path.name) or original(path))
    library.refresh()
    assert read == []
    save(paths.checkpoints / "m3.safetensors", SD1, fill=9)
    os.utime(paths.checkpoints / "m3.safetensors", ns=(1, 1))
    library.refresh()
    assert read == ["m3.safetensors"]


def test_hundreds_of_models_are_refreshed_quickly(library: Library, paths: Paths) -> None:
    for number in range(300):
        save(paths.loras / f"{number % 10}" / f"m{number}.safetensors", LORA)
    assert len(library.loras()) == 300
    start = time.process_time()
    library.refresh()
    assert time.process_time() - start < 5  # 0.02 on an idle machine


def test_hashes_come_in_the_background_and_stay(library: Library, paths: Paths) -> None:
    path = save(paths.checkpoints / "a.safetensors", SD1)
    save(paths.loras / "l.safetensors", LORA)
    assert library.checkpoints()[0].short_hash is None
    library.start_hashing()
    wait_until_hashed(library)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert (library.checkpoints()[0].sha256, library.checkpoints()[0].title) == (digest, f"a [{digest[:10]}]")
    assert len(library.loras()[0].short_hash or "") == 12
    save(paths.checkpoints / "later.safetensors", SD1, fill=5)
    library.refresh()
    wait_until_hashed(library)
    library.close()
    assert [info.short_hash is None for info in Library(paths).checkpoints()] == [False, False]


def test_small_models_carry_their_hash_at_once(library: Library, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    save(paths.checkpoints / "a.safetensors", SD1)
    assert library.checkpoint("a").short_hash is not None
    save(paths.checkpoints / "big.safetensors", SD1, fill=1)
    monkeypatch.setattr("studio.library.catalog.HASHED_AT_ONCE", 10)
    assert library.checkpoint("big").short_hash is None


def test_closing_twice_or_without_a_start_is_fine(library: Library) -> None:
    library.close()
    library.close()
