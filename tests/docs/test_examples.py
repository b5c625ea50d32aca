"""Do the documents' Python examples run against a daemon, unchanged?"""

from __future__ import annotations

import ast
import inspect
import re
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from cachesvc_client import OriginUnavailable
from tests.support import sample_objects
from tests.support.daemons import ROOT, Daemon
from tests.support.sample_objects import fresh_id


def examples(document: str) -> list[str]:
    text = (ROOT / document).read_text()
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


async def test_the_examples_of_the_clients_page_run_one_after_the_other(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHESVC_GRPC__SOCKET", str(daemon.socket))
    put_what_the_examples_name(daemon)
    person = sample_objects.person("user-7").values
    names: dict[str, Any] = {
        "picture": person["human_img"],
        "mask": person["mask"],
        "mask_gray": person["mask_gray"],
        "pose": person["pose_tensor"],
        "photo_read_at": datetime.now(UTC),
        "changed_at": datetime.now(UTC),
        "embeddings": sample_objects.text("coat-4", "user-2").values,
    }
    getting, putting, invalidating, v2, routes, without_a_daemon = examples("docs/client.md")
    await run(getting, names)
    client = names["cache"]
    assert names["tryon"].human.info.key.id == "user-7"
    assert names["other"].info.key.namespace == "human_dresses"
    await run(putting, names)
    assert names["info"].key.id == "user-7"
    assert names["added"].tier is not None
    await run(invalidating, names)
    assert names["step"].done == names["step"].total
    assert names["counts"].total == 3
    await run(v2.replace("cuda", "cpu"), names)
    assert set(names["person"]) == {"human_img", "mask", "mask_gray", "pose_tensor"}
    await run(routes, names)
    assert "/cache/all" in names["app"].openapi()["paths"]
    await run(without_a_daemon, names)
    names["writer"].put_garment("coat-3", **sample_objects.garment("coat-3", "user-2").values)
    assert names["reader"].get_garment("coat-3").info.key.id == "coat-3"
    with pytest.raises(OriginUnavailable):
        names["reader"].get_human("user-7")
    with pytest.raises(OriginUnavailable):
        await names["v2"].get_human("user-7")
    assert await names["v2"].get_human("user-7") is None
    client.close()


async def test_the_examples_of_the_clients_own_readme_run(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHESVC_GRPC__SOCKET", str(daemon.socket))
    put_what_the_examples_name(daemon)
    person = sample_objects.person("user-7").values
    made: list[dict[str, Any]] = []

    def pipe(**inputs: Any) -> list[Any]:
        made.append(inputs)
        return [[inputs["image"]]]

    names: dict[str, Any] = {
        "picture": person["human_img"],
        "mask": person["mask"],
        "mask_gray": person["mask_gray"],
        "pose": person["pose_tensor"],
        "photo_read_at": datetime.now(UTC),
        "pipe": pipe,
        "generator": None,
    }
    using, v2 = examples("client/README.md")
    await run(using.replace("cuda", "cpu"), names)
    assert len(made) == 1
    assert names["images"] == [made[0]["image"]]
    names["cache"].close()
    await run(v2.replace("cuda", "cpu"), names)
    assert set(names["person"]) == {"human_img", "mask", "mask_gray", "pose_tensor"}
    await names["cache"].aclose()


def put_what_the_examples_name(daemon: Daemon) -> None:
    people = [
        ("user-7", "upper"),
        ("user-7", "dresses"),
        ("user-8", "upper"),
        ("user-9", "dresses"),
    ]
    sample_objects.put_in_folder(
        daemon.origin_dir,
        *(sample_objects.person(name, part) for name, part in people),
        *(make("coat-3", "user-2") for make in (sample_objects.garment, sample_objects.text)),
    )


async def run(example: str, names: dict[str, Any]) -> None:
    code = compile(example, "example", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    done = eval(code, names)
    if inspect.isawaitable(done):
        await done


def test_the_workers_example_in_the_readme_runs(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHESVC_GRPC__SOCKET", str(daemon.socket))
    (example,) = examples("README.md")
    names: dict[str, Any] = {}
    exec(example, names)
    job = SimpleNamespace(
        user_id=fresh_id("u"),
        clothing_id=fresh_id("c"),
        category="upper_body",
        owner_id=fresh_id("o"),
        photo_changed_at=None,
    )
    clothes = (
        sample_objects.garment(job.clothing_id, job.owner_id),
        sample_objects.text(job.clothing_id, job.owner_id),
    )
    sample_objects.put_in_folder(daemon.origin_dir, *clothes)

    def pipe(**inputs: Any) -> Image.Image:
        picture = inputs["image"]
        assert isinstance(picture, Image.Image)
        return picture

    def pipe_during_a_change(**inputs: Any) -> Image.Image:
        names["cache"].invalidate(user_id=job.user_id)
        return pipe(**inputs)

    with names["cache"]:
        assert names["try_on"](job, pipe, device="cpu") == ("human",)
        sample_objects.put_in_folder(daemon.origin_dir, sample_objects.person(job.user_id))
        names["cache"].invalidate(user_id=job.user_id)  # as the uploader must do
        picture = names["try_on"](job, pipe, device="cpu")
        assert isinstance(picture, Image.Image)
        assert names["try_on"](job, pipe_during_a_change, device="cpu") == ("human",)
