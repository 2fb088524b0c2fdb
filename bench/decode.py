"""Decoding and shrinking a JPEG, beside simplejpeg and Pillow called directly."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench import parts, pictures
from bench.clock import in_turn
from bench.figures import Figure, Report, Setup, at_least, microseconds
from relens.vision import decode, shrink

LEAST = 0.9
CASES = (("VGA", pictures.VGA, 320, 16), ("VGA", pictures.VGA, 224, 16), ("12 megapixels", (4000, 3000), 320, 1))


def measure(setup: Setup) -> Report:
    rounds = setup.choose(41, 11)
    return Report(tuple(_compare(*case, rounds=rounds) for case in CASES))


def _compare(name: str, size: tuple[int, int], short_side_px: int, count: int, *, rounds: int) -> Figure:
    data = pictures.jpegs(count, size=size)
    bare_decode, bare_shrink = parts.decoder(short_side_px), parts.shrinker(short_side_px)
    works = {
        "ours": _over(data, lambda one: shrink(decode(one, short_side_px=short_side_px).pixels, short_side_px)),
        "bare": _over(data, lambda one: bare_shrink(bare_decode(one))),
    }
    spent = in_turn(works, rounds)
    ratio = spent["bare"] / spent["ours"]
    return Figure(
        f"decode and shrink, {name} to {short_side_px} px",
        microseconds(spent["ours"] / count),
        f"{microseconds(spent['bare'] / count)} bare",
        ratio,
        at_least(ratio, LEAST),
    )


def _over(data: Sequence[bytes], work: Callable[[bytes], object]) -> Callable[[], None]:
    def through() -> None:
        for one in data:
            work(one)

    return through
