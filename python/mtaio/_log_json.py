"""`JsonFormatter`: one JSON object per line, put together in Rust."""

import logging
from collections.abc import Mapping
from typing import Self

from . import _rust

__all__ = ("JsonFormatter",)


class JsonFormatter(_rust.JsonFormat, logging.Formatter):
    """A `logging.Formatter` that writes each record as one line of JSON.

    `extra` fields are included: those of a name that is taken as `extra_<name>`.
    An exception becomes an object of `type`, `message` and `traceback`, the first
    two null where the record holds its text alone. Values that JSON lacks are
    written as their `str`. Control characters, line parts
    and lone surrogates are escaped, so a line is a line on any terminal.

    Args:
        keys: Output key to record attribute, in order. Attribute `message` is
            the merged message, `timestamp` the creation in UTC as
            `2026-01-31T23:59:59.000001Z`; one the record lacks is null. By
            default `timestamp`, `level`, `logger` and `message`.
        extra: Include what `extra=` gave.

    Raises:
        TypeError: A key or attribute is not text, or `extra` not a bool.
        ValueError: `keys`, or a key in it, is empty.
    """

    def __new__(
        cls, keys: Mapping[str, str] | None = None, *, extra: bool = True
    ) -> Self:
        if not isinstance(extra, bool):
            raise TypeError(f"extra must be True or False, got {extra!r}")
        if keys is None:
            return super().__new__(cls, extra=extra)
        if not isinstance(keys, Mapping):
            raise TypeError(f"keys must be a mapping or None, got {keys!r}")
        if not keys:
            raise ValueError("keys must name at least one key, got {}")
        checked = {
            _rust.text("key", key): _rust.text("attribute", attribute)
            for key, attribute in keys.items()
        }
        return super().__new__(cls, checked, extra=extra)

    def __init__(
        self, keys: Mapping[str, str] | None = None, *, extra: bool = True
    ) -> None:
        del keys, extra  # `__new__` took them
        logging.Formatter.__init__(self)
