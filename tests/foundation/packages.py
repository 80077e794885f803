"""Small wheels that pip finds without a network."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from foundation.wheels import Wheel

METADATA = "Metadata-Version: 2.1\nName: tiny-data\nVersion: 1.0\n"
FORMAT = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def carrying(content: Mapping[str, bytes], links: Path, monkeypatch: pytest.MonkeyPatch) -> Wheel:
    """A wheel of these files, the only one that pip finds from now on."""
    links.mkdir()
    path = links / "tiny_data-1.0-py3-none-any.whl"
    info = {"METADATA": METADATA, "WHEEL": FORMAT, "RECORD": ""}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in [*content.items(), *((f"tiny_data-1.0.dist-info/{n}", text) for n, text in info.items())]:
            archive.writestr(name, data)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return Wheel("tiny-data==1.0", path.name, hashlib.sha256(path.read_bytes()).hexdigest(), "some data")
