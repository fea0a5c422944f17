"""Any S3-protocol store, through s3fs. Endpoint, region and keys come from the usual ``AWS_*`` environment.

All retries happen here: s3fs's and botocore's own are off, because a repeated *conditional* write must first ask
whether the failed one landed after all.
"""

import os
import random
import time
import uuid
from collections.abc import Callable
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)
from fsspec.asyn import sync
from s3fs import S3FileSystem

from cineray.core.errors import ConflictError, StorageError
from cineray.core.storage import Store, check_key, check_length

__all__ = ["S3Store"]

T = TypeVar("T")

NUM_ATTEMPTS = 7
FIRST_DELAY_S = 0.1
MAX_DELAY_S = 5.0


class S3Store(Store):
    """A bucket and a prefix."""

    def __init__(self, url: str) -> None:
        bucket, _, prefix = url.removeprefix("s3://").rstrip("/").partition("/")
        if not bucket:
            raise StorageError(f"found location '{url}', expected s3://bucket/prefix")
        self.url = url.rstrip("/")
        self.num_retries = 0
        """Requests of this object that had to be repeated."""
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""

    def get_tagged(self, key: str) -> tuple[bytes, str]:
        """The tag is the ETag."""
        return self._retried("read", key, lambda: _read(self._at(key)))

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """One ranged GET."""
        if length == 0:
            return b""
        part = self._at(key) | {"Range": f"bytes={start}-{start + length - 1}"}
        data = self._retried("read", key, lambda: _read(part))[0]
        check_length(self.path(key), start, length, len(data))
        return data

    def size(self, key: str) -> int:
        """One HEAD."""
        return self._retried("read", key, lambda: _call("head_object", **self._at(key)))["ContentLength"]

    def put(self, key: str, data: bytes) -> None:
        """One PUT, or a multipart upload that appears when complete."""
        self._retried("write", key, lambda: _file_system().pipe_file(self._s3fs_path(key), data))

    def put_file(self, key: str, path: str | Path, *, consume: bool = False) -> None:
        """As `put`, in parts of 50 MB."""
        self._retried("write", key, lambda: _file_system().put_file(str(path), self._s3fs_path(key)))
        if consume:
            os.unlink(path)

    def create(self, key: str, data: bytes) -> None:
        """PUT with ``If-None-Match: *``."""
        self._put_if(key, data, {"IfNoneMatch": "*"}, "exists already, expected none; another writer was first")

    def swap(self, key: str, data: bytes, tag: str) -> None:
        """PUT with ``If-Match: <ETag>``."""
        self._put_if(key, data, {"IfMatch": tag}, "was changed by another writer; read it again and repeat")

    def sizes(self, prefix: str = "", *, unfinished: bool = False) -> dict[str, int]:
        """Pages of LIST; there are no unfinished keys on S3."""
        found: dict[str, int] = {}
        page: dict[str, Any] = {"Bucket": self._bucket, "Prefix": self._prefix + prefix}
        while True:
            answer = self._retried("list", prefix, lambda: _call("list_objects_v2", **page))
            for entry in answer.get("Contents", []):
                found[entry["Key"].removeprefix(self._prefix)] = entry["Size"]
            if not answer.get("IsTruncated"):
                return found
            page["ContinuationToken"] = answer["NextContinuationToken"]

    def exists(self, key: str) -> bool:
        """One HEAD."""
        try:
            self.size(key)
        except _AbsentError:
            return False
        return True

    def delete(self, key: str) -> None:
        """One DELETE."""
        self._retried("delete", key, lambda: _call("delete_object", **self._at(key)))

    def local(self, key: str) -> Path | None:
        """None: there is no file."""
        return None

    def _at(self, key: str) -> dict[str, Any]:
        return {"Bucket": self._bucket, "Key": self._prefix + check_key(key)}

    def _s3fs_path(self, key: str) -> str:
        return f"{self._bucket}/{self._prefix}{check_key(key)}"

    def _put_if(self, key: str, data: bytes, condition: dict[str, str], conflict: str) -> None:
        _require_conditions(self._bucket, self._prefix)
        in_doubt = False

        def attempt() -> None:
            nonlocal in_doubt
            try:
                _call("put_object", **self._at(key), Body=data, **condition)
            except (OSError, BotoCoreError) as error:
                kind = _kind(error)
                in_doubt = in_doubt or kind is Kind.TRANSIENT
                # A write that was answered with an error may have landed (reliability.md D05).
                if in_doubt and kind in (Kind.TRANSIENT, Kind.CONFLICT, Kind.ABSENT) and self._holds(key, data):
                    return
                if kind is Kind.CONFLICT or (kind is Kind.ABSENT and "IfMatch" in condition):
                    raise ConflictError(f"{self.path(key)} {conflict}") from None
                raise

        self._retried("write", key, attempt)

    def _holds(self, key: str, data: bytes) -> bool:
        try:
            return self.get(key) == data
        except _AbsentError:
            return False

    def _retried(self, verb: str, key: str, attempt: Callable[[], T]) -> T:
        """Repeat while the store is only busy, waiting longer each time, not in step with other clients."""
        where = f"{verb} of {self.url}/{key}"
        for number in range(NUM_ATTEMPTS):
            try:
                return attempt()
            except StorageError:
                raise
            except (OSError, BotoCoreError) as error:
                if _kind(error) is not Kind.TRANSIENT or number == NUM_ATTEMPTS - 1:
                    raise _explained(where, error, number + 1) from error
            self.num_retries += 1
            time.sleep(random.uniform(0.5, 1.0) * min(MAX_DELAY_S, FIRST_DELAY_S * 2**number))
        raise AssertionError("the last attempt returns or raises")


class Kind(Enum):
    """What an error of the store means for us."""

    ABSENT = "absent"
    NO_BUCKET = "no bucket"
    CONFLICT = "conflict"
    DENIED = "denied"
    TRANSIENT = "transient"
    OTHER = "other"


class _AbsentError(StorageError):
    """There is no such key."""


CODES = {
    "NoSuchKey": Kind.ABSENT,
    "404": Kind.ABSENT,
    "NoSuchBucket": Kind.NO_BUCKET,
    "PreconditionFailed": Kind.CONFLICT,
    "412": Kind.CONFLICT,
    # "Another conditional request is in progress": its outcome is not ours yet.
    "ConditionalRequestConflict": Kind.TRANSIENT,
    "RequestTimeout": Kind.TRANSIENT,
    "BadDigest": Kind.TRANSIENT,
}


def _kind(error: BaseException) -> Kind:
    answer = _answer(error)
    if answer is not None:
        code, status = answer
        if code in CODES:
            return CODES[code]
        if status in (401, 403):
            return Kind.DENIED
        return Kind.TRANSIENT if status in (429, 500, 502, 503, 504) else Kind.OTHER
    if isinstance(error, NoCredentialsError | PartialCredentialsError | PermissionError):
        return Kind.DENIED
    # What is left is a connection that was refused, reset or timed out, or an answer that was cut.
    return Kind.OTHER if isinstance(error, FileNotFoundError | ParamValidationError) else Kind.TRANSIENT


def _answer(error: BaseException | None) -> tuple[str, int] | None:
    """Code and HTTP status of the store's answer, if it gave one; s3fs wraps it."""
    while error is not None and not isinstance(error, ClientError):
        error = error.__cause__
    if error is None:
        return None
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return error.response.get("Error", {}).get("Code", ""), status


def _explained(where: str, error: Exception, attempts: int) -> StorageError:
    answer = _answer(error)
    reason = answer[0] if answer else " ".join(str(error).split()) or type(error).__name__
    match _kind(error):
        case Kind.ABSENT:
            return _AbsentError(f"{where} found no such key; check the path")
        case Kind.NO_BUCKET:
            return StorageError(f"{where} found no such bucket; create it or check its name")
        case Kind.DENIED:
            return StorageError(
                f"{where} was refused ({reason}); check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the policy of the "
                "bucket"
            )
        case Kind.TRANSIENT:
            return StorageError(
                f"{where} failed {attempts} times ({reason}); check the network and AWS_ENDPOINT_URL, then repeat"
            )
        case _:
            return StorageError(f"{where} failed ({reason}); check the location")


@lru_cache
def _require_conditions(bucket: str, prefix: str) -> None:
    """Refuse a store (or a proxy before it) that ignores conditions: there, the last of two writers would win."""
    probe = {"Bucket": bucket, "Key": f"{prefix}.probe-{uuid.uuid4().hex}", "Body": b"probe"}
    store = S3Store(f"s3://{bucket}/{prefix}".rstrip("/"))
    store._retried("write", "", lambda: _call("put_object", **probe))
    try:
        for condition in ({"IfNoneMatch": "*"}, {"IfMatch": '"0"'}):
            store._retried("write", "", lambda c=condition: _expect_refusal(probe | c))
    finally:
        store._retried("delete", "", lambda: _call("delete_object", Bucket=bucket, Key=probe["Key"]))


def _expect_refusal(request: dict[str, Any]) -> None:
    try:
        _call("put_object", **request)
    except (OSError, BotoCoreError) as error:
        if _kind(error) is Kind.CONFLICT:
            return
        raise
    raise StorageError(
        f"s3://{request['Bucket']} ignores conditional writes, which keep two writers apart; use a store that has them"
    )


def _file_system() -> S3FileSystem:
    """One connection pool for a process; a forked child must not use its parent's."""
    return _file_system_of(os.getpid())


@lru_cache
def _file_system_of(pid: int) -> S3FileSystem:
    system = S3FileSystem(
        use_listings_cache=False,
        skip_instance_cache=True,
        config_kwargs={"retries": {"total_max_attempts": 1}, "connect_timeout": 10, "read_timeout": 60},
    )
    system.retries = 1
    return system


def _call(method: str, **request: Any) -> dict[str, Any]:
    answer: Any = _file_system().call_s3(method, **request)
    return answer


def _read(request: dict[str, Any]) -> tuple[bytes, str]:
    """Body and ETag of one GET."""
    system = _file_system()

    async def read() -> tuple[bytes, str]:
        answer = await system._call_s3("get_object", **request)
        async with answer["Body"] as body:
            return await body.read(), answer["ETag"]

    found: Any = sync(system.loop, read)
    return found
