"""One log under many threads, many processes and many forks."""

import logging
import threading

import pytest

import log_census
from mtaio.logging import AsyncFileHandler

ROTATION = {"max_bytes": 100_000, "backup_count": 9999}


@pytest.fixture
def path(tmp_path):
    (tmp_path / "log").mkdir()
    return tmp_path / "log" / "app.txt"


def test_threads_lose_and_reorder_nothing_over_rotations(path):
    handler = AsyncFileHandler(path, **ROTATION)
    logger = logging.Logger("threads")
    logger.addHandler(handler)

    def work(writer):
        for n in range(20_000):
            logger.info("%s:%d:%s.", writer, n, "x" * 20)

    threads = [threading.Thread(target=work, args=(f"t{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    handler.close()

    census = log_census.take(path)
    expected = {f"t{n}": 20_000 for n in range(4)}
    assert handler.stats().accepted == handler.stats().written == 80_000
    assert (census.lost(expected), census.twice, census.torn) == (0, 0, [])
    assert census.disordered == 0
    assert handler.stats().rotations > 10


def test_processes_share_a_rotating_file(path):
    writers = [f"p{n}" for n in range(4)]
    body = "for n in range(10_000): log(n)\nhandler.close()"

    processes = [log_census.start(path, w, body, **ROTATION) for w in writers]
    for process in processes:
        assert process.finish() == (0, b"")

    assert set(log_census.check(path, *writers).values()) == {10_000}
    sizes = [file.stat().st_size for file in log_census.files(path)]
    assert max(sizes) <= 100_000


FORKS = """
def child(name):
    own = logging.Logger(name)
    own.addHandler(handler)
    for n in range(50):
        own.info("%s:%d:.", name, n)
    handler.close()
    os._exit(0)

def chatter():
    n = 0
    while not done:
        log(n)
        n += 1
        if n % 20 == 0:  # a writer without end would rotate without end
            time.sleep(0.001)

done = False
thread = threading.Thread(target=chatter)
if {noisy}:
    thread.start()
for number in range(20):
    pid = os.fork()
    if pid == 0:
        child("child%d" % number)
    deadline = time.monotonic() + 30
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(pid, 9)
            sys.exit("child hung")
        time.sleep(0.001)
done = True
if {noisy}:
    thread.join()
else:
    for n in range(100): log(n)
handler.close()
"""


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_forked_children_log_on(path, noisy):
    body = FORKS.replace("{noisy}", str(noisy))

    code, error = log_census.run(path, "parent", body, **ROTATION)

    assert code == 0, error
    census = log_census.take(path)
    expected = {f"child{n}": 50 for n in range(20)}
    expected["parent"] = log_census.accepted(path, "parent")
    assert expected["parent"] >= 100 * (not noisy)
    assert (census.lost(expected), census.twice, census.torn) == (0, 0, [])
    assert census.disordered == 0


def test_a_child_does_not_keep_a_killed_parents_records(path):
    """The child lives on; the next opener must still get the parent's ring."""
    body = """
for n in range(1000): log(n)
if os.fork() == 0:
    time.sleep(20)
    os._exit(0)
os.kill(os.getpid(), 9)
"""
    log_census.run(path, "parent", body, gather=5.0)

    log_census.recover(path)

    assert log_census.check(path, "parent") == {"parent": 1000}


def test_multiprocessing_by_fork_works(path):
    body = """
import multiprocessing
def work(number):
    logger.info("m%d:0:.", number)
    handler.flush()
context = multiprocessing.get_context("fork")
log(0)
with context.Pool(2) as pool:
    pool.map(work, range(10))
handler.close()
"""
    code, error = log_census.run(path, "parent", body)
    # The pool ends its workers by a signal: they close nothing.
    log_census.recover(path)

    assert code == 0, error
    census = log_census.take(path)
    expected = {f"m{n}": 1 for n in range(10)} | {"parent": 1}
    assert (census.lost(expected), census.twice, census.torn) == (0, 0, [])


def test_nothing_stays_in_shared_memory(path):
    body = "for n in range(100): log(n)\nlog(100, 3_000_000)\nos._exit(0)"
    log_census.run(path, "one", body, gather=5.0)
    assert len(log_census.rings(path)) == 2

    log_census.recover(path)

    assert log_census.rings(path) == []


def test_daemon_threads_that_log_do_not_harm_the_exit(path):
    """CPython ends them amid a call; that must not abort the process."""
    body = """
def chatter():
    while True:
        logger.info("daemon")
for _ in range(3):
    threading.Thread(target=chatter, daemon=True).start()
time.sleep(0.02)
"""
    for _ in range(6):
        assert log_census.run(path, "daemon", body) == (0, b"")
    log_census.recover(path)

    assert set(log_census.lines(path)) == {b"daemon"}


def test_a_fork_amid_the_first_record_does_not_hang(path):
    """What is made on first use must not be half made in the child."""
    body = """
thread = threading.Thread(target=lambda: [log(n) for n in range(200)])
thread.start()
pid = os.fork()
if pid == 0:
    logger.info("child:0:.")
    handler.close()
    os._exit(0)
deadline = time.monotonic() + 20
while os.waitpid(pid, os.WNOHANG) == (0, 0):
    if time.monotonic() > deadline:
        os.kill(pid, 9)
        os._exit(9)
    time.sleep(0.001)
thread.join()
"""
    for _ in range(6):
        code, error = log_census.run(path, "parent", body)
        assert code == 0, error
