"""The command line: what is asked for wrongly ends with code 2 and a sentence; flags come from the fields."""

from __future__ import annotations

import argparse
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from studio.cli import COMMANDS, build_parser, main
from studio.cli import generate as command
from studio.cli.generate import PARTS, PICTURES, REQUEST_FIELDS, _report, branch_from, request_from
from studio.errors import StorageError, StudioError
from studio.infotext import encode_png, read_picture
from studio.library.init_images import InitImages
from studio.paths import Paths
from studio.schema.engine import CancelToken
from studio.schema.events import Event, ImageReady
from studio.schema.parts import BranchPoint, Refiner, SeedResize, Variation
from studio.schema.request import GenerationRequest
from studio.schema.source import Mask, Source
from studio.schema.training import TrainingConfig
from studio.settings import Settings
from studio.training.runs import RunFailed, StageStarted, new_run
from tests.api.stand_in import make_studio

NOTHING_KEPT = InitImages(Path("nowhere"), Path("nowhere"))


def no_server(arguments: argparse.Namespace) -> int:
    raise AssertionError("the server was started")


@pytest.mark.parametrize(
    "words, said",
    [
        (["--steps", "0"], "steps = '0' is not possible: should be from 1 to 150"),
        (["--steps", "many"], "steps = 'many'"),
        (["--cfg-scale", "nan"], "from 0 to 100"),
        (["--width", "63"], "64"),
        (["--height", "100000"], "2048"),
        (["--sampler", "Eular"], "'Euler'"),
        (["--schedule", "Karas"], "'Karras'"),
        (["--model", "nothing-like-it"], "nothing-like-it"),
        (["--eta", "3"], "eta"),
        (["--variation-strength", "2"], "variation.strength = '2'"),
        (
            ["--plot-x-type=Steps", "--plot-x-values=two"],
            "plot.x_values = 'two' is not possible for Steps: 'two' is no number",
        ),
        (["--plot-x-type=Steps", "--plot-x-values=2", "--batch-count=2"], "set batch count and batch size to 1"),
        (["--seed-resize-width", "5"], "seed_resize.width = '5' is not possible: must be 0 (off) or at least 64"),
    ],
)
def test_what_is_not_possible_ends_with_2(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["generate", "a fox", "--data-dir", str(tmp_path), *words], serve=no_server)
    assert code == 2
    assert said in capsys.readouterr().err


def test_unknown_lora_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "a fox <lora:ink:1>", "--data-dir", str(tmp_path)], serve=no_server) == 2
    assert "'ink'" in capsys.readouterr().err


def test_a_bad_environment_ends_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUDIO_DEVICE", "toaster")
    assert main(["models", "--data-dir", str(tmp_path)], serve=no_server) in (0, 2)
    assert main(["generate", "x", "--data-dir", str(tmp_path)], serve=no_server) == 2
    assert "toaster" in capsys.readouterr().err


def test_serve_is_the_default_and_gets_its_flags() -> None:
    seen: list[argparse.Namespace] = []

    def serve(arguments: argparse.Namespace) -> int:
        seen.append(arguments)
        return 7

    assert main([], serve=serve) == 7
    assert main(["--port", "7999", "--no-browser", "--listen"], serve=serve) == 7
    assert (seen[1].port, seen[1].browser, seen[1].listen) == ("7999", False, True)
    assert not hasattr(seen[0], "port")


def test_models_as_json_names_the_embedded_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json", "--data-dir", str(tmp_path)], serve=no_server) == 0
    found = json.loads(capsys.readouterr().out)
    assert "sprout-v1" in [model["name"] for model in found["checkpoints"]]


def test_unknown_benchmark_and_missing_recipe(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["bench", "generat"], serve=no_server) == 2
    assert "'generate'" in capsys.readouterr().err
    assert main(["train", str(tmp_path / "none.toml")], serve=no_server) == 2
    assert "none.toml" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["reproduce"], ["train"], ["dataset"], ["generate", "fox", "--source-image"]])
def test_what_is_no_name_of_a_file_gets_one_line(
    words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main([*words, "a red fox " * 50, "--data-dir", str(tmp_path)], serve=no_server) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "a red fox a red fox" in said
    assert "File name too long" in said
    assert said.count("\n") == 1


def test_every_field_has_a_flag() -> None:
    parser = build_parser(no_server)
    action = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    assert tuple(action.choices) == COMMANDS
    flags = {option for a in action.choices["generate"]._actions for option in a.option_strings}
    names = [*REQUEST_FIELDS, *PICTURES, "source_denoising_strength", "mask_blur"]
    assert {f"--{name.replace('_', '-')}" for name in names} <= flags
    assert "--no-mask-rounding" in flags
    server = {option for a in action.choices["serve"]._actions for option in a.option_strings}
    own = {name for name, field in Settings.model_fields.items() if not field.json_schema_extra["http"]}  # type: ignore[index, call-overload]
    assert {f"--{name.replace('_', '-')}" for name in own - {"browser"}} | {"--no-browser"} <= server


def test_the_help_of_a_flag_that_switches_off_says_so() -> None:
    parser = build_parser(no_server)
    action = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    texts = {
        option: own.help or ""
        for name in ("generate", "serve")
        for own in action.choices[name]._actions
        for option in own.option_strings
        if option.startswith("--no-")
    }
    assert {"--no-browser", "--no-mask-rounding", "--no-plot-legend"} <= texts.keys()
    assert [option for option, text in texts.items() if not text.startswith("Switch off: ")] == []


def test_flags_overrule_defaults_and_nothing_else() -> None:
    defaults = GenerationRequest(width=128, height=128, steps=7)
    arguments = build_parser(no_server).parse_args(["generate", "a fox", "--steps", "9", "--eta", "0.5"])
    request = request_from(arguments, defaults, NOTHING_KEPT)
    assert (request.prompt, request.steps, request.width, request.sampler_options.eta) == ("a fox", 9, 128, 0.5)
    changed = {"prompt", "steps", "sampler_options"}
    assert request.model_dump(exclude=changed) == defaults.model_dump(exclude=changed)
    assert {"prompt", "branch", *REQUEST_FIELDS, *PARTS} == set(GenerationRequest.model_fields)


def test_flags_of_a_part_turn_it_on_over_its_defaults() -> None:
    words = ["generate", "a fox", "--variation-strength", "0.5", "--seed-resize-width=64", "--seed-resize-height=72"]
    words += ["--refiner-checkpoint", "elm", "--refiner-by-steps"]
    request = request_from(build_parser(no_server).parse_args(words), GenerationRequest(seed=3), NOTHING_KEPT)
    assert request.refiner == Refiner(checkpoint="elm", switch_at=0.8, by_steps=True)
    assert request.variation == Variation(seed=-1, strength=0.5)
    assert request.seed_resize == SeedResize(width=64, height=72)
    assert request.seed == 3


def test_pictures_to_begin_with_are_files_or_names(tmp_path: Path) -> None:
    init_images, picture, mask = (
        InitImages(tmp_path / "kept", tmp_path / "kept"),
        tmp_path / "fox.jpg",
        tmp_path / "mask.png",
    )
    Image.new("RGB", (72, 64), (200, 90, 20)).save(picture)
    Image.new("L", (72, 64), 255).save(mask)

    def asked(*flags: str, **defaults: Any) -> GenerationRequest:
        arguments = build_parser(no_server).parse_args(["generate", "an owl", *flags])
        return request_from(arguments, GenerationRequest(**defaults), init_images)

    name, hole = init_images.keep(picture.read_bytes()).name, init_images.keep_mask(mask.read_bytes()).name
    assert asked(f"--source-image={picture}").source == Source(image=name)
    words = ["--source-denoising-strength=0.4", "--source-resize-mode=Crop and resize", "--source-exact-steps"]
    words += [
        f"--mask-image={mask}",
        "--mask-blur=8",
        "--mask-area=Only masked",
        "--mask-inverted",
        "--no-mask-rounding",
    ]
    request = asked(f"--source-image={picture}", *words)
    wanted = Source(image=name, denoising_strength=0.4, resize_mode="Crop and resize", exact_steps=True)
    assert request.source == wanted
    assert request.mask == Mask(image=hole, blur=8, area="Only masked", inverted=True, rounding=False)
    named = [f"--source-image={name}", f"--mask-image={hole}"]
    assert asked(*named, *words[:3], *words[4:]) == request
    assert asked("--source-denoising-strength=0.4", source=Source(image=name, exact_steps=True)).source == Source(
        image=name, denoising_strength=0.4, exact_steps=True
    )
    assert len(list((tmp_path / "kept").iterdir())) == 2


@pytest.mark.parametrize(
    "words, said",
    [
        (["--source-image", "none.png"], "--source-image: there is no file 'none.png'"),
        (["--source-image", "."], "--source-image: there is no file '.'"),
        (["--source-image", "BROKEN"], "The picture is damaged"),
        (["--source-image", "TEXT"], "This is no picture that can be read (PNG, JPEG"),
        (["--source-denoising-strength", "0.4"], "The --source-… flags need --source-image."),
        (["--refiner-switch-at", "0.5"], "Without --refiner-checkpoint there is no use for --refiner-switch-at."),
        (["--variation-seed", "5"], "Without --variation-strength there is no use for --variation-seed."),
        (["--seed-resize-width", "128"], "Without --seed-resize-height there is no use for --seed-resize-width."),
        (["--sd-upscale-overlap", "32"], "Without --sd-upscale-upscaler there is no use for"),
        (["--plot-x-values", "1,2", "--no-plot-legend"], "Without --plot-x-type there is no use for --plot-x-values"),
        (["--source-image", "FINE", "--mask-image", "TEXT"], "--mask-image = "),
        (["--source-image", "FINE", "--mask-blur", "4"], "The --mask-… flags need --mask-image."),
        (["--mask-image", "FINE"], "give source.image too"),
        (["--source-image", "FINE", "--source-denoising-strength", "2"], "source.denoising_strength = '2'"),
        (["--source-image", "FINE", "--hires"], "do not go together"),
        (["--source-image", "FINE", "--mask-image", "FINE", "--mask-blur", "65"], "should be from 0 to 64"),
    ],
)
def test_pictures_that_are_not_possible_end_with_2(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fine = encode_png(Image.new("RGB", (64, 64)), "")
    for name, data in (("FINE", fine), ("BROKEN", fine[:60]), ("TEXT", b"hello")):
        (tmp_path / name).write_bytes(data)
    words = [str(tmp_path / word) if word.isupper() else word for word in words]
    assert main(["generate", "a fox", "--data-dir", str(tmp_path / "data"), *words], serve=no_server) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize("as_json", [False, True])
def test_a_plot_is_painted_cell_by_cell_and_its_sheet_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    studio = make_studio(tmp_path)
    monkeypatch.setattr(command, "opened_studio", lambda arguments: contextlib.nullcontext((studio, CancelToken())))
    totals: list[tuple[float, float]] = []
    shown = command._bar_update

    def noted(event: Event) -> dict[str, Any] | None:
        update = shown(event)
        totals.extend([(update["completed"], update["total"])] if update and "total" in update else [])
        return update

    monkeypatch.setattr(command, "_bar_update", noted)
    words = ["generate", "a fox", "--width=64", "--height=64", "--steps=2", "--seed=3", "--plot-x-type=CFG Scale"]
    words += [
        "--plot-x-values=5-9 (+2)",
        "--plot-y-type",
        "Sampler",
        "--plot-y-values",
        "Euler, Heun",
        "--no-plot-legend",
    ]
    try:
        assert main([*words, *["--json"] * as_json], serve=no_server) == 0
    finally:
        studio.close()
    printed = capsys.readouterr()
    (sheet,) = (tmp_path / "outputs" / "txt2img-grids").rglob("*.png")
    text = read_picture(sheet.read_bytes()).infotext or ""
    assert "X Type: CFG Scale" in text and "Plot legend: False" in text
    if as_json:
        told = json.loads(printed.out)
        assert (len(told["paths"]), told["grid"]) == (6, str(sheet))
    else:
        assert len(printed.out.splitlines()) == 6
        assert f"sheet of the plot: {sheet}" in printed.err
    assert {total for _, total in totals} == {12}
    assert [done for done, _ in totals] == list(range(1, 13))


def test_axes_and_what_is_no_axis(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser(no_server).parse_args(["generate", "a fox", "--plot-x-type", "Nonsense"])
    assert "invalid choice: 'Nonsense' (choose from" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        build_parser(no_server).parse_args(["generate", "--help"])
    printed = capsys.readouterr().out
    usage, _, flags = printed.partition("--plot-x-type TYPE ")
    assert "Cond. Image Mask Weight" not in usage
    assert "Cond. Image Mask Weight" in " ".join(flags.split())


def test_a_picture_saved_in_another_format_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    picture = ImageReady(index=0, seed=1, width=8, height=8, infotext="", path="a.png", warning="PNG instead of JPEG.")
    assert _report([picture], None, as_json=False) == 0
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("a.png\n", "PNG instead of JPEG.\n")
    with pytest.raises(StorageError, match="PNG"):
        _report([picture.model_copy(update={"path": None})], None, as_json=True)


def test_a_branch_reads_its_origin_out_of_a_file(tmp_path: Path) -> None:
    studio = make_studio(tmp_path)
    text = "a red fox\nSteps: 6, Sampler: Euler, CFG scale: 5, Seed: 7, Size: 64x64, RNG: CPU"
    picture, plain, words = tmp_path / "fox.png", tmp_path / "plain.png", tmp_path / "fox.txt"
    picture.write_bytes(encode_png(Image.new("RGB", (8, 8)), text))
    plain.write_bytes(encode_png(Image.new("RGB", (8, 8)), ""))
    words.write_text(text)

    def asked(*flags: str) -> GenerationRequest:
        arguments = build_parser(no_server).parse_args(["generate", "an owl", *flags])
        defaults = studio.default_request(branch=branch_from(arguments, studio))
        return request_from(arguments, defaults, NOTHING_KEPT)

    try:
        for file in (picture, words):
            request = asked(f"--branch-origin={file}", "--branch-step=3", "--cfg-scale=2")
            assert request.branch == BranchPoint(step=3, origin=text)
            assert (request.prompt, request.steps, request.cfg_scale, request.seed) == ("an owl", 6, 2, 7)
        assert asked().branch is None
        for flags, problem in (
            (["--branch-step=3"], "needs --branch-origin"),
            ([f"--branch-origin={picture}"], "needs --branch-step"),
            ([f"--branch-origin={plain}", "--branch-step=3"], "no generation parameters"),
            ([f"--branch-origin={tmp_path}/none.png", "--branch-step=3"], "There is no file"),
            ([f"--branch-origin={picture}", "--branch-step=0"], r"branch\.step = "),
        ):
            with pytest.raises(StudioError, match=problem):
                asked(*flags)
    finally:
        studio.close()


def test_runs_are_listed_with_their_state(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "--data-dir", str(tmp_path)], serve=no_server) == 0
    assert "no training run" in capsys.readouterr().out
    run = new_run(TrainingConfig.model_validate({"name": "tiny", "method": {"kind": "judge"}}), Paths(tmp_path).runs)
    run.append(StageStarted(time=1.0, stage="judge", step=4, total=9))
    run.append(RunFailed(time=2.0, message="The disk is full."))
    assert main(["runs", "--data-dir", str(tmp_path)], serve=no_server) == 0
    assert capsys.readouterr().out.split("  ") == [run.id, "failed", "judge", "judge 4/9", "The disk is full.\n"]
    assert main(["runs", "--json", "--data-dir", str(tmp_path)], serve=no_server) == 0
    assert [record["state"] for record in json.loads(capsys.readouterr().out)] == ["failed"]
