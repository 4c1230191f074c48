"""Emitting to 1 and 10 async listeners, against a plain loop over them.

The plain loop is what one would write by hand: an async function that awaits
one listener after the other. It has no priorities, patterns, isolation of
errors, `once`, or event object.
"""

import asyncio

from aiosignal import Signal
from blinker import Signal as BlinkerSignal
from pyee.asyncio import AsyncIOEventEmitter

import measure
from mtaio.events import EventEmitter

EMITS = 2_000
REPEATS = 25


def candidates(count):
    async def listener(event):
        pass

    listeners = [listener] * count

    async def plain_emit(data):
        for each in listeners:
            await each(data)

    emitter = EventEmitter()
    signal = Signal(object())
    # blinker and pyee keep one registration per function: give each its own.
    own = [make_listener() for _ in range(count)]
    blinker, pyee = BlinkerSignal(), AsyncIOEventEmitter()
    for each in own:
        emitter.add_listener("e", each)
        signal.append(each)
        blinker.connect(each)
        pyee.on("e", each)
    signal.freeze()

    async def plain():
        for _ in range(EMITS):
            await plain_emit(1)

    async def inline():
        for _ in range(EMITS):
            for each in listeners:
                await each(1)

    async def mtaio():
        for _ in range(EMITS):
            await emitter.emit("e", 1)

    async def aiosignal():
        for _ in range(EMITS):
            await signal.send(1)

    async def blinker_signal():
        for _ in range(EMITS):
            await blinker.send_async(1)

    async def pyee_emitter():
        for _ in range(EMITS):
            pyee.emit("e", 1)
            await pyee.wait_for_complete()

    return {
        "plain loop in a function": plain,
        "plain loop, inlined": inline,
        "mtaio": mtaio,
        "aiosignal": aiosignal,
        "blinker": blinker_signal,
        "pyee": pyee_emitter,
    }


def make_listener():
    async def listener(event):
        pass

    return listener


async def main():
    for count in (1, 10):
        seconds = await measure.per_run(candidates(count), REPEATS)
        measure.table(
            f"emit to {count} async listener(s)",
            seconds,
            next(iter(seconds)),
            faster=False,
            per=EMITS,
        )


if __name__ == "__main__":
    asyncio.run(main())
