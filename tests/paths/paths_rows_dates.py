"""M4 and M5: both ends of every validity period, and renewals."""

from __future__ import annotations

from paths_pki import DAY, authority, client, root
from paths_row import LAST_SECOND, ONE_PATH, TLS_ONE_PATH, TLS_TOO, Row

_SHORT_MID = {"mid": authority("root", until=20 * DAY)}
_SHORT_ROOT = {"root": root("root", until=20 * DAY)}

DATES = (
    # Both ends of a validity period are in it (section 4.1.2.5).
    Row("M4 dates: the leaf in its first second", at=-5 * DAY),
    Row("M4 dates: the leaf a second before", "certificate_dates", at=-5 * DAY - 1),
    Row("M4 dates: the leaf in its last second", at=50 * DAY, openssl=LAST_SECOND, wire=True),
    Row("M4 dates: the leaf a second after", "certificate_dates", at=50 * DAY + 1, wire=True),
    Row(
        "M4 dates: the intermediate in its first second",
        pki={"mid": authority("root", since=-DAY)},
        at=-DAY,
    ),
    Row(
        "M4 dates: the intermediate a second before",
        "issuer_dates",
        pki={"mid": authority("root", since=-DAY)},
        at=-DAY - 1,
    ),
    Row(
        "M4 dates: the intermediate in its last second",
        pki=_SHORT_MID,
        at=20 * DAY,
        openssl=LAST_SECOND,
        wire=True,
    ),
    Row(
        "M4 dates: the intermediate a second after",
        "issuer_dates",
        pki=_SHORT_MID,
        at=20 * DAY + 1,
        wire=True,
    ),
    Row("M4 dates: the root in its first second", pki={"root": root("root", since=-DAY)}, at=-DAY),
    Row(
        "M4 dates: the root a second before",
        "issuer_dates",
        pki={"root": root("root", since=-DAY)},
        at=-DAY - 1,
    ),
    Row("M4 dates: the root in its last second", pki=_SHORT_ROOT, at=20 * DAY, openssl=LAST_SECOND),
    Row("M4 dates: the root a second after", "issuer_dates", pki=_SHORT_ROOT, at=20 * DAY + 1),
    Row(
        "M4 dates: the second intermediate is over",
        "issuer_dates",
        pki={**_SHORT_MID, "leaf": client("low")},
        sent=("low", "mid"),
        at=20 * DAY + 1,
        wire=True,
    ),
)

RENEWED = (
    Row(
        "M5 the intermediate is over",
        "issuer_dates",
        pki={"mid": authority("root", until=-1)},
        wire=TLS_TOO,
    ),
    Row(
        "M5 an intermediate renewed with its key, the leaf as it was",
        pki={
            "mid": authority("root", until=-1),
            "new": authority("root", key="mid", subject="mid"),
        },
        sent=("new",),
        wire=True,
    ),
    Row(
        "M5 the old intermediate beside the renewed one does no harm",
        pki={
            "mid": authority("root", until=-1),
            "new": authority("root", key="mid", subject="mid"),
        },
        sent=("new", "mid"),
        wire=True,
    ),
    Row(
        "M5 the old intermediate before the renewed one does no harm",
        pki={
            "mid": authority("root", until=-1),
            "new": authority("root", key="mid", subject="mid"),
        },
        sent=("mid", "new"),
        wire=TLS_ONE_PATH,
    ),
    Row(
        "M5 an intermediate not yet valid beside a good one does no harm",
        pki={"new": authority("root", key="mid", subject="mid", since=DAY)},
        sent=("new", "mid"),
    ),
    Row(
        "M5 an intermediate renewed with another key does not vouch for the old leaf",
        "certificate_authority",
        pki={"new": authority("root", subject="mid")},
        sent=("new",),
        wire=TLS_TOO,
    ),
    Row(
        "M5 the root is renewed with its key, the intermediate as it was",
        pki={"root": root("root", until=-1), "root2": root("root2", key="root", subject="root")},
        trusted=("root", "root2"),
        wire=True,
    ),
    Row(
        "M5 the root is renewed with its key, the new one stands first",
        pki={"root": root("root", until=-1), "root2": root("root2", key="root", subject="root")},
        trusted=("root2", "root"),
        wire=True,
    ),
    Row(
        "M5 a trusted intermediate is over, and its renewal is sent",
        pki={
            "mid": authority("root", until=-1),
            "new": authority("root", key="mid", subject="mid"),
        },
        sent=("new",),
        trusted=("mid", "root"),
        openssl=ONE_PATH,
    ),
)
