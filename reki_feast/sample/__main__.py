"""Write the embedded sample: ``python -m reki_feast.sample FOLDER``."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

import pyarrow.parquet as pq

from .tables import Sample, write


def main() -> None:
    """Write the tables to the folder given, and print a line for each."""
    parser = argparse.ArgumentParser(prog="python -m reki_feast.sample", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the Parquet files go")
    folder = parser.parse_args().folder
    write(folder)
    for field in fields(Sample):
        path = folder / f"{field.name}.parquet"
        print(f"{path}: {pq.read_metadata(path).num_rows} rows")


if __name__ == "__main__":
    main()
