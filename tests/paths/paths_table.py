"""The table of certificate chains, and its moment zero."""

from __future__ import annotations

import time

from paths_row import Row
from paths_rows_leaves import LEAVES, PRODUCTS
from paths_rows_rfc5280 import RFC5280
from paths_rows_trust import TRUST

ROWS: tuple[Row, ...] = (*LEAVES, *RFC5280, *TRUST, *PRODUCTS)
assert len({str(row) for row in ROWS}) == len(ROWS), "two rows of one name"

ZERO = int(time.time())
"""Now, for TLS itself reads the clock."""
