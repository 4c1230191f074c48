"""`python -m examples.deployment`; its exit codes are those of `ExitCode`."""

import asyncio
import sys

from mtaio.app import ExitCode
from mtaio.config import Settings
from mtaio.exceptions import SettingsError, StartupError

from .service import deploy


def main() -> int:
    """Read the environment, run until stopped, say how it ended."""
    try:
        settings = Settings.from_env()
    except SettingsError as error:
        print("bad settings:", *error.faults, sep="\n  ", file=sys.stderr)
        return ExitCode.BAD_SETTINGS
    try:
        # The server watches its listening socket, which Windows' default loop can't.
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            return runner.run(deploy(settings))
    except StartupError as error:
        print(f"not started: {error}", file=sys.stderr)
        return ExitCode.START_FAILED


if __name__ == "__main__":
    sys.exit(main())
