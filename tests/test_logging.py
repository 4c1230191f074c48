"""The handler as users of `logging` meet it: drop-in, complete, and never waiting."""

import asyncio
import datetime
import logging
import logging.config
import logging.handlers
import math
import os
import queue
import re
import sys
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import log_census
from mtaio.logging import (
    AsyncFileHandler,
    AsyncLogHandler,
    AsyncRotatingFileHandler,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "app.txt"


@pytest.fixture
def logger():
    made = logging.Logger("app", logging.DEBUG)
    yield made
    for handler in made.handlers:
        handler.close()


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def all_lines(path: Path) -> list[str]:
    """The lines of the backups, oldest first, then of the log itself."""
    number = {int(p.suffix[1:]): p for p in path.parent.glob(path.name + ".*")}
    files = [number[n] for n in sorted(number, reverse=True)] + [path]
    return [line for file in files for line in lines(file)]


def test_it_is_a_logging_handler(path):
    handler = AsyncFileHandler(path)

    assert isinstance(handler, logging.Handler)
    assert isinstance(handler, AsyncLogHandler)
    handler.close()


def test_a_record_is_in_the_file_after_flush(path, logger):
    handler = AsyncFileHandler(path)
    handler.setFormatter(logging.Formatter("%(name)s - %(levelname)s - %(message)s"))
    logger.addHandler(handler)

    logger.info("hello %s", "you")

    assert handler.flush().done
    assert lines(path) == ["app - INFO - hello you"]


async def test_flush_and_close_are_awaitable_in_a_loop(path, logger):
    handler = AsyncFileHandler(path)
    logger.addHandler(handler)

    logger.info("one")
    assert await handler.flush() is True
    assert lines(path) == ["one"]
    logger.info("two")
    assert await handler.aclose() is True

    assert lines(path) == ["one", "two"]


async def test_gather_and_wait_for_take_a_flush(path, logger):
    handler = AsyncFileHandler(path)
    logger.addHandler(handler)
    logger.info("one")

    async def flush():
        return await handler.flush(timeout=5)

    assert await asyncio.gather(flush(), flush()) == [True, True]
    assert await asyncio.wait_for(flush(), 5) is True
    assert await handler.aclose()


def test_rotation_by_size_keeps_every_line_in_order(path, logger):
    handler = AsyncFileHandler(path, max_bytes=1000, backup_count=100)
    logger.addHandler(handler)

    for number in range(1000):
        logger.info("line %06d", number)
    handler.close()

    assert all_lines(path) == [f"line {n:06d}" for n in range(1000)]
    sizes = [p.stat().st_size for p in path.parent.iterdir()]
    assert max(sizes) <= 1000
    assert handler.stats().rotations == len(sizes) - 1 > 5


def test_only_the_newest_backups_stay(path, logger):
    handler = AsyncFileHandler(path, max_bytes=120, backup_count=3)
    logger.addHandler(handler)

    for number in range(100):
        logger.info("line %06d", number)
    handler.close()

    names = sorted(p.name for p in path.parent.iterdir())
    assert names == ["app.txt", "app.txt.1", "app.txt.2", "app.txt.3"]
    assert all_lines(path) == [f"line {n:06d}" for n in range(60, 100)]


def test_without_backups_the_file_never_rolls_over(path, logger):
    handler = AsyncFileHandler(path, max_bytes=100)
    logger.addHandler(handler)

    for number in range(100):
        logger.info("line %06d", number)
    handler.close()

    assert len(lines(path)) == 100


def test_a_multi_line_record_is_not_parted_by_rotation(path, logger):
    handler = AsyncFileHandler(path, max_bytes=100, backup_count=200)
    logger.addHandler(handler)

    for number in range(100):
        logger.info("%d a\nb\nc %s", number, "x" * 20)
    handler.close()

    for file in path.parent.iterdir():
        assert len(lines(file)) % 3 == 0


def test_append_mode_keeps_what_was_there(path):
    path.write_text("before\n")

    handler = AsyncFileHandler(path)
    handler.emit(logging.makeLogRecord({"msg": "after"}))
    handler.close()

    assert lines(path) == ["before", "after"]


def test_write_mode_empties_the_file_once(path, logger):
    path.write_text("before\n")
    handler = AsyncFileHandler(path, mode="w")
    logger.addHandler(handler)

    logger.info("one")
    handler.close()
    logger.info("two")
    handler.close()

    assert lines(path) == ["one", "two"]


def test_create_mode_wants_a_new_file(path):
    path.touch()

    with pytest.raises(FileExistsError, match=r"app\.txt"):
        AsyncFileHandler(path, mode="x")


def test_a_missing_folder_is_told_at_once(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        AsyncFileHandler(tmp_path / "no" / "app.txt")

    assert caught.value.filename == str(tmp_path / "no" / "app.txt")


def test_delay_opens_with_the_first_record(path, logger):
    handler = AsyncFileHandler(path, delay=True)
    logger.addHandler(handler)
    handler.flush()
    # Give the writer the time in which it must not open the file.
    time.sleep(0.02)

    assert not path.exists()
    logger.info("one")
    handler.close()
    assert lines(path) == ["one"]


def test_a_record_after_close_opens_the_log_again(path, logger):
    handler = AsyncFileHandler(path)
    logger.addHandler(handler)

    logger.info("one")
    handler.close()
    logger.info("two")
    handler.close()

    assert lines(path) == ["one", "two"]
    assert handler.stats().accepted == 2


def test_shutdown_flushes_and_closes_however_often_it_is_called(path, logger):
    handler = AsyncFileHandler(path, gather=60.0)
    logger.addHandler(handler)
    for number in range(100):
        logger.info("line %d", number)

    for _ in range(2):
        logging.shutdown([weakref.ref(handler)])

        assert lines(path) == [f"line {n}" for n in range(100)]
        assert handler.stats().written == 100
        assert log_census.rings(path) == []
    # As with the standard library's handlers, a late record opens it again.
    logger.info("late")
    logging.shutdown([weakref.ref(handler)])
    assert lines(path)[100:] == ["late"]


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes")
def test_a_name_need_not_be_utf_8(tmp_path, logger):
    path = tmp_path / os.fsdecode(b"caf\xe9.txt")
    handler = AsyncFileHandler(path, max_bytes=10, backup_count=1)
    logger.addHandler(handler)

    logger.info("first line")
    logger.info("second line")
    handler.close()

    assert all_lines(path) == ["first line", "second line"]


def test_levels_and_filters_work(path, logger):
    handler = AsyncFileHandler(path, level=logging.WARNING)
    handler.addFilter(lambda record: "secret" not in record.getMessage())
    logger.addHandler(handler)

    logger.info("too low")
    logger.warning("secret")
    logger.warning("seen")
    handler.close()

    assert lines(path) == ["seen"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="new in 3.12")
def test_a_filter_may_put_another_record_in_place(path, logger):
    class Other(logging.LogRecord):
        pass

    def replace(record):
        return Other("other", logging.INFO, "", 1, "replaced", (), None)

    handler = AsyncFileHandler(path)
    handler.addFilter(replace)
    logger.addHandler(handler)

    logger.info("original")
    handler.close()

    assert lines(path) == ["replaced"]


def own_method(path):
    class Own(AsyncFileHandler):
        def filter(self, record):
            return "secret" not in record.msg and super().filter(record)

    return Own(path)


def own_attribute(path):
    handler = AsyncFileHandler(path)
    handler.filter = lambda record: "secret" not in record.msg
    return handler


def merely_true(path):
    """Its answer takes no record's place."""

    class Own(AsyncFileHandler):
        def filter(self, record):
            return re.search("seen", record.msg)

    return Own(path)


@pytest.mark.parametrize("make", [own_method, own_attribute, merely_true])
def test_a_filter_method_of_its_own_is_asked(path, logger, make):
    handler = make(path)
    logger.addHandler(handler)

    logger.info("secret")
    logger.info("seen")
    handler.close()

    assert lines(path) == ["seen"]


def test_a_subclass_may_override_emit_and_format(path, logger):
    class Twice(AsyncFileHandler):
        def emit(self, record):
            super().emit(record)
            super().emit(record)

        def format(self, record):
            return "<" + super().format(record) + ">"

    handler = Twice(path)
    logger.addHandler(handler)

    logger.info("one")
    handler.close()

    assert lines(path) == ["<one>", "<one>"]


def test_dict_config_builds_it(path):
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"plain": {"format": "%(levelname)s:%(message)s"}},
            "handlers": {
                "file": {
                    "class": "mtaio.logging.AsyncFileHandler",
                    "filename": str(path),
                    "max_bytes": 1_000_000,
                    "backup_count": 2,
                    "formatter": "plain",
                    "level": "INFO",
                }
            },
            "loggers": {"configured": {"handlers": ["file"], "level": "DEBUG"}},
        }
    )
    logger = logging.getLogger("configured")

    logger.debug("no")
    logger.info("yes")
    for handler in list(logger.handlers):
        handler.close()
        logger.removeHandler(handler)

    assert lines(path) == ["INFO:yes"]


def test_a_queue_listener_and_a_memory_handler_may_feed_it(path, logger):
    handler = AsyncFileHandler(path)
    records: queue.Queue = queue.Queue()
    listener = logging.handlers.QueueListener(records, handler)
    listener.start()
    logger.addHandler(logging.handlers.QueueHandler(records))
    memory = logging.handlers.MemoryHandler(100, target=handler)
    logger.addHandler(memory)

    logger.info("both")
    listener.stop()
    memory.close()
    handler.close()

    assert lines(path) == ["both", "both"]


class Broken:
    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__


@pytest.mark.parametrize(
    ("message", "args", "fault"),
    [
        ("%d apples", ("many",), "TypeError"),
        ("%s and %s", ("one",), "TypeError"),
        ("%s", (Broken(),), "RuntimeError: no text"),
        ("%(missing)s", ({"a": 1},), "KeyError"),
    ],
)
def test_a_record_that_cannot_be_formatted_is_written_with_its_fault(
    path, logger, message, args, fault, monkeypatch, capsys
):
    handler = AsyncFileHandler(path, formatter=logging.Formatter("app: %(message)s"))
    logger.addHandler(handler)

    logger.info(message, *args)
    handler.close()

    (line,) = lines(path)
    assert line.startswith("app: ")
    assert f"[not formatted: {fault}" in line
    assert message in line
    assert "--- Logging error ---" in capsys.readouterr().err


def test_a_message_that_logs_while_formatted_does_not_hang(path, logger):
    class Chatty:
        def __str__(self):
            logger.info("inner")
            return "outer"

    handler = AsyncFileHandler(path)
    logger.addHandler(handler)

    logger.info("%s", Chatty())
    handler.close()

    assert lines(path) == ["inner", "outer"]


def test_surrogates_are_written_escaped(path, logger):
    handler = AsyncFileHandler(path)
    logger.addHandler(handler)

    logger.info("bad \udcff end")
    handler.close()

    assert lines(path) == ["bad \\udcff end"]


def test_ten_megabytes_are_one_record(path, logger):
    handler = AsyncFileHandler(path, max_bytes=1_000_000, backup_count=3)
    logger.addHandler(handler)

    logger.info("before")
    logger.info("x" * 10_000_000)
    logger.info("after")
    handler.close()

    assert [len(line) for line in all_lines(path)] == [6, 10_000_000, 5]


def test_other_encodings_are_written_as_asked(path, logger):
    handler = AsyncFileHandler(path, encoding="latin-1")
    logger.addHandler(handler)

    logger.info("Grüße, 世界")
    handler.close()

    assert path.read_bytes() == "Grüße, \\u4e16\\u754c\n".encode("latin-1")


# The second asks for what the log's own line has not.
@pytest.mark.parametrize("text", ["%(message)s", "%(message)s%(more)s"])
def test_a_full_ring_drops_counts_and_tells(path, logger, text):
    # A pipe nobody reads stalls the writer, as a stuck disk would.
    os.mkfifo(path)
    handler = AsyncFileHandler(path, delay=True, ring_bytes=65536, overflow="drop")
    handler.setFormatter(logging.Formatter(text))
    logger.addHandler(handler)
    logger = logging.LoggerAdapter(logger, {"more": ""})

    for number in range(2000):
        logger.info("line %06d %s", number, "x" * 80)
    with ThreadPoolExecutor() as pool:
        read = pool.submit(path.read_text)
        assert handler.flush().done
        logger.info("last")
        handler.close()
        found = read.result().splitlines()

    stats = handler.stats()
    told = sum(int(line.split()[0]) for line in found if "records dropped" in line)
    assert stats.dropped == told > 0
    assert len([line for line in found if line.startswith("line")]) == 2000 - told
    assert stats.accepted == stats.written == len(found)


def test_threads_that_compete_for_room_all_get_in(path):
    handler = AsyncFileHandler(path, ring_bytes=65536, block_timeout=60.0)
    logger = logging.Logger("app")
    logger.addHandler(handler)

    def work(writer):
        for number in range(300):
            logger.info("%s %d %s", writer, number, "x" * 9000)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    handler.close()

    assert handler.stats().dropped == 0
    assert handler.stats().written == 2400


def test_long_records_take_no_more_than_the_ring_again(path, logger):
    """They lie beside the ring, and are bounded as what lies in it."""
    os.mkfifo(path)
    handler = AsyncFileHandler(path, delay=True, ring_bytes=65536, overflow="drop")
    logger.addHandler(handler)

    for _ in range(40):
        logger.info("x" * 20_000)

    assert handler.stats().accepted == 3
    assert handler.stats().dropped == 37
    with ThreadPoolExecutor() as pool:
        read = pool.submit(path.read_text)
        assert handler.flush().done
        before = handler.stats().accepted
        # What was flushed gives its room back a moment later.
        while handler.stats().accepted == before:
            logger.info("y" * 1_000_000)
        handler.close()
        found = read.result().splitlines()
    lengths = [len(line) for line in found if line[0] in "xy"]
    assert lengths == [20_000] * 3 + [1_000_000]


@pytest.mark.parametrize(
    "name", ["gather", "block_timeout", "close_timeout", "max_age"]
)
def test_a_very_long_time_is_for_ever(path, name):
    handler = AsyncFileHandler(path, **{name: 1e300})

    assert handler.flush().done
    handler.close()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"filename": ""}, ValueError, "filename must be non-empty and without NUL"),
        ({"filename": "a\0"}, ValueError, "filename must be non-empty and without NUL"),
        ({"filename": b"x"}, TypeError, "filename must be text or a path"),
        ({"filename": 3}, TypeError, "int"),
        ({"mode": "r"}, ValueError, "mode must be 'a' or 'w' or 'x', got 'r'"),
        ({"max_bytes": -1}, ValueError, "max_bytes must be an int >= 0, got -1"),
        ({"max_bytes": True}, TypeError, "max_bytes must be an int >= 0"),
        ({"max_bytes": 1e6}, TypeError, "max_bytes must be an int >= 0"),
        ({"backup_count": -1}, ValueError, "backup_count must be an int >= 0"),
        ({"backup_count": math.nan}, TypeError, "backup_count must be an int >= 0"),
        ({"encoding": "klingon"}, ValueError, "encoding must be a known encoding"),
        ({"encoding": "utf-16"}, ValueError, "encoding must be a known encoding"),
        ({"encoding": None}, TypeError, "encoding must be non-empty text"),
        ({"errors": "hope"}, ValueError, "errors must be a known error handler"),
        ({"delay": 1}, TypeError, "delay must be True or False"),
        ({"when": "Y"}, ValueError, "when must be 'S', 'M'"),
        ({"when": "W7"}, ValueError, "when must be 'S', 'M'"),
        ({"interval": 0}, ValueError, "interval must be an int >= 1"),
        ({"at_time": 3}, TypeError, "at_time must be a datetime.time or None"),
        ({"utc": 0}, TypeError, "utc must be True or False"),
        ({"compress": "rar"}, ValueError, "compress must be 'gzip', 'zstd' or None"),
        ({"max_age": 0}, ValueError, "max_age must be a finite number > 0"),
        ({"max_age": math.inf}, ValueError, "max_age must be a finite number > 0"),
        ({"max_total_bytes": 0}, ValueError, "max_total_bytes must be an int >= 1"),
        ({"ring_bytes": 100}, ValueError, "ring_bytes must be an int >= 65536"),
        ({"ring_bytes": 1 << 40}, ValueError, "ring_bytes must be at most"),
        ({"durable": None}, TypeError, "durable must be True or False"),
        ({"overflow": "wait"}, ValueError, "overflow must be 'block' or 'drop'"),
        ({"block_timeout": -1}, ValueError, "block_timeout must be a finite number"),
        ({"block_timeout": math.nan}, ValueError, "block_timeout must be a finite"),
        ({"block_on_loop": "no"}, TypeError, "block_on_loop must be True or False"),
        ({"gather": math.inf}, ValueError, "gather must be a finite number >= 0"),
        ({"fsync": 2}, TypeError, "fsync must be True or False"),
        ({"close_timeout": -0.1}, ValueError, "close_timeout must be a finite"),
        ({"on_error": 3}, TypeError, "on_error must be callable or None"),
        ({"level": "LOUD"}, ValueError, "LOUD"),
    ],
)
def test_bad_arguments_are_refused_by_name(path, options, error, words):
    with pytest.raises(error, match=words):
        AsyncFileHandler(**{"filename": path, **options})

    assert not path.exists()


@pytest.mark.parametrize("timeout", [-1, math.nan, math.inf])
async def test_bad_timeouts_are_refused(path, timeout):
    handler = AsyncFileHandler(path)

    with pytest.raises(ValueError, match="timeout must be a finite number >= 0"):
        handler.flush(timeout)
    with pytest.raises(ValueError, match="timeout must be a finite number >= 0"):
        await handler.aclose(timeout)
    await handler.aclose()


async def test_the_names_of_0_1_0_still_work(path):
    handler = AsyncRotatingFileHandler(str(path), max_bytes=100, backup_count=1)
    handler.start()
    handler.handle(logging.makeLogRecord({"msg": "one"}))
    await handler.stop()

    assert lines(path) == ["one"]


def test_time_of_day_is_accepted(path):
    at = datetime.time(3, 30)
    handler = AsyncFileHandler(path, when="midnight", at_time=at, utc=True)

    handler.emit(logging.makeLogRecord({"msg": "one"}))
    handler.close()

    assert lines(path) == ["one"]
