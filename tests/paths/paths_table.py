"""The table of certificate chains, and its moment zero."""

from __future__ import annotations

import time

from paths_row import Row
from paths_rows_constraints import CONSTRAINTS
from paths_rows_dates import DATES, RENEWED
from paths_rows_domains import CROSS, DOMAINS
from paths_rows_issuers import ISSUERS, USES
from paths_rows_leaves import LEAVES, PRODUCTS
from paths_rows_lists import LISTS
from paths_rows_partners import PARTNERS
from paths_rows_several import SEVERAL
from paths_rows_strength import EXTENSIONS, KEYS

ROWS: tuple[Row, ...] = (
    *(*LEAVES, *PRODUCTS),
    *(*DATES, *RENEWED, *ISSUERS, *USES, *CONSTRAINTS, *KEYS, *EXTENSIONS),
    *(*DOMAINS, *CROSS, *SEVERAL, *LISTS, *PARTNERS),
)
assert len({str(row) for row in ROWS}) == len(ROWS), "two rows of one name"

ZERO = int(time.time())
"""Now, for TLS itself reads the clock."""
