"""Notices to an address: JSON, signed with the time by HMAC-SHA-256; no redirect is followed.

The address is resolved once, its numbers are judged, and the connection goes to the number that was judged: a name that
points elsewhere a moment later leads nowhere. Addresses of link-local services (as clouds' metadata) are never called.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from urllib.parse import urlsplit

from coterie_chain.http_client import WIRE_FAULTS, HttpClient, Waits
from coterie_chain.keys.private_files import read_private
from coterie_node.errors import ConfigError
from coterie_node.notices.events import Notice
from coterie_node.notices.senders import SendFailed
from coterie_node.notices.settings import WebhookPart

_WAITS = Waits(connect=5.0, silence=10.0, answer=15.0)
_MAX_ANSWER_BYTES = 1 << 12
MIN_SECRET = 16
# How old a signed notice may be when it is received.
MAX_AGE_SECONDS = 300
TIMESTAMP, SIGNATURE, DELIVERY = "Coterie-Timestamp", "Coterie-Signature", "Coterie-Delivery"
# Services of clouds that say who a machine is, and that are not at link-local addresses.
METADATA_SERVICES = frozenset({"168.63.129.16", "100.100.100.200", "fd00:ec2::254", "192.0.0.192"})
_TRANSLATED = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48")))
Resolve = Callable[[str, int], Sequence[str]]


def resolve_host(host: str, port: int) -> Sequence[str]:
    """The numbers of a host's name, by this machine's resolver."""
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


@dataclass(frozen=True)
class WebhookSender:
    """Sends notices of one site to one address."""

    site: str
    part: WebhookPart
    root: Path
    clock: Callable[[], float] = time.time
    resolve: Resolve = resolve_host

    @property
    def name(self) -> str:
        """The way's name."""
        return f"webhook {self.part.name}"

    def send(self, delivery: str, notices: Sequence[Notice]) -> None:
        """One POST with all of them."""
        body = json.dumps({"delivery": delivery, "site": self.site, "notices": [n.as_dict() for n in notices]}).encode()
        headers = sign_headers(read_secret(self.root, self.part), int(self.clock()), body)
        headers |= {"Content-Type": "application/json", DELIVERY: delivery}
        parts = urlsplit(self.part.url)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        origin = f"{parts.scheme}://{parts.netloc}"
        try:
            with HttpClient(origin, _WAITS, dial=self._dial) as client:
                answer = client.post(path, body, headers, limit=_MAX_ANSWER_BYTES)
        except (*WIRE_FAULTS, ValueError) as error:
            message = f"The webhook {self.part.name} cannot be reached: {type(error).__name__}"
            raise SendFailed("CO-T103", f"{message}. Check its address under [[notices.webhooks]].") from None
        if not 200 <= answer.status < 300:
            message = f"The webhook {self.part.name} answers with the status {answer.status}"
            raise SendFailed("CO-T103", f"{message}. Redirects are not followed: name the address itself.")

    def _dial(self, address: tuple[str, int], timeout: float, source: tuple[str, int] | None) -> socket.socket:
        """A connection to a number that was judged."""
        host, port = address
        number = choose_number(self.resolve(host, port), self.part)
        return socket.create_connection((number, port), timeout, source)


def choose_number(numbers: Sequence[str], part: WebhookPart) -> str:
    """The first number of a host; SendFailed (CO-T104) if any number of it is one that no notice may go to."""
    for text in numbers:
        number = ipaddress.ip_address(text.partition("%")[0])
        inner = find_inner(number)
        never = inner.is_link_local or inner.is_multicast or inner.is_unspecified or str(inner) in METADATA_SERVICES
        private = not inner.is_global
        if never or (private and not part.internal):
            message = f"The webhook {part.name} leads to {text}, which is {'never called' if never else 'private'}"
            remedy = "Name another address" if never else "Set internal = true if it is meant"
            raise SendFailed("CO-T104", f"{message}. {remedy}.")
    if not numbers:
        raise SendFailed("CO-T103", f"The host of the webhook {part.name} has no address. Check its name.")
    return numbers[0]


def find_inner(number: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address to which an IPv6 address leads: mapped, compatible, 6to4, or by a translator (NAT64)."""
    if isinstance(number, IPv4Address):
        return number
    translated = any(number in net for net in _TRANSLATED) or 1 < int(number) < 1 << 32
    last = IPv4Address(int(number) & 0xFFFFFFFF) if translated else None
    return number.ipv4_mapped or number.sixtofour or last or number


def read_secret(root: Path, part: WebhookPart) -> bytes:
    """The secret of an address; ConfigError (CO-T101) for one that is too short."""
    secret = read_private(root / part.secret_file, "the webhook's secret").strip()
    if len(secret) < MIN_SECRET:
        message = f"The secret of the webhook {part.name} has {len(secret)} characters, and needs {MIN_SECRET}"
        raise ConfigError("CO-T101", f"{message}. Write a longer one.")
    return secret.encode()


def sign_headers(secret: bytes, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers by which a receiver knows who sent a body, and when."""
    digest = hmac.new(secret, f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    return {TIMESTAMP: str(timestamp), SIGNATURE: f"v1={digest}"}


def check_headers(secret: bytes, headers: Mapping[str, str], body: bytes, now: float) -> bool:
    """For receivers: whether the secret's holder sent this body in the last five minutes."""
    timestamp = headers.get(TIMESTAMP, "")
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        return False
    if abs(now - int(timestamp)) > MAX_AGE_SECONDS:
        return False
    wanted = sign_headers(secret, int(timestamp), body)[SIGNATURE]
    return hmac.compare_digest(wanted.encode(), headers.get(SIGNATURE, "").encode())
