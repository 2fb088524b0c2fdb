"""A gallery as a Parquet file: a column for each part of an object, a row group for each page.

What is free in form (attributes of objects, columns of the user's own) is JSON text.
"""

from __future__ import annotations

import json
from typing import Any, BinaryIO

from relens.errors import Broken
from relens.gallery import Item
from relens.gateway.contents import Contents, Exported


def write_parquet(file: BinaryIO, contents: Contents) -> int:
    """Write everything, with the head of the contents as metadata of the file: how many rows there are.

    Broken if the library is not installed.
    """
    try:
        # 170 MB, for this use only.
        import pyarrow as pa  # noqa: PLC0415
        from pyarrow import parquet  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise Broken(
            "gateway.no-parquet",
            f"the library that writes Parquet is not installed ({error.name})",
            hint="pip install 'relens[parquet]', or export JSON lines",
        ) from error
    schema = _schema(pa).with_metadata({key: str(value) for key, value in contents.head.items()})
    rows = 0
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for page in contents.pages():
            writer.write_table(pa.Table.from_pylist([_row(one) for one in page], schema))
            rows += len(page)
    return rows


def _schema(pa: Any) -> Any:
    text, number, whole = pa.string(), pa.float64(), pa.int64()
    item = [("id", text), ("uri", text), ("day", text), ("title", text), ("price", number), ("shop", text)]
    label = [("name", text), ("index", whole), ("score", number)]
    return pa.schema(
        [
            ("id", whole),
            ("sha256", text),
            ("width", whole),
            ("height", whole),
            ("uri", text),
            ("day", text),
            ("box", pa.list_(number)),
            ("landmarks", pa.list_(pa.list_(number))),
            ("category", text),
            ("score", number),
            ("labels", pa.list_(pa.struct(label))),
            ("attributes", text),
            ("text", text),
            ("items", pa.list_(pa.struct([*item, ("off_shelf", pa.bool_()), ("data", text)]))),
            ("sequence", whole),
            ("space", text),
            ("vector", pa.list_(pa.float32())),
        ]
    )


def _row(one: Exported) -> dict[str, Any]:
    picture, stored = one.picture, one.stored
    row = {
        "sha256": picture.sha256,
        "width": picture.width,
        "height": picture.height,
        "uri": picture.uri,
        "day": one.day,
        "text": one.text,
        "items": [_item(item) for item in one.items],
        "space": one.space,
        "vector": one.vector,
    }
    if stored is None:
        return row
    return row | {
        "id": stored.id,
        "box": stored.box.to_json(),
        "landmarks": stored.landmarks,
        "category": stored.category,
        "score": stored.score,
        "labels": [label.to_json() for label in stored.labels],
        "attributes": _text(stored.attributes),
        "sequence": stored.sequence,
    }


def _item(item: Item) -> dict[str, Any]:
    names = ("uri", "day", "title", "price", "shop", "off_shelf")
    return {"id": item.key, **{name: getattr(item, name) for name in names}, "data": _text(item.data)}


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
