"""`python -m bench.accuracy FOLDER`: does it name and find real photographs? It needs labelled ones, so it runs alone.

The folder holds pictures and `labels.csv` with the columns `file` and `class_index` (0 to 999, ImageNet's order). Each
picture is imported, asked again as it is, and asked as a copy with 5 % cut from each side at JPEG quality 60.
"""

from __future__ import annotations

import csv
import io
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image

import relens
from relens.wiring import Local, make_home

CUT = 0.05
QUALITY = 60


def main() -> None:
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "labels.csv").is_file():
        sys.exit(f"{__doc__}\nNo folder with a labels.csv was named; nothing was measured.")
    folder = Path(sys.argv[1]).absolute()
    with tempfile.TemporaryDirectory(prefix="relens-accuracy-") as temporary:
        home = Path(temporary) / "home"
        make_home(home)
        local = relens.open(home)
        local.parts.start_logging(quiet=True)
        local.parts.onboarding.fetch("imagenet")
        plan = local.run_import(folder, gallery="album")
        print(f"imported {plan['tasks'][-1]['out']} pictures, state {plan['state']}")
        measure(local, folder)
        shutil.rmtree(home)


def measure(local: Local, folder: Path) -> None:
    rows = list(csv.DictReader((folder / "labels.csv").read_text().splitlines()))
    right = right_of_five = itself = copies = 0
    for row in rows:
        data = (folder / row["file"]).read_bytes()
        found = local.search(data, gallery="album", k=1).objects[0]
        indexes = [label.index for label in found.labels]
        right += indexes[0] == int(row["class_index"])
        right_of_five += int(row["class_index"]) in indexes
        itself += found.matches[0].items[0]["id"] == row["file"]
        copy = local.search(cut(data), gallery="album", k=1).objects[0]
        copies += copy.matches[0].items[0]["id"] == row["file"]
    for name, count, target in (
        ("named right at the first guess", right, "≥ 0.87"),
        ("named right within five", right_of_five, ""),
        ("find themselves first", itself, "1"),
        (f"cut by {CUT:.0%} a side, quality {QUALITY}: find their original first", copies, "≥ 0.97"),
    ):
        print(f"{count / len(rows):.3f}  {name} {target and f'(target {target})'}")


def cut(data: bytes) -> bytes:
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    width, height = picture.size
    inner = tuple(round(side) for side in (width * CUT, height * CUT, width * (1 - CUT), height * (1 - CUT)))
    out = io.BytesIO()
    picture.crop(inner).save(out, "JPEG", quality=QUALITY)
    return out.getvalue()


if __name__ == "__main__":
    main()
