"""`python -m mtaio`: run, doctor and top, with their exit codes."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from mtaio import __main__ as command_line
from mtaio import _doctor
from mtaio.app import ExitCode
from mtaio.config import Settings
from mtaio.monitoring import MetricFamily, ProbeServer

SERVICE = """
from mtaio.app import Application

def make():
    app = Application()
    app.add("part", start=lambda: print("started", flush=True))
    return app

async def make_later():
    return make()

def broken():
    app = Application()
    app.add("part", start=lambda: 1 / 0)
    return app

def misconfigured():
    from mtaio.config import Settings
    Settings.from_env({"MTAIO_MAX_WORKERS": "0", "MTAIO_CACHE_TTL": "0"})

def nothing():
    return None
"""


@pytest.fixture
def service(tmp_path):
    (tmp_path / "service.py").write_text(SERVICE)
    return tmp_path


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in [name for name in os.environ if name.startswith("MTAIO_")]:
        monkeypatch.delenv(name)


def mtaio(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "mtaio", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("factory", ["service:make", "service:make_later"])
def test_run_serves_until_it_is_told_to_stop(service, factory):
    with subprocess.Popen(
        [sys.executable, "-m", "mtaio", "run", factory],
        cwd=service,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "started\n"

        process.send_signal(signal.SIGTERM)

        assert process.wait(30) == ExitCode.CLEAN


@pytest.mark.parametrize(
    ("factory", "code", "told"),
    [
        ("service:broken", ExitCode.START_FAILED, "part failed to start: ZeroDivi"),
        ("service:misconfigured", ExitCode.BAD_SETTINGS, "MTAIO_CACHE_TTL must be"),
        ("service:nothing", 1, "must make an Application, it made None"),
        ("service:zebra", 2, "has no attribute 'zebra'"),
        ("zebra:make", 2, "No module named 'zebra'"),
        ("service", 2, "'service' is not of the form MODULE:FACTORY"),
        ("service:__name__", 2, "is not a function"),
    ],
)
def test_run_says_why_it_does_not(service, factory, code, told):
    done = mtaio(service, "run", factory)

    assert done.returncode == code
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def examined(monkeypatch, capsys, *options, **settings):
    for name, value in settings.items():
        monkeypatch.setenv(f"MTAIO_{name}", str(value))
    code = command_line.main(["doctor", "--json", *options])
    findings = {f["item"]: f for f in json.loads(capsys.readouterr().out)}
    return code, findings


def test_doctor_goes_through_the_checklist(monkeypatch, capsys, tmp_path):
    log = tmp_path / "app.log"

    code, findings = examined(monkeypatch, capsys, LOG_FILE=log, DRAIN_DELAY=5)

    assert code == 0
    assert set(findings) >= {
        *("workers", "rate limit", "memory", "grace period", "log folder"),
        *("log rotation", "CPU threshold", "memory threshold", "probe port"),
        *("file descriptors", "clock", "secrets"),
    }
    assert findings["grace period"]["level"] == "warn"


def test_doctor_fails_when_the_log_or_the_probes_can_not_work(
    monkeypatch, capsys, tmp_path
):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, findings = examined(
            monkeypatch,
            capsys,
            LOG_FILE=tmp_path / "missing" / "app.log",
            PROBE_PORT=taken.getsockname()[1],
        )

    assert code == 1
    assert findings["log folder"]["level"] == "fail"
    assert findings["probe port"]["level"] == "fail"


def test_doctor_warns_of_what_will_hurt(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("DATABASE_PASSWORD", "hunter2")

    code, findings = examined(
        monkeypatch,
        capsys,
        LOG_FILE=tmp_path / "app.log",
        LOG_MAX_BYTES=0,
        MAX_WORKERS=100_000,
        MEMORY_THRESHOLD=1e-6,
    )

    warned = {item for item, f in findings.items() if f["level"] == "warn"}
    assert code == 0
    assert warned >= {"log rotation", "workers", "memory threshold", "secrets"}
    assert "DATABASE_PASSWORD" in findings["secrets"]["detail"]
    assert "hunter2" not in str(findings)


def test_doctor_reports_bad_settings_together(monkeypatch, capsys):
    monkeypatch.setenv("MTAIO_CACHE_SIZE", "0")
    monkeypatch.setenv("MTAIO_RATE_LIMIT", "?")

    assert command_line.main(["doctor"]) == ExitCode.BAD_SETTINGS

    told = capsys.readouterr().err
    assert "MTAIO_CACHE_SIZE" in told
    assert "MTAIO_RATE_LIMIT" in told


def test_doctor_prints_each_variable_with_its_source(monkeypatch, capsys):
    monkeypatch.setenv("MTAIO_MAX_WORKERS", "7")

    assert command_line.main(["doctor", "--env"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert "MTAIO_MAX_WORKERS=7  (environment; int >= 1)" in lines
    assert "MTAIO_CACHE_TTL=300.0  (default; seconds > 0)" in lines


async def test_a_checklist_in_words_has_one_line_an_item(tmp_path):
    settings = Settings(log_file=str(tmp_path / "app.log"))
    findings = await _doctor.examine(settings, {})

    lines = _doctor.as_text(findings).splitlines()

    assert len(lines) == len(findings)
    assert all(line.split()[0] in ("ok", "warn", "fail") for line in lines)


def test_the_command_line_explains_itself(capsys):
    with pytest.raises(SystemExit) as stopped:
        command_line.main(["--help"])

    assert stopped.value.code == 0
    assert "doctor" in capsys.readouterr().out


def test_top_shows_a_process(capsys):
    probes = ProbeServer()
    probes.publish_metrics([MetricFamily("counter", "jobs", "Jobs.", 10)])
    probes.start()
    try:
        code = command_line.main(["top", probes.url, "--count", "1"])
    finally:
        probes.stop()

    assert code == 0
    assert "jobs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ftp://localhost"], "url must be like"),
        (["http://127.0.0.1:1"], "no metrics from"),
        (["http://127.0.0.1:1", "--interval", "0"], "interval must be"),
    ],
)
def test_top_says_why_it_shows_nothing(capsys, words, said):
    assert command_line.main(["top", *words]) == 1
    assert said in capsys.readouterr().err
