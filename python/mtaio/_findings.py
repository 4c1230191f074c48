"""What `mtaio doctor` finds: the checklist's questions, and an answer's level."""

import enum
import re
from dataclasses import dataclass

_NAME = re.compile(
    r"PASSW|PASSPHRASE|SECRET|TOKEN|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY",
    re.IGNORECASE,
)
# As in postgres://user:password@host.
_IN_URL = re.compile(r"(?<=://)[^/@\s]*:[^/@\s]+(?=@)")


class Level(enum.StrEnum):
    """How bad a finding is. Only `FAIL` makes the exit code 1."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    ASK = "ask"
    """No program can judge it; the detail says what to look at."""


class Question(enum.Enum):
    """An item of the guide's checklist: its group, and what it asks."""

    ENVIRONMENT = "Configuration", "Are the environment variables right?"
    RESOURCES = "Configuration", "Are the limits fit for the resources there are?"
    LOGGING = "Configuration", "Does the log have the right level, and rotate?"
    HEALTH = "Monitoring", "Are there health checks?"
    METRICS = "Monitoring", "Are metrics collected?"
    ALERTS = "Monitoring", "Are alert thresholds set?"
    ERRORS = "Error handling", "Is every error handled?"
    ERROR_LOG = "Error handling", "Are errors logged?"
    RECOVERY = "Error handling", "Are the recovery procedures written down?"
    CACHE = "Performance", "Is the cache tuned?"
    LIMITS = "Performance", "Are the limits tuned?"
    CONCURRENCY = "Performance", "Is concurrency limited?"
    SECRETS = "Security", "Is sensitive data protected?"
    ACCESS = "Security", "Is access controlled?"
    NETWORK = "Security", "Is the network secured?"

    @property
    def group(self) -> str:
        """The part of the checklist it stands in."""
        return self.value[0]

    @property
    def text(self) -> str:
        """What it asks."""
        return self.value[1]


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found on one matter that a question of the checklist asks about."""

    question: Question
    item: str
    level: Level
    detail: str


def masked(name: str, value: str) -> str:
    """`value`, or what may be shown of it."""
    return "***" if _NAME.search(name) else _IN_URL.sub("***", value)


def looks_secret(name: str, value: str) -> bool:
    """Whether a variable's name, or a URL in it, says that it holds a secret."""
    return bool(_NAME.search(name) or _IN_URL.search(value))
