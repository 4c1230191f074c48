"""A disk that is full, gone, slow or changed under the log."""

import asyncio
import logging
import os
import shutil
import subprocess
import sys
import threading
import time

import pytest

import log_census
from mtaio.exceptions import HandlerError
from mtaio.logging import AsyncFileHandler

pytestmark = pytest.mark.skipif(os.name != "posix", reason="renames open files")


@pytest.fixture
def path(tmp_path):
    (tmp_path / "log").mkdir()
    return tmp_path / "log" / "app.txt"


@pytest.fixture
def told():
    return []


@pytest.fixture
def handler(path, told):
    made = AsyncFileHandler(path, on_error=told.append, ring_bytes=1 << 20)
    yield made
    made.close()


def log(handler, first, count):
    logger = logging.Logger("app")
    logger.addHandler(handler)
    for n in range(first, first + count):
        logger.info("app:%d:%s.", n, "x" * 20)


def until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.005)


def check(path, count):
    census = log_census.take(path)
    found = (census.lost({"app": count}), census.twice, census.torn, census.disordered)
    assert found == (0, 0, [], 0)


def test_a_folder_that_goes_and_returns_loses_nothing(path, handler, told, capfd):
    away = path.parent.with_name("away")
    log(handler, 0, 100)
    handler.flush()

    path.parent.rename(away)
    log(handler, 100, 1000)
    until(lambda: handler.stats().failed_writes > 2)
    log(handler, 1100, 900)
    away.rename(path.parent)
    until(lambda: handler.stats().written == 2000)
    handler.close()

    check(path, 2000)
    assert handler.stats().dropped == 0
    assert [type(error) for error in told] == [HandlerError]
    assert "No such file" in str(told[0])
    error = capfd.readouterr().err
    assert error.count("writing fails") == 1
    assert error.count("writing works again") == 1


def test_a_full_disk_that_is_freed_loses_nothing(tmp_path, told):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount")
    try:
        path = disk / "log" / "app.txt"
        path.parent.mkdir()
        ballast = disk / "ballast"
        handler = AsyncFileHandler(path, on_error=told.append)
        log(handler, 0, 100)
        handler.flush()
        with pytest.raises(OSError, match="No space"), ballast.open("wb") as file:
            while True:
                file.write(b"x" * 4096)
                file.flush()

        log(handler, 100, 1900)
        until(lambda: handler.stats().failed_writes > 2)
        ballast.unlink()
        until(lambda: handler.stats().written == 2000)
        handler.close()

        check(path, 2000)
        assert len(told) == 1
        assert "No space left" in str(told[0])
    finally:
        subprocess.run(["umount", str(disk)], check=True)


FULL = """
import resource
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, -1))
for n in range(2000): log(n)
end = time.monotonic() + 10
while handler.stats().failed_writes < 3 and time.monotonic() < end: time.sleep(0.01)
assert handler.stats().failed_writes >= 3
assert handler.stats().written < 2000
resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
handler.close()
assert handler.stats().written == 2000
"""


def test_a_file_that_may_grow_again_gets_the_rest(path):
    """The partial write at the limit is neither torn nor written twice."""
    code, error = log_census.run(path, "app", FULL)

    assert code == 0, error
    log_census.check(path, "app")


def test_a_full_disk_survived_by_no_one_is_mended_by_the_next(path):
    body = FULL[: FULL.index("resource.setrlimit(resource.RLIMIT_FSIZE, (-1")]

    code, _ = log_census.run(path, "app", body + "os._exit(7)")
    log_census.recover(path)

    assert code == 7
    assert log_census.check(path, "app") == {"app": 2000}


NO_ROOM = """
import logging, resource, signal, sys, time
from mtaio.logging import AsyncFileHandler
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (7, -1))
handler = AsyncFileHandler(sys.argv[1])
handler.emit(logging.makeLogRecord({"msg": "same"}))
while handler.stats().failed_writes < 2: time.sleep(0.001)
print("failed", flush=True)
sys.stdin.readline()
resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
handler.close()
"""


def test_a_line_that_failed_is_told_from_another_processs_like_it(path, handler):
    path.write_text("before\n")
    command = [sys.executable, "-c", NO_ROOM, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "failed\n"

        handler.emit(logging.makeLogRecord({"msg": "same"}))
        handler.flush()
        process.communicate("go on\n", timeout=20)

    assert process.returncode == 0
    assert path.read_text() == "before\nsame\nsame\n"


@pytest.mark.parametrize("change", ["unlink", "rename"])
def test_a_file_moved_away_is_made_anew(path, handler, change):
    log(handler, 0, 100)
    handler.flush()
    kept = path.with_name("app.txt.1")
    path.rename(kept)
    if change == "unlink":
        shutil.copy(kept, path.parent.parent / "copy")
        kept.unlink()

    log(handler, 100, 100)
    handler.flush()
    if change == "unlink":
        shutil.copy(path.parent.parent / "copy", kept)

    assert path.exists()
    check(path, 200)


def test_a_truncated_file_is_appended_to(path, handler):
    log(handler, 0, 100)
    handler.flush()

    os.truncate(path, 0)
    log(handler, 100, 100)
    handler.flush()

    census = log_census.take(path)
    assert census.numbers["app"] == list(range(100, 200))
    assert census.torn == []


def test_reopen_follows_the_name(path, handler):
    log(handler, 0, 10)
    handler.flush()
    path.rename(path.with_name("app.txt.1"))

    handler.reopen()
    handler.flush()
    log(handler, 10, 10)
    handler.flush()

    check(path, 20)
    assert len(path.read_text().splitlines()) == 10


async def test_a_stalled_disk_does_not_stall_the_loop(path):
    """A pipe that nobody reads is a disk that never answers."""
    os.mkfifo(path)
    handler = AsyncFileHandler(path, delay=True, close_timeout=0.0)
    turns = 0

    async def turn():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    turning = asyncio.create_task(turn())
    for n in range(100):
        log(handler, n * 20, 20)
        await asyncio.sleep(0)
    # Every record went in while the writer hangs in `open`.
    assert handler.stats().accepted == 2000
    assert handler.stats().written == 0
    assert turns >= 100
    assert await handler.flush(timeout=0.01) is False

    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(path.read_bytes()))
    reader.start()
    assert await handler.flush() is True
    assert await handler.aclose(timeout=10) is True
    turning.cancel()
    reader.join()
    assert len(read[0].splitlines()) == 2000


def test_a_thread_waits_for_room_and_then_gives_up(path):
    os.mkfifo(path)
    handler = AsyncFileHandler(
        path, delay=True, ring_bytes=65536, block_timeout=0.05, close_timeout=0.0
    )
    fill = 65536 // 40

    log(handler, 0, fill)
    before = handler.stats().dropped
    began = time.monotonic()
    while handler.stats().dropped == before:
        log(handler, 0, 1)

    assert time.monotonic() - began >= 0.05
    threading.Thread(target=path.read_bytes, daemon=True).start()
    assert handler.flush(timeout=10).done
    handler.close()


async def test_a_loop_never_waits_for_room(path):
    os.mkfifo(path)
    handler = AsyncFileHandler(
        path, delay=True, ring_bytes=65536, block_timeout=3600.0, close_timeout=0.0
    )

    log(handler, 0, 4000)

    assert handler.stats().dropped > 0
    threading.Thread(target=path.read_bytes, daemon=True).start()
    assert await handler.flush(timeout=10) is True
    await handler.aclose()


def test_a_rotation_that_fails_keeps_the_old_file(path, told, capfd):
    handler = AsyncFileHandler(
        path, max_bytes=2000, backup_count=2, on_error=told.append
    )
    # A folder that can't be removed stands where the last backup goes.
    for n in (1, 2):
        (path.parent / f"app.txt.{n}" / "in the way").mkdir(parents=True)

    log(handler, 0, 200)
    handler.flush()

    assert handler.stats().written == 200
    assert handler.stats().failed_rotations >= 1
    assert handler.stats().rotations == 0
    assert len(path.read_text().splitlines()) == 200
    until(lambda: told)
    assert "rotation failed" in str(told[0])

    def fails_again():
        log(handler, 0, 1)
        handler.flush()
        return handler.stats().failed_rotations >= 3

    until(fails_again)
    handler.close()
    # Every failure is counted, and their series told once.
    assert len(told) == 1
    assert capfd.readouterr().err.count("rotation failed") == 1
