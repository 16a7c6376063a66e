"""Settings: which layer wins, and what is said of a setting that can not be used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cfctl import config, paths
from cfctl.errors import ConfigError, StateError

LAYERS = ("default", "user", "project", "environment")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    directory = tmp_path / "project"
    directory.mkdir()
    return directory


def write_user_file(text: str) -> Path:
    file = paths.user_config_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


@pytest.mark.parametrize("highest", range(4))
def test_each_layer_wins_over_those_below_it(
    project: Path, monkeypatch: pytest.MonkeyPatch, highest: int
) -> None:
    expected, source = "auto", "default"
    if highest >= 1:
        expected, source = "s", str(write_user_file('unit = "s"'))
    if highest >= 2:
        (project / "cfctl.toml").write_text('unit = "ms"')
        expected, source = "ms", str(project / "cfctl.toml")
    if highest >= 3:
        monkeypatch.setenv("CFCTL_UNIT", "us")
        expected, source = "us", "environment"
    resolved = config.load(project).resolved["unit"]
    assert (resolved.value, resolved.source) == (expected, source), LAYERS[highest]


def test_the_nearest_project_file_upwards_is_taken_and_the_others_are_not_read(project: Path) -> None:
    deep = project / "a" / "b"
    deep.mkdir(parents=True)
    (project / "cfctl.toml").write_text("this is no TOML")
    (project / "a" / "pyproject.toml").write_text('[tool.cfctl]\nunit = "us"')
    settings = config.load(deep)
    assert settings.project_file == project / "a" / "pyproject.toml"
    assert settings.get("unit") == "us"


def test_a_pyproject_of_another_tool_or_a_broken_one_is_passed_by(project: Path) -> None:
    deep = project / "a"
    deep.mkdir()
    (project / "cfctl.toml").write_text('unit = "us"')
    for text in ("[tool.ruff]", "no TOML", 'tool = "x"', '[tool]\ncfctl = "x"'):
        (deep / "pyproject.toml").write_text(text)
        assert config.find_project_file(deep) == project / "cfctl.toml"


def test_cfctl_toml_goes_before_pyproject_in_the_same_directory(project: Path) -> None:
    (project / "pyproject.toml").write_text('[tool.cfctl]\nunit = "us"')
    (project / "cfctl.toml").write_text('unit = "ms"')
    assert config.load(project).get("unit") == "ms"


@pytest.mark.parametrize(
    ("text", "in_message"),
    [
        ('untt = "s"', "Is 'unit' meant?"),
        ("[calibrate]\nduraton = 1", "Is 'calibrate.duration' meant?"),
        ("[nothing]", "unknown setting 'nothing'"),
        ("unit = 5", "unit can not be used"),
        ('[calibrate]\nduration = "3 parsecs"', "calibrate.duration can not be used"),
        ("[calibrate]\nduration = true", "calibrate.duration can not be used"),
        ("[calibrate]\nduration = -1", "calibrate.duration can not be used"),
        ("[calibrate]\nduration = inf", "calibrate.duration can not be used"),
        ('[calibrate]\nsnap = "perhaps"', "calibrate.snap can not be used"),
        ("unit = [", "no valid TOML"),
        ("a = " + "[" * 50_000, "no valid TOML"),
    ],
)
def test_a_key_or_value_that_can_not_be_used_names_its_file(
    project: Path, text: str, in_message: str
) -> None:
    file = project / "cfctl.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        config.load(project)
    assert str(file) in caught.value.what
    assert in_message in str(caught.value)


def test_a_bad_value_in_the_environment_names_its_variable(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CFCTL_CALIBRATE_DURATION", "long")
    with pytest.raises(ConfigError, match="CFCTL_CALIBRATE_DURATION"):
        config.load(project)


def test_binary_and_oversized_files_are_refused(project: Path) -> None:
    file = project / "cfctl.toml"
    for data in (b"\xff\xfe\x00", b"#" * (config.MAX_CONFIG_BYTES + 1)):
        file.write_bytes(data)
        with pytest.raises(ConfigError, match=str(file)):
            config.load(project)
        config.load.cache_clear()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_project_file_is_an_error_that_names_it(project: Path) -> None:
    file = project / "cfctl.toml"
    file.write_text("")
    file.chmod(0)
    with pytest.raises(ConfigError, match="Permission denied"):
        config.load(project)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_home_that_is_closed_to_this_user_holds_no_settings(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = project / "closed"
    closed.mkdir()
    closed.chmod(0)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(closed))
    assert config.load(project).resolved["unit"].source == "default"


def test_numbers_of_a_file_are_seconds_and_texts_carry_their_unit(project: Path) -> None:
    (project / "cfctl.toml").write_text('[calibrate]\nduration = 0.5\nwatch-interval = "2 min"')
    settings = config.load(project)
    assert settings.get("calibrate.duration") == 500_000_000
    assert settings.get("calibrate.watch-interval") == 120 * 10**9


def test_the_tables_of_a_domain_are_handed_on_lowest_layer_first(project: Path) -> None:
    user = write_user_file("[targets]\na = 1")
    (project / "cfctl.toml").write_text("[targets]\nb = 2")
    assert config.load(project).foreign == (
        (str(user), {"targets": {"a": 1}}),
        (str(project / "cfctl.toml"), {"targets": {"b": 2}}),
    )


def test_the_default_file_changes_nothing_and_each_line_of_it_can_be_uncommented(tmp_path: Path) -> None:
    file = paths.user_config_file()
    config.write_default(file)
    assert {r.source for r in config.load(tmp_path).resolved.values()} == {"default"}
    config.load.cache_clear()
    lines = file.read_text().splitlines()
    uncommented = [line.removeprefix("# ") if " = " in line else line for line in lines]
    file.write_text("\n".join(uncommented))
    resolved = config.load(tmp_path).resolved
    assert {r.source for r in resolved.values()} == {str(file)}
    assert all(r.value == r.setting.default for r in resolved.values())


def test_the_default_file_never_overwrites_one(tmp_path: Path) -> None:
    file = write_user_file('unit = "s"')
    with pytest.raises(StateError, match="exists"):
        config.write_default(file)
    assert file.read_text() == 'unit = "s"'


def test_settings_are_declared_once_with_an_environment_name_of_their_own() -> None:
    names = [setting.environment_name for setting in config.SETTINGS]
    assert len(set(names)) == len(names)
    assert "CFCTL_CALIBRATE_WATCH_INTERVAL" in names
    assert all(setting.help for setting in config.SETTINGS)


def test_every_default_is_what_its_own_reader_makes_of_its_shown_form() -> None:
    for setting in config.SETTINGS:
        shown = config.shown(setting, setting.default)
        assert setting.read(shown) == setting.default, setting.key
