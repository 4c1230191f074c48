"""The load the demo puts on itself: clients that ask, wait and ask again."""

import asyncio
import itertools
import random
from collections import Counter

from .http import HOST, Response, Server, ask

# Some keys are asked for far more often than others, as in life.
ITEMS = 5000
SKEW = 1.1


class Load:
    """`clients` connections that keep asking one server until they are stopped."""

    def __init__(self, server: Server, *, clients: int, pause: float) -> None:
        self._server = server
        self._clients = clients
        self._pause = pause
        self._numbers = itertools.count(1)
        self._random = random.Random(7)
        weights = (1 / rank**SKEW for rank in range(1, ITEMS + 1))
        self._cumulative = list(itertools.accumulate(weights))
        self._tasks: list[asyncio.Task[None]] = []
        self.answers: Counter[int] = Counter()
        self.unanswered = 0

    async def start(self) -> None:
        """Let every client begin, at a moment of its own."""
        clients = range(self._clients)
        self._tasks = [asyncio.create_task(self._client()) for _ in clients]

    async def stop(self) -> None:
        """Stop asking; what was asked is waited for."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    async def _client(self) -> None:
        while True:
            await asyncio.sleep(self._pause * self._random.random())
            try:
                reader, writer = await self._connect()
            except OSError:
                continue  # it does not listen (any more)
            try:
                while answer := await self._ask_whole(reader, writer):
                    if answer.headers["connection"] == "close":
                        return  # it leaves, so ask elsewhere
                    pause = self._pause * self._random.uniform(0.5, 1.5)
                    await asyncio.sleep(pause)
            finally:
                writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(HOST, self._server.port)

    async def _ask_whole(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Response | None:
        """Ask once; a stop that comes amid waits for the answer."""
        exchange = asyncio.ensure_future(self._ask(reader, writer))
        try:
            return await asyncio.shield(exchange)
        except asyncio.CancelledError:
            await asyncio.wait({exchange})
            raise

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Response | None:
        """The answer, None if there was none."""
        item = self._random.choices(range(ITEMS), cum_weights=self._cumulative)[0]
        name = {"X-Request-Id": f"load-{next(self._numbers)}"}
        try:
            answer = await ask(reader, writer, f"/items/{item}", name)
        except (ConnectionError, asyncio.IncompleteReadError):
            # Closed before it was read: such a request was not accepted.
            self.unanswered += 1
            return None
        self.answers[answer.status] += 1
        return answer
