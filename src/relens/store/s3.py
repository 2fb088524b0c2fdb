"""S3, Amazon's and that of others, through s3fs: objects of a bucket under a prefix.

What is larger than a part is uploaded in parts, each with its own time; S3 shows it when the last is there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from relens.config import BlobStore
from relens.errors import Broken
from relens.store.endpoints import CONNECT_S, PART_BYTES, Entry, Patience, Stat, bad_url

MAX_PARTS = 9_000  # S3 takes 10,000


class S3:
    """Objects of a bucket under a prefix. An upload that did not end is invisible."""

    def __init__(self, url: str, options: BlobStore) -> None:
        """`url` is `s3://bucket/prefix`."""
        import s3fs  # noqa: PLC0415 - only for those who use it, here and below

        self.where = f"{url} at {options.endpoint}" if options.endpoint else url
        self._bucket, _, prefix = url.partition("://")[2].strip("/").partition("/")
        if not self._bucket:
            raise bad_url(f"{url} names no bucket", "write s3://bucket or s3://bucket/prefix")
        self._prefix = f"{prefix}/" if prefix else ""
        self._patience = Patience(self.where, options.operation_timeout_s)
        self._fs: Any = s3fs.S3FileSystem(
            key=options.key or None,
            secret=options.secret.get_secret_value() or None,
            endpoint_url=_endpoint_url(options),
            client_kwargs={"region_name": options.region} if options.region else {},
            config_kwargs=_connection(options),
            skip_instance_cache=True,
            use_listings_cache=False,
        )
        self._fs.retries = 1  # ours to decide

    def stat(self, name: str) -> Stat:
        try:
            head = self._call("head_object", Key=self._prefix + name)
        except FileNotFoundError:
            self._require_bucket()
            raise
        return Stat(head["ContentLength"], head["LastModified"].timestamp())

    def read(self, name: str, offset: int, length: int) -> bytes:
        path = f"{self._bucket}/{self._prefix}{name}"

        def ask(left_s: float) -> bytes:
            try:
                with self._translated():
                    data: bytes = self._fs.cat_file(path, start=offset, end=offset + length, timeout=left_s)
            except OSError as error:
                if _code(error) in ("InvalidRange", "416"):  # the file ends before the range begins
                    return b""
                raise
            return data

        return self._patience(ask)

    def store(self, name: str, file: BinaryIO, size: int) -> None:
        file.seek(0)
        if size <= PART_BYTES:
            self._call("put_object", Key=self._prefix + name, Body=file.read())
        else:
            self._store_in_parts(name, file, size)

    def remove(self, name: str) -> None:
        self._call("delete_object", Key=self._prefix + name)

    def names(self) -> Iterator[str]:
        for one in self._objects(""):
            yield one["Key"].removeprefix(self._prefix)

    def entries(self, folder: str, wanted: Callable[[str], bool]) -> Iterator[Entry]:
        for one in self._objects(folder):
            name = one["Key"].removeprefix(self._prefix)
            if wanted(name):
                yield Entry(name, one["Size"], str(one.get("ETag") or one["LastModified"].isoformat()))

    def sweep(self, before: float) -> int:
        given_up = 0
        for page in self._pages("list_multipart_uploads", "NextKeyMarker", "KeyMarker", self._prefix):
            for one in page.get("Uploads", ()):
                if one["Initiated"].timestamp() < before:
                    with contextlib.suppress(FileNotFoundError):
                        self._call("abort_multipart_upload", Key=one["Key"], UploadId=one["UploadId"])
                        given_up += 1
        return given_up

    def _store_in_parts(self, name: str, file: BinaryIO, size: int) -> None:
        key = self._prefix + name
        part_bytes = max(PART_BYTES, -(-size // MAX_PARTS))
        upload = {"Key": key, "UploadId": self._call("create_multipart_upload", Key=key)["UploadId"]}
        try:
            parts: list[dict[str, Any]] = []
            while data := file.read(part_bytes):
                made = self._call("upload_part", **upload, PartNumber=len(parts) + 1, Body=data)
                named = {word: value for word, value in made.items() if word == "ETag" or word.startswith("Checksum")}
                parts.append({"PartNumber": len(parts) + 1, **named})
            try:
                self._call("complete_multipart_upload", **upload, MultipartUpload={"Parts": parts})
            except FileNotFoundError:
                if self.stat(name).size != size:  # else it had ended, and only the answer was lost
                    raise
        except Exception:
            with contextlib.suppress(Exception):  # tried once; `sweep` comes for the others
                self._fs.call_s3("abort_multipart_upload", Bucket=self._bucket, timeout=CONNECT_S, **upload)
            raise

    def _objects(self, folder: str) -> Iterator[Any]:
        prefix = self._prefix + folder
        for page in self._pages("list_objects_v2", "NextContinuationToken", "ContinuationToken", prefix):
            yield from page.get("Contents", ())

    def _pages(self, method: str, last: str, after: str, prefix: str) -> Iterator[Any]:
        page = self._call(method, Prefix=prefix)
        yield page
        while page.get("IsTruncated"):
            page = self._call(method, Prefix=prefix, **{after: page[last]})
            yield page

    def _call(self, method: str, **parameters: Any) -> Any:
        def ask(left_s: float) -> Any:
            with self._translated():
                return self._fs.call_s3(method, Bucket=self._bucket, timeout=left_s, **parameters)

        return self._patience(ask)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        from botocore.exceptions import NoCredentialsError, PartialCredentialsError  # noqa: PLC0415

        try:
            yield
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise PermissionError("neither the settings nor the environment have a key") from error
        except OSError as error:
            if _code(error) == "NoSuchBucket":
                raise self._no_bucket() from error
            raise

    def _require_bucket(self) -> None:
        """Broken if the bucket is not there: of an object, one cannot tell from the answer."""
        try:
            self._call("head_bucket")
        except FileNotFoundError:
            raise self._no_bucket() from None

    def _no_bucket(self) -> Broken:
        return Broken(
            "store.remote",
            f"there is no bucket {self._bucket} for {self.where}",
            hint="make it, or mend the URL, or `blob_store` in relens.yaml",
        )


def _endpoint_url(options: BlobStore) -> str | None:
    if not options.endpoint or "://" in options.endpoint:
        return options.endpoint or None
    return f"{'https' if options.secure else 'http'}://{options.endpoint}"


def _connection(options: BlobStore) -> dict[str, Any]:
    """How the S3 client connects. Checksums that only Amazon's S3 knows are left out for others."""
    timeout_s = options.operation_timeout_s
    settings: dict[str, Any] = {
        "connect_timeout": min(timeout_s, CONNECT_S),
        "read_timeout": timeout_s,
        "retries": {"total_max_attempts": 1},
    }
    if options.endpoint:
        settings |= {"request_checksum_calculation": "when_required", "response_checksum_validation": "when_required"}
    return settings


def _code(error: Exception) -> str:
    """What S3 calls an error; empty if it is not S3's."""
    response = getattr(error, "response", None) or getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))
