"""The figures of a command as a file for Prometheus: node_exporter's textfile collector reads it.

The file is replaced in one step when a command ends, also one that failed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reki_feast.errors import DeclarationError
from reki_feast.telemetry.events import CommandEnded, CommandStarted, Event
from reki_feast.telemetry.measurements import CommandMeter, Measurement

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_log = logging.getLogger(__name__)


class PrometheusFile:
    """Writes the figures of each command to a file.

    Args:
        path: of the file; the textfile collector reads those that end with ``.prom``.

    Raises:
        DeclarationError: its folder does not exist.
    """

    wants_figures = True

    def __init__(self, path: Path) -> None:
        if not path.absolute().parent.is_dir() or path.is_dir():
            raise DeclarationError(
                "--metrics names a file in a folder that exists",
                detail=str(path),
                hint="make the folder, or name another: --metrics /var/lib/node_exporter/reki.prom",
            )
        self._path, self._meter = path, CommandMeter()

    def on(self, event: Event) -> None:
        """Take an event."""
        if isinstance(event, CommandStarted):
            self._meter = CommandMeter()
        self._meter.on(event)
        if isinstance(event, CommandEnded):
            self._store(self._meter.measurements(event))

    def _store(self, found: Sequence[Measurement]) -> None:
        from prometheus_client import CollectorRegistry, write_to_textfile

        registry = CollectorRegistry()
        registry.register(_Measured(found))
        try:
            write_to_textfile(str(self._path), registry)
        except OSError as error:  # what the command did stands
            _log.warning("metrics are not written: %s", error)


class _Measured:
    """Measurements as a collector of prometheus_client."""

    def __init__(self, found: Sequence[Measurement]) -> None:
        self._found = found

    def describe(self) -> list[Metric]:
        """Nothing ahead of the figures."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Each metric with its figures."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for one in self._found:
            family = CounterMetricFamily if one.name.endswith("_total") else GaugeMetricFamily
            if one.name not in families:
                families[one.name] = family(one.name, one.help, labels=list(one.labels))
            families[one.name].add_metric(list(one.labels.values()), one.value)
        yield from families.values()
