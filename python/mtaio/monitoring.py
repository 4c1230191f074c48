"""Watch this process: probes answered by a native thread, and the stall watchdog."""

from ._probes import (
    Distribution,
    LivenessGuard,
    MetricFamily,
    MetricsSource,
    ProbeApp,
    ProbeCollector,
    ProbeServer,
)
from ._watchdog import StallReport, Watchdog

__all__ = (
    "Distribution",
    "LivenessGuard",
    "MetricFamily",
    "MetricsSource",
    "ProbeApp",
    "ProbeCollector",
    "ProbeServer",
    "StallReport",
    "Watchdog",
)
