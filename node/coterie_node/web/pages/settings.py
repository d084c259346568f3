"""The settings of this node for reading: node.toml, the policy, and the fingerprints of public keys; never a secret."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from starlette.responses import Response

from coterie_node.persons.roles import Role
from coterie_node.site.folder import SiteFolder
from coterie_node.web.access import PageRoute, Visit
from coterie_node.web.live.site_reader import SiteSnapshot
from coterie_node.web.rendering import render

# Settings that name where a secret is; the page says that they are set, and not where.
SECRET_WORDS: tuple[str, ...] = ("passphrase_file", "token_file", "secret", "password", "token", "client_secret")
SECRET_WORDS += ("secret_file", "credentials_file", "passphrase", "credentials", "key_file")


def show_settings(visit: Visit) -> Response:
    """What node.toml says, section by section."""
    site = visit.services.site
    document = site.folder.config.model_dump(mode="json")
    policy = document.pop("policy")
    sections = {"": {name: value for name, value in document.items() if not isinstance(value, dict)}}
    sections |= {name: value for name, value in document.items() if isinstance(value, dict)}
    return render(
        visit,
        "settings.html.j2",
        sections={name: list(list_settings(value)) for name, value in sections.items()},
        policy=list(list_settings(policy)),
        keys=list_keys(site.folder, site.read()),
    )


def list_settings(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Names and values in words; a nested name has a dot, a secret is only said to be set."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from list_settings(value, f"{before}{name}.")
        elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
            for place, item in enumerate(value, start=1):
                yield from list_settings(item, f"{before}{name}.{place}.")
        elif before.startswith("webhooks.") and name == "url":
            # The path of a chat's address is its password.
            yield f"{before}{name}", f"{urlsplit(str(value)).hostname} (the rest is not shown)"
        elif any(word == name or name.endswith(f"_{word}") for word in SECRET_WORDS):
            yield f"{before}{name}", "set; not shown" if value else "not set"
        else:
            yield f"{before}{name}", describe_value(value)


def describe_value(value: Any) -> str:
    """A value in words; an address without the name, password and options that stand in it."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(describe_value, value)) or "none"
    text = str(value)
    if "://" not in text:
        return text or "–"
    try:
        parts = urlsplit(text)
        bare = f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"
    except ValueError:
        return "an address that cannot be read"
    return bare + (" (options not shown)" if parts.query or parts.username else "")


def list_keys(folder: SiteFolder, snapshot: SiteSnapshot) -> list[tuple[str, str]]:
    """The public keys of this site as the Catalog lists them, each with a fingerprint to read out."""
    seat = next((seat for seat in snapshot.sites if seat.name == folder.name), None)
    if seat is None:
        return []
    return [
        ("signing address", seat.address),
        ("sealing key", make_fingerprint(seat.sealing)),
        ("swarm peer", make_fingerprint(seat.peer) if any(seat.peer) else "none"),
    ]


def make_fingerprint(key: bytes) -> str:
    """The first half of the SHA-256 of a public key, in groups of four digits."""
    digits = hashlib.sha256(key).hexdigest()[:32]
    return " ".join(digits[k : k + 4] for k in range(0, len(digits), 4))


SETTINGS_ROUTES = (PageRoute("GET", "/settings", Role.OPERATE, show_settings),)
