"""What a policy decides and reports, beyond the vectors."""

import dataclasses

import pytest
from a43_values import a_peer, a_principal, a_text

import secure_server.authz
from secure_server.auth.principal import ANONYMOUS
from secure_server.authz import AuditCondition, Decision, NamedLogger, Policy

_METHOD = "/pkg.Service/Method"


def _allows(source, principal, **call):
    policy = Policy.parse(a_text({"name": "a", "source": source}))
    return policy.decide(_METHOD, peer=None, principal=principal, **call).allowed


def test_the_public_names_are_few():
    assert secure_server.authz.__all__ == [
        "AuditCondition",
        "Decision",
        "NamedLogger",
        "Policy",
        "PolicyError",
    ]


def test_a_decision_cannot_be_changed():
    decision = Decision(allowed=False, rule="", audit=False, policy="p")
    with pytest.raises(dataclasses.FrozenInstanceError):
        decision.allowed = True


@pytest.mark.parametrize(
    ("pattern", "allowed"),
    [
        ("https://issuer.test/alice", True),
        ("https://issuer.test/*", True),
        ("*/alice", True),
        ("*", True),
        ("alice", False),
        ("https://other.test/alice", False),
        ("https://issuer.test/alic", False),
    ],
)
def test_request_principals_are_issuer_slash_subject(pattern, allowed):
    assert _allows({"request_principals": [pattern]}, a_principal()) is allowed


@pytest.mark.parametrize(
    "source",
    [
        {"request_principals": ["*", "", "/", "*/"]},
        {"scopes": ["*", ""]},
        {"roles": ["*", ""]},
        {"claims": {"sub": ["*", ""]}},
    ],
)
def test_the_anonymous_match_no_pattern_at_all(source):
    claimed = dataclasses.replace(
        ANONYMOUS, scopes=frozenset({"s"}), roles=frozenset({"r"}), claims={"sub": "x"}
    )
    assert not _allows(source, ANONYMOUS)
    assert not _allows(source, claimed)


def test_one_of_the_scopes_or_roles_is_enough():
    principal = a_principal(scopes=frozenset({"read", "write"}), roles=frozenset({"dev"}))
    assert _allows({"scopes": ["admin", "wri*"]}, principal)
    assert _allows({"roles": ["dev"]}, principal)
    assert not _allows({"scopes": ["admin"]}, principal)
    assert not _allows({"roles": ["*"]}, a_principal())


@pytest.mark.parametrize(
    ("name", "pattern", "allowed"),
    [
        ("email", "*@a.test", True),
        ("groups", "ops", True),
        ("groups", "op", False),
        ("realm_access.roles", "admin", True),
        ("[realm_access][roles]", "admin", True),
        ("realm_access", "*", False),
        ("realm_access.roles.admin", "*", False),
        ("[https://a.test/roles]", "boss", True),
        ("[kubernetes.io][namespace]", "prod", True),
        ("kubernetes.io.namespace", "*", False),
        ("email_verified", "true", True),
        ("email_verified", "True", False),
        ("level", "3", True),
        ("ratio", "0.5", True),
        ("nothing", "*", False),
        ("nothing", "null", False),
        ("empty", "*", False),
        ("absent", "*", False),
        ("mixed", "2", True),
        ("mixed", "in", False),
    ],
)
def test_claims_are_found_and_read_as_text(name, pattern, allowed):
    claims = {
        "email": "alice@a.test",
        "groups": ["dev", "ops"],
        "realm_access": {"roles": ["admin"]},
        "https://a.test/roles": "boss",
        "kubernetes.io": {"namespace": "prod"},
        "email_verified": True,
        "level": 3,
        "ratio": 0.5,
        "nothing": None,
        "empty": [],
        "mixed": [1, 2, ["in"], {"in": "in"}, None],
    }
    assert _allows({"claims": {name: [pattern]}}, a_principal(claims=claims)) is allowed


def test_all_conditions_of_a_source_must_hold():
    source = {
        "principals": ["spiffe://a.test/web"],
        "request_principals": ["*/alice"],
        "roles": ["admin"],
        "scopes": ["write"],
        "claims": {"org": ["a"], "level": ["3"]},
    }
    policy = Policy.parse(a_text({"name": "a", "source": source}))
    everything = {
        "roles": frozenset({"admin"}),
        "scopes": frozenset({"write"}),
        "claims": {"org": "a", "level": 3},
    }
    peer = a_peer(uri_sans=["spiffe://a.test/web"])

    assert policy.decide(_METHOD, peer=peer, principal=a_principal(**everything)).allowed
    assert not policy.decide(_METHOD, peer=None, principal=a_principal(**everything)).allowed
    assert not policy.decide(_METHOD, peer=peer, principal=a_principal("bob", **everything)).allowed
    for one, none in (("roles", frozenset()), ("scopes", frozenset()), ("claims", {"org": "a"})):
        principal = a_principal(**{**everything, one: none})
        assert not policy.decide(_METHOD, peer=peer, principal=principal).allowed


def test_a_peer_on_plaintext_matches_no_principals():
    policy = Policy.parse(a_text({"name": "a", "source": {"principals": ["*", ""]}}))
    peer = a_peer(uri_sans=["spiffe://a.test/x"])
    assert not policy.decide(_METHOD, peer=peer, principal=ANONYMOUS, tls=False).allowed
    assert policy.decide(_METHOD, peer=None, principal=ANONYMOUS).allowed


def test_the_first_rule_in_file_order_is_the_one_named():
    policy = Policy.parse(
        a_text(
            {"name": "suffix", "request": {"paths": ["*/Method"]}, "source": {"roles": ["x"]}},
            {"name": "prefix", "request": {"paths": ["/pkg.*"]}},
            {"name": "exact", "request": {"paths": [_METHOD]}},
            {"name": "all"},
        )
    )

    def rule(method, **more):
        return policy.decide(method, peer=None, principal=a_principal(**more)).rule

    assert rule(_METHOD, roles=frozenset({"x"})) == "suffix"
    assert rule(_METHOD) == "prefix"
    assert rule("/other.Service/Other") == "all"


def test_headers_are_asked_for_only_where_a_rule_of_the_method_looks_at_them():
    headers = [{"key": "X-Tenant", "values": ["a"]}]
    policy = Policy.parse(
        a_text(
            {"name": "a", "request": {"paths": ["/a.*"], "headers": headers}},
            {"name": "b", "request": {"paths": ["/b.S/M"]}},
            {"name": "c", "request": {"paths": ["/c.S/M"]}, "source": {"claims": {"org": ["a"]}}},
        )
    )
    assert policy.reads_headers("/a.S/M")
    assert not policy.reads_headers("/b.S/M")
    assert [policy.names(f"/{package}.S/M") for package in "abcd"] == [True, True, True, False]


def test_a_rule_without_paths_names_every_method():
    policy = Policy.parse(a_text({"name": "a", "source": {"roles": ["x"]}}))
    assert policy.names("/any.Service/Thing")


def _audited(condition, loggers=("stdout_logger",)):
    options = {"audit_loggers": [{"name": name} for name in loggers]}
    if condition is not None:
        options["audit_condition"] = condition
    rule = {"name": "a", "request": {"paths": ["/a"]}}
    policy = Policy.parse(a_text(rule, audit_logging_options=options))
    return tuple(
        policy.decide(method, peer=None, principal=ANONYMOUS).audit for method in ("/a", "/b")
    )


@pytest.mark.parametrize(
    ("condition", "allowed", "denied"),
    [
        (None, False, False),
        ("NONE", False, False),
        ("ON_DENY", False, True),
        ("ON_ALLOW", True, False),
        ("ON_DENY_AND_ALLOW", True, True),
    ],
)
def test_the_audit_condition_is_about_the_decision(condition, allowed, denied):
    assert _audited(condition) == (allowed, denied)


def test_there_is_no_event_without_a_logger():
    assert _audited("ON_DENY_AND_ALLOW", loggers=()) == (False, False)


def test_loggers_are_kept_for_the_caller_and_unknown_optional_ones_are_not():
    config = {"a": {"b": [1, "x"]}}
    loggers = [
        {"name": "stdout_logger"},
        {"name": "mine", "config": config, "is_optional": True},
        {"name": "theirs", "is_optional": True},
    ]
    options = {"audit_condition": "ON_DENY", "audit_loggers": loggers}
    policy = Policy.parse(
        a_text({"name": "a"}, audit_logging_options=options),
        known_loggers=frozenset({"stdout_logger", "mine"}),
    )
    assert policy.audit_condition is AuditCondition.ON_DENY
    assert policy.audit_loggers == (
        NamedLogger("stdout_logger", {}, is_optional=False),
        NamedLogger("mine", {"a": {"b": (1, "x")}}, is_optional=True),
    )
    with pytest.raises(TypeError):
        policy.audit_loggers[1].config["a"]["b"] = ()


def test_its_repr_names_it():
    assert repr(Policy.parse(a_text({"name": "a"}))) == "<Policy 'authz'>"
