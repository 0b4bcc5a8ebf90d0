"""The key by which this box is known to archives and brokers: made on the box, never sent anywhere.

`device.key` stays; `device.csr` goes to whoever certifies it; `device.pem` is what comes back, and until then a
certificate by ourselves, so that a configuration that names it can be used and everything but that peer works.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

from gateway.model.errors import IdentityError

KEY, CERTIFICATE, REQUEST = "device.key", "device.pem", "device.csr"
SINCE, UNTIL = datetime(2024, 1, 1, tzinfo=UTC), datetime(2049, 12, 31, tzinfo=UTC)
"""Of our own certificate: not by the clock, which a new box may not have."""


def make_key() -> bytes:
    """Return a new private key, PEM (P-256: every archive, broker and PKI takes it)."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def request(key_pem: bytes, name: str) -> bytes:
    """Return the certificate signing request of a box of this name, PEM (PKCS #10); raises IdentityError."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(_subject(name))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    return builder.sign(_key(key_pem), hashes.SHA256()).public_bytes(Encoding.PEM)


def own_certificate(key_pem: bytes, name: str) -> bytes:
    """Return a certificate that the box signs itself, PEM; raises IdentityError."""
    key = _key(key_pem)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_subject(name))
        .issuer_name(_subject(name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(SINCE)
        .not_valid_after(UNTIL)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def belongs(certificate_pem: bytes, key_pem: bytes) -> bool:
    """True when the first certificate is one of this key."""
    try:
        found = x509.load_pem_x509_certificates(certificate_pem)[0].public_key()
    except (ValueError, IndexError):
        return False
    return found == _key(key_pem).public_key()


def signed_by_itself(path: Path) -> bool:
    """True when the file holds a certificate that nobody else vouches for; False where there is none."""
    try:
        certificate = x509.load_pem_x509_certificates(path.read_bytes())[0]
    except (OSError, ValueError, IndexError):
        return False
    return certificate.issuer == certificate.subject


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _key(key_pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(key_pem, None)
    except (ValueError, TypeError) as error:
        raise IdentityError(f"{KEY} is no private key", hint=f"remove {KEY}: a new one is made") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise IdentityError(f"{KEY} is not of the kind that this box makes", hint=f"remove {KEY}: a new one is made")
    return key
