"""The diagnoses of the complete hosts as JSON and as text; `python -m tests.hosts.golden` writes them anew."""

from __future__ import annotations

import io
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl.cli.output import make_console
from cfctl.diagnose.run import Request, diagnose
from cfctl.records import to_plain
from cfctl.render.diagnosis import render, render_all
from tests.hosts.fake_host import FakeHost

if TYPE_CHECKING:
    from cfctl.diagnose.diagnosis import Diagnosis

GOLDEN = Path(__file__).parent.parent / "golden" / "diagnose"
# Each host with the process that is its target, if it has one.
COMPLETE_HOSTS = {
    "bare_tuned": 4242, "bare_default": None, "kvm_guest": None, "docker_quota": None, "arm64_server": None,
    "gvisor": None, "empty": None,
}  # fmt: skip


# The text of a check that is the same on every host.
_CONSTANT = ("title", "why", "threshold")


def outputs(name: str, directory: Path) -> dict[str, str]:
    """Return the file names and contents of one host's goldens."""
    root = FakeHost.load(name).build(directory)
    request = Request(sysroot=str(root), pid=COMPLETE_HOSTS[name])
    diagnosis = replace(diagnose(request), sysroot="SYSROOT")
    stream = io.StringIO()
    show = render if name == "kvm_guest" else render_all
    show(diagnosis, make_console(stream, "never"), None)
    return {f"{name}.json": digest(diagnosis), f"{name}.txt": stream.getvalue()}


def digest(diagnosis: Diagnosis) -> str:
    """Return a diagnosis as JSON with one line a check, without what is the same on every host."""
    document = to_plain(diagnosis)
    lines = []
    for check in document.pop("checks"):
        varying = {key: value for key, value in check.items() if key not in _CONSTANT}
        lines.append(json.dumps(varying, ensure_ascii=False))
    head = json.dumps(document, indent=1, ensure_ascii=False).removesuffix("\n}")
    return f'{head},\n "checks": [\n' + ",\n".join(lines) + "\n]}\n"


def main() -> None:
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for name in COMPLETE_HOSTS:
        with tempfile.TemporaryDirectory() as directory:
            for file, text in outputs(name, Path(directory)).items():
                (GOLDEN / file).write_text(text)


if __name__ == "__main__":
    main()
