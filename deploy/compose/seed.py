"""What is at the origin of the trial? One made-up person and ten garments, written to S3."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import boto3
import sample_data


def main() -> None:
    s3 = boto3.client(
        "s3",
        endpoint_url=os.environ["CACHESVC_ORIGIN__ENDPOINT_URL"],
        region_name=os.environ["CACHESVC_ORIGIN__REGION"],
    )
    bucket = os.environ["CACHESVC_ORIGIN__BUCKET"]
    s3.create_bucket(Bucket=bucket)
    with tempfile.TemporaryDirectory() as folder:
        sample_data.write_origin(Path(folder))
        objects = [path for path in Path(folder).rglob("*") if path.is_file()]
        for path in objects:
            s3.put_object(
                Bucket=bucket, Key=path.relative_to(folder).as_posix(), Body=path.read_bytes()
            )
    print(f"{len(objects)} objects are in {bucket}")


if __name__ == "__main__":
    main()
