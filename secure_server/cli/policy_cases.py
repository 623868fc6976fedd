"""Files of cases: what a policy is expected to decide."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from secure_server.authz import Policy, PolicyError
from secure_server.cli.policy_call import (
    Call,
    CallError,
    check_headers,
    check_method,
    check_spiffe_id,
    headers_of,
    peer_of,
    principal_of,
)

_Decision: TypeAlias = Literal["allow", "deny", "parse_error"]
_Texts: TypeAlias = Annotated[
    list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
]
_Pair: TypeAlias = Annotated[list[str], Field(min_length=2, max_length=2)]


class CasesError(ValueError):
    """A file of cases that cannot be used."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a case. ``rule`` is None where none decided; ``why`` is for parse errors.

    ``decision`` is None where the policy parsed, and the case asks nothing of it.
    """

    decision: _Decision | None
    policy: str = ""
    rule: str | None = None
    why: str = ""

    @property
    def matched_rule(self) -> str | None:
        """The rule with the policy's name in front, as grpc-go has it in its messages."""
        return None if self.rule is None else f"{self.policy}_{self.rule}"


@dataclass(frozen=True, slots=True)
class Case:
    """One expectation. ``rule`` and ``matched_rule`` are those of a `Verdict`, None for any.

    ``policy_text`` is the case's own policy, if it brings one, whatever it is worth.
    """

    id: str
    expect: _Decision
    rule: str | None
    matched_rule: str | None
    policy_text: str | None
    call: Call | None

    @property
    def needs_policy(self) -> bool:
        return self.policy_text is None and self.call is not None

    def verdict(self, policy: Policy | None) -> Verdict:
        """Ask the case's own policy, or else ``policy``. Raises `CallError`."""
        if self.policy_text is not None:
            try:
                policy = Policy.parse(self.policy_text, known_loggers=None)
            except PolicyError as error:
                return Verdict("parse_error", why=str(error))
        call = self.call
        if policy is None or call is None:
            return Verdict(None)
        check_headers(policy, call)
        decision = policy.decide(
            call.method,
            peer=call.peer,
            principal=call.principal,
            headers=call.headers,
            tls=call.tls,
        )
        word: _Decision = "allow" if decision.allowed else "deny"
        return Verdict(word, policy.name, decision.rule or None)

    def is_met_by(self, verdict: Verdict) -> bool:
        return (
            verdict.decision == self.expect
            and self.rule in {None, verdict.rule}
            and self.matched_rule in {None, verdict.matched_rule}
        )


class _Written(BaseModel):
    """A case as people write it."""

    model_config = ConfigDict(strict=True, extra="forbid")

    id: str = Field(min_length=1)
    method: str
    spiffe_id: str | None = None
    dns_sans: list[str] = []
    issuer: str | None = None
    subject: str | None = None
    roles: list[str] = []
    scopes: list[str] = []
    claims: dict[str, Any] | None = None
    headers: dict[str, _Texts] = {}
    expect: Literal["allow", "deny"]
    rule: str | None = None

    def case(self) -> Case:
        uri_sans = () if self.spiffe_id is None else (check_spiffe_id(self.spiffe_id),)
        has_certificate = uri_sans or self.dns_sans
        principal = principal_of(
            issuer=self.issuer,
            subject=self.subject,
            roles=self.roles,
            scopes=self.scopes,
            claims=self.claims,
        )
        headers = ((key, value) for key, values in self.headers.items() for value in values)
        call = Call(
            check_method(self.method),
            peer_of(uri_sans=uri_sans, dns_sans=self.dns_sans) if has_certificate else None,
            principal,
            headers_of(headers),
        )
        return Case(self.id, self.expect, self.rule, None, None, call)


class _Certificate(BaseModel):
    model_config = ConfigDict(strict=True)

    uri_sans: list[str] = []
    dns_sans: list[str] = []
    subject: str = ""


class _Request(BaseModel):
    model_config = ConfigDict(strict=True)

    path: str
    headers: list[_Pair] = []
    transport: Literal["plaintext", "tls", "mtls"] = "mtls"
    cert: _Certificate | None = None

    def call(self) -> Call:
        cert = self.cert
        return Call(
            self.path,
            None if cert is None else peer_of(**cert.model_dump()),
            principal_of(),
            headers_of((key, value) for key, value in self.headers),
            tls=self.transport != "plaintext",
        )


class _Vector(BaseModel):
    """A case that brings its policy; what else it tells of itself is not looked at."""

    model_config = ConfigDict(strict=True)

    id: str = Field(min_length=1)
    policy: Any = None
    policy_text: str | None = None
    request: _Request | None = None
    expect: _Decision
    matched_rule: str | None = None

    def case(self) -> Case:
        text = self.policy_text
        if text is None and "policy" in self.model_fields_set:
            text = json.dumps(self.policy)
        call = None if self.request is None else self.request.call()
        return Case(self.id, self.expect, None, self.matched_rule, text, call)


def read_cases(path: Path) -> list[Case]:
    """Read JSON or YAML: a list of cases, or an object whose ``cases`` they are.

    Raises `CasesError`, which names the file and the case.
    """
    document = _decoded(path)
    items = document.get("cases") if isinstance(document, dict) else document
    if not isinstance(items, list) or not items:
        raise CasesError(f"{path}: there are no cases. Write a list of them.")
    cases: dict[str, Case] = {}
    for number, item in enumerate(items, start=1):
        try:
            case = _case(item)
        except CallError as error:
            raise CasesError(f"{path}: {_title(item, number)}: {error}") from None
        if case.id in cases:
            raise CasesError(f"{path}: {_title(item, number)}: another case has this id.")
        cases[case.id] = case
    return list(cases.values())


def decide_cases(path: Path, policy: Policy | None) -> list[tuple[Case, Verdict]]:
    """Read a file of cases and ask each one's own policy, or else ``policy``.

    Raises `CasesError`, which names the file and the case.
    """
    verdicts = []
    for case in read_cases(path):
        if policy is None and case.needs_policy:
            raise CasesError(
                f"{path}: case {case.id}: there is no policy. Name one before the cases."
            )
        try:
            verdicts.append((case, case.verdict(policy)))
        except CallError as error:
            raise CasesError(f"{path}: case {case.id}: {error}") from None
    return verdicts


def _case(item: Any) -> Case:
    if not isinstance(item, Mapping):
        raise CallError("is no object with id, method and expect.")
    own_policy = not item.keys().isdisjoint(("policy", "policy_text", "request"))
    try:
        return (_Vector if own_policy else _Written).model_validate(item).case()
    except ValidationError as error:
        first = error.errors()[0]
        raise CallError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}.") from None


def _title(item: Any, number: int) -> str:
    name = item.get("id") if isinstance(item, Mapping) else None
    return f"case {name}" if isinstance(name, str) and name else f"case number {number}"


def _decoded(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text) if path.suffix == ".json" else _yaml(text, path)
    except OSError as error:
        raise CasesError(f"{path}: cannot read the cases: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise CasesError(f"{path}: the cases are not UTF-8.") from None
    except json.JSONDecodeError as error:
        place = f"{path}:{error.lineno}:{error.colno}"
        raise CasesError(f"{place}: is not valid JSON: {error.msg}.") from None
    except RecursionError:
        raise CasesError(f"{path}: is nested too deep.") from None


def _yaml(text: str, path: Path) -> Any:
    """Decode YAML in which a key that is given twice is the error that the standard makes of it."""
    try:
        import yaml
    except ModuleNotFoundError:  # the base install has none
        raise CasesError(
            f"{path}: reading YAML needs the package pyyaml. Install it, or write the cases in "
            "JSON, in a file that ends in .json."
        ) from None

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            mapping = super().construct_mapping(node, deep=deep)
            if len(mapping) != len(node.value):
                problem = "a key is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
            return mapping

    try:
        return Loader(text).get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise CasesError(f"{place}: is not valid YAML: {error.problem}.") from None
    except (yaml.YAMLError, ValueError) as error:
        raise CasesError(f"{path}: cannot be read: {error}.") from None
