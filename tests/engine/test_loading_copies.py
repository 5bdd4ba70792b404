"""Converted copies on disk: the same weights and pictures with and without, and nothing believed that is not as it was written."""

from __future__ import annotations

import errno
import functools
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import studio.engine.loading_copies as loading_copies
from studio.engine import packing
from studio.engine.hardware import Hardware, choose_hardware
from studio.engine.keeper import WORKING_MEMORY, ModelKeeper
from studio.engine.loading import LoadedModel, load_checkpoint
from studio.engine.loading_copies import BLOCK, SPARED_SECONDS, Copies
from studio.engine.loading_file import TensorFile
from studio.engine.lora import LoraStack, LoraWeights
from studio.engine.packing import PackedConv2d, unpacked
from studio.engine.runner import DiffusersEngine
from studio.errors import DamagedFile
from studio.locking import lock
from studio.schema.engine import CancelToken
from studio.schema.events import ImageReady
from tests.engine.samples import resolved_request
from tests.tiny_models import original_state, tiny_file, tiny_folder, tiny_info

CPU = torch.device("cpu")
PACKS = choose_hardware("cpu", precision="fp32").packs
SHORT = choose_hardware("cpu").dtype == torch.bfloat16
PACKED = torch.bfloat16 if SHORT else torch.float32
"""In bfloat16 oneDNN packs only where the processor computes in it."""
linux = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's list of mappings")
packs_here = pytest.mark.skipif(not PACKS, reason="no oneDNN of the x86 kind")


@pytest.fixture(autouse=True)
def everything_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "PACKED_FROM", 1)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A checkpoint that a test may change, in float16 as most are."""
    path = tmp_path / "tiny.safetensors"
    save_file({key: value.half() for key, value in original_state("sd1").items()}, path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "converted"


@pytest.fixture
def copies(folder: Path) -> Copies:
    return Copies(folder, 10**9)


def load(
    source: Path, copies: Copies | None = None, dtype: torch.dtype = torch.bfloat16, packs: bool = False
) -> LoadedModel:
    def layout(wanted: torch.dtype) -> torch.memory_format:
        return torch.contiguous_format if wanted == torch.float32 else torch.channels_last

    return load_checkpoint(tiny_info(source), CPU, dtype, layout=layout, packs=packs, copies=copies)


def weights(model: LoadedModel) -> dict[str, torch.Tensor]:
    parts = {"unet": model.unet, "vae": model.vae, **{str(i): each for i, each in enumerate(model.text_encoders)}}
    return {f"{part}.{key}": value for part, module in parts.items() for key, value in module.state_dict().items()}


def same(one: LoadedModel, other: LoadedModel) -> bool:
    """Weights bit for bit, packed or not."""
    first, second = weights(one), weights(other)
    return list(first) == list(second) and all(
        first[key].dtype == second[key].dtype and torch.equal(unpacked(first[key]), unpacked(second[key]))
        for key in first
    )


def copies_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.weights"))


def unet_output(model: LoadedModel) -> torch.Tensor:
    drawn = torch.Generator().manual_seed(0)
    x, text = torch.randn(2, 4, 8, 8, generator=drawn), torch.randn(2, 7, 32, generator=drawn)
    with torch.inference_mode():
        found: torch.Tensor = model.unet(x.to(model.unet.dtype), 500, text.to(model.unet.dtype)).sample
    return found


def refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on no weight can be read from a checkpoint."""
    monkeypatch.setattr(TensorFile, "read", None)


# --- the same as without ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl", "sdxl_refiner", "sprout", "sd1-inpaint"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_weights_of_folders_are_the_same_bit_for_bit(family: str, dtype: torch.dtype, copies: Copies) -> None:
    path = tiny_folder(family)
    plain, first, second = load(path, None, dtype), load(path, copies, dtype), load(path, copies, dtype)
    assert (plain.mapped, first.mapped, second.mapped) == (False, True, True)
    strides = {key: value.stride() for key, value in weights(plain).items()}
    for model in (first, second):
        assert same(model, plain)
        for key, value in weights(model).items():
            assert value.stride() == strides[key], key
            assert not value.requires_grad
            assert value.data_ptr() % 64 == 0, key
        assert model.notes == plain.notes
        assert model.latent == plain.latent
        assert not any(module.training for module in (model.unet, model.vae, *model.text_encoders))


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_a_single_file_is_read_once(family: str, copies: Copies, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny_file(family)
    plain, _ = load(path), load(path, copies)
    if family != "sd2":  # what that predicts is told by a weight
        refuse(monkeypatch)
    again = load(path, copies)
    assert again.mapped
    assert same(again, plain)
    assert (again.prediction_type, again.notes) == (plain.prediction_type, plain.notes)


def test_number_formats_have_copies_of_their_own(source: Path, copies: Copies, folder: Path) -> None:
    formats = ((torch.float32, torch.float32), (torch.bfloat16, torch.float32), (torch.bfloat16, torch.bfloat16))
    for _ in range(2):
        for dtype, vae_dtype in formats:
            model = load_checkpoint(tiny_info(source), CPU, dtype, vae_dtype=vae_dtype, copies=copies)
            assert (model.unet.dtype, model.vae.dtype) == (dtype, vae_dtype)
            assert same(model, load_checkpoint(tiny_info(source), CPU, dtype, vae_dtype=vae_dtype))
    assert len(copies_in(folder)) == len(formats)


@pytest.mark.parametrize(
    "precision", ["fp32", pytest.param("bf16", marks=pytest.mark.skipif(not SHORT, reason="slow"))]
)
def test_pictures_are_the_same_bit_for_bit(precision: Any, source: Path, copies: Copies) -> None:
    def picture(engine: DiffusersEngine) -> bytes:
        events = engine.run(resolved_request(tiny_info(source), steps=2), CancelToken())
        (found,) = (event.png for event in events if isinstance(event, ImageReady))
        engine.close()
        return found

    expected = picture(DiffusersEngine("cpu", precision=precision))
    for _ in range(2):
        assert picture(DiffusersEngine("cpu", precision=precision, copies=copies)) == expected


# --- packing at the first use ----------------------------------------------------------------------------------------


@packs_here
@pytest.mark.parametrize(
    "dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.skipif(not SHORT, reason="slow"))]
)
def test_convolutions_are_packed_when_they_are_first_used(dtype: torch.dtype, source: Path, copies: Copies) -> None:
    model, plain = load(source, copies, dtype, packs=True), load(source, None, dtype, packs=True)
    layers = [layer for layer in model.unet.modules() if isinstance(layer, PackedConv2d)]
    parameters = [layer.weight for layer in layers]
    assert layers and not any(weight.is_mkldnn for weight in parameters)
    assert torch.equal(unet_output(model), unet_output(plain))
    assert all(layer.weight is weight and weight.is_mkldnn for layer, weight in zip(layers, parameters, strict=True))
    assert not any(weight.requires_grad or weight.is_inference() for weight in parameters)
    assert same(model, plain)
    assert torch.equal(unet_output(model), unet_output(plain))
    assert same(load(source, copies, dtype), plain)  # the file is as it was


@packs_here
@pytest.mark.parametrize("used", [False, True])
def test_a_lora_goes_in_and_out_before_and_after_the_first_use(
    used: bool, source: Path, copies: Copies, tmp_path: Path
) -> None:
    model, plain = load(source, copies, PACKED, packs=True), load(source, None, PACKED)
    tensors = {}
    for name in ("down_blocks.0.resnets.0.conv1", "mid_block.attentions.0.proj_in"):
        layer, key = plain.unet.get_submodule(name), "lora_unet_" + name.replace(".", "_")
        out, into, *kernel = layer.weight.shape
        tensors[f"{key}.lora_up.weight"] = torch.randn(out, 4, 1, 1)
        tensors[f"{key}.lora_down.weight"] = torch.randn(4, into, *kernel)
    save_file(tensors, tmp_path / "lora.safetensors")
    wanted = [LoraWeights(tmp_path / "lora.safetensors", 1.0, 0.7)]
    if used:
        unet_output(model)
    stack, other = LoraStack(model), LoraStack(plain)
    for _ in range(2):
        assert stack.apply(wanted) and other.apply(wanted)
        assert same(model, plain)
        assert SHORT is False or torch.equal(unet_output(model), unet_output(plain))
        stack.apply([])
        other.apply([])
        assert same(model, plain)
    assert same(load(source, copies, PACKED), plain)  # merging wrote nothing to the file


@packs_here
@linux
def test_what_was_packed_is_memory_no_more(source: Path, copies: Copies) -> None:
    modules = load(source, copies, PACKED, packs=True).unet.modules()
    layer = next(layer for layer in modules if isinstance(layer, PackedConv2d))
    copy, released = layer.release.__self__, list[torch.Tensor]()
    layer.release = released.append  # type: ignore[method-assign]
    before = layer.weight.data
    layer.pack()
    layer.pack()
    (tensor,) = released
    assert tensor.data_ptr() == before.data_ptr()
    large = copy._bytes[: copy._bytes.numel() // 4096 * 4096]
    large.view(-1)[::4096].sum()
    resident = mapped_kib("converted")
    copy.release(large)
    assert mapped_kib("converted") <= resident - large.numel() // 1024 + 8
    assert torch.equal(unpacked(layer.weight), before)  # read again from the file


def mapped_kib(word: str) -> int:
    """Resident memory of the mappings of files with `word` in their path."""
    total, counts = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, *rest = line.split()
        if not first.endswith(":"):
            counts = bool(rest) and word in line
        elif counts and first == "Rss:":
            total += int(rest[0])
    return total


@linux
def test_a_model_that_is_put_away_takes_its_mapping_along(source: Path, copies: Copies) -> None:
    keeper = ModelKeeper(choose_hardware("cpu", precision="fp32"), copies=copies)
    for used in (False, True):
        loaded = keeper.checkpoint(tiny_info(source))
        assert ".weights" in Path("/proc/self/maps").read_text()
        if used:
            unet_output(loaded.model)
        keeper.drop()
        assert ".weights" not in Path("/proc/self/maps").read_text()


def test_mapped_weights_are_taken_for_used_memory(
    source: Path, copies: Copies, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system calls the pages of a mapped file available."""
    infos = tiny_info(source), tiny_info("sprout")
    free = 0
    monkeypatch.setattr(Hardware, "free_memory", lambda self: free)
    hardware = choose_hardware("cpu", precision="fp32")
    needed = ModelKeeper(hardware).checkpoint(infos[1]).bytes + WORKING_MEMORY
    for kept in (None, copies):
        keeper = ModelKeeper(hardware, 2, kept)
        loaded = keeper.checkpoint(infos[0])
        taken = loaded.mapped_bytes
        assert taken == (loaded.bytes if kept else 0)
        free = needed + taken
        assert keeper.has_room(infos[1], infos[:1])
        free -= 1
        assert not keeper.has_room(infos[1], infos[:1])
        free = needed - loaded.bytes + taken
        assert keeper.has_room(infos[1], ())
        unet_output(loaded.model)
        assert loaded.mapped_bytes < taken or not kept or not PACKS  # what was packed lies in memory of its own
        keeper.drop()


# --- what is not believed --------------------------------------------------------------------------------------------


def flip(path: Path, where: Callable[[int], int]) -> None:
    data = bytearray(path.read_bytes())
    data[where(len(data))] ^= 4
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a byte at the end of the weights": lambda path: flip(path, lambda size: size - 8 * -(-size // BLOCK) - 70),
    "a byte in the middle": lambda path: flip(path, lambda size: size // 2),
    "a byte of the sums": lambda path: flip(path, lambda size: size - 3),
    "a byte of the header": lambda path: flip(path, lambda size: 20),
    "cut off": lambda path: os.truncate(path, path.stat().st_size - 1),
    "cut off at a page": lambda path: os.truncate(path, 4096),
    "empty": lambda path: path.write_bytes(b""),
    "longer": lambda path: path.write_bytes(path.read_bytes() + bytes(64)),
    "zeros behind the header": lambda path: path.write_bytes(
        path.read_bytes()[:200_000] + bytes(path.stat().st_size - 200_000)
    ),
    "another file": lambda path: path.write_bytes(os.urandom(path.stat().st_size)),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_copy_is_made_anew(
    damage: Callable[[Path], object], source: Path, copies: Copies, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = load(source)
    load(source, copies)
    (path,) = copies_in(folder)
    intact = path.read_bytes()
    damage(path)
    with caplog.at_level(logging.WARNING):
        model = load(source, copies)
    assert "the copy of" in caplog.text and "is damaged" in caplog.text
    assert model.mapped
    assert same(model, plain)
    assert path.read_bytes() == intact


@pytest.mark.parametrize("layout", ["file", "folder"])
def test_the_copy_goes_with_the_state_of_its_source(
    layout: str, source: Path, copies: Copies, folder: Path, tmp_path: Path
) -> None:
    if layout == "folder":
        source = Path(shutil.copytree(tiny_folder("sd1"), tmp_path / "tiny"))
    changed = source if layout == "file" else source / "vae" / "diffusion_pytorch_model.safetensors"
    load(source, copies)
    (old,) = copies_in(folder)
    other = "old.safetensors"
    shutil.copy(tiny_file("sd1"), tmp_path / other)
    load(tmp_path / other, copies)
    stamp = changed.stat().st_mtime_ns
    tensors = {key: value + 1 for key, value in safe_tensors(changed).items()}
    save_file(tensors, changed)
    os.utime(changed, ns=(stamp + 1, stamp + 1))
    model = load(source, copies)
    assert model.mapped
    assert same(model, load(source))
    assert not old.exists()
    assert len(copies_in(folder)) == 2  # the other checkpoint's stays


def safe_tensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return {key: value.clone() for key, value in load_file(path).items()}


def test_another_version_of_the_program_makes_its_own(
    source: Path, copies: Copies, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(source, copies)
    monkeypatch.setattr(loading_copies, "VERSION", loading_copies.VERSION + 1)
    assert load(source, copies).mapped
    assert len(copies_in(folder)) == 2


def test_a_checkpoint_with_bad_numbers_leaves_nothing(source: Path, copies: Copies, folder: Path) -> None:
    tensors = safe_tensors(source)
    tensors["model.diffusion_model.input_blocks.1.0.in_layers.2.weight"].view(-1)[3] = float("nan")
    save_file(tensors, source)
    with pytest.raises(DamagedFile, match="no finite numbers"):
        load(source, copies)
    assert [path.name for path in folder.iterdir()] == ["lock"]


def test_what_a_process_writes_stays_its_own(source: Path, copies: Copies, folder: Path) -> None:
    model = load(source, copies)
    before = copies_in(folder)[0].read_bytes()
    with torch.no_grad():
        for weight in model.unet.parameters():
            weight.add_(1)
    assert copies_in(folder)[0].read_bytes() == before
    assert same(load(source, copies), load(source))


@pytest.mark.skipif(os.name == "nt", reason="Windows deletes no mapped file")
def test_a_copy_that_is_deleted_stays_for_those_who_mapped_it(source: Path, copies: Copies, folder: Path) -> None:
    model = load(source, copies)
    shutil.rmtree(folder)
    assert same(model, load(source))
    assert load(source, copies).mapped
    assert copies_in(folder)


# --- writing ---------------------------------------------------------------------------------------------------------


def test_a_full_disk_is_told_and_the_checkpoint_loaded(
    source: Path, copies: Copies, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put = loading_copies._put

    def full(stream: Any, start: int, data: Any) -> None:
        if start > 300_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        put(stream, start, data)

    monkeypatch.setattr(loading_copies, "_put", full)
    with caplog.at_level(logging.WARNING):
        model = load(source, copies)
    assert "No space left on device" in caplog.text
    assert not model.mapped
    assert same(model, load(source))
    assert [path.name for path in folder.iterdir()] == ["lock"]


def test_a_folder_that_cannot_be_there_costs_nothing(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "taken").write_text("a file")
    with caplog.at_level(logging.WARNING):
        model = load(source, Copies(tmp_path / "taken" / "converted", 10**9))
    assert "no copy of" in caplog.text
    assert not model.mapped
    assert same(model, load(source))


def test_while_another_process_writes_the_checkpoint_is_loaded_without(
    source: Path, copies: Copies, folder: Path
) -> None:
    folder.mkdir()
    half = folder / "0-0-0.weights.tmp"
    half.write_bytes(b"half")
    with (folder / "lock").open("a") as stream:
        lock(stream, wait=False)
        model = load(source, copies)
        copies.trim()
        assert half.exists()
    assert not model.mapped
    assert same(model, load(source))
    assert load(source, copies).mapped
    assert not half.exists()


CHILD = """
import sys, torch
from pathlib import Path
import studio.engine.loading_copies as loading_copies
from studio.engine.loading import load_checkpoint
from tests.tiny_models import tiny_info
put = loading_copies._put
def slow(stream, start, data):
    if start > 300_000 and sys.argv[3] == "killed":
        print("half", flush=True)
        sys.stdin.read()
    put(stream, start, data)
loading_copies._put = slow
load_checkpoint(tiny_info(Path(sys.argv[1])), torch.device("cpu"), torch.bfloat16, layout=lambda _: torch.channels_last,
                copies=loading_copies.Copies(Path(sys.argv[2]), 10**9))
"""


def child(source: Path, folder: Path, word: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(source), str(folder), word],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_process_killed_while_it_writes(source: Path, copies: Copies, folder: Path) -> None:
    with child(source, folder, "killed") as process:
        assert process.stdout and process.stdout.readline() == "half\n"
        process.send_signal(signal.SIGKILL)
    assert [path.suffix for path in sorted(folder.iterdir())] == [".tmp", ""]  # half a copy, and the lock file
    model = load(source, copies)
    assert model.mapped
    assert same(model, load(source))
    assert len(list(folder.iterdir())) == 2


def test_processes_that_load_the_same_at_once(source: Path, copies: Copies, folder: Path) -> None:
    processes = [child(source, folder, "go") for _ in range(2)]
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    assert len(copies_in(folder)) == 1
    assert not list(folder.glob("*.tmp"))
    assert load(source, copies).mapped
    assert same(load(source, copies), load(source))


# --- how much ---------------------------------------------------------------------------------------------------------


@functools.cache
def size_of_a_copy(source: Path, place: Path) -> int:
    load(source, Copies(place, 10**9))
    (path,) = copies_in(place)
    return path.stat().st_size


def several(tmp_path: Path, source: Path, count: int) -> list[Path]:
    return [Path(shutil.copy(source, tmp_path / f"copy-{number}.safetensors")) for number in range(count)]


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


def test_what_was_used_longest_ago_goes_first_and_nothing_of_the_last_day(
    source: Path, folder: Path, tmp_path: Path
) -> None:
    limit = 2 * size_of_a_copy(source, tmp_path / "measured") + 1000
    copies, sources = Copies(folder, limit), several(tmp_path, source, 3)
    made: list[Path] = []
    for path in sources[:2]:
        assert load(path, copies).mapped
        made += [each for each in copies_in(folder) if each not in made]
    assert not load(sources[2], copies).mapped  # both others were used a moment ago
    assert copies_in(folder) == sorted(made)
    for path in made:
        age(path, SPARED_SECONDS + 60)
    assert load(sources[0], copies).mapped  # which is a use
    assert load(sources[2], copies).mapped
    assert made[0].exists() and not made[1].exists()
    assert sum(path.stat().st_size for path in copies_in(folder)) <= limit


def test_nothing_is_deleted_for_what_does_not_fit_even_then(source: Path, folder: Path, tmp_path: Path) -> None:
    size, sources = size_of_a_copy(source, tmp_path / "measured"), several(tmp_path, source, 3)
    for path in sources[:2]:
        load(path, Copies(folder, 10 * size))
    first, second = copies_in(folder)
    age(first, 2 * SPARED_SECONDS)
    for limit in (size - 1, size + 1000):  # the other one has to stay
        assert not load(sources[2], Copies(folder, limit)).mapped
        assert first.exists() and second.exists()
    assert load(sources[2], Copies(folder, 2 * size)).mapped
    assert not first.exists()


def test_a_part_of_the_disk_stays_free(
    source: Path, copies: Copies, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size, usage = size_of_a_copy(source, tmp_path / "measured"), namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(4 * size - 1))
    assert not load(source, copies).mapped
    assert not copies_in(folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(4 * size))
    assert load(source, copies).mapped


def test_without_room_there_is_not_even_a_folder(source: Path, folder: Path) -> None:
    assert not load(source, Copies(folder, 0)).mapped
    Copies(folder, 0).trim()
    assert not folder.exists()


def test_a_smaller_limit_holds_from_the_next_start_on(source: Path, folder: Path, tmp_path: Path) -> None:
    size = size_of_a_copy(source, tmp_path / "measured")
    newest = folder
    for number, path in enumerate(several(tmp_path, source, 3)):
        load(path, Copies(folder, 10 * size))
        newest = next(each for each in copies_in(folder) if each.stat().st_mtime > time.time() - 60)
        age(newest, 1000 - number * 100)
    (folder / "x-y-z.weights.tmp").write_bytes(b"half")
    Copies(folder, 10 * size).trim()
    assert len(copies_in(folder)) == 3
    assert not list(folder.glob("*.tmp"))
    Copies(folder, 2 * size).trim()
    assert copies_in(folder) and newest in copies_in(folder) and len(copies_in(folder)) == 2
    Copies(folder, 0).trim()
    assert not copies_in(folder)


def test_a_card_gets_its_weights_from_the_file(source: Path, folder: Path) -> None:
    """What is copied to a device anyway is worth no disk."""
    copies = Copies(folder, 10**9)
    assert not load_checkpoint(tiny_info(source), torch.device("meta"), torch.float16, copies=copies).mapped
    assert not folder.exists()
