"""Whatever way a process ends, what it had logged is in the files, once."""

import random
import signal
import time
from pathlib import Path

import pytest

import log_census

LOG_FOR_EVER = """
n = 0
while True:
    log(n)
    n += 1
"""
LOG_THEN = """
for n in range(4000):
    log(n)
"""

# Each numbers its own records; the process's counter is not used.
THREADS = """
def work(name):
    with open(os.path.join(folder, name + ".count"), "w+b") as file:
        file.truncate(8)
        own = mmap.mmap(file.fileno(), 8)
    n = 0
    while True:
        logger.info("%s:%d:%s.", name, n, "x" * (n * 7 % 90))
        n += 1
        own[:] = n.to_bytes(8, "little")

for t in range(3):
    threading.Thread(target=work, args=(f"{writer}-{t}",), daemon=True).start()
time.sleep(60)
"""
# `os._exit`: nothing else may write what is left.
SHUT_DOWN = """
logging.shutdown()
assert handler.stats().written == 4000
logging.shutdown()
os._exit(3)
"""


@pytest.fixture
def path(tmp_path):
    (tmp_path / "log").mkdir()
    return tmp_path / "log" / "app.txt"


@pytest.mark.parametrize("rotation", [{}, {"max_bytes": 20_000, "backup_count": 500}])
@pytest.mark.parametrize(
    "death",
    [
        "os.kill(os.getpid(), signal.SIGKILL)",
        "import ctypes; ctypes.string_at(0)",
        "os._exit(3)",
        "os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)",
        "sys.exit(3)",
        "raise RuntimeError",
        "os.abort()",
        "",
    ],
)
def test_no_death_loses_a_record(path, death, rotation):
    log_census.run(path, "dead", LOG_THEN + death, **rotation)
    log_census.recover(path)

    assert log_census.check(path, "dead") == {"dead": 4000}


@pytest.mark.parametrize("rotation", [{}, {"max_bytes": 2_000, "backup_count": 9999}])
def test_being_killed_at_any_moment_loses_nothing(path, rotation):
    moments = random.Random(7)
    writers = [f"w{n}" for n in range(8)]

    for writer in writers:
        process = log_census.start(path, writer, LOG_FOR_EVER, **rotation)
        while log_census.accepted(path, writer) < 100:
            time.sleep(0.001)
        time.sleep(moments.random() * 0.1)
        process.finish(signal.SIGKILL)
    log_census.recover(path)

    assert min(log_census.check(path, *writers).values()) >= 100


def test_recovery_happens_once_however_many_recover(path):
    log_census.run(path, "dead", LOG_THEN + "os.kill(os.getpid(), 9)", gather=5.0)

    openers = [
        log_census.start(path, f"w{n}", "log(0); handler.close()") for n in range(4)
    ]
    for opener in openers:
        assert opener.finish() == (0, b"")
    log_census.recover(path)

    assert log_census.check(path, "dead", "w0", "w1", "w2", "w3")["dead"] == 4000


def test_a_recovery_that_is_killed_is_carried_on(path):
    writers = [f"dead{n}" for n in range(3)]
    for writer in writers:
        body = "for n in range(20000): log(n)\nos._exit(1)"
        log_census.run(path, writer, body, gather=5.0, durable=True)
        # The opener dies at once, somewhere in its own recovery.
        opener = log_census.start(path, "opener", "time.sleep(9)")
        time.sleep(0.08)
        opener.finish(signal.SIGKILL)
    log_census.recover(path)

    log_census.check(path, *writers)


def test_another_process_mends_what_a_killed_one_left(path):
    """A living process completes a torn line before it writes its own."""
    rotation = {"max_bytes": 50_000, "backup_count": 9999}
    living = log_census.start(path, "living", LOG_FOR_EVER, **rotation)
    for n in range(5):
        dead = log_census.start(path, f"dead{n}", LOG_FOR_EVER, **rotation)
        while log_census.accepted(path, f"dead{n}") < 100:
            time.sleep(0.001)
        dead.finish(signal.SIGKILL)
    living.finish(signal.SIGTERM)
    log_census.recover(path)

    log_census.check(path, "living", *(f"dead{n}" for n in range(5)))


def test_being_killed_amid_threads_rotation_and_compression_loses_nothing(path):
    """Two processes of three threads at a time, and now and then who recovers."""
    options = {"max_bytes": 60_000, "backup_count": 9999, "compress": "gzip"}
    chance = random.Random(11)
    writers = []
    for n in range(6):
        pair = [f"k{n}p{m}" for m in range(2)]
        killed = [log_census.start(path, name, THREADS, **options) for name in pair]
        writers += [f"{name}-{thread}" for name in pair for thread in range(3)]
        for writer in writers[-6:]:
            while log_census.accepted(path, writer) < 500:
                time.sleep(0.001)
        time.sleep(chance.random() ** 2 * 0.2)
        for process in killed:
            process.finish(signal.SIGKILL)
        if n % 2:
            opener = log_census.start(path, "opener", "time.sleep(9)", **options)
            time.sleep(0.1 + chance.random() * 0.1)
            opener.finish(signal.SIGKILL)
    code, error = log_census.run(path, "opener", "handler.close()", **options)

    assert (code, error) == (0, b"")
    assert log_census.rings(path) == []
    leftover = [p.name for p in path.parent.iterdir() if p.name.startswith(".")]
    assert leftover == []
    assert any(p.suffix == ".gz" for p in path.parent.iterdir())
    assert min(log_census.check(path, *writers).values()) >= 500


def test_shutdown_writes_what_was_accepted_and_may_be_called_again(path):
    code, error = log_census.run(path, "app", LOG_THEN + SHUT_DOWN, gather=5.0)

    assert (code, error) == (3, b"")
    assert log_census.rings(path) == []
    assert log_census.check(path, "app") == {"app": 4000}


def test_another_versions_ring_is_told_and_left_to_it(path):
    log_census.run(path, "dead", LOG_THEN + "os._exit(1)", gather=5.0)
    (name,) = log_census.rings(path)
    ring = Path("/dev/shm") / name
    image = bytearray(ring.read_bytes())

    ring.write_bytes(image[:7] + b"\x7f" + image[8:])
    code, error = log_census.run(path, "other", "log(0); handler.close()")
    kept = ring.exists()
    ring.write_bytes(image)
    log_census.recover(path)

    assert code == 0
    assert error.count(b"another version of mtaio left records in") == 1
    assert kept
    assert log_census.check(path, "dead", "other") == {"dead": 4000, "other": 1}


def test_a_ring_that_says_nothing_is_told_and_removed(path):
    log_census.run(path, "dead", LOG_THEN + "os._exit(1)", gather=5.0)
    (name,) = log_census.rings(path)
    (Path("/dev/shm") / name).write_bytes(b"x" * 20_000)

    body = "log(0); handler.close(); print(handler.stats(), file=sys.stderr)"
    code, error = log_census.run(path, "opener", body)

    assert code == 0
    assert b"20000 bytes of a damaged ring were lost" in error
    assert b"corrupt_bytes=20000" in error
    assert log_census.rings(path) == []
    census = log_census.take(path)
    assert (census.numbers["opener"], census.torn) == ([0], [])
