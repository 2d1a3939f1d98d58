#!/usr/bin/python3
"""key_service.py PORT FOLDER: gives out the keys in FOLDER/keys.

It is the metadata service of a machine (version 2) with the role "writer", the
service for containers at /container, and a token service at /.  FOLDER/keys is
JSON; its "how" is one of

    ""        as it should be
    slow      after ten seconds
    slow_role the name of the role comes after ten seconds
    refuse    tokens are not accepted
    once      the first request with a token is refused, and later ones are not
    no_role   the machine has no role
    garbage   the answer holds no keys
    decoy     the answer holds other keys, too, in other places, and is written otherwise
    cut       the answer is cut short behind the keys
    entity    XML has an entity of its own

Each request is told on the standard output, without anything secret in it.
"""
import http.server
import json
import os
import sys
import time
import urllib.parse

PORT, FOLDER = int(sys.argv[1]), sys.argv[2]
ROLE_PATH = "/latest/meta-data/iam/security-credentials/"
TOKEN = "metadata-token-0123456789=="
REFUSED = set()  # the FOLDER/keys of which a request was refused


class Service(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, text):
        body = text.encode()
        self.send_response_only(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def give_json(self, keys):
        if keys["how"] == "garbage":
            return self.answer(200, '{"Code": "Success", "Message": "<none>"}')
        text = json.dumps({
            "Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": keys["access_key"],
            "SecretAccessKey": keys["secret_key"], "Token": keys["token"], "Expiration": keys["expires"]}, indent=2)
        if keys["how"] == "cut":
            text = text.rstrip("}\n ")
        if keys["how"] == "decoy":
            # a member that is an object, a text that looks like a member, and letters that are escaped
            decoy = json.dumps({"AccessKeyId": "wrong", "SecretAccessKey": "wrong", "Token": "wrong", "Expiration": "wrong"})
            name = keys["access_key"]
            text = text.replace("{", '{"Other": %s, "Note": "\\"AccessKeyId\\": \\"wrong\\"", ' % decoy, 1) \
                .replace(f'"{name}"', '"' + "".join(f"\\u{ord(c):04x}" for c in name) + '"').replace("/", "\\/")
        return self.answer(200, text)

    def give_xml(self, keys, form):
        with open(f"{FOLDER}/identity", encoding="utf-8") as file:
            identity = file.read().strip()
        if form.get("Action") != ["AssumeRoleWithWebIdentity"] or form.get("WebIdentityToken") != [identity] or \
                form.get("RoleArn") != ["arn:aws:iam::1:role/writer"] or form.get("Version") != ["2011-06-15"]:
            return self.answer(400, "<ErrorResponse><Error><Type>Sender</Type><Code>InvalidIdentityToken</Code>"
                                    f"<Message>{identity}</Message></Error></ErrorResponse>")
        if keys["how"] == "garbage":
            return self.answer(200, "<AssumeRoleWithWebIdentityResponse/>")
        head, name, secret = "", keys["access_key"], keys["secret_key"]
        if keys["how"] == "decoy":
            # keys that are no credentials, a comment, CDATA and escaped letters
            head = "<Other><AccessKeyId>wrong</AccessKeyId></Other><!-- <Credentials><AccessKeyId>wrong</AccessKeyId></Credentials> -->"
            name, secret = f"<![CDATA[{name}]]>", "".join(f"&#{ord(c)};" for c in secret)
        if keys["how"] == "entity":
            head, name = "", "&key;"
        text = f"<AssumeRoleWithWebIdentityResponse>{head}<AssumeRoleWithWebIdentityResult><Credentials>" \
               f"<SessionToken>{keys['token']}</SessionToken><SecretAccessKey>{secret}</SecretAccessKey>" \
               f"<Expiration>{keys['expires']}</Expiration><AccessKeyId>{name}</AccessKeyId>" \
               "</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
        if keys["how"] == "entity":
            text = f'<!DOCTYPE x [<!ENTITY key "{keys["access_key"]}">]>{text}'
        if keys["how"] == "cut":
            text = text[:-len("</AssumeRoleWithWebIdentityResponse>")]
        return self.answer(200, text)

    def is_refused(self, keys):
        if self.headers.get("X-aws-ec2-metadata-token") != TOKEN or keys["how"] == "refuse":
            return True
        number = os.stat(f"{FOLDER}/keys").st_ino, os.stat(f"{FOLDER}/keys").st_mtime_ns
        if keys["how"] != "once" or number in REFUSED:
            return False
        REFUSED.add(number)
        return True

    def handle_request(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        with open(f"{FOLDER}/keys", encoding="utf-8") as file:
            keys = json.load(file)
        # in one piece, because other threads write, too
        sys.stdout.write(f"{self.command} {self.path}\n")
        sys.stdout.flush()
        if keys["how"] == "slow" or (keys["how"] == "slow_role" and self.path == ROLE_PATH):
            time.sleep(10)
        if self.path == "/latest/api/token":
            return self.answer(200, TOKEN) if self.command == "PUT" and \
                self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "").isdigit() else self.answer(400, "")
        if self.path.startswith(ROLE_PATH):
            if self.is_refused(keys):
                return self.answer(401, "Unauthorized: " + TOKEN)
            if keys["how"] == "no_role":
                return self.answer(404, "")
            if self.path == ROLE_PATH:
                return self.answer(200, "writer\n")
            return self.give_json(keys) if self.path == ROLE_PATH + "writer" else self.answer(404, "")
        if self.path == "/container":
            return self.give_json(keys) if self.headers.get("Authorization") == "Bearer container-token" else self.answer(403, "")
        if self.path == "/" and self.command == "POST":
            return self.give_xml(keys, urllib.parse.parse_qs(body))
        return self.answer(404, "")

    do_GET = do_PUT = do_POST = handle_request


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True


Server(("127.0.0.1", PORT), Service).serve_forever()
