"""Settings from the environment: typed, in range, every fault reported at once."""

import difflib
import logging
import os
from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from . import _rust
from .exceptions import SettingsError

__all__ = ("PREFIX", "Settings", "Variable", "as_markdown", "origins", "variables")

PREFIX = "MTAIO_"

T = TypeVar("T")
Check = Callable[[str, object], object]


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable: what `doctor` and the documentation print."""

    name: str
    default: object
    accepts: str
    meaning: str


def _whole(least: int) -> Check:
    return lambda name, value: _rust.whole(name, value, least)


def _percent(name: str, value: object) -> float:
    given = _rust.positive(name, value)
    if given > 100:
        raise ValueError(f"{name} must be a percentage, > 0 and <= 100, got {value!r}")
    return given


def _port(name: str, value: object) -> int:
    given = _rust.whole(name, value, 0)
    if given > 65535:
        raise ValueError(f"{name} must be a port, 0 to 65535, got {value!r}")
    return given


def _level(name: str, value: object) -> str:
    given = _rust.text(name, value).upper()
    known = logging.getLevelNamesMapping()
    if given not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
    return given


def _text_or_nothing(name: str, value: object) -> str:
    return "" if value == "" else _rust.text(name, value)


def _setting(
    default: T, parse: Callable[[str], T], check: Check, accepts: str, meaning: str
) -> T:
    facts = {"parse": parse, "check": check, "accepts": accepts, "meaning": meaning}
    declared: T = field(default=default, metadata=facts)
    return declared


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a deployment can set, with the deployment guide's defaults.

    Each field is read from `MTAIO_` and its name in capitals. Frozen, so it can
    be shared by threads and loops.

    Raises:
        ValueError: A value is out of range, or two of them contradict.
        TypeError: A value is of the wrong type.
    """

    max_workers: int = _setting(
        4, int, _whole(1), "int >= 1", "Workers of the task executor."
    )
    cache_ttl: float = _setting(
        300.0, float, _rust.positive, "seconds > 0", "How long a cached value lives."
    )
    cache_size: int = _setting(
        1000, int, _whole(1), "int >= 1", "Entries the cache holds at most."
    )
    log_level: str = _setting(
        "INFO", str, _level, "level name", "Least level that is logged."
    )
    log_file: str = _setting(
        "app.log", str, _rust.text, "path", "The log; its folder must exist."
    )
    log_max_bytes: int = _setting(
        10_000_000, int, _whole(0), "int >= 0", "Log size that rotates; 0 is never."
    )
    log_backup_count: int = _setting(
        5, int, _whole(0), "int >= 0", "Rotated logs that are kept."
    )
    rate_limit: float = _setting(
        100.0, float, _rust.positive, "requests/s > 0", "Requests let in a second."
    )
    burst_limit: int = _setting(
        200, int, _whole(1), "int >= 1", "Requests let in at once after a quiet time."
    )
    concurrency_limit: int = _setting(
        50, int, _whole(1), "int >= 1", "Requests worked on at the same time."
    )
    default_timeout: float = _setting(
        30.0, float, _rust.positive, "seconds > 0", "A request's time, waits included."
    )
    monitor_interval: float = _setting(
        1.0, float, _rust.positive, "seconds > 0", "Time between two samples."
    )
    cpu_threshold: float = _setting(
        80.0, float, _percent, "0 < percent <= 100", "CPU use that raises an alert."
    )
    memory_threshold: float = _setting(
        90.0, float, _percent, "0 < percent <= 100", "Memory use that raises an alert."
    )
    probe_host: str = _setting(
        "127.0.0.1", str, _rust.text, "address", "Address the probes answer on."
    )
    probe_port: int = _setting(
        0, int, _port, "0 to 65535", "Port the probes answer on; 0 is any free one."
    )
    drain_delay: float = _setting(
        0.0,
        float,
        _rust.non_negative,
        "seconds >= 0",
        "Time served on after readiness failed, for balancers to notice.",
    )
    grace_period: float = _setting(
        30.0, float, _rust.positive, "seconds > 0", "Whole time a stop may take."
    )
    settings_file: str = _setting(
        "",
        str,
        _text_or_nothing,
        "path, or empty",
        "File of NAME=value lines; the environment goes before it.",
    )
    demo_seconds: float = _setting(
        0.0, float, _rust.non_negative, "seconds >= 0", "Length of the demo; 0: no end."
    )

    def __post_init__(self) -> None:
        for each in fields(self):
            value = each.metadata["check"](each.name, getattr(self, each.name))
            object.__setattr__(self, each.name, value)
        if fault := _contradiction(vars(self), str):
            raise ValueError(fault)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> "Settings":
        """Read every setting from `environ`, by default the process's own.

        What it doesn't set is read from the file that `MTAIO_SETTINGS_FILE`
        names, if any: that can be changed and read anew, as at a reload.
        A name that starts with `MTAIO_`, is none of ours and looks like one of
        ours is a fault too: a typo must not pass for the default.

        Raises:
            SettingsError: Something is wrong; `faults` has one sentence for each.
        """
        environ = os.environ if environ is None else environ
        from_file, faults = _settings_file(environ)
        source = ChainMap(dict(environ), from_file)
        values: dict[str, Any] = {}
        for each in fields(cls):
            try:
                values[each.name] = _read(each, source)
            except (TypeError, ValueError) as fault:
                faults.append(str(fault))
        faults += _typos(source)
        if not faults and (conflict := _contradiction(values, _variable)):
            faults.append(conflict)
        if faults:
            raise SettingsError(faults)
        return cls(**values)


def variables() -> tuple[Variable, ...]:
    """Every variable `Settings.from_env` reads, in its order."""
    return tuple(
        Variable(
            _variable(each.name),
            each.default,
            each.metadata["accepts"],
            each.metadata["meaning"],
        )
        for each in fields(Settings)
    )


def origins(environ: Mapping[str, str]) -> list[tuple[Variable, str, str]]:
    """Each variable, its text, and what sets it: `environment`, a file, `default`."""
    from_file, _ = _settings_file(environ)
    file = environ.get(PREFIX + "SETTINGS_FILE", "")
    found = []
    for variable in variables():
        if (text := environ.get(variable.name)) is not None:
            found.append((variable, text, "environment"))
        elif (text := from_file.get(variable.name)) is not None:
            found.append((variable, text, file))
        else:
            found.append((variable, str(variable.default), "default"))
    return found


def as_markdown() -> str:
    """The table that `.ci/settings.py` writes into the docs, one row a variable."""
    rows = [
        f"| `{each.name}` | `{each.default}` | {each.accepts} | {each.meaning} |"
        for each in variables()
    ]
    head = ["| variable | default | accepts | meaning |", "|---|---|---|---|"]
    return "\n".join(head + rows) + "\n"


def _variable(name: str) -> str:
    return PREFIX + name.upper()


def _settings_file(environ: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """What the settings file sets, and the faults of the file."""
    path = environ.get(PREFIX + "SETTINGS_FILE")
    if not path:
        return {}, []
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        return {}, [f"{PREFIX}SETTINGS_FILE must name a readable file: {error}"]
    known = {variable.name for variable in variables()}
    values: dict[str, str] = {}
    faults: list[str] = []
    for number, line in enumerate(lines, 1):
        name, is_pair, value = (part.strip() for part in line.partition("="))
        if not name or name.startswith("#"):
            continue
        if is_pair and name in known:
            values[name] = value.strip("\"'")
            continue
        # The name alone: other services' secrets may stand in the file.
        got = repr(name) if is_pair else "a line without ="
        faults.append(f"{path}:{number} must set a known variable, got {got}")
    return values, faults


def _read(setting: "Field[Any]", source: Mapping[str, str]) -> object:
    name = _variable(setting.name)
    text = source.get(name)
    if text is None:
        return setting.default
    try:
        value = setting.metadata["parse"](text.strip())
    except ValueError:
        value = text  # the check below refuses it, and says what is accepted
    return setting.metadata["check"](name, value)


def _contradiction(
    values: Mapping[str, Any], spelled: Callable[[str], str]
) -> str | None:
    if values["drain_delay"] < values["grace_period"]:
        return None
    return (
        f"{spelled('drain_delay')} must be below {spelled('grace_period')}, "
        f"got {values['drain_delay']} and {values['grace_period']}"
    )


def _typos(source: Mapping[str, str]) -> list[str]:
    known = [_variable(each.name) for each in fields(Settings)]
    strange = sorted(n for n in source if n.startswith(PREFIX) and n not in known)
    near = {n: difflib.get_close_matches(n, known, n=1, cutoff=0.85) for n in strange}
    return [
        f"{name} is unknown, did you mean {match[0]}?"
        for name, match in near.items()
        if match
    ]
