"""Imports point one way, every public module says what it exports."""

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

import mtaio

ROOT = Path(mtaio.__file__).parent
PUBLIC = [
    name
    for _, name, _ in pkgutil.iter_modules(mtaio.__path__)
    if not name.startswith("_")
]

# Private modules, by the room that owns them: the only rooms that import them.
OWNER = {
    "_top": "__main__",
    "_app_metrics": "app",
    "_asgi": "app",
    "_asks": "app",
    "_checklist": "app",
    "_components": "app",
    "_doctor": "app",
    "_errors": "app",
    "_findings": "app",
    "_inflight": "app",
    "_lifecycle": "app",
    "_notify": "app",
    "_phases": "app",
    "_process_end": "app",
    "_reload": "app",
    "_signals": "app",
    "_tasks": "app",
    "_cache_options": "cache",
    "_single_flight": "cache",
    "_snapshot": "cache",
    "_crew": "core",
    "_executor": "core",
    "_queues": "core",
    "_stream": "core",
    "_work": "core",
    "_checks": "health",
    "_known_checks": "health",
    "_states": "health",
    "_verdict": "health",
    "_log_handler": "logging",
    "_log_json": "logging",
    "_log_logger": "logging",
    "_log_options": "logging",
    "_log_progress": "logging",
    "_alarms": "monitoring",
    "_alerts": "monitoring",
    "_loop_lag": "monitoring",
    "_probe_apps": "monitoring",
    "_probes": "monitoring",
    "_stats": "monitoring",
    "_thresholds": "monitoring",
    "_watchdog": "monitoring",
    "_concurrency": "resources",
    "_rate": "resources",
    "_timeout_group": "resources",
    "_timeouts": "resources",
    "_waiting": "resources",
}
FLOOR = {"exceptions", "_rust"}
# What composes, and over what; every other room stands on the floor alone.
OVER = {
    "core": {"resources"},
    "health": {"monitoring", "events", "resources", "cache", "logging"},
    "app": {
        "core",
        "cache",
        "config",
        "events",
        "health",
        "logging",
        "monitoring",
        "resources",
    },
}


def imported(module: str) -> set[str]:
    tree = ast.parse((ROOT / f"{module}.py").read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            found |= (
                {node.module.split(".")[0]}
                if node.module
                else {a.name for a in node.names}
            )
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names = (
                [node.module]
                if isinstance(node, ast.ImportFrom)
                else [a.name for a in node.names]
            )
            found |= {n.split(".")[1] for n in names if n and n.startswith("mtaio.")}
    return found


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_module_has_a_sorted_all_that_exists(module):
    loaded = importlib.import_module(f"mtaio.{module}")

    assert isinstance(loaded.__all__, tuple)
    assert list(loaded.__all__) == sorted(loaded.__all__)
    assert all(hasattr(loaded, name) for name in loaded.__all__)


def test_exceptions_import_nothing_of_ours():
    assert imported("exceptions") == set()


MODULES = [path.stem for path in ROOT.glob("*.py") if path.stem[:2] != "__"]


@pytest.mark.parametrize("module", [name for name in MODULES if name != "exceptions"])
def test_a_room_imports_the_floor_its_own_and_what_it_is_over(module):
    room = OWNER.get(module, module)
    own = {private for private, owner in OWNER.items() if owner == room} | {room}

    assert imported(module) <= FLOOR | own | OVER.get(room, set())


def test_the_demo_is_written_as_its_reader_would_write_it():
    sources = [path.read_text("utf-8") for path in (ROOT / "_demo").glob("*.py")]
    nodes = [node for source in sources for node in ast.walk(ast.parse(source))]
    ours = {
        node.module
        for node in nodes
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mtaio")
    }

    assert "mtaio.app" in ours
    assert ours <= {f"mtaio.{name}" for name in PUBLIC} | {"mtaio"}


def test_every_private_module_has_an_owner():
    assert {name for name in MODULES if name.startswith("_")} <= set(OWNER)
