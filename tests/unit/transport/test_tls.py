"""TLS settings: whom they trust, what they refuse, and what is said of files that cannot be used."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from asyncsdk.engine import TransferConfig
from asyncsdk.errors import ConfigError
from asyncsdk.transport.tls import TlsConfig


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


def trusted(context: ssl.SSLContext) -> int:
    return context.cert_store_stats()["x509_ca"]


def test_the_usual_settings_verify_everything() -> None:
    """Certificate and name, TLS 1.2 or newer, no compression, no renegotiation."""
    context = TlsConfig().context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.options & ssl.OP_NO_COMPRESSION
    default = ssl.create_default_context()
    assert context.verify_flags == default.verify_flags
    assert {c["name"] for c in context.get_ciphers()} <= {c["name"] for c in default.get_ciphers()}


def test_the_fastest_cipher_comes_first_and_none_is_lost() -> None:
    """Only the order is ours."""
    names = [cipher["name"] for cipher in TlsConfig().context().get_ciphers() if not cipher["name"].startswith("TLS_")]
    assert all("AES128-GCM" in name for name in names[:2])
    plain = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    assert set(names) == {c["name"] for c in plain.get_ciphers() if not c["name"].startswith("TLS_")}


def test_session_keys_are_written_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable that makes other programs log them is not heeded."""
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    assert TlsConfig().context().keylog_filename is None
    assert not (tmp_path / "keys").exists()


def test_an_authority_of_our_own_replaces_the_others(
    ca_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``ca_file`` before the environment, the environment before the system."""
    assert trusted(TlsConfig(ca_file=ca_file).context()) == 1
    assert trusted(TlsConfig(ca_file=str(ca_file)).context()) == 1
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
    assert trusted(TlsConfig().context()) == 1
    two = tmp_path / "two.pem"
    two.write_bytes(ca_file.read_bytes() + trustme.CA().cert_pem.bytes())
    assert trusted(TlsConfig(ca_file=two).context()) == 2


def test_a_folder_from_the_environment_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its certificates are read when they are needed; nothing else is trusted."""
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    assert trusted(TlsConfig().context()) == 0


def test_an_empty_system_store_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bare container has no certificates; certifi's are better than none."""
    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", lambda self: None)
    paths = ssl.get_default_verify_paths()._replace(capath=str(tmp_path))
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)
    assert trusted(TlsConfig().context()) > 50
    (tmp_path / "0a1b2c3d.0").touch()
    assert trusted(TlsConfig().context()) == 0
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths._replace(capath=str(tmp_path / "none")))
    assert trusted(TlsConfig().context()) > 50


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR", "ca_file", "cert_file", "key_file"])
def test_a_missing_file_is_named_with_its_setting(
    name: str, ca_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has to guess which of them it was."""
    missing = tmp_path / "missing.pem"
    options: dict[str, Path] = {}
    if name.isupper():
        monkeypatch.setenv(name, str(missing))
    else:
        options = {"ca_file": ca_file, "cert_file": ca_file, name: missing}
    with pytest.raises(ConfigError, match=f"{name} names '.*missing.pem'"):
        TlsConfig(**options).context()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "content", [b"", b"no certificate", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_file_without_certificates_is_refused(content: bytes, tmp_path: Path) -> None:
    """Trusting nobody is not what was meant."""
    path = tmp_path / "odd.pem"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"ca_file names .*odd\.pem', which holds no certificate"):
        TlsConfig(ca_file=path).context()


def test_our_certificate_needs_its_key(authority: trustme.CA, ca_file: Path, tmp_path: Path) -> None:
    """In one file or two, encrypted or not; a wrong password is an error, never a question on the terminal."""
    ours, other = authority.issue_cert("a@example.invalid"), authority.issue_cert("b@example.invalid")
    certificate, key, both, locked = (tmp_path / name for name in ("certificate", "key", "both", "locked"))
    certificate.write_bytes(ours.cert_chain_pems[0].bytes())
    key.write_bytes(ours.private_key_pem.bytes())
    both.write_bytes(ours.private_key_and_cert_chain_pem.bytes())
    private = serialization.load_pem_private_key(ours.private_key_pem.bytes(), None)
    locked.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"open sesame"),
        )
    )
    for config in (
        TlsConfig(ca_file=ca_file, cert_file=both),
        TlsConfig(ca_file=ca_file, cert_file=certificate, key_file=key),
        TlsConfig(ca_file=ca_file, cert_file=certificate, key_file=locked, key_password="open sesame"),
    ):
        config.context()
        assert config.for_proxy() == TlsConfig(ca_file=ca_file)
    key.write_bytes(other.private_key_pem.bytes())
    for config in (
        TlsConfig(cert_file=certificate),
        TlsConfig(cert_file=certificate, key_file=key),
        TlsConfig(cert_file=certificate, key_file=locked),
        TlsConfig(cert_file=certificate, key_file=locked, key_password="close sesame"),
    ):
        with pytest.raises(ConfigError, match="cannot be used") as caught:
            config.context()
        assert "sesame" not in str(caught.value)
        assert "sesame" not in repr(config)


@pytest.mark.parametrize(
    "options",
    [
        {"verify": "ca.pem"},
        {"verify": False, "ca_file": "ca.pem"},
        {"key_file": "key.pem"},
        {"key_password": "open sesame"},
    ],
)
def test_settings_that_contradict_each_other_are_refused(options: dict[str, object]) -> None:
    """At once, before any file is looked at."""
    with pytest.raises(ConfigError) as caught:
        TlsConfig(**options)  # type: ignore[arg-type]
    assert "sesame" not in str(caught.value)


def test_transfers_take_them() -> None:
    """One setting for everything that moves."""
    assert TransferConfig().tls == TlsConfig()
