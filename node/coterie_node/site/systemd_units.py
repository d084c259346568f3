"""systemd units of a site's chain node and store on a machine of its own, from the recipes of the devnet launcher."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from coterie_chain.network.genesis import CHAIN_ID, read_sealers
from coterie_chain.network.programs import geth, kubo
from coterie_chain.network.programs.executables import GETH, IPFS
from coterie_chain.network.programs.geth import Geth
from coterie_chain.network.programs.ports import LOOPBACK
from coterie_chain.network.swarm import Kubo
from coterie_node.errors import ConfigError

# What every unit of a site ends with.
HARDENED = """\
UMask=0077
NoNewPrivileges=true
ProtectSystem=strict
ReadWritePaths={folder}
PrivateTmp=true

[Install]
WantedBy=multi-user.target
"""
_UNIT = """\
# /etc/systemd/system/coterie-{name}.service
# Before the first start, as the user that it runs as:
{once}
[Unit]
Description=Coterie: {what}
After=network-online.target
Wants=network-online.target

[Service]
User=coterie
{environment}ExecStart={start}
KillSignal=SIGINT
TimeoutStopSec=120
Restart=always
RestartSec=5
"""


def geth_unit(site: Path) -> str:
    """The unit of a site's Geth; it seals if the genesis lists its sealer, or once the sealers have voted for it."""
    node = Geth(site.absolute() / "geth")
    file = node.folder / "genesis.json"
    _check_files(node.config, file)
    program = str(GETH.find())
    start = geth.build_geth_arguments(
        data=node.data,
        config=node.config,
        jwt=node.jwt,
        chain_id=CHAIN_ID,
        rpc=(LOOPBACK, geth.RPC_PORT),
        names=f"localhost,{LOOPBACK}",
    )
    founder = node.sealer.lower() in read_sealers(json.loads(file.read_text()))
    seal = geth.build_sealing_arguments(node.sealer, node.passphrase) if founder else ()
    once = [[program, *geth.build_init_arguments(node.data, file)]]
    return _render_unit(
        "geth", "chain node", node.folder, once, [program, *start, *geth.build_socket_arguments(node.ipc), *seal]
    )


def kubo_unit(site: Path) -> str:
    """The unit of a site's Kubo."""
    store = Kubo(site.absolute() / "kubo")
    _check_files(store.config)
    program = str(IPFS.find())
    once = [
        ["IPFS_PATH=" + str(store.repo), program, "init", "--empty-repo", str(store.config)],
        ["cp", "-p", str(store.config), str(store.repo / "config")],
    ]
    return _render_unit(
        "kubo", "store", store.folder, once, [program, *kubo.build_daemon_arguments()], store.environment
    )


UNITS: dict[str, Callable[[Path], str]] = {"geth": geth_unit, "kubo": kubo_unit}


def _render_unit(
    name: str,
    what: str,
    folder: Path,
    once: Sequence[Sequence[str]],
    start: Sequence[str],
    environment: dict[str, str] | None = None,
) -> str:
    settings = "".join(f"Environment={escape_words([f'{k}={v}'])}\n" for k, v in (environment or {}).items())
    return (_UNIT + HARDENED).format(
        name=name,
        what=what,
        once="\n".join(f"#   {shlex.join(line)}" for line in once),
        environment=settings,
        start=escape_words(start),
        folder=escape_words([str(folder)]),
    )


def escape_words(words: Sequence[str]) -> str:
    """Words of a command line as systemd reads them."""
    return shlex.join(words).replace("%", "%%").replace("$", "$$")


def _check_files(*files: Path) -> None:
    for file in files:
        if not file.exists():
            message = (
                f"{file} is missing. Make the keys and the files of this site first: coterie network keys, then files"
            )
            raise ConfigError("CO-F330", f"{message}.")
