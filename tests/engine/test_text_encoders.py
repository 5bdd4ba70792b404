"""Text states against diffusers' pipelines, which tokenise and encode by themselves."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from studio.engine.loading import load_checkpoint
from studio.engine.text_encoders import TextStates, encode_tokens, padded
from studio.errors import InvalidRequest
from studio.families.spec import DATA
from tests.tiny_models import tiny_components, tiny_info

CPU = torch.device("cpu")
PROMPT = "a red fox on a beach"


def tokenizer(pad: str = "<|endoftext|>") -> Any:
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(DATA / "clip_tokenizer", pad_token=pad, local_files_only=True)


def tokens(*texts: str) -> torch.Tensor:
    """As `chunk_prompt` makes them: filled up with end tokens."""
    return torch.tensor(tokenizer()(list(texts), padding="max_length", max_length=77).input_ids)


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {name: load_checkpoint(tiny_info(name), CPU, torch.float32) for name in ("sd1", "sd2", "sdxl")}


@pytest.mark.parametrize("family, pad", [("sd1", "<|endoftext|>"), ("sd2", "!")])
def test_sd1_and_sd2_states_are_those_of_diffusers(models: dict[str, Any], family: str, pad: str) -> None:
    from diffusers import StableDiffusionPipeline

    absent = {"scheduler": None, "safety_checker": None, "feature_extractor": None}
    pipeline = StableDiffusionPipeline(
        **tiny_components(family), **absent, tokenizer=tokenizer(pad), requires_safety_checker=False
    )
    expected, _ = pipeline.encode_prompt(PROMPT, CPU, 1, False)
    found = encode_tokens(models[family], tokens(PROMPT))
    assert found.pooled is None
    assert torch.allclose(found.joined(), expected, atol=1e-6)


@pytest.mark.parametrize("family", ["sd1", "sd2"])
@pytest.mark.parametrize("skip", [1, 2, 3])
def test_clip_skip_is_an_encoder_with_its_last_layers_cut_off(models: dict[str, Any], family: str, skip: int) -> None:
    from transformers import CLIPTextModel

    whole = tiny_components(family)["text_encoder"]
    config = whole.config.to_dict() | {"num_hidden_layers": whole.config.num_hidden_layers - skip + 1}
    short = CLIPTextModel(type(whole.config)(**config)).eval()
    short.load_state_dict({key: value for key, value in whole.state_dict().items() if key in short.state_dict()})
    ids = tokens(PROMPT)
    with torch.no_grad():
        expected = short(padded(ids, models[family].family.encoders[0].pad_token_id)).last_hidden_state
    assert torch.allclose(encode_tokens(models[family], ids, skip).joined(), expected, atol=1e-6)


def test_sdxl_states_and_pooled_text_are_those_of_diffusers(models: dict[str, Any]) -> None:
    from diffusers import StableDiffusionXLPipeline

    parts = tiny_components("sdxl")
    pipeline = StableDiffusionXLPipeline(
        **parts, tokenizer=tokenizer(), tokenizer_2=tokenizer("!"), scheduler=None, add_watermarker=False
    )
    expected, _, pooled, _ = pipeline.encode_prompt(PROMPT, device=CPU, do_classifier_free_guidance=False)
    for skip in (1, 2, 12):
        found = encode_tokens(models["sdxl"], tokens(PROMPT), skip)
        assert [state.shape for state in found.states] == [(1, 77, 32), (1, 77, 64)]
        assert torch.allclose(found.joined(), expected, atol=1e-6)
        assert found.pooled is not None
        assert torch.allclose(found.pooled, pooled, atol=1e-6)


def test_chunks_are_encoded_each_by_itself(models: dict[str, Any]) -> None:
    both = encode_tokens(models["sdxl"], tokens(PROMPT, ""))
    for row, text in enumerate((PROMPT, "")):
        alone = encode_tokens(models["sdxl"], tokens(text))
        assert torch.allclose(both.joined()[row], alone.joined()[0], atol=1e-6)
        assert both.pooled is not None
        assert alone.pooled is not None
        assert torch.allclose(both.pooled[row], alone.pooled[0], atol=1e-6)


@pytest.mark.parametrize("skip", [0, -1, 4, 12])
def test_clip_skip_beyond_the_layers_is_refused(models: dict[str, Any], skip: int) -> None:
    with pytest.raises(InvalidRequest, match="has 3 layers") as caught:
        encode_tokens(models["sd1"], tokens(PROMPT), skip)
    assert caught.value.field == "clip_skip"


def test_padding_starts_after_the_first_end_token() -> None:
    row = torch.tensor([[49406, 320, 49407, 49407, 5, 49407], [49406, 1, 2, 3, 4, 49407]])
    assert padded(row, 0).tolist() == [[49406, 320, 49407, 0, 0, 0], [49406, 1, 2, 3, 4, 49407]]
    assert padded(row, 49407) is row


def test_states_can_be_joined_and_zeroed() -> None:
    states = TextStates((torch.ones(1, 77, 2), torch.ones(1, 77, 3)), torch.ones(1, 4))
    assert states.joined().shape == (1, 77, 5)
    zero = states.zeroed()
    assert not zero.joined().any()
    assert zero.pooled is not None
    assert not zero.pooled.any()
