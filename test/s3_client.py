#!/usr/bin/python3
"""A client of an S3-compatible server, as small as the campaign and the demo need one.

    s3_client.py PORT make BUCKET               makes a bucket that keeps versions
    s3_client.py PORT put BUCKET KEY <CONTENT
    s3_client.py PORT list BUCKET               the files that are seen, each with its size
    s3_client.py PORT versions BUCKET           all versions and delete markers
"""

import collections
import datetime
import hashlib
import hmac
import http.client
import sys
import threading
import urllib.parse
import xml.etree.ElementTree

ACCESS_KEY, SECRET_KEY = 'AKAUDIO', 'SKaudio/xxxxxxxxxxxxxxxxxxxx'
SPACE = '{http://s3.amazonaws.com/doc/2006-03-01/}'

Version = collections.namedtuple('Version', 'key id is_marker is_latest etag modified size')


class Error(Exception):
    pass


def encode(text, safe=''):
    return urllib.parse.quote(text, safe=safe + '-._~')


class Client:
    """Each thread has a connection of its own."""

    def __init__(self, port):
        self.port = port
        self.local = threading.local()

    def request(self, method, path, query=None, body=b'', headers=None):
        """Returns (status, headers, body)."""
        date = datetime.datetime.now(datetime.timezone.utc).strftime('%Y%m%dT%H%M%SZ')
        scope = f'{date[:8]}/us-east-1/s3/aws4_request'
        digest = hashlib.sha256(body).hexdigest()
        arguments = '&'.join(f'{encode(name)}={encode(value)}' for name, value in sorted((query or {}).items()))
        uri = '/' + encode(path, '/')
        signed = {'host': f'localhost:{self.port}', 'x-amz-content-sha256': digest, 'x-amz-date': date, **(headers or {})}
        names = ';'.join(sorted(signed))
        canonical = '\n'.join([method, uri, arguments, *(f'{name}:{signed[name]}' for name in sorted(signed)), '', names, digest])
        text = '\n'.join(['AWS4-HMAC-SHA256', date, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        key = ('AWS4' + SECRET_KEY).encode()
        for part in scope.split('/'):
            key = hmac.new(key, part.encode(), 'sha256').digest()
        signature = hmac.new(key, text.encode(), 'sha256').hexdigest()
        signed['authorization'] = f'AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{scope}, SignedHeaders={names}, Signature={signature}'
        return self.send(method, uri + ('?' + arguments if arguments else ''), body, signed)

    def send(self, method, target, body, headers):
        for again in (True, True, False):
            connection = getattr(self.local, 'connection', None)
            if connection is None:
                connection = self.local.connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=60)
            try:
                connection.request(method, target, body, headers)
                response = connection.getresponse()
                return response.status, response.headers, response.read()
            except (http.client.HTTPException, OSError):
                connection.close()
                self.local.connection = None
                if not again:
                    raise
        raise Error('not reached')

    def expect(self, *arguments, **options):
        status, headers, body = self.request(*arguments, **options)
        if status >= 300:
            raise Error(f'{arguments}: HTTP status {status}: {body.decode(errors="replace")}')
        return headers, body

    def make(self, bucket):
        self.expect('PUT', bucket)
        self.expect('PUT', bucket, {'versioning': ''},
                    b'<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>')

    def put(self, path, content):
        """Returns the id and the ETag of the version that was made."""
        headers, _ = self.expect('PUT', path, body=content)
        return headers['x-amz-version-id'], headers['ETag']

    def current(self, path):
        """Returns the id of the version that is seen, or None."""
        status, headers, _ = self.request('HEAD', path)
        return headers['x-amz-version-id'] if status == 200 else None

    def get(self, path):
        status, _, body = self.request('GET', path)
        return body if status == 200 else None

    def delete(self, path, version=None):
        self.expect('DELETE', path, {'versionId': version} if version else None)

    def versions(self, bucket, prefix=''):
        """Yields all versions and markers, newest first of each key."""
        more = {}
        while more is not None:
            _, body = self.expect('GET', bucket, {'versions': '', 'prefix': prefix, 'encoding-type': 'url', **more})
            page = xml.etree.ElementTree.fromstring(body)
            text = lambda element, name: element.findtext(SPACE + name, '')
            for entry in page:
                if entry.tag in (SPACE + 'Version', SPACE + 'DeleteMarker'):
                    moment = datetime.datetime.strptime(text(entry, 'LastModified')[:19], '%Y-%m-%dT%H:%M:%S')
                    yield Version(urllib.parse.unquote(text(entry, 'Key')), text(entry, 'VersionId'), entry.tag == SPACE + 'DeleteMarker',
                                  text(entry, 'IsLatest') == 'true', text(entry, 'ETag'),
                                  int(moment.replace(tzinfo=datetime.timezone.utc).timestamp()), int(text(entry, 'Size') or 0))
            more = {'key-marker': urllib.parse.unquote(text(page, 'NextKeyMarker')),
                    'version-id-marker': text(page, 'NextVersionIdMarker')} if text(page, 'IsTruncated') == 'true' else None


def main():
    client = Client(int(sys.argv[1]))
    what, bucket = sys.argv[2], sys.argv[3]
    if what == 'make':
        client.make(bucket)
    elif what == 'put':
        client.put(f'{bucket}/{sys.argv[4]}', sys.stdin.buffer.read())
    else:
        for version in client.versions(bucket):
            if '.audio_cleanup/' in version.key:
                continue
            if what == 'versions':
                print(f'{"delete marker" if version.is_marker else str(version.size):>13}  {version.key}')
            elif version.is_latest and not version.is_marker:
                print(f'{version.size:>9}  {version.key}')


if __name__ == '__main__':
    main()
