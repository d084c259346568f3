"""Attacks by and on notices: real servers here, redirects, private addresses, forged and old bodies, headers."""

from __future__ import annotations

import email
import email.policy
import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.node.commands import refusal, run
from support.node.houses import make_node_folder
from support.node.notice_servers import PASSWORD, USER, serve_hook, serve_mail

from coterie_chain.errors import KeyFault
from coterie_node.errors import NodeError
from coterie_node.network.checks.machine_checks import check_machine
from coterie_node.notices.events import Notice, NoticeKind
from coterie_node.notices.mail import MailSender, read_credentials, write_message
from coterie_node.notices.senders import SendFailed
from coterie_node.notices.settings import MailPart, WebhookPart
from coterie_node.notices.webhook import MAX_AGE_SECONDS, WebhookSender, check_headers, choose_number
from coterie_node.site.config import CONFIG
from coterie_node.site.folder import find_node

NOTICE = Notice(NoticeKind.APPROVAL, "approval-waits:a:1", "Study 1 of east waits for north's decision.", 1)
SECRET = "a secret of the webhook"
MAIL = MailPart(host="mail.hospital.example", sender="coterie@hospital.example", to=("a@hospital.example",))


def write_secret(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)


def write_hook(folder: Path, port: int, internal: bool = True) -> WebhookPart:
    write_secret(folder / "hook.secret", SECRET + "\n")
    url = f"http://127.0.0.1:{port}/notices?x=1"
    return WebhookPart(name="chat", url=url, secret_file="hook.secret", internal=internal)


# Mail


def test_a_mail_goes_encrypted_with_a_login_to_each_receiver(tmp_path: Path) -> None:
    write_secret(tmp_path / "mail.secret", f"{USER}\n{PASSWORD}\n")
    with serve_mail(tmp_path) as server:
        to = ("a@hospital.example", "b@hospital.example")
        part = MAIL.model_copy(update={"host": "127.0.0.1", "port": server.port, "to": to, "ca_file": "server.pem"})
        part = part.model_copy(update={"credentials_file": "mail.secret"})
        MailSender("north", part, tmp_path).send("abc", [NOTICE, replace(NOTICE, text="Another.")])
        ((sender, receivers, content),) = server.mails
        assert server.logins == [(USER.encode(), PASSWORD.encode())]
        message = email.message_from_bytes(content, policy=email.policy.default)
        assert (sender, receivers) == ("coterie@hospital.example", list(to))
        assert message["Subject"] == "[coterie north] 2 notices"
        assert message["Message-ID"] == "<abc@north.coterie.invalid>"
        assert "- Study 1 of east waits for north's decision.\n- Another." in message.get_content().replace("\r", "")
        with pytest.raises(SendFailed, match="SSL"):  # a server that nobody vouches for
            MailSender("north", part.model_copy(update={"ca_file": ""}), tmp_path).send("abc", [NOTICE])
        write_secret(tmp_path / "mail.secret", f"{USER}\nanother password\n")
        with pytest.raises(SendFailed, match="SMTPAuthenticationError 535"):
            MailSender("north", part, tmp_path).send("abc", [NOTICE])
        assert len(server.mails) == 1


@pytest.mark.parametrize("text", ["x\r\nBcc: thief@evil.example", "x\n\nbody", "x\u2028y", "x\x00y", "x\u202ey"])
def test_no_text_begins_a_header_or_another_body(text: str) -> None:
    message = write_message("north", MAIL, "abc", [replace(NOTICE, text=text)])
    again = email.message_from_bytes(message.as_bytes(), policy=email.policy.default)
    assert set(again.keys()) >= {"Subject", "From", "To", "Message-ID"}
    assert again["Bcc"] is None
    assert not {"\r", "\n", "\u2028", "\x00", "\u202e"} & set(again["Subject"])


def test_credentials_never_go_in_the_clear_and_others_cannot_read_them(tmp_path: Path) -> None:
    with pytest.raises(NodeError, match="without encryption") as clear:
        read_credentials(tmp_path, MAIL.model_copy(update={"security": "none"}))
    assert clear.value.code == "CO-T101"
    write_secret(tmp_path / "mail.secret", "user alone\n")
    part = MAIL.model_copy(update={"credentials_file": "mail.secret"})
    with pytest.raises(NodeError, match="no user and password"):
        read_credentials(tmp_path, part)
    (tmp_path / "mail.secret").chmod(0o644)
    with pytest.raises(KeyFault, match="Others can reach"):
        read_credentials(tmp_path, part)


# Webhooks


def test_a_webhook_gets_a_body_that_it_can_check(tmp_path: Path) -> None:
    with serve_hook() as server:
        WebhookSender("north", write_hook(tmp_path, server.port), tmp_path, lambda: 1000.0).send("abc", [NOTICE])
    ((path, headers, body),) = server.requests
    assert path == "/notices?x=1"
    document = json.loads(body)
    assert set(document) == {"delivery", "site", "notices"}
    assert document["notices"] == [{"kind": "approval-waits", "key": NOTICE.key, "text": NOTICE.text, "study": 1}]
    secret = SECRET.encode()
    assert check_headers(secret, headers, body, 1000.0)
    assert not check_headers(secret, headers, body + b" ", 1000.0)
    assert not check_headers(b"another secret ....", headers, body, 1000.0)
    assert not check_headers(secret, headers, body, 1001.0 + MAX_AGE_SECONDS)  # sent again later
    assert not check_headers(secret, {**headers, "Coterie-Timestamp": "1001"}, body, 1000.0)
    assert not check_headers(secret, {}, body, 1000.0)
    assert SECRET not in str(headers)


def test_a_redirect_is_a_failure_and_is_not_followed(tmp_path: Path) -> None:
    with serve_hook() as server, serve_hook() as other:
        server.status, server.location = 307, f"http://127.0.0.1:{other.port}/"
        with pytest.raises(SendFailed, match="status 307"):
            WebhookSender("north", write_hook(tmp_path, server.port), tmp_path).send("abc", [NOTICE])
        assert other.requests == []


@pytest.mark.parametrize(
    "number",
    ["127.0.0.1", "::1", "10.0.0.7", "192.168.1.1", "172.16.0.1", "::ffff:127.0.0.1", "fd00::1", "100.64.0.1"],
)
def test_a_private_address_is_called_only_if_the_settings_say_so(number: str) -> None:
    part = WebhookPart(name="chat", url="https://hook.example/x", secret_file="s")
    with pytest.raises(SendFailed) as error:
        choose_number(["93.184.215.14", number], part)
    assert error.value.code == "CO-T104"
    assert choose_number([number], part.model_copy(update={"internal": True})) == number


@pytest.mark.parametrize(
    "number", ["169.254.169.254", "fe80::1%eth0", "::ffff:169.254.169.254", "0.0.0.0", "224.0.0.1"]
)
def test_an_address_of_metadata_is_never_called(number: str) -> None:
    part = WebhookPart(name="chat", url="https://hook.example/x", secret_file="s", internal=True)
    with pytest.raises(SendFailed, match="never called"):
        choose_number([number], part)


def test_a_name_that_points_elsewhere_a_moment_later_leads_nowhere(tmp_path: Path) -> None:
    with serve_hook() as server:
        answers = iter([["127.0.0.1"], ["169.254.169.254"]])
        sender = WebhookSender("north", write_hook(tmp_path, server.port), tmp_path, resolve=lambda h, p: next(answers))
        sender.send("abc", [NOTICE])  # the number that was judged is the one that is called: no second look
        with pytest.raises(SendFailed, match="never called"):
            sender.send("abd", [NOTICE])
        assert len(server.requests) == 1


def test_a_webhook_on_this_machine_needs_the_setting(tmp_path: Path) -> None:
    with serve_hook() as server:
        with pytest.raises(SendFailed, match="private"):
            WebhookSender("north", write_hook(tmp_path, server.port, False), tmp_path).send("abc", [NOTICE])
        assert server.requests == []


# The command and the doctor


def test_the_command_tries_each_way_and_the_doctor_reads_the_secrets(tmp_path: Path) -> None:
    home = make_node_folder(tmp_path / "north", "north")
    assert refusal("notices", "test", "--node", home.root).code == "CO-T105"
    with serve_hook() as server:
        settings = home.root / CONFIG
        text = f'\n[[notices.webhooks]]\nname = "chat"\nurl = "http://127.0.0.1:{server.port}/"\n'
        settings.write_text(settings.read_text() + text + 'secret_file = "hook.secret"\ninternal = true\n')
        found = {check.check: check for check in check_machine(find_node(home.root))}
        assert found["notices"].well is False
        write_secret(home.root / "hook.secret", SECRET)
        found = {check.check: check for check in check_machine(find_node(home.root))}
        assert (found["notices"].well, found["notices"].found) == (True, "webhook chat")
        assert run("notices", "test", "--node", home.root) == "webhook chat: sent\n"
        assert json.loads(server.requests[0][2])["notices"][0]["kind"] == "test"
        server.status = 500
        assert "CO-T103" in run("notices", "test", "--node", home.root, code=12)


@pytest.mark.parametrize(
    "number",
    [
        "64:ff9b::a9fe:a9fe",  # 169.254.169.254 by a translator
        "64:ff9b:1::a9fe:a9fe",
        "2002:a9fe:a9fe::1",  # ... by 6to4
        "::a9fe:a9fe",  # ... in the old compatible form
        "::ffff:169.254.169.254",
        "fd00:ec2::254",
        "168.63.129.16",
        "100.100.100.200",
    ],
)
def test_no_other_spelling_leads_to_a_cloud_s_metadata(number: str) -> None:
    part = WebhookPart(name="chat", url="https://chat.example/x", secret_file="hook.secret", internal=True)
    with pytest.raises(SendFailed, match="never called") as caught:
        choose_number([number], part)
    assert caught.value.code == "CO-T104"
    for inner in ("64:ff9b::7f00:1", "2002:7f00:1::1", "::1"):
        with pytest.raises(SendFailed, match="private"):
            choose_number([inner], part.model_copy(update={"internal": False}))


def test_a_timestamp_of_a_million_digits_breaks_no_receiver() -> None:
    now, digits = 1_798_000_000, "001798000000" + "9" * 5000
    headers = {"Coterie-Timestamp": digits, "Coterie-Signature": "v1=" + "0" * 64}
    assert not check_headers(SECRET.encode(), headers, b"", now)
