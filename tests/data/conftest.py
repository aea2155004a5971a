"""What the tests of the data sets share: a server on this machine to download from."""

import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dsna_lib.data import fetch


@pytest.fixture
def server(monkeypatch):
    """A server with `pages` to fill, `requests` (path, Range header) to look at, and `url(path)`."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv(fetch.ARCHIVES_VARIABLE, raising=False)
    monkeypatch.setattr(fetch, "PAUSE", 0.0)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            wanted = self.headers.get("Range")
            self.server.requests.append((self.path, wanted))
            page = self.server.pages.get(self.path)
            if page is None or page.status != 200:
                self.send_error(page.status if page else 404)
                return
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and page.ranges else 0
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(page.body) - 1}/{len(page.body)}")
            if page.length:
                self.send_header("Content-Length", str(len(page.body) - start))
            self.send_header("Content-Type", page.content_type)
            self.end_headers()
            time.sleep(page.wait)
            body = page.body[start:]
            self.wfile.write(body[: page.cuts.pop(0)] if page.cuts else body)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.pages, server.requests = {}, []
    server.url = lambda path: f"http://127.0.0.1:{server.server_port}{path}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()
