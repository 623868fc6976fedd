"""One authority for the whole run, to save time."""

import pytest

from secure_tls import Authority, Issued
from secure_tls.cli import main


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority.create("example.org")


@pytest.fixture
def save(tmp_path):
    """Write a leaf as NAME.pem and NAME.key, as safely as the generator does."""

    def write(issued: Issued, name: str):
        certificate, key = tmp_path / f"{name}.pem", tmp_path / f"{name}.key"
        certificate.write_bytes(issued.certificate_pem)
        key.touch(mode=0o600)
        key.write_bytes(issued.private_key_pem)
        return certificate, key

    return write


@pytest.fixture
def bundle(tmp_path, authority):
    path = tmp_path / "bundle.pem"
    path.write_bytes(authority.certificate_pem)
    return path


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run the command in an empty folder; return exit code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        output = capsys.readouterr()
        assert "Traceback" not in output.err
        return caught.value.code or 0, output.out, output.err

    return run
