"""`[notices]` in node.toml: which events, by which ways, and when not."""

from __future__ import annotations

import re
from datetime import time
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from coterie_learners.study.document import Frozen, Name
from coterie_node.notices.events import NoticeKind

_CLOCK = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")
LOOPBACK = ("127.0.0.1", "::1", "localhost")
# A mail's address, without anything that a header could take for more than one.
_ADDRESS = r"^[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,190}$"
MailAddress = Annotated[str, Field(pattern=_ADDRESS)]
HostName = Annotated[str, Field(pattern=r"^[A-Za-z0-9.:-]{1,253}$")]


def _check_quiet(text: str) -> str:
    if text and len(read_hours(text)) != 2:
        raise ValueError("write quiet hours as 22:00-07:00")
    return text


def _check_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None or parts.fragment:
        raise ValueError("write the address as https://HOST/PATH")
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        raise ValueError("only an address of this machine may do without https")
    return text


def read_hours(text: str) -> tuple[time, ...]:
    """Begin and end of quiet hours; nothing for any other text."""
    matches = [_CLOCK.fullmatch(part) for part in text.split("-")]
    return tuple(time(int(m[1]), int(m[2])) for m in matches if m)


class MailPart(Frozen):
    """A mail server and who gets mails. `credentials_file` (mode 0600): the user, then the password, a line each."""

    host: HostName
    port: Annotated[int, Field(ge=1, le=65535)] = 587
    security: Literal["starttls", "tls", "none"] = "starttls"
    sender: MailAddress
    to: Annotated[tuple[MailAddress, ...], Field(min_length=1, max_length=20)]
    credentials_file: str = ""
    ca_file: str = ""


class WebhookPart(Frozen):
    """An address that gets notices, signed with the secret in a file of mode 0600; `internal`: in a private network."""

    name: Name
    url: Annotated[str, Field(max_length=500), AfterValidator(_check_url)]
    secret_file: str
    internal: bool = False


class NoticesPart(Frozen):
    """`quiet`: hours by the machine's clock with `urgent` kinds alone. `digest_minutes`: collect the others so long."""

    kinds: tuple[NoticeKind, ...] = tuple(kind for kind in NoticeKind if kind is not NoticeKind.TEST)
    urgent: tuple[NoticeKind, ...] = (NoticeKind.DISPUTE, NoticeKind.DISK, NoticeKind.CHAIN)
    quiet: Annotated[str, AfterValidator(_check_quiet)] = ""
    digest_minutes: Annotated[int, Field(ge=0, le=1440)] = 0
    free_gib: Annotated[float, Field(ge=0.0, le=1e6)] = 1.0
    certificates: Annotated[tuple[str, ...], Field(max_length=10)] = ()
    certificate_days: Annotated[int, Field(ge=1, le=90)] = 14
    mail: MailPart | None = None
    webhooks: Annotated[tuple[WebhookPart, ...], Field(max_length=10)] = ()

    @property
    def wanted(self) -> bool:
        """Whether anybody gets notices."""
        return self.mail is not None or bool(self.webhooks)
