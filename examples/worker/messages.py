"""What do callers send to the worker, and where does it read photos?"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from PIL import Image
from pydantic import AwareDatetime, BaseModel, StringConstraints

# The daemon's pattern of ids. Photos are files here, so an id must not become part of a path.
Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
# The pipeline's keyword arguments become the picture.
Diffuse = Callable[..., Image.Image]
Parts = tuple[str, ...]


class TryOnBody(BaseModel):
    """One try-on. The backend wrote the time of the photo's last change into it."""

    user_id: Id
    clothing_id: Id
    category: str = "upper_body"
    owner_id: Id | None = None
    photo_changed_at: AwareDatetime | None = None

    @property
    def owner(self) -> str:
        return self.owner_id or self.user_id


class BatchBody(BaseModel):
    """Several try-ons; each has an answer of its own."""

    jobs: list[TryOnBody]


class PrepareHumanBody(BaseModel):
    """A photo that was changed: prepare it again."""

    user_id: Id
    category: str = "upper_body"
    photo_changed_at: AwareDatetime | None = None


class PrepareGarmentBody(BaseModel):
    """A garment that was changed, or is new."""

    clothing_id: Id
    owner_id: Id
    description: str
    changed_at: AwareDatetime | None = None


@dataclass(frozen=True)
class Done:
    """The picture may be shown."""

    picture: Image.Image

    def png(self) -> bytes:
        out = io.BytesIO()
        self.picture.save(out, format="PNG")
        return out.getvalue()


@dataclass(frozen=True)
class ToPrepare:
    """Prepare these parts (`human`, `garment`, `text`) first; then try again.

    `changed`: the parts were there, and changed while the model ran.
    """

    parts: Parts
    changed: bool = False

    @property
    def status(self) -> int:
        return 409 if self.changed else 404


def batch_item(result: Done | ToPrepare) -> dict[str, Any]:
    if isinstance(result, Done):
        return {"status": 200, "picture": base64.b64encode(result.png()).decode()}
    return {"status": result.status, "prepare": list(result.parts)}


class NoSuchPhoto(Exception):
    """The photo does not exist."""


class Photos:
    """The users' own pictures: in a folder here, in a bucket in production."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, name: str) -> Image.Image:
        """Return the picture as it is now. Raises NoSuchPhoto."""
        try:
            with Image.open(self._folder / f"{name}.png") as picture:
                picture.load()
                return picture
        except FileNotFoundError as exc:
            raise NoSuchPhoto(name) from exc


def latest(*moments: datetime | None) -> datetime:
    """Return the latest of the times that are known."""
    return max(moment for moment in moments if moment is not None)
