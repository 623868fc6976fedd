"""A second opinion: OpenSSL agrees with every row of the table, or the row says why not."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from paths_pki import Crl, Pki
from paths_row import Row
from paths_table import ROWS, ZERO

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl")

# What OpenSSL calls it (openssl-verification-options(1), x509_vfy.h): numbers, and whether the
# leaf is meant, depth 0.
_ERRORS: dict[str, tuple[set[int], bool | None]] = {
    "is_ca": ({26, 82}, True),
    "key_usage": ({26, 82}, True),
    "eku": ({26}, True),
    "certificate_dates": ({9, 10}, True),
    # 20: an issuer that is over is left out where another has its name.
    "issuer_dates": ({9, 10, 20}, False),
    "weak_key": ({66, 67}, None),
    "weak_signature": ({68}, None),
    "certificate_authority": ({7, 18, 19, 20, 21}, None),
    "issuer_usage": ({24, 26, 32, 79, 92}, False),
    "issuer_eku": ({26}, False),
    "path_length": ({25}, False),
    "name_constraints": ({47, 48, 53}, None),
    "critical_extension": ({34}, None),
    "certificate_revoked": ({23}, True),
    "issuer_revoked": ({23}, False),
    "crl_missing": ({3, 8}, None),
    "crl_stale": ({12}, None),
}
_ERROR = re.compile(r"^error (\d+) at (\d+) depth lookup", re.MULTILINE)


@needs_openssl
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_openssl_agrees_but_for_lines_that_say_why_not(row: Row, tmp_path: Path) -> None:
    """It follows one path only, the first: so it is asked in both orders of what is sent, one good
    answer is good, and one of its reasons is the table's.
    """
    pki = row.build(ZERO)
    outputs = [_verify(row, pki, sent, tmp_path) for sent in {row.sent, row.sent[::-1]}]
    good = any(output.endswith(": OK\n") for output in outputs)
    if row.openssl:
        assert good is bool(row.code), f"it agrees, so the row needs no reason: {outputs}"
        return
    assert good is not bool(row.code), outputs
    if row.code:
        numbers, at_leaf = _ERRORS[row.code]
        errors = [(int(n), int(d)) for output in outputs for n, d in _ERROR.findall(output)]
        assert any(n in numbers and at_leaf in {None, depth == 0} for n, depth in errors), outputs


def _verify(row: Row, pki: Pki, sent: tuple[str, ...], folder: Path) -> str:
    anchors = row.anchors(pki)
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-no-CApath"]
    command += ["-no-CAstore", "-auth_level", "2", "-attime", str(row.moment(ZERO))]
    command += ["-CAfile", _write(folder / "anchors.pem", pki.pem(*anchors))]
    if any(each.issuer != each.subject for each in pki.certificates(anchors)):
        command += ["-partial_chain"]
    if sent:
        command += ["-untrusted", _write(folder / "sent.pem", pki.pem(*sent))]
    if row.lists is not None:
        command += ["-crl_check_all", "-CRLfile", _write(folder / "crls.pem", _lists(row, pki))]
    command += [_write(folder / "leaf.pem", pki.pem(row.leaf))]
    said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert said.returncode == (0 if said.stdout.endswith(": OK\n") else 2), said
    return said.stderr + said.stdout


def _write(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


def _lists(row: Row, pki: Pki) -> bytes:
    """The row's lists; and where a missing one does not refuse, an empty one in its place, for
    OpenSSL asks for all of them.
    """
    whole = [one for one in row.lists or () if not isinstance(one, Crl) or not one.truncated]
    texts = [_pem(pki.crl(one)) for one in whole]
    if not row.refuse_stale:
        keys = {_key(pki, one.by) for one in whole if isinstance(one, Crl)}
        for name in dict.fromkeys((*row.sent, *row.anchors(pki))):
            if pki.is_made_here(name) and _key(pki, name) not in keys:
                keys.add(_key(pki, name))
                texts.append(pki.crl(Crl(by=name)))
    return b"".join(texts)


def _key(pki: Pki, name: str) -> int:
    return id(pki.key(name))


def _pem(data: bytes) -> bytes:
    if data.startswith(b"-----"):
        return data
    return x509.load_der_x509_crl(data).public_bytes(Encoding.PEM)
