"""How is the HTTP server made of its routes? A new route is a line here."""

from __future__ import annotations

from collections.abc import Callable

from cachesvc.app.instruments import Instruments
from cachesvc.config import Settings
from cachesvc.core.credentials import Grants
from cachesvc.edge.audit import AuditedInvalidations
from cachesvc.edge.certificates import Certificates
from cachesvc.edge.http.access import HttpAccess
from cachesvc.edge.http.gauges import Gauges
from cachesvc.edge.http.health import HealthRoutes
from cachesvc.edge.http.history import History
from cachesvc.edge.http.operations import OperationRoutes
from cachesvc.edge.http.page import PageRoute
from cachesvc.edge.http.routes import Route
from cachesvc.edge.http.server import HttpServer
from cachesvc.edge.http.status import StatusRoutes
from cachesvc.edge.http.status_report import StatusReport
from cachesvc.edge.http.tls import ReloadedContext
from cachesvc.edge.statistics import Statistics
from cachesvc.engine.cache import Cache


def make_routes(
    settings: Settings,
    cache: Cache,
    invalidations: AuditedInvalidations,
    statistics: Statistics,
    gauges: Gauges,
    history: History,
    certificates: Certificates,
    instruments: Instruments,
) -> list[Route]:
    """Return the routes of all parts."""
    metrics, problems = instruments.metrics, instruments.problems.current
    report = StatusReport(cache, statistics, gauges, metrics, settings, problems, certificates)
    return [
        *HealthRoutes(metrics, statistics, gauges, problems, certificates.gauges).routes(),
        *OperationRoutes(cache, invalidations).routes(),
        *StatusRoutes(cache, report, history).routes(),
        *PageRoute().routes(),
    ]


def make_server(
    settings: Settings,
    routes: list[Route],
    grants: Callable[[], Grants],
    certificates: Certificates,
    instruments: Instruments,
) -> HttpServer:
    """Return the server, which does not listen yet. Raises ConfigError."""
    metrics = instruments.metrics
    tls = None
    if settings.http.tls.is_on:
        tls = ReloadedContext.of(
            settings.http.tls,
            certificates,
            lambda: metrics.reload_failures.inc("http_tls"),
            lambda: metrics.handshake_failures.inc("http"),
        )
    return HttpServer(
        settings.http,
        HttpAccess(settings.http, grants, instruments.clock),
        routes,
        tls=tls,
        deadline_s=settings.grpc.default_deadline_s,
    )
