# Sources whose rows lie on another server, reached by postgres_fdw: a foreign
# table, a foreign partition, a view over them.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $shard = start_shard('shard', init => [ allows_streaming => 1 ], conf => "max_prepared_transactions = 5\n");
my $node = new_server('foreign');
my $dir = upload_dir($node);

# The role on the other server may read and nothing else; the owner here is no superuser.
$shard->safe_psql('postgres', q{
	CREATE ROLE reader LOGIN PASSWORD 'secret of the reader';
	CREATE TABLE sessions (id int PRIMARY KEY, audio_url text, status text, updated_at timestamptz DEFAULT now());
	GRANT SELECT ON sessions TO reader;
});
my $host = $shard->host;
my $port = $shard->port;
$node->safe_psql('postgres', qq{
	CREATE EXTENSION audio_cleanup;
	CREATE EXTENSION postgres_fdw;
	CREATE ROLE app LOGIN;
	GRANT CREATE ON SCHEMA public TO app;
	CREATE SERVER shard FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$host', port '$port', dbname 'postgres');
	GRANT USAGE ON FOREIGN SERVER shard TO app;
	CREATE USER MAPPING FOR app SERVER shard OPTIONS (user 'reader', password 'secret of the reader');
	SET ROLE app;
	CREATE TABLE sessions (id int, audio_url text, status text, updated_at timestamptz DEFAULT now()) PARTITION BY RANGE (id);
	CREATE TABLE sessions_here PARTITION OF sessions FOR VALUES FROM (0) TO (1000);
	CREATE FOREIGN TABLE sessions_there PARTITION OF sessions FOR VALUES FROM (1000) TO (2000)
		SERVER shard OPTIONS (schema_name 'public', table_name 'sessions');
});

my %wanted;
my $id = 0;

sub want { my ($name) = @_; return $wanted{$name} = put_file($dir, $name); }

# A row of the table here, or on the other server; and a transaction there that is left open.
sub row_here { my ($name) = @_; return 'INSERT INTO sessions VALUES (' . ++$id . ", '$name', 'processed')"; }
sub row_there { my ($name) = @_; return 'INSERT INTO sessions VALUES (' . (1000 + ++$id) . ", '$name', 'processed')"; }

sub clean { my ($options) = @_; return sql_json($node, 'CALL cleanup_run(' . ($options || '') . ')'); }

sub refused
{
	my ($sql, $pattern, $name) = @_;
	my $error = sql_error($node, $sql);
	like($error, $pattern, $name);
	unlike($error, qr/secret of the reader/, '... and no password is in it');
	return;
}

# ---- what is missing is said, and nothing is registered ----

refused(q{SELECT cleanup_add_source('sessions')}, qr/ERROR:  0A000: source public\.sessions reads public\.sessions_there on server "shard", which cannot be asked who writes there.*dblink is not installed.*HINT:  Install it: CREATE EXTENSION dblink;/s,
	'without dblink a foreign partition is refused');
$node->safe_psql('postgres', 'CREATE SCHEMA links; GRANT USAGE ON SCHEMA links TO app; CREATE EXTENSION dblink SCHEMA links');
refused(q{SELECT cleanup_add_source('sessions')}, qr/no connect_timeout.*HINT:  Set it: ALTER SERVER shard OPTIONS \(ADD connect_timeout '5'\);/s,
	'without a connect_timeout, too');
$node->safe_psql('postgres', q{ALTER SERVER shard OPTIONS (ADD connect_timeout '5')});
refused(q{SELECT cleanup_add_source('sessions', status_column => 'status', id_column => 'id', failed_at_column => 'updated_at')},
	qr/ERROR:  0A000: source public\.sessions has failed sessions and reads public\.sessions_there, which lies on another server/,
	'failed sessions cannot be judged on another server');
is($node->safe_psql('postgres', 'SELECT count(*) FROM cleanup_sources'), 0, 'nothing was registered');

# ---- what the other server says against its table ----

foreach my $case ([ 'ALTER TABLE sessions ENABLE ROW LEVEL SECURITY', 'ALTER TABLE sessions DISABLE ROW LEVEL SECURITY',
		qr/Row-level security hides rows there from role "reader"/ ],
	[ 'ALTER TABLE sessions SET UNLOGGED', 'ALTER TABLE sessions SET LOGGED', qr/sessions is no permanent table there/ ],
	[ 'ALTER TABLE sessions RENAME TO base; CREATE VIEW sessions AS SELECT * FROM base; GRANT SELECT ON sessions TO reader',
		'DROP VIEW sessions; ALTER TABLE base RENAME TO sessions', qr/sessions is a view there/ ],
	[ 'ALTER TABLE sessions RENAME TO base', 'ALTER TABLE base RENAME TO sessions', qr/There is no such table there/ ],
	[ 'CREATE FOREIGN DATA WRAPPER w; CREATE SERVER further FOREIGN DATA WRAPPER w; CREATE FOREIGN TABLE child () INHERITS (sessions) SERVER further',
		'DROP FOREIGN DATA WRAPPER w CASCADE', qr/child is a foreign table there/ ],
	[ 'REVOKE SELECT ON sessions FROM reader', 'GRANT SELECT ON sessions TO reader', qr/Role "reader" may not read it there/ ],
	[ "ALTER ROLE reader PASSWORD 'another one'", "ALTER ROLE reader PASSWORD 'secret of the reader'", qr/could not (establish connection|connect to server)/ ])
{
	my ($worse, $better, $pattern) = @$case;
	$shard->safe_psql('postgres', $worse);
	refused(q{SELECT cleanup_add_source('sessions')}, $pattern, $worse);
	$shard->safe_psql('postgres', $better);
}

# ---- registered, as its owner ----

$node->safe_psql('postgres', q{GRANT ALL ON ALL TABLES IN SCHEMA public TO app; GRANT EXECUTE ON FUNCTION cleanup_add_source TO app});
like(sql_error($node, q{SELECT cleanup_add_source('sessions')}), qr/NOTICE:.*file columns audio_url; id column id; no failed sessions/,
	'a table with a foreign partition has no failed sessions by itself');

want('here.mp3');
want('there.mp3');
put_file($dir, 'orphan.mp3');
$node->safe_psql('postgres', row_here('here.mp3'));
$shard->safe_psql('postgres', row_there('there.mp3'));

# ---- in somebody's transaction the rows there are as old as its first look ----

my $status = sql_json($node, 'SELECT cleanup_status()');
ok($status->{success}, 'cleanup_status() looks');
is_deeply($status->{potential_cleanup}{orphaned_files_deleted}, ['orphan.mp3'], 'a row on the other server protects its file');
my $preview = sql_json($node, 'SELECT cleanup_all(dry_run => true)');
is_deeply($preview->{blocked_by}, ['isolation'], 'cleanup_all(dry_run) says that cleanup_all() would be refused');
is_deeply($preview->{result}{orphaned_files_deleted}, ['orphan.mp3'], '... and lists the files nevertheless');
ok(clean('dry_run => true')->{success}, 'cleanup_run(dry_run) says that cleanup_run() would not be');
refused("SELECT $_()", qr/ERROR:  25001: cannot clean up in one transaction where rows lie on another server.*HINT:  CALL cleanup_run\(\)/s, "$_ is refused")
	foreach 'cleanup_all', 'cleanup_orphaned_files', 'cleanup_failed_sessions';
ok(-e "$dir/orphan.mp3", 'nothing was deleted');

# ---- a run ----

is_deeply(clean()->{result}{orphaned_files_deleted}, ['orphan.mp3'], 'CALL cleanup_run() deletes the orphan');
is_deeply(visible_files($dir), \%wanted, '... and nothing else');
is($shard->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE usename = 'reader' AND state LIKE 'idle in%'}), 0,
	'no transaction is left open on the other server');
is(sql_json($node, q{SELECT cleanup_explain('there.mp3')})->{verdict}, 'kept', 'cleanup_explain() sees the row there');

# ---- a writer in flight there ----


# Starts a CALL, and returns when it waits for writers: there, or here when those there have ended.
sub start_waiting_run
{
	my ($where) = @_;
	my $run = $node->background_psql('postgres', on_error_stop => 0);
	$run->query_until(qr/begun/, "\\echo begun\nCALL cleanup_run(force => true);\n\\echo over\n");
	ok($where eq 'there'
		? $shard->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE usename = 'reader' AND query LIKE '%pg_locks%'})
		: $node->poll_query_until('postgres',
			q{SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'CALL cleanup_run%' AND wait_event = 'virtualxid'}),
		"a run waits for writers $where");
	return $run;
}

sub finish_run { my ($run) = @_; $run->query_until(qr/over/, ''); $run->quit; return; }

# Was the file in its place all the time?
sub was_condemned { my ($name) = @_; return $node->safe_psql('postgres', "SELECT count(*) FROM cleanup_files WHERE file = '$name'"); }

want('flight.mp3');
put_file($dir, 'orphan1.mp3');
my $writer = begin_session($shard, row_there('flight.mp3'));
my $run = start_waiting_run('there');
ok(-e "$dir/orphan1.mp3", 'nothing is deleted while somebody writes there');
end_session($writer);
finish_run($run);
is(was_condemned('flight.mp3'), 0, 'a file is not condemned whose row was in flight there');
ok(!-e "$dir/orphan1.mp3", '... and another one is gone');

# ---- committed there between the survey and the second look: a new snapshot sees it ----

want('between.mp3');
put_file($dir, 'orphan2.mp3');
my $here = begin_session($node, row_here('elsewhere.mp3'));
$run = start_waiting_run('here');
$shard->safe_psql('postgres', row_there('between.mp3'));
end_session($here);
finish_run($run);
is(was_condemned('between.mp3'), 0, 'a row that was committed there after the survey protects its file');
ok(!-e "$dir/orphan2.mp3", '... and another file is gone');

# ---- a writer there that begins too late to be waited for: the last look sees him ----

foreach my $days (0, 30)
{
	$node->safe_psql('postgres', "ALTER DATABASE postgres SET audio_cleanup.backup_retention_days = $days");
	want("late$days.mp3");
	$here = begin_session($node, row_here('elsewhere.mp3'));
	$run = start_waiting_run('here');
	$writer = begin_session($shard, row_there("late$days.mp3"));
	end_session($here);
	ok(wait_until(sub { !-e "$dir/late$days.mp3" }), "backups of $days days: a file is captured whose row came too late");
	end_session($writer);
	finish_run($run);
	ok(wait_until(sub { -e "$dir/late$days.mp3" }), '... and comes back');
}
$node->safe_psql('postgres', 'ALTER DATABASE postgres RESET audio_cleanup.backup_retention_days');
ok(wait_for_drain($node), 'all runs are done');

# ---- those that do not end: nothing is deleted ----

$node->safe_psql('postgres', q{ALTER DATABASE postgres SET audio_cleanup.writer_wait = '500ms'});
want('prepared.mp3');
put_file($dir, 'orphan3.mp3');
$shard->safe_psql('postgres', 'BEGIN; ' . row_there('prepared.mp3') . "; PREPARE TRANSACTION 'long'");
refused('CALL cleanup_run()', qr/ERROR:  55P03: gave up waiting for a transaction that writes on server "shard".*A prepared transaction holds the lock there/s,
	'a prepared transaction there is waited for');
ok(-e "$dir/orphan3.mp3", '... and nothing is deleted');
$shard->safe_psql('postgres', q{COMMIT PREPARED 'long'});
$writer = begin_session($shard, row_there('elsewhere.mp3'));
refused('CALL cleanup_run()', qr/ERROR:  55P03: gave up waiting.*Process \d+ holds the lock there/s, 'so is a process');
is($node->safe_psql('postgres', q{SELECT status FROM cleanup_runs ORDER BY run_id DESC LIMIT 1}), 'blocked', 'the run is on record as blocked');

# a writer who prepares while he is waited for has another name then
$node->safe_psql('postgres', q{ALTER DATABASE postgres SET audio_cleanup.writer_wait = '3s'});
$run = start_waiting_run('there');
end_session($writer, q{PREPARE TRANSACTION 'renamed'});
finish_run($run);
ok(-e "$dir/orphan3.mp3", 'a writer that prepares while a run waits for him is waited for all the same');
$shard->safe_psql('postgres', q{ROLLBACK PREPARED 'renamed'});

# VACUUM and ANALYZE write no rows, and one who only reads is no writer
$writer = begin_session($shard, 'SELECT count(*) FROM sessions; LOCK TABLE sessions IN SHARE UPDATE EXCLUSIVE MODE');
is_deeply(clean('force => true')->{result}{orphaned_files_deleted}, ['orphan3.mp3'], 'a lock as VACUUM has it is not waited for');
end_session($writer);

# one who attaches a partition is
$shard->safe_psql('postgres', q{
	CREATE TABLE parts (id int, audio_url text) PARTITION BY RANGE (id);
	CREATE TABLE parts_1 (id int, audio_url text);
	CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20);
	INSERT INTO parts_1 VALUES (1, 'attached.mp3');
	INSERT INTO parts_2 VALUES (11, 'there.mp3');
	GRANT SELECT ON parts, parts_1, parts_2 TO reader;
});
$node->safe_psql('postgres', q{
	SET ROLE app;
	CREATE FOREIGN TABLE parts (id int, audio_url text) SERVER shard;
	CREATE VIEW seen AS SELECT id, audio_url FROM parts WHERE id > 0;
	RESET ROLE;
	SELECT cleanup_add_source('seen');
});
want('attached.mp3');
put_file($dir, 'orphan4.mp3');
$writer = begin_session($shard, q{ALTER TABLE parts ATTACH PARTITION parts_1 FOR VALUES FROM (0) TO (10)});
$run = start_waiting_run('there');
end_session($writer);
finish_run($run);
is(was_condemned('attached.mp3'), 0, 'below a view, a partition that is being attached there protects its files');
ok(!-e "$dir/orphan4.mp3", '... and another file is gone');

# ---- a superuser's source goes by a mapping of the superuser; other wrappers stay refused ----

my $superuser = $node->safe_psql('postgres', 'SELECT current_user');
$node->safe_psql('postgres', qq{
	CREATE USER MAPPING FOR CURRENT_USER SERVER shard OPTIONS (user '$superuser');
	CREATE FOREIGN TABLE mine (id int, audio_url text) SERVER shard OPTIONS (table_name 'sessions');
	SELECT cleanup_add_source('mine');
	SELECT cleanup_drop_source('mine');
	CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
	CREATE FOREIGN TABLE listing (audio_url text) SERVER files OPTIONS (filename '/nowhere');
});
refused(q{SELECT cleanup_add_source('listing')}, qr/ERROR:  42809: source public\.listing is a foreign table/, 'a table of another wrapper is refused');

# ---- connections of a name that the session has made are not trusted ----

$node->safe_psql('postgres', q{ALTER DATABASE postgres SET audio_cleanup.writer_wait = '500ms'});
put_file($dir, 'orphan5.mp3');
$writer = begin_session($shard, row_there('elsewhere.mp3'));
my $own = 'dbname=postgres host=' . $node->host . ' port=' . $node->port;
refused("SELECT links.dblink_connect('audio_cleanup ' || pg_backend_pid(), '$own');\nCALL cleanup_run();", qr/gave up waiting for a transaction that writes on server "shard"/,
	'a connection to another server of the name that is used is no way round');
end_session($writer);

# ---- the other server is gone: nothing is deleted; it is back: all goes on ----

$shard->stop;
my $down = sql_json($node, 'SELECT cleanup_status()');
is_deeply($down->{blocked_by}, [ 'source', 'source' ], 'a preview says that the other server cannot be reached');
refused('CALL cleanup_run()', qr/ERROR:  08\d\d\d: could not read source public\.sessions/, 'a run is refused');
ok(-e "$dir/orphan5.mp3", 'nothing is deleted');
$shard->start;
is_deeply(clean('force => true')->{result}{orphaned_files_deleted}, ['orphan5.mp3'], 'when it is back, a run deletes');

# ---- it is a standby now: those who write are elsewhere ----

$shard->stop;
$shard->set_standby_mode;
$shard->start;
like(sql_json($node, 'SELECT cleanup_status()')->{potential_cleanup}{errors}[0], qr/on server "shard", which cannot be relied on\. The server is a standby/, 'a standby is refused');
$shard->stop;

is_deeply(visible_files($dir), \%wanted, 'what is wanted is there, and nothing else');
is($node->safe_psql('postgres', q{SELECT count(*) FROM cleanup_runs r WHERE r::text LIKE '%secret of%'}), 0, 'no password is in the history');
is(log_lines($node, qr/PANIC:|signal \d+/), '', 'no process has died');
is(log_lines($node, qr/(?:ERROR|WARNING|DETAIL|HINT|CONTEXT):.*secret of the reader/), '', 'no message tells the password');
$node->stop;
done_testing();
