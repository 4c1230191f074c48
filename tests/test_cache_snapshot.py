"""`save` and `load`: what lives comes back with the time it had left."""

import json
import os
import struct
import time
import zlib
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mtaio import _snapshot
from mtaio.cache import TTLCache
from mtaio.exceptions import CacheSerializationError

PLAIN = st.one_of(st.text(), st.binary(), st.integers())


# Each writes a file for good (fsync): as long as the disk takes.
@settings(deadline=None, max_examples=50)
@given(records=st.dictionaries(PLAIN, PLAIN), left=st.floats(0.001, 1e9))
@example(records={"\ud800": "\udfff"}, left=1.0)
def test_plain_keys_and_values_come_back_as_they_were(tmp_path_factory, records, left):
    path = tmp_path_factory.getbasetemp() / "plain"
    _snapshot.write(path, [(k, v, left) for k, v in records.items()], None, wall=5.0)

    back = _snapshot.read(path, None, wall=5.0)

    assert {k: v for k, v, _ in back} == records
    assert all(type(k) in (str, bytes, int) for k, _, _ in back)
    assert all(remaining == left for _, _, remaining in back)


async def test_remaining_times_survive(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    cache = TTLCache[str](default_ttl=None, clock=clock)
    cache.set_nowait("for ever", "x")
    cache.set_nowait("long", "y", 100.0)
    cache.set_nowait("short", "z", 5.0)
    clock.advance(1.0)
    assert await cache.save(tmp_path / "snapshot") == 3

    monkeypatch.setattr(time, "time", lambda: 1004.0)
    other = TTLCache[str](default_ttl=1.0, clock=clock)
    assert await other.load(tmp_path / "snapshot") == 2

    assert sorted(other) == ["for ever", "long"]
    clock.advance(94.999)
    assert sorted(other) == ["for ever", "long"]
    clock.advance(0.001)
    assert sorted(other) == ["for ever"]


async def test_the_time_that_loading_takes_counts_too(tmp_path, clock, monkeypatch):
    wall = [1000.0]
    monkeypatch.setattr(time, "time", lambda: wall[0])
    cache = TTLCache[list](clock=clock)
    cache.set_nowait("long", [], 100.0)
    cache.set_nowait("short", [], 5.0)
    await cache.save(tmp_path / "snapshot", encode=lambda value: b"")

    def decode(data):
        wall[0] += 10.0
        clock.advance(10.0)
        return []

    other = TTLCache[list](clock=clock)
    assert await other.load(tmp_path / "snapshot", decode=decode) == 1

    clock.advance(79.999)
    assert sorted(other) == ["long"]
    clock.advance(0.001)
    assert sorted(other) == []


async def test_a_wall_clock_set_back_gives_no_extra_time(tmp_path, clock, monkeypatch):
    cache = TTLCache[str](default_ttl=10.0, clock=clock)
    cache.set_nowait("key", "x")
    await cache.save(tmp_path / "snapshot")
    monkeypatch.setattr(time, "time", lambda: 0.0)

    await cache.load(tmp_path / "snapshot")

    clock.advance(10.0)
    assert cache.get_nowait("key") is None


async def test_other_types_go_through_the_callers_codec(tmp_path):
    path = tmp_path / "snapshot"
    cache = TTLCache[object]()
    cache.set_nowait("plain", "text")
    cache.set_nowait("object", {"a": [1, 2]})
    cache.set_nowait("bool", True)

    await cache.save(path, encode=lambda item: json.dumps(item).encode())
    other = TTLCache[object]()
    with pytest.raises(CacheSerializationError, match="pass decode="):
        await other.load(path)
    assert len(other) == 0
    await other.load(path, decode=json.loads)

    assert dict(other.items_nowait()) == dict(cache.items_nowait())
    assert other.get_nowait("bool") is True


async def test_a_value_without_a_codec_is_an_error_and_the_old_file_stays(tmp_path):
    path = tmp_path / "snapshot"
    path.write_bytes(b"old")
    cache = TTLCache[object]()
    cache.set_nowait("object", [1])

    with pytest.raises(CacheSerializationError, match="got list; pass encode="):
        await cache.save(path)
    cache.set_nowait("object", type("Name", (str,), {})("text"))
    with pytest.raises(CacheSerializationError, match="got Name; pass encode="):
        await cache.save(path)
    with pytest.raises(TypeError, match=r"encode\(\) must return bytes, got str"):
        await cache.save(path, encode=str)

    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["snapshot"]


async def test_what_cannot_be_put_in_place_leaves_no_file_behind(tmp_path):
    (tmp_path / "folder").mkdir()

    with pytest.raises(OSError, match="folder"):
        await TTLCache[int]().save(tmp_path / "folder")

    assert os.listdir(tmp_path) == ["folder"]


@pytest.fixture
def snapshot(tmp_path) -> Path:
    path = tmp_path / "snapshot"
    _snapshot.write(path, [("key", b"value", None), (1, -2, 3.0)], None, wall=0.0)
    return path


async def assert_refused(path, match):
    cache = TTLCache[object]()
    cache.set_nowait("mine", 1)
    with pytest.raises(CacheSerializationError, match=match):
        await cache.load(path)
    assert cache.items_nowait() == [("mine", 1)]


async def test_a_file_torn_anywhere_is_an_error_and_changes_nothing(snapshot):
    whole = snapshot.read_bytes()
    for end in range(len(whole)):
        snapshot.write_bytes(whole[:end])
        await assert_refused(snapshot, "is torn|is not a cache snapshot")
    snapshot.write_bytes(whole + b"\0")
    await assert_refused(snapshot, "is torn")


async def test_any_changed_byte_is_an_error(snapshot):
    whole = bytearray(snapshot.read_bytes())
    for at in range(len(whole)):
        whole[at] ^= 0x40
        snapshot.write_bytes(whole)
        await assert_refused(snapshot, "is torn|is not a cache snapshot")
        whole[at] ^= 0x40


async def test_a_foreign_file_is_an_error(tmp_path):
    path = tmp_path / "foreign"
    for content in (b"", b"\x80\x04N.", b"mtaio cache 2\n" + bytes(100)):
        path.write_bytes(content)
        await assert_refused(path, "is not a cache snapshot")
    with pytest.raises(FileNotFoundError):
        await TTLCache[int]().load(tmp_path / "absent")


ONE = struct.pack("<dQ", 0.0, 1)
LEFT = struct.pack("<d", 5.0)


def part(kind: bytes, size: int) -> bytes:
    return struct.pack("<cQ", kind, size)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is not a cache snapshot"),
        (struct.pack("<dQ", 0.0, 0) + b"more", "4 bytes too many"),
        (ONE, "broken record"),
        (ONE + LEFT + part(b"s", 99) + b"short", "99 bytes announced"),
        (ONE + LEFT + part(b"?", 1) + b"x", "unknown kind"),
        (ONE + LEFT + part(b"i", 1) + b"y", "broken record"),
    ],
)
async def test_a_whole_file_of_wrong_content_is_an_error(tmp_path, content, match):
    whole = b"mtaio cache 1\n" + content
    path = tmp_path / "snapshot"
    path.write_bytes(whole + struct.pack("<I", zlib.crc32(whole)))

    await assert_refused(path, match)


async def test_a_decoded_key_that_is_none_changes_nothing(tmp_path):
    path = tmp_path / "snapshot"
    records = [("plain", 1, None), ((1, 2), 1, None)]
    _snapshot.write(path, records, lambda item: json.dumps(item).encode(), wall=0.0)
    cache = TTLCache[object]()

    with pytest.raises(CacheSerializationError, match="unhashable type: 'list'"):
        await cache.load(path, decode=json.loads)

    assert len(cache) == 0


@pytest.mark.parametrize("name", ["encode", "decode"])
async def test_a_codec_must_be_callable(tmp_path, name):
    method = {"encode": TTLCache[int]().save, "decode": TTLCache[int]().load}[name]
    with pytest.raises(TypeError, match=f"{name} must be callable or None"):
        await method(tmp_path / "x", **{name: 1})
