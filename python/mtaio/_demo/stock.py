"""The dependency: a service that knows how much of an item is left.

It answers HTTP on a port of its own, so that it can be asked, probed and broken
like one on another machine.
"""

import json

from mtaio.exceptions import MTAIOError

from .http import Request, Response, Server, fetch


class StockError(MTAIOError):
    """The stock service gave no figure."""


class Stock:
    """The service and its client in one; it fails while `broken` is true.

    It has its port from the first moment, so that `url` can be told.
    """

    def __init__(self) -> None:
        self._server = Server(self._answer)
        self._server.bind()
        self.broken = False

    @property
    def url(self) -> str:
        """Where it can be asked whether it is well."""
        return f"http://127.0.0.1:{self._server.port}/health"

    async def start(self) -> None:
        """Answer from now on."""
        await self._server.start()

    async def stop(self) -> None:
        """Answer what was asked, and no more."""
        await self._server.stop()

    async def count(self, number: int) -> int:
        """How many of an item are left, asked over HTTP.

        Raises:
            StockError: There was no answer, or not one with a figure.
        """
        try:
            answer = await fetch(self._server.port, f"/stock/{number}")
        except (OSError, EOFError) as error:
            raise StockError(f"stock gave no answer: {error!r}") from error
        if answer.status != 200:
            raise StockError(f"stock answered {answer.status}")
        return int(json.loads(answer.body)["left"])

    async def _answer(self, request: Request) -> Response:
        if self.broken:
            return Response(503)
        if request.path == "/health":
            return Response(200)
        number = request.path.removeprefix("/stock/")
        if not (number.isascii() and number.isdecimal()):
            return Response(404)
        return Response(200, json.dumps({"left": int(number) * 7919 % 100}).encode())
