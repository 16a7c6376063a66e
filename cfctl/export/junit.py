"""JUnit XML: one test case per judgement, for the test view of a CI system."""

from __future__ import annotations

from typing import Any, Final

from cfctl.errors import InputError
from cfctl.records import Document, Judgement, Verdict
from cfctl.text import safe_text

FORMAT: Final = "junit"
MEDIA_TYPE: Final = "application/xml"


def export(document: Document) -> bytes:
    """Return the document's judgements as XML; raises InputError for one that judges nothing."""
    from junitparser import JUnitXml, TestSuite

    judgements = document.judgements()
    if judgements is None:
        raise InputError(f"{document.SCHEMA} has no JUnit form.", "It judges nothing.", "Use --format json.")
    suite: Any = TestSuite(document.SCHEMA)
    for judgement in judgements:
        suite.add_testcase(_test_case(judgement))
    xml: Any = JUnitXml()
    xml.add_testsuite(suite)
    xml.update_statistics()
    text: bytes = xml.tostring()
    return text + b"\n"


def _test_case(judgement: Judgement) -> Any:
    """Return a case: a failure, an error for what could not be judged, skipped where that counts as a pass."""
    from junitparser import Error, Failure, Skipped, TestCase

    text = safe_text(judgement.text, 2000)
    case: Any = TestCase(safe_text(judgement.name), classname=safe_text(judgement.group))
    if judgement.counts_as is Verdict.FAIL:
        case.result = [Failure(text, judgement.level.value)]
    elif judgement.counts_as is Verdict.INCONCLUSIVE:
        case.result = [Error(text, judgement.verdict.value)]
    elif judgement.verdict is Verdict.INCONCLUSIVE:
        case.result = [Skipped(text)]
    else:
        case.system_out = text
    return case
