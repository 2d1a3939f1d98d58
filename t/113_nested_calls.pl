# The code of a source, or of a trigger of its rows, may call functions of the
# extension while the extension waits for that code.  No call begins within
# another one: the time limit of the outer call stays, and its run is the only
# one.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('nested', conf => "audio_cleanup.max_delete_percent = 100\n");
my $dir = upload_dir($node);
make_schema($node);
add_rows($node, put_files($dir, 'wanted.mp3'));
my @calls = ('public.cleanup_status()', 'public.cleanup_all()', 'public.cleanup_all(true)', q{public.cleanup_explain('wanted.mp3')}, 'public.cleanup_purge_backups()',
	q{public.cleanup_restore('wanted.mp3')}, q{public.cleanup_hold('wanted.mp3')}, q{public.cleanup_release('wanted.mp3')}, 'public.cleanup_check()',
	'public.cleanup_missing_files()', 'public.cleanup_metrics()', 'public.cleanup_dashboard()', q{public.cleanup_add_source('public.sessions')},
	'public.cleanup_claim_upload_dir()', q{public.cleanup_grant_access('pg_monitor')});
my $refused = qr/cannot be called while it reads a source or clears a row/;

# ---- a view ----

foreach my $call (@calls)
{
	put_files($dir, 'orphan.mp3');
	sql("CREATE FUNCTION nested() RETURNS boolean LANGUAGE plpgsql AS \$\$ BEGIN PERFORM $call; RETURN true; END \$\$",
		q{CREATE VIEW nesting AS SELECT audio_url FROM sessions WHERE nested()},
		q{SELECT cleanup_add_source('nesting', '{audio_url}')});
	foreach my $outer ('SELECT cleanup_status()', 'CALL cleanup_run()')
	{
		my ($rc, $stdout, $stderr) = $node->psql('postgres', $outer);
		like($stdout . $stderr, $refused, "$call within a view: $outer");
	}
	is_deeply([ sort keys %{ visible_files($dir) } ], [ 'orphan.mp3', 'wanted.mp3' ], "$call: nothing went");

	# the code catches the refusal, and goes on
	sql("CREATE OR REPLACE FUNCTION nested() RETURNS boolean LANGUAGE plpgsql AS \$\$
		BEGIN PERFORM $call; RETURN true; EXCEPTION WHEN OTHERS THEN RETURN false; END \$\$");
	my ($rc, $stdout, $stderr) = $node->psql('postgres', 'CALL cleanup_run()');
	like($stdout . $stderr, qr/has caught error 55006/, "$call: a refusal that is caught is an error");
	is_deeply([ sort keys %{ visible_files($dir) } ], [ 'orphan.mp3', 'wanted.mp3' ], "$call: nothing went then");
	sql(q{SELECT cleanup_drop_source('nesting')}, 'DROP VIEW nesting', 'DROP FUNCTION nested');
}

# ---- the time limit of the outer call ----

sql(q{CREATE FUNCTION nested() RETURNS boolean LANGUAGE plpgsql AS $$
		BEGIN
			BEGIN PERFORM public.cleanup_explain('wanted.mp3'); EXCEPTION WHEN OTHERS THEN NULL; END;
			PERFORM pg_sleep(300);
			RETURN true;
		END $$},
	q{CREATE VIEW nesting AS SELECT audio_url FROM sessions WHERE nested()},
	q{SELECT cleanup_add_source('nesting', '{audio_url}')});
my ($rc, $stdout, $stderr) = $node->psql('postgres', q{
	SET application_name = 'pg_cron';
	SET audio_cleanup.source_timeout = '1s';
	CALL cleanup_run();
	SELECT pg_sleep(3) IS NULL;
	SELECT 'the session goes on'}, on_error_stop => 0, timeout => 120);
like($stderr, qr/gave up reading source public.nesting/, 'the limit stays');
like($stdout, qr/the session goes on/, 'and nothing is cancelled afterwards');
sql(q{SELECT cleanup_drop_source('nesting')}, 'DROP VIEW nesting', 'DROP FUNCTION nested');

# ---- a trigger ----

sql(q{SELECT cleanup_drop_source('sessions')},
	q{SELECT cleanup_add_source('sessions', '{audio_url}', 'id', 'status', '{failed}', 'updated_at', on_failed => 'clear')});
foreach my $call (@calls)
{
	put_files($dir, 'failed.mp3');
	sql("CREATE FUNCTION nested() RETURNS trigger LANGUAGE plpgsql AS \$\$ BEGIN PERFORM $call; RETURN NEW; END \$\$",
		q{CREATE TRIGGER nesting BEFORE UPDATE ON sessions FOR EACH ROW EXECUTE FUNCTION nested()},
		q{INSERT INTO sessions (audio_url, status, updated_at) VALUES ('failed.mp3', 'failed', now() - interval '30 days')});
	my $runs = sql('SELECT count(*) FROM cleanup_runs');
	($rc, $stdout, $stderr) = $node->psql('postgres', 'SELECT cleanup_all(force => true)');
	like($stdout . $stderr, $refused, "$call within a trigger");
	ok(exists visible_files($dir)->{'failed.mp3'}, "$call: its file stays");
	cmp_ok(sql('SELECT count(*) FROM cleanup_runs'), '<=', $runs + 1, "$call: there is one run at most");
	sql(q{DELETE FROM sessions WHERE status = 'failed'}, 'DROP TRIGGER nesting ON sessions', 'DROP FUNCTION nested');
}
ok(wait_for_drain($node), 'all runs end');
is(sql(q{SELECT count(*) FROM cleanup_runs WHERE status = 'running'}), 0, 'no run is left');

done_testing();
