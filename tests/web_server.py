"""A web server of the tests' own, on loopback. In: files. Out: their bytes, whole or in ranges, and its faults.

It also speaks what a model hub's client asks for: a repository, its list of files, and where a file lies.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class WebServer:
    """Serves `files` (path → bytes). Use as a context manager.

    `drop_after` holds how many bytes each of the next answers may have before the connection is cut,
    `answer_codes` what the next answers are instead. `repository` is the name of the model hub's only one, whose
    files are `files`; `stated_checksum` is what it claims for all of them.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    drop_after: list[int] = field(default_factory=list)
    answer_codes: list[int] = field(default_factory=list)
    has_ranges: bool = True
    has_tags: bool = True
    states_length: bool = True
    repository: str | None = None
    stated_checksum: str | None = None
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def __enter__(self) -> Self:
        handler = type("Handler", (_Handler,), {"web": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def gets(self, path: str) -> list[dict[str, str]]:
        """The headers of each time that a file was asked for."""
        return [headers for method, asked, headers in self.requests if (method, asked) == ("GET", path)]


class _Handler(BaseHTTPRequestHandler):
    web: WebServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_args: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._serve(with_body=False)

    def do_GET(self) -> None:
        self._serve(with_body=True)

    def _serve(self, *, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.web.requests.append((self.command, path, dict(self.headers)))
        self.close_connection = True
        if self.web.answer_codes:
            self._say(self.web.answer_codes.pop(0), b"")
        elif path in self.web.files:
            self._send_file(self.web.files[path], with_body=with_body)
        elif self.web.repository is not None:
            self._speak_hub(path, self.web.repository, with_body=with_body)
        else:
            self._say(404, b"")

    def _send_file(self, content: bytes, *, with_body: bool, headers: dict[str, str] | None = None) -> None:
        tag = f'"{hashlib.sha256(content).hexdigest()}"'
        start, total = 0, len(content)
        code, sent = 200, dict(headers or {})
        if self.web.has_tags and headers is None:
            sent["ETag"] = tag
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked and self.web.has_ranges and self.headers.get("If-Range") in {None, tag}:
            start = int(asked[1])
            if start >= total:
                self._say(416, b"", {"Content-Range": f"bytes */{total}"})
                return
            code, sent["Content-Range"] = 206, f"bytes {start}-{total - 1}/{total}"
        if self.web.states_length:
            sent["Content-Length"] = str(total - start)
        self.send_response(code)
        self.send_header("Connection", "close")
        for name, value in sent.items():
            self.send_header(name, value)
        self.end_headers()
        if not with_body:
            return
        end = start + self.web.drop_after.pop(0) if self.web.drop_after else total
        self.wfile.write(content[start:end])

    def _speak_hub(self, path: str, repository: str, *, with_body: bool) -> None:
        """The few answers of a model hub that its client needs for one file."""
        names = {file.lstrip("/"): content for file, content in self.web.files.items()}
        if path.startswith(f"/api/models/{repository}/tree/"):
            entries = [_entry(name, content) for name, content in names.items()]
            self._say(200, json.dumps(entries).encode())
        elif path.startswith((f"/api/models/{repository}/revision/", f"/api/models/{repository}")):
            siblings = [{"rfilename": name} for name in names]
            self._say(200, json.dumps({"id": repository, "sha": COMMIT, "siblings": siblings}).encode())
        elif path.startswith(f"/{repository}/resolve/"):
            name = path.removeprefix(f"/{repository}/resolve/").partition("/")[2]
            checksum = self.web.stated_checksum or hashlib.sha256(names[name]).hexdigest()
            headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{checksum}"', "Accept-Ranges": "bytes"}
            self._send_file(names[name], with_body=with_body, headers=headers)
        else:
            self._say(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def _say(self, code: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        self.send_header("Connection", "close")
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def _entry(name: str, content: bytes) -> dict[str, Any]:
    """A file in a hub's list, as it describes large ones."""
    checksum = hashlib.sha256(content).hexdigest()
    return {
        "type": "file",
        "path": name,
        "oid": checksum[:40],
        "size": len(content),
        "lfs": {"oid": checksum, "size": len(content), "pointerSize": 134},
    }
