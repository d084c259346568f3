"""`coterie network`: the files with which sites found a chain and a swarm of their own, with Geth or Besu, and Kubo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coterie_chain.private_files import read_private, write_private
from coterie_chain.swarm import Kubo
from coterie_node.consortium import CHAINS, PERIOD, Card, deploy_catalog, make_keys, make_trial, write_files
from coterie_node.errors import ConfigError

network = typer.Typer(no_args_is_help=True, help="Found a network: keys, genesis and configurations for all programs.")

Folder = Annotated[Path, typer.Argument(help="The site's folder.")]
Site = Annotated[str, typer.Option(help="Name of this site.")]
Period = Annotated[int, typer.Option(min=1, help="Seconds between blocks.")]


@network.command("keys")
def keys_command(
    folder: Folder,
    site: Site,
    host: Annotated[str, typer.Option(help="IP address at which the other sites reach this one.")],
    chain: Annotated[str, typer.Option(help=f"Kind of chain: {' or '.join(CHAINS)} (Besu).")] = "clique",
) -> None:
    """Make this site's keys and print its card, which is public, for the others."""
    card = make_keys(folder, site, host, host, chain=chain).to_json()
    (folder / "founder.json").write_text(card)
    print(card, end="")


@network.command("files")
def files_command(
    folder: Folder,
    site: Site,
    founder: Annotated[list[Path], typer.Option(help="A site's founder.json; once for each site, this one too.")],
    swarm_key: Annotated[Path | None, typer.Option(help="The swarm's key, if another site made it.")] = None,
    period: Period = PERIOD,
) -> None:
    """Write genesis and configurations from the cards of all sites; the same cards give the same genesis."""
    if swarm_key is not None:
        Kubo(folder / "kubo").join(read_private(swarm_key, "the swarm's key"))
    write_files(folder, site, [Card.read(path) for path in founder], period=period)
    key = folder / "kubo" / "repo" / "swarm.key"
    print(f"Written to {folder}. All sites need the same {key}; hand it over in person.")


@network.command("deploy")
def deploy_command(
    folder: Folder,
    chain: Annotated[str, typer.Option(help="Address of this site's chain node; ?jwt_file=PATH names its token file.")],
    founder: Annotated[list[Path], typer.Option(help="A site's founder.json; once for each site, this one too.")],
) -> None:
    """Deploy the Catalog once for all, and write network.json, which every site needs."""
    text = deploy_catalog(folder, chain, [Card.read(path) for path in founder]).to_json()
    (folder / "network.json").write_text(text)
    print(text, end="")


@network.command("trial")
def trial_command(
    folder: Annotated[Path, typer.Argument(help="New folder of the trial.")] = Path("docker/trial"),
    period: Period = PERIOD,
) -> None:
    """Write the folders of three sites for `docker/compose.trial.yaml`."""
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError("CO-F203", f"{folder} is not an empty folder; a trial is never written over another.")
    variables = make_trial(folder, ("north", "south", "west"), period=period)
    write_private(folder / ".env", "".join(f"{name}={value}\n" for name, value in variables.items()))
    print(f"Written to {folder}. Next: docker compose --env-file {folder}/.env -f docker/compose.trial.yaml up")
