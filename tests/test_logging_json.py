"""One record, one line of JSON, whatever is in it."""

import json
import logging
import sys
from datetime import UTC, datetime
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaio.logging import AsyncFileHandler, AsyncJsonFileHandler, JsonFormatter


def record(msg="hello", args=(), **extra):
    made = logging.LogRecord("app", logging.INFO, "/x.py", 1, msg, args, None)
    made.__dict__.update(extra)
    return made


def parsed(made, *args, **options):
    return json.loads(JsonFormatter(*args, **options).format(made))


def test_the_default_keys():
    made = record("hello %s", ("you",))
    made.created = 1_700_000_000.25

    assert parsed(made) == {
        "timestamp": "2023-11-14T22:13:20.250000Z",
        "level": "INFO",
        "logger": "app",
        "message": "hello you",
    }


@given(st.floats(0, 4e9))
def test_timestamps_are_those_of_datetime(created):
    made = record()
    made.created = created

    stamp = datetime.fromisoformat(parsed(made)["timestamp"])

    assert abs((stamp - datetime.fromtimestamp(created, UTC)).total_seconds()) <= 1e-6


@given(st.text())
def test_any_text_reads_back_and_is_one_line(text):
    line = JsonFormatter().format(record(text))

    assert json.loads(line)["message"] == text
    assert len(line.splitlines()) == 1
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in line)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(plain)
def test_extra_values_read_back(value):
    assert parsed(record(user=value))["user"] == value


class Broken:
    def __str__(self):
        raise RuntimeError("no text")


def test_what_json_lacks_is_text():
    cycle: list = []
    cycle.append(cycle)

    found = parsed(record(a={1}, b=(1, 2), c=float("nan"), d={3: "x"}, e=cycle))

    assert found["a"] == "{1}"
    assert found["b"] == [1, 2]
    assert found["c"] == "NaN"
    assert found["d"] == {"3": "x"}
    assert isinstance(found["e"], list)


def test_numbers_of_any_class_are_numbers():
    class Ratio(float):
        def __str__(self):
            return "half"

    found = JsonFormatter().format(record(status=HTTPStatus.NOT_FOUND, part=Ratio(0.5)))

    assert found.endswith('"status":404,"part":0.5}')


@pytest.mark.parametrize("formatter", [JsonFormatter(), None])
def test_a_records_own_way_to_merge_is_used(tmp_path, formatter):
    class Braces(logging.LogRecord):
        def getMessage(self):
            return self.msg.format(*self.args)

    handler = AsyncFileHandler(tmp_path / "app.txt", formatter=formatter)

    handler.handle(Braces("app", logging.INFO, "/x.py", 1, "hi {}", ("you",), None))
    handler.close()

    assert "hi you" in (tmp_path / "app.txt").read_text()


def test_an_exception_that_came_as_text_is_kept():
    found = parsed(record(exc_text="Traceback: bad"))["exception"]

    assert found == {"type": None, "message": None, "traceback": "Traceback: bad"}


def test_a_taken_name_is_set_apart():
    assert parsed(record(level="mine", logger="too")) | {"timestamp": 0} == {
        "timestamp": 0,
        "level": "INFO",
        "logger": "app",
        "message": "hello",
        "extra_level": "mine",
        "extra_logger": "too",
    }


def test_keys_choose_and_order():
    keys = {"msg": "message", "line": "lineno", "none": "absent"}

    line = JsonFormatter(keys, extra=False).format(record(user="ann"))

    assert line == '{"msg":"hello","line":1,"none":null}'


def test_an_exception_is_structured():
    made = record()
    try:
        raise ValueError("bad\nnews")
    except ValueError:
        made.exc_info = sys.exc_info()

    found = parsed(made)["exception"]

    assert found["type"] == "ValueError"
    assert found["message"] == "bad\nnews"
    assert found["traceback"].startswith("Traceback (most recent call last):")


def test_the_stack_is_told():
    assert parsed(record(stack_info="Stack:\n x"))["stack_info"] == "Stack:\n x"


def test_the_handler_writes_json_lines(tmp_path):
    path = tmp_path / "app.json"
    handler = AsyncJsonFileHandler(path, max_bytes=1000, backup_count=2)
    logger = logging.Logger("app")
    logger.addHandler(handler)

    logger.info("hello %s\x1b", "you", extra={"user": "ann"})
    logger.info("%d", "bad")
    handler.close()

    first, second = map(json.loads, path.read_text().splitlines())
    assert (first["message"], first["user"]) == ("hello you\x1b", "ann")
    assert "not formatted: TypeError" in second["message"]


def test_a_subclass_has_its_say(tmp_path):
    class Shout(JsonFormatter):
        def format(self, record):
            return super().format(record).upper()

    path = tmp_path / "app.json"
    handler = AsyncJsonFileHandler(path, formatter=Shout())
    handler.handle(record())
    handler.close()

    assert '"MESSAGE":"HELLO"' in path.read_text()


@pytest.mark.parametrize(
    ("keys", "error", "words"),
    [
        ({}, ValueError, "keys must name at least one key"),
        ({"": "message"}, ValueError, "key must be non-empty text"),
        ({"a": ""}, ValueError, "attribute must be non-empty text"),
        ({"a": 1}, TypeError, "attribute must be non-empty text"),
        ({1: "a"}, TypeError, "key must be non-empty text"),
        (["a"], TypeError, "keys must be a mapping or None"),
    ],
)
def test_bad_keys_are_refused(keys, error, words):
    with pytest.raises(error, match=words):
        JsonFormatter(keys)


def test_extra_must_be_a_bool():
    with pytest.raises(TypeError, match="extra must be True or False"):
        JsonFormatter(extra=1)
