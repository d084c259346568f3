"""The ways of a node's notices, from its settings."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from coterie_node.notices.events import Notice, NoticeKind
from coterie_node.notices.mail import MailSender, read_credentials
from coterie_node.notices.senders import Sender
from coterie_node.notices.settings import NoticesPart
from coterie_node.notices.webhook import WebhookSender, read_secret

MAX_CERTIFICATE_BYTES = 1 << 20


def open_senders(site: str, part: NoticesPart, root: Path) -> list[Sender]:
    """The ways that the settings name."""
    mails: list[Sender] = [] if part.mail is None else [MailSender(site, part.mail, root)]
    return [*mails, *(WebhookSender(site, hook, root) for hook in part.webhooks)]


def check_ways(part: NoticesPart, root: Path) -> list[str]:
    """The ways whose secrets can be read, by name; ConfigError or KeyFault for the first that cannot."""
    names = []
    if part.mail is not None:
        read_credentials(root, part.mail)
        names.append(f"mail through {part.mail.host}")
    for hook in part.webhooks:
        read_secret(root, hook)
        names.append(f"webhook {hook.name}")
    return names


def list_certificates(part: NoticesPart, root: Path, now: datetime) -> Sequence[Notice]:
    """Notices of certificates that end soon, have ended, or cannot be read."""
    notices = []
    for name in part.certificates:
        left = _count_days(root / name, now)
        if left is None or left <= part.certificate_days:
            what = "cannot be read" if left is None else f"ends in {left} days" if left >= 0 else "has ended"
            notices.append(Notice(NoticeKind.CERTIFICATE, f"certificate:{name}", f"The certificate {name} {what}."))
    return notices


def _count_days(path: Path, now: datetime) -> int | None:
    """Whole days until a certificate ends; None if the file holds none."""
    try:
        with path.open("rb") as file:
            certificate = x509.load_pem_x509_certificate(file.read(MAX_CERTIFICATE_BYTES))
    except (OSError, ValueError):
        return None
    return (certificate.not_valid_after_utc - now.astimezone(UTC)).days
