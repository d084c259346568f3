"""Write NHEFS as three hospitals' files, for docs/survival.md: north.csv, south.csv and west.csv in the current folder.

NHEFS is the follow-up of 1,629 smokers of the first US health survey, from the package causaldata (`coterie[demo]`).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from causaldata import nhefs

SITES = ("north", "south", "west")


def main() -> None:
    """Write months from January 1983 to death, or to the end of 1992, with what the survey measured."""
    rows = nhefs.load_pandas().data.apply(pd.to_numeric, errors="coerce")
    died = rows["death"] == 1
    months = (rows["yrdth"].fillna(0) - 83) * 12 + rows["modth"].fillna(0)
    table = rows[["death", "age", "smokeyrs"]].astype(int)
    table = table.assign(months=np.where(died, months, 120).astype(int), sex=rows["sex"].map({0: "male", 1: "female"}))
    for at, site in enumerate(SITES):
        table.iloc[at :: len(SITES)].to_csv(f"{site}.csv", index=False)


if __name__ == "__main__":
    main()
