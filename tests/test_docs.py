"""What the documents say is true: code runs, commands and links exist.

Each Python block is a program of its own, run in an empty folder with warnings
as errors. A comment in the line before the fence says otherwise::

    <!-- doc: continue -->
    <!-- doc: SIGTERM once app.log says "started" -->

The block goes on where the one before it ended; the program runs until it is
asked to stop. Both may stand in one comment, with a comma.
"""

import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mtaio import config

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "benches").glob("*.md"),
    ]
)
LANGUAGES = {"python", "sh", "text", "toml", "yaml", "ini"}
# Commands in shell blocks that come from elsewhere, so nothing here checks them.
MARK = re.compile(
    r"<!-- doc: (?P<continue>continue)?(?:, )?"
    r'(?:SIGTERM once (?P<file>\S+) says "(?P<text>.+)")? -->'
)
FOREIGN = {"cargo", "cd", "curl", "docker", "export", "git", "kill", "source"}


@dataclass
class Program:
    """Lines of a document that run as one program, at their own line numbers."""

    document: Path
    lines: dict[int, str] = field(default_factory=dict)
    stop_when: tuple[str, str] | None = None

    def __str__(self) -> str:
        return f"{self.document.name}:{min(self.lines)}"

    @property
    def source(self) -> str:
        last = max(self.lines)
        return "\n".join(self.lines.get(n, "") for n in range(1, last + 1)) + "\n"


@dataclass
class Block:
    language: str
    first: int
    lines: list[str]
    mark: str


def blocks(document: Path) -> Iterator[Block]:
    fence: Block | None = None
    before = ""
    for number, line in enumerate(document.read_text("utf-8").splitlines(), 1):
        if fence is None and line.startswith("```"):
            fence = Block(line[3:].strip(), number + 1, [], before)
        elif fence is not None and line.startswith("```"):
            yield fence
            fence = None
        elif fence is not None:
            fence.lines.append(line)
        before = line.strip()
    assert fence is None, f"{document.name}: a fence is never closed"


def programs(document: Path) -> list[Program]:
    found: list[Program] = []
    for block in blocks(document):
        if block.language != "python":
            continue
        mark = MARK.fullmatch(block.mark)
        assert mark or "doc:" not in block.mark, f"{document.name}: {block.mark}"
        if not (mark and mark["continue"]):
            found.append(Program(document))
        found[-1].lines.update(enumerate(block.lines, block.first))
        if mark and mark["file"]:
            found[-1].stop_when = (mark["file"], mark["text"])
    return found


def commands() -> list[tuple[Path, str]]:
    return [
        (document, line)
        for document in DOCUMENTS
        for block in blocks(document)
        if block.language == "sh"
        for line in block.lines
        if line.strip() and not line.startswith(("#", " "))
    ]


PROGRAMS = [program for document in DOCUMENTS for program in programs(document)]


@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_every_python_block_runs(program, tmp_path):
    if program.stop_when and sys.platform == "win32":
        pytest.skip("no SIGTERM to another process")
    script = tmp_path / "program.py"
    script.write_text(program.source, "utf-8")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MTAIO_")}

    with subprocess.Popen(
        [sys.executable, "-W", "error", script],
        cwd=tmp_path,
        env=environment | {"PYTHONUTF8": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        try:
            if program.stop_when:
                wait_until_said(running, tmp_path / program.stop_when[0], program)
                running.send_signal(signal.SIGTERM)
            told, _ = running.communicate(timeout=60)
        finally:
            running.kill()

    assert running.returncode == 0, f"{program}:\n{told}"


def wait_until_said(
    running: "subprocess.Popen[str]", file: Path, program: Program
) -> None:
    assert program.stop_when is not None
    deadline = time.monotonic() + 30
    while not (file.exists() and program.stop_when[1] in file.read_text("utf-8")):
        assert running.poll() is None, f"{program}:\n{running.communicate()[0]}"
        assert time.monotonic() < deadline, f"{program} never said so"
        time.sleep(0.02)
    # The guide says so between `start` and `run`, and it is `run` that heeds signals.
    while sys.platform == "linux" and not heeds(running.pid, signal.SIGTERM):
        assert time.monotonic() < deadline, f"{program} never heeded SIGTERM"
        time.sleep(0.02)


def heeds(pid: int, number: int) -> bool:
    """Whether a process that runs has a handler for the signal."""
    status = Path(f"/proc/{pid}/status").read_text("utf-8")
    caught = re.search(r"SigCgt:\s*(\w+)", status)
    return not caught or bool(int(caught[1], 16) >> (number - 1) & 1)


def test_the_readme_and_the_guides_have_programs():
    told = {program.document.name for program in PROGRAMS}

    assert "README.md" in told
    assert {path.name for path in (ROOT / "docs").glob("deployment*.md")} <= told


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_fence_names_a_language_that_is_checked(document):
    assert {block.language for block in blocks(document)} <= LANGUAGES


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_to_a_file_leads_somewhere(document):
    links = r"\]\((?!https?://)([^)\s]+)\)"
    for link in re.findall(links, without_code(document)):
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document

        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def without_code(document: Path) -> str:
    return re.sub(r"(?ms)^```.*?^```$", "", document.read_text("utf-8"))


def anchors(document: Path) -> set[str]:
    headings = re.findall(r"(?m)^#+ (.+)$", without_code(document))
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in headings
    }


def test_every_make_target_that_is_named_exists():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"(?m)^([a-z][\w-]*):", makefile))
    named = {
        word
        for document in DOCUMENTS
        for word in re.findall(
            r"(?:`|^)make ([a-z][\w-]*)", document.read_text("utf-8"), re.MULTILINE
        )
    }

    assert named
    assert named <= targets


def test_every_command_is_ours_or_known_to_be_foreign():
    for document, line in commands():
        words = [word for word in line.split() if "=" not in word or "[" in word]

        assert words[0] in FOREIGN | {"make", "mtaio", "pip", "python"}, (
            f"{document.name}: {line}"
        )


def test_every_subcommand_that_is_named_exists():
    named = {
        (document.name, line, match[1])
        for document, line in commands()
        if (match := re.match(r"(?:python -m )?mtaio ([a-z]+)", line))
    }
    for document, line, subcommand in named:
        asked = [sys.executable, "-m", "mtaio", subcommand, "--help"]
        told = subprocess.run(asked, capture_output=True, text=True, timeout=60)

        assert told.returncode == 0, f"{document}: {line}\n{told.stderr}"


def test_every_extra_that_is_named_exists():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for document in DOCUMENTS:
        for named in re.findall(r"mtaio\[([a-z,]+)\]", document.read_text("utf-8")):
            assert set(named.split(",")) <= set(project["optional-dependencies"]), (
                f"{document.name}: mtaio[{named}]"
            )


def test_the_table_of_settings_is_what_the_code_reads():
    # `python .ci/settings.py` writes it anew.
    assert config.as_markdown() in (ROOT / "docs" / "deployment.md").read_text("utf-8")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_variable_that_is_named_is_read(document):
    named = set(re.findall(r"MTAIO_[A-Z_]*[A-Z]", document.read_text("utf-8")))

    assert named <= {each.name for each in config.variables()}
