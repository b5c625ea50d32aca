"""Does a Put with `persist` store objects that the original service can load, before it answers?"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass

import grpc
import pytest
import torch
from PIL import Image

from cachesvc_proto.v1 import cache_pb2 as pb
from tests.conftest import NewDaemon
from tests.e2e.conftest import S3Setup
from tests.support import sample_objects
from tests.support.daemons import Daemon, s3_settings
from tests.support.grpc_calls import get_human, put, refused
from tests.support.s3.servers import S3Server
from tests.support.sample_objects import Sample, fresh_id
from tests.support.tensor_forms import FORMS, loaded, tensor_in_form

pytestmark = pytest.mark.s3

NAMESPACE = "human_lower_body"
LOWER = pb.HUMAN_CATEGORY_LOWER_BODY


def value_as_v2_reads_it(object_key: str, data: bytes) -> torch.Tensor | Image.Image:
    if object_key.endswith(".pkl"):
        loaded = pickle.loads(data)
        assert isinstance(loaded, torch.Tensor)
        return loaded
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


def modes(sample: Sample) -> dict[str, str]:
    return {n: value.mode for n, value in sample.values.items() if isinstance(value, Image.Image)}


def persisted(server: S3Server, bucket: str, sample: Sample) -> Sample:
    """Return the sample as V2 would read it from the bucket."""
    client = server.client()
    objects = {
        key: client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in sample.objects
    }
    keys = dict(zip(sample.values, sample.objects, strict=True))
    values = {name: value_as_v2_reads_it(key, objects[key]) for name, key in keys.items()}
    return Sample(objects, values)


def test_a_persisted_put_can_be_loaded_by_v2_and_by_another_daemon(
    on_s3: S3Setup, new_daemon: NewDaemon
) -> None:
    user = fresh_id("u")
    person = sample_objects.person(user, "lower", seed=9)
    put(on_s3.daemon.stub(), NAMESPACE, user, person.blob(), persist=True)

    v2 = persisted(on_s3.server, on_s3.bucket, person)
    assert v2.matches(person.blob())
    assert modes(v2) == modes(person) == {"human_img": "RGB", "mask": "L", "mask_gray": "L"}
    elsewhere = new_daemon(
        environment=on_s3.server.credentials(), **s3_settings(on_s3.server, on_s3.bucket)
    )
    entry = get_human(elsewhere.stub(), user, LOWER)
    assert entry.info.tier == pb.TIER_ORIGIN
    assert person.matches(entry.tensors)


@dataclass(frozen=True)
class InAllForms:
    """A text to put, the form of each object that is at the origin before, and these objects."""

    id: str
    owner: str
    text: Sample
    forms: dict[str, str]
    older: dict[str, bytes]

    def put(self, daemon: Daemon) -> None:
        blob = self.text.blob()
        put(daemon.stub(), "text", self.id, blob, persist=True, owner_id=self.owner)

    def check(self, now: Mapping[str, bytes]) -> None:
        values = dict(zip(self.text.objects, self.text.values.values(), strict=True))
        for key, form in self.forms.items():
            assert torch.equal(loaded(form, now[key]), values[key])


@pytest.fixture
def in_all_forms() -> InAllForms:
    clothing, owner = fresh_id("t"), fresh_id("u")
    text = sample_objects.text(clothing, owner, seed=3)
    forms = dict(zip(text.objects, (*FORMS, "raw", "zip"), strict=True))
    older = {key: tensor_in_form(form, torch.zeros(2)) for key, form in forms.items()}
    return InAllForms(clothing, owner, text, forms, older)


def test_objects_of_a_bucket_keep_the_form_that_their_other_readers_read(
    on_s3: S3Setup, in_all_forms: InAllForms
) -> None:
    client = on_s3.server.client()
    for key, data in in_all_forms.older.items():
        client.put_object(Bucket=on_s3.bucket, Key=key, Body=data)

    in_all_forms.put(on_s3.daemon)

    in_all_forms.check(
        {
            key: client.get_object(Bucket=on_s3.bucket, Key=key)["Body"].read()
            for key in in_all_forms.forms
        }
    )


def test_objects_of_a_folder_keep_the_form_that_their_other_readers_read(
    daemon: Daemon, in_all_forms: InAllForms
) -> None:
    for key, data in in_all_forms.older.items():
        path = daemon.origin_dir / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    in_all_forms.put(daemon)

    in_all_forms.check({key: (daemon.origin_dir / key).read_bytes() for key in in_all_forms.forms})


def test_a_put_that_cannot_be_persisted_is_unavailable_and_stores_nothing(
    on_s3: S3Setup, s3_server: S3Server
) -> None:
    user, stub = fresh_id("u"), on_s3.daemon.stub()
    s3_server.stop_serving()
    try:
        with refused() as refusal:
            blob = sample_objects.person(user).blob()
            put(stub, NAMESPACE, user, blob, persist=True)
    finally:
        s3_server.start_serving()
    assert refusal.code is grpc.StatusCode.UNAVAILABLE
    key = pb.EntryKey(namespace=NAMESPACE, id=user)
    assert not stub.Inspect(pb.InspectRequest(key=key)).tiers
