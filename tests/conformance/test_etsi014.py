"""ETSI GS QKD 014 V1.1.1, clause by clause, over TLS on loopback."""

from __future__ import annotations

import asyncio
import json
import ssl
from base64 import b64decode
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from loopback import Authority, Client, Issued, MemorySupplier, Serving, request, until

from keyhop.core.model import Refusal, RequestError
from keyhop.daemon.routes import DURATION_BOUNDS_NS
from keyhop.wire.etsi014 import KeyRequest, Operation

UNKNOWN_ID = "8d4f2b1a-6c3e-4f57-9b20-1e7a5c9d3f60"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def saes(authority: Authority) -> dict[str, Issued]:
    return {name: authority.sae(name) for name in ("alice", "bob", "carol")}


@pytest.fixture(scope="module")
def running(authority: Authority) -> Iterator[Serving]:
    with Serving(authority) as serving:
        yield serving


@pytest.fixture
def serving(running: Serving) -> Iterator[Serving]:
    """The one server of this module, with a fresh supplier behind it."""
    fresh = MemorySupplier()
    running.supplier.__dict__.update(fresh.__dict__)
    yield running
    assert running.failures == []


@pytest.fixture
def alice(serving: Serving, saes: dict[str, Issued]) -> Iterator[Client]:
    with serving.client(saes["alice"]) as client:
        yield client


@pytest.fixture
def bob(serving: Serving, saes: dict[str, Issued]) -> Iterator[Client]:
    with serving.client(saes["bob"]) as client:
        yield client


@pytest.fixture
def carol(serving: Serving, saes: dict[str, Issued]) -> Iterator[Client]:
    with serving.client(saes["carol"]) as client:
        yield client


def ids(container: dict[str, Any]) -> dict[str, Any]:
    return {"key_IDs": [{"key_ID": key["key_ID"]} for key in container["keys"]]}


# Clause 5.1 and 6.1: Get status


def test_status_names_both_sides_and_all_mandatory_items(alice: Client) -> None:
    answer = alice.request("GET", "/api/v1/keys/bob/status")
    assert answer.status == 200
    status = answer.json()
    assert (status["master_SAE_ID"], status["slave_SAE_ID"]) == ("alice", "bob")
    integers = {
        "key_size",
        "stored_key_count",
        "max_key_count",
        "max_key_per_request",
        "max_key_size",
        "min_key_size",
        "max_SAE_ID_count",
    }
    assert integers < set(status)
    assert all(type(status[name]) is int for name in integers)
    assert {"source_KME_ID", "target_KME_ID"} < set(status)


def test_status_takes_no_key(serving: Serving, alice: Client) -> None:
    before = alice.request("GET", "/api/v1/keys/bob/status").json()
    assert alice.request("GET", "/api/v1/keys/bob/status").json() == before


def test_head_of_status_is_its_answer_without_the_body(alice: Client) -> None:
    full = alice.request("GET", "/api/v1/keys/bob/status")
    head = alice.request("HEAD", "/api/v1/keys/bob/status")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == full.headers["content-length"]
    assert alice.request("GET", "/api/v1/keys/bob/status").status == 200


# Clause 5.2, 6.2 and 6.3: Get key


def test_get_key_by_get_gives_one_key_of_the_default_size(alice: Client) -> None:
    answer = alice.request("GET", "/api/v1/keys/bob/enc_keys")
    assert answer.status == 200
    (key,) = answer.json()["keys"]
    assert set(key) == {"key_ID", "key"}
    assert len(b64decode(key["key"], validate=True)) == 32


def test_get_key_by_get_takes_number_and_size(alice: Client) -> None:
    keys = alice.request("GET", "/api/v1/keys/bob/enc_keys?number=3&size=1024").json()["keys"]
    assert len(keys) == 3
    assert {len(b64decode(key["key"])) for key in keys} == {128}
    assert len({key["key_ID"] for key in keys}) == 3


def test_get_key_by_post_takes_number_and_size(alice: Client) -> None:
    keys = alice.request("POST", "/api/v1/keys/bob/enc_keys", {"number": 2, "size": 64}).json()["keys"]
    assert [len(b64decode(key["key"])) for key in keys] == [8, 8]


@pytest.mark.parametrize("body", [b"{}", b"", b'{"number":null,"size":null}', b'{"colour":"blue"}'])
def test_get_key_by_post_needs_no_item(alice: Client, body: bytes) -> None:
    answer = alice.request("POST", "/api/v1/keys/bob/enc_keys", body)
    assert answer.status == 200
    assert len(answer.json()["keys"]) == 1


def test_every_get_key_gives_another_key(alice: Client) -> None:
    keys = [alice.request("GET", "/api/v1/keys/bob/enc_keys").json()["keys"][0] for _ in range(20)]
    assert len({key["key_ID"] for key in keys}) == len({key["key"] for key in keys}) == 20


def test_the_largest_container_arrives_whole(alice: Client) -> None:
    answer = alice.request("POST", "/api/v1/keys/bob/enc_keys", {"number": 128, "size": 8192})
    assert sum(len(b64decode(key["key"])) for key in answer.json()["keys"]) == 128 * 1024


def test_a_key_may_come_later(serving: Serving, alice: Client) -> None:
    serving.supplier.async_enc = True
    assert len(alice.request("POST", "/api/v1/keys/bob/enc_keys", {"number": 2}).json()["keys"]) == 2
    assert len(alice.request("GET", "/api/v1/keys/bob/enc_keys").json()["keys"]) == 1


def test_an_sae_id_in_a_path_is_url_encoded(serving: Serving, alice: Client) -> None:
    assert alice.request("GET", "/api/v1/keys/hsm%2F7%20%C3%A4/enc_keys").status == 200
    assert serving.supplier.asked[-1][:2] == ("alice", "hsm/7 ä")


@pytest.mark.parametrize("size", [7, 12, 257])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_size_that_is_no_multiple_of_8_gets_the_fixed_text(alice: Client, method: str, size: int) -> None:
    if method == "GET":
        answer = alice.request("GET", f"/api/v1/keys/bob/enc_keys?size={size}")
    else:
        answer = alice.request("POST", "/api/v1/keys/bob/enc_keys", {"size": size})
    assert (answer.status, answer.json()) == (400, {"message": "size shall be a multiple of 8"})


@pytest.mark.parametrize("query", ["number=0", "number=-1", "number=x", "number=129", "number=1&number=2", "size=0"])
def test_a_number_or_size_out_of_range_is_400(alice: Client, query: str) -> None:
    answer = alice.request("GET", f"/api/v1/keys/bob/enc_keys?{query}")
    assert answer.status == 400
    assert isinstance(answer.json()["message"], str)


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b"null", b'{"number":"2"}', b'{"number":2.5}', b'{"number":0}', b'{"extension_mandatory":[1]}'],
)
def test_a_malformed_key_request_is_400(serving: Serving, alice: Client, body: bytes) -> None:
    answer = alice.request("POST", "/api/v1/keys/bob/enc_keys", body)
    assert answer.status == 400
    assert answer.json()["message"]
    assert serving.supplier.asked == []
    assert alice.request("GET", "/api/v1/keys/bob/enc_keys").status == 200


@pytest.mark.parametrize(
    "query",
    [
        "extension_mandatory=x",
        "extension_optional=x",
        "additional_slave_SAE_IDs=carol",
        "number=1&extension_mandatory=",
    ],
)
def test_what_only_a_post_can_carry_is_refused_in_a_get(serving: Serving, alice: Client, query: str) -> None:
    assert alice.request("GET", f"/api/v1/keys/bob/enc_keys?{query}").status == 400
    assert serving.supplier.asked == []


def test_a_get_with_a_body_is_400_and_its_body_is_not_taken_for_a_request(alice: Client) -> None:
    answer = alice.request("GET", "/api/v1/keys/bob/enc_keys", {"number": 3})
    assert answer.status == 400
    assert alice.request("GET", "/api/v1/keys/bob/enc_keys").status == 200


# Clause 6.2: extensions


def test_an_unknown_mandatory_extension_is_refused_and_named(serving: Serving, alice: Client) -> None:
    body = {"extension_mandatory": [{"acme_colour": "blue", "keyhop_max_hops": 2}, {"acme_taste": None}]}
    answer = alice.request("POST", "/api/v1/keys/bob/enc_keys", body)
    assert answer.status == 400
    assert answer.json() == {
        "message": "not all extension_mandatory parameters are supported",
        "details": [
            {"extension_mandatory_unsupported": "acme_colour"},
            {"extension_mandatory_unsupported": "acme_taste"},
        ],
    }
    assert serving.supplier.asked == []


def test_a_known_mandatory_extension_reaches_the_supplier(serving: Serving, alice: Client) -> None:
    body = {"number": 2, "extension_mandatory": [{"keyhop_max_hops": 2}]}
    assert alice.request("POST", "/api/v1/keys/bob/enc_keys", body).status == 200
    assert serving.supplier.asked[-1][4] == KeyRequest(2, extension_mandatory=[{"keyhop_max_hops": 2}])


def test_a_mandatory_extension_that_cannot_be_met_gets_the_fixed_text(alice: Client) -> None:
    answer = alice.request("POST", "/api/v1/keys/bob/enc_keys", {"extension_mandatory": [{"keyhop_max_hops": 0}]})
    assert answer.status == 400
    assert answer.json()["message"] == "not all extension_mandatory request options could be met"


def test_an_optional_extension_may_be_ignored(alice: Client) -> None:
    body = {"extension_optional": [{"acme_colour": "blue"}, {"acme_taste": [1, None]}], "extension_mandatory": []}
    assert alice.request("POST", "/api/v1/keys/bob/enc_keys", body).status == 200


def test_additional_slaves_reach_the_supplier_and_an_empty_list_is_none(serving: Serving, alice: Client) -> None:
    body: dict[str, Any] = {"additional_slave_SAE_IDs": ["carol"]}
    assert alice.request("POST", "/api/v1/keys/bob/enc_keys", body).status == 400
    assert serving.supplier.asked[-1][4].additional_slave_SAE_IDs == ["carol"]
    body = {"additional_slave_SAE_IDs": []}
    assert alice.request("POST", "/api/v1/keys/bob/enc_keys", body).status == 200


# Clause 5.3 and 6.4: Get key with key IDs


def test_the_slave_gets_the_same_key_by_its_id(alice: Client, bob: Client) -> None:
    given = alice.request("POST", "/api/v1/keys/bob/enc_keys", {"number": 3}).json()
    fetched = bob.request("POST", "/api/v1/keys/alice/dec_keys", ids(given))
    assert fetched.status == 200
    assert fetched.json() == given


def test_one_key_may_be_fetched_by_get_and_its_id_in_any_case(alice: Client, bob: Client) -> None:
    given = alice.request("GET", "/api/v1/keys/bob/enc_keys").json()
    key_id = given["keys"][0]["key_ID"]
    fetched = bob.request("GET", f"/api/v1/keys/alice/dec_keys?key_ID={key_id.upper()}")
    assert (fetched.status, fetched.json()) == (200, given)


def test_a_key_is_fetched_once(alice: Client, bob: Client) -> None:
    given = alice.request("GET", "/api/v1/keys/bob/enc_keys").json()
    assert bob.request("POST", "/api/v1/keys/alice/dec_keys", ids(given)).status == 200
    again = bob.request("POST", "/api/v1/keys/alice/dec_keys", ids(given))
    assert (again.status, again.json()) == (400, {"message": "one or more keys specified are not found on KME"})


def test_one_unknown_id_refuses_all_and_consumes_none(alice: Client, bob: Client) -> None:
    given = alice.request("POST", "/api/v1/keys/bob/enc_keys", {"number": 2}).json()
    asked = ids(given)
    asked["key_IDs"].append({"key_ID": UNKNOWN_ID})
    answer = bob.request("POST", "/api/v1/keys/alice/dec_keys", asked)
    assert (answer.status, answer.json()["message"]) == (400, "one or more keys specified are not found on KME")
    assert bob.request("POST", "/api/v1/keys/alice/dec_keys", ids(given)).json() == given


def test_a_foreign_key_poisons_the_request_with_401_and_a_body(alice: Client, bob: Client, carol: Client) -> None:
    for_bob = alice.request("GET", "/api/v1/keys/bob/enc_keys").json()
    for_carol = alice.request("GET", "/api/v1/keys/carol/enc_keys").json()
    asked = {"key_IDs": ids(for_carol)["key_IDs"] + ids(for_bob)["key_IDs"] + [{"key_ID": UNKNOWN_ID}]}
    answer = carol.request("POST", "/api/v1/keys/alice/dec_keys", asked)
    assert answer.status == 401
    assert answer.json()["message"]
    assert carol.request("POST", "/api/v1/keys/alice/dec_keys", ids(for_carol)).json() == for_carol


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"key_IDs":[]}',
        b'{"key_IDs":[{"key_ID":"x"}]}',
        json.dumps({"key_IDs": [{"key_ID": UNKNOWN_ID}] * 2}).encode(),
    ],
)
def test_malformed_or_repeated_key_ids_are_400(serving: Serving, bob: Client, body: bytes) -> None:
    assert bob.request("POST", "/api/v1/keys/alice/dec_keys", body).status == 400
    assert serving.supplier.asked == []


@pytest.mark.parametrize("query", ["", "?key_ID=", f"?key_ID={UNKNOWN_ID}&key_ID={UNKNOWN_ID}", "?key_IDs=x"])
def test_a_get_that_names_no_single_key_is_400(serving: Serving, bob: Client, query: str) -> None:
    assert bob.request("GET", f"/api/v1/keys/alice/dec_keys{query}").status == 400
    assert serving.supplier.asked == []


def test_unknown_and_null_members_of_key_ids_are_passed_over(alice: Client, bob: Client) -> None:
    given = alice.request("GET", "/api/v1/keys/bob/enc_keys").json()
    asked = ids(given) | {"key_IDs_extension": None, "colour": {}}
    asked["key_IDs"][0] |= {"key_ID_extension": {"a": 1}, "more": None}
    assert bob.request("POST", "/api/v1/keys/alice/dec_keys", asked).status == 200


# Clause 5 and 6.5: codes and Error


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (Refusal.BAD_REQUEST, 400),
        (Refusal.NOT_AUTHORISED, 401),
        (Refusal.NOT_FOUND, 400),
        (Refusal.UNSUPPORTED, 400),
        (Refusal.NOT_ENOUGH_KEY, 503),
        (Refusal.RATE_LIMITED, 503),
        (Refusal.UNAVAILABLE, 503),
    ],
)
@pytest.mark.parametrize("operation", ["status", "enc_keys", f"dec_keys?key_ID={UNKNOWN_ID}"])
def test_each_refusal_has_its_code_and_an_error_body(
    serving: Serving, alice: Client, operation: str, reason: Refusal, code: int
) -> None:
    serving.supplier.refusal = RequestError(reason, "the reason", ({"a": 1},))
    answer = alice.request("GET", f"/api/v1/keys/bob/{operation}")
    assert answer.status == code
    assert answer.json() == {"message": "the reason", "details": [{"a": 1}]}
    assert "retry-after" not in answer.headers
    serving.supplier.refusal = None
    assert alice.request("GET", "/api/v1/keys/bob/enc_keys").status == 200


def test_every_reason_of_the_core_has_a_code() -> None:
    from keyhop.daemon.supply.etsi014 import STATUS_OF

    assert set(STATUS_OF) == set(Refusal)


def test_too_little_key_is_503_and_says_when_to_come_again(serving: Serving, alice: Client) -> None:
    serving.supplier.stock = 2
    answer = alice.request("POST", "/api/v1/keys/bob/enc_keys", {"number": 3})
    assert (answer.status, answer.headers["retry-after"]) == (503, "2")
    assert alice.request("POST", "/api/v1/keys/bob/enc_keys", {"number": 2}).status == 200


def test_an_unknown_slave_is_400_and_a_pair_that_is_not_allowed_401(alice: Client, bob: Client) -> None:
    assert alice.request("GET", "/api/v1/keys/nobody/enc_keys").status == 400
    assert bob.request("GET", "/api/v1/keys/carol/enc_keys").status == 401


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"])
@pytest.mark.parametrize("operation", ["enc_keys", "dec_keys"])
def test_another_method_is_405_and_says_which_are_allowed(
    serving: Serving, alice: Client, method: str, operation: str
) -> None:
    answer = alice.request(method, f"/api/v1/keys/bob/{operation}")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, POST")
    assert serving.supplier.asked == []


def test_status_is_not_posted(alice: Client) -> None:
    answer = alice.request("POST", "/api/v1/keys/bob/status", {})
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
    assert answer.json()["message"]


@pytest.mark.parametrize("path", ["/", "/api/v1/keys/bob", "/api/v2/keys/bob/status", "/api/v1/keys/a/b/status", "*"])
def test_another_path_is_404_with_an_error_body(alice: Client, path: str) -> None:
    answer = alice.request("GET", path)
    assert answer.status == 404
    assert answer.json()["message"]


@pytest.mark.parametrize("encoded", ["", "%zz", "%ff"])
def test_a_badly_encoded_sae_id_is_400(alice: Client, encoded: str) -> None:
    assert alice.request("GET", f"/api/v1/keys/{encoded}/status").status == 400


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "application/json5"])
def test_a_body_of_another_type_is_415(serving: Serving, alice: Client, content_type: str) -> None:
    answer = alice.request("POST", "/api/v1/keys/bob/enc_keys", b"{}", f"Content-Type: {content_type}\r\n")
    assert answer.status == 415
    assert serving.supplier.asked == []


def test_a_compressed_body_is_415(alice: Client) -> None:
    assert alice.request("POST", "/api/v1/keys/bob/enc_keys", b"{}", "Content-Encoding: gzip\r\n").status == 415


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "Application/JSON", "application/json ;x=y"]
)
def test_json_is_json_however_it_is_written(alice: Client, content_type: str) -> None:
    answer = alice.request("POST", "/api/v1/keys/bob/enc_keys", b"{}", f"Content-Type: {content_type}\r\n")
    assert answer.status == 200


def test_a_post_without_a_length_is_411(alice: Client) -> None:
    alice.send(b"POST /api/v1/keys/bob/enc_keys HTTP/1.1\r\nHost: x\r\n\r\n")
    assert alice.answer().status == 411


# Answers as such


@pytest.mark.parametrize("path", ["/api/v1/keys/bob/enc_keys", "/api/v1/keys/nobody/enc_keys", "/nowhere"])
def test_every_answer_is_json_and_not_to_be_stored(alice: Client, path: str) -> None:
    answer = alice.request("GET", path)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert parsedate_to_datetime(answer.headers["date"]).tzinfo is not None
    json.loads(answer.body)


def test_an_answer_is_the_same_on_the_slow_and_on_the_fast_path(serving: Serving, alice: Client) -> None:
    answers = [alice.request("GET", "/api/v1/keys/bob/status") for _ in range(3)]
    for answer in answers:
        answer.headers.pop("date")
    assert answers[0] == answers[1] == answers[2]


# Clause 4: the connection


def test_the_caller_is_the_one_in_the_certificate(serving: Serving, bob: Client) -> None:
    bob.request("GET", "/api/v1/keys/alice/enc_keys")
    assert serving.supplier.asked[-1][0] == "bob"


def test_tls_1_3_is_spoken_with_an_aead_of_256_bits(alice: Client) -> None:
    assert alice.socket.version() == "TLSv1.3"
    cipher = alice.socket.cipher()
    assert cipher is not None and cipher[2] == 256


def test_the_server_certificate_is_one_the_client_can_check(serving: Serving, saes: dict[str, Issued]) -> None:
    other = ssl.create_default_context()
    other.load_cert_chain(saes["alice"].certificate, saes["alice"].key)
    with pytest.raises(ssl.SSLCertVerificationError):
        Client(serving.port, other)


# What is counted, and what is not leaked


def test_requests_are_counted_by_method_and_code_with_their_duration(
    authority: Authority, saes: dict[str, Issued]
) -> None:
    with Serving(authority) as serving, serving.client(saes["alice"]) as alice, serving.client(saes["bob"]) as bob:
        for _ in range(5):
            given = alice.request("GET", "/api/v1/keys/bob/enc_keys").json()
        alice.request("POST", "/api/v1/keys/bob/enc_keys", {"size": 7})
        alice.request("DELETE", "/api/v1/keys/bob/enc_keys")
        bob.request("POST", "/api/v1/keys/alice/dec_keys", ids(given))
        bob.request("POST", "/api/v1/keys/alice/dec_keys", ids(given))
        alice.request("GET", "/nowhere")
        series = serving.door.series
        assert series[Operation.ENC_KEYS].codes == {200: 5, 400: 1, 405: 1}
        assert series[Operation.DEC_KEYS].codes == {200: 1, 400: 1}
        assert series[Operation.STATUS].codes == {}
        assert serving.server.refused.codes == {404: 1}
        assert sum(series[Operation.ENC_KEYS].buckets) == 7
        assert len(series[Operation.ENC_KEYS].buckets) == len(DURATION_BOUNDS_NS) + 1
        assert series[Operation.DEC_KEYS].total_ns > 0


def test_no_key_is_in_a_report_or_a_failure(authority: Authority, saes: dict[str, Issued]) -> None:
    class Broken(MemorySupplier):
        def dec_keys(self, caller: str, master: str, key_ids: list[str]) -> Any:
            raise ZeroDivisionError("a bug")

    with Serving(authority, supplier=Broken()) as serving, serving.client(saes["alice"]) as alice:
        given = alice.request("GET", "/api/v1/keys/bob/enc_keys").json()["keys"][0]
        answer = alice.request("GET", f"/api/v1/keys/bob/dec_keys?key_ID={given['key_ID']}")
        assert answer.status == 503
        assert answer.headers["connection"] == "close"
        assert answer.json() == {"message": "the key manager failed on this request"}
        until(lambda: bool(serving.failures))
        assert isinstance(serving.failures[0]["exception"], ZeroDivisionError)
        assert given["key"] not in repr(serving.failures) + repr(serving.reports)


def test_keys_asked_for_on_one_connection_come_in_the_order_of_the_requests(serving: Serving, alice: Client) -> None:
    serving.supplier.async_enc = True
    alice.send(b"".join(request("GET", f"/api/v1/keys/bob/enc_keys?size={8 * n}") for n in range(8, 20)))
    sizes = [len(b64decode(alice.answer().json()["keys"][0]["key"])) for _ in range(8, 20)]
    assert sizes == list(range(8, 20))


def test_a_key_manager_that_stops_answers_503(authority: Authority, saes: dict[str, Issued]) -> None:
    class Stopping(MemorySupplier):
        def dec_keys(self, caller: str, master: str, key_ids: list[str]) -> Any:
            later = super().dec_keys(caller, master, key_ids)
            stopping = RequestError(Refusal.UNAVAILABLE, "the key manager is stopping")
            asyncio.get_running_loop().call_soon(later.give, stopping)
            return later

    supplier = Stopping()
    supplier.hold = []
    with Serving(authority, supplier=supplier) as serving, serving.client(saes["bob"]) as bob:
        assert bob.request("GET", f"/api/v1/keys/alice/dec_keys?key_ID={UNKNOWN_ID}").status == 503
