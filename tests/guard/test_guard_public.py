"""The public surface: small, pinned, and documented where it is defined."""

import secure_server
from secure_server import plugins


def test_the_public_names_are_these_and_every_one_is_documented() -> None:
    assert secure_server.__all__ == [
        "ANONYMOUS",
        "AuditCallback",
        "AuditEvent",
        "AuthenticationError",
        "Authenticator",
        "AuthenticatorError",
        "AuthenticatorUnavailable",
        "Authenticators",
        "Caller",
        "ConfigError",
        "Credentials",
        "Guard",
        "Limits",
        "Peer",
        "Policy",
        "PolicyError",
        "Principal",
        "TLSSet",
        "current_caller",
        "current_principal",
    ]
    for name in secure_server.__all__:
        public = getattr(secure_server, name)
        # A type alias has its docstring after it, which is not visible at run time.
        assert public.__doc__ or name == "AuditCallback", name
        for method in vars(public) if isinstance(public, type) else ():
            member = getattr(public, method)
            if name == "Guard" and callable(member) and not method.startswith("_"):
                assert member.__doc__, f"{name}.{method}"


def test_the_names_for_plug_ins_are_these_and_no_others() -> None:
    assert plugins.__all__ == [
        "AuthenticationError",
        "Authenticator",
        "AuthenticatorContext",
        "AuthenticatorError",
        "AuthenticatorType",
        "AuthenticatorUnavailable",
        "BareCertificate",
        "CredentialMatcher",
        "Credentials",
        "File",
        "IssuedBy",
        "Opaque",
        "Peer",
        "Prefix",
        "Principal",
        "Reloaded",
        "Scheme",
        "Settings",
        "signature",
    ]
    for name in plugins.__all__:
        assert getattr(plugins, name).__doc__, name


def test_private_names_are_no_attributes() -> None:
    assert not hasattr(secure_server, "Nothing")
