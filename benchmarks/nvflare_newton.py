"""The fit of redis_newton.py on NVIDIA FLARE in its POC mode: a server, three sites and their jobs as processes.

    nvflare_newton.py FOLDER FITS ROUNDS COLUMNS FILE.csv ...   print JSON: seconds of each round of each fit, estimates
    nvflare_newton.py site FOLDER                               what NVFLARE runs at a site

The server sends the coefficients, each site answers with score and information of its own rows, and the server takes
Newton's step; all fits are one job. FOLDER is a new one, for NVFLARE's workspace. A site waits INTERVAL seconds before
it asks for the next task, in place of NVFLARE's 2 s, and the server looks for answers as often, in place of 0.5 s; what
else NVFLARE waits for stays. POC mode has the ports 8002 and 8003, and no encryption. PYTHONPATH has this script's
folder. It needs what nvflare.txt lists, and nothing of Coterie.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
from nvflare.app_common.abstract.fl_model import FLModel
from nvflare.app_common.workflows.model_controller import ModelController
from redis_newton import Vector, read_rows, sum_rows

INTERVAL, DEADLINE = 0.01, 900
# What the server leaves in the folder, and where the sites find their files.
RESULT, FILES = "result.json", "files.json"


class NewtonController(ModelController):  # type: ignore[misc]
    """Sums of all sites, and Newton's step on them. NVFLARE makes it again from arguments of these names."""

    def __init__(self, folder: str, fits: int, rounds: int, columns: int, sites: int) -> None:
        super().__init__(task_check_period=INTERVAL)
        self.folder, self.fits, self.rounds, self.columns, self.sites = folder, fits, rounds, columns, sites

    def run(self) -> None:
        """All fits, after a round in which the sites read their rows."""
        beta = np.zeros(self.columns + 1)
        self.sum_at(beta)
        seconds: list[list[float]] = []
        for _ in range(self.fits):
            beta = np.zeros(self.columns + 1)
            seconds.append([])
            for _ in range(self.rounds):
                start = time.perf_counter()
                total = self.sum_at(beta)
                beta = beta + np.linalg.solve(total[:-1], total[-1])
                seconds[-1].append(time.perf_counter() - start)
        Path(self.folder, RESULT).write_text(json.dumps({"fits": seconds, "estimates": beta.tolist()}))

    def sum_at(self, beta: Vector) -> Vector:
        """The sites' sums (p + 1, p) at coefficients."""
        answers = self.send_model_and_wait(
            data=FLModel(params={"beta": beta}), min_responses=self.sites, timeout=DEADLINE
        )
        if len(answers) != self.sites:
            raise RuntimeError(f"{len(answers)} of {self.sites} sites have answered within {DEADLINE} s.")
        return np.asarray(np.sum([answer.params["sums"] for answer in answers], axis=0))


def answer_rounds(folder: str) -> None:
    """A site with its rows."""
    import nvflare.client as flare

    flare.init()
    files = json.loads(Path(folder, FILES).read_text())
    x, y = read_rows(files[flare.get_site_name()])
    while flare.is_running():
        model = flare.receive()
        if model is None:
            break
        flare.send(FLModel(params={"sums": sum_rows(x, y, np.asarray(model.params["beta"]))}))


def run_job(folder: str, fits: int, rounds: int, columns: int, files: list[str]) -> str:
    """NVFLARE's state of the job at its end; all of its processes are ended then."""
    os.environ["NVFLARE_POC_WORKSPACE"] = str(Path(folder, "poc"))
    from nvflare.client.config import ExchangeFormat
    from nvflare.job_config.api import FedJob
    from nvflare.job_config.script_runner import FrameworkType, ScriptRunner
    from nvflare.recipe.poc_env import PocEnv
    from nvflare_newton import NewtonController as Controller  # by the module's name, under which NVFLARE imports it

    names = [f"site-{k + 1}" for k in range(len(files))]
    Path(folder, FILES).write_text(json.dumps(dict(zip(names, map(os.path.abspath, files), strict=True))))
    job = FedJob(name="newton", min_clients=len(files))
    job.to_server(Controller(folder, fits, rounds, columns, len(files)))
    job.to_server({"server": {"task_request_interval": INTERVAL}})
    kinds = {"framework": FrameworkType.NUMPY, "server_expected_format": ExchangeFormat.NUMPY}
    for name in names:
        job.to(ScriptRunner(script=str(Path(__file__)), script_args=f"site {folder}", **kinds), name)
    place = PocEnv(num_clients=len(files))
    try:
        number = place.deploy(job)
        place.get_job_result(number, DEADLINE)
        return str(place.get_job_status(number))
    finally:
        place.stop()


def main() -> None:
    """The whole job, or one site of it."""
    if sys.argv[1] == "site":
        answer_rounds(sys.argv[2])
        return
    folder = os.path.abspath(sys.argv[1])
    fits, rounds, columns = map(int, sys.argv[2:5])
    state, result = run_job(folder, fits, rounds, columns, sys.argv[5:]), Path(folder, RESULT)
    if not result.exists():
        raise SystemExit(f"NVFLARE's job ended as {state} without a result. Look at the logs in {folder}/poc.")
    print(result.read_text())


if __name__ == "__main__":
    main()
