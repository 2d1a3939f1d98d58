#!/usr/bin/python3
"""A randomized campaign against a throwaway server, and a checker of what has become of it.

    torture.py --bindir DIR --folder DIR --seconds N [--seed N] [--bucket] [--spoil]

script/torture and script/test call this program as the OS user of the server.
Many sessions call, cancel, terminate, time out, change tables, write rows and
kill processes.  Then the campaign lets the server settle, and the checker
compares three things: what the campaign knows of each file, what the ledger
says of it, and where it is.  The checks are printed as TAP.

Each file gets a time of its own, to the nanosecond, so that its mtime names it
wherever it is: in its place, in the trash, under another name.  In a bucket
(--bucket) the id of its version does that, and there each file is old at once.

A file is "wanted" from the moment when the campaign has seen it in its place
while its own transaction already held a row that refers to it, and that
transaction has committed.  Files that a row has referred to from the beginning,
files that are held, young files, and files whose names are no text are wanted
too.  A wanted file that is not in its place in the end is lost.

The seed decides what each actor chooses.  When it does so, the machine decides.
"""

import argparse
import collections
import email.utils
import hashlib
import itertools
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import uuid

import psycopg2

import s3_client

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DATABASES = ('one', 'two')
CLONE = 'clone_of_one'
DAY = 86400
HANG = 300                      # seconds after which a call counts as hung
SETTLE = 300                    # seconds that the drains are given at most
NEW_LINE = '\n# '


# ---- the server ----

class Server:
    """The throwaway server: starts, stops, and knows whom the campaign has killed."""

    def __init__(self, bindir, folder):
        self.bindir, self.folder = bindir, folder
        self.data, self.log = folder + '/data', folder + '/server.log'
        self.killed = set()
        self.counts = collections.Counter()
        self.going_down = threading.Lock()

    def run(self, program, *arguments, check=True):
        return subprocess.run([f'{self.bindir}/{program}', *arguments], check=check, stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode

    def create(self, settings=''):
        self.run('initdb', '-D', self.data, '-A', 'trust', '-U', 'postgres', '-E', 'UTF8', '--locale=C.UTF-8', '--no-sync')
        with open(self.data + '/postgresql.conf', 'a') as conf:
            conf.write(f"""
listen_addresses = ''
unix_socket_directories = '{self.folder}'
port = 5432
max_connections = 80
max_worker_processes = 16
max_prepared_transactions = 20
deadlock_timeout = '200ms'
fsync = off
restart_after_crash = on
log_line_prefix = '%m [%p] %d %a '
log_error_verbosity = verbose
timezone = 'UTC'
log_timezone = 'UTC'
shared_preload_libraries = 'audio_cleanup'
{settings}
""")
        self.start()

    def start(self):
        """Starts the server, and tries again while processes of the last one are still there."""
        until = time.time() + 300
        while self.run('pg_ctl', '-D', self.data, '-l', self.log, '-w', '-t', '120', 'start', check=False) != 0:
            if time.time() > until:
                raise SystemExit('Bail out! the server does not start: see ' + self.log)
            time.sleep(0.2)

    def stop(self, mode):
        self.run('pg_ctl', '-D', self.data, '-m', mode, '-w', '-t', '300', 'stop', check=False)

    def kill(self, pid):
        """Kills one process of the server, which restarts all others."""
        self.killed.add(pid)
        try:
            os.kill(pid, signal.SIGKILL)
            self.counts['processes killed'] += 1
        except ProcessLookupError:
            self.killed.discard(pid)

    def go_down(self, how):
        """Takes the whole server down and starts it again."""
        with self.going_down:
            if how == 'killed':
                with open(self.data + '/postmaster.pid') as file:
                    os.kill(int(file.readline()), signal.SIGKILL)
            else:
                self.stop(how)
            self.counts[f'server {how}'] += 1
            self.start()

    def connect(self, database, user='postgres', name='checker'):
        connection = psycopg2.connect(host=self.folder, port=5432, dbname=database, user=user,
                                      application_name=name, connect_timeout=60)
        connection.autocommit = True
        return connection

    def wait_until_up(self):
        """The last process may have been killed just now: the others restart, and nobody is let in meanwhile."""
        until = time.time() + 300
        while True:
            try:
                self.connect('postgres').close()
                return
            except psycopg2.OperationalError:
                if time.time() > until:
                    raise
                time.sleep(0.2)

    def crashes(self):
        """The lines of the log that tell of a crash which the campaign has not caused."""
        lines = []
        with open(self.log, errors='replace') as log:
            for line in log:
                died = re.search(r'\(PID (\d+)\) was terminated by signal (\d+)', line)
                if died and not (died[2] == '9' and int(died[1]) in self.killed):
                    lines.append(line.strip())
                elif re.search(r'PANIC: |TRAP: |stack smashing|double free|AddressSanitizer', line):
                    lines.append(line.strip())
        return lines


def query(connection, sql, parameters=None):
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall() if cursor.description else []


# ---- what is known of each file ----

class File:
    def __init__(self, database, path, identity, content):
        self.database, self.path, self.identity, self.content = database, path, identity, content
        self.state = 'busy'     # wanted, orphan, failed: as it says; busy: an actor has it; unknown: nobody can tell
        self.why = ''
        self.row = None         # (table, id) of the row that refers to it


class Files:
    """All files of the campaign.  Whoever takes one has it alone until he gives it back."""

    def __init__(self, folder):
        self.folder = folder
        self.lock = threading.Lock()
        self.all = []
        self.numbers = itertools.count()     # in names: none twice, whoever asks at the same time
        self.pools = collections.defaultdict(list)      # (database, state) -> files
        self.old = time.time_ns() - 30 * DAY * 10**9

    def directory(self, database):
        return f'{self.folder}/uploads_{database}'

    def whole_path(self, file):
        return os.fsencode(self.directory(file.database)) + b'/' + file.path

    def lay(self, database, path, young=False, over=False):
        """Writes a new file; returns it, still in the hands of the caller."""
        path = path if isinstance(path, bytes) else path.encode()
        with self.lock:
            number = len(self.all)
            file = File(database, path, (time.time_ns() if young else self.old) + number, b'audio %d' % number)
            self.all.append(file)
        whole = self.whole_path(file)
        new = os.fsencode(f'{self.folder}/new.{number}')
        with open(new, 'wb') as handle:
            handle.write(file.content)
        os.utime(new, ns=(file.identity, file.identity))
        for _ in range(1000):   # a run may take an empty folder away meanwhile, and an actor may have locked it
            try:
                os.makedirs(os.path.dirname(whole), exist_ok=True)
                os.rename(new, whole)
                return file
            except (FileNotFoundError, PermissionError):
                time.sleep(0.01)
        raise SystemExit(f'Bail out! {whole} cannot be written')

    def give(self, file, state, why=''):
        with self.lock:
            file.state, file.why = state, why
            self.pools[file.database, state].append(file)

    def take(self, rng, database, state):
        with self.lock:
            pool = self.pools[database, state]
            if not pool:
                return None
            index = rng.randrange(len(pool))
            pool[index], pool[-1] = pool[-1], pool[index]
            file = pool.pop()
            file.state, file.why = 'busy', ''
            return file

    def some_path(self, rng, database):
        with self.lock:
            file = self.all[rng.randrange(len(self.all))]
        return file.path.decode(errors='replace')

    def in_place(self, file):
        try:
            return os.lstat(self.whole_path(file)).st_mtime_ns == file.identity
        except OSError:
            return False

    def read(self, file):
        with open(self.whole_path(file), 'rb') as handle:
            return handle.read()

    def remove(self, file):
        try:
            os.unlink(self.whole_path(file))
        except OSError:
            pass

    destroy = remove

    def trash_place(self, run, path):
        return f'.audio_cleanup/trash/{run}/{path}'.encode()

    def places(self, database):
        """identity -> the paths of the directory, trash included, that have it."""
        top = os.fsencode(self.directory(database))
        found = collections.defaultdict(list)
        for folder, _, names in os.walk(top):
            for name in names:
                path = os.path.join(folder, name)
                found[os.lstat(path).st_mtime_ns].append(path[len(top) + 1:])
        return found


def free_port():
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return listener.getsockname()[1]


class Gateway:
    """An object gateway, and a proxy in front of it that disturbs whoever comes by it."""

    def __init__(self, folder):
        self.folder, self.processes = folder, []
        self.port, self.proxy_port = free_port(), free_port()
        self.rules = folder + '/rules'
        os.mkdir(folder)
        os.mkdir(self.rules)
        self.begin([ROOT + '/script/gateway', folder, str(free_port()), str(self.port)])
        until = time.time() + 180
        while not os.path.exists(folder + '/ready'):
            if time.time() > until or self.processes[0].poll() is not None:
                self.stop()
                raise SystemExit('Bail out! the gateway has not started: see ' + folder + '/log')
            time.sleep(0.2)
        self.begin(['/usr/bin/python3', ROOT + '/t/s3_proxy.py', str(self.proxy_port), str(self.port), self.rules])
        self.client = s3_client.Client(self.port)
        self.client.make('audio')
        with open(folder + '/credentials', 'w', opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(f'[default]\naws_access_key_id = {s3_client.ACCESS_KEY}\naws_secret_access_key = {s3_client.SECRET_KEY}\n')

    def begin(self, command):
        self.processes.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    def settings(self):
        return f"""audio_cleanup.s3_endpoint = 'http://localhost:{self.proxy_port}'
audio_cleanup.s3_credentials_file = '{self.folder}/credentials'
audio_cleanup.s3_timeout = '5s'
audio_cleanup.orphaned_file_retention_hours = 0"""

    def set_rule(self, rule):
        self.clear_rule()
        with open(self.rules + '/new', 'w') as file:
            json.dump(rule, file)
        os.rename(self.rules + '/new', self.rules + '/rule')

    def clear_rule(self):
        for name in ('rule', 'used', 'held'):
            try:
                os.unlink(f'{self.rules}/{name}')
            except FileNotFoundError:
                pass

    def stop(self):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait()


class BucketFiles(Files):
    """The files in a bucket: the identity is the one that cleanup_files.inode has of a version."""

    def __init__(self, gateway, folder):
        super().__init__(folder)
        self.gateway, self.client = gateway, gateway.client

    def directory(self, database):
        return f's3://audio/up_{database}'

    def key(self, file):
        return f'audio/up_{file.database}/{file.path.decode()}'

    @staticmethod
    def identify(version, etag, modified):
        digest = hashlib.sha256(f'{version}\n{etag}\n{modified}'.encode()).digest()
        return int.from_bytes(digest[:8], 'big', signed=True)

    def lay(self, database, path, young=False, over=False):
        path = path if isinstance(path, bytes) else path.encode()
        with self.lock:
            file = File(database, path, None, b'audio %d' % len(self.all))
            self.all.append(file)
        file.version, etag = self.client.put(self.key(file), file.content)
        status, headers, _ = self.client.request('HEAD', self.key(file), {'versionId': file.version})
        # a run may have been quicker: then it is not known when the server says that it was written
        if status == 200:
            file.identity = self.identify(file.version, etag, int(email.utils.parsedate_to_datetime(headers['Last-Modified']).timestamp()))
        return file

    def in_place(self, file):
        return self.client.current(self.key(file)) == file.version

    def read(self, file):
        return self.client.get(self.key(file))

    def remove(self, file):
        self.client.delete(self.key(file))

    def destroy(self, file):
        self.client.delete(self.key(file), file.version)

    def trash_place(self, run, path):
        return f'.audio_cleanup/trash/{path}'.encode()

    def places(self, database):
        """identity -> where that version is: its path; in the trash, with a marker right above it; or below another version."""
        prefix = f'up_{database}/'
        found = collections.defaultdict(list)
        above = None
        for version in self.client.versions('audio', prefix):
            path = version.key[len(prefix):]
            place = path
            if above is not None and above.key == version.key:
                place = ('.audio_cleanup/trash/' if above.is_marker else '.below/') + path
            above = version
            if not version.is_marker and not path.startswith('.audio_cleanup/'):
                found[self.identify(version.id, version.etag, version.modified)].append(place.encode())
        return found


NAMES = ('rec{n}.mp3', 'rec{n}.mp3', 'sub/rec{n}.wav', '2024/05/rec {n}.m4a', 'Gespräch {n} über.ogg', 'take {n} (copy), b.mp3',
         "it's {n}.flac", '{u}.mp3', 'sub/{u}.wav')


def new_name(rng, number):
    return rng.choice(NAMES).format(n=number, u=uuid.UUID(int=rng.getrandbits(128)))


def as_value(rng, path):
    """A value of a column that refers to the file of that path."""
    name = path.rsplit('/', 1)[-1]
    stem = name.rsplit('.', 1)[0]
    values = [path, name, 'https://cdn.example.org/uploads/audio/' + urllib.parse.quote(path) + '?v=2', '/srv/audio/' + path]
    if re.fullmatch('[0-9a-f-]{36}', stem):
        values.append(stem)
    return rng.choice(values)


# ---- tables ----

SCHEMA = """
CREATE SCHEMA media;
CREATE TABLE media.sessions (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), audio_url text, status text DEFAULT 'processed',
    updated_at timestamptz DEFAULT now(), note text);
CREATE TABLE media.parts (id bigserial, audio_url text, k int) PARTITION BY LIST (k);
CREATE TABLE media.parts_0 PARTITION OF media.parts FOR VALUES IN (0);
CREATE TABLE media.parts_1 PARTITION OF media.parts FOR VALUES IN (1);
CREATE TABLE media.parts_2 PARTITION OF media.parts FOR VALUES IN (2);
CREATE TABLE media.docs (id bigserial PRIMARY KEY, data jsonb, visible boolean DEFAULT true);
CREATE VIEW media.doc_files AS SELECT id, data->>'file' AS audio_url FROM media.docs WHERE data ? 'file';
CREATE TABLE media.secured (id bigserial PRIMARY KEY, audio_url text, tenant int DEFAULT 1);
ALTER TABLE media.secured ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenants ON media.secured USING (tenant = 1);
CREATE TABLE media.extra (id bigserial PRIMARY KEY, audio_url text);
INSERT INTO media.extra (audio_url) SELECT 'nothing' || i || '.mp3' FROM generate_series(1, 10) i;
CREATE FUNCTION media.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not this row'; END $$;
"""

INSERTS = {
    'sessions': "INSERT INTO media.sessions (audio_url) VALUES (%s) RETURNING id",
    'parts': "INSERT INTO media.parts (audio_url, k) VALUES (%s, (random() * 2)::int) RETURNING id",
    'docs': "INSERT INTO media.docs (data) VALUES (jsonb_build_object('file', %s)) RETURNING id",
    'secured': "INSERT INTO media.secured (audio_url) VALUES (%s) RETURNING id",
}

# (name, there, back): each is a list of statements of one transaction; with back, the table is wrong in between.
CHANGES = [
    ('rename a column', ['ALTER TABLE media.sessions RENAME audio_url TO audio_away'],
     ['ALTER TABLE media.sessions RENAME audio_away TO audio_url']),
    ('rename a column of a partition tree', ['ALTER TABLE media.parts RENAME audio_url TO audio_away'],
     ['ALTER TABLE media.parts RENAME audio_away TO audio_url']),
    ('rename a table', ['ALTER TABLE media.secured RENAME TO secured_away'], ['ALTER TABLE media.secured_away RENAME TO secured']),
    ('rename a view', ['ALTER VIEW media.doc_files RENAME TO files_away'], ['ALTER VIEW media.files_away RENAME TO doc_files']),
    ('rename the schema', ['ALTER SCHEMA media RENAME TO media_away'], ['ALTER SCHEMA media_away RENAME TO media']),
    ('force row security', ['ALTER TABLE media.secured FORCE ROW LEVEL SECURITY'],
     ['ALTER TABLE media.secured NO FORCE ROW LEVEL SECURITY']),
    ('force row security that hides all', ['ALTER TABLE media.secured FORCE ROW LEVEL SECURITY',
                                           'ALTER POLICY tenants ON media.secured USING (tenant = 2)'],
     ['ALTER TABLE media.secured NO FORCE ROW LEVEL SECURITY', 'ALTER POLICY tenants ON media.secured USING (tenant = 1)']),
    ('trigger that refuses', ['CREATE TRIGGER refuse BEFORE UPDATE ON media.sessions FOR EACH ROW EXECUTE FUNCTION media.refuse()'],
     ['DROP TRIGGER refuse ON media.sessions']),
    ('add and drop a column', ['ALTER TABLE media.sessions ADD COLUMN more text DEFAULT clock_timestamp()::text'],
     ['ALTER TABLE media.sessions DROP COLUMN more']),
    ('detach and attach', ['ALTER TABLE media.parts DETACH PARTITION media.parts_1', 'SELECT pg_sleep(random() * 0.1)',
                           'ALTER TABLE media.parts ATTACH PARTITION media.parts_1 FOR VALUES IN (1)'], None),
    ('new partition', ['CREATE TABLE media.parts_9 PARTITION OF media.parts FOR VALUES IN (9)'], ['DROP TABLE media.parts_9']),
    ('truncate and reload', ['LOCK TABLE media.sessions', 'CREATE TEMP TABLE t ON COMMIT DROP AS SELECT * FROM media.sessions', 'TRUNCATE media.sessions',
                             'SELECT pg_sleep(random() * 0.1)', 'INSERT INTO media.sessions SELECT * FROM t'], None),
    ('truncate and reload a partition', ['LOCK TABLE media.parts_2', 'CREATE TEMP TABLE t ON COMMIT DROP AS SELECT * FROM media.parts_2', 'TRUNCATE media.parts_2',
                                         'SELECT pg_sleep(random() * 0.1)', 'INSERT INTO media.parts_2 SELECT * FROM t'], None),
    ('delete and reload', ['LOCK TABLE media.docs IN SHARE ROW EXCLUSIVE MODE', 'CREATE TEMP TABLE t ON COMMIT DROP AS SELECT * FROM media.docs', 'DELETE FROM media.docs',
                           'SELECT pg_sleep(random() * 0.1)', 'INSERT INTO media.docs SELECT * FROM t'], None),
    ('rewrite', ['ALTER TABLE media.secured ALTER audio_url TYPE varchar(300) USING left(audio_url, 300)'],
     ['ALTER TABLE media.secured ALTER audio_url TYPE text']),
    ('rewrite below a view', ['ALTER TABLE media.docs ALTER visible TYPE text'],
     ['ALTER TABLE media.docs ALTER visible DROP DEFAULT, ALTER visible TYPE boolean USING visible::boolean, ALTER visible SET DEFAULT true']),
    ('replace a view', ["CREATE OR REPLACE VIEW media.doc_files AS SELECT id, data->>'file' AS audio_url FROM media.docs"], None),
    ('move the rows of a partition', ['UPDATE media.parts SET k = (k + 1) % 3 WHERE random() < 0.1'], None),
    ('touch rows', ["UPDATE media.sessions SET note = random()::text WHERE random() < 0.3 AND status = 'processed'"], None),
    ('lock a table', ['LOCK TABLE media.sessions IN ACCESS EXCLUSIVE MODE', 'SELECT pg_sleep(random())'], None),
    ('lock rows', ['SELECT count(*) FROM (SELECT FROM media.sessions FOR UPDATE) AS t', 'SELECT pg_sleep(random() * 0.5)'], None),
]
ALONE = ['VACUUM FULL media.sessions', 'VACUUM media.docs', 'ANALYZE', 'REINDEX TABLE CONCURRENTLY media.docs',
         'CLUSTER media.sessions USING sessions_pkey']


# ---- actors ----

class Campaign:
    def __init__(self, server, seed, seconds, gateway):
        self.server, self.seed, self.gateway = server, seed, gateway
        self.files = Files(server.folder) if gateway is None else BucketFiles(gateway, server.folder)
        # in a bucket each step costs requests: who is cancelled every moment would never come to his end
        self.patience = 1 if gateway is None else 8
        self.until = time.time() + seconds
        self.over = threading.Event()
        self.calls = collections.defaultdict(collections.Counter)   # what -> outcome -> how often
        self.strange = collections.Counter()                        # messages of internal errors
        self.refusals = collections.Counter()
        self.hung = []
        self.count_lock = threading.Lock()

    def count(self, what, outcome):
        with self.count_lock:
            self.calls[what][outcome] += 1

    def running(self):
        return time.time() < self.until and not self.over.is_set()


def outcome_of(error):
    """One word for how a call ended."""
    state = getattr(error, 'pgcode', None)
    if state is None or state[:2] in ('08',) or state in ('57P01', '57P02', '57P03'):
        return 'cut off'
    if state == '57014':
        return 'cancelled'
    if state == '42501':
        return 'denied'
    if state[:2] == '40':
        return 'deadlock'
    if state[:2] == 'XX':
        return 'internal'
    return 'refused'


class Actor(threading.Thread):
    """One session that does its step() again and again, and connects again when it was thrown out."""

    def __init__(self, campaign, name, database=None, user='postgres'):
        super().__init__(name=name, daemon=True)
        self.campaign, self.files, self.server = campaign, campaign.files, campaign.server
        self.rng = random.Random(f'{campaign.seed}/{name}')
        self.database, self.user = database, user
        self.connection = None
        self.doing, self.since = '', time.time()

    def run(self):
        while self.campaign.running():
            self.since = time.time()
            try:
                if self.connection is None or self.connection.closed:
                    self.connection = self.server.connect(self.database or 'postgres', self.user, 'torture ' + self.name)
                    self.prepare()
                self.step()
            except psycopg2.Error as error:
                self.recover(error)
        if self.connection is not None:
            self.connection.close()

    def prepare(self):
        self.sql('SET search_path = cleaning, public; SET statement_timeout = %s', HANG * 1000)

    def recover(self, error):
        time.sleep(0.05)
        if self.connection is None or self.connection.closed:
            return
        try:
            self.sql('ROLLBACK')
        except psycopg2.Error:
            self.connection.close()

    def pause(self, seconds):
        self.since = time.time()
        time.sleep(min(max(0, self.campaign.until - time.time()), seconds * self.campaign.patience * self.rng.random()))
        self.since = time.time()

    def sql(self, text, *parameters):
        self.doing = text
        return query(self.connection, text, parameters or None)

    def counted(self, what, text, *parameters):
        """Does a statement and counts how it ended; raises what it raised."""
        begun = time.time()
        try:
            rows = self.sql(text, *parameters)
        except psycopg2.Error as error:
            self.note(what, error)
            raise
        finally:
            if time.time() - begun > HANG:
                self.campaign.hung.append(what)
        self.campaign.count(what, 'done')
        return rows

    def note(self, what, error):
        outcome = outcome_of(error)
        self.campaign.count(what, outcome)
        message = re.sub(r'\d+', 'N', re.sub(r'file ".*"', 'file "..."', (error.pgerror or str(error)).split('\n')[0]))[:160]
        with self.campaign.count_lock:
            if outcome == 'internal':
                self.campaign.strange[message] += 1
            elif outcome == 'refused':
                self.campaign.refusals[error.pgcode + ' ' + message] += 1

    def commit(self, file, state, why=''):
        """Commits; when nobody can tell whether it has, the file's state is unknown."""
        try:
            self.sql('COMMIT')
        except psycopg2.Error:
            self.files.give(file, 'unknown')
            raise
        self.files.give(file, state, why)


class Caller(Actor):
    """Calls the extension's functions in all ways."""

    CLEANING = ['SELECT cleanup_all()', 'SELECT cleanup_all()', 'SELECT cleanup_orphaned_files()', 'SELECT cleanup_failed_sessions()',
                'CALL cleanup_run()', 'CALL cleanup_run()', 'CALL cleanup_run()', 'SELECT cleanup_purge_backups()']
    LOOKING = ['SELECT cleanup_status()', 'SELECT cleanup_status()', 'SELECT cleanup_all(true)', 'CALL cleanup_run(true)',
               'SELECT * FROM cleanup_check()', 'SELECT cleanup_dashboard()', 'SELECT * FROM cleanup_missing_files()',
               'SELECT * FROM cleanup_metrics', 'SELECT * FROM cleanup_progress', 'SELECT cleanup_config()',
               'SELECT * FROM cleanup_next_run()']
    FILES = ['SELECT cleanup_explain(%s)', 'SELECT cleanup_restore(%s)', 'SELECT cleanup_hold(%s)', 'SELECT cleanup_release(%s)',
             "SELECT cleanup_restore(%s, 'again/' || gen_random_uuid() || '.mp3')"]

    def step(self):
        text, parameters = self.choose()
        what = re.sub(r'^(SELECT|CALL) (\* FROM )?(count\(\*\) FROM )?', '', text).split('(')[0]
        how = self.rng.random()
        if self.rng.random() < 0.3:
            self.sql('SET statement_timeout = %s', 1 + int(self.campaign.patience * self.rng.expovariate(1 / 150)))
        try:
            self.call(what, text, parameters, how)
        finally:
            if not self.connection.closed:
                self.connection.rollback() if self.connection.get_transaction_status() == 3 else None
        self.sql('SET statement_timeout = %s', HANG * 1000)
        if self.rng.random() < 0.02:
            self.connection.close()
        self.pause(0.05)

    def recover(self, error):
        super().recover(error)
        try:
            if not self.connection.closed:
                self.sql('SET statement_timeout = %s', HANG * 1000)
        except psycopg2.Error:
            pass

    def choose(self):
        which = self.rng.random()
        if which < 0.5:
            return self.rng.choice(self.CLEANING), ()
        if which < 0.8:
            return self.rng.choice(self.LOOKING), ()
        if which < 0.95:
            return self.rng.choice(self.FILES), (self.own_path(),)
        return 'SELECT cleanup_restore(run_id) FROM cleanup_runs ORDER BY random() LIMIT 1', ()

    def own_path(self):
        """A file that may be held and released: none that the campaign itself holds."""
        path = self.files.some_path(self.rng, self.database)
        return path if not path.startswith('held') else 'no.mp3'

    def call(self, what, text, parameters, how):
        if text.startswith('CALL') or how < 0.6:
            self.counted(what, text, *parameters)
        elif how < 0.7:
            self.sql('BEGIN')
            self.counted(what + ', rolled back', text, *parameters)
            self.sql('ROLLBACK')
        elif how < 0.78:
            self.sql('BEGIN; SAVEPOINT s')
            self.counted(what + ', savepoint', text, *parameters)
            self.sql('ROLLBACK TO s; COMMIT')
        elif how < 0.86:
            self.sql('BEGIN')
            self.counted(what, text, *parameters)
            self.counted(what + ', twice', text, *parameters)
            self.pause(0.1)
            self.sql('COMMIT')
        elif how < 0.92:
            self.sql('BEGIN ISOLATION LEVEL ' + self.rng.choice(['REPEATABLE READ', 'SERIALIZABLE']))
            self.counted(what + ', isolated', text, *parameters)
            self.sql('COMMIT')
        else:
            name = f'c{self.rng.getrandbits(60)}'
            self.sql('BEGIN')
            self.counted(what + ', prepared', text, *parameters)
            self.sql(f"PREPARE TRANSACTION '{name}'")
            self.pause(0.1)
            self.sql(f"{self.rng.choice(['COMMIT', 'COMMIT', 'ROLLBACK'])} PREPARED '{name}'")


class Disturber(Actor):
    """Cancels and terminates whoever is at work, workers of the extension included."""

    def step(self):
        self.pause(0.4)
        how = 'pg_terminate_backend' if self.rng.random() < 0.15 else 'pg_cancel_backend'
        if self.sql(f"""SELECT {how}(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND state = 'active'
                AND (application_name LIKE 'torture caller%%' OR backend_type LIKE 'audio_cleanup%%' OR random() < 0.05)
                ORDER BY md5(pid::text || %s) LIMIT 1""", str(self.rng.random())):
            self.server.counts[how] += 1


class Killer(Actor):
    """Kills processes of the server without mercy; seldom the whole server."""

    def step(self):
        # a server that was started anew waits for the end of the lease that it had in a bucket
        self.pause(10 if self.campaign.gateway is None else 3)
        if not self.campaign.running():
            return
        if self.rng.random() < (0.25 if self.campaign.gateway is None else 0.06):
            self.server.go_down(self.rng.choice(['killed', 'killed', 'immediate', 'fast']))
            return
        pids = self.sql("""SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()
            AND (state = 'active' OR backend_type LIKE 'audio_cleanup%%') ORDER BY md5(pid::text || %s) LIMIT 1""",
                        str(self.rng.random()))
        for (pid,) in pids:
            self.server.kill(pid)


class Uploader(Actor):
    """Lays files into the directory, replaces and removes some."""

    def step(self):
        which = self.rng.random()
        if which < 0.12:
            self.replace()
        elif which < 0.17:
            self.remove()
        else:
            for _ in range(self.rng.choice([1, 1, 2, 5, 20])):
                self.files.give(self.files.lay(self.database, new_name(self.rng, next(self.files.numbers))), 'orphan')
        if self.campaign.gateway is None and self.rng.random() < 0.03:
            self.files.give(self.files.lay(self.database, f'young{next(self.files.numbers)}.mp3', young=True), 'young', 'young')
        if self.campaign.gateway is None and self.rng.random() < 0.03:
            self.make_unreadable()
        self.pause(0.5)

    def replace(self):
        file = self.files.take(self.rng, self.database, 'orphan')
        if file is not None:
            self.files.give(self.files.lay(self.database, file.path), 'orphan')
            self.files.give(file, 'replaced')

    def remove(self):
        file = self.files.take(self.rng, self.database, 'orphan')
        if file is not None:
            self.files.remove(file)
            self.files.give(file, 'replaced')

    def make_unreadable(self):
        folder = self.files.directory(self.database) + '/sub'
        try:
            os.chmod(folder, 0)
            time.sleep(0.3 * self.rng.random())
        except OSError:
            return
        finally:
            if os.path.isdir(folder):
                os.chmod(folder, 0o700)


class Throttler(Actor):
    """The server of the bucket has no time, breaks connections off, tells half of an answer, or is slow."""

    def step(self):
        self.pause(0.6)
        do, most = self.rng.choice([('refuse', 40), ('refuse', 10), ('cut', 5), ('cut_after', 5), ('lie', 3), ('hold', 3)])
        self.campaign.gateway.set_rule({'match': self.rng.choice(['.', 'DELETE', 'versions', 'list-type', 'PUT']), 'do': do,
                                        'code': self.rng.choice([503, 503, 500]), 'times': self.rng.randint(1, most)})
        self.campaign.count('the bucket: ' + do, 'done')
        self.pause(0.4)
        self.campaign.gateway.clear_rule()


class Writer(Actor):
    """The application: begins to refer to files, stops it, lets sessions fail and tries them again."""

    def step(self):
        self.rng.choice([self.refer, self.refer, self.refer, self.forget, self.fail, self.fail, self.retry, self.hold, self.row_first])()
        self.pause(0.1)

    def prepare(self):
        super().prepare()
        self.sql("SET lock_timeout = '20s'")

    def insert(self, file):
        table = self.rng.choice(sorted(INSERTS))
        rows = self.counted('refer to a file', INSERTS[table], as_value(self.rng, file.path.decode()))
        file.row = (table, str(rows[0][0]))

    def refer(self):
        """Refers to an orphan that is still there: from COMMIT on it is wanted."""
        file = self.files.take(self.rng, self.database, 'orphan')
        if file is None:
            return
        try:
            self.sql('BEGIN')
            self.insert(file)
            there = self.files.in_place(file)
            self.pause(0.2 if self.rng.random() < 0.8 else 3)
        except psycopg2.Error:
            self.files.give(file, 'orphan')
            raise
        if not there or self.rng.random() < 0.15:
            self.sql_or(file, 'orphan', 'ROLLBACK')
        elif self.rng.random() < 0.1:
            self.by_two_phases(file)
        else:
            self.commit(file, 'wanted', 'seen in its place by a transaction that referred to it')

    def sql_or(self, file, state, text):
        try:
            self.sql(text)
        finally:
            self.files.give(file, state)

    def by_two_phases(self, file):
        name = f'w{self.rng.getrandbits(60)}'
        try:
            self.sql(f"PREPARE TRANSACTION '{name}'")
            self.pause(0.5)
            self.sql(f"COMMIT PREPARED '{name}'")
        except psycopg2.Error:
            self.files.give(file, 'unknown')
            raise
        self.files.give(file, 'wanted', 'prepared and committed')

    def row_first(self):
        """The row is there before the file is, and the file is old: wanted from its first moment."""
        number = next(self.files.numbers)
        path = new_name(self.rng, f'{number}x{self.rng.getrandbits(20)}')
        file = File(self.database, path.encode(), 0, b'')
        try:
            self.sql('BEGIN')
            self.insert(file)
            self.sql('COMMIT')
        except psycopg2.Error:
            return
        row, file = file.row, self.files.lay(self.database, path)
        file.row = row
        self.files.give(file, 'wanted', 'its row was there first')

    def forget(self):
        file = self.files.take(self.rng, self.database, 'wanted')
        if file is None:
            return
        why = 'a transaction that would have forgotten it was rolled back'
        try:
            self.sql('BEGIN')
            self.counted('forget a file', f'DELETE FROM media.{file.row[0]} WHERE id = %s', file.row[1])
        except psycopg2.Error:
            self.files.give(file, 'wanted', why)
            raise
        self.commit(file, 'orphan')

    def fail(self):
        """A session that failed long ago; now and then it shares its file with one that lives."""
        file = self.files.lay(self.database, new_name(self.rng, next(self.files.numbers)))
        shared = self.rng.random() < 0.2
        try:
            self.sql('BEGIN')
            if shared:
                self.insert(file)
            value = as_value(self.rng, file.path.decode())
            rows = self.counted('let a session fail', """INSERT INTO media.sessions (audio_url, status, updated_at)
                VALUES (%s, 'failed', now() - interval '20 days') RETURNING id""", value)
            there = self.files.in_place(file)
            if not shared:
                file.row = ('sessions', str(rows[0][0]))
        except psycopg2.Error:
            self.files.give(file, 'orphan')
            raise
        if shared and there:
            self.commit(file, 'wanted', 'shared by a session that lives')
        else:
            self.commit(file, 'orphan' if shared else 'failed')

    def retry(self):
        """A failed session is tried again: from COMMIT on its file is wanted, if it was still there and referred to."""
        file = self.files.take(self.rng, self.database, 'failed')
        if file is None:
            return
        try:
            self.sql('BEGIN')
            rows = self.counted('retry a session', """UPDATE media.sessions SET status = 'processing', updated_at = now()
                WHERE id = %s AND status = 'failed' AND audio_url IS NOT NULL RETURNING id""", file.row and file.row[1])
            there = self.files.in_place(file)
            self.pause(0.3)
        except psycopg2.Error:
            self.files.give(file, 'failed')
            raise
        if rows and there:
            self.commit(file, 'wanted', 'retried while it was in its place')
        else:
            self.sql_or(file, 'orphan' if not rows else 'failed', 'ROLLBACK')

    def hold(self):
        if self.rng.random() < 0.8:
            return
        path = f'held{self.rng.getrandbits(40)}.mp3'
        self.counted('hold', 'SELECT cleanup_hold(%s)', path)
        self.files.give(self.files.lay(self.database, path), 'held', 'held before it was there')


class Changer(Actor):
    """The owner of the tables changes them, and back again."""

    def prepare(self):
        super().prepare()
        self.sql("SET lock_timeout = '2s'")

    def step(self):
        self.pause(2)
        if self.rng.random() < 0.15:
            self.counted('vacuum and the like', self.rng.choice(ALONE))
            return
        name, there, back = self.rng.choice(CHANGES)
        self.transact(name, there, self.rng.random() < 0.15)
        if back is None:
            return
        self.pause(0.6)
        self.transact(name + ', back', back, False)

    def transact(self, name, statements, roll_back):
        self.sql('BEGIN')
        for statement in statements:
            self.counted(name, statement)
        self.sql('ROLLBACK' if roll_back else 'COMMIT')

    def recover(self, error):
        super().recover(error)
        undo_changes(self.server, self.database, self.campaign.running)


def undo_changes(server, database, going_on):
    """Brings the tables back into their form, whatever was left half done."""
    while True:
        try:
            connection = server.connect(database, 'app', 'torture changer, undoing')
            query(connection, "SET lock_timeout = '1s'")
            # a change whose second half was lost is told by what is there, so that the right halves are undone
            for _ in range(2):
                for _, _, back in CHANGES:
                    for statement in back or []:
                        try:
                            query(connection, statement)
                        except psycopg2.Error as error:
                            if error.pgcode is None or error.pgcode[:2] in ('55', '57', '40', '08'):
                                raise
            connection.close()
            return
        except psycopg2.Error:
            if not going_on():
                return
            time.sleep(0.2)


class Superuser(Actor):
    """What only a superuser may do: sources, settings, the extension's schema, and time."""

    def prepare(self):
        super().prepare()
        self.sql("SET lock_timeout = '2s'")

    def step(self):
        self.pause(3)
        self.rng.choice([self.source, self.setting, self.schema, self.let_time_pass])()

    def source(self):
        self.counted('drop a source', "SELECT cleanup_drop_source('media.extra')")
        self.pause(0.5)
        self.counted('add a source', "SELECT cleanup_add_source('media.extra')")

    def setting(self):
        name, values = self.rng.choice([('batch_size', [3, 20, 1000]), ('remove_empty_dirs', ['on', 'off']), ('report_limit', [0, 5, 10000]),
                                        ('writer_wait', ['100ms', '1s', '5s']), ('files_per_second', [0, 0, 50])])
        if name != 'remove_empty_dirs' or self.sql("SELECT count(*) FROM pg_settings WHERE name = 'audio_cleanup.remove_empty_dirs'")[0][0]:
            self.counted('change a setting', f"ALTER DATABASE {self.database} SET audio_cleanup.{name} = '{self.rng.choice(values)}'")

    def schema(self):
        if self.database == 'one':
            self.counted("rename the extension's schema", 'ALTER SCHEMA cleaning RENAME TO cleaning_away')
            self.pause(0.3)
            self.counted("rename the extension's schema, back", 'ALTER SCHEMA cleaning_away RENAME TO cleaning')

    def recover(self, error):
        super().recover(error)
        for statement in ('ALTER SCHEMA cleaning_away RENAME TO cleaning', "SELECT cleanup_add_source('media.extra')"):
            try:
                if not self.connection.closed:
                    self.sql(statement)
            except psycopg2.Error:
                pass

    def let_time_pass(self):
        """Backups come to the end of their days."""
        self.counted('let time pass', """UPDATE cleanup_files SET due_at = now() - interval '1 second'
            WHERE state = 'trashed' AND due_at > now() AND random() < 0.3""")


class Thief(Actor):
    """A clone of a database tries to clean the directory of the original."""

    def step(self):
        self.pause(0.5)
        self.counted('clone: a run', self.rng.choice(['SELECT cleanup_all(force => true)', 'CALL cleanup_run(force => true)',
                                                      'SELECT cleanup_orphaned_files()', 'SELECT cleanup_purge_backups()',
                                                      'SELECT cleanup_status()']))


# ---- beginning and end ----

def set_up(server, files, rng):
    connection = server.connect('postgres')
    query(connection, 'CREATE ROLE app LOGIN; CREATE ROLE op LOGIN; CREATE ROLE vw LOGIN')
    for database in DATABASES:
        set_up_database(server, files, rng, connection, database)
    query(connection, f'CREATE DATABASE {CLONE} TEMPLATE one')
    settings(connection, CLONE, files.directory('one'))
    with open(server.data + '/postgresql.conf', 'a') as conf:
        conf.write("audio_cleanup.databases = 'one, two'\naudio_cleanup.auto_cleanup_on_startup = on\n")
    connection.close()
    server.stop('fast')
    server.start()


def settings(connection, database, directory):
    for name, value in {'upload_dir': directory, 'file_age': 'mtime', 'max_delete_percent': 100, 'writer_wait': '2s', 'batch_size': 20,
                        'backup_retention_days': 0 if directory.endswith('one') else 1}.items():
        query(connection, f"ALTER DATABASE {database} SET audio_cleanup.{name} = '{value}'")


def set_up_database(server, files, rng, postgres, database):
    if not isinstance(files, BucketFiles):
        os.mkdir(files.directory(database))
    query(postgres, f'CREATE DATABASE {database} OWNER app')
    settings(postgres, database, files.directory(database))
    app = server.connect(database, 'app')
    query(app, SCHEMA)
    connection = server.connect(database)
    schema = 'cleaning' if database == 'one' else 'public'
    query(connection, f'CREATE SCHEMA IF NOT EXISTS {schema}; CREATE EXTENSION audio_cleanup SCHEMA {schema};'
                      f'GRANT USAGE ON SCHEMA {schema} TO op, vw; SET search_path = {schema}, public; SET client_min_messages = error')
    on_failed = 'clear' if database == 'one' else 'keep'
    query(connection, f"""SELECT cleanup_grant_access('op', 'operator'); SELECT cleanup_grant_access('vw');
        SELECT cleanup_add_source('media.sessions', file_columns => '{{audio_url}}', on_failed => '{on_failed}');
        SELECT cleanup_add_source('media.' || name, file_columns => '{{audio_url}}', id_column => 'id')
        FROM unnest('{{parts, doc_files, secured, extra}}'::text[]) AS name""")
    lay_what_stays(files, rng, database, app)
    # a claim of a bucket that is left to a worker may come later than the clone, which then has the bucket
    if isinstance(files, BucketFiles):
        query(connection, 'SELECT cleanup_claim_upload_dir()')
    query(connection, 'SELECT cleanup_all()')
    app.close()
    connection.close()


def lay_what_stays(files, rng, database, app):
    for i in range(120):
        file = files.lay(database, new_name(rng, f'stay{i}'))
        path = file.path.decode()
        query(app, INSERTS[sorted(INSERTS)[i % len(INSERTS)]], [as_value(rng, path)])
        files.give(file, 'always', 'referred to from the beginning')
        if i % 10 == 0:
            stem, extension = path.rsplit('.', 1)
            files.give(files.lay(database, f'{stem}_processed.{extension}'), 'always', 'derived from a file that is wanted')
    for i in range(0 if isinstance(files, BucketFiles) else 150):
        files.give(files.lay(database, b'b\xff\xfe%0100d.mp3' % i), 'always', 'its name is no text')


def settle(server):
    """Lets the drains end, and makes one more run in each database; returns what went wrong."""
    wrong = []
    server.wait_until_up()
    for database in (*DATABASES, CLONE):
        connection = server.connect(database)
        for (name,) in query(connection, 'SELECT gid FROM pg_prepared_xacts WHERE database = current_database()'):
            query(connection, f"ROLLBACK PREPARED '{name}'")
        connection.close()
    for database in (*DATABASES, CLONE):
        connection = server.connect(database)
        query(connection, 'SET search_path = cleaning, cleaning_away, public')
        until = time.time() + SETTLE
        undo_changes(server, database, lambda: time.time() < until)
        try:
            query(connection, 'ALTER SCHEMA cleaning_away RENAME TO cleaning')
        except psycopg2.Error:
            pass
        if database != CLONE:
            wrong += last_run(connection, database)
        connection.close()
    return wrong


def last_run(connection, database):
    query(connection, f"ALTER DATABASE {database} SET audio_cleanup.files_per_second = 0")
    query(connection, "SET audio_cleanup.files_per_second = 0; SET audio_cleanup.writer_wait = '60s'")
    try:
        query(connection, "SELECT cleanup_add_source('media.extra')")
    except psycopg2.Error:
        pass
    until = time.time() + SETTLE
    while True:
        try:
            query(connection, 'SELECT cleanup_all(force => true)')
            query(connection, 'SELECT cleanup_purge_backups()')
            break
        except psycopg2.Error as error:
            if time.time() > until or error.pgcode is None or error.pgcode[:2] not in ('55', '57', '40'):
                return [f'{database}: the last run: {error}']
            time.sleep(0.5)
    return [f'{database}: {line}' for line in wait_for_drain(connection)]


def wait_for_drain(connection):
    """Returns what is unfinished when the patience is at its end."""
    unfinished = []
    until = time.time() + SETTLE
    while time.time() < until:
        unfinished = query(connection, """
            SELECT 'run ' || run_id || ' is ' || status FROM cleanup_runs WHERE status IN ('running', 'pending') UNION ALL
            SELECT file || ' of run ' || run_id || ' is ' || state FROM cleanup_files
            WHERE state IN ('pending', 'restoring') OR state = 'trashed' AND due_at <= now() UNION ALL
            SELECT 'a drain is at work' FROM pg_stat_activity WHERE backend_type = 'audio_cleanup drain' AND datname = current_database()
            LIMIT 30""")
        if not unfinished:
            return []
        time.sleep(0.2)
    return [line for (line,) in unfinished]


# ---- the checker ----

class Checker:
    def __init__(self, server, files):
        self.files = files
        self.lost, self.disagree, self.unrecorded = [], [], []
        self.wanted = self.rows_seen = 0
        for database in DATABASES:
            connection = server.connect(database)
            query(connection, 'SET search_path = cleaning, public')
            self.check(database, connection)
            connection.close()

    def check(self, database, connection):
        found = self.files.places(database)
        in_bucket = isinstance(self.files, BucketFiles)
        identity = 'inode' if in_bucket else 'mtime_ns'
        rows = collections.defaultdict(list)
        for run, state, file, what in query(connection, f"""SELECT run_id, CASE WHEN state = 'restored' AND restore_as IS NOT NULL THEN 'restored as' ELSE state END,
                file, {identity} FROM cleanup_files ORDER BY file_id"""):
            rows[what].append((run, state, file))
            self.rows_seen += 1
        for file in self.files.all:
            if file.database == database:
                self.check_file(file, found.get(file.identity, []), rows.get(file.identity, []))
        self.check_rows(database, found, rows)

    def check_file(self, file, where, rows):
        told = f'{file.database}: {file.path!r}, {file.why or file.state}: is at {where}, its rows say {rows}'
        if file.why:
            self.wanted += 1
            if where != [file.path] or self.files.read(file) != file.content:
                self.lost.append(told)
        elif len(where) > 1:
            self.disagree.append(told)
        elif not where and file.state in ('orphan', 'failed') and file.identity is not None and \
                not {'deleted', 'restored as'}.intersection(state for _, state, _ in rows):
            self.unrecorded.append(told)

    def check_rows(self, database, found, rows):
        # in a bucket the application's own delete hides a file as a run does
        removed = {file.identity for file in self.files.all if file.state == 'replaced'} if isinstance(self.files, BucketFiles) else set()
        in_trash = collections.Counter(path for what, paths in found.items() if what not in removed
                                       for path in paths if path.startswith(b'.audio_cleanup/trash/'))
        for what, of_file in rows.items():
            where = found.get(what, [])
            run, last, _ = of_file[-1]
            for run, state, path in of_file:
                trash = self.files.trash_place(run, path)
                if state == 'trashed' and what not in removed:
                    in_trash[trash] -= 1
                if state == 'trashed' and trash not in where or state == 'deleted' and where:
                    self.disagree.append(f'{database}: {path} of run {run} is {state}, and the file is at {where}; rows {of_file}')
                elif state in ('pending', 'restoring'):
                    self.disagree.append(f'{database}: {path} of run {run} is still {state}; the file is at {where}')
        self.disagree += [f'{database}: {path!r} has no row' for path, count in in_trash.items() if count > 0]


def clone_has_run(server, before):
    connection = server.connect(CLONE)
    rows = query(connection, 'SELECT count(*) FROM cleaning.cleanup_files')[0][0]
    connection.close()
    return [] if rows == before else [f'{rows - before} new rows in its ledger']


def deleted_files(server):
    total = 0
    for database in DATABASES:
        connection = server.connect(database)
        query(connection, 'SET search_path = cleaning, public')
        total += query(connection, "SELECT count(*) FROM cleanup_files WHERE state = 'deleted'")[0][0]
        connection.close()
    return total


# ---- what the reader sees ----

checks = 0
failures = 0


def check(description, wrong):
    global checks, failures
    checks += 1
    failures += bool(wrong)
    print(f"{'not ok' if wrong else 'ok'} {checks} - {description}: {len(wrong)}")
    for line in wrong[:20]:
        print('# ' + str(line).replace('\n', NEW_LINE))


def show_table(campaign):
    outcomes = ['done', 'refused', 'cancelled', 'denied', 'deadlock', 'cut off', 'internal']
    print('# %-46s' % 'what' + ''.join('%10s' % outcome for outcome in outcomes))
    total = collections.Counter()
    for what in sorted(campaign.calls):
        counts = campaign.calls[what]
        total.update(counts)
        print('# %-46s' % what[:46] + ''.join('%10s' % (counts[outcome] or '.') for outcome in outcomes))
    print('# %-46s' % 'all' + ''.join('%10d' % total[outcome] for outcome in outcomes))
    for name, counts in (('why refused', campaign.refusals), ('internal errors', campaign.strange)):
        if counts:
            print(f'# {name}:')
        for message, count in counts.most_common(25):
            print(f'# {count:7d}  {message}')
    print('# ' + ', '.join(f'{count} {what}' for what, count in sorted(campaign.server.counts.items())))


def spoil(campaign):
    """Does what must never happen, so that the checker can be seen to find it."""
    files = campaign.files
    files.destroy(next(file for file in files.all if file.state == 'always'))
    connection = campaign.server.connect('two')
    query(connection, """UPDATE cleanup_files SET state = 'deleted' WHERE file_id =
        (SELECT file_id FROM cleanup_files WHERE state = 'trashed' LIMIT 1)""")
    query(connection, "DELETE FROM cleanup_files WHERE file_id = (SELECT file_id FROM cleanup_files WHERE state = 'deleted' ORDER BY 1 LIMIT 1)")
    connection.close()


def make_actors(campaign):
    actors = [Killer(campaign, 'killer'), Disturber(campaign, 'disturber 1'), Disturber(campaign, 'disturber 2'),
              Thief(campaign, 'thief', CLONE), Thief(campaign, 'thief who operates', CLONE, 'op')]
    if campaign.gateway is not None:
        actors.append(Throttler(campaign, 'throttler'))
    for database in DATABASES:
        actors += [Caller(campaign, f'caller {database} {user} {i}', database, user)
                   for user, many in (('postgres', 2), ('op', 2), ('vw', 1)) for i in range(many)]
        actors += [Writer(campaign, f'writer {database} {i}', database) for i in range(3)]
        actors += [Uploader(campaign, f'uploader {database}', database), Changer(campaign, f'changer {database}', database, 'app'),
                   Superuser(campaign, f'superuser {database}', database)]
    return actors


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--bindir', required=True)
    parser.add_argument('--folder', required=True)
    parser.add_argument('--seconds', type=float, required=True)
    parser.add_argument('--seed', type=int)
    parser.add_argument('--bucket', action='store_true')
    parser.add_argument('--spoil', action='store_true')
    options = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 31)
    print(f'# torture: seed {seed}, {options.seconds:g} seconds{", in a bucket" if options.bucket else ""}', flush=True)

    gateway = Gateway(options.folder + '/gateway') if options.bucket else None
    server = Server(options.bindir, options.folder)
    try:
        server.create(gateway.settings() if gateway else '')
        run_campaign(server, seed, options, gateway)
    finally:
        server.stop('immediate')
        if gateway:
            gateway.stop()
    print(f'1..{checks}')
    sys.exit(3 if failures else 0)


def run_campaign(server, seed, options, gateway):
    campaign = Campaign(server, seed, options.seconds, gateway)
    set_up(server, campaign.files, random.Random(seed))
    connection = server.connect(CLONE)
    rows_of_clone = query(connection, 'SELECT count(*) FROM cleaning.cleanup_files')[0][0]
    connection.close()
    campaign.until = time.time() + options.seconds
    actors = make_actors(campaign)
    for actor in actors:
        actor.start()
    time.sleep(options.seconds)
    hung = wait_for_actors(actors)
    show_table(campaign)
    if gateway:
        gateway.clear_rule()
    unfinished = settle(server)
    if options.spoil:
        spoil(campaign)
    report(server, campaign, hung, unfinished, rows_of_clone)


def wait_for_actors(actors):
    """Returns what those are doing who do not come to their end."""
    until = time.time() + HANG
    for actor in actors:
        actor.join(max(0, until - time.time()))
    return [f'{actor.name}, since {time.time() - actor.since:.0f} s: {actor.doing}' for actor in actors if actor.is_alive()]


def report(server, campaign, hung, unfinished, rows_of_clone):
    checker = Checker(server, campaign.files)
    deleted = deleted_files(server)
    print(f'# {len(campaign.files.all)} files, {checker.wanted} of them wanted; {checker.rows_seen} rows of files, {deleted} deleted')
    check('wanted files lost', checker.lost)
    check('rows that disagree with the disk' if campaign.gateway is None else 'rows that disagree with the bucket', checker.disagree)
    check('files that have gone without a row', checker.unrecorded)
    check('runs and files that the drains have left unfinished', unfinished)
    check('crashes', server.crashes())
    check('files touched by a clone of the database', clone_has_run(server, rows_of_clone))
    check('calls that hung', campaign.hung + hung)
    check('campaigns in which nothing was deleted', [] if deleted > 0 else ['nothing was proven'])


if __name__ == '__main__':
    main()
