"""HTTP on this machine, which needs no TLS: loading the authorities for it takes 40 ms of CPU for each client."""

import ssl
from typing import Final

NO_TLS: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Trusts nobody; given as `verify`, it stands for the context that httpx would make."""
