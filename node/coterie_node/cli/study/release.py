"""`coterie release`: payloads that wait for approval at a site, and the approval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from coterie_learners.errors import pluralise
from coterie_node.cli.options import At, Json, NodeOption, Site, open_site
from coterie_node.cli.output import print_document
from coterie_node.cli.site.signing import PassphraseFd, PersonOption, make_signer
from coterie_node.verbs.releases import allow_refusal, approve_release, list_releases, read_privacy_log

release = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="Payloads that wait until this site's people let them leave."
)


@release.command("list")
def list_releases_command(node: NodeOption = None, at: At = None, site: Site = None, as_json: Json = False) -> None:
    """Show what waits: the verdict, the counts that could be solved, and with --json every number."""
    payloads = list_releases(open_site(node, at, site))
    print_document(payloads, _format_payloads(payloads), as_json)


@release.command("approve")
def approve_release_command(
    digest: Annotated[str, typer.Argument(help="The digest that `release list` shows.")],
    node: NodeOption = None,
    at: At = None,
    site: Site = None,
    person: PersonOption = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Let one payload leave; the site's node posts it at its next turn."""
    home = open_site(node, at, site)
    payload = approve_release(home, digest, signer=make_signer(home, person, passphrase_fd))
    print(f"Approved: {payload['topic']} ({payload['payload_digest'][:16]}).")


@release.command("log")
def show_log_command(node: NodeOption = None, at: At = None, site: Site = None, as_json: Json = False) -> None:
    """Show what has left this site by population, how much of it is known, and what would be refused next."""
    document = read_privacy_log(open_site(node, at, site))
    lines = [_describe_population(population) for population in document["populations"]]
    lines += [f"lost     {name}: every release asks a person" for name in document["lost"]]
    for digest, entries in document["refusals"].items():
        lines += [f"refused  {digest[:16]}  {entry['study']}: {entry['sentence']}" for entry in entries]
    text = "\n".join(lines) or "Nothing has left this site, and nothing was refused."
    print_document(document, text, as_json)


@release.command("allow")
def allow_release_command(
    digest: Annotated[str, typer.Argument(help="The hash of the study, as `release log` shows it.")],
    reason: Annotated[str, typer.Option(help="The reason why this site lets it leave; it goes on record.")],
    node: NodeOption = None,
    at: At = None,
    site: Site = None,
    person: PersonOption = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Say yes, with a reason, to what the privacy log refused of a study: to this, and to nothing else."""
    home = open_site(node, at, site)
    for entry in allow_refusal(home, digest, reason, signer=make_signer(home, person, passphrase_fd)):
        print(f"Allowed: {entry['study']}: {entry['kind']}.")


def _describe_population(population: Mapping[str, Any]) -> str:
    """One population in words: its patients, what has left about them, and what the gate refuses next."""
    smallest, releases = population["smallest_known_set"], population["releases"]
    differ = (
        "no two releases differ in patients"
        if smallest is None
        else f"two releases differ by {pluralise(smallest, 'patient')}"
    )
    lines = [
        f"{', '.join(population['studies'])}: {pluralise(population['rows'], 'patient')}, "
        f"{pluralise(releases, 'release')}, {population['masked']} of them masked",
        f"  columns that left       {population['columns']}; there must be fewer than patients",
        f"  equations in the clear  {population['equations']} for {population['unknowns']} unknown values",
        f"  smallest known set      {'none: ' if smallest is None else ''}{differ}",
        *(f"  refused next            {words}" for words in population["refused_next"]),
    ]
    return "\n".join(lines)


def _format_payloads(payloads: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for payload in payloads:
        lines.append(f"{payload['payload_digest'][:16]}  {payload['topic']}  {payload['sentence']}")
        lines += [f"  {name}: {count}" for name, count in payload["cells_below_floor"].items()]
    return "\n".join(lines) or "Nothing waits for a person's yes."
