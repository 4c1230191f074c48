"""`python -m mtaio`, also `mtaio`: see it work, run, examine or watch an application.

Exit codes of `demo` and `run` are those of `mtaio.app.ExitCode`. `doctor` exits 0 when
nothing fails, 1 when an item does, 2 when the settings are bad. `top` exits 1
when there is nothing to show.
"""

import argparse
import asyncio
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from . import __version__, _doctor, _top
from ._demo.command import demo
from ._findings import Finding, Level
from .app import Application, ExitCode
from .config import Settings
from .exceptions import MonitoringError, SettingsError, StartupError


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except SettingsError as error:
        print("bad settings:", *error.faults, sep="\n  ", file=sys.stderr)  # noqa: T201
        return ExitCode.BAD_SETTINGS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("mtaio", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    show = commands.add_parser(
        "demo", help="a service under load, and a page to watch and to break it"
    )
    show.add_argument(
        "--port", type=_port, default=0, help="for the page; by default any free one"
    )
    show.add_argument("--open", action="store_true", help="show it in the browser")
    show.set_defaults(command=lambda given: demo(given.port, open_browser=given.open))
    run = commands.add_parser("run", help="run an application until it is stopped")
    run.add_argument(
        "factory",
        type=_spelled,
        metavar="MODULE:FACTORY",
        help="a function, sync or async, that makes the Application",
    )
    run.set_defaults(command=_run)
    doctor = commands.add_parser("doctor", help="go through the deployment checklist")
    doctor.add_argument(
        "factory",
        type=_spelled,
        nargs="?",
        metavar="MODULE:FACTORY",
        help="examine this application too; it is made, not started",
    )
    doctor.add_argument("--json", action="store_true", help="for programs")
    doctor.add_argument(
        "--env", action="store_true", help="print each variable and its source instead"
    )
    doctor.set_defaults(command=_examine)
    top = commands.add_parser("top", help="show a process live, from its /metrics")
    top.add_argument("url", help="where it serves its probes: http://127.0.0.1:8080")
    top.add_argument(
        "--interval", type=float, default=1.0, help="seconds between looks"
    )
    top.add_argument("--count", type=int, help="how many looks; by default no end")
    top.add_argument(
        "--only", default="", metavar="NAME", help="metrics with this in their names"
    )
    top.set_defaults(command=_watch)
    return parser


def _port(given: str) -> int:
    if not given.isdecimal() or not 0 <= int(given) <= 65535:
        raise argparse.ArgumentTypeError(f"must be 0 to 65535, got {given!r}")
    return int(given)


def _spelled(given: str) -> str:
    module, _, name = given.partition(":")
    if not (module and name) or module.startswith("."):
        raise argparse.ArgumentTypeError(f"{given!r} is not of the form MODULE:FACTORY")
    return given


def _factory(given: str) -> Callable[[], Any]:
    """What the words name; what its module raises goes on, to show where.

    Not while the words are parsed: there a `ValueError` would be taken for theirs.
    """
    module, _, name = given.partition(":")
    sys.path.insert(0, os.getcwd())  # as `python -m` does
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if not f"{module}.".startswith(f"{error.name}."):
            raise  # one that the module itself imports
        _refuse(str(error))
    if not hasattr(found, name):
        _refuse(f"module {module!r} has no attribute {name!r}")
    factory = getattr(found, name)
    if not callable(factory):
        _refuse(f"{given} is not a function: {factory!r}")
    return factory  # type: ignore[no-any-return]  # callable, as just seen


def _refuse(why: str) -> NoReturn:
    """End as `argparse` does."""
    print(f"mtaio: error: {why}", file=sys.stderr)  # noqa: T201
    raise SystemExit(2)


def _run(options: argparse.Namespace) -> int:
    try:
        return asyncio.run(_run_application(_factory(options.factory)))
    except StartupError as error:
        print(f"not started: {error}", file=sys.stderr)  # noqa: T201
        return ExitCode.START_FAILED


async def _run_application(factory: Callable[[], Any]) -> ExitCode:
    return await (await _made(factory)).run(ends_process=True)


async def _made(factory: Callable[[], Any]) -> Application:
    made = factory()
    if inspect.isawaitable(made):
        made = await made
    if not isinstance(made, Application):
        raise SystemExit(f"the factory must make an Application, it made {made!r}")
    return made


def _examine(options: argparse.Namespace) -> int:
    if options.env:
        tell = _doctor.environment_json if options.json else _doctor.environment_text
        _show(tell(os.environ))
        Settings.from_env()
        return 0
    factory = None if options.factory is None else _factory(options.factory)
    findings = asyncio.run(_findings(factory))
    text = _doctor.as_json if options.json else _doctor.as_text
    _show(text(findings))
    return int(any(finding.level is Level.FAIL for finding in findings))


def _show(text: str) -> None:
    try:
        print(text, flush=True)  # noqa: T201
    except BrokenPipeError:  # who reads it, such as `head`, has seen enough
        # Else the interpreter's exit would complain of what is still to be written.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


async def _findings(factory: Callable[[], Any] | None) -> list[Finding]:
    settings = Settings.from_env()
    app = None if factory is None else await _made(factory)
    return await _doctor.examine(settings, app=app)


def _watch(options: argparse.Namespace) -> int:
    try:
        _top.top(
            options.url,
            interval=options.interval,
            count=options.count,
            only=options.only,
        )
    except (MonitoringError, ValueError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
