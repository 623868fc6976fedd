"""M4: several paths, of which one is good; and many that lead nowhere."""

from __future__ import annotations

from paths_pki import authority, client, root
from paths_row import ONE_PATH, STRICT, Row

_TWIN = {"twin": root("twin", subject="root"), "mid": authority("twin")}

SEVERAL = (
    Row("two trusted roots of one name, the second is meant", pki=_TWIN, trusted=("root", "twin")),
    Row(
        "two trusted roots of one name, the first is meant",
        pki={**_TWIN, "mid": authority("root")},
        trusted=("root", "twin"),
        wire=True,
    ),
    Row("two roots of one name, the wrong one is trusted", "certificate_authority", pki=_TWIN),
    *(
        Row(
            f"two intermediates of one name and two keys, {order}",
            pki={"twin": authority("root", subject="mid"), "leaf": client("mid", aki=False)},
            sent=sent,
            openssl=STRICT,
        )
        for order, sent in (("first", ("mid", "twin")), ("second", ("twin", "mid")))
    ),
    *(
        Row(
            f"M4 an intermediate that {what} beside a good one of its key",
            pki={"bad": authority("root", subject="mid", key="mid", **how)},
            sent=("bad", "mid"),
        )
        for what, how in (
            ("is over", {"until": -1}),
            ("may not sign", {"usage": ("crl",)}),
            ("is for servers", {"uses": ("server",)}),
            ("excludes the name", {"excluded": ("URI:example.org",)}),
            ("has an unknown critical extension", {"unknown": "critical"}),
        )
    ),
    Row(
        "M4 a longer path is good where the shorter is not",
        pki={
            "root": root("root", until=-1),
            "cross": authority("next", subject="root", key="root"),
            "next": root("next"),
        },
        sent=("mid", "cross"),
        trusted=("root", "next"),
        openssl=ONE_PATH,
    ),
    Row(
        "a loop of cross-certificates leads nowhere",
        "certificate_authority",
        pki={
            "a": authority("b"),
            "b": authority("a"),
            "leaf": client("a"),
        },
        sent=("a", "b"),
    ),
    Row(
        "a loop of cross-certificates with a way out",
        pki={
            "a": authority("b"),
            "b": authority("a"),
            "out": authority("root", subject="b", key="b"),
            "leaf": client("a"),
        },
        sent=("a", "out", "b"),
        wire=True,
    ),
    Row(
        "eight twins that all vouch for each other lead nowhere",
        "certificate_authority",
        pki={f"t{n}": authority("t0", subject="t", key="t", serial=100 + n) for n in range(8)}
        | {"leaf": client("t0")},
        sent=tuple(f"t{n}" for n in range(8)),
    ),
    Row(
        "eight strangers are sent before the intermediate",
        "path",
        pki={f"s{n}": authority("acme") for n in range(8)},
        sent=(*(f"s{n}" for n in range(8)), "mid"),
        openssl="it looks at all that is sent",
        wire=True,
    ),
    Row(
        "seven strangers are sent before the intermediate",
        pki={f"s{n}": authority("acme") for n in range(7)},
        sent=(*(f"s{n}" for n in range(7)), "mid"),
    ),
)
