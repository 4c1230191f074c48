"""Start and stop of real processes: signals, deadlines, order, exit codes."""

import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from mtaio.app import ExitCode

CHILD = Path(__file__).with_name("lifecycle_child.py")
LOOPS = ["asyncio", "uvloop"]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


class Child:
    """The process, and the lines it has printed."""

    def __init__(self, scenario, loop="asyncio"):
        self.process = subprocess.Popen(
            [sys.executable, "-u", CHILD, scenario, loop],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            with self._news:
                self.lines.append(line.strip())
                self._news.notify_all()

    def wait_for(self, start, seconds=30):
        """The first line that begins so."""

        def found():
            return next((line for line in self.lines if line.startswith(start)), None)

        with self._news:
            assert self._news.wait_for(found, seconds), (start, self.lines)
            return found()

    def send(self, number):
        self.process.send_signal(number)

    def end(self, seconds=30):
        """The exit code; all lines are read when it is had."""
        code = self.process.wait(seconds)
        self._reader.join(seconds)
        self.errors = self.process.stderr.read()
        return code

    def at(self, line):
        return self.lines.index(line)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        self.process.stdout.close()
        self.process.stderr.close()


class Client(threading.Thread):
    """Asks on one connection until it is closed; keeps what was answered."""

    def __init__(self, port, name):
        super().__init__()
        self.port, self.label = port, name
        self.asked, self.answered, self.refused = [], [], []

    def run(self):
        with socket.create_connection(("127.0.0.1", self.port), 30) as connection:
            answers = connection.makefile("r")
            for number in range(100_000):
                line = f"{self.label}-{number}"
                try:
                    connection.sendall(f"{line}\n".encode())
                    self.asked.append(line)
                    answer = answers.readline().strip()
                except OSError:
                    return
                if answer == "refused":
                    self.refused.append(line)
                    return
                if not answer:
                    return
                assert answer == f"answer {line}"
                self.answered.append(line)


def load(child, clients):
    port = int(child.wait_for("port").split()[1])
    threads = [Client(port, f"client{n}") for n in range(clients)]
    for thread in threads:
        thread.start()
    child.wait_for("answered")
    return threads


def probe(url, path):
    """The status of one probe."""
    try:
        with urllib.request.urlopen(url + path, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.mark.parametrize("loop", LOOPS)
def test_a_sigterm_under_load_loses_no_request_and_stops_in_order(loop):
    with Child("under_load", loop) as child:
        clients = load(child, 8)
        child.wait_for("ready")

        child.send(signal.SIGTERM)

        code = child.end()
        for client in clients:
            client.join(30)
    answered = [line.split()[1] for line in child.lines if line.startswith("answered")]
    refused = [line.split()[1] for line in child.lines if line.startswith("refused")]
    assert code == ExitCode.CLEAN
    # Each request the service says it answered was answered, once, and no other.
    assert sorted(answered) == sorted(line for c in clients for line in c.answered)
    assert sorted(refused) == sorted(line for c in clients for line in c.refused)
    assert all(len(c.asked) - len(c.answered) <= 1 for c in clients)
    assert len(set(answered)) == len(answered) > len(clients)
    # Readiness failed first, and new requests were still taken: each client has
    # one under way at most.
    failed = child.at("unready a stop was asked for by a signal")
    draining = child.at("unready the application is draining")
    stopping = child.at("unready the application is stopping")
    drained = child.lines[draining:stopping]
    assert sum(line.startswith("answered") for line in drained) > len(clients)
    assert (
        failed
        < draining
        < stopping
        < child.at("server stopped")
        < child.at("db stops")
        < child.at("exit CLEAN")
    )


@pytest.mark.parametrize("loop", LOOPS)
def test_a_second_signal_skips_the_wait(loop):
    with Child("slow_to_answer", loop) as child:
        child.wait_for("ready")
        begun = time.monotonic()

        child.send(signal.SIGTERM)
        child.wait_for("unready the application is draining")
        child.send(signal.SIGINT)

        assert child.end() == ExitCode.CLEAN
        assert time.monotonic() - begun < 25
    assert child.at("server stopped") < child.at("db stopped")


def test_a_component_that_hangs_at_its_stop_is_cut_off_and_the_rest_stops():
    with Child("hangs_at_stop") as child:
        child.wait_for("hung started")
        begun = time.monotonic()

        child.send(signal.SIGTERM)

        assert child.end() == ExitCode.UNCLEAN
        assert time.monotonic() - begun < 15
    assert child.at("hung stops") < child.at("db stopped") < child.at("exit UNCLEAN")
    assert "hung stopped" not in child.lines


def ended_by_sigterm(scenario, once, loop="asyncio"):
    """The child, and the exit code it had after a SIGTERM once it printed `once`."""
    with Child(scenario, loop) as child:
        child.wait_for(once)

        child.send(signal.SIGTERM)

        return child, child.end()


@pytest.mark.parametrize("loop", LOOPS)
def test_a_component_that_ignores_its_cancellation_keeps_neither_rest_nor_process(loop):
    child, code = ended_by_sigterm("ignores_its_cancellation", "db started", loop)

    assert code == ExitCode.UNCLEAN
    # The rest was stopped, and `run` had returned.
    stopped = child.at("db stopped")
    assert child.at("stubborn stops") < stopped < child.at("exit UNCLEAN")
    assert "mtaio: ended with exit code 3; kept by\n" in child.errors
    assert re.search(r"\n  task mtaio:stubborn at .* in _live\n", child.errors)


def test_a_thread_that_sleeps_at_a_stop_does_not_keep_the_process():
    child, code = ended_by_sigterm("sleeps_in_a_thread", "db started")

    assert code == ExitCode.UNCLEAN
    assert "exit UNCLEAN" in child.lines
    assert re.search(r"\n  thread asyncio_0 at .*\n", child.errors)


def test_a_thread_without_end_keeps_the_process_no_longer_than_its_grace_period():
    child, code = ended_by_sigterm("has_a_thread_without_end", "db started")

    assert code == ExitCode.UNCLEAN
    assert "exit CLEAN" in child.lines
    assert re.search(r"\n  thread endless at .*\n", child.errors)
    # Logs are flushed, also those that keep records back.
    assert "kept back" in child.lines
    assert "the process is ended with exit code 3; kept by" in child.lines


def test_logs_are_flushed_though_nobody_reads_standard_error():
    child, code = ended_by_sigterm("has_nobody_to_read_its_errors", "db started")

    assert code == ExitCode.UNCLEAN
    assert "kept back" in child.lines
    assert "the process is ended with exit code 3; kept by" in child.lines


def test_an_interpreter_that_is_stuck_at_its_end_does_not_keep_the_process():
    child, code = ended_by_sigterm("is_stuck_at_its_end", "db started")

    assert code == ExitCode.UNCLEAN
    assert "exit CLEAN" in child.lines


def test_a_worker_process_is_ended_by_a_signal_as_without_an_application():
    child, code = ended_by_sigterm("has_a_worker", "ready")

    assert code == ExitCode.CLEAN
    assert child.errors == ""
    assert sum(line.startswith("unready a stop") for line in child.lines) == 1


@pytest.mark.parametrize("scenario", ["blocks_for_ever", "has_a_stuck_log"])
def test_neither_a_loop_that_is_blocked_for_ever_nor_a_log_keeps_the_process(scenario):
    child, code = ended_by_sigterm(scenario, "blocked")

    assert code == ExitCode.UNCLEAN
    assert re.search(r"\n  thread MainThread at .* in block\n", child.errors)


def test_a_process_that_nothing_keeps_ends_by_itself_and_says_nothing():
    child, code = ended_by_sigterm("under_systemd", "db started")

    assert code == ExitCode.CLEAN
    assert child.errors == ""


def test_a_failed_start_stops_what_ran_and_exits_with_its_code():
    with Child("fails_at_start") as child:
        assert child.end() == ExitCode.START_FAILED
    assert child.lines == [
        "db starts",
        "db started",
        "db stops",
        "db stopped",
        "failed: broken failed to start: OSError('no such host')",
        "exit START_FAILED",
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_the_start_stops_what_was_started(number):
    with Child("slow_to_start") as child:
        child.wait_for("slow starts")

        child.send(number)

        assert child.end() == ExitCode.CLEAN
    assert child.lines[-3:] == ["db stops", "db stopped", "exit CLEAN"]


@pytest.mark.parametrize("loop", LOOPS)
def test_readiness_fails_while_the_loop_is_still_blocked(loop):
    with Child("blocked", loop) as child:
        child.wait_for("blocked")

        child.send(signal.SIGTERM)

        assert child.end() == ExitCode.CLEAN
    assert child.at("unready a stop was asked for by a signal") < child.at("free")
    assert child.at("free") < child.at("db stopped")


def test_the_readiness_probe_fails_while_the_loop_is_still_blocked():
    with Child("probed") as child:
        url = child.wait_for("probes").split()[1]
        child.wait_for("blocked")
        before = probe(url, "/readyz"), probe(url, "/livez")

        child.send(signal.SIGTERM)
        deadline = time.monotonic() + 30
        while (after := probe(url, "/readyz")) == 200:
            assert time.monotonic() < deadline
        live = probe(url, "/livez")
        was_free = "free" in child.lines

        assert child.end() == ExitCode.CLEAN
    assert (before, after, live) == ((200, 200), 503, 200)
    assert not was_free


@pytest.mark.parametrize("loop", LOOPS)
def test_sighup_reloads_and_the_service_goes_on(loop):
    with Child("reloading", loop) as child:
        child.wait_for("ready")

        child.send(signal.SIGHUP)
        child.wait_for("reloaded")
        child.send(signal.SIGTERM)

        assert child.end() == ExitCode.CLEAN


@pytest.mark.skipif(sys.platform != "linux", reason="systemd is on Linux")
@pytest.mark.parametrize("loop", LOOPS)
def test_systemd_hears_of_ready_signs_of_life_and_the_stop(loop, tmp_path, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(30)
        with Child("under_systemd", loop) as child:
            heard = [systemd.recv(4096) for _ in range(4)]
            child.send(signal.SIGTERM)
            while heard[-1] != b"STOPPING=1":
                heard.append(systemd.recv(4096))

            assert child.end() == ExitCode.CLEAN
    assert heard[0] == b"READY=1"
    assert set(heard[1:-1]) == {b"WATCHDOG=1"}
