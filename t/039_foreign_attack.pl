# Other servers as the way of an attack: a server that answers anything, one
# that belongs to somebody else, a connection that is left in the session of
# whoever has called, and what an error tells of a user mapping.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $shard = start_shard('shard');
my $node = new_server('foreign');
my $dir = upload_dir($node);

$shard->safe_psql('postgres', q{
	CREATE ROLE reader LOGIN PASSWORD 'secret of the reader';
	CREATE TABLE sessions (id int PRIMARY KEY, audio_url text);
	INSERT INTO sessions VALUES (1, 'wanted.mp3');
	GRANT SELECT ON sessions TO reader;
});
my $host = $shard->host;
my $port = $shard->port;
$node->safe_psql('postgres', qq{
	CREATE EXTENSION audio_cleanup;
	CREATE EXTENSION postgres_fdw;
	CREATE SCHEMA links; CREATE EXTENSION dblink SCHEMA links;
	CREATE ROLE app LOGIN; CREATE ROLE operator LOGIN; CREATE ROLE viewer LOGIN; CREATE ROLE stranger LOGIN;
	SELECT cleanup_grant_access('operator', 'operator'), cleanup_grant_access('viewer');
	GRANT CREATE ON SCHEMA public TO app;
	GRANT USAGE ON SCHEMA links TO app, operator;
	CREATE SERVER shard FOREIGN DATA WRAPPER postgres_fdw
		OPTIONS (host '$host', port '$port', dbname 'postgres', connect_timeout '5');
	GRANT USAGE ON FOREIGN SERVER shard TO app;
	CREATE USER MAPPING FOR app SERVER shard OPTIONS (user 'reader', password 'secret of the reader');
	SET ROLE app;
	CREATE FOREIGN TABLE sessions (id int, audio_url text) SERVER shard;
	RESET ROLE;
	SELECT cleanup_add_source('sessions');
	ALTER DATABASE postgres SET audio_cleanup.writer_wait = '500ms';
});
my %wanted = ('wanted.mp3' => put_file($dir, 'wanted.mp3'), 'orphan.mp3' => put_file($dir, 'orphan.mp3'));

# ---- a server answers what nobody has asked for ----

my $answers = q{NULL::int4 page, NULL::int2 tuple, NULL::text virtualxid, NULL::xid transactionid, NULL::oid classid, NULL::oid objid,
	NULL::int2 objsubid, %s::text virtualtransaction, %s::int4 pid, 'RowExclusiveLock'::text mode, true granted, true fastpath,
	NULL::timestamptz waitstart};

foreach my $case ([ 'NULL', '1' ], [ 'NULL', 'NULL' ], [ q{repeat('x', 1000000)}, '-1' ])
{
	$shard->safe_psql('postgres', q{SET allow_system_table_mods = on; CREATE OR REPLACE VIEW pg_catalog.pg_locks AS
		SELECT 'relation'::text locktype, d.oid database, 'public.sessions'::regclass::oid relation, }
		. sprintf($answers, @$case) . ' FROM pg_database d');
	like(sql_error($node, 'CALL cleanup_run(force => true)'), qr/ERROR:  55P03: gave up waiting for a transaction that writes on server "shard"/,
		"locks of @$case are waited for");
}
$shard->safe_psql('postgres', q{SET allow_system_table_mods = on; CREATE OR REPLACE VIEW pg_catalog.pg_locks AS
	SELECT * FROM pg_lock_status() AS l(locktype, database, relation, page, tuple, virtualxid, transactionid, classid, objid, objsubid,
		virtualtransaction, pid, mode, granted, fastpath, waitstart)});
is(log_lines($node, qr/PANIC:|signal \d+/), '', '... and no process has died');

# ---- a connection is not left to whoever has called, also when dblink may not be used any more ----

my $writer = begin_session($shard, q{INSERT INTO sessions VALUES (2, 'elsewhere.mp3')});
$node->safe_psql('postgres', q{ALTER DATABASE postgres SET audio_cleanup.writer_wait = '1min'});
my $run = $node->background_psql('postgres', on_error_stop => 0, extra_params => [ '--username', 'operator' ]);
$run->query_until(qr/begun/, "\\echo begun\nCALL cleanup_run(force => true);\n\\echo over\n");
ok($shard->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE usename = 'reader' AND query LIKE '%pg_locks%'}),
	'a run of an operator waits for a writer there');
$node->safe_psql('postgres', 'REVOKE USAGE ON SCHEMA links FROM app');
$run->query_until(qr/over/, '');
like($run->query(q{SELECT 'connections: ' || coalesce(links.dblink_get_connections()::text, 'none')}), qr/^connections: none/m, 'he has no connection of the role that reads');
$run->quit;
ok($shard->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE usename = 'reader'}), '... because it is closed');
$node->safe_psql('postgres', 'GRANT USAGE ON SCHEMA links TO app');
end_session($writer, 'ROLLBACK');

# ---- what an error tells of a user mapping ----

$node->safe_psql('postgres', q{ALTER USER MAPPING FOR app SERVER shard OPTIONS (SET password 'wrong')});
my $secret = qr/reader|\Q$host\E/;
foreach my $call ([ 'viewer', 'SELECT cleanup_status()' ], [ 'viewer', 'SELECT * FROM cleanup_check()' ],
	[ 'viewer', q{SELECT cleanup_explain('wanted.mp3')} ], [ 'operator', 'CALL cleanup_run()' ])
{
	my ($role, $sql) = @$call;
	my ($stdout, $stderr) = ('', '');
	$node->psql('postgres', $sql, stdout => \$stdout, stderr => \$stderr, extra_params => [ '--username', $role ]);
	like($stdout . $stderr, qr/could not read source public\.sessions: could not (establish connection|connect)/, "$sql: a $role is told that the server cannot be reached");
	unlike($stdout . $stderr, $secret, '... and not where it is, and as whom it was asked');
}
like(sql_error($node, 'CALL cleanup_run()'), $secret, 'a superuser is told');
is($node->safe_psql('postgres', q{SELECT count(*) FROM cleanup_runs r WHERE r::text ~ 'reader'}), 0, 'the history has nothing of it');
$node->safe_psql('postgres', q{ALTER USER MAPPING FOR app SERVER shard OPTIONS (SET password 'secret of the reader')});

# ---- a limit that is none ----

foreach my $case ([ 0, '' ], [ -1, '' ], [ 3600, '' ], [ 30, ', SET host \'a,b,c,d\'' ])
{
	my ($seconds, $more) = @$case;
	$node->safe_psql('postgres', "ALTER SERVER shard OPTIONS (SET connect_timeout '$seconds'$more)");
	like(sql_error($node, 'CALL cleanup_run()'), qr/its connect_timeout is no limit.*HINT:  Set it: ALTER SERVER shard/si,
		"a connect_timeout of $seconds is refused" . ($more && ', because there are several hosts'));
}
$node->safe_psql('postgres', "ALTER SERVER shard OPTIONS (SET connect_timeout '5', SET host '$host')");

# ---- a superuser's table on the server of somebody who is none ----

my $superuser = $node->safe_psql('postgres', 'SELECT current_user');
my $mine = $node->host . q{', port '} . $node->port;
$node->safe_psql('postgres', qq{
	GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO stranger;
	SET ROLE stranger;
	CREATE SERVER trap FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$mine', dbname 'postgres', connect_timeout '5');
	CREATE USER MAPPING FOR $superuser SERVER trap OPTIONS (user '$superuser');
	RESET ROLE;
	CREATE TABLE bait (audio_url text);
	CREATE FOREIGN TABLE mine (audio_url text) SERVER trap OPTIONS (table_name 'bait');
});
like(sql_error($node, q{SELECT cleanup_add_source('mine')}),
	qr/ERROR:  42501: source public\.mine reads public\.mine as superuser "\Q$superuser\E" on server "trap", which belongs to role "stranger".*HINT:  Give the server to a superuser/s,
	'a server of a role that is no superuser is not read as a superuser');
$node->safe_psql('postgres', q{ALTER SERVER trap OWNER TO CURRENT_USER; SELECT cleanup_add_source('mine'); ALTER SERVER trap OWNER TO stranger});
like(sql_error($node, 'CALL cleanup_run()'), qr/ERROR:  42501: source public\.mine reads.*belongs to role "stranger"/, '... nor by a run, when it is given away later');
like(sql_error($node, q{SELECT cleanup_explain('orphan.mp3')}), qr/ERROR:  42501: source public\.mine reads.*belongs to role "stranger"/, '... nor to explain');
$node->safe_psql('postgres', q{ALTER SERVER trap OWNER TO CURRENT_USER; SELECT cleanup_drop_source('mine')});

# ---- and all goes on ----

is_deeply(visible_files($dir), \%wanted, 'nothing was deleted in all that');
is_deeply(sql_json($node, 'SET exit_on_error = on; CALL cleanup_run(force => true)')->{result}{orphaned_files_deleted}, ['orphan.mp3'], 'a run deletes an orphan');
ok(-e "$dir/wanted.mp3", '... and no other file');
is(log_lines($node, qr/PANIC:|signal \d+/), '', 'no process has died');
$node->stop;
$shard->stop;
done_testing();
