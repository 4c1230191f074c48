"""What is shipped: a wheel that needs nothing, an sdist that builds it."""

import email
import json
import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib.metadata import distribution
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest

import test_docs

ROOT = Path(__file__).parents[1]
BIN = "Scripts" if sys.platform == "win32" else "bin"


@pytest.fixture(scope="session")
def wheel() -> Path:
    """The very wheel that the tests run against."""
    origin = json.loads(distribution("mtaio").read_text("direct_url.json") or "{}")
    path = Path(url2pathname(urlsplit(origin.get("url", "")).path))
    if path.suffix == ".whl":
        return path
    assert "CI" not in os.environ, "CI must test a wheel"
    pytest.skip("an editable install has no wheel; `make test` builds one")


@pytest.fixture(scope="session")
def sdist(tmp_path_factory) -> Path:
    """An unpacked source distribution."""
    folder = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-m", "maturin", "sdist", "--out", folder, cwd=ROOT)
    (packed,) = folder.glob("*.tar.gz")
    with tarfile.open(packed) as archive:
        archive.extractall(folder, filter="data")
    return folder / packed.name.removesuffix(".tar.gz")


def run(*command: object, cwd: Path, timeout: float = 110, **environment: str) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def metadata(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def test_the_readme_runs_from_the_wheel_in_an_empty_environment(wheel, tmp_path):
    venv.create(tmp_path / "empty", with_pip=False)
    python = tmp_path / "empty" / BIN / "python"
    run(
        *(sys.executable, "-m", "pip", "--python", python),
        *("install", "--no-index", wheel),
        cwd=tmp_path,
    )

    for number, program in enumerate(test_docs.programs(ROOT / "README.md")):
        script = tmp_path / f"readme_{number}.py"
        script.write_text(program.source, "utf-8")
        run(python, "-W", "error", script, cwd=tmp_path)

    imported = run(python, "-c", "import mtaio; print(mtaio.__file__)", cwd=tmp_path)
    assert Path(imported.strip()).is_relative_to(tmp_path)


def test_every_console_script_loads():
    scripts = distribution("mtaio").entry_points.select(group="console_scripts")

    assert all(callable(script.load()) for script in scripts)


def test_nothing_is_required_but_by_an_extra(wheel):
    told = metadata(wheel)

    assert told["Requires-Python"] == ">=3.11"
    assert all("extra ==" in need for need in told.get_all("Requires-Dist", []))
    assert set(told.get_all("Provides-Extra", [])) == {"dev", "redis", "service"}


def test_the_wheel_holds_the_package_its_types_and_one_compiled_module(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = ROOT / "python" / "mtaio"
    shipped = {".py", ".pyi", ".html", ".css", ".js", ".svg"}
    sources = {
        f"mtaio/{path.relative_to(package).as_posix()}"
        for path in package.rglob("*")
        if path.suffix in shipped
    }
    compiled = {name for name in names if re.search(r"\.(so|pyd|dylib)$", name)}

    assert sources | {"mtaio/py.typed", "mtaio/_demo/static/index.html"} <= names
    assert len(compiled) == 1
    assert {name.split("/")[0].split("-")[0] for name in names} == {"mtaio"}
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_the_sdist_holds_all_it_takes_and_nothing_more(sdist):
    held = {path.name for path in sdist.iterdir()}

    assert {"Cargo.toml", "Cargo.lock", "pyproject.toml", "README.md"} <= held
    assert {"LICENSE", "src", "python", "PKG-INFO"} <= held
    assert not list(sdist.rglob("*.so")) + list(sdist.rglob("__pycache__"))


@pytest.mark.timeout(620)
def test_the_sdist_compiles(sdist):
    # `check`, against the dependencies built for the repository itself: what can
    # break here is a missing file, and the workflow `wheels` builds it in full.
    run(
        *("cargo", "check", "--locked", "--quiet"),
        cwd=sdist,
        timeout=600,  # on a machine that compiles other things too
        CARGO_TARGET_DIR=str(ROOT / "target"),
        PYO3_PYTHON=sys.executable,
    )
