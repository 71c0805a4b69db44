"""TLS for `merveil server` and `merveil site`: version 1.3 only, and the server's certificate pinned by the
sites.

A site trusts exactly the certificates in the file that it was given with the invitation, no public authority.
Which member is at the other end is decided inside the channel, by a signature of its roster key.
"""

import datetime
import ipaddress
import os
import ssl
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from merveil.fl.files import write_bytes
from merveil.fl.keys import write_private
from merveil.fl.ledger import check_private
from merveil.protocols.errors import LocalError

CERTIFICATE, KEY = "tls.crt", "tls.key"


def new_certificate(folder: Path, hosts: Sequence[str], *, days: int = 365, force: bool = False) -> Path:
    """Write tls.key (mode 600) and a self-signed tls.crt for names or addresses; returns the certificate.

    Everybody who should reach the server gets tls.crt. Use your own authority's files instead where you have
    one. LocalError: no host, days out of range, or files that are there already and no `force`.
    """
    if not hosts or any(not h for h in hosts) or not 1 <= days <= 3650:
        raise LocalError("a certificate needs at least one host name or address, and 1 to 3650 days")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([_alternative(h) for h in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    )
    certificate = builder.sign(key, hashes.SHA256())
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    if (folder / CERTIFICATE).exists() and not force:
        raise LocalError(f"{folder / CERTIFICATE} exists: choose another place, or --force to replace it")
    write_private(folder / KEY, secret, force=force)
    write_bytes(folder / CERTIFICATE, certificate.public_bytes(serialization.Encoding.PEM))
    os.chmod(folder / CERTIFICATE, 0o644)
    return folder / CERTIFICATE


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """LocalError: a file is missing, the key is open to others, or the two do not belong together."""
    for path in (certificate, key):
        if not path.is_file():
            raise LocalError(f"{path} does not exist: make it with `merveil server --new-certificate HOST`")
    check_private(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        raise LocalError(f"{certificate} and {key} are no certificate and its key") from error
    return context


def site_context(certificate: Path) -> ssl.SSLContext:
    """Trusts the certificates of this file and nothing else. LocalError: missing, or no certificate."""
    if not certificate.is_file():
        raise LocalError(f"{certificate} does not exist: get the server's certificate from its operator")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies host name and certificate
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_verify_locations(cafile=certificate)
    except ssl.SSLError as error:
        raise LocalError(f"{certificate} holds no certificate") from error
    return context


def fingerprint(der: bytes) -> bytes:
    """SHA-256 of a certificate, 32 bytes: what a site's signature is bound to."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(der)
    return digest.finalize()


def certificate_der(path: Path) -> bytes:
    """The first certificate of a PEM file, as DER."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(serialization.Encoding.DER)
    except ValueError as error:
        raise LocalError(f"{path} holds no certificate") from error
