"""ErrorHandler: ours and the unexpected apart, repeats counted, nothing hidden."""

import asyncio
import logging
import math

import pytest

import virtual_time
from mtaio.app import Application, ErrorHandler, ExitCode
from mtaio.exceptions import CacheError, RateLimitError


@pytest.fixture
def handler(clock):
    return ErrorHandler(repeat_interval=10, clock=clock)


def raised(error):
    try:
        raise error
    except BaseException as caught:
        return caught


async def test_our_errors_are_errors_and_others_are_critical_with_a_traceback(
    handler, caplog
):
    await handler.handle_error(raised(RateLimitError("too fast")), {"user": 7})
    await handler.handle_error(raised(ZeroDivisionError("by zero")))

    ours, other = caplog.records
    assert (ours.name, ours.levelno) == ("mtaio.errors", logging.ERROR)
    assert ours.getMessage() == "RateLimitError: too fast"
    assert (ours.error_type, ours.error_message) == ("RateLimitError", "too fast")
    assert ours.context == {"user": 7}
    assert ours.exc_info is None
    assert other.levelno == logging.CRITICAL
    assert other.exc_info[0] is ZeroDivisionError


@pytest.mark.parametrize(
    ("group", "level"),
    [
        ([CacheError("a"), RateLimitError("b")], logging.ERROR),
        ([CacheError("a"), OSError("b")], logging.CRITICAL),
    ],
)
def test_a_group_is_ours_when_all_it_holds_is(handler, caplog, group, level):
    handler.report(ExceptionGroup("several", group))

    assert caplog.records[0].levelno == level


def test_an_error_of_one_origin_is_logged_once_in_an_interval(handler, clock, caplog):
    for _ in range(5):
        handler.report(raised(CacheError("again")))
    clock.advance(10)
    handler.report(raised(CacheError("again")))

    assert [r.repeated for r in caplog.records] == [0, 4]
    assert "4 more like it" in caplog.text
    assert handler.counts() == {"CacheError": 6}


def test_errors_of_two_origins_do_not_hide_each_other(handler, caplog):
    def elsewhere():
        try:
            raise CacheError("same text")
        except CacheError as caught:
            return caught

    handler.report(raised(CacheError("same text")))
    handler.report(elsewhere())

    assert len(caplog.records) == 2


def test_flush_tells_what_was_held_back(handler, caplog):
    for _ in range(3):
        handler.report(raised(CacheError("again")))

    handler.flush()
    handler.flush()

    assert len(caplog.records) == 2
    assert "2 more like it" in caplog.records[1].getMessage()


def test_an_interval_of_0_logs_every_error(caplog):
    handler = ErrorHandler(repeat_interval=0)

    for _ in range(3):
        handler.report(raised(CacheError("again")))

    assert len(caplog.records) == 3


def test_ever_new_errors_do_not_grow_the_process(handler, caplog):
    for number in range(1500):
        handler.report(CacheError(f"never raised {number}"))

    assert len(handler._told) == 1000
    assert handler.counts() == {"CacheError": 1500}


def test_an_error_told_amid_another_keeps_nobody(handler):
    class Amid(type):
        """Stands for a finalizer, which the collector may call anywhere."""

        def __hash__(cls):
            handler.report(ValueError("amid"))
            return super().__hash__()

    class Outer(Exception, metaclass=Amid):
        pass

    handler.report(Outer())

    assert handler.counts()["Outer"] == 1
    assert handler.counts()["ValueError"] >= 1


def test_a_broken_str_does_not_hide_the_error(handler, caplog):
    class BrokenError(Exception):
        def __str__(self):
            raise RuntimeError

    handler.report(BrokenError())

    assert "__str__ failed" in caplog.records[0].getMessage()


def test_an_installed_handler_reports_what_the_loop_would_print(handler, caplog):
    async def main():
        handler.install()
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    virtual_time.run(main())

    assert handler.counts() == {"ZeroDivisionError": 1}


def test_a_handler_of_ones_own_is_told_and_waited_for():
    told = []

    class Own:
        async def handle_error(self, error, context=None):
            await asyncio.sleep(3)
            told.append((str(error), context))

    async def main():
        app = Application(error_handler=Own())
        app.add("part", stop=lambda: 1 / 0)
        async with app:
            pass
        return app.exit_code

    assert virtual_time.run(main()) is ExitCode.UNCLEAN
    ((error, _),) = told
    assert "part failed to stop: ZeroDivisionError" in error


def test_a_handler_of_ones_own_that_fails_is_logged_with_the_error(caplog):
    class Broken:
        async def handle_error(self, error, context=None):
            raise OSError("no disk")

    async def main():
        app = Application(error_handler=Broken())
        app.add("part", stop=lambda: 1 / 0)
        async with app:
            pass

    virtual_time.run(main())

    assert "the error handler failed" in caplog.text
    assert "no disk" in caplog.text


@pytest.mark.parametrize("handler", [object(), print, "handler"])
def test_what_can_not_handle_errors_is_refused(handler):
    with pytest.raises(TypeError, match="error_handler must have async handle_error"):
        Application(error_handler=handler)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1])
def test_a_bad_interval_is_refused(value):
    with pytest.raises(ValueError, match="repeat_interval must be"):
        ErrorHandler(repeat_interval=value)


@pytest.mark.parametrize("value", [True, "1", None])
def test_an_interval_of_the_wrong_type_is_refused(value):
    with pytest.raises(TypeError, match="repeat_interval must be"):
        ErrorHandler(repeat_interval=value)


async def test_what_is_no_error_is_refused(handler):
    with pytest.raises(TypeError, match="error must be an exception, got 'oops'"):
        await handler.handle_error("oops")
    with pytest.raises(TypeError, match="context must be a dict or None"):
        await handler.handle_error(OSError(), ["x"])
