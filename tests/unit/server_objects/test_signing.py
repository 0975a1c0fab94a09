"""Upload keys and signed URLs."""

from __future__ import annotations

import pytest

from asyncsdk.domain.ids import make_id
from asyncsdk.errors import ConfigError, PermissionDenied
from asyncsdk.server.objects.signing import Signer

SIGNER = Signer(b"s" * 32)
ID, SCOPE, USER = make_id(), make_id(), make_id()


def test_a_key_gives_back_its_object_id_to_the_same_scope_and_user() -> None:
    key = SIGNER.make_key(ID, scope_id=SCOPE, user_id=USER)
    assert SIGNER.check_key(key, scope_id=SCOPE, user_id=USER) == ID


def test_a_key_is_good_for_nothing_else() -> None:
    key = SIGNER.make_key(ID, scope_id=SCOPE, user_id=USER)
    flipped = key[:-1] + ("0" if key[-1] != "0" else "1")
    for bad, scope, user in (
        (key, USER, USER),
        (key, SCOPE, SCOPE),
        (key, USER, SCOPE),
        (flipped, SCOPE, USER),
        (make_id() + key[24:], SCOPE, USER),
        (ID, SCOPE, USER),
        ("", SCOPE, USER),
        (key + "\n", SCOPE, USER),
        (key.upper(), SCOPE, USER),
    ):
        with pytest.raises(PermissionDenied):
            SIGNER.check_key(bad, scope_id=scope, user_id=user)
    with pytest.raises(PermissionDenied):
        Signer(b"t" * 32).check_key(key, scope_id=SCOPE, user_id=USER)


def test_a_url_allows_its_method_object_and_parameters_until_it_expires() -> None:
    url = SIGNER.sign_url("PUT", ID, {"size": 5, "crc32c": "00000000"}, expires_at=1000)
    path, _, query = url.partition("?")
    grant = SIGNER.check_url("PUT", path, query, now=999)
    assert grant.object_id == ID
    assert grant.parameters == {"size": "5", "crc32c": "00000000", "expires": "1000"}
    with pytest.raises(PermissionDenied) as caught:
        SIGNER.check_url("PUT", path, query, now=1000)
    assert caught.value.server_code == "expired_url"
    for method in ("GET", "HEAD", "POST", "DELETE"):
        with pytest.raises(PermissionDenied):
            SIGNER.check_url(method, path, query, now=999)


def test_a_url_for_get_is_good_for_head() -> None:
    path, _, query = SIGNER.sign_url("GET", ID, {"crc32c": "00000000"}, expires_at=1000).partition("?")
    assert SIGNER.check_url("HEAD", path, query, now=0).method == "HEAD"


def test_a_key_cannot_be_turned_into_a_url_signature_nor_anything_odd_be_signed() -> None:
    with pytest.raises(ConfigError):
        SIGNER.sign_url("PUT", ID, {"a": "b&c=d"}, expires_at=1)
    with pytest.raises(ConfigError):
        SIGNER.sign_url("PUT", ID, {"a": "é"}, expires_at=1)


def test_a_secret_of_another_length_is_refused() -> None:
    with pytest.raises(ConfigError):
        Signer(b"short")


@pytest.mark.parametrize(
    "query",
    [
        "",
        "signature=",
        "&signature=",
        "&signature=\xe9",
        "a\n&signature=" + "0" * 64,
        "&signature=" * 5000,
        "a=b&" * 15000,
    ],
)
def test_what_is_no_signed_query_is_refused_whatever_it_is(query: str) -> None:
    with pytest.raises(PermissionDenied):
        SIGNER.check_url("GET", f"/objects/{ID}", query)
    for path in (ID, f"/objects/{ID}\n", f"/objects/../objects/{ID}", f"//objects/{ID}", f"/Objects/{ID}", ""):
        signed = SIGNER.sign_url("GET", ID, {"crc32c": "00000000"}, expires_at=1000).partition("?")[2]
        with pytest.raises(PermissionDenied):
            SIGNER.check_url("GET", path, signed, now=0)
