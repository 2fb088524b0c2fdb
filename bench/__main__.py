"""`python -m bench [NAME…] [--quick] [--write]`: measure, and print a line for each figure."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench import (
    beside,
    connections,
    decode,
    detector,
    document,
    enrol,
    faces,
    http_search,
    importing,
    ivf,
    load,
    memory,
    peer_pictures,
    peer_tensors,
    peers,
    reimport,
    round_trip,
    rpc,
    search,
    size,
    swap,
    text,
    up,
)
from bench.figures import Report, Setup

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "build" / "bench"

BENCHMARKS: dict[str, Callable[[Setup], Report]] = {
    "decode": decode.measure,
    "search": search.measure,
    "ivf": ivf.measure,
    "round-trip": round_trip.measure,
    "import": importing.measure,
    "memory": memory.measure,
    "http-search": http_search.measure,
    "up": up.measure,
    "enrol": enrol.measure,
    "beside": beside.measure,
    "size": size.measure,
    "detector": detector.measure,
    "reimport": reimport.measure,
    "text": text.measure,
    "faces": faces.measure,
    "swap": swap.measure,
    "peers": peer_tensors.measure,
    "pictures": peer_pictures.measure,
    "load": load.measure,
    "connections": connections.measure,
    "rpc": rpc.measure,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(BENCHMARKS)}; all if none")
    parser.add_argument("--quick", action="store_true", help="smaller numbers: roughly right, in two minutes")
    parser.add_argument("--write", action="store_true", help=f"write {document.PATH.relative_to(ROOT)}")
    parser.add_argument(
        "--install", action="store_true", help="first install the servers that `peers` and `pictures` measure beside"
    )
    given = parser.parse_args()
    if unknown := [name for name in given.names if name not in BENCHMARKS]:
        parser.error(f"there is no {', '.join(unknown)}; there is {', '.join(BENCHMARKS)}")
    if given.write and given.quick:
        parser.error("--write writes full runs: --quick does not go with it")
    FOLDER.mkdir(parents=True, exist_ok=True)
    if given.install:
        peers.install(FOLDER)
    setup = Setup(FOLDER, given.quick)
    print(f"{document.machine()}; load {os.getloadavg()[0]:.1f}")
    if given.quick:
        print("quick: smaller numbers than a full run, so figures are rough and not to be compared with it")
    reports = {name: run(name, setup) for name in given.names or BENCHMARKS}
    if given.write and given.names:
        document.update(reports)
    elif given.write:
        document.write(reports)


def run(name: str, setup: Setup) -> Report:
    start = time.perf_counter()
    print(f"{name} …", file=sys.stderr, flush=True)
    report = BENCHMARKS[name](setup)
    for figure in report.figures:
        print(figure)
    for title, rows in report.parts.items():
        print(f"  {title}")
        for part, value in rows.items():
            print(f"    {part:<42} {value:>14}")
    for remark in report.remarks:
        print(f"  {remark}")
    print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    sys.stdout.flush()
    return report


if __name__ == "__main__":
    main()
