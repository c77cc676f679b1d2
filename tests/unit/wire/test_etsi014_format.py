"""The formats of ETSI GS QKD 014 V1.1.1: what is read, what is refused, what is written."""

import json
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyhop.wire import etsi014 as wire
from keyhop.wire.etsi014 import BadRequest, KeyRequest, MalformedAnswer, Operation

ID_1 = "8d4f2b1a-6c3e-4f57-9b20-1e7a5c9d3f60"
ID_2 = "e2b7c905-41da-4a38-8f6b-7c0d92e15a44"
STATUS = {
    "source_KME_ID": "kme-east",
    "target_KME_ID": "kme-west",
    "master_SAE_ID": "hsm-east",
    "slave_SAE_ID": "hsm-west",
    "key_size": 256,
    "stored_key_count": 812,
    "max_key_count": 4096,
    "max_key_per_request": 64,
    "max_key_size": 2048,
    "min_key_size": 64,
    "max_SAE_ID_count": 0,
}


def key_ids(*ids: object) -> bytes:
    return json.dumps({"key_IDs": [{"key_ID": key_id} for key_id in ids]}).encode()


# Paths


@given(st.text(min_size=1).filter(lambda text: text not in (".", "..")), st.sampled_from(Operation))
def test_any_sae_id_survives_its_way_through_a_path(sae_id: str, operation: Operation) -> None:
    path = wire.build_path(sae_id, operation)
    assert path.isascii()
    assert wire.parse_path(path) == (sae_id, operation)


def test_a_slash_in_an_sae_id_is_no_separator() -> None:
    assert wire.parse_path("/api/v1/keys/a%2Fb/status") == ("a/b", Operation.STATUS)


def test_a_plus_in_a_path_is_a_plus() -> None:
    assert wire.parse_path("/api/v1/keys/a+b/status") == ("a+b", Operation.STATUS)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/api/v1/keys/bob",
        "/api/v1/keys/bob/",
        "/api/v1/keys/bob/status/",
        "/api/v1/keys/bob/Status",
        "/api/v1/keys/bob/keys",
        "/api/v2/keys/bob/status",
        "/api/v1/keys/a/b/status",
        "//api/v1/keys/bob/status",
        "/api/v1/keys/bob/status\n",
        "/kdapi/v2/keys/bob/status",
    ],
)
def test_another_path_is_none_of_ours(path: str) -> None:
    assert wire.parse_path(path) is None


@pytest.mark.parametrize("encoded", ["", "%", "%4", "%zz", "a%2", "%ff", "%c3%28"])
def test_a_badly_encoded_sae_id_is_refused(encoded: str) -> None:
    with pytest.raises(BadRequest):
        wire.parse_path(f"/api/v1/keys/{encoded}/enc_keys")


@pytest.mark.parametrize("sae_id", ["", ".", ".."])
def test_an_sae_id_no_path_can_name_is_not_built(sae_id: str) -> None:
    with pytest.raises(ValueError):
        wire.build_path(sae_id, Operation.STATUS)


# Key request


@pytest.mark.parametrize(
    ("body", "request_"),
    [
        (b"", KeyRequest()),
        (b"{}", KeyRequest()),
        (b' {"number": 3} ', KeyRequest(number=3)),
        (b'{"number":2,"size":352}', KeyRequest(2, 352)),
        (b'{"number":null,"size":null,"extension_mandatory":null}', KeyRequest()),
        (b'{"colour":"blue","number":1,"x":{"y":[1,2,null]}}', KeyRequest(1)),
        (b'{"additional_slave_SAE_IDs":["hsm-south"]}', KeyRequest(additional_slave_SAE_IDs=["hsm-south"])),
        (
            b'{"extension_mandatory":[{"a_x":1,"a_y":null}],"extension_optional":[{"b":[true]}]}',
            KeyRequest(extension_mandatory=[{"a_x": 1, "a_y": None}], extension_optional=[{"b": [True]}]),
        ),
    ],
)
def test_a_key_request_is_read(body: bytes, request_: KeyRequest) -> None:
    assert wire.decode_key_request(body) == request_


@pytest.mark.parametrize(
    "body",
    [
        b"null",
        b"[]",
        b"{",
        b"{}{}",
        b"\xef\xbb\xbf{}",
        b'{"number":"1"}',
        b'{"number":1.0}',
        b'{"number":true}',
        b'{"number":0}',
        b'{"number":-1}',
        b'{"size":0}',
        b'{"size":-8}',
        b'{"size":"256"}',
        b'{"additional_slave_SAE_IDs":"hsm-south"}',
        b'{"additional_slave_SAE_IDs":[1]}',
        b'{"extension_mandatory":{}}',
        b'{"extension_mandatory":["a_x"]}',
        b'{"extension_optional":[null]}',
        b'{"x":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    ],
)
def test_what_is_no_key_request_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        wire.decode_key_request(body)


@pytest.mark.parametrize("size", [1, 7, 9, 255, -1, 10**30 + 1])
def test_a_size_that_is_no_multiple_of_8_is_refused_in_the_words_of_the_standard(size: int) -> None:
    with pytest.raises(BadRequest) as caught:
        wire.decode_key_request(json.dumps({"size": size}).encode())
    assert caught.value.message == "size shall be a multiple of 8"


def test_the_names_of_mandatory_extensions_are_all_found() -> None:
    request = wire.decode_key_request(b'{"extension_mandatory":[{"a":1,"b":2},{},{"c":null}]}')
    assert request.mandatory_names() == ["a", "b", "c"]


def test_unsupported_extensions_are_named_one_by_one() -> None:
    refusal = wire.unsupported(["acme_colour", "acme_taste"])
    assert refusal.message == "not all extension_mandatory parameters are supported"
    assert refusal.details == (
        {"extension_mandatory_unsupported": "acme_colour"},
        {"extension_mandatory_unsupported": "acme_taste"},
    )


# Query forms


@pytest.mark.parametrize(
    ("query", "request_"),
    [
        ("", KeyRequest()),
        ("number=3&size=1024", KeyRequest(3, 1024)),
        ("size=64", KeyRequest(None, 64)),
        ("number=2&utm_source=x", KeyRequest(2)),
    ],
)
def test_a_key_query_is_read(query: str, request_: KeyRequest) -> None:
    assert wire.parse_key_query(query) == request_


@pytest.mark.parametrize(
    "query",
    [
        "number=",
        "number",
        "number=0",
        "number=-1",
        "number=%2B1",
        "number=1_0",
        "number=1.0",
        "number=%D9%A3",
        "number=1&number=1",
        "size=12",
        "size=0",
        "number=9999999999",
        "number=%ff",
        "additional_slave_SAE_IDs=x",
        "extension_mandatory=x",
        "&".join(["a=b"] * 100),
    ],
)
def test_what_is_no_key_query_is_refused(query: str) -> None:
    with pytest.raises(BadRequest):
        wire.parse_key_query(query)


@pytest.mark.parametrize(
    "query", [f"key_ID={ID_1}", f"key_ID={ID_1.upper()}", f"key%5FID={ID_1}", f"a=1&key_ID={ID_1}"]
)
def test_a_key_id_query_names_one_key(query: str) -> None:
    assert wire.parse_key_id_query(query) == ID_1


@pytest.mark.parametrize(
    "query",
    [
        "",
        "key_ID=",
        "key_ID=1234",
        f"key_ID={ID_1}&key_ID={ID_2}",
        f"key_ID={ID_1},{ID_2}",
        f"key_ID={ID_1.replace('-', '')}",
        f"key_ID={{{ID_1}}}",
        f"key_ID={ID_1}%0A",
        f"key_ID={ID_1}&key_IDs_extension=x",
        f"key_id={ID_1}",
    ],
)
def test_what_names_no_single_key_is_refused(query: str) -> None:
    with pytest.raises(BadRequest):
        wire.parse_key_id_query(query)


@given(st.one_of(st.none(), st.integers(1, 10**6)), st.one_of(st.none(), st.integers(1, 1000).map(lambda n: n * 8)))
def test_the_query_a_client_writes_is_the_one_a_server_reads(number: int | None, size_bits: int | None) -> None:
    assert wire.parse_key_query(wire.key_query(number, size_bits)) == KeyRequest(number, size_bits)


def test_the_key_id_query_a_client_writes_is_the_one_a_server_reads() -> None:
    assert wire.parse_key_id_query(wire.key_id_query(ID_1)) == ID_1


# Key IDs


def test_key_ids_are_read_in_order_and_in_lower_case() -> None:
    assert wire.decode_key_ids(key_ids(ID_2.upper(), ID_1)) == [ID_2, ID_1]


def test_extensions_and_unknown_members_of_key_ids_are_passed_over() -> None:
    body = {
        "key_IDs": [{"key_ID": ID_1, "key_ID_extension": {"a": 1}, "x": 1}],
        "key_IDs_extension": None,
        "y": [],
    }
    assert wire.decode_key_ids(json.dumps(body).encode()) == [ID_1]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"null",
        b'{"key_IDs":null}',
        b'{"key_IDs":[]}',
        b'{"key_IDs":[null]}',
        b'{"key_IDs":[{}]}',
        b'{"key_IDs":["' + ID_1.encode() + b'"]}',
        b'{"key_ids":[{"key_id":"' + ID_1.encode() + b'"}]}',
        key_ids(None),
        key_ids(7),
        key_ids(""),
        key_ids(ID_1 + "\n"),
        key_ids(ID_1, "no-uuid"),
    ],
)
def test_what_are_no_key_ids_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        wire.decode_key_ids(body)


def test_a_key_named_twice_is_refused_also_in_other_case() -> None:
    with pytest.raises(BadRequest, match="twice"):
        wire.decode_key_ids(key_ids(ID_1, ID_2, ID_1.upper()))


def test_a_refusal_does_not_repeat_what_stood_in_the_place_of_a_key_id() -> None:
    secret = b64encode(bytes(range(32))).decode()
    for body in (key_ids(secret), key_ids([secret]), json.dumps({"key_IDs": {"key": secret}}).encode()):
        with pytest.raises(BadRequest) as caught:
            wire.decode_key_ids(body)
        assert secret not in caught.value.message
        assert secret not in str(caught.value.details)


# Key container


@given(st.lists(st.tuples(st.uuids().map(str), st.binary(min_size=1, max_size=64)), min_size=1, max_size=5))
def test_a_container_reads_back_as_it_was_written(keys: list[tuple[str, bytes]]) -> None:
    body = wire.encode_container(keys)
    assert json.loads(body) == {"keys": [{"key_ID": i, "key": b64encode(key).decode()} for i, key in keys]}
    assert [(entry.key_ID, entry.key) for entry in wire.decode_container(body).keys] == keys


def test_a_container_takes_any_kind_of_buffer() -> None:
    key = bytes(range(32))
    assert wire.encode_container([(ID_1, memoryview(key))]) == wire.encode_container([(ID_1, bytearray(key))])


def test_extensions_of_a_container_are_kept() -> None:
    body = {
        "keys": [{"key_ID": ID_1, "key": "AAAA", "key_extension": {"a": 1}, "key_ID_extension": None}],
        "key_container_extension": {"b": 2},
        "more": 1,
    }
    container = wire.decode_container(json.dumps(body).encode())
    assert container.keys[0].key == bytes(3)
    assert container.keys[0].key_extension == {"a": 1}
    assert container.key_container_extension == {"b": 2}


def test_no_bit_of_a_key_is_in_its_repr() -> None:
    secret = b"\x5a\x17" * 16
    container = wire.decode_container(wire.encode_container([(ID_1, secret)]))
    for text in (
        repr(container),
        str(container),
        repr(container.keys[0]),
        str(list(container.keys[0].__rich_repr__())),
    ):
        assert ID_1 in text
        assert "256 bits" in text
        assert "Z" not in text.replace(ID_1, "") and b64encode(secret).decode() not in text


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"keys":[{"key_ID":"x"}]}', b'{"keys":[{"key_ID":"x","key":"AAA"}]}', b"<html>"]
)
def test_a_malformed_container_is_refused_without_repeating_it(body: bytes) -> None:
    with pytest.raises(MalformedAnswer) as caught:
        wire.decode_container(body)
    assert "AAA" not in str(caught.value)


# Status and errors


def test_a_status_reads_back_as_it_was_written() -> None:
    status = wire.decode_status(json.dumps(STATUS).encode())
    assert json.loads(wire.encode_status(status)) == STATUS


@pytest.mark.parametrize("missing", sorted(STATUS))
def test_a_status_without_a_mandatory_item_is_refused(missing: str) -> None:
    with pytest.raises(MalformedAnswer, match=missing):
        wire.decode_status(json.dumps({name: value for name, value in STATUS.items() if name != missing}).encode())


def test_an_error_reads_back_as_it_was_written() -> None:
    body = wire.encode_error(wire.KEYS_NOT_FOUND, ({"a": 1},))
    assert json.loads(body) == {"message": "one or more keys specified are not found on KME", "details": [{"a": 1}]}
    assert wire.decode_error(body).details == [{"a": 1}]


def test_an_error_without_details_has_no_such_member() -> None:
    assert json.loads(wire.encode_error("key data access error")) == {"message": "key data access error"}


def test_an_error_of_another_server_may_lack_everything() -> None:
    assert wire.decode_error(b"{}").message == ""
    with pytest.raises(MalformedAnswer):
        wire.decode_error(b"<html>Bad Gateway</html>")


def test_the_request_a_client_writes_is_the_one_a_server_reads() -> None:
    request = KeyRequest(2, 256, ["hsm-south"], [{"keyhop_max_hops": 2}], [{"keyhop_note": "batch-7"}])
    assert wire.decode_key_request(wire.encode_key_request(request)) == request
    assert json.loads(wire.encode_key_request(KeyRequest())) == {}
    assert wire.decode_key_ids(wire.encode_key_ids([ID_1, ID_2])) == [ID_1, ID_2]
