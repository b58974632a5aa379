"""Files of certificates and keys, good ones and others."""

from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, the authority behind them, and files that do not go with them."""

    ca: Path
    cert: Path
    key: Path
    encrypted_key: Path
    other_key: Path
    no_pem: Path
    password: str


def make_pair(folder: Path) -> Pair:
    """Write the files into a folder."""
    names = ("ca", "cert", "key", "encrypted_key", "other_key", "no_pem")
    made = Pair(**{name: folder / f"{name}.pem" for name in names}, password="right")
    ca = trustme.CA(key_type=trustme.KeyType.ECDSA)
    issued = ca.issue_cert("127.0.0.1", "localhost")
    ca.cert_pem.write_to_path(made.ca)
    issued.cert_chain_pems[0].write_to_path(made.cert)
    issued.private_key_pem.write_to_path(made.key)
    ca.issue_cert("127.0.0.1").private_key_pem.write_to_path(made.other_key)
    key = serialization.load_pem_private_key(made.key.read_bytes(), password=None)
    made.encrypted_key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(made.password.encode()),
        )
    )
    made.no_pem.write_text("certainly not PEM\n")
    return made
