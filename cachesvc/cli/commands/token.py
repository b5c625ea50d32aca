"""`cachesvc token new`: make a bearer token for a caller.

The token is printed once and stored nowhere; the daemon's settings get its hash.
"""

from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime
from typing import Annotated

import typer

from cachesvc.cli.conventions import output
from cachesvc.cli.conventions.exits import ExitCode, fail
from cachesvc.cli.conventions.options import parse_duration
from cachesvc.core.access import Role
from cachesvc.core.credentials import token_digest
from cachesvc_format.names import ID_PATTERN, is_id

# Secret scanners can look for this prefix.
_PREFIX = "cachesvc_"
_RANDOM_BYTES = 32

app = typer.Typer(help="Make bearer tokens for callers over TCP.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Make bearer tokens for callers over TCP."""


@app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="The caller's name in the audit log.")],
    role: Annotated[list[Role], typer.Option(help="What the caller may do; may be repeated.")],
    expires_in: Annotated[
        str | None, typer.Option(metavar="DURATION", help="For example 90d. Default: never.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print a new token once, and the lines for the file that `access.file` names."""
    if not is_id(name):
        fail(f"NAME must match {ID_PATTERN}", ExitCode.USAGE)
    token = _PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    roles = list(dict.fromkeys(each.value for each in role))
    expires = None
    if expires_in is not None:
        moment = datetime.now(UTC).replace(microsecond=0) + parse_duration(expires_in)
        expires = moment.isoformat()
    digest = token_digest(token).hex()
    if as_json:
        entry = {"name": name, "sha256": digest, "roles": roles, "expires": expires}
        known = {key: value for key, value in entry.items() if value is not None}
        output.print_json({"token": token, "entry": known})
        return
    print(
        f"The token, which is shown only now:\n\n{token}\n\n"
        "Lines for the file that access.file names:\n"
    )
    print(f'[[tokens]]\nname = "{name}"\nsha256 = "{digest}"\nroles = {json.dumps(roles)}')
    if expires:
        print(f"expires = {expires}")
