"""Importing: the CPU of a whole worker process per picture, beside the sum of the bare parts.

The worker imports few pictures and many; what it needs more for the many is its cost per picture. Its start drops out,
what it does once per pack does not: the many are in smaller packs than a large import's.
"""

from __future__ import annotations

import statistics

from bench import homes, parts, pictures
from bench.clock import mean_of_steps, medians
from bench.figures import Figure, Report, Setup, at_least, microseconds

LEAST = 0.85
FEW = 16


def measure(setup: Setup) -> Report:
    many, rounds = setup.choose(1024, 256), setup.choose(3, 2)
    small = pictures.folder(setup.folder / f"pictures-{FEW}", FEW, seed=1_000_000)
    large = pictures.folder(setup.folder / f"pictures-{many}", many, seed=2_000_000)
    home = homes.fresh_home(setup, "import")
    paths = sorted(large.glob("*.jpg"))
    lens, model = homes.load(setup)
    ours, bare = [], []
    with (setup.folder / "crops").open("wb") as crops:
        chain = parts.import_chain(lens.recipe, model.artifact, crops)
        mean_of_steps(chain, paths[:FEW])
        for number in range(rounds):
            start_s = homes.worker_cpu_s(home, small, f"few-{number}")
            first = mean_of_steps(chain, paths[: many // 2])
            whole_s = homes.worker_cpu_s(home, large, f"many-{number}")
            second = mean_of_steps(chain, paths[many // 2 :])
            ours.append((whole_s - start_s) / (many - FEW))
            bare.append({name: (first[name] + second[name]) / 2 for name in first})
    return _report(statistics.median(ours), medians(bare), statistics.median(sum(one.values()) for one in bare))


def _report(ours_s: float, steps: dict[str, float], bare_s: float) -> Report:
    ratio = bare_s / ours_s
    rows = {name: microseconds(seconds) for name, seconds in steps.items()}
    rows |= {"sum of the parts": microseconds(bare_s), "the worker": microseconds(ours_s)}
    figure = Figure(
        "import, one worker, per VGA picture",
        microseconds(ours_s),
        f"{microseconds(bare_s)} sum of parts",
        ratio,
        at_least(ratio, LEAST),
    )
    return Report((figure,), {"Import of one VGA picture": rows})
