"""Serves a folder of models: finds versions, loads each in an engine of its own, swaps them without a gap.

A version goes START, LOADING, AVAILABLE, UNLOADING, END. A newer one is loaded and warmed before an older one is let
go; one that cannot be loaded ends with its error, after a few tries, and what served before goes on. An engine that
dies is started again, and what it had not answered is asked once more. Belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import structlog

from relens.errors import BadInput, Broken, Busy, Conflict, Missing, RelensError
from relens.hosted.process import sha256_of
from relens.models.folder import NOT_FETCHED, ModelFolder, Version
from relens.serving.holding import Died, Holding, Ran, Seen, start_holding
from relens.serving.served import Inferred, Looked, Named, Policy, Recognized, Served, VersionStatus, Wanted
from relens.serving.slots import Slot, begun, full, not_available
from relens.telemetry import MODEL_LOADS, VersionMetrics
from relens.tensors import Tensors

TRIES = 2
"""How often a request is asked: once more, if the engine dies."""
LONGEST_PAUSE_S = 10.0
NOTHING = Policy(latest=0)

Start = Callable[[str, Path, str, bool], Sequence[str]]
"""A model's name, its file, its SHA-256, and whether nothing answers for the model until it is loaded, to the arguments
that start an engine with it. What is not urgent is loaded at low priority."""

Answer = TypeVar("Answer", Ran, Seen)
_Ask = Callable[[Holding, float, int], Awaitable[Answer]]
"""A request of an engine, which may wait so many seconds, and has this level."""

T = TypeVar("T")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """How models are served.

    wanted    how each model is served
    default   how those are that `wanted` does not name; None: not at all
    poll_s    from one look at the folder to the next
    wait_s    how long a request may wait, if it does not say that less will do
    waiting   requests that one engine may have unanswered, if the model does not say; one more is Busy
    hangs_s   an engine that has requests and has said nothing for so long is ended, and started again
    load_s    how long loading may take
    tries     of loading a version; between them a pause, twice as long each time
    drain_s   how long a version that is let go has for what it has begun
    at_once   versions that are loaded at the same time
    """

    wanted: Mapping[str, Wanted] = field(default_factory=dict)
    default: Wanted | None = field(default_factory=Wanted)
    poll_s: float = 1.0
    wait_s: float = 30.0
    waiting: int = 128
    hangs_s: float = 60.0
    load_s: float = 300.0
    tries: int = 3
    pause_s: float = 1.0
    drain_s: float = 30.0
    at_once: int = 2


class Hosting:
    """A `ModelServer` over a folder of models."""

    def __init__(self, folder: ModelFolder, start: Start, options: Options) -> None:
        self.where = folder.where
        self._folder = folder
        self._start = start
        self._options = options
        self._wanted, self._default = options.wanted, options.default
        self._slots: dict[str, dict[int, Slot]] = {}
        self._loading = asyncio.Semaphore(options.at_once)
        self._looking: asyncio.Task[None] | None = None
        self._closing = False
        self._unreadable = False
        self._gaps: dict[str, float] = {}  # since when no version of a model takes new requests
        self._here: dict[str, set[int]] = {}  # versions that lie in the folder, whole or not
        self._metrics: dict[tuple[str, int], VersionMetrics] = {}

    # -- its life

    async def open(self) -> None:
        """Begin to look at the folder, and go on until `close`."""
        self._looking = asyncio.create_task(self._look_again_and_again(), name="models")

    async def close(self) -> None:
        """End all engines, after what they have begun."""
        self._closing = True
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking
        slots = [slot for some in self._slots.values() for slot in some.values()]
        for slot in slots:
            slot.leave.set()
        await asyncio.gather(*(slot.life for slot in slots if slot.life is not None), return_exceptions=True)

    async def look(self) -> None:
        """Look at the folder once, and begin what follows from it."""
        try:
            whole, unfinished = await asyncio.to_thread(self._folder.look)
        except RelensError as error:
            self._say_unreadable(str(error))
            return
        if not whole and not unfinished and self._slots:
            self._say_unreadable(f"{self._folder.where} is empty: what is loaded is served on")
            return
        if self._unreadable:
            log.info("the folder of models is there again")
        self._unreadable = False
        self._reconcile(whole, unfinished)

    # -- what doors ask

    def models(self) -> list[str]:
        """Models that are served, or still are although they are not wanted any more."""
        return sorted(name for name, slots in self._slots.items() if slots and (self._how(name) or begun(slots)))

    def versions(self, model: str) -> list[VersionStatus]:
        return [slot.status() for slot in sorted(begun(self._known(model)), key=lambda one: one.number, reverse=True)]

    def labels(self, model: str) -> Mapping[str, int]:
        known = self._known(model)
        how = self._how(model)
        given = {} if how is None else how.labels
        return {label: one for label, one in given.items() if one in known and known[one].state == "AVAILABLE"}

    def choose(self, named: Named) -> Named:
        return named

    def describe(self, named: Named) -> Served:
        served = self._slot(named).served
        assert served is not None
        return served

    async def infer(
        self, named: Named, inputs: Tensors, *, outputs: Sequence[str] = (), timeout_s: float | None = None
    ) -> Inferred:
        slot, ran = await self._counted(
            named, lambda engine, wait_s, level: engine.run(inputs, outputs, wait_s=wait_s, level=level), timeout_s
        )
        return Inferred(slot.model, slot.number, ran.outputs, ran.timings_ms)

    async def recognize(
        self, named: Named, picture: bytes, looked: Looked, *, timeout_s: float | None = None
    ) -> Recognized:
        wanted = asdict(looked)
        slot, seen = await self._counted(
            named,
            lambda engine, wait_s, level: engine.recognize(picture, wanted, wait_s=wait_s, level=level),
            timeout_s,
        )
        return Recognized(slot.model, slot.number, seen.found, seen.timings_ms)

    def configure(self, wanted: Mapping[str, Wanted]) -> None:
        for model, how in wanted.items():
            known = self._known(model)
            for label, number in how.labels.items():
                if number not in known or known[number].state != "AVAILABLE":
                    raise BadInput(
                        "serving.bad-label",
                        f"label {label} of {model} names version {number}, which is not available",
                        hint="serve the version first, then give it the label",
                    )
        self._wanted = {model: self._as_before(model, how) for model, how in wanted.items()}
        self._default = None
        for model in list(self._slots):
            self._choose(model)

    async def _counted(self, named: Named, ask: _Ask[Answer], timeout_s: float | None) -> tuple[Slot, Answer]:
        """The slot that answers, and what its engine says."""
        start = time.monotonic()
        slot = self._slot(named)
        outcome = "left"  # whoever asked
        longest_s = self._options.wait_s
        try:
            answer = await self._asked(slot, named, ask, start + min(timeout_s or longest_s, longest_s))
            outcome = "answered"
            slot, ran = answer  # of a newer version, if that has taken over meanwhile
            self._metrics_of(slot).ran(ran.rows, ran.timings_ms)
        except RelensError as error:
            outcome = error.code
            raise
        except Exception:
            outcome = "failed"
            raise
        finally:
            self._metrics_of(slot).count(outcome, time.monotonic() - start)
        return answer

    def _metrics_of(self, slot: Slot) -> VersionMetrics:
        key = slot.model, slot.number
        if key not in self._metrics:
            self._metrics[key] = VersionMetrics(*key)
        return self._metrics[key]

    async def _asked(self, slot: Slot, named: Named, ask: _Ask[Answer], deadline: float) -> tuple[Slot, Answer]:
        for attempt in range(TRIES):
            slot = self._slot(named) if attempt else slot
            how = self._how(slot.model) or Wanted()
            level = how.level(named.priority)
            most = how.room(how.waiting or self._options.waiting, level)
            engine = await slot.engine(deadline, most)
            if engine.waiting >= most:
                raise full(slot.name, engine.waiting)
            try:
                return slot, await ask(engine, max(0.001, deadline - time.monotonic()), level)
            except Died:
                log.warning("engine died; asking a new one", model=slot.name, pid=engine.pid)
                if slot.pid == engine.pid:
                    slot.take(None)
        raise Broken(
            "serving.engine-died",
            f"two engines of {named} died over this request",
            hint="if it is always the same request, keep it and report it; the log has the engines' last words",
        )

    def _how(self, model: str) -> Wanted | None:
        """How a model is served; None: it is not."""
        how = self._wanted.get(model, self._default)
        return None if how is None or how.policy == NOTHING else how

    def _as_before(self, model: str, how: Wanted) -> Wanted:
        """With what is no matter of versions as the server was set up."""
        before = self._options.wanted.get(model, self._options.default) or Wanted()
        return replace(how, swap=before.swap, waiting=before.waiting, levels=before.levels)

    def _known(self, model: str) -> dict[int, Slot]:
        slots = self._slots.get(model)
        if not slots:
            known = ", ".join(self.models()) or "none"
            raise Missing("serving.no-model", f"there is no model {model!r}", hint=f"there are: {known}")
        return slots

    def _slot(self, named: Named) -> Slot:
        """The slot that answers."""
        slots = self._known(named.model)
        if named.label is not None:
            number = self.labels(named.model).get(named.label)
            if number is None:
                hint = f"there are: {', '.join(self.labels(named.model)) or 'none'}"
                raise Missing("serving.no-label", f"no available version of {named.model} is {named.label}", hint=hint)
            return slots[number]
        if named.version is None:
            available = [number for number, slot in slots.items() if slot.state == "AVAILABLE"]
            if available:
                return slots[max(available)]
            if named.model in self._gaps and len(slots) > 1:
                raise Busy("serving.loading", f"the next version of {named} is about to be loaded", retry_after_s=0.5)
            raise not_available(named, list(slots.values()))
        slot = slots.get(named.version)
        if slot is None or slot.state not in {"AVAILABLE", "UNLOADING"}:
            raise not_available(named, [] if slot is None else [slot])
        return slot

    # -- which versions there are to be

    async def _look_again_and_again(self) -> None:
        while True:
            try:
                await self.look()
            except Exception:  # whatever it is, versions that come must not be missed for ever
                log.exception("the folder of models cannot be looked at; trying again")
            await asyncio.sleep(self._options.poll_s)

    def _say_unreadable(self, why: str) -> None:
        if not self._unreadable:
            log.error("the folder of models is gone; what is loaded is served on", why=why)
        self._unreadable = True

    def _reconcile(self, whole: Mapping[tuple[str, int], Version], unfinished: set[tuple[str, int]]) -> None:
        for (model, number), found in whole.items():
            self._notice(model, number, found)
        here: dict[str, set[int]] = {model: set() for model in self._slots}
        for model, number in {*whole, *unfinished}:
            here.setdefault(model, set()).add(number)
        self._here = here
        for model in list(self._slots):
            self._choose(model)
        for model, number in list(self._metrics):
            if number not in here.get(model, set()) and number not in self._slots.get(model, {}):
                self._metrics.pop((model, number)).forget()

    def _notice(self, model: str, number: int, found: Version) -> None:
        """A version that is new, or was written to since it was found."""
        slots = self._slots.setdefault(model, {})
        slot = slots.get(number)
        other = slot is not None and slot.found.stamp != found.stamp
        unfetched = slot is not None and slot.error is not None and slot.error.code == NOT_FETCHED
        unused = slot is not None and slot.life is None
        if (
            slot is None
            or (unused and other)
            or (slot.state == "END" and not slot.overwritten and (other or unfetched))
        ):
            slots[number] = Slot(model, number, found)
        elif other and slot.error is None:
            slot.error = Conflict(
                "serving.overwritten",
                f"the files of {slot.name} were changed; what was loaded is served on",
                hint="a version never changes: put the new files into a folder with the next number",
            )
            log.error("a version was overwritten", model=slot.name, folder=found.where)

    def _choose(self, model: str) -> None:
        """Begin to load what is wanted and has not begun; let go of what is not, once as much as is wanted serves.

        Or let go first, and begin when it has ended, where memory counts for more than a gap. What could not be loaded
        at once is tried further, and meanwhile the next older one is wanted.
        """
        slots, here = self._slots.get(model, {}), self._here.get(model, set())
        how = self._how(model)
        for number, slot in list(slots.items()):
            if number not in here and (slot.state == "END" or slot.life is None):
                del slots[number]
            elif slot.state == "END" and (slot.error is None or how is None):
                slots[number] = Slot(model, number, slot.found)  # it may be wanted again
        choose = NOTHING.choose if how is None else how.policy.choose
        hopeful = [number for number, slot in slots.items() if number in here and not slot.failed]
        wanted = choose([number for number in hopeful if not slots[number].in_trouble and not slots[number].bad])
        tried = choose(hopeful)
        available = {number for number in hopeful if slots[number].state == "AVAILABLE"}
        kept = choose(list(available)) if len(choose(list(available))) >= len(wanted) else available
        makes_room = how is not None and how.swap == "resource"
        for number, slot in slots.items():
            unneeded = (
                wanted <= available or makes_room or number not in here or slot.in_trouble or slot.state == "START"
            )
            if number not in wanted | tried and slot.life is not None and (unneeded or number in available - kept):
                slot.leave.set()
        if makes_room and any(slot.leave.is_set() and slot.state != "END" for slot in slots.values()):
            return  # what goes calls this again when it has ended
        for number in (wanted | tried) & slots.keys():
            self._begin(slots[number])

    def _begin(self, slot: Slot) -> None:
        if slot.life is None and not self._closing:
            slot.life = asyncio.create_task(self._live(slot), name=slot.name)

    # -- the life of one version

    async def _live(self, slot: Slot) -> None:
        try:
            engine = await self._load(slot)
            while engine is not None:
                engine = await self._serve(slot, engine)
        except Exception as error:
            log.exception("a version cannot be served", model=slot.name)
            slot.give_up(Broken("serving.failed", f"{type(error).__name__}: {error}"))
        finally:
            self._folder.release(slot.found)

    async def _load(self, slot: Slot) -> Holding | None:
        """Load a version, in some tries: its engine; None if it has ended instead."""
        for number in range(self._options.tries):
            if slot.leave.is_set():
                break
            try:
                async with self._loading:
                    if slot.leave.is_set():
                        break
                    slot.state = "LOADING"
                    engine = await self._try(slot)
            except RelensError as error:
                if slot.leave.is_set():  # which says nothing of the version
                    break
                slot.error = error
                MODEL_LOADS.labels(slot.model, "failed").inc()
                log.warning("a version cannot be loaded", model=slot.name, why=str(error), tries=number + 1)
                if slot.found.problem is not None or number + 1 == self._options.tries:
                    break
                self._choose(slot.model)
                await _pause(slot.leave, self._options.pause_s * 2**number)
            else:
                MODEL_LOADS.labels(slot.model, "loaded").inc()
                slot.error, slot.state = None, "AVAILABLE"
                slot.take(engine)
                gone = self._gaps.pop(slot.model, None)
                gap_s = None if gone is None else round(time.monotonic() - gone, 3)
                log.info("a version is available", model=slot.name, pid=engine.pid, gap_s=gap_s)
                self._choose(slot.model)
                return engine
        slot.give_up(None if slot.leave.is_set() else slot.error)
        self._choose(slot.model)
        return None

    async def _try(self, slot: Slot) -> Holding:
        found = slot.found
        if found.problem is not None or found.file is None:
            why = found.problem or "it has no file"
            raise BadInput(
                "serving.bad-version", f"{slot.name} cannot be served: {why}", hint=f"look into {found.where}"
            )
        await _unless(slot.leave, asyncio.to_thread(self._folder.fetch, found, slot.leave.is_set))
        if slot.digest is None:
            slot.digest = await asyncio.to_thread(sha256_of, found.file)
        others = self._slots.get(slot.model, {}).values()
        urgent = not any(other.pid is not None for other in others if other is not slot)
        argv = self._start(slot.model, found.file, slot.digest, urgent)
        engine = await start_holding(argv, hangs_s=self._options.hangs_s)
        try:
            told = await _unless(slot.leave, engine.ready(self._options.load_s))
            slot.served = Served(
                slot.model,
                slot.number,
                told.inputs,
                told.outputs,
                told.backend,
                labels=told.labels,
                pictures=told.pictures,
                space=told.space,
            )
        except BaseException:
            await engine.stop()
            raise
        return engine

    async def _serve(self, slot: Slot, engine: Holding) -> Holding | None:
        """Until the engine dies, or the version is let go: the engine that comes next; None if it has ended."""
        dead = asyncio.create_task(engine.dead.wait())
        leave = asyncio.create_task(slot.leave.wait())
        await asyncio.wait({dead, leave}, return_when=asyncio.FIRST_COMPLETED)
        for task in (dead, leave):
            task.cancel()
        if slot.leave.is_set():
            await self._let_go(slot, engine)
            return None
        return await self._restart(slot, engine)

    async def _let_go(self, slot: Slot, engine: Holding) -> None:
        slot.state = "UNLOADING"
        if not any(other.state == "AVAILABLE" for other in self._slots.get(slot.model, {}).values()):
            self._gaps[slot.model] = time.monotonic()
        await asyncio.sleep(0)  # who has just been given this slot asks its engine first
        await engine.drain(self._options.drain_s)
        await engine.stop()
        slot.give_up(None)
        log.info("a version has ended", model=slot.name)
        self._choose(slot.model)
        if not begun(self._slots.get(slot.model, {})):
            self._gaps.pop(slot.model, None)

    async def _restart(self, slot: Slot, engine: Holding) -> Holding | None:
        """Start an engine again after one has died, longer apart each time: it, or None if the version is let go."""
        log.error("an engine died", model=slot.name, pid=engine.pid)
        slot.take(None)
        await engine.stop()
        for number in range(1 << 30):
            if slot.leave.is_set():
                break
            try:
                again = await self._try(slot)
            except RelensError as error:
                slot.error = error
                if slot.overwritten:
                    break
                log.warning("an engine cannot be started again", model=slot.name, why=str(error))
                await _pause(slot.leave, min(LONGEST_PAUSE_S, self._options.pause_s * 2 ** min(number, 10)))
            else:
                if number:  # what a try that failed has said holds no more
                    slot.error = None
                slot.take(again)
                return again
        slot.give_up(None if slot.leave.is_set() else slot.error)
        return None


async def _pause(over: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(over.wait(), seconds)


async def _unless(over: asyncio.Event, work: Coroutine[Any, Any, T]) -> T:
    """What the work gives. Busy if it is over before."""
    doing, waiting = asyncio.ensure_future(work), asyncio.ensure_future(over.wait())
    try:
        await asyncio.wait({doing, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        raise Busy("serving.let-go", "the version is not wanted any more")
    finally:
        doing.cancel()
        waiting.cancel()
