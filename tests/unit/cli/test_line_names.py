"""What the journal calls a line of a manifest: the same when only its URL was signed anew, else another."""

from __future__ import annotations

import json

import pytest

from asyncsdk.cli.line_names import lasting_query
from asyncsdk.cli.manifest_lines import parse_line


def name_of(url: str, **more: str) -> str:
    line = {"source": "a.bin", "url": url} | more
    name: str = parse_line(json.dumps(line).encode(), 1, "m").key.name
    return name


@pytest.mark.parametrize(
    ("once", "again"),
    [
        (
            "X-Amz-Algorithm=A&X-Amz-Credential=C&X-Amz-Date=1&X-Amz-Expires=9&X-Amz-SignedHeaders=h&X-Amz-Signature=s",
            "X-Amz-Credential=D&X-Amz-Date=2&X-Amz-Expires=8&X-Amz-Signature=t&X-Amz-Security-Token=u",
        ),
        ("AWSAccessKeyId=a&Expires=1&Signature=s", "Expires=2&Signature=t&AWSAccessKeyId=b"),
        ("Policy=p&Signature=s&Key-Pair-Id=k", "Policy=q&Signature=t&Key-Pair-Id=l"),
        ("X-Goog-Date=1&X-Goog-Signature=s", "X-Goog-Date=2&X-Goog-Signature=t"),
        ("GoogleAccessId=a&Expires=1&Signature=s", "GoogleAccessId=a&Expires=2&Signature=t"),
        ("sv=1&se=2&sr=b&sp=r&sig=s", "sv=1&se=3&sr=b&sp=r&sig=t&skoid=x"),
        ("OSSAccessKeyId=a&Expires=1&Signature=s", "OSSAccessKeyId=a&Expires=2&Signature=t&security-token=u"),
        ("expires=1&signature=s", "expires=2&signature=t"),
        ("token=1", "token=2"),
    ],
)
def test_a_url_that_was_signed_anew_names_the_same(once: str, again: str) -> None:
    assert lasting_query(f"https://h/o?{once}") == lasting_query(f"https://h/o?{again}") == ""
    assert name_of(f"https://h/o?object=7&{once}") == name_of(f"https://h/o?{again}&object=7")
    assert name_of(f"https://h/o?object=7&{once}") != name_of(f"https://h/o?object=8&{once}")
    assert name_of(f"https://h/o?{once}") != name_of(f"https://h/other?{once}")


@pytest.mark.parametrize(
    "query", ["object=a", "sr=a", "se=1&sp=2", "who=knows", "partNumber=3", "object=", "versionId=1"]
)
def test_what_no_service_signs_with_names_something(query: str) -> None:
    """The short words of Azure are nothing special where there is no signature of Azure's."""
    assert lasting_query(f"https://h/o?{query}") == query


@pytest.mark.parametrize(("one", "other"), [("a=1%26b=2", "a=1&b=2"), ("object=%ff", "object=%fe")])
def test_what_is_escaped_is_not_mistaken(one: str, other: str) -> None:
    assert name_of(f"https://h/o?{one}") != name_of(f"https://h/o?{other}")


def test_a_key_goes_before_the_url() -> None:
    one = name_of("https://h/o?auth=1", key="k")
    assert one == name_of("https://elsewhere/p?auth=2", key="k")
    assert one != name_of("https://h/o?auth=1", key="l")
    assert one != name_of("https://h/o?auth=1")
    download = json.dumps({"destination": "a.bin", "url": "https://h/o", "key": "k"})
    assert parse_line(download.encode(), 1, "m").key.name != one
