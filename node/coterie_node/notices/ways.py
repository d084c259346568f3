"""The ways of a node's notices, from its settings."""

from __future__ import annotations

from pathlib import Path

from coterie_node.notices.mail import MailSender, read_credentials
from coterie_node.notices.senders import Sender
from coterie_node.notices.settings import NoticesPart
from coterie_node.notices.webhook import WebhookSender, read_secret


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
