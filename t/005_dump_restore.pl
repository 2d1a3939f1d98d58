# What must survive: a dump and restore, DROP and CREATE, an upgrade, and a
# schema of any name.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('dump');
my $dir = upload_dir($node);
make_schema($node);

my @wanted = put_files($dir, 'wanted1.mp3', 'wanted2.mp3');
put_files($dir, 'orphan1.mp3', 'orphan2.mp3');
put_file($dir, 'kept_backup.mp3', content => 'to be restored');
add_rows($node, @wanted);
$node->safe_psql('postgres', q{
	CREATE TABLE "Voice Mails" ("Key" int PRIMARY KEY, "the file" text, state text, at timestamptz);
	SELECT cleanup_add_source('"Voice Mails"', '{"the file"}', 'Key', 'state', '{broken,"gone wrong"}', 'at', 'Asia/Tokyo', 'clear');
	CREATE ROLE looker;
	SELECT cleanup_grant_access('looker');
});
$node->safe_psql('postgres', 'SELECT cleanup_all()');
ok(wait_for_drain($node), 'a run, and its history');

# ---- pg_dump | psql ----

my %tables = (
	cleanup_sources => 'SELECT source::text, file_columns, id_column, status_column, failed_statuses,'
	  . ' failed_at_column, timezone, on_failed, added_by, added_at FROM %scleanup_sources ORDER BY 1',
	cleanup_runs => 'SELECT * FROM %scleanup_runs ORDER BY run_id',
	cleanup_files => 'SELECT * FROM %scleanup_files ORDER BY file_id',
	cleanup_totals => 'SELECT * FROM %scleanup_totals ORDER BY name, label',
	next_run => 'SELECT last_value, is_called FROM %scleanup_runs_run_id_seq',
	next_file => 'SELECT last_value, is_called FROM %scleanup_files_file_id_seq');

sub contents
{
	my ($database, $schema) = @_;
	return { map { $_ => $node->safe_psql($database, sprintf $tables{$_}, $schema || '') } keys %tables };
}

my $before = contents('postgres');
my $file = "$PostgreSQL::Test::Utils::tmp_check/dump.sql";
$node->command_ok([ 'pg_dump', '-p', $node->port, '-h', $node->host, '-f', $file, 'postgres' ], 'pg_dump');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-p', $node->port, '-h', $node->host,
		'-f', $file, 'restored' ], 'the dump is restored without an error');
is_deeply(contents('restored'), $before, 'sources, runs, files, counters and sequences are as they were');
is($node->safe_psql('restored', q{
	SELECT string_agg(proname, ' ' ORDER BY proname) FROM pg_proc
	WHERE proname ~ '^cleanup_' AND has_function_privilege('looker', oid, 'execute')}),
	'cleanup_check cleanup_config cleanup_dashboard cleanup_explain cleanup_metrics cleanup_missing_files cleanup_next_run cleanup_progress cleanup_report cleanup_status', 'and so are the rights');
is($node->safe_psql('restored', q{
	SELECT count(*) FROM cleanup_sources s JOIN pg_class c ON c.oid = s.source}), 2, 'the sources are those of this database');
is($node->safe_psql('restored', q{SELECT cleanup_status() -> 'potential_cleanup' -> 'error_count'}), 1,
	'but the directory is not: cleanup_status() says so');

my ($rc, $stdout, $stderr) = $node->psql('restored', 'SELECT cleanup_all(force => true)');
isnt($rc, 0, 'a restored database deletes nothing, force or not');
like($stderr, qr/ERROR:  upload directory "\Q$dir\E" does not belong to this database/, 'and says why');
like($stderr, qr/HINT:.*cleanup_claim_upload_dir/, 'and what to do');

$node->safe_psql('postgres', 'DROP DATABASE restored');

# ---- DROP, CREATE ----

put_file($dir, 'orphan3.mp3');
$node->safe_psql('postgres', 'DROP EXTENSION audio_cleanup');
is($node->safe_psql('postgres', q{
	SELECT count(*) FROM (SELECT relname FROM pg_class UNION ALL SELECT proname FROM pg_proc) o(n) WHERE n LIKE 'cleanup\_%'}),
	0, 'DROP EXTENSION leaves nothing');
is($node->safe_psql('postgres', 'SELECT count(*) FROM sessions'), 2, 'of ours: the application has its rows');
$node->safe_psql('postgres', 'CREATE EXTENSION audio_cleanup');
($rc, $stdout, $stderr) = $node->psql('postgres', 'SELECT cleanup_all()');
isnt($rc, 0, 'a new installation deletes nothing');
is(sql_json($node, 'SELECT cleanup_status()')->{potential_cleanup}{error_count}, 2, 'it has no source and no claim');
is(scalar keys %{ visible_files($dir) }, 3, 'so it deletes nothing');
$node->safe_psql('postgres', q{SELECT cleanup_add_source('sessions')});
($rc, $stdout, $stderr) = $node->psql('postgres', 'SELECT cleanup_all()');
isnt($rc, 0, 'with one, it still is not the owner of the directory');
like($stderr, qr/DETAIL:.*created anew/, 'and says so');
$node->safe_psql('postgres', q{SELECT cleanup_claim_upload_dir()});
$node->safe_psql('postgres', 'SELECT cleanup_all()');
ok(wait_for_drain($node), 'after a takeover it works again');
is(scalar keys %{ visible_files($dir) }, 3, 'but what was there begins a new period of grace');
$node->safe_psql('postgres', 'SET audio_cleanup.orphaned_file_retention_hours = 0; SELECT cleanup_all();');
ok(wait_for_drain($node), 'a run without grace');
is_deeply([ sort keys %{ visible_files($dir) } ], \@wanted, 'the orphan is gone');

# in the transaction that condemned: dropped or not, nothing may go wrong
put_file($dir, 'orphan4.mp3');
$node->safe_psql('postgres', 'BEGIN; SELECT cleanup_all(); DROP EXTENSION audio_cleanup; ROLLBACK;');
is(scalar keys %{ visible_files($dir) }, 3, 'DROP EXTENSION after a run, rolled back: nothing has happened');

# ---- upgrade ----

$node->safe_psql('postgres', 'ALTER EXTENSION audio_cleanup UPDATE');
is($node->safe_psql('postgres', q{SELECT extversion = default_version FROM pg_extension
	JOIN pg_available_extensions ON name = extname WHERE extname = 'audio_cleanup'}), 't',
	'ALTER EXTENSION UPDATE arrives at the current version');
is($node->safe_psql('postgres', 'SELECT count(*) FROM cleanup_sources'), 1, 'and keeps the sources');
is($node->safe_psql('postgres', q{SET audio_cleanup.orphaned_file_retention_hours = 0;
	SELECT cleanup_status() -> 'potential_cleanup' -> 'orphaned_files_count'}), 1, 'and works');

# ---- other schemas ----

foreach my $schema ('plain', 'Mixed Case')
{
	unlink glob "$dir/.audio_cleanup/*";
	my $quoted = qq{"$schema"};

	put_file($dir, 'orphan4.mp3');
	$node->safe_psql('postgres', qq{
		DROP EXTENSION audio_cleanup;
		CREATE SCHEMA $quoted;
		CREATE EXTENSION audio_cleanup SCHEMA $quoted;
		SELECT $quoted.cleanup_add_source('sessions');
		SELECT $quoted.cleanup_grant_access('looker', 'operator');
		SET ROLE looker;
		SELECT $quoted.cleanup_all();
	});
	ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM $quoted.cleanup_files WHERE state = 'deleted'"),
		"it works in schema $schema");
	is_deeply([ sort keys %{ visible_files($dir) } ], \@wanted, 'the orphan is gone');
	ok($node->poll_query_until('postgres', "SELECT status = 'done' FROM $quoted.cleanup_runs"), 'and the run is done');
	is($node->safe_psql('postgres', "SELECT $quoted.cleanup_explain('wanted1.mp3') IS NOT NULL"), 't', 'explain works there');
	is($node->safe_psql('postgres', "SELECT count(*) > 0 FROM $quoted.cleanup_check()"), 't', 'check works there');
	$node->safe_psql('postgres', "CALL $quoted.cleanup_run(); SELECT $quoted.cleanup_drop_source('sessions'); SELECT $quoted.cleanup_revoke_access('looker')");
}

$before = contents('postgres', '"Mixed Case".');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_ok([ 'pg_dump', '-p', $node->port, '-h', $node->host, '-f', $file, 'postgres' ], 'it is dumped from there');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-p', $node->port, '-h', $node->host,
		'-f', $file, 'restored' ], 'and restored');
is_deeply(contents('restored', '"Mixed Case".'), $before, 'as it was');

# ---- where a role is missing ----

$node->safe_psql('postgres', q{CREATE ROLE leaver; REVOKE ALL ON SCHEMA "Mixed Case" FROM PUBLIC; SELECT "Mixed Case".cleanup_grant_access('leaver')});
is($node->safe_psql('postgres', 'SELECT role FROM "Mixed Case".cleanup_access'), 'leaver', 'a role was given USAGE');
my $archive = "$PostgreSQL::Test::Utils::tmp_check/dump.archive";
my @where = ('-p', $node->port, '-h', $node->host);
$node->command_ok([ 'pg_dump', @where, '-Fc', '-f', $archive, 'postgres' ], 'a dump names the role');
$node->safe_psql('postgres', 'DROP OWNED BY leaver; DROP ROLE leaver; CREATE DATABASE without_role');
$node->command_ok([ 'pg_restore', @where, '-O', '-x', '-1', '-d', 'without_role', $archive ], 'it is restored where that role is missing');
is($node->safe_psql('without_role', 'SELECT role FROM "Mixed Case".cleanup_access'), 'leaver', 'and still names it');
($rc, $stdout, $stderr) = $node->psql('without_role', q{CREATE ROLE leaver; SELECT "Mixed Case".cleanup_revoke_access('leaver')});
is($rc, 0, 'which can be revoked') or diag($stderr);

$node->stop;
is(log_lines($node, qr/PANIC:|signal \d+/), '', 'no process has died');
done_testing();
