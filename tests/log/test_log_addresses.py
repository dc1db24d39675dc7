"""Addresses, security settings, partitions of keys, and sizes: what needs no log."""

from __future__ import annotations

import subprocess
import sys
import zlib
from typing import Any

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from dgdm.log import LogError, Message, open_log, partition_of
from dgdm.log.kafka import KafkaLog
from dgdm.log.limits import BATCH_OVERHEAD, roughly, single_batch_bytes
from dgdm.log.security import KafkaSecurity
from dgdm.log.sqlite import SqliteLog


@pytest.mark.parametrize(
    ("url", "bootstrap"),
    [
        ("kafka://localhost", "localhost:9092"),
        ("kafka://a:1,b:2", "a:1,b:2"),
        ("kafka://a, b:2/", "a:9092,b:2"),
        ("kafka://[::1]:9093,[fe80::1]", "[::1]:9093,[fe80::1]:9092"),
    ],
)
async def test_kafka_addresses(url: str, bootstrap: str):
    log = open_log(url)
    assert isinstance(log, KafkaLog)
    assert log._connection.bootstrap == bootstrap


@pytest.mark.parametrize(("url", "path"), [("sqlite:///a/b.db", "a/b.db"), ("sqlite:////a/b.db", "/a/b.db")])
def test_sqlite_addresses(url: str, path: str):
    log = open_log(url)
    assert isinstance(log, SqliteLog)
    assert str(log._path) == path


@pytest.mark.parametrize(
    "url",
    [
        *("", "log.db", "redis://a", "kafka:a", "kafka://", "kafka://a:0", "kafka://a:99999", "kafka://a:b"),
        *("kafka://a,,b", "kafka://a/b", "sqlite://", "sqlite://a.db", "sqlite:///", "kafka://a:٣"),
    ],
)
def test_bad_addresses_are_refused_with_the_right_form(url: str):
    with pytest.raises(LogError, match=r"kafka://|sqlite:///"):
        open_log(url)


def test_a_password_in_an_address_is_refused_and_not_repeated():
    for url in ("kafka://alice:sesame@host:1", "redis://alice:sesame@host:1"):
        with pytest.raises(LogError) as caught:
            open_log(url)
        assert "sesame" not in str(caught.value)


def test_security_settings():
    hidden = KafkaSecurity("SASL_SSL", username="alice", password="sesame")
    assert "sesame" not in repr(hidden)
    assert (hidden.sasl, hidden.tls) == (True, True)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"protocol": "TLS"}, "TLS"),
        ({"protocol": "SASL_SSL"}, "username and a password"),
        ({"protocol": "SASL_SSL", "username": "a", "password": "b", "sasl_mechanism": "MD5"}, "MD5"),
        ({"cafile": "ca.pem"}, "SSL or SASL_SSL"),
    ]
    for options, message in wrong:
        with pytest.raises(LogError, match=message):
            KafkaSecurity(**options)
    with pytest.raises(LogError, match="SQLite"):
        open_log("sqlite:///a.db", hidden)


async def test_a_certificate_that_is_not_there():
    log = open_log("kafka://127.0.0.1:1", KafkaSecurity("SSL", cafile="/nowhere/ca.pem"))
    with pytest.raises(LogError, match=r"certificates /nowhere/ca\.pem"):
        await log.describe(["a"])


def test_the_partition_of_a_key_is_crc32():
    assert partition_of(b"123456789", 1 << 32) == 0xCBF43926 == zlib.crc32(b"123456789")
    assert {partition_of(b"%d" % i, 3) for i in range(50)} == {0, 1, 2}
    assert partition_of(b"anything", 1) == 0


def test_neither_log_is_imported_before_it_is_opened():
    program = (
        "import sys, dgdm.log; heavy = {'aiokafka', 'sqlite3', 'numba', 'scipy'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONPATH": ".path"})


_sizes = st.one_of(st.none(), st.integers(0, 300), st.sampled_from([8191, 8192, 1_048_575, 1_048_576]))
_blob = _sizes.map(lambda size: None if size is None else b"x" * size)
_headers = st.lists(st.tuples(st.text(max_size=80), st.binary(max_size=80)), max_size=70)


@given(_blob, _blob, _headers)
def test_the_size_of_a_record_is_what_kafka_s_format_takes(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]
):
    builder = DefaultRecordBatchBuilder(2, 0, 1, -1, -1, 0, 1)
    assert builder.append(0, None, key, value, headers)
    message = Message(key, value, headers)
    assert single_batch_bytes(message) == len(builder.build())
    assert roughly(message) >= single_batch_bytes(message) - BATCH_OVERHEAD
