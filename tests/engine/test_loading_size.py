"""What a checkpoint is going to take, beside what it takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from studio.engine.eight_bit import PLAIN
from studio.engine.fingerprint import fingerprint
from studio.engine.hardware import Hardware, choose_hardware
from studio.engine.keeper import ModelKeeper
from studio.engine.loading_size import stored_bytes
from studio.engine.offload import WORKING_MEMORY
from tests.tiny_models import original_state, tiny_info


@pytest.mark.parametrize("family", ["sd1", "sprout"])
def test_it_is_what_is_loaded(family: str) -> None:
    """Folders too, with a VAE in another number format."""
    hardware, info = replace(choose_hardware("cpu", precision="bf16"), vae_dtype=torch.float32), tiny_info(family)
    loaded = ModelKeeper(hardware).checkpoint(info).bytes
    assert stored_bytes(fingerprint(info), PLAIN, hardware) == loaded


def test_room_does_not_depend_on_the_number_format_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor on averaged copies in it, nor on what lies beside the weights; what cannot be read is told when it is loaded."""
    state = original_state("sd1")
    averaged = {f"model_ema.{key}": value.clone() for key, value in state.items()}
    files = {f"{dtype}.safetensors".removeprefix("torch."): {key: value.to(dtype) for key, value in state.items()}
             for dtype in (torch.float8_e4m3fn, torch.float16, torch.float32)}  # fmt: skip
    hardware, free = choose_hardware("cpu", precision="fp32"), 0
    monkeypatch.setattr(Hardware, "free_memory", lambda self: free)
    wanted = []
    for name, tensors in {**files, "averaged.safetensors": state | averaged}.items():
        save_file({key: value.contiguous() for key, value in tensors.items()}, tmp_path / name)
        keeper, info = ModelKeeper(hardware), tiny_info(tmp_path / name)
        wanted.append(stored_bytes(fingerprint(info), PLAIN, hardware))
        free = wanted[-1] + WORKING_MEMORY
        assert keeper.has_room(info, ())
        free -= 1
        assert not keeper.has_room(info, ())
    assert len(set(wanted)) == 1
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"nothing")
    for path in (damaged, Path(__file__)):
        assert stored_bytes(fingerprint(info.model_copy(update={"path": str(path)})), PLAIN, hardware) == 0
