"""A server between a client and an object store, which answers 503, cuts connections or loses answers at will."""

import socket
import threading
from urllib.parse import unquote

CONDITIONS = (b"if-none-match:", b"if-match:", b"x-goog-if-generation-match:")


class FaultyProxy:
    """Forwards HTTP requests to `port`, one a connection; `faults` are used up one a request, None: none.

    "503", "429", "403": answered so, and not forwarded. "cut": closed without an answer, and not forwarded. "lost":
    forwarded, but its answer is thrown away. "half": only half of its answer comes. "slow": its answer comes a second
    later. `match` says which requests, by their first line, percent-decoded. `blind`: conditions are dropped, as by a
    store without them.
    """

    def __init__(self, port):
        self.to, self.faults, self.match, self.seen = port, [], lambda line: True, []
        self.blind = False
        self._lock = threading.Lock()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self._server.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        with client:
            head, body = _read(client)
            if not head:
                return
            line = unquote(head.split(b"\r\n")[0].decode())
            with self._lock:
                fault = self.faults.pop(0) if self.faults and self.match(line) else None
                self.seen.append((line, fault))
            if fault == "cut":
                return
            if fault == "403":
                body = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
                client.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
                return
            if fault in ("503", "429"):
                client.sendall(
                    b"HTTP/1.1 %s Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % fault.encode()
                )
                return
            left_out = (b"connection:", b"expect:", *(CONDITIONS if self.blind else ()))
            lines = [x for x in head.split(b"\r\n") if not x.lower().startswith(left_out)]
            with socket.create_connection(("127.0.0.1", self.to)) as server:
                server.sendall(b"\r\n".join([*lines, b"Connection: close"]) + b"\r\n\r\n" + body)
                answer = b"".join(iter(lambda: server.recv(65536), b""))
            if fault == "lost":
                return
            if fault == "slow":
                threading.Event().wait(1.0)
            client.sendall(answer[: len(answer) // 2] if fault == "half" else answer)


def _read(client):
    data = b""
    while b"\r\n\r\n" not in data:
        more = client.recv(65536)
        if not more:
            return b"", b""
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    fields = dict(x.lower().split(b":", 1) for x in head.split(b"\r\n")[1:])
    length = int(fields.get(b"content-length", 0))
    while len(body) < length:
        body += client.recv(65536)
    return head, body
