"""What the downloader's tests fetch: pages of a server of our own, and small archives on them."""

from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import dataclass, field

from dsna_lib.data.fetch import Archive

BODY = bytes(range(256)) * 400  # 102,400 bytes


@dataclass
class Page:
    """What the server does at one address."""

    body: bytes = BODY
    cuts: list[int] = field(default_factory=list)  # after so many bytes the connection breaks, once each
    ranges: bool = True
    status: int = 200
    content_type: str = "application/x-tar"
    length: bool = True
    wait: float = 0.0  # seconds before the body


def archive(server, *paths: str, body: bytes = BODY, name: str = "data.tar") -> Archive:
    checksum = f"md5:{hashlib.md5(body).hexdigest()}"
    return Archive(name, tuple(server.url(path) for path in paths), len(body), checksum, "test data")


def tar_bytes(members: dict[str, bytes | tarfile.TarInfo], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, content in members.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content) if isinstance(content, bytes) else 0
            tar.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return buffer.getvalue()
