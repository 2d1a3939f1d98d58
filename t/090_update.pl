# ALTER EXTENSION UPDATE from version 1.0 to this one: what 1.0 has recorded is
# carried over, and what the update makes is what CREATE EXTENSION makes.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $share = `pg_config --sharedir`;
chomp $share;
plan skip_all => 'the script of 1.0 is not there (make install-old): not permitted here'
  unless -e "$share/extension/audio_cleanup--1.0.sql";

# What 1.0 has of each table; all else is new.
my %columns = (
	cleanup_runs => 'run_id, started_at, trigger, what, status, files, deleted, skipped, errors, bytes, orphaned_files,'
	  . ' failed_sessions, requested_by, finished_at, scheduled_for, message, upload_dir, settings',
	cleanup_files => 'file_id, run_id, state, reason, size, freed, file, error, source, session_id, condemned_at, due_at,'
	  . ' finished_at, modified_at, restore_as, inode, mtime_ns, ctime_ns, btime_ns',
	cleanup_cleared => 'run_id, source, session_id, column_name, value',
	cleanup_holds => '*', cleanup_sources => '*', cleanup_claims => '*', cleanup_totals => '*', cleanup_schedule => '*',
	cleanup_mail => '*');
my $lag = "audio_cleanup.backup_retention_days = 3\n";
my $node = new_server('update', conf => $lag);
my $dir = upload_dir($node);
my $sql = sub { $node->safe_psql('postgres', $_[0]) };
my %all;

sub restored
{
	my ($call, @files) = @_;
	is($sql->("SELECT cleanup_restore($call) #>> '{result,error_count}'"), '0', "restored: $call");
	ok(wait_for_drain($node), '... to the end');
	is(visible_files($dir)->{$_}, $all{$_}, "... $_") foreach @files;
	return;
}

# All that belongs to the extension, a line for each thing, without OIDs.
my $inventory = q{
WITH ext AS (SELECT * FROM pg_extension WHERE extname = 'audio_cleanup'),
member AS (SELECT d.classid, d.objid FROM pg_depend d, ext e
	WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'),
rel AS (SELECT c.* FROM pg_class c JOIN member m ON m.classid = 'pg_class'::regclass AND m.objid = c.oid)
SELECT concat_ws(' | ', 'extension', extversion, extrelocatable, extowner::regrole, extnamespace::regnamespace) FROM ext
UNION ALL SELECT concat_ws(' | ', 'config', c.oid::regclass, u.condition)
	FROM ext, unnest(extconfig, extcondition) u(oid, condition) JOIN pg_class c ON c.oid = u.oid
UNION ALL SELECT concat_ws(' | ', 'member', pg_describe_object(classid, objid, 0), obj_description(objid, classid::regclass::name)) FROM member
UNION ALL SELECT concat_ws(' | ', 'function', p.oid::regprocedure, pg_get_functiondef(p.oid), p.proowner::regrole, p.prosrc, p.probin,
	(SELECT string_agg(a::text, ', ' ORDER BY a::text) FROM unnest(p.proacl) a))
	FROM pg_proc p JOIN member m ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid
UNION ALL SELECT concat_ws(' | ', 'relation', oid::regclass, relkind, relpersistence, relowner::regrole, reloptions, relreplident,
	(SELECT string_agg(a::text, ', ' ORDER BY a::text) FROM unnest(relacl) a),
	CASE relkind WHEN 'v' THEN pg_get_viewdef(oid) END) FROM rel
UNION ALL SELECT concat_ws(' | ', 'column', attrelid::regclass, row_number() OVER (PARTITION BY attrelid ORDER BY attnum), attname,
	format_type(atttypid, atttypmod), attnotnull, attcollation::regcollation, attidentity, attgenerated, attacl, attstorage,
	pg_get_expr(adbin, adrelid), col_description(attrelid, attnum))
	FROM pg_attribute a JOIN rel ON rel.oid = a.attrelid LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
	WHERE attnum > 0 AND NOT attisdropped
UNION ALL SELECT concat_ws(' | ', 'constraint', conrelid::regclass, conname, pg_get_constraintdef(k.oid), convalidated)
	FROM pg_constraint k JOIN rel ON rel.oid = k.conrelid
UNION ALL SELECT concat_ws(' | ', 'index', pg_get_indexdef(indexrelid), indisvalid, indisprimary) FROM pg_index i JOIN rel ON rel.oid = i.indrelid
UNION ALL SELECT concat_ws(' | ', 'trigger', pg_get_triggerdef(t.oid), tgenabled, obj_description(t.oid, 'pg_trigger'))
	FROM pg_trigger t JOIN rel ON rel.oid = t.tgrelid
UNION ALL SELECT concat_ws(' | ', 'sequence', seqrelid::regclass, seqtypid::regtype, seqstart, seqincrement, seqcache, seqcycle,
	pg_get_serial_sequence('cleanup_runs', 'run_id'), pg_get_serial_sequence('cleanup_files', 'file_id')) FROM pg_sequence s JOIN rel ON rel.oid = s.seqrelid
ORDER BY 1};

my $roles = q{SELECT cleanup_grant_access('looker'); SELECT cleanup_grant_access('cleaner', 'operator');};

# ---- a database in which 1.0 has worked ----

$sql->('CREATE ROLE looker; CREATE ROLE cleaner; CREATE ROLE reader');
make_schema($node);
$sql->(q{CREATE TABLE talks (id text PRIMARY KEY, status text, failed_at timestamp, file text);
	INSERT INTO talks VALUES ('it''s "1"', 'failed', now() - interval '9 days', 'talk1.mp3'), ('ok', 'done', now(), 'wanted.mp3');
	SELECT cleanup_add_source('talks', '{file}', 'id', 'status', '{failed}', 'failed_at', 'UTC', 'clear');});
add_rows($node, 'wanted.mp3');
$all{$_} = put_file($dir, $_, hours => 240) foreach qw(wanted.mp3 held.mp3 a.mp3 b.mp3 again.mp3 talk1.mp3 due.mp3);
$sql->("SELECT cleanup_hold('held.mp3', 'evidence'); SELECT cleanup_all()");
ok(wait_for_drain($node), 'a run with backups');
$all{gone} = put_file($dir, 'gone.mp3', hours => 240);
delete $all{gone};
$sql->('SET audio_cleanup.backup_retention_days = 0; SELECT cleanup_all()');
ok(wait_for_drain($node), 'a run without');
$sql->(q{INSERT INTO cleanup_mail (run_id, error) VALUES (1, 'connection refused') ON CONFLICT DO NOTHING;
	INSERT INTO cleanup_schedule VALUES (true, 3, 'UTC', now() - interval '1 day') ON CONFLICT DO NOTHING;
	UPDATE cleanup_files SET due_at = now() + interval '2 days' WHERE file = 'due.mp3'});
my $totals = $sql->('SELECT * FROM cleanup_totals ORDER BY 1, 2');

# the same tables with the columns of 1.0
$sql->(join ';', map { "CREATE TABLE keep_$_ AS SELECT $columns{$_} FROM $_" } sort keys %columns);
$sql->('CREATE TABLE keep_next AS SELECT r.last_value AS run, f.last_value AS file FROM cleanup_runs_run_id_seq r, cleanup_files_file_id_seq f');
$sql->("DROP EXTENSION audio_cleanup; CREATE EXTENSION audio_cleanup VERSION '1.0'");
$sql->(join ';', map {
		my $names = $columns{$_} eq '*' ? '' : "($columns{$_})";
		"INSERT INTO $_ $names SELECT $columns{$_} FROM keep_$_; DROP TABLE keep_$_" } sort keys %columns);
$sql->(q{SELECT setval('cleanup_runs_run_id_seq', run), setval('cleanup_files_file_id_seq', file) FROM keep_next; DROP TABLE keep_next;
	GRANT SELECT ON cleanup_metrics TO PUBLIC;
	CREATE VIEW report AS SELECT file, state, run_id FROM cleanup_files});

# as 1.0 has granted it
$sql->(q{GRANT SELECT ON cleanup_sources, cleanup_runs, cleanup_files, cleanup_progress, cleanup_backups, cleanup_holds,
		cleanup_metrics, cleanup_mail TO looker, cleaner;
	GRANT EXECUTE ON FUNCTION cleanup_config(), cleanup_status(), cleanup_explain(text), cleanup_check(), cleanup_next_run(),
		cleanup_progress(), cleanup_dashboard(), cleanup_report(interval), cleanup_missing_files(), cleanup_metrics() TO looker, cleaner;
	GRANT EXECUTE ON ROUTINE cleanup_orphaned_files(boolean, boolean), cleanup_failed_sessions(boolean, boolean),
		cleanup_all(boolean, boolean), cleanup_run(boolean, boolean, jsonb), cleanup_restore(bigint), cleanup_restore(text),
		cleanup_restore(text, text), cleanup_purge_backups(), cleanup_hold(text, text), cleanup_release(text),
		cleanup_send_test_mail() TO cleaner;});
$node->run_log([ 'pg_dump', '-d', $node->connstr('postgres'), '-f', $node->basedir . '/of_1_0.sql' ]);

# ---- until it is updated, nothing is done ----

foreach my $call ('SELECT cleanup_all()', 'SELECT cleanup_status()', 'CALL cleanup_run()', 'SELECT cleanup_purge_backups()',
	"SELECT cleanup_restore('a.mp3')", 'SELECT cleanup_check()', 'SELECT cleanup_claim_upload_dir()', 'SELECT cleanup_dashboard()',
	"SELECT cleanup_hold('x.mp3')", "SELECT cleanup_explain('a.mp3')", 'SELECT cleanup_metrics()', 'SELECT cleanup_missing_files()',
	"SELECT cleanup_drop_source('talks')", "SELECT cleanup_grant_access('reader')", 'SELECT cleanup_next_run()')
{
	like(($node->psql('postgres', $call))[2],
		qr/has version 1\.0 in this database, and its library has version [\d.]+\nHINT:  Run ALTER EXTENSION audio_cleanup UPDATE\.$/m,
		"refused with the command: $call");
}
like(($node->psql('postgres', 'SELECT cleanup_all()'))[2], shown_error('Upgrade'), '... as docs/operations.md shows it');

# by night: one line a day, and other databases are cleaned
$sql->('CREATE DATABASE other');
$node->safe_psql('other', 'CREATE EXTENSION audio_cleanup; CREATE TABLE f (file text); SELECT cleanup_add_source($$f$$, $${file}$$)');
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'audio_cleanup'\naudio_cleanup.timezone = 'UTC'\naudio_cleanup.databases = 'postgres, other'\n");
$node->restart;
my $position = log_position($node);
ok(let_day_pass($node, '2040-06-01', 3), 'a night');
ok(wait_until(sub { log_since($node, $position) =~ /of audio_cleanup/ }), '... with the log line');
my @lines = log_since($node, $position) =~ /(ERROR: .*has version 1\.0 in this database)/g;
# at the start, when the clock is set, and at three
cmp_ok(scalar @lines, '<=', 3, '... once for each time that the database is looked into, and not every minute');
cmp_ok(scalar @lines, '>=', 1, '... the database of 1.0 is refused');
is($node->safe_psql('other', 'SELECT count(*) > 0 FROM cleanup_runs'), 't', '... the other one had its turn');
is_deeply([ sort keys %{ trashed_files($dir) } ], [ sort qw(a.mp3 again.mp3 b.mp3 due.mp3 talk1.mp3) ], '... and no file has moved');
change_settings($node, 'audio_cleanup.databases' => '');
$node->restart;

# ---- the update ----

# somebody's object in the way is not adopted
$sql->('CREATE TABLE cleanup_seen (source regclass)');
like(($node->psql('postgres', 'ALTER EXTENSION audio_cleanup UPDATE'))[2], qr/"cleanup_seen" already exists/, "a stranger's table is not adopted");
$sql->('DROP TABLE cleanup_seen; ALTER EXTENSION audio_cleanup UPDATE');
is($sql->(q{SELECT extversion = (SELECT default_version FROM pg_available_extensions WHERE name = extname) FROM pg_extension
	WHERE extname = 'audio_cleanup'}), 't', 'the update');
is($sql->('SELECT * FROM cleanup_totals ORDER BY 1, 2'), $totals, 'totals go on');
is($sql->('SELECT bool_and(r.claim = c.uuid) FROM cleanup_runs r, cleanup_claims c'), 't', 'runs belong to the claim');
is($sql->("SELECT count(*) FROM report"), $sql->('SELECT count(*) FROM cleanup_files'), "a user's view on our tables is as it was");
is($sql->("SELECT has_table_privilege('reader', 'cleanup_metrics', 'SELECT')"), 't', 'what users have granted to PUBLIC stays');

$sql->('REVOKE SELECT ON cleanup_metrics FROM PUBLIC');
$node->safe_psql('postgres', 'CREATE DATABASE fresh');
$node->safe_psql('fresh', "CREATE EXTENSION audio_cleanup; $roles");
is_deeply([ split /\n(?=[a-z]+ \| )/, $sql->($inventory) ], [ split /\n(?=[a-z]+ \| )/, $node->safe_psql('fresh', $inventory) ],
	'what the update makes is what CREATE EXTENSION makes, grants included');

# ---- everything works ----

is($sql->('SELECT count(*) FROM cleanup_backups'), 5, 'the backups of 1.0');
restored("'a.mp3'", 'a.mp3');
is($sql->("SELECT file FROM talks WHERE status = 'failed'"), '', 'a session that 1.0 has cleared');
restored("'talk1.mp3'", 'talk1.mp3');
is($sql->("SELECT file FROM talks WHERE status = 'failed'"), 'talk1.mp3', '... has its column again');
$sql->("UPDATE talks SET status = 'done'");
add_rows($node, 'a.mp3', 'again.mp3');
$sql->('SELECT cleanup_all()');
ok(wait_for_drain($node), 'a run');
is(visible_files($dir)->{'again.mp3'}, $all{'again.mp3'}, '... heals what is referred to again');
is(visible_files($dir)->{'held.mp3'}, $all{'held.mp3'}, '... and keeps what is held');
$sql->("UPDATE cleanup_files SET due_at = now() WHERE file = 'due.mp3' AND state = 'trashed'; SELECT cleanup_purge_backups()");
ok(wait_for_drain($node), 'a purge');
is($sql->("SELECT string_agg(state, ', ') FROM cleanup_files WHERE file = 'due.mp3'"), 'deleted', '... of what has expired');
is_deeply(undo_violations($node, $dir, { files => \%all, final => 1 }), [], 'all files are accounted for');
$position = log_position($node);
change_settings($node, 'audio_cleanup.databases' => 'postgres');
ok(let_day_pass($node, '2040-06-02', 3), 'a night');
like($sql->('SELECT trigger FROM cleanup_runs ORDER BY run_id DESC LIMIT 1'), qr/schedule|catch-up/, '... has its run');
change_settings($node, 'audio_cleanup.databases' => '', 'audio_cleanup.debug_clock_offset' => 0);
$node->restart;

# ---- a newer version than the library's ----

$sql->("UPDATE pg_extension SET extversion = '97.0' WHERE extname = 'audio_cleanup'");
like(($node->psql('postgres', 'SELECT cleanup_all()'))[2], qr/has version 97\.0.*\nHINT:  Install the library of version 97\.0, and restart/,
	'a library that is too old says so');
$sql->('UPDATE pg_extension SET extversion = default_version FROM pg_available_extensions WHERE name = extname AND name = $$audio_cleanup$$');

# ---- a dump that was made of 1.0 ----

$sql->('CREATE DATABASE restored');
$node->command_ok([ 'psql', '-X', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('restored'), '-f', $node->basedir . '/of_1_0.sql' ],
	'a dump of 1.0 is restored where this version is installed');
is($node->safe_psql('restored', "SELECT count(*) FROM cleanup_files WHERE file = 'b.mp3'"), 1, '... with its history');
like(($node->psql('restored', 'SELECT cleanup_all()'))[2], qr/HINT:.*cleanup_claim_upload_dir/, '... and without the claim');
$node->safe_psql('restored', 'SELECT cleanup_claim_upload_dir()');
ok(wait_for_drain($node, 'restored'), '... which it takes');
is($node->safe_psql('restored', "SELECT cleanup_restore('b.mp3') #>> '{result,error_count}'"), 0, '... and restores a backup');
ok(wait_for_drain($node, 'restored'), '... to the end');
is(visible_files($dir)->{'b.mp3'}, $all{'b.mp3'}, '... whole');

$node->stop;
done_testing();
