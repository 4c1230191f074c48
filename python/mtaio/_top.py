"""`mtaio top`: the metrics and probes of a running process, live in a terminal.

Needs `rich` and `prometheus-client`, which the extra `service` brings.
"""

import contextlib
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from http.client import HTTPException
from importlib import import_module
from typing import TYPE_CHECKING, TextIO
from urllib.parse import urlsplit

from . import _rust
from .exceptions import MonitoringError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = ("top",)

_PROBES = ("livez", "readyz", "startupz")
_ACCEPT = "application/openmetrics-text; version=1.0.0; q=1, text/plain; q=0.5"
# A page this long is no page of metrics; read no further.
_MOST_BYTES = 16 * 1024 * 1024
_STEPS = ("", "K", "M", "G", "T", "P")

Key = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True)
class Row:
    """One series: what it is called and what it held."""

    family: str
    kind: str
    unit: str
    name: str
    labels: tuple[tuple[str, str], ...]
    value: float

    @property
    def key(self) -> Key:
        """What finds the same series in another page."""
        return self.name, self.labels


@dataclass(frozen=True)
class Page:
    """What one look at a process gave."""

    at: float
    rows: tuple[Row, ...] = ()
    probes: dict[str, int] = field(default_factory=dict)


def top(
    url: str,
    *,
    interval: float = 1.0,
    count: int | None = None,
    only: str = "",
    file: TextIO | None = None,
) -> None:
    """Show a process until Ctrl-C, from its `/metrics` and probes. Blocks.

    Counters are shown with their rate, histograms and summaries by their
    quantiles, count and rate. On a terminal the view is redrawn in place, as much
    of it as fits; elsewhere, and with `count`, one page follows the other.

    Args:
        url: Where the process serves its probes, such as
            `http://127.0.0.1:8080`, with or without `/metrics`.
        interval: Seconds between two looks.
        count: How many looks; None goes on.
        only: Show only metrics with this in their names.
        file: Written to instead of standard output.

    Raises:
        ValueError: `url` is no http or https address.
        MonitoringError: The first look failed, or an extra is not installed.
    """
    _rust.positive("interval", interval)
    if count is not None:
        _rust.whole("count", count)
    where = _where(url)
    console = _console(file)
    with contextlib.suppress(KeyboardInterrupt):
        first = look(where)
        # So that all is imported: CPython ends by the signal, though it is caught,
        # if it came amid text that is executed, as the import of a dataclass does.
        console.render_lines(_view(where, first, None, only))
        with _display(console, in_place=count is None) as show:
            # A loop right here would lose an interrupt at the end of its turn, for
            # which CPython (3.13.0) enters no handler.
            _follow(
                first,
                again=lambda last: _look_again(where, last),
                show=lambda now, before: show(_view(where, now, before, only)),
                interval=interval,
                count=count,
            )


def _follow(
    now: Page,
    *,
    again: Callable[[Page], Page],
    show: Callable[[Page, Page | None], None],
    interval: float,
    count: int | None,
) -> None:
    show(now, None)
    looks = 1
    while count is None or looks < count:
        time.sleep(interval)
        before, now = now, again(now)
        show(now, before)
        looks += 1


def look(where: str) -> Page:
    """Fetch one page, or raise `MonitoringError` saying what went wrong."""
    try:
        status, text = _fetch(f"{where}/metrics")
        if status != 200:
            raise MonitoringError(f"{where}/metrics answers {status}")
        probes = {name: _fetch(f"{where}/{name}")[0] for name in _PROBES}
        return Page(time.monotonic(), tuple(_rows(text)), probes)
    except (OSError, ValueError, HTTPException) as error:
        told = str(error) or type(error).__name__
        raise MonitoringError(f"no metrics from {where}: {told}") from error


def _look_again(where: str, last: Page) -> Page:
    """A process that went away is shown as gone, not as an error."""
    try:
        return look(where)
    except MonitoringError:
        # At the time its figures are of, by which rates are reckoned on return.
        return replace(last, probes={})


def _where(url: str) -> str:
    wrong = f"url must be like http://127.0.0.1:8080, got {url!r}"
    try:
        parts = urlsplit(_rust.text("url", url))
        named = parts.hostname and parts.port != 0
    except ValueError as error:  # a port that is none, a bracket left open
        raise ValueError(f"{wrong}: {error}") from error
    if parts.scheme not in {"http", "https"} or not named:
        raise ValueError(wrong)
    return url.removesuffix("/").removesuffix("/metrics").removesuffix("/")


def _fetch(url: str) -> tuple[int, str]:
    request = urllib.request.Request(url, headers={"accept": _ACCEPT})  # noqa: S310 - checked by `_where`
    try:
        with urllib.request.urlopen(request, timeout=5.0) as answer:  # noqa: S310
            text = answer.read(_MOST_BYTES).decode()
            if answer.length:
                raise ValueError(f"{answer.length} bytes of {url} are missing")
            return answer.status, text
    except urllib.error.HTTPError as error:
        with error:
            return error.code, ""


def _rows(text: str) -> Iterator[Row]:
    """Read either text format; a broken page is a `ValueError`."""
    newer = text.endswith("# EOF\n")
    try:
        parser = import_module(f"prometheus_client{'.openmetrics' * newer}.parser")
    except ImportError as error:
        raise MonitoringError(_MISSING) from error
    for family in parser.text_string_to_metric_families(text):
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            yield Row(
                family.name, family.type, family.unit, sample.name, labels, sample.value
            )


_MISSING = "mtaio top needs rich and prometheus-client: pip install 'mtaio[service]'"


def _console(file: TextIO | None) -> "Console":
    try:
        from rich.console import Console  # noqa: PLC0415 - optional
    except ImportError as error:
        raise MonitoringError(_MISSING) from error
    return Console(file=file)


@contextlib.contextmanager
def _display(
    console: "Console", *, in_place: bool
) -> Iterator[Callable[["RenderableType"], None]]:
    """Give what shows a view: on the terminal's other screen, or page by page."""
    if not (in_place and console.is_terminal):
        yield console.print
        return
    try:
        console.set_alt_screen(True)
        console.show_cursor(False)
        yield lambda view: console.update_screen(_fitted(console, view))
    finally:
        console.set_alt_screen(False)
        console.show_cursor(True)


def _fitted(console: "Console", view: "RenderableType") -> "RenderableType":
    """As much as the terminal shows at this moment, and a word on the rest."""
    from rich.console import Group  # noqa: PLC0415 - optional
    from rich.segment import SegmentLines  # noqa: PLC0415 - optional
    from rich.text import Text  # noqa: PLC0415 - optional

    rendered = console.render_lines(view, console.options.update(height=None))
    room = console.height - 1
    if len(rendered) <= room:
        return view
    more = Text("… and more: a taller window or --only NAME shows it", style="dim")
    more.truncate(console.width)
    return Group(SegmentLines(rendered[:room], new_lines=True), more)


def _view(where: str, now: Page, before: Page | None, only: str) -> "RenderableType":
    from rich import box  # noqa: PLC0415 - optional
    from rich.table import Table  # noqa: PLC0415 - optional
    from rich.text import Text  # noqa: PLC0415 - optional

    title = Text.assemble(f"{where}  ", *_verdicts(now), overflow="fold")
    table = Table(
        title=title,
        title_justify="left",
        expand=True,
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("metric", overflow="fold")
    table.add_column("value", justify="right", overflow="fold")
    table.add_column("per second", justify="right", overflow="fold")
    shown = replace(now, rows=tuple(row for row in now.rows if only in row.family))
    for name, labels, value, rate in lines(shown, before):
        series = f"{name or ' '} {labels}".rstrip()
        # As text: a label may hold what looks like markup.
        table.add_row(Text(series), Text(value), Text(rate))
    return table


def _verdicts(page: Page) -> Iterable[tuple[str, str]]:
    if not page.probes:
        return [("does not answer", "bold red")]
    return [
        (f"{name} ", "green" if status == 200 else "bold red")
        for name, status in page.probes.items()
    ]


def lines(now: Page, before: Page | None) -> Iterator[tuple[str, str, str, str]]:
    """Yield a line per series worth showing: metric, labels, value, rate."""
    last = {} if before is None else {row.key: row.value for row in before.rows}
    seconds = 0.0 if before is None else now.at - before.at
    family = None
    for row in now.rows:
        if row.name.endswith(("_bucket", "_created")):
            continue
        shown = "" if row.family == family else row.family
        family = row.family
        labels = " ".join(f"{name}={value}" for name, value in row.labels)
        yield (
            shown,
            labels,
            _part(row) + figure(row.value, row.unit, row.name),
            _rate(row, last.get(row.key), seconds),
        )


def _part(row: Row) -> str:
    """Name the part of a summary or histogram."""
    for suffix in ("_count", "_sum"):
        if row.kind in {"summary", "histogram"} and row.name.endswith(suffix):
            return f"{suffix[1:]} "
    return ""


def _rate(row: Row, last: float | None, seconds: float) -> str:
    grows = row.kind == "counter" or row.name.endswith(("_count", "_sum"))
    if not grows or last is None or seconds <= 0 or row.value < last:
        return ""  # no counter, or the process started again
    return figure((row.value - last) / seconds, row.unit, row.name)


def figure(value: float, unit: str, name: str) -> str:
    """Write a figure as people read it; a count has no unit."""
    unit = "" if name.endswith("_count") else unit
    if unit == "bytes" and abs(value) >= 1024:
        step = 0
        while abs(value) >= 1024 and step < len(_STEPS) - 1:
            value, step = value / 1024, step + 1
        return f"{value:.1f} {_STEPS[step]}iB"
    if unit == "seconds" and 0 < abs(value) < 1:
        return f"{value * 1000:.3g} ms"
    if unit in {"ratio", "ratios"}:
        return f"{value:.1%}"
    if unit == "percent":
        return f"{value:.1f}%"
    text = f"{value:,.6g}" if abs(value) < 1e6 else f"{value:,.0f}"
    return f"{text} {unit}".rstrip()
