"""The deployment guide's six blocks, run as they stand against the package."""

import ast
import asyncio
import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mtaio.exceptions import RateLimitError

GUIDE = Path(__file__).parents[2] / "docs" / "deployment.ja.md"
BLOCKS = re.findall(r"(?ms)^```python\n(.*?)^```$", GUIDE.read_text("utf-8"))
SETTINGS, LOGGING, RESOURCES, HEALTH, ERRORS, MAIN = BLOCKS


@pytest.fixture
def guide(tmp_path, monkeypatch):
    """Runs blocks one after the other in one module, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    logger = logging.getLogger("mtaio")
    handlers, level = list(logger.handlers), logger.level

    def run(*blocks):
        names = {"__name__": "guide"}
        for block in blocks:
            exec(compile(block, str(GUIDE), "exec"), names)
        return names

    yield run
    for handler in [h for h in logger.handlers if h not in handlers]:
        logger.removeHandler(handler)
        handler.close()
    logger.setLevel(level)


def test_the_guide_has_its_six_blocks_and_each_parses():
    assert len(BLOCKS) == 6
    assert all(ast.parse(block).body for block in BLOCKS)


async def test_block_1_reads_the_environment_into_an_executor_and_a_cache(
    guide, monkeypatch
):
    monkeypatch.setenv("MTAIO_CACHE_SIZE", "2")
    names = guide(SETTINGS)

    for key in "abc":
        await names["cache"].set(key, key.upper())
    async with names["executor"] as executor:
        doubled = await executor.map(_double, [1, 2, 3])

    assert list(doubled) == [2, 4, 6]
    assert len(names["cache"]) == 2


async def test_block_2_logs_to_the_file_in_the_guides_format(guide, tmp_path):
    names = guide(SETTINGS, LOGGING)
    await names["setup_logging"]()

    logging.getLogger("mtaio").info("ようこそ")
    (handler,) = logging.getLogger("mtaio").handlers
    await handler.aclose()

    (line,) = (tmp_path / "app.log").read_text("utf-8").splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \S+ - mtaio - INFO - ようこそ", line)


async def test_block_3_makes_limits_that_limit(guide, monkeypatch):
    monkeypatch.setenv("MTAIO_BURST_LIMIT", "3")
    monkeypatch.setenv("MTAIO_RATE_LIMIT", "0.001")
    monkeypatch.setenv("MTAIO_CONCURRENCY_LIMIT", "2")
    monkeypatch.setenv("MTAIO_DEFAULT_TIMEOUT", "0.01")
    names = guide(SETTINGS, LOGGING, RESOURCES)
    rate_limiter, concurrency, timeouts = await names["configure_resources"]()

    granted = [rate_limiter.try_acquire() for _ in range(4)]

    assert granted == [True, True, True, False]
    with pytest.raises(RateLimitError):
        await rate_limiter.acquire(timeout=0.1)
    assert concurrency.stats().limit == 2
    with pytest.raises(TimeoutError):
        await timeouts.run(asyncio.sleep(60))


async def test_block_4_reports_health_and_alerts_on_a_threshold(guide):
    names = guide(SETTINGS, LOGGING, RESOURCES, HEALTH)

    async with names["HealthMonitor"]() as health:
        alerted = asyncio.Event()
        seen = []

        @health.emitter.on("health_alert")
        async def on_alert(event):
            if event.data["metric"] == "memory_usage":
                seen.append(event.data)
                alerted.set()

        status = await health.get_health_status()
        # Below any real figure, so that the machine itself crosses it.
        health.monitor.set_threshold("memory_usage", 1e-6)
        await asyncio.wait_for(alerted.wait(), 30)

    assert set(status) == {"status", "cpu_usage", "memory_usage", "uptime"}
    assert status["status"] in ("healthy", "degraded")
    assert 0 <= status["cpu_usage"] <= 100
    assert 0 < status["memory_usage"] <= 100
    assert status["uptime"] > 0
    assert seen[0]["value"] >= seen[0]["threshold"] == 1e-6


async def test_block_5_logs_our_errors_and_the_unexpected_apart(guide, caplog):
    names = guide(SETTINGS, LOGGING, RESOURCES, HEALTH, ERRORS)
    handler = names["ErrorHandler"]()

    await handler.handle_error(RateLimitError("too fast", 1.0), {"user": 7})
    await handler.handle_error(ZeroDivisionError("by zero"))

    ours, unexpected = caplog.records
    assert (ours.levelno, ours.error_type) == (logging.ERROR, "RateLimitError")
    assert (ours.error_message, ours.context) == ("too fast", {"user": 7})
    assert unexpected.levelno == logging.CRITICAL
    assert unexpected.exc_info[0] is ZeroDivisionError


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM to another process")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_block_6_starts_and_stops_at_a_signal(tmp_path, number):
    script = tmp_path / "deployed.py"
    script.write_text("\n".join(BLOCKS), encoding="utf-8")
    log = tmp_path / "app.log"
    with subprocess.Popen([sys.executable, script], cwd=tmp_path, env=_clean()) as app:
        _wait_for(lambda: log.exists() and "正常に起動" in log.read_text("utf-8"))

        app.send_signal(number)

        assert app.wait(30) == 0


async def _double(number):
    return number * 2


def _clean():
    return {k: v for k, v in os.environ.items() if not k.startswith("MTAIO_")}


def _wait_for(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.02)
