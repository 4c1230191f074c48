"""`mtaio demo`: settings, the deployment, the page, and how it ended."""

import asyncio
import os
import signal
import sys
import webbrowser
from collections.abc import Mapping
from dataclasses import replace
from typing import Self

from mtaio.app import Application, ExitCode
from mtaio.config import Settings
from mtaio.exceptions import MTAIOError

from .deployment import Deployment, logger, setup_logging
from .page import Page

# A drain that can be watched, where the environment says nothing of it.
DRAIN_DELAY = 2.0


def demo(port: int, *, open_browser: bool) -> ExitCode:
    """Run until stopped.

    Args:
        port: For the page; 0 for any free one.
        open_browser: Show the page in the browser of whoever started it.

    Raises:
        SettingsError: The environment's settings are bad.
    """
    settings = demo_settings(os.environ)
    try:
        with EarlyStop() as early:
            page = Page(port)
            deploy = _deploy(settings, page, early, open_browser=open_browser)
            # The servers watch their sockets, which Windows' default loop can't.
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                return runner.run(deploy)
    except (MTAIOError, OSError) as error:
        print(f"not started: {error}", file=sys.stderr)
        return ExitCode.START_FAILED


def demo_settings(environ: Mapping[str, str]) -> Settings:
    """The environment's settings; a short drain unless it says how long."""
    settings = Settings.from_env(environ)
    if "MTAIO_DRAIN_DELAY" in environ or settings.settings_file:
        return settings
    delay = min(DRAIN_DELAY, settings.grace_period / 2)
    return replace(settings, drain_delay=delay)


class EarlyStop:
    """Hears the stop signals before the application does, which then starts nothing."""

    def __init__(self) -> None:
        self._app: Application | None = None
        self._asked = False

    def give_to(self, app: Application) -> None:
        """Let `app` know, now or later; from its `run` on it hears by itself."""
        self._app = app
        if self._asked:
            app.request_stop()

    def _on_signal(self, *_: object) -> None:
        self._asked = True
        if self._app is not None:
            self._app.request_stop()

    def __enter__(self) -> Self:
        numbers = (signal.SIGTERM, signal.SIGINT)
        self._before = {n: signal.signal(n, self._on_signal) for n in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


async def _deploy(
    settings: Settings, page: Page, early: EarlyStop, *, open_browser: bool
) -> ExitCode:
    log = setup_logging(settings)

    async def show() -> None:
        page.start(deployment)
        print(f"page at {page.origin}/ (Ctrl-C stops it)", flush=True)
        if settings.demo_seconds:
            loop = asyncio.get_running_loop()
            loop.call_later(settings.demo_seconds, deployment.app.request_stop)
        if open_browser:
            await asyncio.to_thread(webbrowser.open, page.origin)

    try:
        deployment = Deployment(settings, log, page.origin)
        early.give_to(deployment.app)
        code = await deployment.run(show)
    finally:
        await page.stop()
        logger.removeHandler(log)
        await log.aclose()
    print(deployment.figures.summary(), flush=True)
    return code
