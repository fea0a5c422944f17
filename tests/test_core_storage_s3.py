"""The S3 store when the server is busy, lies, or refuses."""

import pytest

from cineray.core import storage_s3
from cineray.core.errors import ConflictError, StorageError
from cineray.core.storage import Store
from fixtures_s3 import BUCKET, FaultProxy, request


def test_busy_store_is_asked_again(fault_proxy: FaultProxy, s3_url, monkeypatch):
    """Every fifth call is refused or cut off (reliability.md D07)."""
    monkeypatch.setattr(storage_s3, "FIRST_DELAY_S", 0.001)
    calls = iter(range(10**6))
    fault_proxy.fault = lambda method, path: {0: "503", 5: "reset"}.get(next(calls) % 10, "")
    store = Store.at(s3_url)
    for number in range(10):
        store.put(f"k{number}", b"%d" % number)
    store.create("once", b"1")
    store.swap("once", b"2", store.get_tagged("once")[1])
    assert [store.get(f"k{number}") for number in range(10)] == [b"%d" % number for number in range(10)]
    assert len(store.list("k")) == 10
    assert store.get("once") == b"2"
    failed = [fault for _, _, fault in fault_proxy.log if fault]
    assert {"503", "reset"} == set(failed)
    assert 0 < store.num_retries <= len(failed)


def test_store_that_stays_busy_is_given_up(fault_proxy: FaultProxy, s3_url, monkeypatch):
    monkeypatch.setattr(storage_s3, "FIRST_DELAY_S", 0.001)
    fault_proxy.fault = lambda method, path: "503"
    with pytest.raises(StorageError, match=f"failed {storage_s3.NUM_ATTEMPTS} times .*check the network"):
        Store.at(s3_url).get("k")
    assert len(fault_proxy.log) == storage_s3.NUM_ATTEMPTS


@pytest.mark.parametrize("fault", ["500 after", "503"])
@pytest.mark.parametrize("operation", ["create", "swap"])
def test_a_write_that_landed_is_recognised(fault_proxy: FaultProxy, s3_url, monkeypatch, fault, operation):
    """The condition must not fail against our own bytes (reliability.md D05)."""
    monkeypatch.setattr(storage_s3, "FIRST_DELAY_S", 0.001)
    store = Store.at(s3_url)
    store.create("k", b"old")
    tag = store.get_tagged("k")[1]
    key = "new" if operation == "create" else "k"
    failures = iter([fault, fault])
    fault_proxy.fault = lambda method, path: next(failures, "") if method == "PUT" and path.endswith(f"/{key}") else ""
    store.create(key, b"mine") if operation == "create" else store.swap(key, b"mine", tag)
    assert store.get(key) == b"mine"
    assert fault in [fault for _, _, fault in fault_proxy.log]


def test_a_write_that_landed_for_somebody_else_is_not(fault_proxy: FaultProxy, s3_url, monkeypatch):
    monkeypatch.setattr(storage_s3, "FIRST_DELAY_S", 0.001)
    store = Store.at(s3_url)
    store.create("other", b"")

    def fault(method: str, path: str) -> str:
        if method == "PUT" and path.endswith("/k") and not fault_proxy.log[-1][2]:
            fault_proxy.fault = lambda method, path: ""
            Store.at(s3_url).create("k", b"theirs")
            return "503"
        return ""

    fault_proxy.fault = fault
    with pytest.raises(ConflictError, match="another writer"):
        store.create("k", b"mine")
    assert store.get("k") == b"theirs"


def test_store_without_conditions_is_refused(fault_proxy: FaultProxy, s3_url):
    """reliability.md D08."""
    fault_proxy.fault = lambda method, path: "strip"
    store = Store.at(s3_url)
    with pytest.raises(StorageError, match="ignores conditional writes"):
        store.create("k", b"1")
    assert store.list() == []


def test_missing_bucket(s3_endpoint):
    store = Store.at("s3://nobody-made-this/x")
    for run in (lambda: store.put("k", b""), lambda: store.create("k", b""), store.list, lambda: store.get("k")):
        with pytest.raises(StorageError, match="no such bucket; create it"):
            run()


def test_a_bucket_that_cannot_be_is_refused_at_once(s3_endpoint):
    store = Store.at("s3://no bucket/x")
    with pytest.raises(StorageError, match="Invalid bucket name"):
        store.get("k")
    assert store.num_retries == 0


def test_bad_credentials(s3_endpoint, s3_url):
    assert request(s3_endpoint, "POST", "/moto-api/reset-auth", b"0") == 200
    try:
        for run in (Store.at(s3_url).list, lambda: Store.at(f"s3://{BUCKET}/x").put("k", b"")):
            with pytest.raises(StorageError, match=r"refused .*AWS_ACCESS_KEY_ID"):
                run()
    finally:
        request(s3_endpoint, "POST", "/moto-api/reset-auth", b"1000000000")


def test_absent_credentials(s3_endpoint, s3_url, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    storage_s3._file_system_of.cache_clear()
    try:
        with pytest.raises(StorageError, match=r"refused .*AWS_ACCESS_KEY_ID"):
            Store.at(s3_url).list()
    finally:
        storage_s3._file_system_of.cache_clear()
