#!/usr/bin/python3
"""pages.py PORT KEYS ORPHANS [MS]: an S3-compatible server that holds nothing, and pages through keys that it makes up.

The bucket keeps versions.  It has KEYS keys, 1000 in a folder, up/000000/w000000000.mp3 and so on; the first of each
KEYS / ORPHANS of them begins with an "o".  What is deleted or written is remembered, for only that needs memory:
the claim, the lease, markers, and versions that are gone.  Signatures are not looked at.  Each answer takes MS
milliseconds longer than it would (0).  GET / tells the number of requests by kind.  It is for measuring the memory and
the requests of whoever lists a bucket, and proves nothing else.
"""
import collections
import hashlib
import http.server
import json
import re
import sys
import threading
import time
import urllib.parse
from xml.sax.saxutils import unescape

PORT, KEYS, ORPHANS, MS = (int(argument) for argument in (sys.argv[1:] + ["0"])[:4])
EVERY = KEYS // ORPHANS if ORPHANS else 0
OLD = "2020-01-01T00:00:00.000Z"
LOCK = threading.Lock()
marked, gone = {}, set()  # number of a key: id of its marker; numbers of keys whose version is gone
own = {}  # key of ours: [(version id, body, time)], newest first
counter = 0
asked = collections.Counter()  # requests by kind


def new_id():
    global counter
    counter += 1
    return f"m{counter:09d}"


def now():
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())


def key_of(i):
    return f"up/{i // 1000:06d}/{'o' if EVERY and i % EVERY == 0 else 'w'}{i:09d}.mp3"


def number_of(key):
    match = re.fullmatch(r"up/(\d{6})/[ow](\d{9})\.mp3", key)
    return int(match.group(2)) if match and key_of(int(match.group(2))) == key else None


def first_behind(key):
    """Returns the number of the first key that comes behind `key`: they ascend within a letter, and "o" before "w"."""
    low, high = 0, KEYS // 1000 + 1
    while low < high:  # the folder
        middle = (low + high) // 2
        if f"up/{middle:06d}/~" <= key:
            low = middle + 1
        else:
            high = middle
    return low


def folder(number):
    """The keys of a folder, in order."""
    return sorted((key_of(i), i) for i in range(number * 1000, min(number * 1000 + 1000, KEYS)))


def keys_behind(key, prefix):
    for number in range(first_behind(key), (KEYS + 999) // 1000):
        if not f"up/{number:06d}/".startswith(prefix) and not prefix.startswith(f"up/{number:06d}/"):
            continue
        for name, i in folder(number):
            if name > key and name.startswith(prefix):
                yield name, i


def list_keys(query):
    prefix = query.get("prefix", "")
    if "delimiter" in query:
        folders = range(0, (KEYS + 999) // 1000)
        names = [f"up/{number:06d}/" for number in folders][:1000] if prefix == "up/" else []
        body = "".join(f"<CommonPrefixes><Prefix>{name}</Prefix></CommonPrefixes>" for name in names)
        return f"<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>{body}</ListBucketResult>"
    entries, token = [], ""
    for name, i in keys_behind(query.get("continuation-token") or query.get("start-after") or "", prefix):
        if i in marked or i in gone:
            continue
        if len(entries) == int(query.get("max-keys", 1000)):
            token = f"<NextContinuationToken>{last}</NextContinuationToken>"
            break
        last = name
        entries.append(f"<Contents><Key>{name}</Key><LastModified>{OLD}</LastModified><ETag>&quot;{i:032x}&quot;</ETag>"
                       f"<Size>1000</Size></Contents>")
    return (f"<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>{'true' if token else 'false'}</IsTruncated>"
            f"{token}{''.join(entries)}</ListBucketResult>")


def version(name, i, latest):
    return (f"<Version><Key>{name}</Key><VersionId>v{i}</VersionId><IsLatest>{latest}</IsLatest><LastModified>{OLD}"
            f"</LastModified><ETag>&quot;{i:032x}&quot;</ETag><Size>1000</Size></Version>")


def list_versions(query):
    prefix, most = query.get("prefix", ""), int(query.get("max-keys", 1000))
    entries, truncated = [], "false"
    if prefix in own:
        for at, (ident, body, written) in enumerate(own[prefix]):
            entries.append(f"<Version><Key>{prefix}</Key><VersionId>{ident}</VersionId><IsLatest>{'false' if at else 'true'}"
                           f"</IsLatest><LastModified>{written}</LastModified><ETag>x</ETag><Size>{len(body)}</Size></Version>")
    elif not prefix.startswith("up/."):
        for name, i in keys_behind(query.get("key-marker", ""), prefix):
            if len(entries) >= most:
                truncated = "true"
                break
            if i in marked:
                entries.append(f"<DeleteMarker><Key>{name}</Key><VersionId>{marked[i]}</VersionId><IsLatest>true</IsLatest>"
                               f"<LastModified>{now()}</LastModified></DeleteMarker>")
            if i not in gone:
                entries.append(version(name, i, "false" if i in marked else "true"))
    return (f"<ListVersionsResult><EncodingType>url</EncodingType><IsTruncated>{truncated}</IsTruncated>"
            f"{''.join(entries)}</ListVersionsResult>")


def remove(key, ident):
    """Returns the id of a marker that was made, or ''."""
    i = number_of(key)
    if i is None:
        own[key] = [entry for entry in own.get(key, []) if entry[0] != ident]
        return ""
    if not ident:
        return marked.setdefault(i, new_id())
    if marked.get(i) == ident:
        del marked[i]
    elif ident == f"v{i}":
        gone.add(i)
    return ""


def remove_many(body):
    answer = []
    for key, _, ident in re.findall(r"<Object><Key>(.*?)</Key>(<VersionId>(.*?)</VersionId>)?</Object>", body):
        marker = remove(unescape(key), ident)
        answer.append(f"<Deleted><Key>{key}</Key>" + (f"<VersionId>{ident}</VersionId>" if ident else
                      f"<DeleteMarker>true</DeleteMarker><DeleteMarkerVersionId>{marker}</DeleteMarkerVersionId>") + "</Deleted>")
    return f"<DeleteResult>{''.join(answer)}</DeleteResult>"


class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, text="", **headers):
        body = text.encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if status != 204:
            self.wfile.write(body)

    def handle_request(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        key = urllib.parse.unquote(url.path).split("/", 2)[2] if url.path.count("/") > 1 else ""
        if url.path == "/":
            return self.answer(200, json.dumps(asked))
        time.sleep(MS / 1000)
        with LOCK:
            asked["deletes" if self.command == "POST" else "lists" if self.command == "GET" and not key else "others"] += 1
            if self.command == "GET" and not key:
                if "versioning" in query:
                    return self.answer(200, "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>")
                return self.answer(200, list_versions(query) if "versions" in query else list_keys(query))
            if self.command == "POST":
                return self.answer(200, remove_many(body))
            if self.command == "PUT":
                if self.headers.get("If-None-Match") and own.get(key):
                    return self.answer(412)
                ident = new_id()
                own[key] = [(ident, body, now())] + own.get(key, [])
                return self.answer(200, x_amz_version_id=ident, ETag=f'"{hashlib.md5(body.encode()).hexdigest()}"')
            if self.command == "DELETE":
                marker = remove(key, query.get("versionId", ""))
                return self.answer(204, **({"x_amz_version_id": marker} if marker else {}))
            for ident, text, _ in own.get(key, []):
                if query.get("versionId", ident) == ident:
                    return self.answer(200, text)
            return self.answer(404, "<Error><Code>NoSuchKey</Code></Error>")

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_request


class Threads(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


Threads(("127.0.0.1", PORT), Server).serve_forever()
