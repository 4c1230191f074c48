"""The core keeps its border: where PyO3 and `unsafe` may be, how long a file is."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUST = sorted((ROOT / "src").rglob("*.rs"))
SUFFIXES = {".py", ".html", ".css", ".js"}
PACKAGE = (ROOT / "python" / "mtaio").rglob("*")
SOURCES = [*RUST, *(path for path in PACKAGE if path.suffix in SUFFIXES)]
LONGEST = 500


def shipped(path: Path) -> str:
    """The file without its unit tests, which stand at the end."""
    return path.read_text("utf-8").partition("\n#[cfg(test)]\nmod tests")[0]


def code(path: Path) -> str:
    return re.sub(r"(?m)//.*$", "", shipped(path))


def test_only_the_bindings_name_pyo3():
    named = [path for path in RUST if re.search(r"\bpyo3\b", code(path))]

    assert named
    assert all("bindings" in path.parts for path in named)


def test_every_module_with_unsafe_is_listed_in_lib():
    written = re.findall(r"`([\w:]+)`", (ROOT / "src" / "lib.rs").read_text("utf-8"))
    listed = {name.split("::")[-1] for name in written}
    unsafe = re.compile(r"\bunsafe (\{|fn|impl|extern)")

    assert {path.stem for path in RUST if unsafe.search(code(path))} <= listed


def test_no_file_is_longer_than_one_reads_at_once():
    code = [path for path in SOURCES if path.name != "tests.rs"]
    lengths = {str(path): len(shipped(path).splitlines()) for path in code}

    assert {name: n for name, n in lengths.items() if n > LONGEST} == {}
