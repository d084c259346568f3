"""Forged approvals: each way to show a signature that nobody gave, against the check that every auditor makes."""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from eth_keys.main import KeyAPI
from support.node.persons import entry_of, secret_of

from coterie_node.errors import AuditFailed, ConfigError
from coterie_node.persons.act_log import LogHead
from coterie_node.persons.acts import MEANINGS, ActDomain, ActText, PersonKey, SignedAct, sign_act
from coterie_node.persons.approval_statement import ApprovalStatement, JoinFacts, judge_statement
from coterie_node.persons.names import check_person_name
from coterie_node.persons.passkeys import Assertion
from coterie_node.persons.register import MAX_PERSONS, PersonEntry, PersonRegister
from coterie_node.persons.roles import Role

NOW = 1_700_000_000
DOMAIN = ActDomain(chain_id=7, catalog="0x" + "12" * 20)
STUDY, OTHER = "ab" * 32, "cd" * 32
SITE_SECRET = b"\x07" * 32
SITE_ADDRESS = KeyAPI().PrivateKey(SITE_SECRET).public_key.to_address()
FACTS = JoinFacts("south", STUDY, 3, DOMAIN, frozenset({SITE_ADDRESS}), False, NOW - 900, NOW + 60)
ADA, BO = entry_of("Ada Berg", NOW - 5000), entry_of("Bo Dahl", NOW - 5000)


def text_of(name: str, **changes: object) -> ActText:
    plain = {
        "name": name,
        "role": "approve",
        "meaning": MEANINGS["approve"],
        "act": "approve",
        "study": STUDY,
        "number": 3,
        "decision": 1,
        "site": "south",
        "time": NOW,
        "domain": DOMAIN,
    }
    return ActText.model_validate(plain | changes)


def signed(name: str, key: str = "", **changes: object) -> SignedAct:
    return sign_act(text_of(name, **changes), secret_of(key or name))


def state(
    acts: tuple[SignedAct, ...], entries: tuple[PersonEntry, ...] = (ADA, BO), asked: int = 1, **changes: object
) -> ApprovalStatement:
    """A statement that the site's own key signs."""
    statement = ApprovalStatement(
        site="south",
        study=STUDY,
        number=3,
        domain=DOMAIN,
        register_digests=tuple(entry.digest for entry in entries),
        policy="00" * 32,
        approvals=asked,
        log=LogHead(),
        signers=entries,
        acts=acts,
        time=NOW,
    )
    return statement.model_copy(update=changes).sign(SITE_SECRET)


def refusal(statement: ApprovalStatement, facts: JoinFacts = FACTS) -> tuple[str, str, str]:
    with pytest.raises(AuditFailed) as caught:
        judge_statement(ApprovalStatement.parse(statement.document, "south"), facts)
    return caught.value.code, caught.value.message, caught.value.site


def test_an_honest_statement_passes() -> None:
    acts = signed("Ada Berg"), signed("Bo Dahl")
    assert [s.name for s in judge_statement(state(acts, asked=2), FACTS)] == ["Ada Berg", "Bo Dahl"]


@pytest.mark.parametrize(
    ("act", "code", "words"),
    [
        (signed("Ada Berg", key="Bo Dahl"), "CO-A213", "another key of Ada Berg"),
        (signed("Eve Falk"), "CO-A213", "Eve Falk is not in its register"),
        (signed("Ada Berg", study=OTHER), "CO-A212", "another study, site or network"),
        (signed("Ada Berg", site="west"), "CO-A212", "another study, site or network"),
        (signed("Ada Berg", domain=ActDomain(chain_id=8, catalog=DOMAIN.catalog)), "CO-A212", "another study"),
        (signed("Ada Berg", domain=ActDomain(chain_id=7, catalog="0x" + "13" * 20)), "CO-A212", "another study"),
        (signed("Ada Berg", number=2), "CO-A212", "another proposal"),
        (signed("Ada Berg", number=0), "CO-A212", "another proposal"),
        (signed("Ada Berg", act="decline"), "CO-A212", "another act"),
        (signed("Ada Berg", role="release"), "CO-A213", "does not have the role"),
        (signed("Ada Berg", time=NOW - 6000), "CO-A213", "was not in the register"),
        (signed("Ada Berg", time=NOW - 2000), "CO-A213", "when this study could not be approved"),
        (signed("Ada Berg", time=NOW + 3000), "CO-A213", "when this study could not be approved"),
    ],
)
def test_a_signature_of_another_key_study_site_network_act_role_or_time_fails(
    act: SignedAct, code: str, words: str
) -> None:
    found_code, message, site = refusal(state((act,)))
    assert (found_code, site) == (code, "south")
    assert words in message


def test_a_forged_name_or_meaning_under_a_true_signature_fails() -> None:
    true = signed("Ada Berg")
    for changes in ({"name": "Bo Dahl"}, {"meaning": "I have seen a headline."}, {"time": NOW - 1}):
        forged = true.model_copy(update={"text": true.text.model_copy(update=changes)})
        assert refusal(state((forged,)))[0] == "CO-A211"


def test_the_mirror_of_a_signature_is_none() -> None:
    true = signed("Ada Berg")
    raw = bytes.fromhex(true.signature)
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    mirrored = raw[:32] + (order - int.from_bytes(raw[32:64], "big")).to_bytes(32, "big") + bytes([55 - raw[64]])
    assert (
        KeyAPI()
        .ecdsa_recover(
            true.text.digest,
            KeyAPI.Signature(
                vrs=(mirrored[64] - 27, int.from_bytes(mirrored[:32], "big"), int.from_bytes(mirrored[32:64], "big"))
            ),
        )
        .to_address()
        == true.key.public
    )  # another key's check would take it
    for bad in (mirrored, raw[:64] + b"\x01", b"\x00" * 65, b"\xff" * 65):
        assert refusal(state((true.model_copy(update={"signature": bad.hex()}),)))[0] == "CO-A211"


def test_expired_and_removed_persons_count_for_nothing() -> None:
    for until in (NOW - 100, NOW):
        gone = entry_of("Ada Berg", NOW - 5000, until)
        assert refusal(state((signed("Ada Berg", time=NOW - 200),), (gone,)))[0] == "CO-A213"
    # Removed from the register, though the statement still lists the entry.
    outside = state((signed("Ada Berg"),), register_digests=(BO.digest,))
    assert refusal(outside)[:1] == ("CO-A213",)


def test_two_keys_of_one_person_are_one_pair_of_eyes() -> None:
    second = PersonEntry(name="Ada Berg", roles=ADA.roles, keys=entry_of("Bo Dahl", 1).keys, since=NOW - 5000)
    two = signed("Ada Berg"), signed("Ada Berg", key="Bo Dahl")
    assert refusal(state(two, (ADA, second), 2))[0] == "CO-A214"
    lookalike = PersonEntry(name="Ada  Berg", roles=ADA.roles, keys=second.keys, since=NOW - 5000)
    assert refusal(state((two[0], signed("Ada  Berg", key="Bo Dahl")), (ADA, lookalike), 2))[0] == "CO-A214"
    assert refusal(state((two[0], two[0]), (ADA,), 2))[0] == "CO-A214"
    assert refusal(state((), (ADA,), 1))[0] == "CO-A214"


def test_a_statement_of_another_key_study_or_network_fails() -> None:
    true = state((signed("Ada Berg"),))
    assert refusal(true.sign(b"\x08" * 32))[0] == "CO-A210"
    assert refusal(true.model_copy(update={"approvals": 0}))[0] == "CO-A210"
    assert refusal(true.model_copy(update={"log": LogHead(entries=9)}))[0] == "CO-A210"
    assert refusal(true.model_copy(update={"study": OTHER}).sign(SITE_SECRET))[0] == "CO-A212"
    with pytest.raises(AuditFailed, match="no statement of this version"):
        ApprovalStatement.parse(b'{"acts":[' * 9000, "south")
    with pytest.raises(AuditFailed, match="canonical"):
        ApprovalStatement.parse(true.document + b" ", "south")


def test_a_register_takes_no_flood_and_no_name_that_looks_like_another() -> None:
    register = PersonRegister().add(ADA)
    for name in ("Ada Berg", "ada berg", "Аda Berg", "Ada  Berg", "A\u0301da Berg", "ADA BERG"):
        with pytest.raises(ConfigError) as caught:
            register.add(entry_of(name, NOW, key="Cy Holm"))
        assert caught.value.code == "CO-F431"
    pope = register.add(entry_of("Coco Pope", NOW))
    with pytest.raises(ConfigError, match="is taken for 'Coco Pope'"):
        pope.add(entry_of("\u0421\u043e\u0441\u043e \u0420\u043e\u0440\u0435", NOW))  # in Cyrillic letters alone
    for name in ("Ada\u200b Berg", "Ada Berg\n", "\u202eAda", "", "12", "x" * 101):
        with pytest.raises(ConfigError, match="nothing invisible"):
            check_person_name(name)
    with pytest.raises(ConfigError, match="has the key of 'Ada Berg'"):
        register.add(entry_of("Cy Holm", NOW, key="Ada Berg"))
    entries = tuple(entry_of(f"Person {'x' * 3} {k}", NOW - k, NOW) for k in range(2)) * (MAX_PERSONS // 2)
    with pytest.raises(ConfigError, match="takes no more"):
        PersonRegister(entries=entries).add(BO)


# Passkeys

ORIGIN = "https://node.south.example"


def make_passkey() -> tuple[EllipticCurvePrivateKey, PersonKey]:
    private = generate_private_key(SECP256R1())
    point = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return private, PersonKey(kind="passkey", public=point[1:].hex(), credential="YWJj", origin=ORIGIN)


def answer(
    private: EllipticCurvePrivateKey,
    challenge: bytes,
    origin: str = ORIGIN,
    host: str = "node.south.example",
    flags: int = 5,
    kind: str = "webauthn.get",
) -> Assertion:
    """What an authenticator and a browser make of a challenge."""
    text = urlsafe_b64encode(challenge).rstrip(b"=").decode()
    client = f'{{"type":"{kind}","challenge":"{text}","origin":"{origin}","crossOrigin":false}}'.encode()
    data = hashlib.sha256(host.encode()).digest() + bytes([flags]) + bytes(4)
    signature = private.sign(data + hashlib.sha256(client).digest(), ECDSA(SHA256()))
    return Assertion(client_data=client.hex(), authenticator_data=data.hex(), signature=signature.hex())


@pytest.mark.parametrize(
    ("forge", "words"),
    [
        (lambda p, d: answer(p, d), ""),
        (lambda p, d: answer(p, hashlib.sha256(d).digest()), "another challenge"),
        (lambda p, d: answer(p, d, origin="https://evil.example"), "another origin"),
        (lambda p, d: answer(p, d, origin="http://node.south.example"), "another origin"),
        (lambda p, d: answer(p, d, host="south.example"), "another relying party"),
        (lambda p, d: answer(p, d, flags=1), "without verifying"),
        (lambda p, d: answer(p, d, flags=4), "without verifying"),
        (lambda p, d: answer(p, d, kind="webauthn.create"), "own page"),
        (lambda p, d: answer(generate_private_key(SECP256R1()), d), "not of the key"),
    ],
)
def test_a_passkey_signs_this_text_on_this_origin_and_nothing_else(
    forge: Callable[[EllipticCurvePrivateKey, bytes], Assertion], words: str
) -> None:
    private, key = make_passkey()
    entry = PersonEntry(name="Ada Berg", roles=(Role.APPROVE,), keys=(key,), since=NOW - 5000)
    text = text_of("Ada Berg")
    act = SignedAct(text=text, key=key, assertion=forge(private, text.digest))
    if words:
        code, message, _ = refusal(state((act,), (entry,)))
        assert (code, words in message) == ("CO-A211", True)
    else:
        (signature,) = judge_statement(state((act,), (entry,)), FACTS)
        assert signature.key.endswith(f"on {ORIGIN}")
