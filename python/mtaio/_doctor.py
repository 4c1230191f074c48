"""The deployment checklist, gone through by a program, and its report."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from . import _checklist, config
from ._findings import Finding, Level, Question, masked
from .config import Settings
from .monitoring import ResourceMonitor

if TYPE_CHECKING:
    from .app import Application


async def examine(
    settings: Settings,
    environ: Mapping[str, str] | None = None,
    app: "Application | None" = None,
) -> list[Finding]:
    """Go through the checklist; takes about half a second for the CPU's figures.

    Args:
        settings: What is examined, on this machine.
        environ: By default the process's own.
        app: Examined too, if given; not started.
    """
    environ = os.environ if environ is None else environ
    async with ResourceMonitor() as monitor:
        stats = await monitor.get_current_stats()
    matter = _checklist.Matter(settings, stats, environ, app)
    found = [f for check in _checklist.CHECKS for f in check(matter)]
    questions = list(Question)
    return sorted(found, key=lambda finding: questions.index(finding.question))


def as_text(findings: list[Finding]) -> str:
    """The groups, their questions, and one line a finding."""
    return "\n".join(_lines(findings))


def _lines(findings: list[Finding]) -> Iterator[str]:
    group = question = None
    for finding in findings:
        if finding.question.group != group:
            group = finding.question.group
            yield group
        if finding.question is not question:
            question = finding.question
            yield f"  {question.text}"
        yield f"    {finding.level:4}  {finding.item}: {finding.detail}"
    counts = {level: sum(f.level is level for f in findings) for level in Level}
    yield ", ".join(f"{count} {level}" for level, count in counts.items())


def as_json(findings: list[Finding]) -> str:
    """For programs: objects of `group`, `question`, `item`, `level` and `detail`."""
    return json.dumps(
        [
            {"group": f.question.group} | asdict(f) | {"question": f.question.text}
            for f in findings
        ],
        indent=2,
    )


def environment_text(environ: Mapping[str, str]) -> str:
    """Each variable, its value and what set it, one a line."""
    return "\n".join(
        f"{each['name']}={each['value']}  ({each['source']}; {each['accepts']})"
        for each in _environment(environ)
    )


def environment_json(environ: Mapping[str, str]) -> str:
    """For programs: objects of `name`, `value`, `source` and `accepts`."""
    return json.dumps(list(_environment(environ)), indent=2)


def _environment(environ: Mapping[str, str]) -> Iterator[dict[str, str]]:
    for variable, value, source in config.origins(environ):
        yield {
            "name": variable.name,
            "value": masked(variable.name, value),
            "source": source,
            "accepts": variable.accepts,
        }
