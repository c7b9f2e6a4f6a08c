"""Serves the images of one workspace to the annotation page: read only, no listing, nothing but PNG files.

It has no login, since a page cannot send one with a picture; whoever knows the key in the address may read. The key
comes from a file, not from the command line, where every user of the machine could see it.
"""

from __future__ import annotations

import hmac
import sys
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from annotation.access import Access

FOLDER = "images"
"""Of a workspace: what the first part of every path below the key is."""


class Handler(SimpleHTTPRequestHandler):
    """Answers GET and HEAD for `/<key>/images/...png`, and 404 for anything else.

    Attributes:
        root: the workspace's `images`, all links resolved.
        access: key and allowed origins.
    """

    protocol_version = "HTTP/1.1"
    timeout = 30  # seconds: of silence on a connection
    root: Path
    access: Access

    def translate_path(self, path: str) -> str:
        """The file that a request means, or one that cannot be: a folder lists what it holds."""
        key, _, rest = unquote(urlsplit(path).path).lstrip("/").partition("/")
        kind, _, name = rest.partition("/")
        known = hmac.compare_digest(key.encode("utf-8", "replace"), self.access.image_key.encode())
        if known and kind == FOLDER and name.endswith(".png") and "\0" not in name:
            file = (self.root / name).resolve()
            if file.is_relative_to(self.root) and file.is_file():
                return str(file)
        return ""

    def send_head(self) -> BinaryIO | None:
        """Answers whether we are up, sends an image's headers, or says that there is none."""
        if self.path == "/health":
            self.send_response(HTTPStatus.NO_CONTENT)
            self.end_headers()
            return None
        if not self.translate_path(self.path):
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        return super().send_head()

    def end_headers(self) -> None:
        """Adds who may fetch it, and that a copy must be asked about before it is shown: forgeries may be made anew."""
        headers = getattr(self, "headers", {})  # a request that is none has no headers
        if (origin := headers.get("Origin")) in self.access.origins:
            self.send_header("Access-Control-Allow-Origin", str(origin))
        self.send_header("Vary", "Origin")
        self.send_header("Cache-Control", "private, no-cache")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: the key is in every address."""


def serve(folder: Path, workspace: Path) -> None:
    """Serves until it is ended.

    Args:
        folder: of the server's data, with its access file.
        workspace: whose images to serve.
    """
    access = Access.load(folder)
    assert access is not None, "the server's start writes it first"
    handler = type("_Handler", (Handler,), {"root": (workspace / FOLDER).resolve(), "access": access})
    ThreadingHTTPServer((access.host, access.image_port), handler).serve_forever()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), Path(sys.argv[2]))
