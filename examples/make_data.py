"""Write simulated patients for examples/stroke.toml: north.csv, south.csv and west.csv in the current folder."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

SITES = {"north": 900, "south": 500, "west": 300}


def main() -> None:
    """Write one file per site."""
    rng = np.random.default_rng(7)
    for site, n in SITES.items():
        age, male, nihss = rng.normal(72, 11, n).clip(20, 105), rng.integers(0, 2, n), rng.poisson(8, n).clip(0, 42)
        eta = -9.0 + 0.07 * age + 0.12 * nihss + 0.3 * male
        death = rng.random(n) < 1 / (1 + np.exp(-eta))
        with Path(f"{site}.csv").open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["death", "age", "sex", "nihss"])
            for row in zip(death, age, male, nihss, strict=True):
                writer.writerow([int(row[0]), f"{row[1]:.1f}", ["female", "male"][row[2]], int(row[3])])


if __name__ == "__main__":
    main()
