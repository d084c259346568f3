"""node.toml: the settings of one hospital's node, in one commented file that holds no secret."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError

from coterie_learners.core.registry import learner_of
from coterie_learners.errors import StudyError
from coterie_learners.study.document import ColumnName, Frozen, LearnerName, Name, Study
from coterie_learners.study.toml_text import MAX_TOML, parse_toml
from coterie_node.data.files.bounded_file import read_bounded_text
from coterie_node.errors import ConfigError
from coterie_node.notices.settings import NoticesPart
from coterie_node.peers.address import address_of
from coterie_node.persons.roles import MAX_SIGNERS, Role
from coterie_node.release.policy import Policy

CONFIG = "node.toml"
LOOPBACK_HOSTS = ("127.0.0.1", "::1", "localhost")


class SitePolicy(Policy):
    """What a node may take part in: the gate's floors, and which learners and columns; None allows every column.

    `approvals`: how many different persons of the register sign before the node joins a study.
    """

    learners: tuple[LearnerName, ...] = ()
    columns: tuple[ColumnName, ...] | None = None
    approvals: Annotated[int, Field(ge=0, le=MAX_SIGNERS)] = 0

    def check(self, study: Study, site: str) -> None:
        """StudyError unless a study keeps to this policy."""
        from coterie_learners.study.design import Design

        super().check(study, site)
        if study.learner.name not in self.learners:
            allowed = ", ".join(self.learners) or "none"
            message = f"{site}'s policy allows the learners {allowed}, and the study {study.name!r} wants"
            raise StudyError("CO-S502", f"{message} {study.learner.name}. Decline it, or change [policy] in node.toml.")
        used = Design(study, site).read
        beyond = [name for name in used if self.columns is not None and name not in self.columns]
        if beyond:
            message = (
                f"{site}'s policy does not allow the columns {', '.join(beyond)}, which the study {study.name!r} uses"
            )
            raise StudyError("CO-S503", f"{message}. Decline it, or change [policy] in node.toml.")


class ChainPart(Frozen):
    """This site's own chain node. `confirmations`: blocks after which a result is final. `overlap`: see runner.py.

    `max_gas_price`: wei per gas that this site pays at most, whatever the chain node names; None is 100 gwei.
    `sleep`: the daemon starts and stops the sealer of this site, through the socket `ipc` (sealer_driver.py).
    """

    url: str = "http://127.0.0.1:8545"
    confirmations: Annotated[int, Field(ge=0, le=1000)] = 0
    overlap: Literal["auto", "off"] = "auto"
    max_gas_price: Annotated[int, Field(ge=1, le=10**18)] | None = None
    sleep: bool = False
    ipc: str = "geth/geth.ipc"


class StorePart(Frozen):
    """This site's own store."""

    url: str = "folder:store"


class ApiPart(Frozen):
    """The address of the node's health and metrics."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 9464
    token_file: str = "api.token"


class OidcPart(Frozen):
    """The hospital's identity provider. `roles`: which roles the members of a group have at this site.

    `secret_file` has the client's secret. `groups_claim` and `name_claim`: where an ID token has groups and name.
    """

    issuer: Annotated[str, Field(pattern=r"^https?://[^\s]{1,300}$")]
    client_id: Annotated[str, Field(min_length=1, max_length=200)]
    secret_file: str = "oidc.secret"
    scopes: str = "openid profile"
    groups_claim: str = "groups"
    name_claim: str = "name"
    roles: dict[str, tuple[Role, ...]] = Field(default_factory=dict)


class WebPart(Frozen):
    """The node's page. `hosts`: names by which it answers besides loopback; `proxies`: whose forwarded headers count.

    `oidc`: where persons sign in besides local accounts.
    A session ends after `idle_minutes` without a request, and after `session_hours` in any case.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 9480
    hosts: tuple[Annotated[str, Field(pattern=r"^[a-z0-9.-]{1,253}$")], ...] = ()
    proxies: tuple[Annotated[str, Field(pattern=r"^[0-9a-fA-F.:/]{2,49}$")], ...] = ()
    idle_minutes: Annotated[float, Field(gt=0, le=1440)] = 20
    session_hours: Annotated[float, Field(gt=0, le=168)] = 12
    oidc: OidcPart | None = None


def _check_address(text: str) -> str:
    address_of(text)
    return text


AddressText = Annotated[str, AfterValidator(_check_address)]


class TalkPart(Frozen):
    """The addresses at which this node and its peers listen in interactive steps."""

    listen: AddressText | None = None
    peers: dict[Name, AddressText] = Field(default_factory=dict)

    def check(self, study: Study, site: str) -> None:
        """ConfigError if a study's sites talk to each other, and this one could not."""
        if not learner_of(study).needs_channel(study):
            return
        missing = [peer for peer in study.sites if peer != site and peer not in self.peers]
        if self.listen is None or missing:
            message = f"In study {study.name!r} the sites talk to each other, and [talk] in {site}'s node.toml lacks"
            lacks = " and ".join(["`listen`"] * (self.listen is None) + [f"an address of {m}" for m in missing])
            raise ConfigError("CO-F342", f"{message} {lacks}. Add it.")


class RetentionPart(Frozen):
    """For how many years after a study's last entry on the ledger its payloads are kept (`coterie prune`)."""

    years: Annotated[float, Field(ge=0.0, le=200.0)] = 10.0


class PersonsPart(Frozen):
    """This site's persons. `publish`: whether the texts that they sign go to the other sites and into bundles."""

    publish: bool = False


class NodeConfig(Frozen):
    """One site's settings; paths are relative to the folder of node.toml."""

    site: Name
    data: str = "data.csv"
    exclude: str = ""
    passphrase_file: str = "passphrase"
    chain: ChainPart = ChainPart()
    store: StorePart = StorePart()
    policy: SitePolicy = SitePolicy()
    api: ApiPart = ApiPart()
    talk: TalkPart = TalkPart()
    web: WebPart | None = None
    notices: NoticesPart = NoticesPart()
    retention: RetentionPart = RetentionPart()
    persons: PersonsPart = PersonsPart()


def load_config(path: Path) -> NodeConfig:
    """Read node.toml; ConfigError (CO-F320) if it is missing or if a setting in it is wrong."""
    try:
        return NodeConfig.model_validate(parse_toml(read_bounded_text(path, MAX_TOML)))
    except FileNotFoundError:
        message = f"{path} is missing, so {path.parent.absolute()} is not a node's folder"
        remedy = "Name the folder with --node, or make one: coterie init DIR"
        raise ConfigError("CO-F320", f"{message}. {remedy}.") from None
    except OSError as error:
        raise ConfigError("CO-F320", f"{path} cannot be read: {error}.") from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        message = "there is no such setting" if first["type"] == "extra_forbidden" else first["msg"]
        remedy = "Correct it; each setting is explained in the node.toml that `coterie init` writes"
        raise ConfigError("CO-F320", f"{path}: {where}: {message}. {remedy}.") from None
    except ValueError as error:
        raise ConfigError("CO-F320", f"{path} cannot be read: {error}. Correct the file.") from None
