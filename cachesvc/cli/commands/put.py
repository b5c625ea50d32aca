"""`cachesvc put`: store an entry from files."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from cachesvc.cli.conventions import output
from cachesvc.cli.conventions.connection import connected
from cachesvc.cli.conventions.options import (
    DEFAULT_TIMEOUT_S,
    AreaOfPerson,
    Category,
    Json,
    Owner,
    Target,
    Timeout,
    parse_duration,
    parse_moment,
)
from cachesvc_format.namespaces import HUMAN_NAMESPACES

if TYPE_CHECKING:
    from cachesvc_client.requests import PutOptions

app = typer.Typer(
    no_args_is_help=True,
    help="Store an entry from files. A file holds one field (FIELD.png, FIELD.pkl, FIELD.npy, "
    "FIELD=FILE), or several (a .safetensors file, such as `get --output` writes).",
)

Files = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE...",
        help="[FIELD=]FILE: .png; .pkl, .pt or .pth (of pickle.dumps or torch.save); .npy; "
        ".safetensors.",
    ),
]
AsOf = Annotated[
    datetime | None,
    typer.Option(
        parser=parse_moment,
        metavar="TIME",
        help="When the source was read (ISO 8601 with a zone). Default: now.",
    ),
]
Ttl = Annotated[
    timedelta | None,
    typer.Option(
        parser=parse_duration, metavar="TIME", help="How long to keep the entry: 90s, 15m, 24h, 7d."
    ),
]
Persist = Annotated[bool, typer.Option("--persist", help="First write the objects to the origin.")]


@app.command()
def human(
    user_id: str,
    files: Files,
    category: AreaOfPerson = Category.UPPER_BODY,
    persist: Persist = False,
    as_of: AsOf = None,
    ttl: Ttl = None,
    as_json: Json = False,
    target: Target = None,
    timeout_s: Timeout = DEFAULT_TIMEOUT_S,
) -> None:
    """Store one person: human_img, mask, mask_gray, pose_tensor."""
    options = _options("", as_of, ttl, persist)
    namespace = HUMAN_NAMESPACES[category.value]
    _store(namespace, user_id, files, options, target, timeout_s, as_json)


@app.command()
def garment(
    clothing_id: str,
    files: Files,
    owner: Owner = "",
    persist: Persist = False,
    as_of: AsOf = None,
    ttl: Ttl = None,
    as_json: Json = False,
    target: Target = None,
    timeout_s: Timeout = DEFAULT_TIMEOUT_S,
) -> None:
    """Store one garment: garm_img, garm_tensor. --persist needs --owner."""
    options = _options(owner, as_of, ttl, persist)
    _store("garment", clothing_id, files, options, target, timeout_s, as_json)


@app.command()
def text(
    clothing_id: str,
    files: Files,
    owner: Owner = "",
    persist: Persist = False,
    as_of: AsOf = None,
    ttl: Ttl = None,
    as_json: Json = False,
    target: Target = None,
    timeout_s: Timeout = DEFAULT_TIMEOUT_S,
) -> None:
    """Store the five embeddings of one garment's text. --persist needs --owner."""
    options = _options(owner, as_of, ttl, persist)
    _store("text", clothing_id, files, options, target, timeout_s, as_json)


@app.command()
def entry(
    namespace: str,
    id: str,
    files: Files,
    owner: Owner = "",
    persist: Persist = False,
    as_of: AsOf = None,
    ttl: Ttl = None,
    as_json: Json = False,
    target: Target = None,
    timeout_s: Timeout = DEFAULT_TIMEOUT_S,
) -> None:
    """Store an entry of any kind by namespace and id."""
    options = _options(owner, as_of, ttl, persist)
    _store(namespace, id, files, options, target, timeout_s, as_json)


def _options(
    owner: str, as_of: datetime | None, ttl: timedelta | None, persist: bool
) -> PutOptions:
    from cachesvc_client.requests import PutOptions

    return PutOptions(owner, as_of, ttl, persist)


def _store(
    namespace: str,
    id: str,
    files: list[str],
    options: PutOptions,
    target: str | None,
    timeout_s: float,
    as_json: bool,
) -> None:
    from cachesvc.cli.commands import field_files

    fields = field_files.read_fields(files)
    with connected(target, timeout_s) as client:
        info = client.put(namespace, id, fields, options=options)
    if as_json:
        output.print_json(output.info_of(info))
        return
    size = output.size_text(info.size_bytes)
    until = output.time_text(info.expires_at)
    output.console().print(f"stored {namespace}/{id}, {size}, which expires at {until}")
