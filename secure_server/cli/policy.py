"""``secure-server policy``: check a policy, ask it for its reasons, hold it to expectations.

Each command imports what it needs when it runs: none needs the identity service or its store.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from secure_server.cli.output import as_json, fail

policy_app = typer.Typer(
    help="Check a policy, ask it for its reasons, hold it to what is expected of it.",
    no_args_is_help=True,
)

PolicyFile = Annotated[Path, typer.Argument(metavar="POLICY", help="The policy, a JSON file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@policy_app.command("check")
def check(
    policy: PolicyFile,
    *,
    descriptor_set: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The server's methods: what protoc --descriptor_set_out wrote."
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(metavar="/PKG.SERVICE/METHOD", help="A method of the server; repeatable."),
    ] = None,
    as_json_: AsJson = False,
) -> None:
    """Find what is wrong with a policy, and what its author cannot have meant.

    The methods of the identity service are known. Exit status 1 where the server would not start.
    """
    from secure_server.audit.options import configured_loggers
    from secure_server.audit.plugin import announced
    from secure_server.authz import PolicyError
    from secure_server.authz.check import check as look_through
    from secure_server.authz.parser import parse
    from secure_server.cli.policy_call import CallError, check_method
    from secure_server.cli.policy_methods import MethodsError, about_shipped, methods_of
    from secure_server.cli.policy_report import error_object, print_report, report_object
    from secure_server.shipped_policy import SHIPPED_METHODS

    text = _read(policy)
    try:
        methods = [check_method(each) for each in method or ()]
        methods += methods_of(descriptor_set) if descriptor_set else ()
        loggers = announced()
        parsed = parse(text, origin=str(policy), known_loggers=loggers)
        configured_loggers(text, origin=str(policy), folder=policy.parent)
        rules = (*parsed.deny_rules, *parsed.allow_rules)
        required = SHIPPED_METHODS if about_shipped(rules) else ()
        methods = list(dict.fromkeys((*required, *methods)))
        report = look_through(
            text,
            origin=str(policy),
            known_loggers=loggers,
            methods=methods,
            required=required,
        )
    except (CallError, MethodsError) as error:
        raise fail(str(error)) from None
    except PolicyError as error:
        if not as_json_:
            raise
        as_json(error_object(error))
        raise typer.Exit(1) from None
    if as_json_:
        as_json(report_object(report))
    else:
        print_report(report, policy, len(methods))
    if any(finding.is_error for finding in report.findings):
        raise typer.Exit(1)


@policy_app.command("explain")
def explain(
    policy: PolicyFile,
    *,
    method: Annotated[
        str, typer.Option(metavar="/PKG.SERVICE/METHOD", help="What is called: the full path.")
    ],
    spiffe_id: Annotated[
        str | None, typer.Option(metavar="URI", help="The client certificate's SPIFFE ID.")
    ] = None,
    dns_san: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A DNS name of the client certificate; repeatable."),
    ] = None,
    claims: Annotated[
        str | None,
        typer.Option(
            metavar="JSON", help="The token's claims: iss, sub, scope and roles count as such."
        ),
    ] = None,
    issuer: Annotated[str | None, typer.Option(help="The token's issuer.")] = None,
    subject: Annotated[str | None, typer.Option(help="The token's subject.")] = None,
    role: Annotated[
        list[str] | None, typer.Option(help="A role of the caller; repeatable.")
    ] = None,
    scope: Annotated[
        list[str] | None, typer.Option(help="A scope of the token; repeatable.")
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="A header of the call; repeatable."),
    ] = None,
    as_json_: AsJson = False,
) -> None:
    """Say whether a call is allowed, by which rule, and what was missing for the others.

    Without any word about a token the caller is anonymous.
    """
    from secure_server.authz import Policy
    from secure_server.authz.places import Places
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
    from secure_server.cli.policy_report import explanation_object, print_explanation

    text = _read(policy)
    asked = Policy.parse(text, origin=str(policy), known_loggers=None)
    try:
        uri_sans = () if spiffe_id is None else (check_spiffe_id(spiffe_id),)
        call = Call(
            check_method(method),
            peer_of(uri_sans=uri_sans, dns_sans=dns_san or ()) if uri_sans or dns_san else None,
            principal_of(
                issuer=issuer,
                subject=subject,
                roles=role or (),
                scopes=scope or (),
                claims=None if claims is None else _object(claims),
            ),
            headers_of(_pair(each) for each in header or ()),
        )
        check_headers(asked, call)
    except CallError as error:
        raise fail(str(error)) from None
    explanation = asked.explain(
        call.method, peer=call.peer, principal=call.principal, headers=call.headers
    )
    if as_json_:
        as_json(explanation_object(explanation, Places(text)))
    else:
        print_explanation(explanation, Places(text))


@policy_app.command("test")
def hold(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="[POLICY] CASES", help="The policy, unless each case has one, and the cases."
        ),
    ],
    *,
    as_json_: Annotated[bool, typer.Option("--json", help="Print one JSON line a case.")] = False,
) -> None:
    """Decide a table of cases, JSON or YAML; exit status 1 where one is not as expected."""
    from secure_server.authz import Policy
    from secure_server.cli.policy_cases import CasesError, decide_cases
    from secure_server.cli.policy_report import difference, print_verdicts, verdict_object

    if len(files) > 2:
        raise typer.BadParameter("One policy and one file of cases.", param_hint="[POLICY] CASES")
    *policies, cases_file = files
    policy = None
    for file in policies:
        policy = Policy.parse(_read(file), origin=str(file), known_loggers=None)
    try:
        verdicts = decide_cases(cases_file, policy)
    except CasesError as error:
        raise fail(str(error)) from None
    if as_json_:
        for case, verdict in verdicts:
            as_json(verdict_object(case, verdict))
    else:
        print_verdicts(verdicts, cases_file)
    differing = [pair for pair in verdicts if not pair[0].is_met_by(pair[1])]
    if not differing:
        return
    if as_json_:
        for case, verdict in differing:
            typer.echo(f"secure-server: {difference(case, verdict)}", err=True)
    raise typer.Exit(1)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise fail(f"{path}: cannot read the policy: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise fail(f"{path}: the policy is not UTF-8.") from None


def _object(text: str) -> dict[str, Any]:
    import json

    from secure_server.cli.policy_call import CallError

    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise CallError('--claims takes a JSON object, such as {"scope": "read"}.')
    return value


def _pair(text: str) -> tuple[str, str]:
    from secure_server.cli.policy_call import CallError

    key, equals, value = text.partition("=")
    if not key or not equals:
        raise CallError(f"--header takes KEY=VALUE, not {text[:80]!a}.")
    return key, value
