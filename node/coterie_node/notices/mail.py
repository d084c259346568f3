"""Notices by e-mail over SMTP, encrypted by STARTTLS or TLS; credentials are in a private file."""

from __future__ import annotations

import smtplib
import ssl
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path

from coterie_chain.keys.private_files import read_private
from coterie_node.errors import ConfigError
from coterie_node.notices.events import Notice
from coterie_node.notices.senders import SendFailed
from coterie_node.notices.settings import LOOPBACK, MailPart

# Seconds for each answer of the server.
SMTP_SECONDS = 20.0
MAX_SUBJECT = 120


@dataclass(frozen=True)
class MailSender:
    """Sends notices of one site through one mail server."""

    site: str
    part: MailPart
    root: Path

    @property
    def name(self) -> str:
        """The way's name."""
        return "mail"

    def send(self, delivery: str, notices: Sequence[Notice]) -> None:
        """One mail to all receivers."""
        message = write_message(self.site, self.part, delivery, notices)
        credentials = read_credentials(self.root, self.part)
        try:
            with self._connect() as server:
                if credentials is not None:
                    server.login(*credentials)
                refused = server.send_message(message)
        except (OSError, smtplib.SMTPException) as error:
            # What a server answers may hold anything: of it only the number is repeated.
            code = getattr(error, "smtp_code", "")
            message_text = (
                f"The mail server {self.part.host} did not take the mail ({type(error).__name__} {code}".rstrip()
            )
            raise SendFailed("CO-T102", f"{message_text}). Check [notices.mail] and the server.") from None
        if refused:
            raise SendFailed(
                "CO-T102", f"The mail server refused {len(refused)} of the receivers. Check their addresses."
            )

    def _connect(self) -> smtplib.SMTP:
        context = ssl.create_default_context(cafile=str(self.root / self.part.ca_file) if self.part.ca_file else None)
        if self.part.security == "tls":
            return smtplib.SMTP_SSL(self.part.host, self.part.port, timeout=SMTP_SECONDS, context=context)
        server = smtplib.SMTP(self.part.host, self.part.port, timeout=SMTP_SECONDS)
        if self.part.security == "starttls":
            server.starttls(context=context)
        return server


def read_credentials(root: Path, part: MailPart) -> tuple[str, str] | None:
    """User and password, None without a file; ConfigError (CO-T101) if they would go without encryption."""
    if part.security == "none" and part.host not in LOOPBACK:
        message = f"Mails would go to {part.host} without encryption"
        raise ConfigError("CO-T101", f'{message}. Set security = "starttls" or "tls" under [notices.mail].')
    if not part.credentials_file:
        return None
    lines = read_private(root / part.credentials_file, "the mail server's credentials").splitlines()
    if len(lines) < 2 or not lines[0] or not lines[1]:
        message = f"{part.credentials_file} has no user and password"
        raise ConfigError("CO-T101", f"{message}. Write the user in its first line and the password in the second.")
    return lines[0], lines[1]


def write_message(site: str, part: MailPart, delivery: str, notices: Sequence[Notice]) -> EmailMessage:
    """The mail: a subject, and a line for each notice. No word of a notice can begin a header."""
    message = EmailMessage(policy=SMTP)
    first = notices[0].text if len(notices) == 1 else f"{len(notices)} notices"
    message["Subject"] = clean_line(f"[coterie {site}] {first}")[:MAX_SUBJECT]
    message["From"], message["To"] = part.sender, ", ".join(part.to)
    message["Message-ID"] = f"<{delivery}@{site}.coterie.invalid>"
    message["Auto-Submitted"] = "auto-generated"
    lines = [f"- {clean_line(notice.text)}" for notice in notices]
    message.set_content(
        "\n".join([f"Site {site}:", "", *lines, "", "The node's page and `coterie study list` have more.", ""])
    )
    return message


def clean_line(text: str) -> str:
    """A text as one line of printable characters: nothing in it ends a header or turns the line round."""
    return "".join(letter if unicodedata.category(letter)[0] not in "CZ" else " " for letter in text)
