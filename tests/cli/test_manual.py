"""Man pages and completion scripts are what the commands say, and troff accepts them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from cfctl import config
from cfctl.cli import manual
from cfctl.cli.exit_codes import EXIT_CODE_HELP, WRAPPER_EXIT_CODE_HELP, ExitCode

FILES = manual.generated_files()
PAGES = manual.pages()
REMEDY = "run: python -m cfctl.cli.manual ."


@pytest.mark.parametrize("name", FILES)
def test_a_checked_in_file_is_what_the_commands_say(root: Path, name: str) -> None:
    assert (root / name).read_text(encoding="ascii") == FILES[name], REMEDY


def test_no_page_of_a_command_that_is_gone_is_left(root: Path) -> None:
    assert {f"man/{page.name}" for page in (root / "man").glob("*")} <= set(FILES), REMEDY


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_each_section_once_and_in_order(name: str) -> None:
    sections = re.findall(r"(?m)^\.SH (.*)$", PAGES[name])
    order = [
        "NAME", "SYNOPSIS", "DESCRIPTION", "ARGUMENTS", "OPTIONS", "COMMANDS", "EXIT STATUS", "ENVIRONMENT",
        "FILES", "SEE ALSO",
    ]  # fmt: skip
    assert sections == [section for section in order if section in sections]
    assert {"NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "SEE ALSO"} <= set(sections)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_a_name_line_a_text_for_each_option_and_no_markup(name: str) -> None:
    page = PAGES[name]
    summary = re.search(r"(?m)^\.SH NAME\n\S+ \\- (.+)$", page)
    assert summary is not None
    assert not summary[1].endswith((".", "..."))
    assert r"\&" not in re.findall(r"(?m)^\.TP\n.*\n(.*)$", page)
    assert not re.search(r"\[/?(bold|dim|red|green|cyan)\]", page)
    assert page.isascii()


def test_every_command_has_a_page_and_every_reference_leads_to_one() -> None:
    references = {name for page in PAGES.values() for name in re.findall(r"\\fB([a-z\\-]+)\\fR\(1\)", page)}
    assert {name.replace("\\-", "-") + ".1" for name in references} <= set(PAGES)
    assert {"cfctl.1", "cfctl-config.1", "cfctl-config-show.1", "cfctl-check.1"} <= set(PAGES)


def test_the_programs_page_names_every_setting_and_every_exit_code() -> None:
    page = PAGES["cfctl.1"]
    for setting in config.SETTINGS:
        assert manual.roff(setting.environment_name) in page
    for code in ExitCode:
        assert f"\\fB{code:d}\\fR" in page
        assert manual.roff((EXIT_CODE_HELP | WRAPPER_EXIT_CODE_HELP)[code]) in page


def test_options_show_spellings_by_length_defaults_and_no_value_for_flags() -> None:
    page = PAGES["cfctl-check.1"]
    assert "\\fB\\-o\\fR, \\fB\\-\\-output\\fR \\fIFILE\\fR\n" in page
    assert "\\fB\\-\\-json\\fR\n" in page
    assert "Measure N times and take the medians. Default: 1.\n" in page


def test_an_example_is_printed_as_it_stands() -> None:
    assert ".nf\n[targets.memory]\nmetric = \\(dqmemory_rss\\(dq" in PAGES["cfctl-check.1"]
    assert "\b" not in "".join(PAGES.values())


def test_the_pages_carry_the_date_of_the_release(root: Path) -> None:
    heading = re.search(r"(?m)^## \[([0-9.]+)\] - (\S+)$", (root / "CHANGELOG.md").read_text())
    assert heading is not None
    assert PAGES["cfctl.1"].startswith(f'.TH CFCTL 1 "{heading[2]}" "cfctl {heading[1]}"')


@pytest.mark.parametrize(
    "text", [r"a\b", "-x", ".TH x", "'quoted'", '"q"', "~^`", "a\n.SH EVIL\n'br", "ünï — ±", "\\", ""]
)
def test_troff_prints_a_text_as_it_is(text: str) -> None:
    escaped = manual.roff(text)
    assert escaped.isascii()
    assert not re.search(r"(?m)^[.']", escaped)
    if shutil.which("groff") and text.strip():
        printed = subprocess.run(
            ["groff", "-Tutf8", "-P-c"],
            input=f".nf\n{escaped}\n",
            capture_output=True,
            text=True,
            encoding="utf-8",
        )
        # A bare groff draws \\- as a minus sign; the man macros make it the ASCII one.
        assert printed.stdout.replace("\N{MINUS SIGN}", "-").split() == text.split()
        assert printed.stderr == ""


def test_generating_writes_everything_and_removes_pages_of_commands_that_are_gone(tmp_path: Path) -> None:
    (tmp_path / "man").mkdir()
    for name in ("cfctl-gone.1", "other.1"):
        (tmp_path / "man" / name).write_text("")
    assert manual.main([str(tmp_path)]) == 0
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert written == set(FILES) | {"man/other.1"}
    assert manual.main([]) == 2


@pytest.mark.system
@pytest.mark.skipif(shutil.which("man") is None, reason="man-db is not installed")
@pytest.mark.parametrize("name", PAGES)
def test_man_has_no_warning(root: Path, name: str) -> None:
    result = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(root / "man" / name)],
        capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANROFFSEQ": ""},
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.system
@pytest.mark.skipif(shutil.which("man") is None, reason="man-db is not installed")
def test_the_man_checker_finds_a_seeded_defect(tmp_path: Path) -> None:
    broken = tmp_path / "broken.1"
    broken.write_text(".TH X 1\n.SH NAME\nx \\- y\n.BOGUS\n")
    result = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(broken)],
        capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    assert "BOGUS" in result.stderr
