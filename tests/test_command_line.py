"""`python -m mtaio`: run, doctor and top, with their exit codes."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mtaio import __main__ as command_line
from mtaio import _checklist, _doctor
from mtaio._findings import Question, masked
from mtaio.app import ExitCode
from mtaio.config import Settings
from mtaio.monitoring import MetricFamily, ProbeServer, ResourceMonitor

ROOT = Path(__file__).parents[1]

SERVICE = """
from mtaio.app import Application

def make():
    app = Application()
    app.add("part", start=lambda: print("started", flush=True))
    return app

def short():
    from threading import Timer

    app = Application(grace_period=1)
    app.add("part", start=lambda: Timer(0.1, app.request_stop).start())
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

def whole():
    from mtaio.health import HealthMonitor
    from mtaio.monitoring import ProbeServer
    from mtaio.resources import ConcurrencyLimiter, RateLimiter, TimeoutManager

    health = HealthMonitor(probes=ProbeServer())
    health.check("db")(lambda: True)
    return Application(
        rate_limiter=RateLimiter(100),
        concurrency_limiter=ConcurrencyLimiter(10),
        timeout_manager=TimeoutManager(30),
        health=health,
        drain_delay=5,
        grace_period=40,
    )
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


KEPT = """
import sys, threading, time
from mtaio.__main__ import main

threading.Thread(target=time.sleep, args=(3600,), name="endless").start()
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("command", [["run", "service:short"], ["demo"]])
def test_run_and_demo_outlive_their_grace_period_by_nothing(service, command):
    settings = {"MTAIO_GRACE_PERIOD": "1", "MTAIO_DEMO_SECONDS": "0.1"}

    done = subprocess.run(
        [sys.executable, "-c", KEPT, *command],
        cwd=service,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == ExitCode.UNCLEAN, done.stderr
    assert re.search(r"(?m)^  thread endless at ", done.stderr)


@pytest.mark.parametrize(
    ("factory", "code", "told"),
    [
        ("service:broken", ExitCode.START_FAILED, "part failed to start: ZeroDivi"),
        ("service:misconfigured", ExitCode.BAD_SETTINGS, "MTAIO_CACHE_TTL must be"),
        ("service:nothing", 1, "must make an Application, it made None"),
        ("service:zebra", 2, "has no attribute 'zebra'"),
        ("zebra:make", 2, "No module named 'zebra'"),
        ("zebra.foal:make", 2, "No module named 'zebra'"),
        ("service", 2, "'service' is not of the form MODULE:FACTORY"),
        (".service:make", 2, "'.service:make' is not of the form MODULE:FACTORY"),
        ("service:__name__", 2, "is not a function"),
    ],
)
def test_run_says_why_it_does_not(service, factory, code, told):
    done = mtaio(service, "run", factory)

    assert done.returncode == code
    assert told in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("line", "code", "told"),
    [
        ("from mtaio.resources import *; RateLimiter(0)", 1, "rate must be a finite"),
        ("len(5)", 1, "object of type 'int' has no len"),
        ("import os; os.zebra", 1, "line 1, in <module>"),
        ("import zebra", 1, "line 1, in <module>"),
        (
            "from mtaio.config import *; Settings.from_env({'MTAIO_CACHE_TTL': '0'})",
            2,
            "bad settings:",
        ),
    ],
)
def test_what_a_module_raises_is_not_taken_for_a_bad_word(tmp_path, line, code, told):
    (tmp_path / "service.py").write_text(line)

    done = mtaio(tmp_path, "run", "service:make")

    assert done.returncode == code
    assert told in done.stderr


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
    assert {f["question"] for f in findings.values()} == {q.text for q in Question}
    assert [*dict.fromkeys(f["group"] for f in findings.values())] == [
        *("Configuration", "Monitoring", "Error handling", "Performance", "Security")
    ]
    assert set(findings) >= {
        *("workers", "rate limit", "memory", "grace period", "log folder"),
        *("log rotation", "CPU threshold", "memory threshold", "probe port"),
        *("file descriptors", "clock", "secrets"),
    }
    assert findings["grace period"]["level"] == "warn"


def test_the_questions_are_those_of_the_guides_checklist():
    guide = (ROOT / "docs" / "deployment.ja.md").read_text("utf-8")
    checklist = guide.partition("## デプロイチェックリスト")[2].partition("\n## ")[0]
    groups = re.split(r"(?m)^- ", checklist)[1:]

    assert [group.count("✓") for group in groups] == [3] * 5
    asked = [question.group for question in Question]
    assert [asked.count(group) for group in dict.fromkeys(asked)] == [3] * 5


@pytest.mark.parametrize(
    ("factory", "level"), [("service:whole", "ok"), ("service:make", "warn")]
)
def test_doctor_examines_an_application_too(service, factory, level):
    done = mtaio(service, "doctor", "--json", factory)

    findings = {f["item"]: f for f in json.loads(done.stdout)}
    assert done.returncode == 0, done.stderr
    assert findings["health checks"]["level"] == level
    assert findings["probes of health"]["level"] == level
    assert findings["the application"]["level"] == level
    assert findings["grace period"]["level"] == level
    assert findings["drain delay"]["level"] == level
    assert findings["error handler"]["level"] == "ok"


@pytest.mark.parametrize("options", [[], ["--json"], ["--env"], ["--env", "--json"]])
@pytest.mark.parametrize("file", [None, "SMTP_PASSWORD=hunter7\n"])
def test_doctor_prints_no_secret(monkeypatch, capsys, tmp_path, options, file):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_PASSWORD", "hunter2")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter3")
    monkeypatch.setenv("DATABASE_URL", "postgres://app:hunter4@db/app")
    monkeypatch.setenv("MTAIO_API_TOKEN", "hunter5")
    if file:
        (tmp_path / "settings.env").write_text(file)
        monkeypatch.setenv("MTAIO_SETTINGS_FILE", "settings.env")

    code = command_line.main(["doctor", *options])

    told = capsys.readouterr()
    assert code == (ExitCode.BAD_SETTINGS if file else 0)
    assert "hunter" not in told.out + told.err


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("MTAIO_API_TOKEN", "hunter2", "***"),
        ("MTAIO_URL", "redis://:hunter2@cache:6379/0", "redis://***@cache:6379/0"),
        ("MTAIO_URL", "https://example.org/a:b@c", "https://example.org/a:b@c"),
        ("MTAIO_LOG_FILE", "/var/log/app.log", "/var/log/app.log"),
    ],
)
def test_a_dumped_value_shows_no_secret(name, value, shown):
    assert masked(name, value) == shown


def test_doctor_warns_of_a_password_in_a_url(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("DATABASE_URL", "postgres://app:hunter2@db/app")
    monkeypatch.setenv("HOMEPAGE", "https://example.org/a:b@c")

    _, findings = examined(monkeypatch, capsys, LOG_FILE=tmp_path / "app.log")

    assert "DATABASE_URL" in findings["secrets"]["detail"]
    assert "HOMEPAGE" not in findings["secrets"]["detail"]


@pytest.mark.parametrize(
    ("settings", "item", "level"),
    [
        ({"PROBE_PORT": 0}, "probe port", "warn"),
        ({"PROBE_HOST": "0.0.0.0"}, "reach of the probes", "warn"),
        ({"PROBE_HOST": "::1"}, "reach of the probes", "ok"),
        ({"PROBE_HOST": "localhost"}, "reach of the probes", "ok"),
        ({"LOG_LEVEL": "DEBUG"}, "log level", "warn"),
        ({"LOG_LEVEL": "CRITICAL"}, "error log", "fail"),
        ({"DRAIN_DELAY": 0}, "drain delay", "warn"),
        ({"DRAIN_DELAY": 5, "GRACE_PERIOD": 40}, "grace period", "ok"),
        ({"DRAIN_DELAY": 5, "GRACE_PERIOD": 35}, "grace period", "warn"),
        ({"CONCURRENCY_LIMIT": 10**9}, "file descriptors", "warn"),
        ({"BURST_LIMIT": 1}, "rate limit", "warn"),
        ({"CPU_THRESHOLD": 1e-9}, "CPU threshold", "warn"),
    ],
)
def test_each_item_can_be_good_or_bad(stats, tmp_path, settings, item, level):
    environ = {f"MTAIO_{name}": str(value) for name, value in settings.items()}
    environ["MTAIO_LOG_FILE"] = str(tmp_path / "app.log")

    assert levels(stats, environ)[item] == level


@pytest.fixture(scope="module")
def stats():
    taken = asyncio.run(ResourceMonitor().get_current_stats())
    # An idle moment may have used none.
    return replace(taken, cpu=replace(taken.cpu, usage_percent=5.0))


def levels(stats, environ):
    matter = _checklist.Matter(Settings.from_env(environ), stats, environ)
    return {f.item: f.level for check in _checklist.CHECKS for f in check(matter)}


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
@pytest.mark.parametrize(("mode", "level"), [(0o600, "ok"), (0o644, "warn")])
def test_a_settings_file_is_nobody_elses(stats, tmp_path, mode, level):
    file = tmp_path / "settings.env"
    file.touch(mode)
    file.chmod(mode)

    found = levels(stats, {"MTAIO_SETTINGS_FILE": str(file)})

    assert found["settings file"] == level


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


def test_doctor_fails_when_the_log_is_there_and_can_not_be_opened(
    monkeypatch, capsys, tmp_path
):
    code, findings = examined(monkeypatch, capsys, LOG_FILE=tmp_path)

    assert code == 1
    assert findings["log folder"]["level"] == "fail"
    assert f"{tmp_path} can't be written" in findings["log folder"]["detail"]


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


def test_doctor_bears_that_nobody_reads_on(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)

    done = subprocess.run(
        [sys.executable, "-m", "mtaio", "doctor", "--env"],
        cwd=tmp_path,
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=60,
    )
    os.close(writer)

    assert (done.returncode, done.stderr) == (0, b"")


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
    assert command_line.main(["doctor", "--env", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told[0] == {
        "name": "MTAIO_MAX_WORKERS",
        "value": "7",
        "source": "environment",
        "accepts": "int >= 1",
    }
    assert "MTAIO_CACHE_TTL=300.0  (default; seconds > 0)" in lines


async def test_a_checklist_in_words_has_groups_questions_and_a_line_an_item(tmp_path):
    settings = Settings(log_file=str(tmp_path / "app.log"))
    findings = await _doctor.examine(settings, {})

    *lines, count = _doctor.as_text(findings).splitlines()

    indents = [len(line) - len(line.lstrip()) for line in lines]
    assert indents.count(0) == 5
    assert indents.count(2) == len(Question)
    told = [line.split()[0] for line in lines if line.startswith("    ")]
    assert told == [finding.level for finding in findings]
    assert count.startswith(f"{told.count('ok')} ok, {told.count('warn')} warn, 0 fail")


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
