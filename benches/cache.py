"""The cache against its peers: the rows of the cache table, as ratios of one run.

`python benches/cache.py [row ...]` with rows from: calls traffic policies bytes gc
expiry flight growth await. Without any, all. Stalls are told in CPU time of the
thread, so that a busy machine adds none. Peers that are not installed are left out;
`--old PATH` is where mtaio 0.1.0 was unpacked, by default where `make bench` does.
Sizes are cut to a quarter by `--quick`.
"""

import argparse
import asyncio
import gc
import importlib
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from datetime import timedelta

import previous
import traces
from measure import per_call, repeated, rows
from mtaio.cache import EvictionPolicy, TTLCache
from tinylfu import WTinyLfu

TTL = 300.0


class Subject:
    """A cache under test: how to make one, and its `get` and `set` bound."""

    def __init__(self, name: str, make: Callable[[int], object]) -> None:
        self.name = name
        self._make = make

    def make(self, size: int) -> tuple[object, Callable, Callable]:
        """A new cache of `size` entries, its get(key) and its set(key, value)."""
        return self._make(size)


def _mtaio(policy: EvictionPolicy = EvictionPolicy.S3FIFO) -> Callable:
    def make(size):
        cache = TTLCache(default_ttl=TTL, max_size=size, eviction_policy=policy)
        return cache, cache.get_nowait, cache.set_nowait

    return make


def _dict(size):
    cache = {}
    return cache, cache.get, cache.__setitem__


def _cachebox(size):
    cache = importlib.import_module("cachebox").VTTLCache(size)
    insert = cache.insert
    return cache, cache.get, lambda key, value: insert(key, value, TTL)


def _cachebox_ttl(size):
    cache = importlib.import_module("cachebox").TTLCache(size, TTL)
    return cache, cache.get, cache.insert


def _theine(size):
    cache = importlib.import_module("theine").Cache(size)
    store, ttl = cache.set, timedelta(seconds=TTL)

    def get(key):
        found = cache.get(key)
        value, hit = found if isinstance(found, tuple) else (found, found is not None)
        return value if hit else None

    return cache, get, lambda key, value: store(key, value, ttl)


def _moka(size):
    cache = importlib.import_module("moka_py").Moka(size, ttl=TTL)
    return cache, cache.get, cache.set


def _cachetools(size):
    cache = importlib.import_module("cachetools").TTLCache(size, TTL)
    return cache, cache.get, cache.__setitem__


def _lru_dict(size):
    cache = importlib.import_module("lru").LRU(size)
    return cache, cache.get, cache.__setitem__


def _simulated(size):
    cache = WTinyLfu(size)
    return cache, cache.get, cache.set


SIMULATED = "W-TinyLFU, simulated"
ALL = {
    "dict": _dict,
    "mtaio": _mtaio(),
    "cachebox VTTL": _cachebox,
    "cachebox TTL": _cachebox_ttl,
    "theine": _theine,
    "moka": _moka,
    "cachetools TTL": _cachetools,
    "lru-dict": _lru_dict,
}


def subjects(names: Iterable[str] = ALL) -> list[Subject]:
    """Those of `names` that are installed."""
    found = []
    for name in names:
        try:
            ALL[name](1)
        except ImportError:
            print(f"  ({name} is not installed)")
        else:
            found.append(Subject(name, ALL[name]))
    return found


# How a write is written by who uses the cache, without a function of ours around it;
# by default as to a dict. `put` is a bound method.
PUTS = {
    "mtaio": "put(key, 1)",
    "cachebox VTTL": "put(key, 1, 300.0)",
    "cachebox TTL": "put(key, 1)",
    "theine": "put(key, 1, ttl)",
    "moka": "put(key, 1)",
}
METHODS = {
    "mtaio": ("get_nowait", "set_nowait"),
    "cachebox VTTL": ("get", "insert"),
    "cachebox TTL": ("get", "insert"),
    "theine": ("get", "set"),
    "moka": ("get", "set"),
}


def call_costs(names: Iterable[str], size: int) -> dict[str, dict[str, float]]:
    """Seconds a call, by what is called and by cache.

    Reads are of caches with `size` entries and room for twice as many. Writes come to
    full ones, with room for `size`, and are of twice as many keys in turn: each
    evicts. The `dict` has them all from the start, so it neither grows nor evicts.
    """
    rng = random.Random(7)
    keys = [f"user:{n}" for n in range(size)]
    absent = [f"none:{n}" for n in range(size)]
    for strings in (keys, absent):
        rng.shuffle(strings)
        # Strings keep their hash: nobody has to pay for the others.
        _ = [hash(key) for key in strings]
    kinds = subjects(names)
    read = {each.name: _filled(each, 2 * size, keys) for each in kinds}
    full = {each.name: _filled(each, size, keys + absent) for each in kinds}

    def cost(statements: dict[str, str], caches: dict, keys: list) -> dict:
        runs = {}
        for name, cache in caches.items():
            get, put = METHODS.get(name, ("get", "__setitem__"))
            # The loop has them in locals.
            places = {"get": getattr(cache, get), "put": getattr(cache, put)}
            ttl = timedelta(seconds=TTL)
            runs[name] = repeated(
                statements[name], table=cache, ttl=ttl, keys=keys, **places
            )
        return per_call(runs)

    gets = dict.fromkeys(read, "get(key)")
    puts = {name: PUTS.get(name, "table[key] = 1") for name in read}
    return {
        "get, a hit": cost(gets, read, keys),
        "get, a miss": cost(gets, read, absent),
        "get, 100 hot keys": cost(gets, read, keys[:100]),
        "set, with eviction": cost(puts, full, keys + absent),
    }


def _filled(subject: Subject, size: int, keys: list) -> object:
    cache, _get, put = subject.make(size)
    for key in keys:
        put(key, 1)
    return cache


def calls(size: int) -> None:
    """Get hit, get miss, set with eviction: time against a dict's."""
    took = call_costs(ALL, size)
    names = next(iter(took.values()))
    lines = [
        (name, *(f"{cost[name] / cost['dict']:.2f}" for cost in took.values()))
        for name in names
    ]
    rows(f"calls at {size:,} entries", ("time / dict's", *took), lines)


def _serve(subject: Subject, size: int, trace: list) -> tuple[float, float]:
    """Hit ratio and seconds of a read-through over the trace."""
    _cache, get, put = subject.make(size)
    misses = 0
    start = time.perf_counter()
    for key in trace:
        if get(key) is None:
            misses += 1
            put(key, 1)
    return 1 - misses / len(trace), time.perf_counter() - start


def traffic(size: int) -> None:
    """Zipf read-through: hit ratio, and speed against a dict without bound."""
    keys = 10 * size
    cases = [(0.99, size), (0.99, size // 10), (1.2, size // 10)]
    for skew, capacity in cases:
        # Twice as many requests as keys: else first requests hide the policy.
        trace = [str(key) for key in traces.zipf(2 * keys, keys, skew)]
        lines = []
        base = 0.0
        for subject in subjects():
            ratio, seconds = _serve(subject, capacity, trace)
            base = base or seconds
            speed = f"{base / seconds:.2f}"
            lines.append((subject.name, f"{100 * ratio:.1f} %", speed))
        ratio, _ = _serve(Subject(SIMULATED, _simulated), capacity, trace)
        lines.append((SIMULATED, f"{100 * ratio:.1f} %", "-"))
        title = f"Zipf {skew}, {capacity:,} of {keys:,} keys"
        rows(title, ("cache", "hits", "speed / dict"), lines)


def policies(size: int) -> None:
    """Hit ratio by policy: ours, W-TinyLFU, and what theine and moka make of it."""
    keys, length = 10 * size, 10 * size
    kinds = {f"mtaio {p.value}": _mtaio(p) for p in EvictionPolicy}
    kinds[SIMULATED] = _simulated
    kinds |= {name: ALL[name] for name in ("theine", "moka") if subjects([name])}
    shapes = {
        "zipf 0.99": traces.zipf(length, keys, 0.99),
        "zipf 0.8": traces.zipf(length, keys, 0.8),
        "loop": traces.loop(length, size + size // 2),
        "scans": traces.scans(length, keys, 0.99, size),
        "shifting": traces.shifting(length, keys, 0.99, 2 * size),
    }
    lines = []
    for name, make in kinds.items():
        served = [_serve(Subject(name, make), size, shape) for shape in shapes.values()]
        lines.append((name, *(f"{100 * ratio:.1f} %" for ratio, _ in served)))
    rows(f"hit ratio by policy at {size:,} entries", ("policy", *shapes), lines)


def _apart(code: str) -> float:
    """The number that `code` prints, in an interpreter of its own."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return float(done.stdout) if done.returncode == 0 else float("nan")


_BYTES = """
import gc, sys
sys.path.insert(0, {path!r})
import cache
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
keys = [str(n) for n in range({count})]
subject = cache.Subject({name!r}, cache.ALL[{name!r}])
gc.collect(); before = resident()
held, get, put = subject.make({count})
for key in keys: put(key, 1)
print((resident() - before) / {count})
"""


def bytes_(size: int) -> None:
    """Bytes an entry, key and value objects apart; by resident memory."""
    lines = []
    for subject in subjects():
        code = _BYTES.format(path=sys.path[0], count=size, name=subject.name)
        lines.append((subject.name, f"{_apart(code):.0f}"))
    rows(f"bytes an entry over {size:,}", ("cache", "bytes"), lines)


class Back:
    """Refers back to the cache that holds it."""

    def __init__(self, cache: object) -> None:
        self.cache = cache


def gc_(size: int) -> None:
    """A full collection with untracked values; and is a cycle freed?"""
    lines = []
    for subject in subjects():
        cache, _get, put = subject.make(size)
        # Only the cache and what it holds is left to be visited.
        gc.collect()
        gc.freeze()
        base = _collect_seconds()
        for n in range(size):
            put(n, n)
        extra = _collect_seconds() - base
        gc.unfreeze()
        del cache, put, _get
        freed = _cycle_is_freed(subject)
        lines.append((subject.name, f"{1e3 * extra:.1f} ms", freed))
    rows(f"collection of {size:,} ints", ("cache", "more", "cycle freed"), lines)


def _collect_seconds() -> float:
    spent = []
    for _ in range(5):
        start = time.thread_time()
        gc.collect()
        spent.append(time.thread_time() - start)
    return statistics.median(spent)


def _cycle_is_freed(subject: Subject) -> str:
    cache, _get, put = subject.make(10)
    put("self", Back(cache))
    del cache, put, _get
    gc.collect()
    alive = [o for o in gc.get_objects() if type(o) is Back]
    for back in alive:
        back.cache = None
    return "no" if alive else "yes"


def expiry(size: int) -> None:
    """All entries expire at once: the longest call after, the longest stall."""

    async def ours() -> tuple[float, float, int]:
        async with TTLCache(default_ttl=0.5, cleanup_interval=0.1) as cache:
            for n in range(size):
                await cache.set(n, n)
            worst_turn = worst_call = 0.0
            ends = time.monotonic() + 2.0
            while time.monotonic() < ends:
                start = time.thread_time()
                await asyncio.sleep(0)
                turn = time.thread_time()
                cache.set_nowait("probe", 1)
                worst_turn = max(worst_turn, turn - start)
                worst_call = max(worst_call, time.thread_time() - turn)
            return worst_turn, worst_call, len(cache)

    turn, call, left = asyncio.run(ours())
    line = (f"{1e3 * turn:.2f} ms", f"{1e3 * call:.2f} ms", left - 1)
    title = f"{size:,} entries expire at once"
    rows(title, ("longest turn", "longest set", "kept"), [line])


def flight(_size: int) -> None:
    """Ten ask, the first is cancelled: how many are served, by how many runs."""

    async def ours() -> tuple[int, int]:
        cache: TTLCache[int] = TTLCache()
        runs = []

        async def compute() -> int:
            runs.append(1)
            await asyncio.sleep(0.01)
            return 7

        asked = [asyncio.create_task(cache.get_or_set("k", compute)) for _ in range(10)]
        await asyncio.sleep(0)
        asked[0].cancel()
        done = await asyncio.gather(*asked, return_exceptions=True)
        return done.count(7), len(runs)

    served, runs = asyncio.run(ours())
    rows("single flight", ("served of 9", "computations"), [(served, runs)])


def growth(size: int) -> None:
    """The longest single call while a cache grows to ten times `size` and shrinks.

    The shortest of three such longest calls: another process can only add to it.
    """
    count = 10 * size
    made = {
        name: subject.make
        for name in ("dict", "mtaio", "cachebox VTTL")
        for subject in subjects([name])
    }
    made["mtaio, by weight"] = _weighed
    lines = []
    for name, make in made.items():
        figures = [_longest(make, count) for _ in range(3)]
        best = [min(column) for column in zip(*figures, strict=True)]
        lines.append((name, *(f"{1e3 * seconds:.2f} ms" for seconds in best)))
    header = ("cache", "longest set", "longest delete", "clear of 1,000 left")
    rows(f"from 1,000 entries to {count:,} and back", header, lines)


def _weighed(size: int) -> tuple[object, Callable, Callable]:
    cache: TTLCache[int] = TTLCache(
        default_ttl=TTL, weigher=lambda _key, _value: 1, max_weight=size
    )
    return cache, cache.get_nowait, cache.set_nowait


def _longest(make: Callable, count: int) -> tuple[float, float, float]:
    """Seconds of the longest `set`, the longest `delete`, and of `clear`."""
    cache, _get, put = make(count)
    delete = getattr(cache, "delete_nowait", None) or cache.pop
    clear = getattr(cache, "clear_nowait", None) or cache.clear
    keys = list(range(count))
    for n in keys[:1000]:
        put(n, n)
    gc.disable()
    grown = _worst(lambda n: put(n, n), keys[1000:])
    shrunk = _worst(delete, keys[1000:])
    start = time.thread_time()
    clear()
    cleared = time.thread_time() - start
    gc.enable()
    return grown, shrunk, cleared


def _worst(call: Callable[[int], object], keys: list[int]) -> float:
    worst = 0.0
    for n in keys:
        start = time.thread_time()
        call(n)
        worst = max(worst, time.thread_time() - start)
    return worst


_OLD = """
import asyncio, json, sys, time
if {path!r}: sys.path.insert(0, {path!r})
from mtaio.cache import TTLCache
async def main():
    cache = TTLCache(default_ttl=300.0, max_size=1000)
    for n in range(1000):
        await cache.set(str(n), n)
    keys = [str(n) for n in range(100)] * 100
    best = 1e9
    for _ in range(60):
        start = time.perf_counter()
        for key in keys:
            await cache.get(key)
        best = min(best, time.perf_counter() - start)
    print(json.dumps(best / len(keys)))
asyncio.run(main())
"""


def awaited(old: str | None) -> None:
    """`await cache.get(key)` on 100 hot keys of 1,000, against mtaio 0.1.0."""
    # Each in processes of its own, in turns; the best of all, as both can only
    # be disturbed.
    seen: dict[str, list[float]] = {"": [], old or "": []}
    for _ in range(7):
        for path, times in seen.items():
            times.append(_apart(_OLD.format(path=path)))
    ours = min(seen[""])
    lines = [("mtaio", f"{1e9 * ours:.0f} ns", "1.0")]
    if old:
        theirs = min(seen[old])
        lines.append(("0.1.0", f"{1e9 * theirs:.0f} ns", f"{theirs / ours:.1f}"))
    rows("await cache.get(key)", ("cache", "time", "ours is faster by"), lines)


def _unpacked() -> str | None:
    return str(previous.FOLDER) if previous.FOLDER.is_dir() else None


ROWS = {
    "calls": (calls, 100_000),
    "traffic": (traffic, 100_000),
    "policies": (policies, 20_000),
    "bytes": (bytes_, 1_000_000),
    "gc": (gc_, 1_000_000),
    "expiry": (expiry, 200_000),
    "flight": (flight, 0),
    "growth": (growth, 100_000),
}


def main() -> None:
    """Print the rows asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("row", nargs="*", choices=[*ROWS, "await", []])
    parser.add_argument("--old", help="folder with mtaio 0.1.0", default=_unpacked())
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    chosen = asked.row or [*ROWS, "await"]
    for name in chosen:
        if name == "await":
            awaited(asked.old)
            continue
        measure, size = ROWS[name]
        measure(size // 4 if asked.quick else size)


if __name__ == "__main__":
    main()
