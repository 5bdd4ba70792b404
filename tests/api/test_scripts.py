"""A1111's script X/Y/Z plot: what its arguments mean, and what the answer has."""

from __future__ import annotations

import base64
import io
import json
from typing import Any, get_args

import httpx
import pytest
from PIL import Image

from studio.api.a1111.scripts import ARGUMENTS, IMG2IMG_AXES, TXT2IMG_AXES, is_plot, plot_call
from studio.app import Studio
from studio.errors import InvalidRequest
from studio.infotext import read_picture
from studio.schema.plot import AxisType, Plot

API, V1 = "/sdapi/v1", "/studio/v1"
SMALL = {"prompt": "a fox", "width": 64, "height": 64, "steps": 2, "seed": 5}
NOTHING = [0, "", []]


def meant(*arguments: Any, axes: tuple[str, ...] = TXT2IMG_AXES) -> Plot:
    return Plot.model_validate(plot_call(arguments, axes).plot)


def test_numbers_count_in_the_list_of_the_route() -> None:
    # Numbers that A1111's users and their programs are seen to send: Seed, Prompt S/R and Checkpoint name of txt2img.
    assert [TXT2IMG_AXES[number] for number in (0, 1, 7, 11)] == ["Nothing", "Seed", "Prompt S/R", "Checkpoint name"]
    assert [IMG2IMG_AXES[number] for number in (5, 6, 7, 10)] == [
        "CFG Scale",
        "Image CFG Scale",
        "Prompt S/R",
        "Checkpoint name",
    ]
    assert "Cond. Image Mask Weight" not in TXT2IMG_AXES
    assert "Hires upscaler" not in IMG2IMG_AXES
    assert {*TXT2IMG_AXES, *IMG2IMG_AXES} <= set(get_args(AxisType))
    assert set(get_args(AxisType)) <= {*TXT2IMG_AXES, *IMG2IMG_AXES}
    assert len(ARGUMENTS) == 18


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ([], {}),
        ([*NOTHING * 3, True, True, False, False, False, False, False, 0, False], {}),
        ([6, "5-9 (+2)", [], 0, "", [], 0, "", [], False, False, False, True, False, False, False, 12, False],
         {"x_type": "CFG Scale", "x_values": "5-9 (+2)", "legend": False, "random_seeds": True, "margin": 12}),
        (["6", "5", ""], {"x_type": "CFG Scale", "x_values": "5"}),
        (["cfg scale", 5, None], {"x_type": "CFG Scale", "x_values": "5"}),
        ([None, None, None, "", "", "", "Steps", "5, 6"], {"z_type": "Steps", "z_values": "5, 6"}),
        ([9, "", ["Euler a", "Heun"]], {"x_type": "Sampler", "x_values": "Euler a,Heun"}),
        ([9, "", ['a, "b"', "c"]], {"x_type": "Sampler", "x_values": '"a, ""b""",c'}),
        ([9, "Heun", []], {"x_type": "Sampler", "x_values": "Heun"}),
        ([9, "Heun", ["Euler"], *NOTHING * 2, True, False, False, False, False, False, False, 0, True],
         {"x_type": "Sampler", "x_values": "Heun"}),
        ([40, "", ["Disable", "Enable"]], {"x_type": "FP8 mode", "x_values": "Disable,Enable"}),
        ([TXT2IMG_AXES.index("Face restore"), "", ["CodeFormer", "GFPGAN"]],
         {"x_type": "Face restore", "x_values": "CodeFormer,GFPGAN"}),
        ([6, "5", ["9"]], {"x_type": "CFG Scale", "x_values": "5"}),
        ([4, "5", [], *NOTHING * 2, "True", "False", "false"], {"x_type": "Steps", "x_values": "5"}),
    ],
)  # fmt: skip
def test_arguments_mean_a_plot(arguments: list[Any], expected: dict[str, Any]) -> None:
    assert meant(*arguments) == Plot.model_validate(expected)


def test_img2img_counts_otherwise() -> None:
    assert meant(5, "5", axes=IMG2IMG_AXES).x_type == "CFG Scale"
    assert meant(5, "5").x_type == "Hires steps"


@pytest.mark.parametrize(
    "arguments, field, words",
    [
        ([42], "x_type", r"script_args\[0\] \(x_type\): there is no axis 42; numbers go from 0 to 41. Choose from Nothing, Seed"),
        ([-1], "x_type", "there is no axis -1"),
        ([1.5], "x_type", "there is no axis 1.5"),
        ([True], "x_type", "there is no axis True"),
        ([*NOTHING, "Nonsense"], "y_type", r"script_args\[3\] \(y_type\): an axis 'Nonsense' is not available"),
        ([*NOTHING * 3, True, False, False, False, True], "vary_seeds_x", "an axis of type Seed"),
        ([*NOTHING * 3, "perhaps"], "draw_legend", "'perhaps' is neither true nor false"),
        ([*NOTHING * 3, [1]], "draw_legend", "is neither true nor false"),
        ([0] * 19, None, "there are 19; x/y/z plot takes 18 at most: x_type, x_values"),
    ],
)  # fmt: skip
def test_arguments_that_mean_nothing_are_refused_by_name(arguments: list[Any], field: str | None, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as caught:
        plot_call(arguments, TXT2IMG_AXES)
    assert caught.value.field == ("script_args" if field is None else f"script_args.{field}")


def test_its_name_in_any_letters() -> None:
    assert is_plot("X/Y/Z plot") and is_plot(" x/y/z PLOT")
    assert not any(map(is_plot, ("", None, "None", "Prompt matrix")))


def asked(
    client: httpx.Client, *arguments: Any, route: str = "txt2img", **fields: Any
) -> tuple[list[bytes], dict[str, Any]]:
    body = {**SMALL, "script_name": "X/Y/Z plot", "script_args": arguments, **fields}
    answer = client.post(f"{API}/{route}", json=body)
    assert answer.status_code == 200, answer.text
    return [base64.b64decode(image) for image in answer.json()["images"]], json.loads(answer.json()["info"])


def test_the_sheet_comes_first_and_then_the_pictures(client: httpx.Client, studio: Studio) -> None:
    images, info = asked(client, 6, "5, 7, 9", [], 9, "", ["Euler", "Heun"], *NOTHING, True, True)
    texts = info["infotexts"]
    assert [read_picture(image).infotext for image in images] == texts
    assert (len(texts), info["index_of_first_image"], info["all_seeds"]) == (7, 1, [5] * 6)
    assert (
        'Script: X/Y/Z plot, X Type: CFG Scale, X Values: "5, 7, 9", Y Type: Sampler, Y Values: "Euler,Heun"'
        in texts[0]
    )
    assert all("Script" not in text for text in texts[1:])
    values = [
        (text.split("Sampler: ")[1].split(",")[0], text.split("CFG scale: ")[1].split(",")[0]) for text in texts[1:]
    ]
    assert values == [(sampler, scale) for sampler in ("Euler", "Heun") for scale in ("5.0", "7.0", "9.0")]
    with Image.open(io.BytesIO(images[0])) as sheet:
        assert sheet.width > 3 * 64 and sheet.height > 2 * 64
    assert not (studio.paths.outputs / "txt2img-images").exists()
    assert not (studio.paths.outputs / "txt2img-grids").exists()
    job = client.get(f"{V1}/jobs?limit=1").json()[0]
    assert client.get(f"{V1}/jobs/{job['id']}/grid").content == images[0]


def test_the_text_of_a_sheet_asks_for_its_plot(client: httpx.Client) -> None:
    text = 'a fox\nSteps: 2, Sampler: Euler, CFG scale: 5.0, Seed: 5, Size: 64x64, Script: X/Y/Z plot, X Type: Steps, X Values: "1, 2"'
    answer = client.post(f"{API}/txt2img", json={"infotext": text}).json()
    info = json.loads(answer["info"])
    assert len(answer["images"]) == len(info["infotexts"]) == 3
    assert ["Script: X/Y/Z plot" in told for told in info["infotexts"]] == [True, False, False]


def test_only_the_sheet_as_long_as_nobody_asks_for_more(client: httpx.Client) -> None:
    images, info = asked(client, "Prompt S/R", "fox, owl", [])
    assert len(images) == len(info["infotexts"]) == info["index_of_first_image"] == 1
    assert "X Type: Prompt S/R" in info["infotexts"][0]
    assert info["all_prompts"] == info["all_seeds"] == []


def test_prompts_and_variation_seeds_are_those_of_the_cells(client: httpx.Client) -> None:
    fields = {"subseed": 3, "subseed_strength": 0.5}
    _, info = asked(client, "Prompt S/R", "fox, owl", [], "Var. seed", "8, 9", [], *NOTHING, True, True, **fields)
    assert info["all_prompts"] == ["a fox", "an owl".replace("an", "a")] * 2
    assert info["all_subseeds"] == [8, 8, 9, 9]


def test_saved_ones_have_the_file_of_the_sheet(client: httpx.Client, studio: Studio) -> None:
    images, _ = asked(client, "Steps", "1, 2", [], *NOTHING * 2, True, True, save_images=True)
    (grid,) = (studio.paths.outputs / "txt2img-grids").rglob("grid-*.png")
    assert grid.read_bytes() == images[0]
    assert len(images) == 3
    grid.unlink()
    job = client.get(f"{V1}/jobs?limit=1").json()[0]
    drawn = client.get(f"{V1}/jobs/{job['id']}/grid")
    assert drawn.status_code == 200, "laid out again"
    assert read_picture(drawn.content).infotext == read_picture(images[0]).infotext


def test_img2img_has_it_too(client: httpx.Client) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (64, 64), (90, 20, 20)).save(picture, "PNG")
    sent = [base64.b64encode(picture.getvalue()).decode()]
    images, info = asked(
        client, "Denoising", "0.4, 0.6", [], *NOTHING * 2, True, True, route="img2img", init_images=sent
    )
    assert len(images) == 3
    assert ["Denoising strength: 0.4" in info["infotexts"][1], "Denoising strength: 0.6" in info["infotexts"][2]] == [
        True
    ] * 2


@pytest.mark.parametrize(
    "arguments, field, words",
    [
        (["Steps", "five"], "script_args.x_values", "script_args.x_values = 'five' is not possible for Steps"),
        (["Steps", "1-500"], "script_args.x_values", "500 pictures; at most 400"),
        (["Steps", "1", "", "Steps", "2"], "script_args.y_type", "Two axes change Steps"),
        (["Steps", "1, 151"], "script_args", "steps = 151 is not possible"),
        (["Hires steps", "1"], "script_args.x_values", "no second pass"),
        (["Steps", "1", "", *NOTHING * 2, True, False, False, False, False, False, False, 501], "script_args.margin_size", "501"),
    ],
)  # fmt: skip
def test_a_plot_that_cannot_be_says_why(client: httpx.Client, arguments: list[Any], field: str, words: str) -> None:
    answer = client.post(f"{API}/txt2img", json={**SMALL, "script_name": "x/y/z plot", "script_args": arguments})
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert error["field"] == field
    assert words in error["message"]


def test_sub_grids_are_ignored_with_a_warning(client: httpx.Client) -> None:
    _, info = asked(client, "Steps", "1, 2", [], *NOTHING * 2, True, False, True)
    assert any("include_sub_grids was ignored" in warning for warning in info["warnings"])


def test_the_lists_of_scripts(client: httpx.Client) -> None:
    lists = {"txt2img": ["x/y/z plot"], "img2img": ["x/y/z plot", "sd upscale"]}
    assert client.get(f"{API}/scripts").json() == lists
    ours, other, upscale = client.get(f"{API}/script-info").json()
    assert (upscale["name"], upscale["is_img2img"], len(upscale["args"])) == ("sd upscale", True, 4)
    overlap = upscale["args"][1]
    assert (overlap["label"], overlap["value"], overlap["minimum"], overlap["maximum"], overlap["step"]) == (
        "Tile overlap",
        64,
        0,
        256,
        16,
    )
    assert (ours["name"], ours["is_alwayson"], ours["is_img2img"], other["is_img2img"]) == (
        "x/y/z plot",
        False,
        False,
        True,
    )
    assert len(ours["args"]) == 18
    assert ours["args"][0]["choices"] == list(TXT2IMG_AXES)
    assert other["args"][0]["choices"] == list(IMG2IMG_AXES)
    margin = ours["args"][16]
    assert (margin["label"], margin["minimum"], margin["maximum"]) == ("Grid margins (px)", 0, 500)
