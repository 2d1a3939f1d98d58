#!/usr/bin/python3
"""A mail server for the tests: takes mail on loopback, and writes down what came.

    smtp_server.py FOLDER [--tls starttls|smtps] [--certificate FILE --key FILE]
                   [--user NAME --password WORD] [--refuse ADDRESS]
                   [--hang banner|quit|data] [--echo]

Writes FOLDER/port when it listens, FOLDER/connections (a byte for each), and for
the n-th mail FOLDER/n.json: its envelope, and its headers and parts as Python's
own parser of mail understands them, which knows nothing of us.
"""
import argparse
import asyncio
import email
import email.policy
import json
import os
import socket
import ssl

from aiosmtpd.smtp import SMTP, AuthResult


def dissect(content):
    """What a reader of the mail would see."""
    message = email.message_from_bytes(content, policy=email.policy.default)
    raw = email.message_from_bytes(content)
    lines = content.split(b"\r\n")
    return {
        "headers": [[name, str(message.get_all(name)[0])] for name in message.keys()],
        "raw_headers": [[name, value] for name, value in raw.items()],
        "type": message.get_content_type(),
        "parts": {p.get_content_type(): p.get_content().replace("\r\n", "\n") for p in message.iter_parts()},
        "defects": [repr(d) for p in message.walk() for d in p.defects],
        "longest_line": max(map(len, lines)),
        "bare_newlines": sum(l.count(b"\n") + l.count(b"\r") for l in lines),
        "ascii": content.isascii(),
    }


class Handler:
    def __init__(self, options):
        self.options = options
        self.count = 0

    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):
        if address == self.options.refuse:
            return f"550 5.1.1 <{address}>: no such user here\x07"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        if self.options.hang == "data":
            await asyncio.sleep(3600)
        self.count += 1
        mail = dissect(envelope.original_content)
        mail.update(mail_from=envelope.mail_from, rcpt_tos=envelope.rcpt_tos,
                    encrypted=session.ssl is not None or self.options.tls == "smtps",
                    user=session.auth_data)
        path = os.path.join(self.options.folder, f"{self.count}.json")
        with open(path + ".new", "w", encoding="ascii") as file:
            json.dump(mail, file)
        os.rename(path + ".new", path)
        return "250 OK"

    async def handle_QUIT(self, server, session, envelope):
        if self.options.hang == "quit":
            await asyncio.sleep(3600)
        return "221 Bye"


def make_smtp(options, handler, context):
    def authenticate(server, session, envelope, mechanism, data):
        user, password = data.login.decode(), data.password.decode()
        if (user, password) == (options.user, options.password):
            return AuthResult(success=True, auth_data=user)
        text = f"535 5.7.8 not you, {user} with {password}" if options.echo else "535 5.7.8 not you"
        return AuthResult(success=False, handled=False, message=text)

    starttls = options.tls == "starttls"
    return SMTP(handler, hostname="mail.test", enable_SMTPUTF8=False,
                require_starttls=starttls, tls_context=context if starttls else None,
                authenticator=authenticate if options.user else None,
                auth_required=bool(options.user), auth_require_tls=starttls)


class Mute(asyncio.Protocol):
    def connection_made(self, transport):
        transport.write(b"220 mail.test ESMTP\r\n")


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    for name in "tls", "certificate", "key", "user", "password", "refuse", "hang":
        parser.add_argument("--" + name)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--echo", action="store_true")
    options = parser.parse_args()

    context = None
    if options.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.certificate, options.key)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", options.port))
    handler = Handler(options)

    def connect():
        with open(os.path.join(options.folder, "connections"), "ab") as file:
            file.write(b".")
        return Mute() if options.hang == "banner" else make_smtp(options, handler, context)

    server = await asyncio.get_running_loop().create_server(
        connect, sock=listener, ssl=context if options.tls == "smtps" else None)
    path = os.path.join(options.folder, "port")
    with open(path + ".new", "w", encoding="ascii") as file:
        file.write(str(listener.getsockname()[1]))
    os.rename(path + ".new", path)
    await server.serve_forever()


asyncio.run(main())
