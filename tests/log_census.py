"""Counting what became of log records: lost, twice, torn, out of order.

A record is `<writer>:<number>:<filling>.`; writers number theirs from 0.
"""

import gzip
import itertools
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

RECORD = re.compile(rb"([\w-]+):(\d+):(x*)\.")


@dataclass
class Census:
    """What the files hold, by writer."""

    numbers: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    torn: list[bytes] = field(default_factory=list)

    @property
    def twice(self) -> int:
        return sum(len(found) - len(set(found)) for found in self.numbers.values())

    @property
    def disordered(self) -> int:
        return sum(
            later <= earlier
            for found in self.numbers.values()
            for earlier, later in itertools.pairwise(found)
        )

    def lost(self, accepted: dict[str, int]) -> int:
        """Of the records that `accepted` counts per writer, those not found."""
        return sum(
            len(set(range(count)) - set(self.numbers[writer]))
            for writer, count in accepted.items()
        )

    def invented(self, accepted: dict[str, int]) -> int:
        """Records found beyond those logged."""
        return sum(
            number > accepted.get(writer, -1)
            for writer, found in self.numbers.items()
            for number in found
        )


def files(path: Path) -> list[Path]:
    """The backups, oldest first, then the log itself."""

    def age(backup: Path) -> int:
        return int(backup.name.removeprefix(path.name + ".").split(".")[0])

    backups = [p for p in path.parent.iterdir() if p.name.startswith(path.name + ".")]
    return [*sorted(backups, key=age, reverse=True), path]


def content(file: Path) -> bytes:
    data = file.read_bytes()
    return gzip.decompress(data) if file.suffix == ".gz" else data


def take(path: Path) -> Census:
    census = Census()
    for line in lines(path):
        match = RECORD.fullmatch(line)
        if match:
            census.numbers[match[1].decode()].append(int(match[2]))
        else:
            census.torn.append(line)
    return census


def check(path: Path, *writers: str) -> dict[str, int]:
    """Hold the files against what each writer had counted; return that."""
    counted = {writer: accepted(path, writer) for writer in writers}
    census = take(path)
    counts = {
        "lost": census.lost(counted),
        "twice": census.twice,
        "torn": len(census.torn),
        "disordered": census.disordered,
        "invented": census.invented(counted),
    }
    assert counts == dict.fromkeys(counts, 0)
    return counted


def lines(path: Path) -> Iterator[bytes]:
    for file in files(path):
        if file.exists():
            data = content(file)
            assert data == b"" or data.endswith(b"\n"), f"{file} ends in a torn line"
            yield from data.splitlines()


# Opens the log as `handler` and `logger`; `log(n)` logs record `n` of `writer`
# and then counts it in the file `counter`, which outlives any death.
PRELUDE = """
import logging, mmap, os, signal, sys, threading, time
from mtaio.logging import AsyncFileHandler

path, writer, options = sys.argv[1], sys.argv[2], eval(sys.argv[3])
handler = AsyncFileHandler(path, **options)
logger = logging.Logger(writer)
logger.addHandler(handler)
folder = os.path.dirname(os.path.dirname(path))
with open(os.path.join(folder, writer + ".count"), "w+b") as file:
    file.truncate(8)
    counter = mmap.mmap(file.fileno(), 8)

def log(n, filling=40):
    logger.info("%s:%d:%s.", writer, n, "x" * filling)
    counter[:] = (n + 1).to_bytes(8, "little")

"""


def start(path: Path, writer: str, body: str, **options: object) -> "Process":
    """A process that runs `body` after the prelude."""
    command = [sys.executable, "-c", PRELUDE + body, str(path), writer, repr(options)]
    return Process(command, stderr=subprocess.PIPE)


class Process(subprocess.Popen[bytes]):
    """One that `finish` ends for good."""

    def finish(self, number: int | None = None) -> tuple[int, bytes]:
        """Send signal `number`, if any, and wait; exit code and standard error."""
        if number is not None:
            self.send_signal(number)
        # A forked child may keep the pipe open, so it isn't read to its end.
        self.wait(timeout=60)
        assert self.stderr is not None
        os.set_blocking(self.stderr.fileno(), False)
        error = self.stderr.read() or b""
        self.stderr.close()
        return self.returncode, error


def run(path: Path, writer: str, body: str, **options: object) -> tuple[int, bytes]:
    """The process's exit code and standard error."""
    return start(path, writer, body, **options).finish()


def accepted(path: Path, writer: str) -> int:
    """How many records `writer` had counted, however it ended."""
    counter = path.parent.parent / f"{writer}.count"
    return int.from_bytes(counter.read_bytes(), "little") if counter.exists() else 0


def recover(path: Path) -> None:
    """Open the log once more and close it."""
    code, error = run(path, "opener", "handler.close()")
    assert code == 0, error


def rings(path: Path) -> list[str]:
    """What the log left in shared memory; the hash is FNV-1a of its path."""
    mark = 0xCBF29CE484222325
    for byte in str(path).encode():
        mark = (mark ^ byte) * 0x100000001B3 % 2**64
    return [ring.name for ring in Path("/dev/shm").glob(f"mtaio-{mark:016x}-*")]
