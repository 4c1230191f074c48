"""mtaio: the production runtime for asyncio services.

Import what you need from its module: `mtaio.core`, `mtaio.cache`,
`mtaio.logging`, `mtaio.resources`, `mtaio.monitoring`, `mtaio.events`,
`mtaio.exceptions`, `mtaio.health`, `mtaio.app`, `mtaio.config`.
"""

from ._rust import __version__
from .exceptions import MTAIOError

__all__ = ("MTAIOError", "__version__")
