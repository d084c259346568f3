"""Local accounts: passwords, codes that count once, recovery codes, and locks."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pyotp
import pytest
from argon2 import PasswordHasher
from support.node.persons import entry_of

from coterie_node.errors import ConfigError
from coterie_node.persons.accounts import LOCK_SECONDS, MOST_FAILURES, LocalAccounts
from coterie_node.persons.attempts import ATTEMPT_SECONDS, MOST_ATTEMPTS
from coterie_node.persons.folder import PersonsFolder
from coterie_node.persons.register import PersonRegister
from coterie_node.persons.roles import Role

# Argon2id with next to no work; the form is the same.
QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
ADA, PASSWORD = "Ada Berg", "the lid of the well is oak"


class AccountsHouse:
    """The accounts of a site whose clock a test moves."""

    def __init__(self, root: Path) -> None:
        self.now = 1_700_000_010
        self.folder = PersonsFolder(root / "persons")
        self.folder.save_register(PersonRegister().add(entry_of(ADA, 1, 0, Role.READ, Role.APPROVE)))
        self.accounts = LocalAccounts(self.folder, lambda: self.now, QUICK)
        self.accounts.set_password(ADA, PASSWORD)

    def roles(self, code: str = "", password: str = PASSWORD, name: str = ADA) -> set[str] | None:
        person = self.accounts.check(name, password, code)
        return None if person is None else {role.value for role in person.roles}


@pytest.fixture
def house(tmp_path: Path) -> AccountsHouse:
    return AccountsHouse(tmp_path)


def test_a_password_alone_reads_and_with_a_code_the_person_has_all_roles(house: AccountsHouse) -> None:
    assert not house.accounts.is_empty()
    assert house.roles() == {"read"}
    assert house.roles(password="another password") is None
    assert house.roles(name="Bo Dahl") is None
    uri, codes = house.accounts.enrol(ADA, "north")
    secret = parse_qs(urlsplit(uri).query)["secret"][0]
    assert house.roles() is None
    code = pyotp.TOTP(secret).at(house.now)
    assert house.roles(code) == {"read", "approve"}
    text = (house.folder.root / "accounts.json").read_text()
    assert "$argon2id$" in text
    assert PASSWORD not in text
    assert not any(recovery in text for recovery in codes)


def test_a_code_and_a_recovery_code_count_once(house: AccountsHouse) -> None:
    uri, codes = house.accounts.enrol(ADA, "north")
    totp = pyotp.TOTP(parse_qs(urlsplit(uri).query)["secret"][0])
    code, older = totp.at(house.now), totp.at(house.now - 30)
    assert house.roles(code)
    assert house.roles(code) is None
    assert house.roles(older) is None  # of a step before one that was used
    house.now += 30
    assert house.roles(totp.at(house.now))
    assert house.roles(totp.at(house.now - 300)) is None
    assert house.roles(codes[0])
    assert house.roles(codes[0]) is None
    assert house.roles("五" * 6) is None


def test_failures_lock_an_account_and_a_restart_does_not_open_it(house: AccountsHouse) -> None:
    for _ in range(MOST_FAILURES):
        assert house.roles(password="wrong") is None
    for accounts in (house.accounts, LocalAccounts(house.folder, lambda: house.now, QUICK)):
        with pytest.raises(ConfigError, match="locked after 5 failures") as caught:
            accounts.check(ADA, PASSWORD, "")
        assert caught.value.code == "CO-F438"
    house.now += LOCK_SECONDS
    assert house.roles() == {"read"}
    acts = [entry.act for entry in house.folder.log.read()]
    assert acts == ["password set", *["sign-in refused"] * MOST_FAILURES, "sign-in"]


def test_everybody_together_tries_so_often_in_a_minute(house: AccountsHouse) -> None:
    for _ in range(MOST_ATTEMPTS):
        house.accounts.attempts.count()
    with pytest.raises(ConfigError, match="Too many people"):
        house.roles()
    house.now += ATTEMPT_SECONDS
    assert house.roles()


def test_who_is_removed_from_the_register_is_signed_out(house: AccountsHouse) -> None:
    person = house.accounts.check(ADA, PASSWORD, "")
    assert person is not None
    assert house.accounts.refresh(person) == person
    register = house.folder.require_register()
    (entry,) = register.entries
    house.folder.save_register(register.replace(entry, entry.model_copy(update={"until": house.now})))
    assert house.accounts.refresh(person) is None
    assert house.roles() is None


def test_an_account_needs_an_entry_a_long_password_and_a_password_before_a_code(house: AccountsHouse) -> None:
    for name, password, code in (("Bo Dahl", PASSWORD, "CO-F432"), (ADA, "short", "CO-F439")):
        with pytest.raises(ConfigError) as caught:
            house.accounts.set_password(name, password)
        assert caught.value.code == code
    with pytest.raises(ConfigError, match="has no password"):
        house.accounts.enrol("Bo Dahl", "north")
    (house.folder.root / "accounts.json").write_text("{")
    with pytest.raises(ConfigError) as caught:
        house.roles()
    assert caught.value.code == "CO-F436"
