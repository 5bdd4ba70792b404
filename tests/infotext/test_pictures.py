"""Text inside pictures: containers.json, our own PNGs, and files that are damaged, huge or hostile."""

from __future__ import annotations

import base64
import gzip
import json
import random
import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin, features

from studio.errors import DamagedFile
from studio.infotext import encode_png, read_picture
from studio.infotext.opening import FORMATS
from studio.infotext.read import MAX_INFOTEXT
from studio.schema.request import make_request
from tests.vector_files import load_json

FILES = load_json("containers.json")["files"]
LINE = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 16x16"


def small(mode: str = "RGB", size: tuple[int, int] = (16, 8)) -> Image.Image:
    return Image.new(mode, size)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes, width: int = 16, height: int = 8) -> bytes:
    """A PNG by hand, with chunks before its pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * (height * (3 * width + 1)) if height < 1000 else b""))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize("case", FILES, ids=lambda case: case["name"])
def test_vectors_containers(case: dict[str, Any]) -> None:
    info = read_picture(base64.b64decode(case["base64"]))
    assert info.infotext == case["read"]["infotext"]
    assert set(info.items) == set(case["read"]["items"])
    for key, value in case["read"]["items"].items():
        if value != "bytes":
            assert info.items[key] == value


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=300))
@settings(deadline=2000)
def test_our_png_gives_the_text_back(text: str) -> None:
    info = read_picture(encode_png(small(), text))
    assert info.infotext == text
    assert (info.width, info.height, info.format) == (16, 8, "PNG")


@pytest.mark.parametrize("text, kind", [("ünï café", b"tEXt"), ("日本語", b"iTXt")])
def test_the_chunk_is_the_one_a1111_writes(text: str, kind: bytes) -> None:
    data = encode_png(small(), text)
    assert kind + b"parameters\0" in data
    assert data.index(kind) < data.index(b"IDAT")


def test_pixels_are_kept_exactly() -> None:
    pixels = np.arange(16 * 8 * 3, dtype=np.uint8).reshape(8, 16, 3)
    image = Image.open(BytesIO(encode_png(Image.fromarray(pixels), "x")))
    assert np.array_equal(np.asarray(image), pixels)


def test_a_parsed_request_comes_with_the_text() -> None:
    info = read_picture(encode_png(small(), f"a cat\nNegative prompt: bad\n{LINE}"))
    assert info.request["prompt"] == "a cat"
    assert info.request["seed"] == 1


def test_a_picture_without_text_says_so() -> None:
    for kind in FORMATS:
        info = read_picture(saved(small(), kind))
        assert info.infotext is None
        assert info.request == {}
        assert "no generation text" in info.notes[0]


def test_other_text_is_shown_but_not_used() -> None:
    meta = PngImagePlugin.PngInfo()
    meta.add_text("Comment", "hello")
    meta.add_text("workflow", "w" * 200_000)
    info = read_picture(saved(small(), "PNG", pnginfo=meta))
    assert info.items["Comment"] == "hello"
    assert len(info.items["workflow"]) < 110_000
    assert info.infotext is None


def test_text_behind_the_pixels_is_found() -> None:
    data = png()
    text = chunk(b"tEXt", f"parameters\0late\n{LINE}".encode("latin-1"))
    late = data[: data.index(b"IEND") - 4] + text + chunk(b"IEND", b"")
    assert read_picture(late).request["prompt"] == "late"


@pytest.mark.parametrize(
    "code, encoding",
    [(b"UNICODE\0", "utf-16-le"), (b"UNICODE\0", "utf-16-be"), (b"ASCII\0\0\0", "ascii"), (b"\0" * 8, "utf-8")],
)
@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF", "PNG"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_user_comments_in_all_their_codes(code: bytes, encoding: str, kind: str, order: str) -> None:
    exif = Image.Exif()
    exif.endian = order
    exif[0x8769] = {0x9286: code + f"a cat\n{LINE}".encode(encoding)}
    info = read_picture(saved(small(), kind, exif=exif.tobytes()))
    assert info.infotext == f"a cat\n{LINE}"


def with_hidden(text: bytes, signature: str, mode: str) -> bytes:
    """Stealth text, written bit by bit as the format says."""
    payload = signature.encode() + struct.pack(">I", 8 * len(text)) + text
    bits = [byte >> shift & 1 for byte in payload for shift in range(7, -1, -1)]
    image = Image.new(mode, (64, 64), (255,) * len(mode))
    access = image.load()
    assert access is not None
    channels = [3] if mode == "RGBA" and "rgb" not in signature else [0, 1, 2]
    places = [(x, y, c) for x in range(64) for y in range(64) for c in channels]
    for (x, y, c), bit in zip(places, bits, strict=False):
        pixel = list(access[x, y])
        pixel[c] = pixel[c] & ~1 | bit
        access[x, y] = tuple(pixel)
    return saved(image, "PNG")


@pytest.mark.parametrize("signature", ["stealth_pnginfo", "stealth_pngcomp", "stealth_rgbinfo", "stealth_rgbcomp"])
def test_hidden_text_is_read(signature: str) -> None:
    text = f"日本語 cat\n{LINE}"
    payload = gzip.compress(text.encode()) if signature.endswith("comp") else text.encode()
    mode = "RGB" if "rgb" in signature else "RGBA"
    assert read_picture(with_hidden(payload, signature, mode)).infotext == text


def test_a_hidden_bomb_or_rubbish_is_no_text() -> None:
    assert read_picture(with_hidden(b"not gzip", "stealth_pngcomp", "RGBA")).infotext is None
    bomb = gzip.compress(b"\xff" * 30_000_000, 9)[:400]
    assert read_picture(with_hidden(bomb, "stealth_pngcomp", "RGBA")).infotext is None


DAMAGED = {
    "empty": b"",
    "text": b"hello, I am no picture",
    "html": b"<html><script>alert(1)</script></html>",
    "signature only": b"\x89PNG\r\n\x1a\n",
    "psd": b"8BPS\0\1" + b"\0" * 40,
    "bmp": saved(small(), "BMP"),
    "tiff": saved(small(), "TIFF"),
    "ppm": saved(small(), "PPM"),
    "png cut in the pixels": saved(Image.effect_noise((64, 64), 50), "PNG")[:300],
    "png bomb": png(width=60_000, height=60_000),
    "png above the cap": png(width=10_000, height=7_000),
    "zero size": png(width=0, height=0),
    "bad crc": png().replace(b"IHDR\0\0\0\x10", b"IHDR\0\0\0\x11"),
    "text bomb": png(chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b"a" * 50_000_000, 9))),
    "plain 2 MB text": png(chunk(b"tEXt", b"parameters\0" + b"a" * 2_000_000)),
    "text just too long": encode_png(small(), "a" * (MAX_INFOTEXT + 1)),
    "truncated jpeg header": saved(small(), "JPEG")[:10],
    "truncated webp": saved(small(), "WEBP")[:20],
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_bad_file_is_refused_in_one_sentence(name: str) -> None:
    with pytest.raises(DamagedFile) as caught:
        read_picture(DAMAGED[name])
    assert caught.value.message.endswith(".")
    assert caught.value.field == "image"


GRAPH: dict[str, Any] = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 2**40 + 7, "steps": 25, "cfg": 6.5, "sampler_name": "dpmpp_2m_sde_gpu", "scheduler": "karras",
            "denoise": 1, "model": ["11", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0],
        },
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sub\\dream.safetensors"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 640, "height": 768, "batch_size": 1}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": ["12", 0], "clip": ["13", 0]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "bad", "clip": ["13", 0]}},
    "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "x"}},
    "10": {
        "class_type": "LoraLoader",
        "inputs": {"lora_name": "a.safetensors", "strength_model": 0.8, "strength_clip": 0.6, "model": ["4", 0], "clip": ["4", 1]},
    },
    "11": {
        "class_type": "LoraLoaderModelOnly",
        "inputs": {"lora_name": "b.safetensors", "strength_model": 0.5, "model": ["10", 0]},
    },
    "12": {"class_type": "PrimitiveString", "inputs": {"value": "a cat\nin a hat"}},
    "13": {"class_type": "CLIPSetLastLayer", "inputs": {"stop_at_clip_layer": -2, "clip": ["10", 1]}},
}  # fmt: skip


def with_chunks(**chunks: str) -> bytes:
    meta = PngImagePlugin.PngInfo()
    for key, value in chunks.items():
        meta.add_text(key, value)
    return saved(small(), "PNG", pnginfo=meta)


def changed(node: str, **inputs: Any) -> str:
    """The graph with other inputs for one node."""
    old = GRAPH[node]
    return json.dumps({**GRAPH, node: {**old, "inputs": {**old["inputs"], **inputs}}})


def test_comfyuis_standard_graph_is_read() -> None:
    info = read_picture(with_chunks(prompt=json.dumps(GRAPH), workflow="{}"))
    assert info.infotext == (
        "a cat\nin a hat <lora:a:0.6:0.8> <lora:b:0:0.5>\nNegative prompt: bad\n"
        "Steps: 25, Sampler: DPM++ 2M SDE, Schedule type: Karras, CFG scale: 6.5, Seed: 7, Size: 640x768, "
        "Model: dream.safetensors, Clip skip: 2, RNG: CPU"
    )
    assert (info.request["seed"], info.request["model"], info.request["width"]) == (7, "dream", 640)
    assert any("ComfyUI" in note for note in info.notes)
    assert {"prompt", "workflow"} <= set(info.items)


def test_comfyuis_graph_in_other_formats_is_found() -> None:
    exif = Image.Exif()
    exif[0x0110] = f"prompt:{json.dumps(GRAPH)}"
    assert read_picture(saved(small(), "WEBP", exif=exif.tobytes())).request["seed"] == 7


@pytest.mark.parametrize(
    "graph, reason",
    [
        (json.dumps({**GRAPH, "20": GRAPH["3"]}), "2 samplers"),
        ("{}", "0 samplers"),
        (json.dumps({"1": {"class_type": "SamplerCustom", "inputs": {"noise_seed": 1}}}), "'SamplerCustom'"),
        (changed("3", seed=["99", 0]), "seed"),
        (changed("3", seed=["3", 0]), "seed"),
        (changed("3", seed=1.5), "seed"),
        (changed("3", positive=["9", 0]), "positive prompt"),
        (changed("7", text=["8", 0]), "negative prompt"),
        (changed("7", text=["7", 0]), "negative prompt"),
        ('{"a": ', "cannot be read"),
        ('{"a": ' * 90_000, "cannot be read"),
        ('{"1": {"inputs": []}, "2": 5}', "0 samplers"),
    ],
    ids=lambda value: value[:20],
)
def test_another_graph_gives_a_note(graph: str, reason: str) -> None:
    info = read_picture(with_chunks(prompt=graph))
    assert info.infotext is None
    assert info.request == {}
    assert any(reason in note and "ComfyUI" in note for note in info.notes)


def test_a_sampler_that_is_not_here_is_named() -> None:
    info = read_picture(with_chunks(prompt=changed("3", sampler_name="res_multistep", scheduler="ddim_uniform")))
    assert any("'res_multistep'" in note for note in info.notes)


FOOOCUS = {
    "adm_guidance": "(1.5, 0.8, 0.3)", "base_model": "juggernaut", "base_model_hash": "aeb7e9e689", "clip_skip": 2,
    "guidance_scale": 4, "loras": [["offset", 0.1, "4852686128"], 5], "metadata_scheme": "fooocus",
    "negative_prompt": "bad", "performance": "Speed", "prompt": "a cat", "full_prompt": ["a cat", "detailed"],
    "refiner_model": "None", "refiner_switch": 0.5, "resolution": "(1152, 896)", "sampler": "dpmpp_2m_sde_gpu",
    "scheduler": "karras", "seed": "123", "sharpness": 2, "steps": 30, "vae": "Default (model)", "version": "Fooocus v2.5.0",
}  # fmt: skip


@pytest.mark.parametrize("place", ["chunk", "comment", "comment outside its block"])
def test_fooocus_is_read(place: str) -> None:
    text = json.dumps(FOOOCUS)
    exif = Image.Exif()
    if place == "comment":
        exif[0x8769] = {0x9286: text}
    else:
        exif[0x9286] = text
    data = with_chunks(parameters=text) if place == "chunk" else saved(small(), "JPEG", exif=exif.tobytes())
    request = read_picture(data).request
    assert request["prompt"] == "a cat, detailed <lora:offset:0.1>"
    assert (request["sampler"], request["schedule"], request["seed"]) == ("DPM++ 2M SDE", "Karras", 123)
    assert (request["width"], request["height"], request["model"]) == (1152, 896, "juggernaut [aeb7e9e689]")
    assert request["negative_prompt"] == "bad"


def test_fooocus_counts_the_way_to_its_refiner_in_steps() -> None:
    told = {**FOOOCUS, "refiner_model": "sd_xl_refiner_1.0.safetensors", "refiner_switch": 0.6}
    request = read_picture(with_chunks(parameters=json.dumps(told))).request
    assert request["refiner"] == {"checkpoint": "sd_xl_refiner_1.0", "switch_at": 0.6, "by_steps": True}
    assert "refiner" not in read_picture(with_chunks(parameters=json.dumps(FOOOCUS))).request


@pytest.mark.parametrize("loras", [5, "x", None, [[]], [["a", {}, 1]], {}])
def test_fooocus_loras_of_another_form_are_passed_over(loras: Any) -> None:
    info = read_picture(with_chunks(parameters=json.dumps({**FOOOCUS, "loras": loras})))
    assert info.request["steps"] == 30


def test_other_json_is_a_prompt() -> None:
    assert read_picture(with_chunks(parameters='{"steps": 1}')).infotext == '{"steps": 1}'


def test_novelais_hidden_metadata_is_read() -> None:
    comment = {"steps": 28, "sampler": "k_euler", "scale": 5, "seed": 9, "uc": "bad"}
    hidden = gzip.compress(json.dumps({"Description": "a cat", "Comment": json.dumps(comment)}).encode())
    request = read_picture(with_hidden(hidden, "stealth_pngcomp", "RGBA")).request
    assert (request["prompt"], request["seed"], request["sampler"]) == ("a cat", 9, "Euler")
    assert read_picture(with_hidden(b"{1}", "stealth_pnginfo", "RGBA")).infotext == "{1}"


def test_compressed_and_late_chunks_are_read() -> None:
    text = f"a cat\n{LINE}".encode()
    compressed = chunk(b"zTXt", b"parameters\0\0" + zlib.compress(text))
    international = chunk(b"iTXt", b"parameters\0\1\0\0\0" + zlib.compress(text))
    for data in (png(compressed), png(international)):
        assert read_picture(data).request["prompt"] == "a cat"


def test_avif_without_a_decoder_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(small(), "AVIF")
    monkeypatch.setattr(features, "check", lambda name: False)
    with pytest.raises(DamagedFile, match="AVIF") as caught:
        read_picture(data)
    assert "Pillow 11.3" in caught.value.message
    assert read_picture(encode_png(small(), "x")).infotext == "x"


COMMENTED = Image.Exif()
COMMENTED[0x8769] = {0x9286: b"UNICODE\0" + f"a\n{LINE}".encode("utf-16-be")}
SOUND = [
    encode_png(small("RGBA"), f"a\n{LINE}"),
    with_chunks(prompt=json.dumps(GRAPH)),
    with_chunks(parameters=json.dumps(FOOOCUS)),
    with_hidden(gzip.compress(b"a"), "stealth_pngcomp", "RGBA"),
    saved(small(), "GIF", comment=f"a\n{LINE}".encode()),
    *(saved(small(), kind, exif=COMMENTED.tobytes()) for kind in ("JPEG", "WEBP", "AVIF")),
    *(base64.b64decode(case["base64"]) for case in FILES),
]


def mutant(source: random.Random) -> bytes:
    """A sound file with some bytes changed, a piece cut out, doubled or put elsewhere, or its end missing."""
    data = bytearray(source.choice(SOUND))
    for _ in range(source.randint(1, 4)):
        start, stop = sorted(source.randrange(len(data) + 1) for _ in range(2))
        stop = min(stop, start + 64)
        match source.randrange(5):
            case 0:
                data[start:stop] = source.randbytes(stop - start)
            case 1:
                del data[start:stop]
            case 2:
                data[start:start] = data[start:stop]
            case 3:
                del data[start:]
            case _:
                data[start : start + 1] = bytes([source.choice([0, 1, 127, 128, 255])])
    return bytes(data)


def test_a_thousand_broken_files_are_read_or_refused() -> None:
    source, refused = random.Random(20240501), []
    for _ in range(1000):
        try:
            make_request(read_picture(mutant(source)).request)
        except DamagedFile as error:
            refused.append(error.message)
    assert 100 < len(refused) < 1000
    assert {message for message in refused if not message.endswith(".")} == set()
