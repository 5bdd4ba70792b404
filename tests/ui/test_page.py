"""The page as Gradio gets it, and the rules that keep it safe and light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from studio.app import Studio
from studio.building import build
from studio.engine.fake import FakeEngine
from studio.paths import Paths
from studio.settings import Settings
from studio.ui import static
from studio.ui.blocks import build_blocks, folds
from studio.ui.folded import folded
from studio.ui.handlers import is_http
from studio.ui.html import esc, inline_json, panel
from studio.ui.looks import LOOKS
from studio.ui.mount import in_own_loop, mount_page
from studio.ui.static import ASSETS, assets_url
from studio.ui.tabs.settings import grouped
from studio.ui.theme import make_head, make_theme
from tests.api.stand_in import make_studio

UI = Path(__file__).resolve().parents[2] / "studio" / "ui"
MODULES = {path.relative_to(UI).as_posix(): ast.parse(path.read_text("utf-8")) for path in UI.rglob("*.py")}
SCRIPTS = sorted(ASSETS.glob("*.js"))


@pytest.fixture
def page(studio: Studio) -> gr.Blocks:
    return in_own_loop(build_blocks, studio)


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    studio = make_studio(tmp_path_factory.mktemp("data"))
    app = mount_page(FastAPI(), studio)
    app.state.studio = studio
    yield app
    studio.close()


@pytest.fixture(scope="module")
def client(mounted: FastAPI) -> Iterator[TestClient]:
    with TestClient(mounted) as client:
        yield client


def parts(page: gr.Blocks) -> list[dict[str, Any]]:
    config: dict[str, Any] = page.get_config_file()
    return list(config["components"])


def test_no_listener_is_public_or_queued(page: gr.Blocks) -> None:
    listeners = page.get_config_file()["dependencies"]
    assert len(listeners) > 10
    assert {listener["api_visibility"] for listener in listeners} == {"private"}
    assert {listener["queue"] for listener in listeners} == {False}


def test_nothing_on_the_page_takes_files(page: gr.Blocks) -> None:
    kinds = {part["type"] for part in parts(page)}
    plain = {"accordion", "button", "checkbox", "column", "dropdown", "form", "html", "json", "markdown", "number", "row",
             "slider", "tabitem", "tabs", "textbox"}  # fmt: skip
    assert kinds <= plain


def test_ids_that_scripts_of_a1111_users_know(page: gr.Blocks) -> None:
    ids = {part["props"].get("elem_id") for part in parts(page)}
    wanted = {"txt2img_prompt", "txt2img_neg_prompt", "txt2img_generate", "txt2img_interrupt", "txt2img_skip", "txt2img_steps",
              "txt2img_sampling", "txt2img_scheduler", "txt2img_width", "txt2img_height", "txt2img_res_switch_btn",
              "txt2img_batch_count", "txt2img_batch_size", "txt2img_cfg_scale", "txt2img_seed", "txt2img_random_seed",
              "txt2img_reuse_seed", "setting_sd_model_checkpoint", "refresh_sd_model_checkpoint", "quicksettings", "tabs",
              "script_txt2img_xyz_plot_x_type", "script_txt2img_xyz_plot_z_values", "script_txt2img_xyz_plot_draw_legend",
              "script_txt2img_xyz_plot_no_fixed_seeds", "script_txt2img_xyz_plot_margin_size", "xyz_grid_fill_x_tool_button",
              "xy_grid_swap_axes_button", "tab_txt2img", "tab_pnginfo", "tab_library", "tab_settings"}  # fmt: skip
    assert wanted <= ids
    assert {look.elem_id for look in LOOKS.values()} <= ids


def test_sections_that_fold_know_their_fields_and_defaults(page: gr.Blocks) -> None:
    found = folded(folds(page))
    assert found["txt2img_subseed_show"] == {
        "variation.seed": -1,
        "variation.strength": 0,
        "seed_resize.width": 0,
        "seed_resize.height": 0,
    }
    assert set(found) == {
        *("txt2img_subseed_show", "txt2img_refiner", "script_img2img_sd_upscale", "txt2img_sampler_parameters")
    }
    assert found["txt2img_sampler_parameters"].keys() >= {"sampler_options.eta", "rng", "text_encoders", "tiling"}
    assert inline_json(found)


def test_tabs(page: gr.Blocks) -> None:
    labels = [part["props"]["label"] for part in parts(page) if part["type"] == "tabitem"]
    assert labels == ["txt2img", "PNG Info", "Train", "Library", "Settings"]


def test_a_page_without_any_model_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = build(Settings(), Paths(tmp_path / "empty"), engine=FakeEngine(), queue=False)
    monkeypatch.setattr(built.library, "checkpoints", list)
    monkeypatch.setattr(built, "_selected", lambda: None)
    assert parts(in_own_loop(build_blocks, built))
    built.close()


def test_settings_of_the_page_are_those_that_http_may_change(page: gr.Blocks) -> None:
    allowed = {name for name, info in Settings.model_fields.items() if is_http(info.json_schema_extra)}
    assert {name for names in grouped().values() for name in names} == allowed
    ids = {part["props"].get("elem_id") for part in parts(page)}
    assert {f"setting_page_{name}" for name in allowed} <= ids


def test_mounted(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.status_code == 200
    assert "Latent Studio" in answer.text
    config = client.get("/config").json()
    assert config["footer_links"] == []
    assert config["run_history"] is False
    assert config["analytics_enabled"] is False


def test_the_file_check_of_gradio_is_on(mounted: FastAPI) -> None:
    applications = [route.app for route in mounted.routes if hasattr(route, "app")]
    blocks = [inner.get_blocks() for inner in applications if hasattr(inner, "get_blocks")]
    assert [(each.has_launched, each.allowed_paths) for each in blocks] == [(True, [])]
    assert blocks[0].blocked_paths == [str(mounted.state.studio.paths.root)]


@pytest.mark.parametrize("name", ["main.js", "page.css", "boot.js", "favicon.png"])
def test_assets_are_served_and_kept_by_the_browser(client: TestClient, name: str) -> None:
    answer = client.get(f"{assets_url()}/{name}")
    assert answer.status_code == 200
    assert "immutable" in answer.headers["cache-control"]
    assert client.get(f"/studio/page/{name}").headers.get("cache-control") != answer.headers["cache-control"]


def test_changed_assets_have_another_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static, "ASSETS", tmp_path)
    found = []
    for name, text in [("a.js", "1"), ("a.js", "2"), ("b.js", "2"), ("b.js", "2")]:
        (tmp_path / name).write_text(text)
        found.append(assets_url.__wrapped__())
    assert len(set(found[:3])) == 3
    assert found[2] == found[3]


def test_every_module_is_named_in_the_head() -> None:
    """A browser that finds them one by one inside each other loses half a second."""
    named = set(re.findall(rf'(?:href|src)="{assets_url()}/([\w-]+\.js)"', make_head({})))
    assert named == {file.name for file in ASSETS.glob("*.js")} - {"boot.js"}


@pytest.mark.parametrize("path", ["../mount.py", "%2e%2e/mount.py", "..%2fmount.py", "nothing.js", ""])
def test_only_assets_are_served(client: TestClient, path: str) -> None:
    assert "mount_page" not in client.get(f"{assets_url()}/{path}").text


def test_esc() -> None:
    assert esc("<b a=\"1\" c='2'>&") == "&lt;b a=&quot;1&quot; c=&#x27;2&#x27;&gt;&amp;"
    assert "<img" not in panel("<img src=x onerror=1>").value


def test_json_in_a_script_element_cannot_leave_it() -> None:
    text = inline_json({"prompt": "</script><!-- \u2028 &"})
    assert not re.search(r"[<>&\u2028]", text)
    assert "latentStudioConfig" in make_head({"a": "</script>"})
    assert make_head({"a": "</script>"}).count("</script>") == 2


def calls(tree: ast.AST) -> Iterator[str]:
    return (ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call))


def test_html_is_made_in_one_module_only() -> None:
    makers = {name for name, tree in MODULES.items() for call in calls(tree) if call.split(".")[-1] == "HTML"}
    assert makers == {"html.py"}


def test_no_component_of_gradio_that_reads_files_and_no_file_work() -> None:
    banned = {"File", "Image", "UploadButton", "Gallery", "ImageEditor", "MultimodalTextbox", "FileExplorer", "Info",
              "Warning", "Error", "open", "write_bytes", "write_text"}  # fmt: skip
    used = {
        f"{name}: {call}" for name, tree in MODULES.items() for call in calls(tree) if call.split(".")[-1] in banned
    }
    assert used == set()
    readers = ("read_text", "read_bytes")
    reading = {name for name, tree in MODULES.items() for call in calls(tree) if call.endswith(readers)}
    assert reading == {"static.py", "theme.py"}, "only the page's own files are read"


def test_listeners_are_made_in_one_module_only() -> None:
    makers = {
        name
        for name, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword) and node.arg == "api_visibility"
    }
    assert makers == {"wiring.py"}
    assert [name for name, tree in MODULES.items() for call in calls(tree) if call == "gr.on"] == ["wiring.py"]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_never_turn_text_into_markup_or_code(path: Path) -> None:
    text = path.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")  # the name of a format, not an address
    banned = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "DOMParser", "createContextualFragment",
              "eval(", "new Function", "srcdoc", "setAttribute(\"on", "javascript:", "http://", "https://")  # fmt: skip
    assert [word for word in banned if word in text] == []


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_short_and_keep_no_prompts(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text.count("\n") <= 400
    if path.name != "storage.js":  # nobody else asks a browser that may refuse
        assert not re.search(r"(local|session)Storage(?!\.getItem\(\"latent-studio-theme\"\))", text)
    for name in re.findall(r"\bbrowser\.set\((\w+)", text):
        assert name in {"BROWSER", "LIVE", "OPEN", "SEEN", "THEME"}


def test_theme_colours_exist_in_the_stylesheet() -> None:
    css = (ASSETS / "page.css").read_text("utf-8")
    theme = make_theme()
    used = {
        name for value in vars(theme).values() if isinstance(value, str) for name in re.findall(r"--ls-[\w-]+", value)
    }
    used |= set(re.findall(r"var\((--ls-[\w-]+)", css))
    dark, light = (block for block in re.findall(r":root(?:\[data-theme=\"light\"\])? \{(.*?)\n\}", css, re.DOTALL)[:2])
    defined = set(re.findall(r"(--ls-[\w-]+):", dark))
    assert used - defined == set()
    shared = {"--ls-on-go", "--ls-r", "--ls-gap"}
    assert defined - set(re.findall(r"(--ls-[\w-]+):", light)) == shared


def test_importing_the_mount_loads_no_gradio() -> None:
    code = "import sys, studio.ui.mount; print('gradio' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
