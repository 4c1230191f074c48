"""What Rust formats is byte for byte what the standard library does."""

import copy
import logging
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtaio.logging import AsyncFileHandler

FORMATS = [
    ("%", "%(asctime)s - %(name)s - %(levelname)s - %(message)s"),
    ("%", "%(message)s"),
    ("%", "%(levelname)-8s|%(name)10s|%(lineno)05d|%(lineno)-5d|%(message).20s"),
    ("%", "%(created)f %(msecs)03d %(msecs)d %(process)d %(thread)d %(created).3f"),
    ("%", "100%% %(filename)s:%(lineno)s %(funcName)s %(threadName)s %(taskName)s"),
    ("%", "%(levelno)s %(pathname)s %(module)s %(processName)s %(relativeCreated)d"),
    ("%", "%(user)s %(message)s"),
    ("%", "%(message)-30s|%(message)5.3s|"),
    ("{", "{asctime} {name:>12} {levelname:<8} {lineno:5d} {lineno} {{{message}}}"),
    ("{", "{created:.3f} {process} {created} {message:20s}|{msecs:03.0f}"),
    ("$", "$asctime $name ${levelname} $lineno $$ $message"),
]


def record(msg, args, name="app", level=logging.INFO, **extra):
    made = logging.LogRecord(name, level, "/srv/app.py", 12, msg, args, None, "main")
    made.__dict__.update({"taskName": None, "user": "ann"} | extra)
    return made


@pytest.fixture
def handler(tmp_path):
    made = AsyncFileHandler(tmp_path / "app.txt")
    yield made
    made.close()


def written(handler, formatter, *records):
    with open(handler.baseFilename, "rb") as file:
        file.seek(0, 2)
        handler.setFormatter(formatter)
        for each in records:
            handler.handle(each)
        handler.flush()
        return file.read()


def expected(formatter, *records):
    lines = [formatter.format(copy.copy(each)) + "\n" for each in records]
    return "".join(lines).encode("utf-8", "backslashreplace")


texts = st.text(st.characters(codec="utf-8"), max_size=40).map(
    lambda text: text.replace("%", "percent")
)
values = st.one_of(
    st.integers(), st.floats(), st.text(max_size=9), st.none(), st.lists(st.integers())
)


@settings(max_examples=60, deadline=None)
@given(
    style=st.sampled_from(FORMATS),
    message=texts,
    args=st.lists(values, max_size=3),
    name=st.text(max_size=12),
    level=st.sampled_from([10, 20, 30, 40, 50, 15]),
    created=st.floats(0, 4e9),
)
def test_generated_records_come_out_the_same(
    tmp_path_factory, style, message, args, name, level, created
):
    formatter = logging.Formatter(style[1], style=style[0])
    made = record(message + " %s" * len(args), tuple(args), name, level)
    made.created, made.msecs = created, float(int(created % 1 * 1000))
    handler = AsyncFileHandler(tmp_path_factory.mktemp("log") / "app.txt")

    try:
        assert written(handler, formatter, made) == expected(formatter, made)
    finally:
        handler.close()


@pytest.mark.parametrize(("style", "text"), FORMATS)
def test_a_plain_record_never_reaches_pythons_formatter(
    handler, style, text, monkeypatch
):
    formatter = logging.Formatter(text, style=style)
    made = record("hello %s %d", ("you", 3))
    same = expected(formatter, made)

    def refuse(self, record):
        raise AssertionError("formatted in Python")

    monkeypatch.setattr(logging.Formatter, "format", refuse)

    assert written(handler, formatter, made) == same


@pytest.mark.parametrize(
    ("msg", "args"),
    [
        ("%(a)s", ({"a": 1},)),
        (Exception("as message"), ()),
        ("no args %s", ()),
        ("%r %5.1f %x", ("a\n", 2.5, 255)),
        ("日本語 %s", ("です",)),
        ("\udcff surrogate", ()),
        ("nul \x00 and bell \x07", ()),
        ("", ()),
        (12, ()),
    ],
)
def test_odd_messages_come_out_the_same(handler, msg, args):
    formatter = logging.Formatter(FORMATS[0][1])

    made = record(msg, args)
    assert written(handler, formatter, made) == expected(formatter, made)


def test_exceptions_and_stacks_are_pythons_and_the_same(handler):
    try:
        raise ValueError("odd")
    except ValueError:
        info = sys.exc_info()
    failed = record("failed", ())
    failed.exc_info = info
    stacked = record("stacked", ())
    stacked.stack_info = "Stack:\n  here"
    formatter = logging.Formatter(FORMATS[0][1])

    assert written(handler, formatter, failed, stacked) == expected(
        formatter, failed, stacked
    )


@pytest.mark.parametrize(
    "change",
    [
        {"converter": time.gmtime},
        {"datefmt": "%H:%M"},
        {"default_msec_format": "%s.%03d"},
        {"default_msec_format": None},
        {"default_msec_format": "%s,%04d"},
        {"default_time_format": "%Y"},
        {"formatTime": lambda record, datefmt=None: "never"},
    ],
)
def test_a_formatters_settings_are_heeded(handler, change):
    formatter = logging.Formatter("%(asctime)s %(message)s")
    for name, value in change.items():
        setattr(formatter, name, value)
    made = [record("a", ()), record("b", ())]

    assert written(handler, formatter, *made) == expected(formatter, *made)


def test_defaults_fill_in(handler):
    formatter = logging.Formatter(
        "%(message)s %(absent)s", defaults={"absent": "default"}
    )
    made = record("a", ())

    assert written(handler, formatter, made) == b"a default\n"


def test_a_field_the_record_lacks_is_the_lines_fault(handler, capsys):
    formatter = logging.Formatter("%(absent)s %(message)s")

    line = written(handler, formatter, record("hello", ()))

    assert b"hello" in line
    assert b"not formatted: ValueError" in line
    assert "--- Logging error ---" in capsys.readouterr().err


def test_a_new_formatter_is_used_at_once(handler):
    made = record("x", ())

    for text in ("a %(message)s", "b %(message)s", "a %(message)s"):
        formatter = logging.Formatter(text)
        assert written(handler, formatter, made) == expected(formatter, made)


@pytest.mark.parametrize("native", [True, False])
def test_escape_makes_every_record_one_line(tmp_path, native):
    handler = AsyncFileHandler(tmp_path / "app.txt", escape=True)
    if native:
        handler.setFormatter(logging.Formatter("%(message)s"))

    handler.handle(record("a\nb\x1b[31m\u2028\r\tc", ()))
    handler.close()

    line = (tmp_path / "app.txt").read_bytes()
    assert line == b"a\\nb\\x1b[31m\\u2028\\r\tc\n"


def test_a_method_set_on_the_handler_is_called(handler):
    seen = []
    handler.emit = seen.append

    handler.handle(record("x", ()))

    assert len(seen) == 1


def test_the_record_itself_is_not_changed_by_its_message(handler):
    made = record("hello %s", ("you",))

    written(handler, logging.Formatter("%(message)s"), made)

    assert made.msg == "hello %s"
    assert made.args == ("you",)
