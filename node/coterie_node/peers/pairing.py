"""TLS between two sites that know each other by the Catalog's sealing keys alone.

Both ends can compute one secret from their own X25519 key and the other's, as the Catalog lists it. From it and the
session both derive the same two Ed25519 keys and self-signed certificates, one for each end of a connection. Each
end trusts exactly the other's certificate; so a handshake succeeds only between owners of these two Catalog keys, for
this session, in this direction. TLS 1.3 makes fresh keys for the traffic. A later theft of the sites' keys does not
disclose them.
"""

from __future__ import annotations

import datetime
import os
import secrets
import ssl
import tempfile
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from cryptography.x509.oid import NameOID

SINCE = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
UNTIL = datetime.datetime(2120, 1, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True)
class Pairing:
    """One direction of one pair in one session: the caller, the called party, and their common secret (32 bytes)."""

    secret: bytes
    session: bytes
    client: str
    server: str

    def __repr__(self) -> str:
        return f"Pairing({self.client} -> {self.server})"

    def client_context(self) -> ssl.SSLContext:
        """For the site that connects."""
        return self._context(ssl.PROTOCOL_TLS_CLIENT, "client", "server")

    def server_context(self) -> ssl.SSLContext:
        """For the site that is connected to."""
        context = self._context(ssl.PROTOCOL_TLS_SERVER, "server", "client")
        # A ticket would be data against the direction of the connection, which nobody reads there.
        context.num_tickets = 0
        return context

    def is_peer(self, certificate: bytes | None, role: str) -> bool:
        """Whether a certificate (DER) is the one that the end in this role has."""
        return certificate == self._certificate(role).public_bytes(Encoding.DER)

    def _context(self, protocol: ssl._SSLMethod, own_role: str, peer_role: str) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        # The certificate itself names the peer (is_peer): a host name would add nothing.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=self._certificate(peer_role).public_bytes(Encoding.DER))
        _load(context, self._certificate(own_role), self._key(own_role))
        return context

    def _key(self, role: str) -> Ed25519PrivateKey:
        info = b"coterie/1 tls " + self.session + f"/{self.client}>{self.server}/{role}".encode()
        return Ed25519PrivateKey.from_private_bytes(HKDF(SHA256(), 32, salt=None, info=info).derive(self.secret))

    def _certificate(self, role: str) -> x509.Certificate:
        key = self._key(role)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"coterie {role}")])
        public = key.public_key()
        usage = {
            "content_commitment": False,
            "key_encipherment": False,
            "data_encipherment": False,
            "key_agreement": False,
            "crl_sign": False,
            "encipher_only": False,
            "decipher_only": False,
        }
        built = (
            x509.CertificateBuilder(name, name, public, 1, SINCE, UNTIL)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.KeyUsage(digital_signature=True, key_cert_sign=True, **usage), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        )
        return built.sign(key, None)


def _load(context: ssl.SSLContext, certificate: x509.Certificate, key: Ed25519PrivateKey) -> None:
    """Load certificate and key into OpenSSL, which reads files only: the file is encrypted, and removed at once."""
    password = secrets.token_hex(32)
    key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password.encode()))
    descriptor, path = tempfile.mkstemp(suffix=".pem")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(certificate.public_bytes(Encoding.PEM) + key_pem)
        context.load_cert_chain(path, password=password)
    finally:
        os.unlink(path)
