"""`cfctl config`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.conftest import Cfctl


def test_show_names_value_with_unit_and_the_layer_that_won(cfctl: Cfctl, tmp_path: Path) -> None:
    (tmp_path / "work" / "cfctl.toml").write_text('[calibrate]\nduration = "250ms"')
    lines = cfctl("config", "show", env={"CFCTL_UNIT": "us"}).stdout.splitlines()
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in lines if line}
    assert rows["calibrate.duration"].startswith("250 ms ")
    assert "work/cfctl.toml" in " ".join(lines).replace(" ", "")
    assert rows["unit"] == "us environment"
    assert rows["segments.max-age"] == "168 h default"


def test_show_as_json_holds_base_units_and_sources(cfctl: Cfctl) -> None:
    document = json.loads(cfctl("config", "show", "--json").stdout)
    assert (document["schema"], document["version"]) == ("cfctl.config", 1)
    duration = next(s for s in document["settings"] if s["key"] == "calibrate.duration")
    assert (duration["value"], duration["unit"], duration["source"]) == (100_000_000, "ns", "default")


def test_show_as_csv_and_markdown_has_a_row_per_setting(cfctl: Cfctl) -> None:
    count = len(json.loads(cfctl("config", "show", "--json").stdout)["settings"])
    assert len(cfctl("config", "show", "--format", "csv").stdout.splitlines()) == count + 1
    assert len(cfctl("config", "show", "--format", "markdown").stdout.splitlines()) == count + 2


def test_init_writes_a_file_that_path_names_and_never_overwrites_it(cfctl: Cfctl) -> None:
    written = cfctl("config", "init").stdout.strip()
    assert Path(written).is_file()
    assert cfctl("config", "path").stdout.splitlines() == [written]
    again = cfctl("config", "init")
    assert again.returncode == 3
    assert "never overwritten" in again.stderr


def test_a_broken_file_is_named_and_nothing_is_measured(cfctl: Cfctl, tmp_path: Path) -> None:
    file = tmp_path / "work" / "cfctl.toml"
    file.write_text("[check\n")
    result = cfctl("check")
    assert result.returncode == 2
    assert "work/cfctl.toml" in result.stderr
    assert result.stdout == ""


def test_a_format_in_a_file_that_does_not_exist_names_the_file(cfctl: Cfctl, tmp_path: Path) -> None:
    (tmp_path / "work" / "cfctl.toml").write_text('format = "yaml"')
    result = cfctl("config", "show")
    assert result.returncode == 2
    assert "cfctl.toml: There is no format 'yaml'" in result.stderr
