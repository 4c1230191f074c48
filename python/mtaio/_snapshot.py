"""The snapshot file of a cache: plain records, checked before any is used.

Layout, little-endian: the magic line, the wall-clock second of saving (f64), the
number of records (u64), the records, and the CRC-32 of all before it (u32). A
record is the seconds left (f64, infinity for ever), then key and value, each as
one kind byte, a length (u64) and that many bytes.
"""

import os
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from .exceptions import CacheSerializationError

__all__ = ("Record", "read", "write")

# Key, value, seconds left (None for ever).
Record = tuple[Any, Any, float | None]

_MAGIC = b"mtaio cache 1\n"
_HEAD = struct.Struct("<dQ")
_LEFT = struct.Struct("<d")
_PART = struct.Struct("<cQ")
_SUM = struct.Struct("<I")
_FOREVER = float("inf")


def write(
    path: Path,
    records: Iterable[Record],
    encode: Callable[[Any], bytes] | None,
    wall: float,
) -> int:
    """Write all `records`, then put the file in place at once; their number."""
    body = bytearray()
    count = 0
    for key, value, left in records:
        body += _LEFT.pack(_FOREVER if left is None else left)
        _put(body, key, encode)
        _put(body, value, encode)
        count += 1
    whole = _MAGIC + _HEAD.pack(wall, count) + body
    _replace(path, whole + _SUM.pack(zlib.crc32(whole)))
    return count


def read(
    path: Path, decode: Callable[[bytes], Any] | None, wall: float
) -> list[Record]:
    """Return the records still alive at `wall`; the file is checked whole first."""
    whole = path.read_bytes()
    least = len(_MAGIC) + _HEAD.size + _SUM.size
    if not whole.startswith(_MAGIC) or len(whole) < least:
        raise CacheSerializationError(f"{path} is not a cache snapshot")
    end = len(whole) - _SUM.size
    if zlib.crc32(memoryview(whole)[:end]) != _SUM.unpack_from(whole, end)[0]:
        raise CacheSerializationError(f"{path} is torn: its checksum is wrong")
    saved, count = _HEAD.unpack_from(whole, len(_MAGIC))
    # A wall clock set back does not make entries live longer than they had.
    elapsed = max(0.0, wall - saved)
    records = list(_parse(whole, end, count, decode, path))
    return [
        (key, value, None if left == _FOREVER else left - elapsed)
        for key, value, left in records
        if left > elapsed
    ]


def _parse(
    whole: bytes,
    end: int,
    count: int,
    decode: Callable[[bytes], Any] | None,
    path: Path,
) -> Iterator[tuple[Any, Any, float]]:
    at = len(_MAGIC) + _HEAD.size
    try:
        for _ in range(count):
            (left,) = _LEFT.unpack_from(whole, at)
            key, at = _take(whole, at + _LEFT.size, decode)
            hash(key)  # what can't be a key is told before anything is set
            value, at = _take(whole, at, decode)
            yield key, value, left
    except (struct.error, TypeError, ValueError) as error:
        raise CacheSerializationError(f"{path} has a broken record: {error}") from error
    if at != end:
        raise CacheSerializationError(f"{path} has {end - at} bytes too many")


def _put(body: bytearray, item: Any, encode: Callable[[Any], bytes] | None) -> None:
    kind = type(item)
    if kind is str:
        tag, data = b"s", item.encode("utf-8", "surrogatepass")
    elif kind is bytes:
        tag, data = b"b", item
    elif kind is int:
        tag, data = b"i", b"%x" % item
    elif encode is None:
        raise CacheSerializationError(
            f"a snapshot holds str, bytes and int, got {kind.__name__}; pass encode="
        )
    else:
        tag, data = b"x", encode(item)
        if not isinstance(data, bytes):
            raise TypeError(f"encode() must return bytes, got {type(data).__name__}")
    body += _PART.pack(tag, len(data))
    body += data


def _take(
    whole: bytes, at: int, decode: Callable[[bytes], Any] | None
) -> tuple[Any, int]:
    tag, size = _PART.unpack_from(whole, at)
    at += _PART.size
    data = whole[at : at + size]
    if len(data) != size:
        raise ValueError(f"{size} bytes announced, {len(data)} found")
    if tag == b"s":
        return data.decode("utf-8", "surrogatepass"), at + size
    if tag == b"b":
        return data, at + size
    if tag == b"i":
        return int(data, 16), at + size
    if tag != b"x":
        raise ValueError(f"unknown kind {tag!r}")
    if decode is None:
        raise CacheSerializationError("the snapshot was encoded; pass decode=")
    return decode(data), at + size


def _replace(path: Path, whole: bytes) -> None:
    """A reader sees the old file or the new one, whole; so does a crash."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(whole)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
