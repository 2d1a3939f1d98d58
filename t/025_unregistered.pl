# The commonest way to lose files is a table that nobody registered.  Whoever
# looks before he deletes is told of it; nobody is ever held up by it.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = new_server('unregistered', conf => "autovacuum = off\n");
my $dir = upload_dir($node);
make_schema($node);
put_files($dir, 'wanted.mp3', map { "orphan$_.mp3" } 1 .. 20);
add_rows($node, 'wanted.mp3');

# what cleanup_status() and cleanup_check() say of it, which is the same
sub warnings_now
{
	my ($settings) = @_;
	my ($status, @check);

	# either of them searches for a second at most, which is short on a loaded machine: so they are asked until both have come to the end
	foreach (1 .. 20)
	{
		$status = sql_json($node, ($settings || '') . ' SELECT cleanup_status()');
		@check = split /\n/, $node->safe_psql('postgres', ($settings || '') .
			q{SELECT detail FROM cleanup_check() WHERE check_name = 'unregistered' AND status = 'warning' AND hint ~ 'cleanup_add_source'});
		last if "@check" eq join ' ', @{ $status->{warnings} || [] };
	}

	ok($status->{success}, 'a warning is no error');
	ok(!defined $status->{blocked_by}, 'and no brake');
	is_deeply(\@check, $status->{warnings} || [], 'cleanup_check() and cleanup_status() agree');
	return [ sort @{ $status->{warnings} || [] } ];
}

is_deeply(warnings_now(), [], 'nobody else refers to the files');

# ---- a forgotten column ----

$node->safe_psql('postgres', q{
	CREATE TABLE notes (id int, attachment text, other varchar(100), body text);
	INSERT INTO notes SELECT i, 'https://host/uploads/ORPHAN' || i || '.mp3?sig=1', 'nothing', 'a note' FROM generate_series(1, 12) i});
is_deeply(warnings_now(), ['column public.notes.attachment holds 12 of the 20 sampled names'], 'a forgotten column is named');
is_deeply(warnings_now('SET audio_cleanup.search_unregistered = off;'), [], 'unless it was switched off');
is(sql_json($node, 'SELECT cleanup_status()')->{potential_cleanup}{orphaned_files_count}, 20, 'it protects nothing by itself');
ok(!defined sql_json($node, 'SELECT cleanup_all(true)')->{warnings}, 'a dry run does not look');
$node->safe_psql('postgres', q{
	CREATE SCHEMA "Old Data";
	CREATE TABLE "Old Data"."My Notes" ("The File" text);
	INSERT INTO "Old Data"."My Notes" VALUES ('orphan20.mp3'), ('unknown.mp3'), (NULL);
	-- the other column of a registered table
	INSERT INTO sessions (audio_filename) VALUES ('orphan1.mp3'), ('orphan2.mp3');
	SELECT cleanup_drop_source('sessions'), cleanup_add_source('sessions', '{audio_url}')});
is_deeply(warnings_now(), [
	'column "Old Data"."My Notes"."The File" holds 1 of the 20 sampled names',
	'column public.notes.attachment holds 12 of the 20 sampled names',
	'column public.sessions.audio_filename holds 2 of the 20 sampled names' ],
	'other schemas, and other columns of a source');
$node->safe_psql('postgres', q{DROP TABLE "Old Data"."My Notes"; DELETE FROM sessions WHERE audio_filename IS NOT NULL; SELECT cleanup_drop_source('sessions'); SELECT cleanup_add_source('sessions')});
is_deeply(warnings_now(), ['column public.notes.attachment holds 12 of the 20 sampled names'], 'what is registered is not named');

# the ledger, which has the names of all that was ever deleted, is not meant
$node->safe_psql('postgres', q{INSERT INTO cleanup_files (run_id, file, reason, state, size, modified_at, due_at, inode, mtime_ns, ctime_ns, btime_ns)
	SELECT 1, 'orphan' || i || '.mp3', 'orphan', 'deleted', 0, now(), now(), 0, 0, 0, 0 FROM generate_series(3, 20) i});
is_deeply(warnings_now(), ['column public.notes.attachment holds 12 of the 20 sampled names'], 'nor is the ledger');
$node->safe_psql('postgres', 'DELETE FROM cleanup_files');

# ---- what stands in the way is passed over ----

# an owner who may not read, or is shown nothing; an expression of his that fails must not run at all
$node->safe_psql('postgres', q{
	CREATE ROLE app; GRANT USAGE, CREATE ON SCHEMA public TO app;
	CREATE TABLE forced (file text); INSERT INTO forced VALUES ('orphan1.mp3');
	ALTER TABLE forced OWNER TO app;
	ALTER TABLE forced ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
	CREATE POLICY p ON forced USING (1/0 > 0);
	CREATE TABLE denied (file text); INSERT INTO denied VALUES ('orphan1.mp3');
	ALTER TABLE denied OWNER TO app; REVOKE ALL ON denied FROM app;
	CREATE VIEW failing AS SELECT (1/0)::text AS file;
	CREATE MATERIALIZED VIEW empty AS SELECT 'orphan1.mp3' AS file WITH NO DATA;
	CREATE DOMAIN picky AS text; CREATE TABLE domains (file picky); INSERT INTO domains VALUES ('orphan1.mp3');
	CREATE TABLE locked (file text); INSERT INTO locked VALUES ('orphan1.mp3')});
my $position = log_position($node);
my $locker = begin_session($node, 'LOCK TABLE locked IN ACCESS EXCLUSIVE MODE');
my $begun = time;
my $found = warnings_now(q{SET lock_timeout = 0; SET statement_timeout = '30s';});
cmp_ok(time - $begun, '<', 20, 'a lock is not waited for');
is($locker->query_safe('SELECT 1'), 1, 'though it was held all the while');
end_session($locker, 'ROLLBACK');
is_deeply($found, [ 'column public.domains.file holds 1 of the 20 sampled names',
	'column public.notes.attachment holds 12 of the 20 sampled names' ], 'tables that cannot be read are passed over');
unlike(log_since($node, $position), qr/ERROR:|WARNING:/, 'without a word in the server log');
is_deeply(warnings_now(), [ 'column public.domains.file holds 1 of the 20 sampled names',
	'column public.locked.file holds 1 of the 20 sampled names',
	'column public.notes.attachment holds 12 of the 20 sampled names' ], 'the lock released, that one is named');
$node->safe_psql('postgres', 'DROP TABLE forced, denied, domains, locked; DROP VIEW failing; DROP MATERIALIZED VIEW empty');

# ---- large values are not read ----

# 400 MB of text out of line: to detoast it takes many times as long as to look at the pointers
$node->safe_psql('postgres', q{
	CREATE TABLE transcripts (id int, transcript text, file text);
	INSERT INTO transcripts SELECT i, repeat('orphan1.mp3 ', 3500000), 'orphan' || i || '.mp3' FROM generate_series(1, 10) i});
is($node->safe_psql('postgres', 'SELECT sum(length(transcript)) > 400000000 FROM transcripts'), 't', 'there are 400 MB of text');
$begun = time;
is_deeply(warnings_now(), [ 'column public.notes.attachment holds 12 of the 20 sampled names',
	'column public.transcripts.file holds 10 of the 20 sampled names' ], 'large texts are not looked at, names beside them are');
cmp_ok(time - $begun, '<', 5, 'in bounded time');
$node->safe_psql('postgres', 'DROP TABLE transcripts');

# a table of any size: a sample of it, in bounded time
$node->safe_psql('postgres', q{
	CREATE TABLE big (file text, padding text);
	INSERT INTO big SELECT 'orphan' || (1 + i % 20) || '.mp3', repeat('x', 200) FROM generate_series(1, 1000000) i;
	ANALYZE big});
$begun = time;
is_deeply(warnings_now(), [ 'column public.big.file holds 20 of the 20 sampled names',
	'column public.notes.attachment holds 12 of the 20 sampled names' ], 'a million rows: a sample');
cmp_ok(time - $begun, '<', 10, 'in bounded time');

# many tables: it is over when its second is
$node->safe_psql('postgres', q{
	DO $$ BEGIN FOR i IN 1 .. 300 LOOP
		EXECUTE format('CREATE TABLE many%s (file text)', i);
		EXECUTE format('INSERT INTO many%s SELECT %L || n FROM generate_series(1, 2000) n', i, 'no orphan ');
	END LOOP; END $$});
$begun = time;
warnings_now();
cmp_ok(time - $begun, '<', 10, 'three hundred tables: in bounded time');
$node->safe_psql('postgres', q{DO $$ BEGIN FOR i IN 1 .. 300 LOOP EXECUTE format('DROP TABLE many%s', i); END LOOP; END $$});

# ---- more orphans than names in a sample ----

put_files($dir, map { "lot$_.mp3" } 1 .. 980);
$node->safe_psql('postgres', q{DROP TABLE big; TRUNCATE notes; INSERT INTO notes (attachment) SELECT 'lot' || i || '.mp3' FROM generate_series(1, 980) i});
$found = sql_json($node, 'SELECT cleanup_status()')->{warnings};
is(scalar @{ $found || [] }, 1, 'a thousand orphans: one warning');
my ($n) = ($found->[0] // '') =~ /^column public\.notes\.attachment holds (\d+) of the 100 sampled names$/;
cmp_ok($n // 0, '>=', 80, 'of a hundred names, spread over all');

# a real run is not stopped by it: advice is for whoever asks
$node->safe_psql('postgres', 'CALL cleanup_run(force => true)');
is_deeply([ keys %{ visible_files($dir) } ], ['wanted.mp3'], 'a run goes its way');
is_deeply(warnings_now(), [], 'without orphans there is nothing to warn of');

$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC:|TRAP:|signal \d+/, 'no process has died');
done_testing();
