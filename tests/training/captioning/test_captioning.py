"""Captions are written where there are none, by a file's name or by a tiny BLIP with random weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import BlipConfig, BlipForConditionalGeneration

from studio.errors import DamagedFile, DatasetError, IncompatibleFile, NotFound, UnknownName
from studio.schema.training_data import DatasetSettings
from studio.training.captioning import CAPTIONERS, blip, caption_dataset
from studio.training.captioning.blip import BlipCaptioner
from studio.training.captioning.file_name import FileNameCaptioner
from studio.training.data.dataset import read_dataset
from tests.training.data import drawn

CPU = torch.device("cpu")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "fox", "##es", "in", "snow", ".", ",", "red", "[DEC]", "[ENC]"]


def tiny_config() -> BlipConfig:
    text = {
        "vocab_size": len(WORDS), "hidden_size": 16, "encoder_hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "max_position_embeddings": 64, "bos_token_id": 12, "pad_token_id": 0, "eos_token_id": 3, "sep_token_id": 3,
    }  # fmt: skip
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}  # fmt: skip
    return BlipConfig(text_config=text, vision_config=vision)


@pytest.fixture(scope="module")
def network() -> BlipForConditionalGeneration:
    torch.manual_seed(0)
    network = BlipForConditionalGeneration(tiny_config()).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.4)  # the network's own start would say the same of every picture
        network.text_decoder.cls.predictions.bias[:4] = -4.0  # the end comes late
        network.text_decoder.cls.predictions.bias[12:] = -30.0
    return network


@pytest.fixture
def models(tmp_path: Path, network: BlipForConditionalGeneration) -> Path:
    """The folder of captioners with a BLIP in it, as transformers saves one."""
    folder = tmp_path / "captioners" / "blip"
    network.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    return folder.parent


class Says:
    """A captioner that says what it saw."""

    needs_names = False

    def caption(self, picture: Image.Image, name: str) -> str:
        return f"{picture.width} wide, {name}"


def captions(root: Path) -> list[tuple[str, ...]]:
    return [item.captions for item in read_dataset(DatasetSettings(path=str(root))).items]


def test_only_pictures_without_a_caption_get_one(tmp_path: Path) -> None:
    drawn.save(tmp_path / "01_red_fox.png", 1)
    drawn.save(tmp_path / "02_blue_cat.png", 2).with_suffix(".txt").write_text("kept")
    drawn.save(tmp_path / "0003.png", 3)
    (tmp_path / "04_broken.png").write_bytes(b"x")
    told: list[tuple[int, int]] = []
    settings = DatasetSettings(path=str(tmp_path))
    done = caption_dataset(settings, FileNameCaptioner(), progress=lambda at, total: told.append((at, total)))
    assert (done.written, done.kept) == (1, 1)
    assert [problem.split()[0] for problem in done.problems] == ["0003.png", "04_broken.png"]
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert (tmp_path / "01_red_fox.txt").read_text() == "red fox\n"
    assert (tmp_path / "02_blue_cat.txt").read_text() == "kept"
    assert not (tmp_path / "0003.txt").exists()
    assert caption_dataset(settings, FileNameCaptioner(), replace=True).written == 2
    assert (tmp_path / "02_blue_cat.txt").read_text() == "blue cat\n"


@pytest.mark.parametrize("draw", [drawn.kohya, drawn.jsonl, drawn.parquet, drawn.idx, drawn.flickr8k])
def test_captions_go_where_the_data_set_keeps_them(draw: object, tmp_path: Path) -> None:
    draw(tmp_path)  # type: ignore[operator]
    names = [item.name for item in read_dataset(DatasetSettings(path=str(tmp_path))).items]
    done = caption_dataset(DatasetSettings(path=str(tmp_path)), Says(), replace=True)
    assert done.problems == ()
    wide = 28 if draw is drawn.idx else 48
    assert captions(tmp_path) == [(f"{wide} wide, {name}",) for name in names]


def test_a_folder_name_is_no_caption_that_is_kept(tmp_path: Path) -> None:
    drawn.kohya(tmp_path)
    assert caption_dataset(DatasetSettings(path=str(tmp_path)), Says()).written == 1
    assert (tmp_path / "10_sks dog" / "b.txt").read_text() == "48 wide, 10_sks dog/b.png\n"


def test_rows_of_a_table_have_no_file_names(tmp_path: Path) -> None:
    drawn.parquet(tmp_path, 2)
    with pytest.raises(DatasetError, match="no file names"):
        caption_dataset(DatasetSettings(path=str(tmp_path)), FileNameCaptioner())


def test_a_stop_keeps_what_is_written(tmp_path: Path) -> None:
    drawn.save(tmp_path / "a_fox.png", 1)
    drawn.save(tmp_path / "b_cat.png", 2)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        caption_dataset(DatasetSettings(path=str(tmp_path)), FileNameCaptioner(), progress=stop)
    assert captions(tmp_path) == [("a fox",), ("",)]


def test_an_unknown_captioner(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="blip"):
        CAPTIONERS.get("blib")


def test_blip_says_what_transformers_says(models: Path, network: BlipForConditionalGeneration) -> None:
    """The oracle is the network itself, on pixels prepared by the formula of its paper, its words looked up by hand."""
    captioner = CAPTIONERS.get("blip")(models, "cpu")
    said = set()
    plain = [Image.new("RGB", (80, 60), colour) for colour in ("black", "white", "red", "blue")]
    for picture in [*plain, drawn.picture(0, (80, 60)), drawn.picture(1, (80, 60))]:
        small = np.asarray(picture.resize((32, 32), Image.Resampling.BICUBIC), np.float32) / 255
        mean, deviation = np.array(blip.MEAN, np.float32), np.array(blip.DEVIATION, np.float32)
        pixels = torch.from_numpy(((small - mean) / deviation).transpose(2, 0, 1).copy())[None]
        ids = network.generate(pixel_values=pixels, max_new_tokens=40, num_beams=3, do_sample=False)[0].tolist()
        expected = " ".join(WORDS[i] for i in ids if not WORDS[i].startswith("["))
        expected = expected.replace(" ##", "").replace(" .", ".").replace(" ,", ",")
        assert captioner.caption(picture, "x.png") == expected.strip()
        said.add(expected)
    assert len(said) > 1, "the network should not say the same of all pictures, or this shows nothing"


def test_blip_reads_words_from_tokenizer_json(models: Path) -> None:
    folder = models / "blip"
    picture = drawn.picture(2)
    expected = BlipCaptioner(folder, CPU).caption(picture, "")
    (folder / "vocab.txt").unlink()
    tokenizer = {"model": {"type": "WordPiece", "vocab": {word: number for number, word in enumerate(WORDS)}}}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert BlipCaptioner(folder, CPU).caption(picture, "") == expected


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "vocab.txt", None])
def test_a_missing_network_says_what_to_put_where(missing: str | None, models: Path, tmp_path: Path) -> None:
    folder = models / "blip" if missing else tmp_path / "nowhere" / "blip"
    if missing:
        (folder / missing).unlink()
    with pytest.raises(NotFound) as caught:
        BlipCaptioner(folder, CPU)
    assert str(folder) in caught.value.message
    assert (missing or "model.safetensors") in caught.value.message
    assert "Salesforce/blip-image-captioning-base" in caught.value.message


def test_nothing_in_the_folder_runs(models: Path, tmp_path: Path) -> None:
    """Code, pickles and every key that makes transformers load or run something are there, and nothing happens."""
    folder, canary = models / "blip", tmp_path / "canary"
    expected = BlipCaptioner(folder, CPU).caption(drawn.picture(2), "")
    code = f"open({str(canary)!r}, 'w').write('run')"
    (folder / "modeling_evil.py").write_text(code)
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch " + str(canary).encode() + b"'\ntR.")
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "auto_map": {"AutoModel": "modeling_evil.Evil", "AutoConfig": "modeling_evil.Evil"},
        "_attn_implementation": "evil/kernel",
        "_attn_implementation_internal": "evil/kernel",
    }
    config["text_config"] |= {"auto_map": {"AutoModel": "modeling_evil.Evil"}, "_attn_implementation": "evil/kernel"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text('{"custom_generate": "evil/code"}')
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "evil/base", "peft_type": "LORA"}')
    assert BlipCaptioner(folder, CPU).caption(drawn.picture(2), "") == expected
    assert not canary.exists()


def test_other_and_damaged_networks_are_refused(models: Path) -> None:
    folder = models / "blip"
    weights, config = load_file(folder / "model.safetensors"), (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"model_type": "blip",', '"model_type": "llava",'))
    with pytest.raises(IncompatibleFile, match="llava"):
        BlipCaptioner(folder, CPU)
    (folder / "config.json").write_text("{")
    with pytest.raises(DamagedFile, match=r"config\.json"):
        BlipCaptioner(folder, CPU)
    (folder / "config.json").write_text(config)
    save_file(
        {name: value for name, value in weights.items() if "class_embedding" not in name}, folder / "model.safetensors"
    )
    with pytest.raises(IncompatibleFile, match="class_embedding"):
        BlipCaptioner(folder, CPU)
    save_file(
        {**weights, "vision_model.embeddings.class_embedding": torch.zeros(1, 1, 8)}, folder / "model.safetensors"
    )
    with pytest.raises(IncompatibleFile, match="does not fit"):
        BlipCaptioner(folder, CPU)
    (folder / "model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(DamagedFile, match=r"model\.safetensors"):
        BlipCaptioner(folder, CPU)
