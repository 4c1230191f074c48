# Types of the compiled module; docstrings live in Rust. Held by stubtest.

__version__: str

# --- args.rs ---------------------------------------------------------------

def positive(name: str, value: object, /) -> float: ...
def non_negative(name: str, value: object, /) -> float: ...
def whole(name: str, value: object, /, least: int = 1) -> int: ...
def text(name: str, value: object, /) -> str: ...

# --- limits: bucket.rs, keyed.rs, ready.rs ---------------------------------

# --- cache.rs --------------------------------------------------------------

# --- log.rs ----------------------------------------------------------------

# --- metrics.rs ------------------------------------------------------------

# --- probe.rs, watchdog.rs -------------------------------------------------
