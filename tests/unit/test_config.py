"""Settings: which place wins, what is refused, and that a token goes to its own server only."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from asyncsdk.config import Settings, profile_path, remove_profile, write_profile
from asyncsdk.errors import ConfigError


def test_arguments_win_over_environment_over_profile_over_defaults(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.load().url is None
    write_profile(home, url="http://profile:1", token="t1")
    assert (Settings.load().url, Settings.load().token) == ("http://profile:1", "t1")
    monkeypatch.setenv("ASYNCSDK_URL", "http://environment:2/")
    assert Settings.load().url == "http://environment:2"
    assert Settings.load(url="https://argument").url == "https://argument"
    monkeypatch.setenv("ASYNCSDK_CONCURRENCY", "7")
    assert Settings.load().concurrency == 7
    assert Settings.load(concurrency=9).concurrency == 9


def test_the_token_of_one_server_is_never_sent_to_another(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_profile(home, url="http://profile:1", token="secret")
    assert Settings.load(url="http://other:2").token is None
    assert Settings.load(url="http://profile:1/").token == "secret"
    monkeypatch.setenv("ASYNCSDK_URL", "http://other:2")
    assert Settings.load().token is None
    monkeypatch.setenv("ASYNCSDK_TOKEN", "given")
    assert Settings.load().token == "given"


def test_the_token_of_the_environment_stays_with_its_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCSDK_TOKEN", "for-any")
    assert Settings.load(url="http://other:2").token == "for-any"
    monkeypatch.setenv("ASYNCSDK_URL", "http://one:1")
    assert Settings.load().token == "for-any"
    assert Settings.load(url="http://one:1/").token == "for-any"
    assert Settings.load(url="http://other:2").token is None
    assert Settings.load(url="http://other:2", token="mine").token == "mine"


def test_a_data_folder_means_the_embedded_platform(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_profile(home, url="http://profile:1", token="t")
    monkeypatch.setenv("ASYNCSDK_URL", "http://environment:2")
    settings = Settings.load(data=tmp_path)
    assert (settings.url, settings.token, settings.data) == (None, None, tmp_path)
    with pytest.raises(ConfigError, match="not both"):
        Settings.load(data=tmp_path, url="http://x")
    monkeypatch.setenv("ASYNCSDK_URL", "")
    assert Settings.load().url is None


def test_the_token_never_shows(home: Path) -> None:
    settings = Settings.load(url="http://x", token="very-secret")
    assert "very-secret" not in repr(settings)
    assert "very-secret" not in str(settings)


def test_the_profile_is_private_and_one_that_is_not_is_refused(home: Path) -> None:
    path = write_profile(home, url="http://x", token="t")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        Settings.load()
    assert remove_profile(home)
    assert not remove_profile(home)


@pytest.mark.parametrize("content", [b"not json", b"[1]"])
def test_a_damaged_profile_says_which_file_to_remove(home: Path, content: bytes) -> None:
    write_profile(home, url="http://x", token="t")
    profile_path(home).write_bytes(content)
    with pytest.raises(ConfigError, match=r"profile\.json"):
        Settings.load()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"url": "ftp://x"}, "http://host"),
        ({"url": "x:80"}, "http://host"),
        ({"url": "http://user:pw@x"}, "no user"),
        ({"url": "http://x?token=1"}, "no query"),
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": "many"}, "ASYNCSDK_CONCURRENCY"),
        ({"part_size": 10}, "part_size"),
        ({"token": "two words"}, "one word"),
        ({"token": "é"}, "ASCII"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Settings.load(**arguments)
    assert "pw" not in str(caught.value)


def test_data_lies_below_home_unless_told_otherwise(tmp_path: Path) -> None:
    assert Settings.load(home=tmp_path).data == tmp_path / "data"
    assert Settings.load(home=tmp_path, data=tmp_path / "x").data == tmp_path / "x"


@pytest.mark.parametrize("concurrency", [0, 100_000])
def test_a_number_that_is_refused_is_not_told_to_be_a_word(concurrency: int) -> None:
    with pytest.raises(ConfigError, match=r"should be 'auto', or (greater|less) than or equal to"):
        Settings.load(concurrency=concurrency)
