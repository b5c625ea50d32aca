"""In which environment does AWS's credential chain find a key, and look nowhere else?"""

from __future__ import annotations

import os


def with_key(access_key: str = "any", secret_key: str = "any") -> dict[str, str]:
    """Return the environment. A stand-in that checks no signature accepts any key."""
    return {
        "AWS_ACCESS_KEY_ID": access_key,
        "AWS_SECRET_ACCESS_KEY": secret_key,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
