"""Reloading the policy file during calls: a valid one is used, an invalid one changes nothing."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from audit_door import METHOD, audited, file_logger, policy, records

from secure_server.authz import Policy
from secure_server.config import ConfigError
from secure_server.guard.policy_file import PolicyFile
from secure_server.shipped_policy import shipped_policy
from support.door import wait_until
from support.house import call, running_house

PD = "PERMISSION_DENIED"
ALL_CLIENTS = policy(
    allow_rules=[{"name": "all clients", "source": {"principals": ["spiffe://example.org/*"]}}]
)
RELOADED = "reloaded"
FAILURES = 'secure_grpc_reload_failures_total{source="policy"}'
SUCCESS = 'secure_grpc_reload_success_time_seconds{source="policy"}'
REFUSED = "cannot be reloaded; the last good one stays"


def events(log: list[dict[str, Any]], event: str) -> list[dict[str, Any]]:
    return [line for line in log if line["event"] == event]


def write_over(path: Path, text: str) -> None:
    path.write_text(text)


def rename_into_place(path: Path, text: str) -> None:
    draft = path.with_suffix(".new")
    draft.write_text(text)
    draft.replace(path)


def swap_links(path: Path, text: str) -> None:
    """As Kubernetes does it for a ConfigMap: the link that changes is one of the way's."""
    version = path.parent / f"..{time.time_ns()}"
    version.mkdir()
    (version / path.name).write_text(text)
    link = path.parent / "..new"
    link.symlink_to(version.name)
    link.replace(path.parent / "..data")
    if not path.is_symlink():
        path.unlink()
        path.symlink_to(f"..data/{path.name}")


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("change", [write_over, rename_into_place, swap_links])
def test_a_good_one_decides_from_then_on(
    tmp_path: Path, stack: str, change: Callable[[Path, str], None], log: list[dict[str, Any]]
) -> None:
    """Callers who are known, and whose decisions are remembered, among the callers."""
    narrow = policy()
    with audited(tmp_path, stack, narrow) as door:
        for number, (text, bob) in enumerate(
            [(ALL_CLIENTS, "OK"), (narrow, PD), (ALL_CLIENTS, "OK")]
        ):
            before = "OK" if bob == PD else PD
            assert door.call(client="bob") == before
            loaded_at = door.guard.reloads.statuses["policy"].succeeded_at
            change(door.policy_file, text)
            wait_until(lambda: door.call(client="bob") != before)  # noqa: B023 - called in the loop
            assert door.call(client="bob") == bob
            assert door.call() == "OK"
            assert len(events(log, RELOADED)) == number + 1
            assert door.guard.reloads.statuses["policy"].succeeded_at > loaded_at
        assert events(log, REFUSED) == []
        assert door.guard.reloads.statuses["policy"].failures == 0


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize(
    ("bad", "line", "column"),
    [
        ('{"name": "probe",\n "allow_rules": [}', 2, 18),
        ('{"name": "probe",\n "allow_rule": []}', 2, 2),
        (policy({"name": "syslog"}), 1, None),
        ("", 1, 1),
        (None, None, None),
    ],
)
def test_a_bad_one_keeps_the_last_good_and_is_said_and_counted_once(
    tmp_path: Path,
    stack: str,
    log: list[dict[str, Any]],
    bad: str | None,
    line: int | None,
    column: int | None,
) -> None:
    with audited(tmp_path, stack, policy()) as door:
        followed = door.guard.reloads.statuses["policy"]
        if bad is None:
            door.policy_file.unlink()
        else:
            door.policy_file.write_text(bad)
        wait_until(lambda: followed.failures == 1)
        tries = followed._tries
        wait_until(lambda: followed._tries > tries)
        assert (door.call(), door.call(client="bob")) == ("OK", PD)
        assert followed.failures == 1
        (said,) = events(log, REFUSED)
        assert said["source"] == "policy"
        place = "" if line is None else f":{line}:" if column is None else f":{line}:{column}:"
        assert said["reason"].startswith(f"{door.policy_file}{place}")
        assert followed.failure == said["reason"]
        door.policy_file.write_text(ALL_CLIENTS)
        wait_until(lambda: door.call(client="bob") == "OK")
        wait_until(lambda: followed.failure == "")
        assert followed.failures == 1


@pytest.mark.usefixtures("fast")
def test_a_bad_one_that_is_undone_is_forgotten(tmp_path: Path, log: list[dict[str, Any]]) -> None:
    with audited(tmp_path, "threads", policy()) as door:
        followed = door.guard.reloads.statuses["policy"]
        for number in (1, 2):
            door.policy_file.write_text("{")
            wait_until(lambda: followed.failures == number)  # noqa: B023
            assert followed.failure
            door.policy_file.write_text(policy())
            wait_until(lambda: followed.failure == "")
    assert len(events(log, REFUSED)) == 2
    assert len(events(log, RELOADED)) == 2


def test_a_writer_who_is_at_it_just_now_is_no_failure(
    tmp_path: Path, log: list[dict[str, Any]]
) -> None:
    """Looked at by hand here: in the middle of writing, and after it."""
    path = tmp_path / "policy.json"
    path.write_text(policy())
    followed = PolicyFile(path)
    for end in (10, 100, len(ALL_CLIENTS)):
        path.write_text(ALL_CLIENTS[:end])
        followed.look()
        assert bool(followed.status.reason) is (end < len(ALL_CLIENTS))
    followed.close()
    assert followed.status.failures == 0
    assert events(log, REFUSED) == []
    assert followed.watched.value.names("/any/Method")


@pytest.mark.usefixtures("fast")
def test_its_loggers_are_swapped_and_those_that_stay_keep_what_they_have(
    tmp_path: Path, stack: str
) -> None:
    stays, goes, comes = (tmp_path / f"{name}.log" for name in ("stays", "goes", "comes"))
    with audited(tmp_path, stack, policy(file_logger(stays), file_logger(goes))) as door:
        before = [one.queued for one in door.loggers._told[1]]
        assert door.call() == "OK"
        door.policy_file.write_text(policy(file_logger(comes), file_logger(stays)))
        wait_until(comes.exists)
        wait_until(lambda: not before[1]._thread.is_alive())
        assert len(records(goes)) == 1, "what it still had was written"
        assert door.call() == "OK"
        after = [one.queued for one in door.loggers._told[1]]
        assert after[1] is before[0]
        door.policy_file.write_text(policy(file_logger(stays), condition="ON_DENY"))
        wait_until(lambda: len(door.loggers._told[1]) == 1)
        assert door.call() == "OK"
        assert door.call(client="bob") == PD
    assert [len(records(file)) for file in (stays, goes, comes)] == [3, 1, 1]
    assert door.dropped == {"file_logger": 0}


@pytest.mark.usefixtures("fast")
def test_one_whose_logger_cannot_be_opened_is_not_taken_up_until_it_can(
    tmp_path: Path, stack: str, log: list[dict[str, Any]]
) -> None:
    old, new = tmp_path / "old.log", tmp_path / "folder" / "new.log"
    with audited(tmp_path, stack, policy(file_logger(old))) as door:
        wider = json.loads(ALL_CLIENTS)
        wider["audit_logging_options"] = json.loads(policy(file_logger(old), file_logger(new)))[
            "audit_logging_options"
        ]
        door.policy_file.write_text(json.dumps(wider))
        wait_until(lambda: door.guard.reloads.statuses["policy"].failures == 1)
        assert door.call(client="bob") == PD, "neither the rules nor the loggers"
        (said,) = events(log, REFUSED)
        assert f"{new}: cannot be written: No such file or directory" in said["reason"]
        new.parent.mkdir()
        wait_until(lambda: door.call(client="bob") == "OK")
    assert [record["principal"] for record in records(new)] == [
        "spiffe://example.org/client/bob"
    ] * len(records(new))
    assert {record["authorized"] for record in records(new)} == {True}
    assert records(old)[-1]["authorized"] is True


def test_G14_a_method_that_no_rule_is_about_is_warned_of_once(
    tmp_path: Path, stack: str, log: list[dict[str, Any]]
) -> None:
    with audited(tmp_path, stack, policy()) as door:
        for _ in range(3):
            assert door.call("/probe.Probe/Forgotten") == PD
            assert door.call("/probe.Probe/Other", token=None) == "UNAUTHENTICATED"
            assert door.call(METHOD, client="bob") == PD, "a rule is about it"
            assert door.call("/probe.Probe/Never") == PD, "a rule denies it"
            assert door.call("/missing.Service/It") == PD, "no service has this method"
    warned = [line for line in log if line["event"].startswith("no rule of the policy is about")]
    assert [line["method"] for line in warned] == ["/probe.Probe/Forgotten", "/probe.Probe/Other"]
    assert {line["log_level"] for line in warned} == {"warning"}
    assert len([line for line in log if line["event"] == "call refused"]) == 15


# --- the shipped server ---

GET_USER = "/secure_api.users.v1.UserService/GetUser"
OPEN_METHOD = "/secure_api.tokens.v1.TokenService/GetKeySet"


def shipped(**keys: Any) -> str:
    """The policy that comes with the server, with other keys."""
    import secure_server

    path = Path(secure_server.__file__).with_name("policy.json")
    return json.dumps(json.loads(path.read_text()) | keys)


def forgetful() -> str:
    """The same without a rule for ``GetUser``: as if that was another method's."""
    paths = [
        "/secure_api.users.v1.UserService/ListUsers",
        "/secure_api.tokens.v1.TokenService/*",
    ]
    rule = {"name": "a", "request": {"paths": paths}}
    return json.dumps({"name": "short", "allow_rules": [rule]})


def metrics(address: str) -> dict[str, float]:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as page:
        text = page.read().decode()
    pairs = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


@pytest.mark.usefixtures("fast")
def test_G14_the_server_keeps_its_policy_when_a_new_one_forgets_a_method(
    tmp_path: Path, log: list[dict[str, Any]]
) -> None:
    path = tmp_path / "policy.json"
    path.write_text(shipped())
    settings = '[policy]\nfile = "policy.json"\n[http]\nlisten = "127.0.0.1:0"\n'
    with running_house(tmp_path, settings) as house:
        http = house.server.http_address
        at_first = metrics(http)
        assert at_first[FAILURES] == 0
        assert at_first['secure_grpc_audit_dropped_total{logger="log"}'] == 0
        assert abs(at_first[SUCCESS] - time.time()) < 60
        path.write_text(forgetful())
        wait_until(lambda: metrics(http)[FAILURES] == 1)
        (said,) = events(log, REFUSED)
        assert "has no rule for" in said["reason"]
        assert GET_USER in said["reason"]
        with urllib.request.urlopen(f"http://{http}/healthz", timeout=10) as page:
            (warning,) = json.load(page)["warnings"]
        assert warning == f"policy {REFUSED}: {said['reason']}"
        channel = house.channel(house.admin)
        assert call(channel, method=OPEN_METHOD, request=b"").served
        file = tmp_path / "audit.log"
        no_caller = {"name": "no caller", "request": {"paths": [OPEN_METHOD]}}
        options = {"audit_condition": "ON_DENY", "audit_loggers": [file_logger(file)]}
        path.write_text(shipped(deny_rules=[no_caller], audit_logging_options=options))
        wait_until(lambda: not call(channel, method=OPEN_METHOD, request=b"").served)
        now = metrics(http)
        assert now['secure_grpc_audit_dropped_total{logger="file_logger"}'] == 0
        assert now[SUCCESS] > (at_first[SUCCESS])
    assert [record["matched_rule"] for record in records(file)] == ["no caller"] * len(
        records(file)
    )
    assert records(file)


def test_G14_the_server_does_not_start_with_it(tmp_path: Path) -> None:
    (tmp_path / "policy.json").write_text(forgetful())
    with (
        pytest.raises(ConfigError, match="has no rule for"),
        running_house(tmp_path, '[policy]\nfile = "policy.json"\n'),
    ):
        pass


def test_the_shipped_policy_needs_no_file_and_tells_no_loggers() -> None:
    assert shipped_policy().audit_loggers == ()


def is_open(path: Path) -> bool:
    links = (link for link in Path("/proc/self/fd").iterdir() if link.is_symlink())
    return path in [link.readlink() for link in links]


def test_what_a_policy_opened_is_closed_with_it(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    (tmp_path / "policy.json").write_text(policy(file_logger(log)))
    followed = PolicyFile(tmp_path / "policy.json")
    assert is_open(log)
    followed.close()
    assert not is_open(log)


def test_one_that_is_closed_opens_no_logger_any_more(tmp_path: Path) -> None:
    path, log = tmp_path / "policy.json", tmp_path / "audit.log"
    path.write_text(policy())
    followed = PolicyFile(path)
    followed.close()
    path.write_text(policy(file_logger(log)))
    followed.look()
    assert not is_open(log)


def test_one_that_is_not_accepted_opens_no_logger(tmp_path: Path) -> None:
    path, log = tmp_path / "policy.json", tmp_path / "audit.log"
    path.write_text(policy())

    def accept(found: Policy) -> None:
        if found.audit_loggers:
            raise ConfigError("no policy with loggers")

    followed = PolicyFile(path, accept=accept)
    path.write_text(policy(file_logger(log)))
    followed.look()
    assert "no policy with loggers" in followed.status.reason
    assert not is_open(log)
    followed.close()
