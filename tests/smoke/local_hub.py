"""A Hub on this machine that keeps what it is given."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0" * 39 + "1"


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub's protocol as one commit and one download take."""

    files: dict[str, bytes]

    def do_POST(self) -> None:
        body = self._body()
        if self.path.endswith("/repos/create"):
            self._say({"url": f"http://{self.headers['Host']}/owner/{json.loads(body)['name']}"})
        elif "/preupload/" in self.path:
            files = [{"path": one["path"], "uploadMode": "regular"} for one in json.loads(body)["files"]]
            self._say({"files": [{**one, "shouldIgnore": False, "oid": None} for one in files]})
        elif "/commit/" in self.path:
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    type(self).files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            self._say(
                {
                    "success": True,
                    "commitOid": COMMIT,
                    "commitUrl": f"http://{self.headers['Host']}/owner/small/commit/{COMMIT}",
                }
            )
        elif self.path == "/api/validate-yaml":
            self._say({"errors": [], "warnings": []})
        elif "paths-info" in self.path:
            self._say([])
        else:
            self.send_error(404)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def do_GET(self) -> None:
        self._give(with_body=True)

    def do_HEAD(self) -> None:
        self._give(with_body=False)

    def _give(self, *, with_body: bool) -> None:
        if "/resolve/" in self.path:
            content = type(self).files.get(self.path.split("/resolve/")[1].partition("/")[2])
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if with_body:
                self.wfile.write(content)
        elif self.path.startswith("/api/models/") and "/tree/" in self.path:
            sizes = [(name, len(content)) for name, content in type(self).files.items()]
            self._say([{"type": "file", "path": name, "size": size, "oid": "0" * 40} for name, size in sizes])
        elif self.path.startswith("/api/models/"):
            siblings = [{"rfilename": name} for name in type(self).files]
            self._say({"id": "owner/small", "modelId": "owner/small", "sha": COMMIT, "siblings": siblings, "tags": []})
        else:
            self.send_error(404)

    def _say(self, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serve_hub() -> Iterator[tuple[str, dict[str, bytes]]]:
    """Its address, and what it holds."""
    handler = type("OwnHub", (Hub,), {"files": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler.files
    finally:
        server.shutdown()
        server.server_close()
