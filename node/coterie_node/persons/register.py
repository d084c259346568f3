"""The register of a site's persons: name, roles, public keys, since when and until when; no entry is deleted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError

from coterie_chain.keys.private_files import replace_private
from coterie_learners.study.document import Frozen, Text
from coterie_node.errors import ConfigError
from coterie_node.persons.acts import PersonKey, Seconds
from coterie_node.persons.names import check_person_name, fold_name
from coterie_node.persons.roles import Role

MAX_PERSONS = 500
MAX_REGISTER_BYTES = 1 << 20
MAX_PERSON_KEYS = 8


def _sort_roles(roles: tuple[Role, ...]) -> tuple[Role, ...]:
    return tuple(sorted(set(roles)))


class PersonEntry(Frozen):
    """One person; `since` and `until` in seconds since 1970, until 0 without an end."""

    name: Text
    roles: Annotated[tuple[Role, ...], AfterValidator(_sort_roles)]
    keys: Annotated[tuple[PersonKey, ...], Field(max_length=MAX_PERSON_KEYS)] = ()
    since: Seconds
    until: Seconds = 0

    def is_valid(self, time: int) -> bool:
        """Whether the entry counts at a time."""
        return self.since <= time and (self.until == 0 or time < self.until)

    @property
    def digest(self) -> str:
        """SHA-256 of the entry's canonical JSON, in hexadecimal digits."""
        return hashlib.sha256(encode_canonical(self.model_dump(mode="json"))).hexdigest()


class PersonRegister(Frozen):
    """All persons that a site has ever listed."""

    entries: Annotated[tuple[PersonEntry, ...], Field(max_length=MAX_PERSONS)] = ()

    @property
    def digest(self) -> str:
        """SHA-256 over the digests of the entries, in hexadecimal digits."""
        return digest_entries(entry.digest for entry in self.entries)

    def find(self, name: str, time: int) -> PersonEntry:
        """The entry of a person that counts at a time; ConfigError (CO-F432) if there is none."""
        entries = [entry for entry in self.entries if entry.name == name]
        valid = next((entry for entry in entries if entry.is_valid(time)), None)
        if valid is None:
            state = "was removed from, or is not yet in," if entries else "is not in"
            message = f"{name[:60]!a} {state} this site's register of persons"
            raise ConfigError("CO-F432", f"{message}. Look at `coterie person list`.")
        return valid

    def list_valid(self, time: int) -> list[PersonEntry]:
        """The entries that count at a time."""
        return [entry for entry in self.entries if entry.is_valid(time)]

    def add(self, entry: PersonEntry) -> PersonRegister:
        """The register with one entry more; ConfigError (CO-F431) for a name that is taken for another one.

        No two persons share a key, because what one signs must not count for the other.
        """
        check_person_name(entry.name)
        folded, keys = fold_name(entry.name), {key.public for key in entry.keys}
        for other in self.entries:
            if other.until == 0 and fold_name(other.name) == folded:
                raise ConfigError("CO-F431", f"{entry.name!a} is taken for {other.name!a}. Choose another name.")
            if other.name != entry.name and (fold_name(other.name) == folded or keys & {k.public for k in other.keys}):
                message = f"{entry.name!a} has the key of {other.name!a}, or a name that looks alike"
                raise ConfigError("CO-F431", f"{message}. Each person has a key and a name of their own.")
        if len(self.entries) >= MAX_PERSONS:
            raise ConfigError("CO-F436", f"The register has {MAX_PERSONS} entries, and takes no more.")
        return PersonRegister(entries=(*self.entries, entry))

    def end(self, name: str, now: int) -> PersonRegister:
        """The register in which the entry of a person ends now; ConfigError (CO-F432) if there is none."""
        entry = self.find(name, now)
        return self.replace(entry, entry.model_copy(update={"until": now}))

    def add_key(self, name: str, key: PersonKey, now: int) -> PersonRegister:
        """The register with one key more of a person.

        ConfigError: CO-F442 if anybody has the key, or if the person has too many; CO-F432 for a person who is not in
        it.
        """
        entry = self.find(name, now)
        if any(key.public == other.public for person in self.entries for other in person.keys):
            raise ConfigError("CO-F442", "The register lists this passkey already. Use another one.")
        if len(entry.keys) == MAX_PERSON_KEYS:
            raise ConfigError("CO-F442", f"{entry.name} has {MAX_PERSON_KEYS} keys, and no more are taken.")
        return self.replace(entry, entry.model_copy(update={"keys": (*entry.keys, key)}))

    def replace(self, old: PersonEntry, new: PersonEntry) -> PersonRegister:
        """The register with one entry in another's place."""
        return PersonRegister(entries=tuple(new if entry == old else entry for entry in self.entries))

    @classmethod
    def load(cls, path: Path) -> PersonRegister | None:
        """A site's register; None if it has none, ConfigError (CO-F436) if the file is no register."""
        try:
            with path.open("rb") as file:
                raw = file.read(MAX_REGISTER_BYTES + 1)
            if len(raw) > MAX_REGISTER_BYTES:
                raise ValueError(f"it is larger than {MAX_REGISTER_BYTES} bytes")
            return cls.model_validate_json(raw)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            cause = "it does not have the form of one" if isinstance(error, ValidationError) else error
            message = f"The register of persons {path} cannot be read: {cause}"
            raise ConfigError("CO-F436", f"{message}. Restore it from your copy.") from None

    def save(self, path: Path) -> None:
        """Write the register in the place of the old one, whole or not at all."""
        replace_private(path, self.model_dump_json(indent=1) + "\n")


def digest_entries(digests: Iterable[str]) -> str:
    """A register's digest, from the digests of its entries in order."""
    return hashlib.sha256(encode_canonical(list(digests))).hexdigest()


def encode_canonical(value: object) -> bytes:
    """Canonical JSON: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
