"""Google Cloud Storage's XML API in this process: the calls of obstore's client, with preconditions by generation.

Written after https://cloud.google.com/storage/docs/xml-api/reference-methods, since the emulators that can be installed
have no preconditions (gcp-storage-emulator) or ignore those in headers (fake-gcs-server).
Who asks is not looked at.
"""

import hashlib
import itertools
import re
import threading
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import gmtime, strftime, time, time_ns  # by name: tests set other clocks to `time.time`
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

PAGE = 1000
PART = 5 << 20
"""Bytes that every part of a large object but the last must have."""


class Object(NamedTuple):
    """One state of an object."""

    data: bytes
    generation: int
    modified: float

    @property
    def tag(self):
        return f'"{hashlib.md5(self.data).hexdigest()}"'


class GcsServer(ThreadingHTTPServer):
    """Buckets by name in `buckets`, made by whoever starts it."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Request)
        self.buckets: dict[str, dict[str, Object]] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.lock, self.numbers = threading.Lock(), itertools.count(time_ns() // 1000)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Refused(Exception):
    """An answer of Google's own kind: a status, a code and words."""


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: GcsServer

    def log_message(self, *said):
        pass

    def _answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _serve(self):
        parts = urlsplit(self.path)
        bucket, _, name = parts.path.lstrip("/").partition("/")
        self.query = dict(parse_qsl(parts.query, keep_blank_values=True))
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            with self.server.lock:
                if (objects := self.server.buckets.get(unquote(bucket))) is None:
                    raise _Refused(404, "NoSuchBucket", "The specified bucket does not exist.")
                answer = getattr(self, self.command.lower())(objects, unquote(name))
        except _Refused as refused:
            status, code, words = refused.args
            body = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{words}</Message></Error>"
            answer = status, body.encode(), {"Content_Type": "application/xml; charset=UTF-8"}
        status, body, headers = answer
        self._answer(status, body, **headers)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve

    def _check_generation(self, objects, name):
        """Refuse what was asked for another generation; 0 is that of an object that is not there."""
        wanted = self.headers.get("x-goog-if-generation-match")
        if wanted is None:
            return
        if not wanted.isdigit():
            raise _Refused(400, "InvalidArgument", "Invalid argument.")
        if int(wanted) != (objects[name].generation if name in objects else 0):
            raise _Refused(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold.")

    def _found(self, objects, name):
        if name not in objects:
            raise _Refused(404, "NoSuchKey", "The specified key does not exist.")
        return objects[name]

    def _store(self, objects, name, data):
        self._check_generation(objects, name)
        objects[name] = Object(data, next(self.server.numbers), time())
        return {"ETag": objects[name].tag, "x_goog_generation": objects[name].generation, "x_goog_metageneration": 1}

    def _parts(self):
        if (parts := self.server.uploads.get(self.query["uploadId"])) is None:
            raise _Refused(404, "NoSuchUpload", "The requested upload was not found.")
        return parts

    def put(self, objects, name):
        if "uploadId" in self.query:
            self._parts()[int(self.query["partNumber"])] = self.body
            return 200, b"", {"ETag": f'"{hashlib.md5(self.body).hexdigest()}"'}
        return 200, b"", self._store(objects, name, self.body)

    def post(self, objects, name):
        if "uploads" in self.query:
            upload = f"upload-{next(self.server.numbers)}"
            self.server.uploads[upload] = {}
            body = f"<InitiateMultipartUploadResult><Key>{escape(name)}</Key><UploadId>{upload}</UploadId>"
            return 200, f"{body}</InitiateMultipartUploadResult>".encode(), {}
        parts, listed = self._parts(), ElementTree.fromstring(self.body).iter("Part")
        tags = {int(part.findtext("PartNumber")): part.findtext("ETag") for part in listed}
        given = [parts.get(number, b"") for number in sorted(tags)]
        if not tags or [tags[n] for n in sorted(tags)] != [f'"{hashlib.md5(part).hexdigest()}"' for part in given]:
            raise _Refused(400, "InvalidPart", "One or more of the specified parts could not be found.")
        if any(len(part) < PART for part in given[:-1]):
            raise _Refused(400, "EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size.")
        headers = self._store(objects, name, b"".join(given))
        del self.server.uploads[self.query["uploadId"]]
        body = f"<CompleteMultipartUploadResult><Key>{escape(name)}</Key><ETag>{headers['ETag']}</ETag>"
        return 200, f"{body}</CompleteMultipartUploadResult>".encode(), headers

    def delete(self, objects, name):
        if "uploadId" in self.query:
            self._parts()
            del self.server.uploads[self.query["uploadId"]]
        else:
            self._found(objects, name)
            self._check_generation(objects, name)
            del objects[name]
        return 204, b"", {}

    def get(self, objects, name):
        if not name:
            return 200, self._listed(objects).encode(), {"Content_Type": "application/xml; charset=UTF-8"}
        found = self._found(objects, name)
        if self.headers.get("If-Match") not in (None, found.tag):
            raise _Refused(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold.")
        headers = {"ETag": found.tag, "x_goog_generation": found.generation, "x_goog_metageneration": 1}
        headers["Last_Modified"] = formatdate(found.modified, usegmt=True)
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(wanted[1]), min(int(wanted[2] or len(found.data)), len(found.data) - 1)
            headers["Content_Range"] = f"bytes {first}-{last}/{len(found.data)}"
            return 206, found.data[first : last + 1], headers
        return 200, found.data, headers

    head = get

    def _listed(self, objects):
        after = max(self.query.get("continuation-token", ""), self.query.get("start-after", ""))
        names = sorted(name for name in objects if name.startswith(self.query.get("prefix", "")) and name > after)
        page = names[: min(PAGE, int(self.query.get("max-keys", PAGE)))]
        more = len(page) < len(names)
        rows = [f"<IsTruncated>{str(more).lower()}</IsTruncated>"]
        rows += [f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>"] if more else []
        for name in page:
            one = objects[name]
            stamp = strftime("%Y-%m-%dT%H:%M:%S", gmtime(one.modified))
            rows += [f"<Contents><Key>{escape(name)}</Key><Generation>{one.generation}</Generation>"]
            rows += [f"<LastModified>{stamp}.{int(one.modified % 1 * 1000):03}Z</LastModified>"]
            rows += [f"<ETag>{one.tag}</ETag><Size>{len(one.data)}</Size></Contents>"]
        return f"<?xml version='1.0' encoding='UTF-8'?><ListBucketResult>{''.join(rows)}</ListBucketResult>"
