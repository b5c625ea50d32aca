"""Is every variable that looks like a setting one?"""

from __future__ import annotations

import os
from collections.abc import Iterator

from cachesvc.cli.doctor.findings import Finding, Patient, ok, warning
from cachesvc.config.sources import service_links, strangers


def check_variables(patient: Patient) -> Iterator[Finding]:
    """Find variables that the daemon ignores, such as CACHESVC_L2_ROOT."""
    check = "settings.variables"
    found = strangers(type(patient.settings), os.environ)
    for stranger in found:
        yield warning(check, str(stranger), "correct the name or remove the variable")
    links = service_links(os.environ)
    if links:
        yield ok(
            check,
            f"{len(links)} variables such as {links[0]} are Kubernetes' links to a Service, and no "
            "settings",
        )
    elif not found:
        yield ok(check, "every CACHESVC_ variable is a setting")
