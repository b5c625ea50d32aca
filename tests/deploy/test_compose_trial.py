"""Does the trial of `deploy/compose.yaml` find a try-on at the S3 stand-in that it fills?"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from cachesvc_client import CacheClient
from tests.conftest import NewDaemon
from tests.support.s3.moto import MotoServer

ROOT = Path(__file__).parents[2]
SERVICES = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())["services"]


@pytest.fixture
def moto(tmp_path: Path) -> Iterator[MotoServer]:
    """The S3 server of the image that the trial runs."""
    server = MotoServer(tmp_path)
    server.start()
    yield server
    server.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_seeded_try_on_is_served(moto: MotoServer, new_daemon: NewDaemon) -> None:
    given = {**SERVICES["seed"]["environment"]}
    given["CACHESVC_ORIGIN__ENDPOINT_URL"] = moto.endpoint_url
    seed = ROOT / "deploy/compose/seed.py"
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "examples/demo")))
    # As in the container, sample_data.py can be imported by this name.
    environment = {**os.environ, **given, "PYTHONPATH": paths}
    subprocess.run([sys.executable, str(seed)], env=environment, check=True, capture_output=True)
    daemon = new_daemon(
        environment={name: value for name, value in given.items() if name.startswith("AWS_")},
        ORIGIN__KIND="s3",
        **{
            name.removeprefix("CACHESVC_"): value
            for name, value in given.items()
            if name.startswith("CACHESVC_")
        },
    )
    with CacheClient(str(daemon.socket)) as client:
        tryon = client.get_tryon("demo-person", "outfit-01")
        assert tryon.human.image("human_img").size == (768, 1024)
        assert len(tryon.text) == 5
