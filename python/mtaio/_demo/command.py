"""`mtaio demo`: settings, the deployment, the page, and how it ended."""

import asyncio
import os
import sys
import webbrowser
from collections.abc import Mapping
from dataclasses import replace

from mtaio.app import ExitCode
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
        page = Page(port)
        # The servers watch their sockets, which Windows' default loop can't.
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            return runner.run(_deploy(settings, page, open_browser=open_browser))
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


async def _deploy(settings: Settings, page: Page, *, open_browser: bool) -> ExitCode:
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
        code = await deployment.run(show)
    finally:
        await page.stop()
        logger.removeHandler(log)
        await log.aclose()
    print(deployment.figures.summary(), flush=True)
    return code
