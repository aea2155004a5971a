"""Packages of npm, by version and checksum, for pages that carry their scripts along."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from dsna_lib.engine.files import write_atomically

CACHE = Path(__file__).resolve().parents[1] / "_build" / "npm"
PUBLIC = "https://registry.npmjs.org/"


class NotToBeHadError(Exception):
    """A part that is neither here nor can be fetched; the message says how to get it."""


@dataclass(frozen=True)
class Package:
    """A package as the registry states it.

    Args:
        name: of the package.
        version: the one that is used.
        integrity: what ``npm view NAME@VERSION dist.integrity`` prints.
    """

    name: str
    version: str
    integrity: str


def registry() -> str:
    """The registry that npm is told to use here, or the public one."""
    npm = shutil.which("npm")
    if npm is None:
        said = os.environ.get("NPM_CONFIG_REGISTRY", "")
    else:
        said = subprocess.run([npm, "config", "get", "registry"], capture_output=True, text=True).stdout.strip()
    return f"{said.rstrip('/')}/" if said.startswith(("http://", "https://")) else PUBLIC


def fetch(package: Package, cache: Path | None = None) -> bytes:
    """A package's archive, from the cache or the registry; one with another checksum is refused.

    Args:
        package: which one.
        cache: a folder; default :data:`CACHE`.

    Raises:
        NotToBeHadError: it is neither here nor can be fetched, or is another one.
    """
    cache = cache or CACHE
    name = f"{package.name}-{package.version}.tgz"
    kept, address = cache / name, f"{registry()}{package.name}/-/{name}"
    source = kept if kept.exists() else address
    hint = f"put what `npm pack {package.name}@{package.version}` fetches into {cache}"
    try:
        content = kept.read_bytes() if source == kept else urllib.request.urlopen(address, timeout=60).read()
    except (OSError, ValueError) as error:
        raise NotToBeHadError(f"{source} cannot be read ({error}); {hint}") from error
    if f"sha512-{base64.b64encode(hashlib.sha512(content).digest()).decode()}" != package.integrity:
        kept.unlink(missing_ok=True)  # so that the next call fetches it
        raise NotToBeHadError(f"{source} has another checksum than {package.name} {package.version}; {hint}")
    if source == address:
        write_atomically(kept, lambda file: file.write(content))
    return content
