"""Can the hub be reached? Checked in one look-up, not after five retries."""

from __future__ import annotations

import os
import socket
import urllib.request
from urllib.parse import urlparse

OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")


def offline_mode() -> bool:
    """Whether the environment forbids asking the hub (`HF_HUB_OFFLINE=1` and the like)."""
    return any(os.environ.get(name, "").lower() in {"1", "true", "yes", "on"} for name in OFFLINE)


def out_of_reach() -> bool:
    """Whether asking the hub is forbidden or certain to fail: then only the local cache serves."""
    if offline_mode():
        return True
    from huggingface_hub import constants

    endpoint = urlparse(constants.ENDPOINT)
    if endpoint.scheme in urllib.request.getproxies():
        return False  # a proxy resolves names for us
    try:
        socket.getaddrinfo(endpoint.hostname, endpoint.port or 443)
    except OSError:
        return True
    return False
