"""Write the compose files from the launcher's own recipes, and the dashboard, so that they follow the code.

`python docker/generate.py` writes them; with `--check` it says whether they are up to date.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from dashboard import render_dashboard
from images import BASE_IMAGE, GETH_IMAGE, KUBO_IMAGE, LOCK, pin_image, read_lock

from coterie_chain.network.genesis import CHAIN_ID
from coterie_chain.network.programs import geth, kubo
from coterie_node.network.founding import ANY, TRIAL_NET, trial_address

HERE = Path(__file__).parent
DIGESTS = read_lock(LOCK.read_text())
SITES = ("north", "south", "west")
USER = "10001:10001"
HEAD = "# Written by docker/generate.py; change that, not this. How to use it: docker/README.md.\n"
HARD = {
    "user": USER,
    "restart": "unless-stopped",
    "stop_grace_period": "1m",
    "read_only": True,
    "tmpfs": ["/tmp"],
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges:true"],
}
HEALTHY = "import urllib.request as r; r.urlopen('http://127.0.0.1:9464/health', timeout=5)"
Service = dict[str, Any]


def main() -> int:
    """Write or check the files; returns the exit status."""
    wanted = {
        "compose.site.yaml": render_compose(build_site_file()),
        "compose.trial.yaml": render_compose(build_trial_file()),
        "grafana-dashboard.json": render_dashboard(),
    }
    if "--check" not in sys.argv[1:]:
        for name, text in wanted.items():
            (HERE / name).write_text(text)
        return 0
    stale = [name for name, text in wanted.items() if (HERE / name).read_text() != text]
    if stale:
        print(f"docker/{', docker/'.join(stale)} differ from docker/generate.py. Run it again.", file=sys.stderr)
    return 1 if stale else 0


class Plain(yaml.SafeDumper):
    """YAML as people write it: no aliases, texts of several lines as blocks."""

    def ignore_aliases(self, data: Any) -> bool:
        """Never abbreviate."""
        return True


def _represent_block(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


Plain.add_representer(str, _represent_block)


def render_compose(compose: Mapping[str, Any]) -> str:
    """The text of a compose file."""
    return HEAD + yaml.dump(dict(compose), Dumper=Plain, sort_keys=False, width=100, allow_unicode=True)


def build_site_file() -> dict[str, Any]:
    """One real site: chain node, store and Coterie node; only peers reach it, at the address that its card names."""
    folder, address = "${SITE_FOLDER:?the site's folder}", "${SITE_ADDRESS:?the IP address of this site's card}"
    services = build_site_services("", folder, "${SITE_SEALER:?the sealer of this site's card}")
    services["geth"]["ports"] = [f"{address}:{geth.P2P_PORT}:{geth.P2P_PORT}/tcp"]
    services["kubo"]["ports"] = [f"{address}:{kubo.SWARM_PORT}:{kubo.SWARM_PORT}/tcp"]
    return {"name": "coterie-site", "services": services}


def build_trial_file() -> dict[str, Any]:
    """Three sites on one machine, with fixed addresses in a network that leads nowhere."""
    services: dict[str, Service] = {}
    for number, site in enumerate(SITES, start=1):
        sealer = f"${{{site.upper()}_SEALER:?run coterie network trial first}}"
        for name, service in build_site_services(f"{site}-", f"./trial/{site}", sealer).items():
            part = name.removeprefix(f"{site}-")
            services[name] = service | {"networks": {"trial": {"ipv4_address": trial_address(number, part)}}}
    subnet = {"driver": "default", "config": [{"subnet": f"{TRIAL_NET}.0/24"}]}
    return {
        "name": "coterie-trial",
        "services": services,
        "networks": {"trial": {"internal": True, "ipam": subnet}},
    }


def build_site_services(prefix: str, folder: str, sealer: str) -> dict[str, Service]:
    """The services of one site, whose folder is on the host."""
    return {
        f"{prefix}geth": build_geth_service(f"{prefix}geth", folder, sealer),
        f"{prefix}kubo": build_kubo_service(folder),
        f"{prefix}node": build_node_service(prefix, folder),
    }


def build_geth_service(name: str, folder: str, sealer: str) -> Service:
    """The site's sealer. Its RPC is for the site's node only, which must show tokens."""
    start = geth.build_geth_arguments(
        data="/geth/data",
        config="/geth/config.toml",
        jwt="/geth/jwt.hex",
        chain_id=CHAIN_ID,
        rpc=(ANY, geth.RPC_PORT),
        names=f"localhost,{name}",
    )
    own = geth.build_identity_arguments("/geth/nodekey")
    seal = geth.build_sealing_arguments("SEALER", "/geth/sealer.passphrase", "/geth/keystore")
    run = shlex.join(["geth", *start, *own, *seal, "--ipcpath", "/geth/geth.ipc"]).replace("SEALER", '"$$SEALER"')
    init = geth.build_geth_init_script("geth", "/geth/data", "/geth/genesis.json")
    return {
        "image": pin_image(GETH_IMAGE, DIGESTS),
        **HARD,
        "entrypoint": ["/bin/sh", "-ec"],
        "command": [f"{init}\nexec {run}\n"],
        "environment": {"SEALER": sealer},
        "volumes": [f"{folder}/geth:/geth"],
        "healthcheck": build_health_check("geth", "attach", "--exec", "eth.blockNumber", "/geth/geth.ipc"),
    }


def build_kubo_service(folder: str) -> Service:
    """The site's store."""
    daemon = shlex.join(["ipfs", *kubo.build_daemon_arguments()])
    steps = [
        kubo.build_kubo_init_script("ipfs", "/kubo/repo", "/kubo/config.json"),
        "cp /kubo/config.json /kubo/repo/config",
        f"exec {daemon}",
    ]
    return {
        "image": pin_image(KUBO_IMAGE, DIGESTS),
        **HARD,
        "entrypoint": ["/bin/sh", "-ec"],
        "command": ["\n".join(steps) + "\n"],
        "environment": {**kubo.ENVIRONMENT, "IPFS_PATH": "/kubo/repo"},
        "volumes": [f"{folder}/kubo:/kubo"],
        # Whether somebody listens: asking more needs the token, which does not belong into arguments.
        "healthcheck": build_health_check("nc", "-z", "127.0.0.1", str(kubo.API_PORT)),
    }


def build_node_service(prefix: str, folder: str) -> Service:
    """The site's Coterie node."""
    ready = {f"{prefix}{part}": {"condition": "service_healthy"} for part in ("geth", "kubo")}
    return {
        "image": "coterie",
        "build": {
            "context": "..",
            "dockerfile": "docker/Dockerfile",
            "args": {"BASE": pin_image(BASE_IMAGE, DIGESTS)},
        },
        **HARD,
        "command": ["serve", "--node", "/site"],
        "volumes": [f"{folder}:/site"],
        "depends_on": ready,
        "healthcheck": build_health_check("python", "-c", HEALTHY),
    }


def build_health_check(*test: str) -> dict[str, Any]:
    """A health check by a command."""
    check: Sequence[str] = ("CMD", *test)
    return {"test": list(check), "interval": "15s", "timeout": "10s", "retries": 4, "start_period": "1m"}


if __name__ == "__main__":
    sys.exit(main())
