"""A site's keys: on disk, in messages, and between two sites."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from eth_account import Account
from eth_keys.main import KeyAPI

from coterie_chain.errors import KeyFault
from coterie_chain.keys.site_keys import SiteKeys, read_passphrase

PASSPHRASE = "correct horse battery staple"
FAST = 2


@pytest.fixture(scope="module")
def new_keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SiteKeys]:
    folder = tmp_path_factory.mktemp("site") / "keys"
    return folder, SiteKeys.create(folder, PASSPHRASE, scrypt=FAST)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    SiteKeys.create(tmp_path / "keys", PASSPHRASE, scrypt=FAST)
    return tmp_path / "keys"


def list_secrets(keys: SiteKeys) -> tuple[bytes, bytes, bytes]:
    return bytes(keys.account.key), bytes(keys.private), keys.stream


def test_keys_load_as_they_were_made(new_keys: tuple[Path, SiteKeys]) -> None:
    folder, keys = new_keys
    loaded = SiteKeys.load(folder, PASSPHRASE)
    assert list_secrets(loaded) == list_secrets(keys)
    assert (loaded.address, loaded.sealing) == (keys.address, keys.sealing)
    assert len({*list_secrets(keys), keys.sealing}) == 4


def test_files_are_private_and_the_operators_opens_in_any_ethereum_tool(new_keys: tuple[Path, SiteKeys]) -> None:
    folder, keys = new_keys
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {p.name: p.stat().st_mode & 0o777 for p in folder.iterdir()} == {
        "operator.json": 0o600,
        "private.json": 0o600,
    }
    text = (folder / "operator.json").read_text()
    assert bytes(Account.decrypt(text, PASSPHRASE)) == bytes(keys.account.key)
    assert json.loads(text)["crypto"]["kdf"] == "scrypt"
    assert "address" not in json.loads((folder / "private.json").read_text())


def test_the_default_work_factor_is_geths() -> None:
    assert (SiteKeys.create.__kwdefaults__ or {})["scrypt"] == 1 << 18


def test_nothing_secret_is_shown(new_keys: tuple[Path, SiteKeys]) -> None:
    _, keys = new_keys
    shown_text = f"{keys} {keys!r} {[keys]} {keys.private!r} {keys.account!r}"
    assert keys.address in shown_text
    for secret in list_secrets(keys):
        assert secret.hex() not in shown_text
        assert str(secret) not in shown_text


def test_derived_secrets_are_fixed_for_ever() -> None:
    # Computed once with hmac and cryptography. Sealed payloads on the ledger open with keys derived this way: a
    # change of labels would lose them.
    keys = SiteKeys.of(bytes([1]) * 32, bytes(range(32)))
    assert keys.address == "0x1a642f0E3c3aF545E7AcBD38b07251B3990914F1"
    assert keys.sealing.hex() == "4ce8ba22812543fd067f05c279748ed95d85b5381ab9e67e03b1c25b126ed027"
    assert keys.stream.hex() == "8d581b4e0f9843c8828c15062352a2f0476d1fba6796064dbc2d0cc3f67a1291"


def test_a_wrong_passphrase_opens_nothing(folder: Path) -> None:
    for passphrase in ("", "hunter2", PASSPHRASE + "\n"):
        assert "Put" in expect_fault("CO-C103", folder, passphrase) or not passphrase


@pytest.mark.parametrize("name", ["operator.json", "private.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert name in expect_fault("CO-C101", folder)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    assert "nowhere" in expect_fault("CO-C101", tmp_path / "nowhere")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
@pytest.mark.parametrize("name", ["operator.json", "private.json"])
def test_a_file_that_others_can_reach_is_refused(folder: Path, name: str, mode: int) -> None:
    (folder / name).chmod(mode)
    assert "chmod 600" in expect_fault("CO-C102", folder)


def test_a_directory_that_others_can_reach_is_refused(folder: Path) -> None:
    folder.chmod(0o755)
    assert "chmod 700" in expect_fault("CO-C102", folder)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "7", "not json", '{"version": 3}', '{"version": 9}', "[" * 60_000, '{"crypto": "x"}']
)
def test_a_damaged_file_is_named(folder: Path, text: str) -> None:
    (folder / "private.json").write_text(text)
    assert "private.json" in expect_fault("CO-C104", folder)


def test_a_file_that_is_no_text_or_too_large_is_named(folder: Path) -> None:
    for data in (b"\xff\xfe", b" " * 70_000):
        (folder / "private.json").write_bytes(data)
        expect_fault("CO-C104", folder)


def test_keys_are_never_overwritten(folder: Path) -> None:
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(KeyFault) as e:
        SiteKeys.create(folder, "another", scrypt=FAST)
    assert e.value.code == "CO-C105"
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    (folder / "operator.json").unlink()
    with pytest.raises(KeyFault, match=r"private\.json"):
        SiteKeys.create(folder, "another", scrypt=FAST)


def test_an_empty_passphrase_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyFault):
        SiteKeys.create(tmp_path / "keys", "", scrypt=FAST)
    assert not (tmp_path / "keys").exists()


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KeyFault, match="file"):
        SiteKeys.create(tmp_path / "file" / "keys", PASSPHRASE, scrypt=FAST)


def test_an_existing_open_directory_is_closed(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir(mode=0o755)
    SiteKeys.create(tmp_path / "keys", PASSPHRASE, scrypt=FAST)
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700


def test_two_sites_share_a_secret_that_a_third_does_not() -> None:
    a, b, c = (SiteKeys.of(bytes([n]) * 32, bytes([n]) * 32) for n in (1, 2, 3))
    assert a.derive_shared_secret(b.sealing) == b.derive_shared_secret(a.sealing)
    assert len(a.derive_shared_secret(b.sealing)) == 32
    assert (
        len({a.derive_shared_secret(b.sealing), a.derive_shared_secret(c.sealing), b.derive_shared_secret(c.sealing)})
        == 3
    )


# The points of low order on Curve25519, and two spellings beyond the field (Bernstein, cr.yp.to/ecdh.html).
LOW_ORDER = [
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    2**255 - 20,
    2**255 - 19,
    2**255 - 18,
]


@pytest.mark.parametrize("point", LOW_ORDER)
def test_a_peer_key_of_low_order_is_refused(point: int) -> None:
    with pytest.raises(KeyFault) as e:
        SiteKeys.of(bytes([1]) * 32, bytes([1]) * 32).derive_shared_secret(point.to_bytes(32, "little"))
    assert e.value.code == "CO-C106"


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_peer_key_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(KeyFault):
        SiteKeys.of(bytes([1]) * 32, bytes([1]) * 32).derive_shared_secret(b"x" * size)


def test_a_site_seals_to_another() -> None:
    a, b = (SiteKeys.of(bytes([n]) * 32, bytes([n]) * 32) for n in (1, 2))
    blob = a.seal(b"for b", {"b": b.sealing}, b"step 1")
    assert b.unseal(blob, "b", b"step 1") == b"for b"
    assert a.unseal(blob, "a", b"step 1") is None


def write_passphrase(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "passphrase"
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("text", ["open sesame", "open sesame\n", "open sesame\r\n", "open sesame\nsecond line"])
def test_a_passphrase_file_holds_it_on_its_first_line(tmp_path: Path, text: str) -> None:
    assert read_passphrase(write_passphrase(tmp_path, text)) == "open sesame"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_a_passphrase_file_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(KeyFault, match="chmod 600") as e:
        read_passphrase(write_passphrase(tmp_path, "open sesame", mode))
    assert "open sesame" not in str(e.value)


@pytest.mark.parametrize("text", ["", "\n", "\nsecond"])
def test_an_empty_passphrase_file_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(KeyFault):
        read_passphrase(write_passphrase(tmp_path, text))


def test_a_missing_passphrase_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyFault, match="nowhere"):
        read_passphrase(tmp_path / "nowhere")


@pytest.mark.skipif(os.getuid() == 0, reason="cannot run here: root may read everything")
def test_a_key_file_of_another_owner_is_named(folder: Path) -> None:
    (folder / "operator.json").chmod(0)
    assert "Permission denied" in expect_fault("CO-C101", folder)


def expect_fault(code: str, folder: Path, passphrase: str = PASSPHRASE) -> str:
    with pytest.raises(KeyFault) as e:
        SiteKeys.load(folder, passphrase)
    assert e.value.code == code
    assert passphrase not in str(e.value) or not passphrase
    return str(e.value)


def test_an_address_is_spelled_as_the_library_of_keys_spells_it() -> None:
    for number in range(1, 65):
        secret = number.to_bytes(32)
        expected = KeyAPI().PrivateKey(secret).public_key.to_checksum_address()
        assert SiteKeys.of(secret, bytes(32)).address == expected
