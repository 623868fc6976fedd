"""The example plug-in, installed from its own folder into an empty one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/acme-sso"


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What holds the plug-in and nothing else; on PYTHONPATH it counts as installed."""
    root = tmp_path_factory.mktemp("plugin")
    # From a copy, because setuptools builds in the folder itself.
    names = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
    source = shutil.copytree(EXAMPLE, root / "acme-sso", ignore=names)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", root / "site", source],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return root / "site"
