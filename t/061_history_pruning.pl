# The night worker forgets old history, whatever became of its run and even if
# it is killed in the middle of it; and whoever listens is told of each run
# with the commit that ends it, unless that transaction is prepared.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use JSON::PP qw(decode_json);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('history', start => 0, conf => <<'END');
shared_preload_libraries = 'audio_cleanup'
audio_cleanup.timezone = 'UTC'
max_prepared_transactions = 5
END
my $dir = upload_dir($node);

set_schedule_clock($node, '2027-03-01 02:50:00');
$node->start;
make_schema($node);
add_rows($node, put_files($dir, 'wanted.mp3'));

# ---- notifications ----

my $listener = $node->background_psql('postgres');
my $output = '';

$listener->query_safe('LISTEN audio_cleanup');

# What was heard by now, without what was asked for before: a list of "trigger status files deleted bytes errors".
sub heard
{
	$output .= $listener->query_safe('SELECT 1');
	my @heard = map { decode_json($_) } $output =~ /^Asynchronous notification "audio_cleanup" with payload "(\{.*\})" received/mg;
	return [ map { join ' ', @{$_}{qw(trigger status files deleted bytes errors)} } sort { $a->{run_id} <=> $b->{run_id} } @heard ];
}

# Exactly these, and nothing more by the time that a later run is heard of.
sub hears
{
	my ($name, @expected) = @_;

	wait_until(sub { @{ heard() } >= @expected });
	is_deeply(heard(), \@expected, $name);
	$output = '';
	return;
}

put_file($dir, 'orphan.mp3', content => 'x' x 100);
$node->safe_psql('postgres', 'SELECT cleanup_all()');
hears('a run in a transaction: when the worker has finished it', 'sql done 1 1 100 0');

my $session = begin_session($node, 'SELECT cleanup_all()');
is_deeply(heard(), [], 'nothing before the commit');
$session->query_safe('COMMIT');
hears('a run that found nothing: with the commit', 'sql done 0 0 0 0');

$session->query_safe('BEGIN; SELECT cleanup_all(); ROLLBACK;');
$session->query_safe('BEGIN; SAVEPOINT a; SELECT cleanup_all(); ROLLBACK TO a; COMMIT;');
$session->query_safe('BEGIN; SAVEPOINT a; SAVEPOINT b; SELECT cleanup_orphaned_files(); RELEASE b; ROLLBACK TO a; SELECT cleanup_failed_sessions(); COMMIT;');
$session->query_safe('BEGIN; SAVEPOINT a; SELECT cleanup_all(); RELEASE a; COMMIT;');
hears('of what was rolled back nobody hears', 'sql done 0 0 0 0', 'sql done 0 0 0 0');

$session->query_safe(q{BEGIN; SELECT cleanup_all(); PREPARE TRANSACTION 'empty'});
$session->query_safe(q{COMMIT PREPARED 'empty'});
is($node->safe_psql('postgres', q{SELECT count(*) FROM cleanup_runs WHERE status = 'done'}), 5, 'a run can be prepared');
is_deeply(heard(), [], 'and tells nobody if it found nothing');

put_files($dir, 'orphan.mp3');
$session->query_safe(q{BEGIN; SELECT cleanup_all(); PREPARE TRANSACTION 'files'});
$session->query_safe(q{COMMIT PREPARED 'files'});
is($node->safe_psql('postgres', q{SELECT status FROM cleanup_runs ORDER BY run_id DESC LIMIT 1}), 'pending', 'with files it is pending');
is_deeply(heard(), [], 'nobody hears of it yet');

# what this one does for the run before it is prepared too
$session->query_safe(q{BEGIN; SELECT cleanup_all(); PREPARE TRANSACTION 'next'});
$session->query_safe(q{COMMIT PREPARED 'next'});
$node->safe_psql('postgres', 'CALL cleanup_run()');
ok(wait_for_drain($node), 'the next run deals with it');
hears('then one hears of both', 'sql done 1 1 20 0', 'sql done 0 0 0 0');

# one that ends within a prepared transaction, which no drain ever sees again
put_files($dir, 'orphan.mp3');
$session->query_safe(q{BEGIN; SELECT cleanup_all(); PREPARE TRANSACTION 'vanishing'});
$session->query_safe(q{COMMIT PREPARED 'vanishing'});
unlink "$dir/orphan.mp3";
$session->query_safe(q{BEGIN; SELECT cleanup_all(); PREPARE TRANSACTION 'last'});
$session->query_safe(q{COMMIT PREPARED 'last'});
is($node->safe_psql('postgres', q{SELECT string_agg(status || ' ' || skipped, ', ' ORDER BY run_id)
	FROM (SELECT * FROM cleanup_runs ORDER BY run_id DESC LIMIT 2) r}), 'done 1, done 0', 'a transaction that ends an earlier run can be prepared');
is_deeply(heard(), [], 'and tells nobody');
$session->quit;

put_files($dir, 'orphan1.mp3', 'orphan2.mp3');
$node->safe_psql('postgres', 'SET audio_cleanup.batch_size = 1; CALL cleanup_run()');
hears('a run in batches: once', 'sql done 2 2 42 0');

put_files($dir, 'orphan1.mp3');
chmod 0500, $dir or die;
my ($rc, $stdout, $stderr) = $node->psql('postgres', 'CALL cleanup_run()');
chmod 0755, $dir or die;
isnt($rc, 0, 'a run that is refused');
hears('is heard of', 'sql blocked 0 0 0 0');
$node->safe_psql('postgres', 'CALL cleanup_run(dry_run => true); SELECT cleanup_status(); SELECT cleanup_all(true);');

change_settings($node, 'audio_cleanup.databases' => 'postgres');
ok(launcher_says($node, 'sleeping until 2027-03-01 03:00:00+00'), 'the schedule is in force');
ok(let_day_pass($node, '2027-03-01'), 'a night');
hears('one hears of the night, and of no preview', 'schedule done 1 1 21 0');

# ---- by night the history is forgotten ----

# Runs of 400 days ago, the oldest first, with so many files; their ids.
sub make_history
{
	my ($status, @files) = @_;
	return map { $node->safe_psql('postgres', qq{
		WITH run AS (INSERT INTO cleanup_runs
			(run_id, started_at, finished_at, what, status, requested_by, upload_dir, settings, files)
			SELECT coalesce((SELECT min(run_id) FROM cleanup_runs WHERE finished_at > now() - interval '300 days'), 1)
			  - 100 + (SELECT count(*) FROM cleanup_runs), now() - interval '400 days', now() - interval '400 days',
			  'all', '$status', 'me', '$dir', '{}', $_ RETURNING run_id),
		files AS (INSERT INTO cleanup_files
			(run_id, file, reason, state, size, freed, finished_at, condemned_at, modified_at, due_at, inode, mtime_ns, ctime_ns, btime_ns)
			SELECT run_id, n || '.mp3', 'orphan', 'deleted', 1, 1, now() - interval '400 days', now() - interval '400 days',
			  now(), now(), 1, 1, 1, 1 FROM run, generate_series(1, $_) n)
		SELECT run_id FROM run}) } @files;
}

sub old_history
{
	return $node->safe_psql('postgres', q{SELECT (SELECT count(*) FROM cleanup_runs WHERE finished_at < now() - interval '365 days')
		|| ' runs, ' || (SELECT count(*) FROM cleanup_files WHERE condemned_at < now() - interval '365 days') || ' files'});
}

make_history('done', 12000, 3, 0);
is(old_history(), '3 runs, 12003 files', 'an old history');
ok(let_day_pass($node, '2027-03-02'), 'another night');
is(old_history(), '0 runs, 0 files', 'it is forgotten');
hears('of which nobody hears', 'schedule done 0 0 0 0');

# no run gets through, and the only one that did is old: that one stays
$node->safe_psql('postgres', q{TRUNCATE cleanup_files, cleanup_runs});
make_history('done', 5, 7);
make_history('blocked', 0, 0);
chmod 0500, $dir or die;
ok(let_day_pass($node, '2027-03-03'), 'a night that is refused');
chmod 0755, $dir or die;
is_deeply(runs($node), [ 'sql done', 'schedule 2027-03-03 blocked' ], 'prunes, but for the newest that was done');
is(old_history(), '1 runs, 7 files', 'with its files');
hears('a refused night is heard of', 'schedule blocked 0 0 0 0');

# ---- killed in the middle ----

make_history('done', 25000, 15000);
$node->safe_psql('postgres', q{
	CREATE SEQUENCE portions;
	CREATE FUNCTION count_portion() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		IF nextval('public.portions') = 3 THEN
			PERFORM pg_advisory_xact_lock(1);
		END IF;
		RETURN NULL;
	END $$;
	CREATE TRIGGER count_portion BEFORE DELETE ON cleanup_files EXECUTE FUNCTION count_portion();
});
my $holder = $node->background_psql('postgres', on_error_stop => 0);
$holder->query_safe('SELECT pg_advisory_lock(1)');
my $pid;
set_schedule_clock($node, '2027-03-04 02:50:00');
ok(launcher_says($node, 'sleeping until 2027-03-04 03:00:00+00'), 'before the next night');
set_schedule_clock($node, '2027-03-04 03:00:00');
ok(wait_until(sub { $pid = $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity
	WHERE backend_type = 'audio_cleanup worker' AND wait_event = 'advisory'}) }), 'the worker is at its third portion');
is($node->safe_psql('postgres', "SELECT query FROM pg_stat_activity WHERE pid = $pid"), 'pruning the history', 'and says what it does');
is($node->safe_psql('postgres', 'SET lock_timeout = 5000; SELECT cleanup_all() IS NOT NULL'), 't', 'it does not keep anybody from cleaning');
my $position = log_position($node);
kill 'KILL', $pid;
ok(wait_until(sub { log_since($node, $position) =~ /ready to accept connections/ }), 'it is killed');
# the sessions have died with the server
undef $listener;
undef $holder;

is(old_history(), '2 runs, 20007 files', 'two portions are gone, and no run before its files');
is($node->safe_psql('postgres', 'SELECT count(*) FROM cleanup_files f WHERE NOT EXISTS (SELECT FROM cleanup_runs r WHERE r.run_id = f.run_id)'),
	0, 'no file is without its run');
ok(let_day_pass($node, '2027-03-05'), 'the next night');
is(old_history(), '0 runs, 0 files', 'goes on with it');

# ---- without an end ----

make_history('done', 10);
$node->safe_psql('postgres', 'ALTER DATABASE postgres SET audio_cleanup.history_retention_days = 0');
ok(let_day_pass($node, '2027-03-06'), 'a night with history_retention_days = 0');
is(old_history(), '1 runs, 10 files', 'forgets nothing');

$node->stop;
is(log_lines($node, qr/PANIC:/), '', 'no panic');
done_testing();
