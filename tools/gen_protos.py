#!/usr/bin/env python3
"""Generate the Python code of our contracts. With --check: compare, and exit 1 on a difference."""

from __future__ import annotations

import argparse
import filecmp
import shutil
import sys
import tempfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Contract:
    """A package, the folder of its .proto files, and the folder of its generated code."""

    package: str
    protos: Path
    out: Path


CONTRACTS = (
    Contract("secure_api", ROOT / "protos", ROOT),
    Contract("greeter", ROOT / "examples/greeter/protos", ROOT / "examples/greeter"),
)


def generate(contract: Contract, out: Path) -> None:
    """Write the package generated from every .proto of a contract below ``out``."""
    from grpc_tools import protoc  # noqa: PLC0415 - only this tool needs the generator

    well_known = resources.files("grpc_tools") / "_proto"
    package = contract.package
    sources = sorted(str(path) for path in (contract.protos / package).rglob("*.proto"))
    status = protoc.main(
        [
            "protoc",
            f"--proto_path={contract.protos}",
            f"--proto_path={well_known}",
            f"--python_out={out}",
            f"--pyi_out={out}",
            f"--grpc_python_out={out}",
            *sources,
        ]
    )
    if status:
        raise SystemExit(status)
    for folder in [out / package, *(p for p in (out / package).rglob("*") if p.is_dir())]:
        (folder / "__init__.py").write_text('"""Generated from .proto files; never edited."""\n')
    (out / package / "py.typed").touch()


def _files(folder: Path) -> set[Path]:
    return {
        path.relative_to(folder)
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def main() -> None:
    """Generate, or compare and exit 1 where the committed code is out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 on a difference"
    )
    arguments = parser.parse_args()
    for contract in CONTRACTS:
        _bring_up_to_date(contract, check=arguments.check)


def _bring_up_to_date(contract: Contract, *, check: bool) -> None:
    package = contract.package
    with tempfile.TemporaryDirectory() as folder:
        fresh, present = Path(folder) / package, contract.out / package
        generate(contract, Path(folder))
        names = _files(fresh) | (_files(present) if present.is_dir() else set())
        stale = sorted(
            str(name)
            for name in names
            if not (present / name).is_file()
            or not (fresh / name).is_file()
            or not filecmp.cmp(fresh / name, present / name, shallow=False)
        )
        if check:
            if stale:
                sys.exit(
                    f"{package}/ is not what its .proto files generate ({', '.join(stale)}): "
                    "run `python tools/gen_protos.py` and commit the result."
                )
            return
        if present.is_dir():
            shutil.rmtree(present)
        shutil.copytree(fresh, present)
        print(f"{package}/: {len(_files(present))} files, {len(stale)} changed")


if __name__ == "__main__":
    main()
