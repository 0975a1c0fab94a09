"""The command line as a parser: where options may stand, what mistakes say."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncsdk.cli.options import parsed_filter
from asyncsdk.cli.parser import build_parser, parse
from asyncsdk.cli.references import Reference
from asyncsdk.domain.filters import AllOf, Condition
from asyncsdk.errors import ConfigError

COMMANDS = [
    ["serve"],
    ["login"],
    ["whoami"],
    ["logout"],
    ["upload", "p", "d"],
    ["download", "d", "p"],
    ["checkpoint", "upload", "p", "m"],
    ["checkpoint", "download", "m", "p"],
    ["model", "metrics", "m"],
    ["predictions", "upload", "f", "d", "--task", "t"],
    ["archive", "upload", "p", "d"],
    ["archive", "unpack", "d"],
    ["archive", "download", "d", "p"],
    ["transfer", "m"],
    *([kind, verb, *rest] for kind in ("projects", "datasets", "models") for verb, rest in (
        ("list", []), ("create", ["n"]), ("get", ["n"]), ("delete", ["n"]),
    )),
    ["worker"],
    *(["jobs", verb, *rest] for verb, rest in (
        ("list", []), ("get", ["j"]), ("wait", ["j"]), ("cancel", ["j"]), ("retry", ["j"]), ("logs", ["j"]),
        ("download", ["j", "f"]),
    )),
    ["workers", "list"],
    ["workers", "delete", "w"],
    ["items", "list", "d"],
    ["items", "create", "d", "f"],
    ["items", "get", "d", "i"],
    ["items", "delete", "d", "i", "j"],
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_common_options_stand_before_or_after_the_command(command: list[str]) -> None:
    """``asyncsdk --json COMMAND`` and ``asyncsdk COMMAND --json`` mean the same; without it, it is off."""
    options = ["--json", "--quiet", "--url", "http://h:1", "--token", "t", "--concurrency", "3"]
    for argv in ([*options, *command], [*command, *options]):
        given = parse(argv)
        assert (given.json, given.quiet, given.url, given.token, given.concurrency) == (
            True,
            True,
            "http://h:1",
            "t",
            3,
        )
    given = parse(command)
    assert (given.json, given.quiet, given.url, given.token, given.concurrency) == (False, False, None, None, None)
    assert hasattr(given, "work") or hasattr(given, "block")


def test_transfer_options_are_read() -> None:
    """Sizes, patterns and reports have their types."""
    given = parse(
        [
            "upload",
            "p",
            "d",
            "--part-size",
            "16MiB",
            "--include",
            "*.jpg",
            "--include",
            "*.png",
            "--exclude",
            "tmp",
            "--report",
            "r",
            "--retry",
            "s",
            "--dry-run",
            "--on-existing",
            "fail",
            "--project",
            "x",
        ]
    )
    assert given.part_size == 16 * 1024**2
    assert (given.include, given.exclude) == (["*.jpg", "*.png"], ["tmp"])
    assert (given.report, given.retry) == (Path("r"), Path("s"))
    assert (given.dry_run, given.on_existing, given.project) == (True, "fail", "x")


def test_checkpoint_facts_are_read() -> None:
    given = parse(
        ["checkpoint", "upload", "p", "m", "--epoch", "3", "--best", "--metric", "map=0.5", "--metric", "loss=1e-3"]
    )
    assert (given.epoch, given.best, given.final) == (3, True, False)
    assert dict(given.metric) == {"map": 0.5, "loss": 0.001}
    assert parse(["checkpoint", "download", "m", "p", "--which", "7"]).which == 7
    assert parse(["checkpoint", "download", "m", "p"]).which == "best"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("", "required: COMMAND"),
        ("frobnicate", "invalid choice"),
        ("upload p", "required: DATASET"),
        ("upload p d --part-size x", "is no size"),
        ("upload p d --on-existing maybe", "invalid choice"),
        ("upload p d extra", "1 more arguments"),
        ("checkpoint upload p m --metric map=nan", "finite number"),
        ("checkpoint download m p --which worst", "is not best, last, final"),
        ("predictions upload f d", "required: --task"),
        ("projects create n --metadata [1]", "is no JSON object"),
    ],
)
def test_mistakes_say_what_is_wrong(argv: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse(argv.split())


def test_a_token_behind_a_misspelt_option_is_not_repeated() -> None:
    """The mistake names the option, never what stands behind it."""
    with pytest.raises(ConfigError) as caught:
        parse(["whoami", "--tokne", "s3cret"])
    assert "--tokne" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        parse(["whoami", "--tok=s3cret"])
    assert "s3cret" not in str(caught.value)


def test_help_documents_exit_statuses_and_json() -> None:
    text = build_parser().format_help()
    for word in ("exit status:", "130", "--json", "ASYNCSDK_TOKEN"):
        assert word in text


def test_filters_are_typed_by_json() -> None:
    """A number is a number, a word is text; several hold together."""
    assert parsed_filter(None) is None
    assert parsed_filter(["size_bytes=10"]) == Condition("size_bytes", "eq", 10)
    assert parsed_filter(["name=a", "metadata.k=true"]) == AllOf(
        [Condition("name", "eq", "a"), Condition("metadata.k", "eq", True)]
    )
    for text in ("name", "Bad Field=1", "name=[1]", 'name={"a": 1}'):
        with pytest.raises(ConfigError):
            parsed_filter([text])


def test_references_name_a_project_once() -> None:
    """A name, project/name, or a name beside --project."""
    assert Reference.parse("a", None) == Reference("a")
    assert Reference.parse("a", "p") == Reference("a", "p")
    assert Reference.parse("p/a", None) == Reference("a", "p")
    assert Reference.parse("0" * 24, None).is_perhaps_id
    for text, project in (("p/a", "q"), ("p/", None), ("/a", None), ("p/a/b", None), ("", None)):
        with pytest.raises(ConfigError):
            Reference.parse(text, project)
