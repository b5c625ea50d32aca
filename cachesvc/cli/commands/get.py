"""`cachesvc get`: fetch entries, show them, and write them to files on request."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cachesvc.cli.conventions import output
from cachesvc.cli.conventions.connection import connected
from cachesvc.cli.conventions.options import (
    DEFAULT_TIMEOUT_S,
    AreaOfPerson,
    Category,
    Json,
    OriginAfter,
    Owner,
    Target,
    Timeout,
)

if TYPE_CHECKING:
    from cachesvc_client import CacheClient, Entry

app = typer.Typer(
    no_args_is_help=True, help="Fetch entries; an entry that is not cached is read from the origin."
)

Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        metavar="DIR",
        help="Write each entry to this folder as PART.safetensors, and its images as FIELD.png.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite existing files.")]
Version = Annotated[str, typer.Option(help="Refuse tensors of another model version.")]


@app.command()
def human(
    user_id: str,
    category: AreaOfPerson = Category.UPPER_BODY,
    origin_after: OriginAfter = None,
    kind_version: Version = "",
    output_dir: Output = None,
    force: Force = False,
    as_json: Json = False,
    target: Target = None,
    timeout_s: Timeout = DEFAULT_TIMEOUT_S,
) -> None:
    """Fetch one person: human_img, mask, mask_gray, pose_tensor."""

    def fetch(client: CacheClient) -> dict[str, Entry]:
        found = client.get_human(
            user_id, category.value, origin_after=origin_after, kind_version=kind_version
        )
        return {"human": found}

    _show(fetch, target, timeout_s, output_dir, force, as_json)


@app.command()
def garment(
    clothing_id: str,
    owner: Owner = "",
    origin_after: OriginAfter = None,
    kind_version: Version = "",
    output_dir: Output = None,
    force: Force = False,
    as_json: Json = False,
    target: Target = None,
    timeout_s: Timeout = DEFAULT_TIMEOUT_S,
) -> None:
    """Fetch one garment: garm_img, garm_tensor. Without --owner, the origin is not asked."""

    def fetch(client: CacheClient) -> dict[str, Entry]:
        found = client.get_garment(
            clothing_id, owner, origin_after=origin_after, kind_version=kind_version
        )
        return {"garment": found}

    _show(fetch, target, timeout_s, output_dir, force, as_json)


@app.command()
def text(
    clothing_id: str,
    owner: Owner = "",
    origin_after: OriginAfter = None,
    kind_version: Version = "",
    output_dir: Output = None,
    force: Force = False,
    as_json: Json = False,
    target: Target = None,
    timeout_s: Timeout = DEFAULT_TIMEOUT_S,
) -> None:
    """Fetch the five embeddings of one garment's text. Without --owner, the origin is not asked."""

    def fetch(client: CacheClient) -> dict[str, Entry]:
        found = client.get_text(
            clothing_id, owner, origin_after=origin_after, kind_version=kind_version
        )
        return {"text": found}

    _show(fetch, target, timeout_s, output_dir, force, as_json)


@app.command()
def tryon(
    user_id: str,
    clothing_id: str,
    category: AreaOfPerson = Category.UPPER_BODY,
    owner: Owner = "",
    origin_after: OriginAfter = None,
    output_dir: Output = None,
    force: Force = False,
    as_json: Json = False,
    target: Target = None,
    timeout_s: Timeout = DEFAULT_TIMEOUT_S,
) -> None:
    """Fetch the person, garment and text of one try-on. --owner defaults to the person."""

    def fetch(client: CacheClient) -> dict[str, Entry]:
        found = client.get_tryon(
            user_id, clothing_id, category.value, owner, origin_after=origin_after
        )
        return {"human": found.human, "garment": found.garment, "text": found.text}

    _show(fetch, target, timeout_s, output_dir, force, as_json)


@app.command()
def entry(
    namespace: str,
    id: str,
    owner: Owner = "",
    origin_after: OriginAfter = None,
    output_dir: Output = None,
    force: Force = False,
    as_json: Json = False,
    target: Target = None,
    timeout_s: Timeout = DEFAULT_TIMEOUT_S,
) -> None:
    """Fetch an entry of any kind by namespace and id."""

    def fetch(client: CacheClient) -> dict[str, Entry]:
        return {namespace: client.get(namespace, id, owner, origin_after=origin_after)}

    _show(fetch, target, timeout_s, output_dir, force, as_json)


def _show(
    fetch: Callable[[CacheClient], dict[str, Entry]],
    target: str | None,
    timeout_s: float,
    output_dir: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    from cachesvc.cli.commands import entry_files

    with connected(target, timeout_s) as client:
        begun = time.perf_counter()
        entries = fetch(client)
        elapsed_ms = (time.perf_counter() - begun) * 1e3
    written = entry_files.write(entries, output_dir, force=force) if output_dir else []
    if as_json:
        _print_json(entries, elapsed_ms, written)
    else:
        _print_tables(entries, elapsed_ms, written)


def _print_json(entries: dict[str, Entry], elapsed_ms: float, written: list[Path]) -> None:
    parts: dict[str, Any] = {
        part: {
            **output.info_of(found.info),
            "fields": {
                field.name: {"dtype": field.dtype, "shape": field.shape, "mode": field.mode}
                for field in found.layout.values()
            },
        }
        for part, found in entries.items()
    }
    output.print_json({"elapsed_ms": elapsed_ms, "parts": parts, "written": written})


def _print_tables(entries: dict[str, Entry], elapsed_ms: float, written: list[Path]) -> None:
    console = output.console()
    table = output.table("", ("Field", "dtype", "Shape", "Mode", ">Size"))
    for part, found in entries.items():
        size = output.size_text(found.info.size_bytes)
        table.add_row(f"{part}, from {found.info.tier.value}", "", "", "", size)
        for field in sorted(found.layout.values(), key=lambda field: field.begin):
            shape = "x".join(map(str, field.shape))
            size = output.size_text(field.end - field.begin)
            table.add_row(f"  {field.name}", field.dtype, shape, field.mode or "", size)
        table.add_section()
    console.print(table)
    total = output.size_text(sum(found.info.size_bytes for found in entries.values()))
    console.print(f"{total} in {elapsed_ms:.1f} ms, including the connection")
    for path in written:
        console.print(f"wrote {path}", soft_wrap=True)
