"""Settings: the guide's defaults, typed values, and every fault at once."""

import dataclasses
import math

import pytest

from mtaio import config
from mtaio.config import Settings
from mtaio.exceptions import SettingsError

GUIDE_DEFAULTS = {
    "max_workers": 4,
    "cache_ttl": 300.0,
    "cache_size": 1000,
    "log_level": "INFO",
    "rate_limit": 100.0,
    "burst_limit": 200,
    "concurrency_limit": 50,
    "default_timeout": 30.0,
}


def test_an_empty_environment_gives_the_guides_defaults():
    settings = Settings.from_env({})

    assert {name: getattr(settings, name) for name in GUIDE_DEFAULTS} == GUIDE_DEFAULTS
    assert settings == Settings()


def test_the_process_environment_is_read_when_none_is_given(monkeypatch):
    monkeypatch.setenv("MTAIO_MAX_WORKERS", "7")

    assert Settings.from_env().max_workers == 7


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("max_workers", " 8 ", 8),
        ("cache_ttl", "1.5", 1.5),
        ("cache_ttl", "60", 60.0),
        ("log_level", "debug", "DEBUG"),
        ("log_max_bytes", "0", 0),
        ("rate_limit", "1e3", 1000.0),
        ("cpu_threshold", "100", 100.0),
        ("probe_port", "65535", 65535),
        ("drain_delay", "0", 0.0),
        ("log_file", "/var/log/app.log", "/var/log/app.log"),
    ],
)
def test_a_value_is_read_in_its_own_type(name, text, value):
    read = getattr(Settings.from_env({f"MTAIO_{name.upper()}": text}), name)

    assert read == value
    assert type(read) is type(value)


BAD = [
    *[
        (name, text)
        for name in ("MAX_WORKERS", "CACHE_SIZE", "BURST_LIMIT", "CONCURRENCY_LIMIT")
        for text in ("0", "-1", "1.5", "many", "", "nan", "True")
    ],
    *[
        (name, text)
        for name in ("CACHE_TTL", "RATE_LIMIT", "DEFAULT_TIMEOUT", "MONITOR_INTERVAL")
        for text in ("0", "-1", "nan", "inf", "-inf", "", "1e999", "0x10", "True")
    ],
    ("LOG_LEVEL", "LOUD"),
    ("LOG_LEVEL", ""),
    ("LOG_FILE", ""),
    ("LOG_MAX_BYTES", "-1"),
    ("CPU_THRESHOLD", "101"),
    ("MEMORY_THRESHOLD", "0"),
    ("PROBE_PORT", "65536"),
    ("DRAIN_DELAY", "-0.1"),
]


@pytest.mark.parametrize(("name", "text"), BAD)
def test_a_bad_value_is_a_fault_that_names_variable_value_and_what_is_accepted(
    name, text
):
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({f"MTAIO_{name}": text})

    (fault,) = caught.value.faults
    assert fault.startswith(f"MTAIO_{name} must be ")
    assert "got " in fault


def test_all_faults_are_reported_together():
    environ = {f"MTAIO_{name}": "?" for name in ("MAX_WORKERS", "RATE_LIMIT")}
    environ["MTAIO_CACHE_TLL"] = "5"

    with pytest.raises(SettingsError) as caught:
        Settings.from_env(environ)

    assert len(caught.value.faults) == 3
    assert all(fault in str(caught.value) for fault in caught.value.faults)


def test_a_near_miss_of_a_name_is_a_fault_and_a_foreign_name_is_not():
    with pytest.raises(SettingsError, match="did you mean MTAIO_RATE_LIMIT"):
        Settings.from_env({"MTAIO_RATE_LIMT": "5"})

    assert Settings.from_env({"MTAIO_ZEBRA": "5", "RATE_LIMIT": "x"}) == Settings()


def test_a_drain_as_long_as_the_grace_period_is_refused():
    with pytest.raises(SettingsError, match="MTAIO_DRAIN_DELAY must be below"):
        Settings.from_env({"MTAIO_DRAIN_DELAY": "30"})
    with pytest.raises(ValueError, match="drain_delay must be below grace_period"):
        Settings(drain_delay=5, grace_period=5)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("max_workers", True, TypeError),
        ("max_workers", "4", TypeError),
        ("rate_limit", math.nan, ValueError),
        ("rate_limit", None, TypeError),
        ("log_level", 20, TypeError),
        ("log_file", "", ValueError),
        ("memory_threshold", 200, ValueError),
    ],
)
def test_a_settings_object_can_not_be_made_wrong(name, value, error):
    with pytest.raises(error, match=f"{name} must be"):
        Settings(**{name: value})


def test_settings_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().max_workers = 5  # type: ignore[misc]


def test_every_setting_has_a_variable_that_explains_it():
    listed = {each.name: each for each in config.variables()}

    assert len(listed) == len(dataclasses.fields(Settings))
    assert listed["MTAIO_CACHE_TTL"].default == 300.0
    assert all(each.accepts and each.meaning for each in listed.values())


def test_a_file_sets_what_the_environment_does_not(tmp_path):
    file = tmp_path / "settings.env"
    file.write_text(
        "# ours\n\nMTAIO_RATE_LIMIT = 7\nMTAIO_MAX_WORKERS=8\n"
        'MTAIO_LOG_FILE="/var/log/a b.log"\n'
    )
    environ = {"MTAIO_SETTINGS_FILE": str(file), "MTAIO_MAX_WORKERS": "3"}

    settings = Settings.from_env(environ)

    assert (settings.rate_limit, settings.max_workers) == (7.0, 3)
    assert settings.log_file == "/var/log/a b.log"


def test_faults_of_the_file_are_reported_with_all_others(tmp_path):
    file = tmp_path / "settings.env"
    file.write_text("MTAIO_ZEBRA=1\nMTAIO_RATE_LIMIT=fast\nnothing\n")
    environ = {"MTAIO_SETTINGS_FILE": str(file), "MTAIO_CACHE_SIZE": "0"}

    with pytest.raises(SettingsError) as caught:
        Settings.from_env(environ)

    assert len(caught.value.faults) == 4
    assert f"{file}:1 must set a known variable" in str(caught.value)
    assert f"{file}:3 must set a known variable" in str(caught.value)
    assert "nothing" not in str(caught.value)
    with pytest.raises(SettingsError, match="must name a readable file"):
        Settings.from_env({"MTAIO_SETTINGS_FILE": str(tmp_path / "missing")})


def test_no_line_of_the_file_is_shown_with_its_value(tmp_path):
    file = tmp_path / "settings.env"
    file.write_text("DATABASE_PASSWORD=hunter2\nhunter3\n")

    with pytest.raises(SettingsError) as caught:
        Settings.from_env({"MTAIO_SETTINGS_FILE": str(file)})

    assert "DATABASE_PASSWORD" in str(caught.value)
    assert "hunter" not in str(caught.value)


def test_each_variable_has_an_origin(tmp_path):
    file = tmp_path / "settings.env"
    file.write_text("MTAIO_RATE_LIMIT=7\nMTAIO_MAX_WORKERS=8\n")
    environ = {"MTAIO_SETTINGS_FILE": str(file), "MTAIO_MAX_WORKERS": "3"}

    origins = {each.name: (v, source) for each, v, source in config.origins(environ)}

    assert origins["MTAIO_MAX_WORKERS"] == ("3", "environment")
    assert origins["MTAIO_RATE_LIMIT"] == ("7", str(file))
    assert origins["MTAIO_CACHE_TTL"] == ("300.0", "default")
    assert len(origins) == len(config.variables())
