"""Where do the certificates of a test come from? From a CA of its own, made in milliseconds."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

# The settings know 127.0.0.1 only, and take the second address for one beyond loopback.
ADDRESSES = ("127.0.0.1", "127.0.0.2")
HERE = tuple(x509.IPAddress(ipaddress.ip_address(address)) for address in ADDRESSES)
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Certificate:
    """A certificate with its key, both PEM."""

    pem: bytes
    key: bytes

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Replace the files of `name` as a rotation does, and return their paths."""
        paths = folder / f"{name}.pem", folder / f"{name}.key"
        for path, data in zip(paths, (self.pem, self.key), strict=True):
            fresh = path.with_suffix(path.suffix + ".new")
            fresh.write_bytes(data)
            fresh.chmod(0o600)
            fresh.rename(path)
        return paths


class Authority:
    """A CA."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        self.pem = _pem(
            _builder(self._name, self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_may(key_cert_sign=True, crl_sign=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    def write(self, folder: Path) -> Path:
        path = folder / "ca.pem"
        path.write_bytes(self.pem)
        return path

    def issue(
        self,
        *names: str,
        sans: Iterable[x509.GeneralName] = (),
        expired: bool = False,
        early: bool = False,
        between: tuple[datetime, datetime] | None = None,
    ) -> Certificate:
        """Return a certificate for the DNS names `names` and for `sans`.

        `early`: valid from tomorrow; `between`: these two moments.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(
            _named("somebody"), self._name, key, expired=expired, early=early, between=between
        )
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
            critical=False,
        ).add_extension(_may(digital_signature=True), critical=True)
        all_names = [*(x509.DNSName(name) for name in names), *sans]
        if all_names:
            builder = builder.add_extension(x509.SubjectAlternativeName(all_names), critical=False)
        signed = builder.sign(self._key, hashes.SHA256())
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return Certificate(_pem(signed), private)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    *,
    expired: bool = False,
    early: bool = False,
    between: tuple[datetime, datetime] | None = None,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    starts, ends = between or (
        now + _DAY if early else now - 2 * _DAY,
        now - _DAY if expired else now + 2 * _DAY,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(starts)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _may(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    """Return what the key is for: strict verifiers, as Python 3.13, refuse a CA without it."""
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)
