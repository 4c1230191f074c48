"""The record factory makes what `logging.LogRecord` makes."""

import asyncio
import logging
import multiprocessing
import sys
import threading

import pytest

from mtaio.logging import make_record

TIMED = {"created", "msecs", "relativeCreated"}


@pytest.fixture
def factory():
    return make_record


def both(factory, *arguments, **options):
    return factory(*arguments, **options), logging.LogRecord(*arguments, **options)


def assert_same(made, stock):
    assert type(made) is logging.LogRecord
    assert list(vars(made)) == list(vars(stock))
    for name in vars(stock).keys() - TIMED:
        assert getattr(made, name) == getattr(stock, name), name
    assert 0 <= stock.created - made.created < 5
    assert type(made.msecs) is float
    assert abs(made.relativeCreated - stock.relativeCreated) < 5000


@pytest.mark.parametrize(
    "arguments",
    [
        ("app", 20, "/srv/app.py", 12, "hello %s", ("you",), None, "main", None),
        ("app", 15, "app", 1, "x", (), None),
        ("app", 99, "", 1, "x", None, None),
        ("app", 20, None, 1, "%(a)s", ({"a": 1},), None),
        ("app", 20, "/a/b.c.py", 1, "%s", ({},), None),
        ("app", 20, "/a/b", 1, "%s", ("text",), (None, None, None), None, "stack"),
        ("app", 20, "/a/b", 1, "%s", [1], None),
    ],
)
def test_it_is_the_record_the_constructor_makes(factory, arguments):
    assert_same(*both(factory, *arguments))


def test_threads_are_named_as_they_are_now(factory):
    found = []

    def work():
        found.append(both(factory, "app", 20, "/a.py", 1, "x", (), None))
        threading.current_thread().name = "renamed"
        found.append(both(factory, "app", 20, "/a.py", 1, "x", (), None))

    thread = threading.Thread(target=work, name="worker")
    thread.start()
    thread.join()

    for pair in found:
        assert_same(*pair)
    assert [made.threadName for made, _ in found] == ["worker", "renamed"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="taskName is new in 3.12")
async def test_tasks_are_named(factory):
    async def work():
        return both(factory, "app", 20, "/a.py", 1, "x", (), None)

    made, stock = await asyncio.create_task(work(), name="mine")

    assert_same(made, stock)
    assert made.taskName == "mine"


def test_processes_are_named(factory):
    multiprocessing.current_process().name = "renamed"
    try:
        made, stock = both(factory, "app", 20, "/a.py", 1, "x", (), None)
    finally:
        multiprocessing.current_process().name = "MainProcess"

    assert made.processName == stock.processName == "renamed"


def test_loggers_use_it(factory):
    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(factory)
    kept = []
    handler = logging.Handler()
    handler.emit = kept.append
    logger = logging.Logger("app")
    logger.addHandler(handler)

    try:
        logger.info("hello %s", "you", extra={"user": "ann"}, stack_info=True)
    finally:
        logging.setLogRecordFactory(before)

    (record,) = kept
    assert record.getMessage() == "hello you"
    assert record.user == "ann"
    assert record.funcName == "test_loggers_use_it"
    assert record.stack_info.startswith("Stack")
