"""The shared argument checks: right type, right range, and a message that helps."""

import math
from fractions import Fraction

import pytest

from mtaio import _rust


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize("value", [1, 0.5, 1e300, 2**60])
def test_a_number_above_zero_is_positive(value):
    assert _rust.positive("rate", value) == value


@pytest.mark.parametrize("value", [0, -1, -0.0, math.nan, math.inf, 10**400])
def test_a_value_out_of_range_names_the_parameter(value):
    with pytest.raises(ValueError, match=r"^rate must be a finite number > 0, got "):
        _rust.positive("rate", value)


@pytest.mark.parametrize("value", [True, "1", None, 1j, Fraction(1, 2), Unprintable()])
def test_a_wrong_type_names_the_parameter(value):
    with pytest.raises(TypeError, match=r"^rate must be a finite number > 0, got "):
        _rust.positive("rate", value)


def test_zero_is_not_negative():
    assert _rust.non_negative("timeout", 0) == 0.0
    with pytest.raises(ValueError, match="timeout must be a finite number >= 0"):
        _rust.non_negative("timeout", -1e-9)


def test_whole_numbers_have_a_least_value():
    assert _rust.whole("limit", 1) == 1
    assert _rust.whole("backup_count", 0, 0) == 0
    for value in (0, -1, 2**64):
        with pytest.raises(ValueError, match="limit must be an int >= 1, got"):
            _rust.whole("limit", value)
    for value in (True, 1.0, "1", None):
        with pytest.raises(TypeError, match="limit must be an int >= 1, got"):
            _rust.whole("limit", value)


def test_names_are_non_empty_text():
    assert _rust.text("name", "cpu") == "cpu"
    with pytest.raises(ValueError, match="name must be non-empty text, got ''"):
        _rust.text("name", "")
    with pytest.raises(TypeError, match="name must be non-empty text, got b'cpu'"):
        _rust.text("name", b"cpu")


def test_a_huge_argument_gives_a_short_message():
    with pytest.raises(TypeError) as caught:
        _rust.text("name", b"x" * 1_000_000)

    assert len(str(caught.value)) < 200
