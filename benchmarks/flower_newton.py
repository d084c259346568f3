"""The fit of redis_newton.py on Flower: its gRPC server, and a client process for each site.

    flower_newton.py server PORT SITES ROUNDS COLUMNS
    flower_newton.py site PORT FILE.csv

The server sends the coefficients, each client answers with score and information of its own rows, and the server takes
Newton's step. Flower ends after a number of rounds that is known before. The server prints JSON: seconds of each round,
from the first coefficients sent to the step, and the estimates. It needs what flower.txt lists, and nothing of Coterie.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
from flwr.client import NumPyClient, start_client
from flwr.common import FitIns, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.server import ServerConfig, start_server
from flwr.server.strategy import FedAvg
from redis_newton import read_rows, sum_rows


class NewtonStrategy(FedAvg):  # type: ignore[misc]
    """Sums of all clients, and Newton's step on them."""

    def __init__(self, sites: int, columns: int) -> None:
        super().__init__(min_fit_clients=sites, min_available_clients=sites, fraction_evaluate=0.0)
        self.sites, self.beta = sites, np.zeros(columns + 1)
        self.seconds: list[float] = []
        self.start = 0.0

    def initialize_parameters(self, client_manager: Any) -> Any:
        """Zeros."""
        return ndarrays_to_parameters([self.beta])

    def configure_fit(self, server_round: int, parameters: Any, client_manager: Any) -> Any:
        """The coefficients, to all clients."""
        clients = client_manager.sample(num_clients=self.sites, min_num_clients=self.sites)
        self.start = time.perf_counter()
        return [(client, FitIns(ndarrays_to_parameters([self.beta]), {})) for client in clients]

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        """The step."""
        if failures or len(results) != self.sites:
            raise RuntimeError(f"{len(failures)} clients failed: {failures[:1]}")
        total = np.sum([parameters_to_ndarrays(answer.parameters)[0] for _, answer in results], axis=0)
        self.beta = self.beta + np.linalg.solve(total[:-1], total[-1])
        self.seconds.append(time.perf_counter() - self.start)
        return ndarrays_to_parameters([self.beta]), {}


class RowsClient(NumPyClient):  # type: ignore[misc]
    """A site with its rows."""

    def __init__(self, path: str) -> None:
        self.x, self.y = read_rows(path)

    def fit(self, parameters: Any, config: Any) -> Any:
        """Information (p, p) and below it the score (p,)."""
        return [sum_rows(self.x, self.y, parameters[0])], len(self.y), {}


def main() -> None:
    """One process."""
    address = f"127.0.0.1:{sys.argv[2]}"
    if sys.argv[1] == "site":
        start_client(server_address=address, client=RowsClient(sys.argv[3]).to_client(), max_wait_time=120)
        return
    sites, rounds, columns = map(int, sys.argv[3:6])
    strategy = NewtonStrategy(sites, columns)
    start_server(server_address=address, config=ServerConfig(num_rounds=rounds), strategy=strategy)
    print(json.dumps({"rounds": strategy.seconds, "estimates": strategy.beta.tolist()}))


if __name__ == "__main__":
    main()
