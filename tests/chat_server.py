"""A server on this machine that speaks the chat-completions protocol, as a test tells it to."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@dataclass(frozen=True)
class Reply:
    """What the server answers: a completion of `text`, or `body` as it is."""

    text: str | None = None
    body: str | None = None
    status: int = 200
    kind: str = "application/json"
    finish: str = "stop"
    seconds: float = 0.0

    def payload(self) -> bytes:
        if self.body is not None:
            return self.body.encode()
        message = {"role": "assistant", "content": self.text}
        choice = {"index": 0, "message": message, "finish_reason": self.finish}
        whole = {"id": "1", "object": "chat.completion", "created": 0, "model": "tiny"}
        return json.dumps(whole | {"choices": [choice]}).encode()


@dataclass
class ChatServer:
    """Its replies, one a request, the last of them for all further ones; and what it was asked."""

    replies: Sequence[Reply]
    base_url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)

    def answer(self, request: dict[str, Any], key: str | None) -> Reply:
        self.requests.append(request)
        self.keys.append(key)
        return self.replies[min(len(self.requests), len(self.replies)) - 1]


@contextmanager
def chat_server(*replies: Reply) -> Iterator[ChatServer]:
    """Serve `replies` for the length of the context."""
    chat = ChatServer(replies)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            size = int(self.headers["Content-Length"])
            request = json.loads(self.rfile.read(size))
            reply = chat.answer(request, self.headers.get("Authorization"))
            if self.path != "/v1/chat/completions":
                reply = Reply(body="{}", status=404)
            time.sleep(reply.seconds)
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.kind)
            self.send_header("retry-after-ms", "1")
            self.end_headers()
            self.wfile.write(reply.payload())

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda request, client_address: None  # a client that did not wait
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    chat.base_url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield chat
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
