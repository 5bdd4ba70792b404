"""Settings: precedence, damaged files, values that are not possible."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from studio.errors import SettingsError, StorageError
from studio.settings import Settings, load_settings, store_settings, updated


def test_command_line_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({"port": 1111, "default_steps": 11, "theme": "light"}))
    settings, notes = load_settings(file, {"STUDIO_PORT": "2222", "STUDIO_DEFAULT_STEPS": "22"}, {"port": 3333})
    assert (settings.port, settings.default_steps, settings.theme, settings.default_cfg_scale) == (
        3333,
        22,
        "light",
        7.0,
    )
    assert notes == []
    assert "port" in settings.model_fields_set
    assert "host" not in settings.model_fields_set


@pytest.mark.parametrize("text", ["{", '{"port": 1', "[1, 2]", "\x00\xff"])
def test_damaged_file_is_kept_aside_and_defaults_are_used(tmp_path: Path, text: str) -> None:
    file = tmp_path / "settings.json"
    file.write_bytes(text.encode("latin-1"))
    settings, notes = load_settings(file, {}, {})
    assert settings == Settings()
    assert not file.exists()
    assert (tmp_path / "settings.json.bad-1").read_bytes() == text.encode("latin-1")
    assert "damaged" in notes[0]


def test_one_bad_value_in_the_file_costs_only_itself(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({"default_steps": 100000, "theme": "light", "of_a_newer_version": 1}))
    settings, notes = load_settings(file, {}, {})
    assert settings.default_steps == 20
    assert settings.theme == "light"
    assert "default_steps" in notes[0]
    assert "100000" in notes[0]


def test_bad_value_from_the_outside_names_field_value_and_bound(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"port = '99999' .*65535"):
        load_settings(tmp_path / "none.json", {"STUDIO_PORT": "99999"}, {})
    with pytest.raises(SettingsError, match="theme"):
        updated(Settings(), {"theme": "pink"})


def test_store_merges_and_keeps_unknown_keys(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({"of_a_newer_version": 1, "theme": "dark"}))
    store_settings(file, {"theme": "light"})
    assert json.loads(file.read_text()) == {"of_a_newer_version": 1, "theme": "light"}


def test_store_on_an_impossible_path_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot be written"):
        store_settings(tmp_path / "file" / "settings.json", {"theme": "light"})


def test_every_setting_has_help_group_and_door() -> None:
    for name, field in Settings.model_fields.items():
        extra = field.json_schema_extra
        assert field.description, name
        assert isinstance(extra, dict), name
        assert {"group", "http"} <= set(extra), name
