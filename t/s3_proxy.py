#!/usr/bin/python3
"""s3_proxy.py PORT TARGET_PORT FOLDER [CERTIFICATE]: passes HTTP on, and does what FOLDER/rule says.

With a certificate, and its key in the same file, TLS is spoken in front.

The rule is JSON: "match" is a regular expression that "METHOD URI" is searched
for, "times" says for how many requests it is good, "skip" how many pass before
that, "all" that once one was found it is for each request, and "do" is one of

    hold       wait until the rule is gone, or another one; FOLDER/held tells that one waits
    hold_after pass it on, and wait so before its answer
    hang       wait so, and pass it on only if the client still waits
    skew       pass it on, and set the date of the answer back by an hour
    page       answer with "code" (504) and a page in HTML, as a gateway in between does, and do not pass it on
    late       answer so, and pass it on behind the next request that "after" is found in, before the answer to that one
    accept     answer with 200 and nothing, and do not pass it on
    refuse     answer with "code" (503) and "error" (SlowDown), and do not pass it on
    cut        close the connection, and do not pass it on
    cut_after  pass it on, and close the connection instead of answering
    lie        pass it on, and cut the body of the answer in half
    repeat     pass it on, and say that the list goes on, always at the same place
    forget     pass it on without the part of its URI that "what" is found in, to a server that looks at no signature

FOLDER/used has a byte for each request that the rule was used for.
FOLDER/rewrite is JSON, too: pairs of a regular expression and of what is put in
its place in each answer.
"""
import email.utils
import http.client
import http.server
import json
import os
import re
import socket
import ssl
import sys
import threading
import time

PORT, TARGET, FOLDER = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
LOCK = threading.Lock()
SKIPPED = {}  # by the id of a rule
LATE = []  # requests that are passed on later: where "after" is found, method, URI, headers, body


def find_rule(request):
    with LOCK:
        try:
            with open(f"{FOLDER}/rule", encoding="utf-8") as file:
                rule = json.load(file)
        except (OSError, ValueError):
            return None
        used = os.path.getsize(f"{FOLDER}/used") if os.path.exists(f"{FOLDER}/used") else 0
        if used >= rule["times"] or not (used > 0 and rule.get("all") or re.search(rule["match"], request)):
            return None
        SKIPPED.setdefault(rule.get("id"), 0)
        if SKIPPED[rule.get("id")] < rule.get("skip", 0):
            SKIPPED[rule.get("id")] += 1
            return None
        with open(f"{FOLDER}/used", "ab") as file:
            file.write(b"x")
        return rule


def take_late(request):
    with LOCK:
        found = [late for late in LATE if re.search(late[0], request)]
        LATE[:] = [late for late in LATE if late not in found]
        return found


def forward(method, uri, headers, body):
    connection = http.client.HTTPConnection("127.0.0.1", TARGET, timeout=60)
    connection.putrequest(method, uri, skip_host=True, skip_accept_encoding=True)
    for name, value in headers:
        connection.putheader(name, value)
    connection.endheaders(body)
    response = connection.getresponse()
    result = response.status, response.getheaders(), response.read()
    connection.close()
    return result


def identify(path):
    try:
        look = os.stat(path)
        return look.st_ino, look.st_ctime_ns
    except OSError:
        return None


def find_rewrite():
    try:
        with open(f"{FOLDER}/rewrite", encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return []


class Proxy(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def cut(self):
        self.close_connection = True
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def answer(self, status, headers, body):
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        if status != 204:
            length = dict((n.lower(), v) for n, v in headers).get("content-length", "0")
            self.send_header("Content-Length", length if self.command == "HEAD" else str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def hold(self, rule):
        with open(f"{FOLDER}/held", "wb"):
            pass
        while identify(f"{FOLDER}/rule") == rule:
            time.sleep(0.02)

    def is_left(self):
        try:
            return self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def handle_request(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        # in one piece, because other threads write, too
        sys.stdout.write(f"{self.command} {self.path}\n")
        sys.stdout.flush()
        rule = find_rule(f"{self.command} {self.path}")
        do = rule["do"] if rule else "pass"
        number = identify(f"{FOLDER}/rule")
        if do == "cut":
            return self.cut()
        if do == "accept":
            return self.answer(200, [], b"")
        if do == "refuse":
            error = rule.get("error", "SlowDown")
            text = f"<?xml version='1.0'?><Error><Code>{error}</Code><Message>The proxy refuses it.</Message></Error>"
            return self.answer(rule.get("code", 503), [("Content-Type", "application/xml")], text.encode())
        if do == "late":
            with LOCK:
                LATE.append((rule["after"], self.command, self.path, self.headers.items(), body))
        if do in ("late", "page"):
            page = b"<html><body><h1>504 Gateway Time-out</h1>\nThe server didn't respond in time.\n</body></html>\n"
            return self.answer(rule.get("code", 504), [("Content-Type", "text/html")], page)
        if do in ("hold", "hang"):
            self.hold(number)
        if do == "hang" and self.is_left():
            return self.cut()
        uri = re.sub(rule["what"], "", self.path) if do == "forget" else self.path
        status, headers, content = forward(self.command, uri, self.headers.items(), body)
        for late in take_late(f"{self.command} {self.path}"):
            forward(*late[1:])
        if do == "hold_after":
            self.hold(number)
        if do == "skew":
            past = email.utils.formatdate(time.time() - 3600, usegmt=True)
            headers = [(n, past if n.lower() == "date" else v) for n, v in headers]
        if do == "cut_after":
            return self.cut()
        for pattern, text in find_rewrite():
            content = re.sub(pattern.encode(), text.encode(), content, flags=re.DOTALL)
        if do == "lie":
            content = content[: len(content) // 2]
        if do == "repeat":
            more = b"<IsTruncated>true</IsTruncated><NextContinuationToken>again</NextContinuationToken>"
            content = content.replace(b"<IsTruncated>false</IsTruncated>", more)
        return self.answer(status, headers, content)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_request


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


server = Server(("127.0.0.1", PORT), Proxy)
if len(sys.argv) > 4:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[4])
    # the handshake belongs to the thread of a connection, not to the one that accepts them
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
