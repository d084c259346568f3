"""Certificates that end soon."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from coterie_learners.errors import pluralise
from coterie_node.notices.events import Notice, NoticeKind
from coterie_node.notices.settings import NoticesPart

MAX_CERTIFICATE_BYTES = 1 << 20


def list_certificates(part: NoticesPart, root: Path, now: datetime) -> Sequence[Notice]:
    """Notices of certificates that end soon, have ended, or cannot be read."""
    notices = []
    for name in part.certificates:
        left = _count_days(root / name, now)
        if left is None or left <= part.certificate_days:
            what = (
                "cannot be read" if left is None else f"ends in {pluralise(left, 'day')}" if left >= 0 else "has ended"
            )
            notices.append(Notice(NoticeKind.CERTIFICATE, f"certificate:{name}", f"The certificate {name} {what}."))
    return notices


def _count_days(path: Path, now: datetime) -> int | None:
    """Whole days until a certificate ends; None if the file holds none."""
    from cryptography import x509  # most nodes watch none

    try:
        with path.open("rb") as file:
            certificate = x509.load_pem_x509_certificate(file.read(MAX_CERTIFICATE_BYTES))
    except (OSError, ValueError):
        return None
    return (certificate.not_valid_after_utc - now.astimezone(UTC)).days
