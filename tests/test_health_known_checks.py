"""The checks that come with the package, on real parts."""

import asyncio
import http.server
import logging
import math
import shutil
import socket
import threading
from types import SimpleNamespace

import pytest

from mtaio import health
from mtaio.cache import TTLCache
from mtaio.health import Status
from mtaio.logging import AsyncFileHandler
from mtaio.monitoring import ResourceMonitor
from mtaio.resources import ConcurrencyLimiter, RateLimiter


def monitor_with(**stats):
    async def get_current_stats():
        return SimpleNamespace(**stats)

    return SimpleNamespace(get_current_stats=get_current_stats)


@pytest.mark.parametrize(
    ("lag", "status"),
    [
        (0.0, Status.HEALTHY),
        (0.1, Status.DEGRADED),
        (0.99, Status.DEGRADED),
        (1.0, Status.UNHEALTHY),
    ],
)
async def test_loop_lag_is_graded_by_the_worst_loop(lag, status):
    loops = [SimpleNamespace(lag_p99_seconds=each) for each in (0.0, lag)]
    check = health.loop_lag(monitor_with(loop=SimpleNamespace(loops=loops)))

    assert (await check()).status is status


async def test_loop_lag_and_memory_are_read_from_a_real_monitor():
    async with ResourceMonitor(interval=0.05) as monitor:
        lag = await health.loop_lag(monitor, degraded=1e4, unhealthy=1e4)()
        memory = await health.memory_use(monitor, degraded=1e-9, unhealthy=100)()

    assert lag.status is Status.HEALTHY
    assert memory.status is Status.DEGRADED
    assert memory.reason.startswith("memory ")


@pytest.mark.parametrize(
    ("percent", "status"),
    [
        (None, Status.DEGRADED),
        (89.9, Status.HEALTHY),
        (90.0, Status.DEGRADED),
        (97.0, Status.UNHEALTHY),
    ],
)
async def test_memory_is_graded(percent, status):
    check = health.memory_use(monitor_with(memory=SimpleNamespace(percent=percent)))

    assert (await check()).status is status


def test_disk_space_is_what_the_system_tells(tmp_path):
    space = shutil.disk_usage(tmp_path)
    percent = 100 * space.used / (space.used + space.free)

    below = health.disk_space(tmp_path, degraded=percent / 2, unhealthy=1e3)()
    above = health.disk_space(tmp_path, degraded=1e3, unhealthy=1e3)()

    assert below.status is Status.DEGRADED
    assert above.status is Status.HEALTHY


async def test_a_log_that_can_not_be_written_is_down_and_recovers(tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir()
    handler = AsyncFileHandler(folder / "app.log", on_error=lambda _: None)
    check = health.log_writer(handler)
    logger = logging.Logger("known")
    logger.addHandler(handler)

    logger.info("fine")
    await handler.flush()
    assert check().status is Status.HEALTHY

    shutil.rmtree(folder)
    logger.info("lost?")
    for _ in range(200):
        if (told := check()).status is not Status.HEALTHY:
            break
        await asyncio.sleep(0.05)
    folder.mkdir()
    await handler.aclose()

    assert told.status is Status.UNHEALTHY
    assert told.reason


async def test_a_limiter_is_saturated_by_those_who_wait():
    limiter = ConcurrencyLimiter(limit=1)
    check = health.saturation(limiter, degraded=1, unhealthy=2)

    async def hold():
        async with limiter:
            await asyncio.sleep(3600)

    tasks = []
    found = []
    for _ in range(3):
        tasks.append(asyncio.create_task(hold()))
        await asyncio.sleep(0)
        found.append((await check()).status)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    assert found == [Status.HEALTHY, Status.DEGRADED, Status.UNHEALTHY]
    assert (await health.saturation(RateLimiter(1.0))()).status is Status.HEALTHY


async def test_a_cache_is_down_while_its_loads_fail():
    cache = TTLCache(max_size=10)
    check = health.cache_loads(cache)

    async def fail():
        raise OSError

    for key in range(3):
        with pytest.raises(OSError):
            await cache.get_or_set(key, fail)

    assert (await check()).status is Status.UNHEALTHY
    assert (await check()).status is Status.HEALTHY


async def test_tcp_tells_whether_somebody_accepts():
    server = await asyncio.start_server(lambda _, w: w.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    assert (await health.tcp("127.0.0.1", port)()).status is Status.HEALTHY
    server.close()
    await server.wait_closed()
    with pytest.raises(OSError):
        await health.tcp("127.0.0.1", port)()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/fine?a=b", Status.HEALTHY),
        ("", Status.HEALTHY),
        ("/missing", Status.UNHEALTHY),
    ],
)
def test_http_tells_by_the_status(path, status):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path in ("/fine?a=b", "/") else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        result = health.http_get(f"http://127.0.0.1:{server.server_port}{path}")()
        thread.join()

    assert result.status is status
    assert "a=b" not in result.reason  # may be a token, and /healthz shows it


def test_http_gives_up_after_its_timeout():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        check = health.http_get(
            f"http://127.0.0.1:{silent.getsockname()[1]}/", timeout=0.05
        )
        with pytest.raises(TimeoutError):
            check()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: health.disk_space("/", degraded=0), ValueError, "degraded must be"),
        (lambda: health.disk_space("/", degraded=True), TypeError, "degraded must be"),
        (
            lambda: health.disk_space("/", degraded=90, unhealthy=80),
            ValueError,
            "unhealthy must be at least degraded",
        ),
        (
            lambda: health.loop_lag(monitor_with(), degraded=math.nan),
            ValueError,
            "degraded must be",
        ),
        (
            lambda: health.saturation(RateLimiter(1.0), degraded=1.5),
            TypeError,
            "degraded must be an int",
        ),
        (lambda: health.tcp("", 80), ValueError, "host must be non-empty"),
        (lambda: health.tcp("a", 0), ValueError, "port must be"),
        (lambda: health.tcp("a", 65536), ValueError, "port must be 1 to 65535"),
        (lambda: health.http_get("ftp://a/"), ValueError, "url must be http://"),
        (lambda: health.http_get("http://"), ValueError, "url must be http://"),
        (
            lambda: health.http_get("http://app:hunter2@a"),
            ValueError,
            "^url must be without user and password, which would not be sent$",
        ),
        (lambda: health.http_get("http://a:99999"), ValueError, "url must have a port"),
        (lambda: health.http_get(7), TypeError, "url must be non-empty"),
        (
            lambda: health.http_get("http://a", timeout=-1),
            ValueError,
            "timeout must be",
        ),
    ],
)
def test_a_check_that_can_not_be_made_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
