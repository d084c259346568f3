"""systemd units of a site's chain node and store on a machine of its own, from the recipes of the devnet launcher."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from coterie_chain.network.genesis import CHAIN_ID, read_sealers
from coterie_chain.network.programs import geth, kubo
from coterie_chain.network.programs.executables import GETH, IPFS
from coterie_chain.network.programs.geth import Geth
from coterie_chain.network.programs.ports import LOOPBACK
from coterie_chain.network.swarm import Kubo
from coterie_node.errors import ConfigError
from coterie_node.network.site_ports import SitePorts
from coterie_node.site.config import CONFIG
from coterie_node.site.folder import PASSPHRASE, find_node

# What every unit of a site ends with. `systemd-analyze security` rates each at 3.0 or less.
# MemoryDenyWriteExecute stays out: numpy's and Go's programs run with it, but Python's ctypes callbacks do not.
HARDENED = """\
UMask=0077
NoNewPrivileges=true
ProtectSystem=strict
ReadWritePaths={folder}
PrivateTmp=true
PrivateDevices=true
ProtectHome={home}
ProtectClock=true
ProtectControlGroups=true
ProtectHostname=true
ProtectKernelLogs=true
ProtectKernelModules=true
ProtectKernelTunables=true
ProtectProc=invisible
ProcSubset=pid
LockPersonality=true
RemoveIPC=true
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX{netlink}
RestrictNamespaces=true
RestrictRealtime=true
RestrictSUIDSGID=true
CapabilityBoundingSet=
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
LimitNOFILE=65536
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""
_UNIT = """\
# /etc/systemd/system/coterie-{name}.service
# The user `coterie` must own the folder, and be able to run the program: see docs/node.md.
[Unit]
Description=Coterie: {what}
After=network-online.target
Wants=network-online.target

[Service]
User=coterie
{environment}{credentials}{prepare}ExecStart={start}
KillSignal=SIGINT
TimeoutStopSec=120
Restart=always
RestartSec=5
"""
_DAEMON_UNIT = """\
# /etc/systemd/system/coterie.service
[Unit]
Description=Coterie node
After=network-online.target coterie-geth.service coterie-kubo.service
Wants=network-online.target coterie-geth.service coterie-kubo.service

[Service]
User=coterie
{credentials}ExecStart={start}
KillSignal=SIGTERM
TimeoutStopSec=180
Restart=on-failure
RestartSec=15
RestartPreventExitStatus=11 12 13 23
"""
# A file in Geth's folder: this site came later, and its sealer makes blocks.
LATER_SEALER = "seals"
_HANDED = "@credentials@/"
HOME_FOLDERS = (Path("/home"), Path("/root"), Path("/run/user"))


@dataclass(frozen=True)
class Recipe:
    """How a program of a site runs: what to do before each start, its command line, and its environment."""

    prepare: Sequence[Sequence[str]]
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


def make_geth_recipe(site: Path) -> Recipe:
    """A site's Geth; it seals if the genesis lists its sealer, or once the sealers have voted for it."""
    node = Geth(site.absolute() / "geth")
    file = node.folder / "genesis.json"
    _check_files(node.config, file)
    program = str(GETH.find())
    start = geth.build_geth_arguments(
        data=node.data,
        config=node.config,
        jwt=node.jwt,
        chain_id=CHAIN_ID,
        rpc=(LOOPBACK, SitePorts.read(site).rpc),
        names=f"localhost,{LOOPBACK}",
    )
    founder = node.sealer.lower() in read_sealers(json.loads(file.read_text()))
    seals = founder or (node.folder / LATER_SEALER).exists()
    own = geth.build_identity_arguments(node.nodekey)
    seal = geth.build_sealing_arguments(node.sealer, node.passphrase, node.keystore) if seals else ()
    prepare = [["/bin/sh", "-c", geth.build_geth_init_script(program, node.data, file)]]
    return Recipe(prepare, [program, *start, *own, *geth.build_socket_arguments(node.ipc), *seal])


def mark_sealer(site: Path) -> None:
    """Let a later site's Geth make blocks from its next start on; the sealers must vote for it as well."""
    (site / "geth" / LATER_SEALER).touch()


def make_kubo_recipe(site: Path) -> Recipe:
    """A site's Kubo."""
    store = Kubo(site.absolute() / "kubo")
    _check_files(store.config)
    program = str(IPFS.find())
    # The peers of config.json may have changed since the last start.
    prepare = [
        ["/bin/sh", "-c", kubo.build_kubo_init_script(program, store.repo, store.config)],
        ["/bin/cp", "-p", str(store.config), str(store.repo / "config")],
    ]
    return Recipe(prepare, [program, *kubo.build_daemon_arguments()], store.environment)


def make_daemon_recipe(site: Path) -> Recipe:
    """A site's Coterie daemon."""
    return Recipe((), [sys.executable, "-m", "coterie_node", "serve", "--node", str(site.absolute())])


def geth_unit(site: Path) -> str:
    """The unit of a site's Geth."""
    node = Geth(site.absolute() / "geth")
    return _render_unit("geth", "chain node", node.folder, make_geth_recipe(site), (node.passphrase,))


def kubo_unit(site: Path) -> str:
    """The unit of a site's Kubo."""
    return _render_unit("kubo", "store", site.absolute() / "kubo", make_kubo_recipe(site))


def daemon_unit(site: Path) -> str:
    """The unit of a site's daemon."""
    command, config = make_daemon_recipe(site).command, site.absolute() / CONFIG
    passphrase = find_node(site.absolute()).passphrase if config.exists() else site.absolute() / PASSPHRASE
    words = {"start": escape_words(command), "credentials": _load_credential(PASSPHRASE, passphrase)}
    return _DAEMON_UNIT.format(**words) + harden(site.absolute(), Path(command[0]))


def render_units(site: Path) -> dict[str, str]:
    """The units of a site's three programs, by file name."""
    return {
        "coterie-geth.service": geth_unit(site),
        "coterie-kubo.service": kubo_unit(site),
        "coterie.service": daemon_unit(site),
    }


UNITS: dict[str, Callable[[Path], str]] = {"geth": geth_unit, "kubo": kubo_unit}


def _load_credential(name: str, file: Path) -> str:
    """The line by which systemd, as root, reads a file and hands it to the service alone."""
    return f"LoadCredential={name}:{str(file.absolute()).replace('%', '%%')}\n"


def _render_unit(name: str, what: str, folder: Path, recipe: Recipe, secrets: Sequence[Path] = ()) -> str:
    """The unit of a recipe; it gets the files of `secrets` that its command names from systemd."""
    handed = [file for file in secrets if str(file) in recipe.command]
    words = [_HANDED + file.name if (file := Path(word)) in handed else word for word in recipe.command]
    settings = "".join(f"Environment={escape_words([f'{k}={v}'])}\n" for k, v in recipe.environment.items())
    unit = _UNIT.format(
        name=name,
        what=what,
        prepare="".join(f"ExecStartPre={escape_words(line)}\n" for line in recipe.prepare),
        environment=settings,
        credentials="".join(_load_credential(file.name, file) for file in handed),
        # systemd writes its folder of credentials for %d
        start=escape_words(words).replace(_HANDED, "%d/"),
    )
    return unit + harden(folder, Path(recipe.command[0]), netlink=True)


def harden(folder: Path, program: Path, *, netlink: bool = False) -> str:
    """The end of a unit that writes to one folder; homes are hidden from it unless folder or program are in one.

    `netlink`: the program lists the machine's network interfaces, as Go's do.
    """
    inside = any(path.is_relative_to(home) for path in (folder, program) for home in HOME_FOLDERS)
    words = {"folder": escape_words([str(folder)]), "home": "read-only" if inside else "true"}
    return HARDENED.format(**words, netlink=" AF_NETLINK" if netlink else "")


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
