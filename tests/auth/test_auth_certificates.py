"""Workloads that have a client certificate and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from auth_door import STACKS, guarded

from secure_server import ConfigError, Principal
from secure_server.app.check import check_service
from secure_server.auth.certificate import CertificateAuthenticator
from secure_server.auth.plugin import Grant
from secure_server.config import read_config
from secure_server.testing import Provider, as_principal
from secure_tls.folder import CertificateFolder, Order

ALICE = "spiffe://example.org/client/alice"


@pytest.mark.parametrize("stack", STACKS)
def test_a_bare_certificate_is_a_caller_like_any_other(stack: str) -> None:
    policy = {
        "name": "auth",
        "allow_rules": [
            {
                "name": "alice",
                "source": {"request_principals": [f"spiffe://example.org/{ALICE}"]},
            }
        ],
    }
    with guarded(stack, {"type": "certificate"}, policy=policy) as door:
        for _ in range(2):
            assert door.ask() == ("OK", f"certificate {ALICE} [] []")
        assert door.ask(client="bob")[0] == "PERMISSION_DENIED", "recognised, and not allowed"


@pytest.mark.parametrize("stack", STACKS)
def test_with_a_token_the_bare_certificate_is_not_asked(stack: str) -> None:
    """A bad token is refused, even over a certificate that would be recognised alone."""
    with guarded(stack, {"type": "certificate"}) as door:
        assert door.code("Bearer nonsense") == "unclaimed"
        assert door.code("Basic nonsense") == "unclaimed"
        assert door.code("") == "authorization"
        assert door.code() == "ok"


@pytest.mark.parametrize("stack", STACKS)
def test_without_that_authenticator_a_bare_certificate_is_anonymous(stack: str) -> None:
    with guarded(stack) as door:
        assert door.code() == "anonymous_denied"


def test_roles_and_scopes_are_those_of_the_workload() -> None:
    grants = {ALICE: Grant(frozenset({"billing"}), frozenset({"read"}))}
    authenticator = CertificateAuthenticator("certificate", grants)
    with as_principal("-", peer_spiffe_id=ALICE) as caller:
        known = authenticator.authenticate(None, caller.peer)
        assert isinstance(known, Principal)
        assert (known.roles, known.scopes) == ({"billing"}, {"read"})
        assert (known.subject, known.issuer) == (ALICE, "spiffe://example.org")
        assert known.expires_at == caller.peer.not_after  # type: ignore[union-attr]
    with as_principal("-", peer_spiffe_id="spiffe://example.org/client/bob") as caller:
        assert authenticator.authenticate(None, caller.peer).roles == frozenset()  # type: ignore[union-attr]
    assert authenticator.authenticate(None, None) is None


def check(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    (folder / "secure-server.toml").write_text(text)
    return subprocess.run(
        [str(Path(sys.executable).with_name("secure-server")), "check"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_check_says_what_each_authenticator_would_accept(
    provider: Provider, tmp_path: Path
) -> None:
    folder = CertificateFolder(tmp_path / "certs")
    folder.generate([Order.server("server", ["localhost"], stem="server")])
    (tmp_path / "api-keys.toml").write_text("")
    (tmp_path / "secret").touch(mode=0o600)
    (tmp_path / "secret").write_text(provider.client_secret)
    text = f"""
[[authenticators]]
type = "jwt"
[[authenticators]]
type = "certificate"
[[authenticators]]
type = "api_key"
file = "api-keys.toml"
[[authenticators]]
type = "oidc"
name = "sso"
profile = "rfc9068"
issuer = "{provider.issuer.name}"
audience = "users-api"
ca = "{provider.ca_file}"
allow_private_addresses = true
[[authenticators]]
type = "introspection"
endpoint = "{provider.introspection_endpoint}"
issuer = "{provider.issuer.name}"
audience = "users-api"
client_id = "{provider.client_id}"
client_secret_file = "secret"
ca = "{provider.ca_file}"
allow_private_addresses = true
"""
    done = check(tmp_path, text)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert all(line.startswith("ok  ") for line in lines), lines
    assert "authenticator sso: rfc9068 tokens of" in done.stdout
    assert f"{provider.issuer.key_id} (ES256)" in done.stdout
    assert "authenticator introspection: opaque tokens of" in done.stdout
    assert not (tmp_path / "state").exists(), "the check created files"
    provider.fail()
    done = check(tmp_path, text)
    assert done.returncode == 0, "a start does not wait for issuers"
    warned = [line for line in done.stdout.splitlines() if line.startswith("warn")]
    assert [line.split(":")[0] for line in warned] == [
        "warn  authenticator sso",
        "warn  authenticator introspection",
    ]
    assert "503" in warned[0]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ('type = "oidk"', "is no type of authenticator that is installed; did you mean oidc?"),
        ('type = "oidc"\nprofile = "rfc9068"\nissuer = "https://x"', "audience is missing."),
        ('type = "oidc"\nprofil = "rfc9068"', "is not a setting; did you mean profile?"),
        ('type = "oidc"\nissuer = "http://x"', "issuer is not an https:// URL"),
        ('type = "api_key"\nfile = "none.toml"', "none.toml: cannot read the API keys"),
    ],
)
def test_a_mistake_is_said_in_a_sentence(tmp_path: Path, table: str, sentence: str) -> None:
    path = tmp_path / "secure-server.toml"
    path.write_text(f"[[authenticators]]\n{table}\n")
    try:
        said = "\n".join(finding.text for finding in check_service(read_config(path)))
    except ConfigError as error:
        said = str(error)
        assert said.startswith(f"{path}:")
    assert sentence in said
