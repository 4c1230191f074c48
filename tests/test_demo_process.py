"""The demo as people start it: figures, log, stop, bad settings."""

import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections import Counter

import pytest

from demo_process import Demo, environment, run
from mtaio.app import ExitCode

MARK = " - mtaio.access - INFO - "
LIVE = re.compile(
    r"(?:healthy|degraded) +cpu +(\d+\.\d) %  memory +(\d+\.\d) % +(\d+) req/s"
)


def logged(folder):
    """Status by request id, of every file of the log; each id once."""
    lines = [
        line
        for file in folder.glob("app.log*")
        for line in file.read_text("utf-8").splitlines()
    ]
    found = [line.split(MARK)[1] for line in lines if MARK in line]
    requests = {}
    for entry in found:
        name, _, status = entry.split()[:3]
        assert name not in requests, f"{name} was logged twice"
        requests[name] = int(status)
    return requests


def summary(output):
    """How many answers of each status the load counted."""
    told = re.search(r"asked and answered (\d+) \((.*)\)", output)
    answers = {int(s): int(n) for n, s in re.findall(r"(\d+) x (\d+)", told[2])}
    assert sum(answers.values()) == int(told[1])
    return answers


def test_a_bounded_run_works_and_logs_every_request_once(tmp_path):
    done = run(tmp_path, DEMO_SECONDS=3)

    assert done.returncode == ExitCode.CLEAN, done.stderr
    figures = [LIVE.match(line) for line in done.stdout.splitlines()]
    figures = [match for match in figures if match]
    assert len(figures) >= 2
    assert all(0 <= float(match[1]) <= 100 for match in figures)
    assert all(0 < float(match[2]) <= 100 for match in figures)
    assert sum(int(match[3]) for match in figures) > 0
    assert Counter(logged(tmp_path).values()) == summary(done.stdout)
    assert summary(done.stdout)[200] > 0


def test_rotation_loses_no_request(tmp_path):
    done = run(tmp_path, DEMO_SECONDS=2, LOG_MAX_BYTES=4000, LOG_BACKUP_COUNT=100)

    assert done.returncode == ExitCode.CLEAN, done.stderr
    assert len(list(tmp_path.glob("app.log*"))) > 3
    assert Counter(logged(tmp_path).values()) == summary(done.stdout)


def test_tight_limits_refuse_and_still_log_every_request_once(tmp_path):
    done = run(
        tmp_path, DEMO_SECONDS=2, RATE_LIMIT=10, BURST_LIMIT=5, DEFAULT_TIMEOUT=0.5
    )

    assert done.returncode == ExitCode.CLEAN, done.stderr
    answers = summary(done.stdout)
    assert answers[429] > answers[200] > 0
    assert answers[200] <= 5 + 10 * 10
    assert Counter(logged(tmp_path).values()) == answers


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_loses_no_request_of_clients_outside(tmp_path, number):
    settings = {"DRAIN_DELAY": 0.5, "RATE_LIMIT": 1000, "BURST_LIMIT": 1000}
    with Demo(tmp_path, **settings) as demo:
        assert demo.probe("readyz").status == 200
        url = f"{demo.service}/items/1"
        clients = [Client(url, f"outside{n}") for n in range(4)]
        for client in clients:
            client.start()
        demo.process.stdout.readline()

        demo.process.send_signal(number)

        output = demo.rest()
        assert demo.process.returncode == ExitCode.CLEAN
        for client in clients:
            client.join(30)
    requests = logged(tmp_path)
    answered = {name: status for c in clients for name, status in c.answers.items()}
    assert len(answered) > len(clients)
    assert answered == {n: s for n, s in requests.items() if n.startswith("outside")}
    own = Counter(s for n, s in requests.items() if n.startswith("load"))
    assert own == summary(output)


SIGNALLED = """
import signal, sys
from mtaio._demo import command

class Deployment(command.Deployment):
    def __init__(self, *given):
        if sys.argv[1] == "before":
            signal.raise_signal(signal.SIGTERM)
        super().__init__(*given)
        if sys.argv[1] == "after":
            signal.raise_signal(signal.SIGTERM)

command.Deployment = Deployment
sys.exit(command.demo(0, open_browser=False))
"""


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_signal_before_the_application_runs_ends_it_cleanly(tmp_path, moment):
    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED, moment],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == ExitCode.CLEAN, done.stderr
    assert "serving" not in done.stdout


def test_bad_settings_are_listed_together_and_exit_with_2(tmp_path):
    done = run(tmp_path, RATE_LIMIT="fast", MAX_WORKERS=0, CACHE_TLL=5)

    assert done.returncode == ExitCode.BAD_SETTINGS
    assert done.stdout == ""
    assert "MTAIO_RATE_LIMIT must be a finite number > 0, got 'fast'" in done.stderr
    assert "MTAIO_MAX_WORKERS must be an int >= 1, got 0" in done.stderr
    assert "MTAIO_CACHE_TLL is unknown, did you mean MTAIO_CACHE_TTL?" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_keeps_it_from_starting_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for_page = run(tmp_path, "--port", str(port))
        for_probes = run(tmp_path, PROBE_PORT=port)
    without_log = run(tmp_path, LOG_FILE=tmp_path / "missing" / "app.log")

    assert f" cannot listen on 127.0.0.1:{port}: " in for_page.stderr
    assert f"probes cannot listen on 127.0.0.1:{port}: " in for_probes.stderr
    assert "missing" in without_log.stderr
    for done in (for_page, for_probes, without_log):
        assert done.returncode == ExitCode.START_FAILED
        assert "not started: " in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("port", ["-1", "65536", "http", ""])
def test_a_port_that_is_none_is_refused(tmp_path, port):
    done = run(tmp_path, f"--port={port}")

    assert done.returncode == 2
    assert f"must be 0 to 65535, got '{port}'" in done.stderr


class Client(threading.Thread):
    """Asks until nobody listens; keeps the answers by request id."""

    def __init__(self, url, label):
        super().__init__()
        self.url, self.label = url, label
        self.answers = {}

    def run(self):
        for number in range(100_000):
            name = f"{self.label}-{number}"
            request = urllib.request.Request(self.url, headers={"X-Request-Id": name})
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    answer.read()
                    self.answers[name] = answer.status
            except urllib.error.HTTPError as error:
                self.answers[name] = error.code
                error.close()
            except OSError:
                return
