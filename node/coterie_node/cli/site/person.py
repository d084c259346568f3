"""`coterie person`: who may act at this site, with which keys, and what they did."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coterie_learners.errors import pluralise
from coterie_node.audit.approvals.act_anchors import find_anchors
from coterie_node.cli.options import Json, NodeOption, open_node_folder
from coterie_node.cli.output import print_document, print_rows
from coterie_node.cli.site.signing import PassphraseFd, ask_passphrase
from coterie_node.data.findings import printable
from coterie_node.errors import ConfigError
from coterie_node.persons.act_log import LogHead
from coterie_node.persons.acts import sign_digest
from coterie_node.persons.names import check_person_name
from coterie_node.persons.register import PersonEntry, PersonRegister, encode_canonical
from coterie_node.persons.roles import Role
from coterie_node.site.folder import SiteFolder

if TYPE_CHECKING:
    from coterie_node.persons.accounts import LocalAccounts

person = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="Persons of this site: their keys, roles, accounts and log."
)
_Person = Annotated[str, typer.Argument(help="Name of the person, as the report prints it.")]
_Roles = Annotated[
    list[Role] | None, typer.Option("--role", help="A role of the person; may be given again. Default: read.")
]
_Light = Annotated[bool, typer.Option(hidden=True, help="Weak key derivation, for tests.")]


@person.command("add")
def add_person_command(
    name: _Person,
    role: _Roles = None,
    node: NodeOption = None,
    passphrase_fd: PassphraseFd = None,
    keyless: Annotated[bool, typer.Option("--no-key", help="No key file: the person signs with a passkey.")] = False,
    light: _Light = False,
) -> None:
    """Put a person into this site's register, with a passphrase-protected key; the passphrase is asked for."""
    home, now = open_node_folder(node), int(time.time())
    register = home.persons.read_register() or PersonRegister()
    entry = PersonEntry(name=check_person_name(name), roles=tuple(role or [Role.READ]), since=now)
    register.add(entry)  # refused before a passphrase is asked for
    if not keyless:
        scrypt = {"scrypt": 1 << 12} if light else {}
        passphrase = ask_passphrase(name, passphrase_fd, confirm=True)
        entry = entry.model_copy(update={"keys": (home.persons.keys.create(name, passphrase, **scrypt),)})
    home.persons.change_register(lambda newest: newest.add(entry))  # others may have changed it meanwhile
    home.persons.log.append("person added", "", f"{name}: {', '.join(entry.roles)}", now)
    print(f"{printable(name)} is in the register of {home.name}: {', '.join(entry.roles)}.")
    for key in entry.keys:
        print(f"Public key: {key.fingerprint}")


@person.command("remove")
def remove_person_command(name: _Person, node: NodeOption = None) -> None:
    """End a person's entry: from now on nothing that the person signs counts here."""
    home, now = open_node_folder(node), int(time.time())
    home.persons.require_register()
    home.persons.change_register(lambda register: register.end(name, now))
    home.persons.keys.remove(name)
    home.persons.log.append("person removed", "", name, now)
    print(f"{printable(name)} is removed from the register of {home.name}.")


@person.command("list")
def list_persons_command(node: NodeOption = None, as_json: Json = False) -> None:
    """List the persons of this site's register, with those who were removed."""
    home = open_node_folder(node)
    register = home.persons.read_register() or PersonRegister()
    rows = [_describe_entry(entry) for entry in register.entries]
    if not rows and not as_json:
        print(f"{home.name} has no register of persons: an unnamed operator acts. Make one: coterie person add NAME.")
        return
    print_rows(rows, as_json, ("name", "roles", "since", "until", "keys"))


@person.command("export")
def export_persons_command(node: NodeOption = None) -> None:
    """Print this site's register, signed with the site's key, for another site or an auditor."""
    home = open_node_folder(node)
    print_document(sign_register(home), "", True)


@person.command("password")
def set_password_command(name: _Person, node: NodeOption = None, passphrase_fd: PassphraseFd = None) -> None:
    """Give a person a password to sign in on this site's page; it is asked for."""
    home = open_node_folder(node)
    _open_accounts(home).set_password(name, ask_passphrase(name, passphrase_fd, confirm=True))
    print(f"{printable(name)} can sign in on the page of {home.name} and read. For more: coterie person totp NAME.")


@person.command("totp")
def enrol_command(name: _Person, node: NodeOption = None) -> None:
    """Give a person's account an authenticator: a QR code for it, and recovery codes; both are shown once."""
    home = open_node_folder(node)
    accounts = _open_accounts(home)
    import segno  # the packages of the page are there: the accounts need them too

    address, codes = accounts.enrol(name, home.name)
    segno.make(address).terminal(compact=True)
    print(f"\n{address}\n\nEach of these codes counts once, if the authenticator is lost: {', '.join(codes)}")


@person.command("log")
def show_person_log_command(
    verify: Annotated[bool, typer.Option("--verify", help="Check the chain and the heads that were signed.")] = False,
    ledger: Annotated[bool, typer.Option("--ledger", help="The same, with the heads that the ledger holds.")] = False,
    node: NodeOption = None,
    as_json: Json = False,
) -> None:
    """Show what persons did at this site; with --verify or --ledger check that nothing was changed or cut."""
    home = open_node_folder(node)
    if verify or ledger:
        print_document(*_verify_log(home, ledger), as_json)
        return
    rows = [
        {"number": e.number, "time": _format_time(e.time), "act": e.act, "person": e.person, "subject": e.subject}
        for e in home.persons.log.read()
    ]
    print_rows(rows, as_json, ("number", "time", "act", "person", "subject"))


def _verify_log(home: SiteFolder, ledger: bool) -> tuple[dict[str, Any], str]:
    """What the check of the log found, and the same in words; AuditFailed (CO-A215) if the log was cut or changed."""
    statements, register = list(home.persons.list_statements()), home.persons.read_register()
    entries = () if register is None else register.entries
    anchors: tuple[LogHead, ...] = ()
    if ledger:
        with home.open_ledger() as network:
            files, since = home.decisions.list_signed_files(), min((e.since for e in entries), default=None)
            anchors = find_anchors(network.history(), home.name, statements, files, since)
    head = home.persons.log.verify([*(statement.log for statement in statements), *anchors])
    found = {"entries": head.entries, "head": head.hash, "statements": len(statements)}
    fit = pluralise(len(statements), "signed statement fits", "signed statements fit")
    text = f"Each entry follows from the one before it: {head.entries} in all. {fit} them."
    if not ledger:
        return found, text
    return found | {"on_ledger": len(anchors)}, f"{text} The ledger has the digest of {len(anchors)} of these."


def sign_register(home: SiteFolder) -> dict[str, Any]:
    """The register and the digest of the policy, under the signature of the site's key."""
    from eth_utils.crypto import keccak

    keys, register = home.load_keys(), home.persons.require_register()
    document: dict[str, Any] = {"format": "coterie-register/1", "site": home.name, "address": keys.address.lower()}
    document |= {"register": register.model_dump(mode="json"), "digest": register.digest, "time": int(time.time())}
    prefixed = b"\x19Coterie register\n" + encode_canonical(document)
    return document | {"signature": sign_digest(bytes(keccak(prefixed)), keys.signing)}


def _open_accounts(home: SiteFolder) -> LocalAccounts:
    """The local accounts; ConfigError (CO-W108) without the packages of the page."""
    try:
        from coterie_node.persons.accounts import LocalAccounts
    except ImportError as error:
        message = f"Local accounts need the packages of the page, and {error.name} is not installed"
        raise ConfigError("CO-W108", f"{message}. Install them: pip install coterie[web].") from None
    return LocalAccounts(home.persons, lambda: int(time.time()))


def _describe_entry(entry: PersonEntry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "roles": ", ".join(entry.roles),
        "since": _format_time(entry.since),
        "until": _format_time(entry.until) if entry.until else "",
        "keys": ", ".join(key.fingerprint for key in entry.keys) or "none",
    }


def _format_time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
