"""The contracts on Anvil, spoken to in bare JSON-RPC: each move is one transaction in one block at a known second."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eth_abi.abi import decode, encode
from eth_typing import ABIEvent, ABIFunction
from eth_utils.abi import (
    event_abi_to_log_topic,
    filter_abi_by_type,
    function_abi_to_4byte_selector,
    get_abi_input_types,
    get_abi_output_types,
)
from support.chain.anvil import AnvilClient

from coterie_chain.errors import PostRejected
from coterie_chain.ethereum.abi import Artifact, load_artifact, load_errors

DEPLOYER = "0x" + "dd" * 20
PostTuple = tuple[int, int, int, int, int, bool, bytes, bytes, bytes, bytes]


@dataclass(frozen=True)
class Founder:
    """One of the first sites, in the order that Rules takes."""

    name: str
    key: str
    sealing: bytes
    peer: bytes


@dataclass(frozen=True)
class Log:
    """An event that a contract emitted."""

    name: str
    args: dict[str, Any]
    emitter: str
    sender: str


@dataclass(frozen=True)
class Function:
    """How to call a function of a contract."""

    selector: bytes
    inputs: list[str]
    outputs: list[str]

    @classmethod
    def of(cls, abi: ABIFunction) -> Function:
        return cls(function_abi_to_4byte_selector(abi), get_abi_input_types(abi), get_abi_output_types(abi))


@dataclass(frozen=True)
class EventShape:
    """How to read an event: (name, type) of what is in the topics and of what is in the data."""

    name: str
    topics: list[tuple[str, str]]
    data: list[tuple[str, str]]

    @classmethod
    def of(cls, abi: ABIEvent) -> EventShape:
        inputs = list(zip(abi["inputs"], get_abi_input_types(abi), strict=True))
        topics = [(i["name"], kind) for i, kind in inputs if i["indexed"]]
        return cls(abi["name"], topics, [(i["name"], kind) for i, kind in inputs if not i["indexed"]])


class Codec:
    """Calldata, answers and logs of one contract."""

    def __init__(self, artifact: Artifact) -> None:
        functions, events = filter_abi_by_type("function", artifact.abi), filter_abi_by_type("event", artifact.abi)
        self.functions = {f["name"]: Function.of(f) for f in functions}
        self._events = {event_abi_to_log_topic(e): EventShape.of(e) for e in events}

    def encode(self, name: str, *args: object) -> str:
        function = self.functions[name]
        return _to_hex(function.selector + encode(function.inputs, args))

    def decode(self, name: str, answer: str) -> Any:
        """The answer; a tuple if the function returns more than one value."""
        values = decode(self.functions[name].outputs, _from_hex(answer))
        return values if len(values) > 1 else values[0]

    def log(self, entry: dict[str, Any], sender: str) -> Log:
        topic, *topics = (_from_hex(t) for t in entry["topics"])
        event = self._events[topic]
        args = {name: decode([kind], t)[0] for (name, kind), t in zip(event.topics, topics, strict=True)}
        values = decode([kind for _, kind in event.data], _from_hex(entry["data"]))
        args |= zip((name for name, _ in event.data), values, strict=True)
        return Log(event.name, args, entry["address"], sender)


CATALOG = Codec(load_artifact("Catalog"))
MODEL = Codec(load_artifact("Model"))


class DeployedContracts:
    """A Catalog, its Models, every log so far, and the gas of each accepted call by name."""

    def __init__(self, anvil: AnvilClient, founders: Sequence[Founder]) -> None:
        self.anvil = anvil
        block = anvil.rpc("eth_getBlockByNumber", "latest", False)
        self.now, self.block = int(block["timestamp"], 16), int(block["number"], 16)
        self._limit = block["gasLimit"]
        self.logs: list[Log] = []
        self.gas: defaultdict[str, list[int]] = defaultdict(list)
        self.models: dict[int, str] = {}
        self.address = ""
        columns = [[encode_site_name(f.name) for f in founders], [f.key for f in founders]]
        columns += [[f.sealing for f in founders], [f.peer for f in founders]]
        arguments = encode(["bytes32[]", "address[]", "bytes32[]", "bytes32[]"], columns)
        self.deploy(arguments, f"deploy, {len(founders)} founders")

    def deploy(self, arguments: bytes, label: str) -> None:
        """Deploy a Catalog and speak to it from now on."""
        receipt = self._send_transaction(DEPLOYER, None, _to_hex(load_artifact("Catalog").bytecode + arguments), label)
        self.address = receipt["contractAddress"]
        self._read(receipt["logs"], DEPLOYER)

    def move(self, sender: str, name: str, *args: object) -> list[Log]:
        """Call the Catalog in the next second."""
        return self._send(sender, self.address, CATALOG.encode(name, *args), name)

    def call(self, sender: str, data: str) -> list[Log]:
        """Send the Catalog any calldata."""
        return self._send(sender, self.address, data, "call")

    def record(self, sender: str, site: int, post: PostTuple) -> list[Log]:
        """Record a post in a site's Model in the next second."""
        return self._send(sender, self.models[site], MODEL.encode("record", post), "record")

    def place_forwarder(self) -> str:
        """A contract that calls the Catalog with the calldata that it gets, and hands back the refusal."""
        forwarder = "0x" + "f0" * 20
        # CALLDATACOPY all; CALL(gas, catalog, 0, 0, size, 0, 0); RETURNDATACOPY all; REVERT it if the call failed
        code = f"36600060003760006000366000600073{self.address[2:]}5af13d600060003e15603157005b3d6000fd"
        self.anvil.rpc("anvil_setCode", forwarder, "0x" + code)
        return forwarder

    def forward(self, sender: str, forwarder: str, name: str, *args: object) -> list[Log]:
        """Call the Catalog through another contract."""
        return self._send(sender, forwarder, CATALOG.encode(name, *args), name)

    def view_at(self, block: int, name: str, *args: object) -> Any:
        """Read the Catalog as if the chain had come to a block, in the same second."""
        (method, params) = _encode_call(self.address, CATALOG.encode(name, *args))
        return CATALOG.decode(name, self.anvil.rpc(method, *params, {}, {"number": hex(block)}))

    def view(self, name: str, *args: object) -> Any:
        """Read the Catalog."""
        return CATALOG.decode(name, self.read_answers([(name, args)])[0])

    def read_answers(self, calls: Sequence[tuple[str, Sequence[object]]]) -> list[str]:
        """What the Catalog answers to several reads of one state, not yet decoded."""
        return self.anvil.batch([_encode_call(self.address, CATALOG.encode(name, *args)) for name, args in calls])

    def chain(self, site: int) -> tuple[int, bytes]:
        """A Model's `next` and `head`."""
        requests = [_encode_call(self.models[site], MODEL.encode(name)) for name in ("next", "head")]
        following, head = self.anvil.batch(requests)
        return MODEL.decode("next", following), MODEL.decode("head", head)

    def model(self, site: int, name: str, *args: object) -> Any:
        """Read a site's Model."""
        method, params = _encode_call(self.models[site], MODEL.encode(name, *args))
        return MODEL.decode(name, self.anvil.rpc(method, *params))

    def code(self, address: str) -> bytes:
        """Code at an address."""
        return _from_hex(self.anvil.rpc("eth_getCode", address, "latest"))

    def wait(self, seconds: int) -> None:
        """Let time pass before the next move."""
        self.now += seconds

    def mine(self, blocks: int) -> None:
        """Let blocks pass before the next move, a second each."""
        self.anvil.rpc("anvil_mine", hex(blocks), "0x1")
        block = self.anvil.rpc("eth_getBlockByNumber", "latest", False)
        self.now, self.block = int(block["timestamp"], 16), int(block["number"], 16)

    def _send(self, sender: str, to: str, data: str, label: str) -> list[Log]:
        return self._read(self._send_transaction(sender, to, data, label)["logs"], sender)

    def _send_transaction(self, sender: str, to: str | None, data: str, label: str) -> dict[str, Any]:
        self.now += 1
        self.anvil.rpc("evm_setNextBlockTimestamp", self.now)
        transaction = {"from": sender, "gas": self._limit, "gasPrice": "0x0", "data": data} | ({"to": to} if to else {})
        receipt: dict[str, Any] = self.anvil.rpc("eth_sendTransactionSync", transaction)
        self.block = int(receipt["blockNumber"], 16)
        if receipt["status"] != "0x1":
            # the mined transaction's own trace: a later eth_call would see another second
            trace = self.anvil.rpc("debug_traceTransaction", receipt["transactionHash"], {"tracer": "callTracer"})
            raise decode_refusal(trace.get("output", "0x"))
        self.gas[label].append(int(receipt["gasUsed"], 16))
        return receipt

    def _read(self, entries: list[dict[str, Any]], sender: str) -> list[Log]:
        parsed_logs = [(CATALOG if e["address"] == self.address else MODEL).log(e, sender) for e in entries]
        for log in parsed_logs:
            if log.name == "SiteAdmitted":
                self.models[log.args["site"]] = log.args["model"]
        self.logs += parsed_logs
        return parsed_logs


def decode_refusal(output: str) -> PostRejected:
    """The custom error in a call's output."""
    name, types = load_errors().get(output[:10], (f"no custom error: {output}", ()))
    values = decode(types, _from_hex(output)[4:])
    return PostRejected(name, *(_to_hex(v) if isinstance(v, bytes) else v for v in values))


def encode_site_name(name: str) -> bytes:
    """A site's name as the Catalog holds it."""
    return name.encode().ljust(32, b"\0")


def _encode_call(to: str, data: str) -> tuple[str, list[object]]:
    return "eth_call", [{"to": to, "data": data}, "latest"]


def _to_hex(raw: bytes) -> str:
    return "0x" + raw.hex()


def _from_hex(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))
