"""A server of files on loopback, which can be told to fail as servers do."""

import hashlib
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


class FileServer:
    """
    Sends the files of a folder by HTTP, and to those who ask as for S3 (/BUCKET/KEY is the same path); a context manager.

    Parameters
    ----------
    folder : Path
    etags : bool
        Whether files have an ETag, as at most servers.

    Attributes
    ----------
    asked : list of (str, dict)
        Path and headers of each request, names of headers in lower case.
    failures : list
        What happens to the next requests, in turn: a status such as 503; "truncated": the connection ends in the middle; "page": a web
        page; "dropped": it ends before an answer; None: nothing; or an address to which the client is sent.
    pause : float
        Seconds between two blocks of a file.
    """

    def __init__(self, folder, etags=True):
        self.folder, self.etags = Path(folder), etags
        self.asked, self.failures, self.pause = [], [], 0.0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def address(self):
        """Such as http://127.0.0.1:40123."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def url(self, name):
        """Address of a file."""
        return f"{self.address}/{name}"

    def n_asked(self, name):
        """How often a file was asked for."""
        return sum(path == f"/{name}" for path, _ in self.asked)

    def _handler(server):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                path = unquote(urlsplit(self.path).path)
                server.asked.append((path, {name.lower(): value for name, value in self.headers.items()}))
                failure = server.failures.pop(0) if server.failures else None
                file = server.folder / path.lstrip("/")
                if failure == "dropped":
                    self.close_connection = True
                elif failure == "page":
                    self._send(200, b"<html>Please log in</html>", {"Content-Type": "text/html"})
                elif isinstance(failure, str) and "://" in failure:
                    self._send(302, b"", {"Location": failure})
                elif isinstance(failure, int):
                    self._send(failure, b"")
                elif not file.is_file():
                    self._send(404, b"")
                else:
                    content = file.read_bytes()
                    self._send(200, content, self._described(file, content), failure == "truncated")

            def _described(self, file, content):
                modified = {"Last-Modified": formatdate(file.stat().st_mtime, usegmt=True)}
                etag = {"ETag": f'"{hashlib.md5(content).hexdigest()}"'} if server.etags else {}
                return modified | etag | {"Content-Type": "application/octet-stream"}

            def _send(self, status, content, headers=None, truncated=False):
                self.send_response(status)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                sent = content[: len(content) // 2] if truncated else content
                for start in range(0, len(sent), 1 << 16):
                    self.wfile.write(sent[start : start + (1 << 16)])
                    time.sleep(server.pause)
                self.close_connection = self.close_connection or truncated

            def log_message(self, *_):
                pass

        return Handler
