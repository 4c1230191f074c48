"""`AsyncLogger`: 0.1.0's methods, on the direct path where nobody can tell."""

import asyncio
import gc
import json
import logging
import re
import weakref

import pytest

from mtaio.logging import AsyncFileHandler, AsyncJsonFileHandler, AsyncLogger

FORMAT = "%(asctime)s - %(name)s - %(levelname)s - %(message)s"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "app.txt"


@pytest.fixture
def handler(path):
    made = AsyncFileHandler(path, formatter=logging.Formatter(FORMAT))
    yield made
    made.close()


def lines(path):
    return path.read_text(encoding="utf-8").splitlines()


async def test_every_level_is_awaitable_and_written(handler, path):
    logger = AsyncLogger("app", logging.DEBUG, [handler])

    for name in ("debug", "info", "warning", "error", "critical"):
        await getattr(logger, name)("%s %d", name, 7)
    await logger.close()

    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"
    for name, line in zip(
        ("debug", "info", "warning", "error", "critical"), lines(path), strict=True
    ):
        assert re.fullmatch(f"{stamp} - app - {name.upper()} - {name} 7", line)


def test_a_call_needs_no_await_and_no_loop(handler, path):
    logger = AsyncLogger("app", "INFO", [handler])

    logger.info("one")
    logger.debug("too low")
    handler.flush()

    assert [line.rsplit(" - ")[-1] for line in lines(path)] == ["one"]


@pytest.mark.parametrize(
    "text",
    [FORMAT, "%(levelno)d %(name)8s|%(levelname)-9s|%(message).3s", "%(message)s"],
)
def test_the_direct_line_is_the_stock_line(path, text, monkeypatch):
    handler = AsyncFileHandler(path, formatter=logging.Formatter(text))
    handler.formatter.default_msec_format = None
    direct = AsyncLogger("app", handlers=[handler])
    record = logging.Logger("app")
    record.addHandler(handler)

    for _ in range(20):
        direct.info("hello %s %.1f", "日本", 2.5)
        record.info("hello %s %.1f", "日本", 2.5)
    handler.close()

    found = lines(path)
    # Two of a pair may stand on both sides of a second's end.
    assert sum(a == b for a, b in zip(found[::2], found[1::2], strict=True)) >= 19


def test_a_level_of_another_name_is_called_so(path):
    handler = AsyncFileHandler(path, formatter=logging.Formatter("%(levelname)s"))
    logger = AsyncLogger("app", handlers=[handler])

    logger.warning("")
    logging.addLevelName(logging.WARNING, "WARN")
    try:
        logger.warning("")
    finally:
        logging.addLevelName(logging.WARNING, "WARNING")
    handler.close()

    assert lines(path) == ["WARNING", "WARN"]


def test_no_record_is_made_on_the_direct_path(handler, path, monkeypatch):
    logger = AsyncLogger("app", handlers=[handler])
    monkeypatch.setattr(AsyncLogger, "_by_record", None)

    logger.info("one %s", "two")
    handler.flush()

    assert lines(path)[0].endswith("one two")


async def test_exceptions_stacks_and_extra_are_written(path):
    handler = AsyncJsonFileHandler(path)
    logger = AsyncLogger("app", handlers=[handler])

    try:
        raise ValueError("bad")
    except ValueError as error:
        await logger.error("one", exc_info=True)
        await logger.error("two", exc_info=error)
        await logger.exception("three")
    await logger.info("four", extra={"user": "ann"}, stack_info="where")
    await logger.close()

    *failed, last = map(json.loads, lines(path))
    assert [f["exception"]["message"] for f in failed] == ["bad"] * 3
    assert (last["user"], last["stack_info"]) == ("ann", "where")


def test_the_place_of_the_call_is_told(path):
    handler = AsyncFileHandler(path, formatter=logging.Formatter("%(funcName)s"))
    logger = AsyncLogger("app", handlers=[handler])

    logger.info("direct")
    logger.log(logging.INFO, "by level")
    logger.info("extra", extra={"a": 1})
    handler.close()

    assert lines(path) == ["test_the_place_of_the_call_is_told"] * 3


async def test_bound_context_is_in_every_line(path):
    handler = AsyncJsonFileHandler(path)
    logger = AsyncLogger("app", handlers=[handler])
    bound = logger.bind(user="ann").bind(request=7)

    await bound.info("one")
    await bound.info("two", extra={"user": "bob"})
    await logger.info("three")
    await logger.close()

    found = list(map(json.loads, lines(path)))
    assert [(f.get("user"), f.get("request")) for f in found] == [
        ("ann", 7),
        ("bob", 7),
        (None, None),
    ]


async def test_batch_logs_each(handler, path):
    logger = AsyncLogger("app", handlers=[handler])

    await logger.batch(logging.WARNING, ["a", "b", "c"])
    await logger.close()

    assert [line[-1] for line in lines(path)] == ["a", "b", "c"]


async def test_a_transaction_tells_its_end(path):
    logger = AsyncLogger("app", handlers=[AsyncJsonFileHandler(path)])

    async with logger.transaction() as bound:
        await bound.info("inside")
    with pytest.raises(ValueError, match="bad"):
        async with logger.transaction(exc_level=logging.CRITICAL):
            raise ValueError("bad")
    await logger.close()

    inside, done, failed = map(json.loads, lines(path))
    mark = inside["transaction_id"]
    assert done["message"] == f"transaction {mark} completed"
    assert failed["level"] == "CRITICAL"
    assert failed["exception"]["message"] == "bad"
    assert failed["transaction_id"] != mark


async def test_any_logging_handler_will_do():
    class Keep(logging.Handler):
        def __init__(self):
            super().__init__()
            self.kept = []

        def emit(self, record):
            self.kept.append(record.getMessage())

    keep = Keep()
    logger = AsyncLogger("app")
    await logger.add_handler(keep)

    await logger.info("hello %s", "you")
    await logger.remove_handler(keep)
    await logger.info("gone")

    assert keep.kept == ["hello you"]


def test_handler_levels_and_filters_hold(handler, path):
    logger = AsyncLogger("app", handlers=[handler])
    handler.setLevel(logging.ERROR)
    logger.info("too low")
    handler.setLevel(logging.NOTSET)
    handler.addFilter(lambda record: "no" not in record.getMessage())

    logger.info("no")
    logger.info("yes")
    handler.flush()

    assert [line[-3:] for line in lines(path)] == ["yes"]


@pytest.mark.parametrize("method", ["handle", "filter"])
def test_what_a_handler_overrides_is_asked(path, method):
    class Own(AsyncFileHandler):
        def handle(self, record):
            refused = method == "handle" and record.msg == "no"
            return refused or super().handle(record)

        def filter(self, record):
            return method == "handle" or record.msg != "no"

    handler = Own(path)
    logger = AsyncLogger("app", handlers=[handler])

    logger.info("no")
    logger.info("yes")
    handler.close()

    assert lines(path) == ["yes"]


def test_an_interrupt_amid_a_message_goes_on(handler):
    class InterruptedOnce:
        texts = iter((KeyboardInterrupt(), "text"))

        def __str__(self):
            text = next(self.texts)
            if isinstance(text, KeyboardInterrupt):
                raise text
            return text

    logger = AsyncLogger("app", handlers=[handler])

    with pytest.raises(KeyboardInterrupt):
        logger.info(InterruptedOnce())


def test_a_message_that_cannot_be_merged_is_written(handler, path, capsys):
    logger = AsyncLogger("app", handlers=[handler])

    logger.info("%d", "many")
    handler.flush()

    assert "not formatted: TypeError" in lines(path)[0]
    assert "--- Logging error ---" in capsys.readouterr().err


async def test_many_tasks_may_share_it(handler, path):
    logger = AsyncLogger("app", handlers=[handler])

    async def work(n):
        await logger.info("%d", n)

    await asyncio.gather(*(work(n) for n in range(100)))
    await logger.close()

    assert [int(line.rsplit(" - ")[-1]) for line in lines(path)] == list(range(100))


def test_a_logger_and_its_handler_are_collected(path):
    handler = AsyncFileHandler(path, formatter=logging.Formatter(FORMAT))
    logger = AsyncLogger("app", handlers=[handler])
    handler.owner = logger
    logger.info("one")
    gone = weakref.ref(handler), weakref.ref(logger)
    handler.close()

    del handler, logger
    gc.collect()

    assert [ref() for ref in gone] == [None, None]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"name": ""}, ValueError, "name must be non-empty text"),
        ({"name": 3}, TypeError, "name must be non-empty text"),
        ({"level": "LOUD"}, ValueError, "LOUD"),
        ({"level": True}, TypeError, "level must be"),
        ({"level": 1.5}, TypeError, "evel"),
        ({"handlers": [3]}, TypeError, "handler must be a logging.Handler"),
    ],
)
def test_bad_arguments_are_refused(arguments, error, words):
    with pytest.raises(error, match=words):
        AsyncLogger(**{"name": "app", **arguments})


def test_unknown_options_are_refused(handler):
    logger = AsyncLogger("app", handlers=[handler])

    with pytest.raises(TypeError, match="unknown keyword arguments: colour"):
        logger.info("x", colour="red")
