"""An ASGI app inside an application, for uvicorn and gunicorn."""

import asyncio

from lifecycle_child import Ready, part, say

from mtaio.app import Application
from mtaio.resources import ConcurrencyLimiter, RateLimiter, TimeoutManager

# Made at import: a server that preloads does so before it forks.
application = Application(
    rate_limiter=RateLimiter(rate=10_000, burst=1000),
    concurrency_limiter=ConcurrencyLimiter(limit=100),
    timeout_manager=TimeoutManager(default_timeout=10),
    health=Ready(),
    drain_delay=0.5,
)
application.add("db", **part("db"))


async def answer(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    name = scope["path"].strip("/")
    await application.handle(lambda: asyncio.sleep(0.02))
    say("answered", name)
    headers = [(b"content-length", b"2"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


mounted = application.asgi(answer)
