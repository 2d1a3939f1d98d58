# The file of a session that is cleared cannot be moved, and the next run finds an
# orphan: it can be restored, with the columns of its session.

use strict;
use warnings;

use Errno qw(EACCES);
use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('failed_then_orphan', start => 0, conf => <<'END');
audio_cleanup.max_delete_percent = 100
audio_cleanup.backup_retention_days = 3
END
my $dir = upload_dir($node);

start_with_faults($node);
make_schema($node);
put_files($dir, 'wanted.mp3');
add_rows($node, 'wanted.mp3');
$node->safe_psql('postgres', q{
	CREATE TABLE talks (id int PRIMARY KEY, audio_url text, audio_filename text, status text, updated_at timestamp);
	SELECT cleanup_add_source('talks', on_failed => 'clear');
	SELECT cleanup_all();
});
ok(wait_for_drain($node), 'the directory is claimed');

foreach my $call ("cleanup_restore('x.mp3')", 'cleanup_restore((SELECT max(run_id) FROM cleanup_runs))')
{
	my $content = put_file($dir, 'x.mp3', content => "x for $call");

	# another file of the session is moved, and is deleted when its day has come
	put_file($dir, 'y.mp3');
	sql(q{DELETE FROM talks}, q{INSERT INTO talks VALUES (1, 'https://example.org/x.mp3', 'y.mp3', 'failed', '2024-01-01')});
	set_fault($node, 'renameat2 errno 0 ' . EACCES . ' x.mp3');
	sql('SELECT cleanup_all()');
	ok(wait_for_drain($node), "$call: a run of which a file fails");
	is(sql(q{SELECT state, reason FROM cleanup_files WHERE file = 'x.mp3' ORDER BY file_id DESC LIMIT 1}), 'failed|failed_session', "$call: the file stays");
	is(sql('SELECT audio_url IS NULL AND audio_filename IS NULL FROM talks'), 't', "$call: its session is cleared");
	clear_fault($node);
	sql(q{UPDATE cleanup_files SET due_at = condemned_at WHERE file = 'y.mp3' AND state = 'trashed'}, 'SELECT cleanup_purge_backups()');
	ok(wait_for_drain($node), "$call: the other file is deleted");
	ok(!-e "$dir/y.mp3", "$call: really");

	sql('SELECT cleanup_all()');
	ok(wait_for_drain($node), "$call: the next run");
	is(sql(q{SELECT state, reason, session_id FROM cleanup_files WHERE file = 'x.mp3' ORDER BY file_id DESC LIMIT 1}), 'trashed|failed_session|1',
		"$call: the file is a backup, of its session");
	is_deeply(sql_json($node, "SELECT $call")->{result}{sessions_restored}, ['1'], "$call: the session comes back");
	ok(wait_for_drain($node), "$call: and the file");
	is(read_file("$dir/x.mp3"), $content, "$call: as it was");
	is(sql('SELECT audio_url FROM talks'), 'https://example.org/x.mp3', "$call: so is the column");
	sql('SELECT cleanup_all()', q{UPDATE cleanup_files SET finished_at = now() - interval '10 days' WHERE state = 'restored'});
	wait_for_drain($node);
	unlink "$dir/x.mp3";
}

# ---- files that several failed sessions of a run share: each session gets its columns back, whoever has the row ----

put_files($dir, 'a.mp3', 'b.mp3', 'c.mp3', 'd.mp3');
my $talks = q{(1, 'a.mp3', 'a.mp3', 'failed', '2024-01-01'), (2, 'a.mp3', 'b.mp3', 'failed', '2024-01-01'), (3, 'b.mp3', 'a.mp3', 'failed', '2024-01-01'),
	(4, 'c.mp3', 'b.mp3', 'failed', '2024-01-01'), (5, 'c.mp3, a.mp3', 'b.mp3 b.mp3', 'failed', '2024-01-01'), (6, 'd.mp3', NULL, 'failed', '2024-01-01')};
sql('DELETE FROM talks', "INSERT INTO talks VALUES $talks");
my $before = sql('SELECT * FROM talks ORDER BY id');
is(sql_json($node, 'SELECT cleanup_all()')->{result}{failed_sessions_count}, 6, 'six sessions share four files');
ok(wait_for_drain($node), 'the run is over');
is(sql('SELECT count(*) FROM talks WHERE audio_url IS NULL AND audio_filename IS NULL'), 6, 'all are cleared');
is_deeply(sql_json($node, q{SELECT cleanup_restore('d.mp3')})->{result}{sessions_restored}, ['6'], 'one has a file of its own');
ok(wait_for_drain($node), 'it comes back');
is(sql('SELECT count(*) FROM talks WHERE audio_url IS NULL AND audio_filename IS NULL'), 5, 'the others do not');
is_deeply([ sort @{ sql_json($node, 'SELECT cleanup_restore((SELECT max(run_id) FROM cleanup_runs))')->{result}{sessions_restored} } ], [ 1 .. 5 ],
	'the others come back with the run');
ok(wait_for_drain($node), 'and the files');
is(sql('SELECT * FROM talks ORDER BY id'), $before, 'the rows are as they were');
is(sql(q{SELECT count(*) FROM cleanup_cleared WHERE run_id = (SELECT max(run_id) FROM cleanup_files)}), 0, 'nothing is left to be remembered of the run');

# what is remembered of sessions is forgotten with the history
sql('DELETE FROM talks', q{UPDATE cleanup_runs SET finished_at = now() - interval '2000 days', started_at = now() - interval '2000 days'},
	q{UPDATE cleanup_files SET finished_at = now() - interval '2000 days', state = 'deleted' WHERE state <> 'deleted'});
$node->safe_psql('postgres', 'CALL cleanup_run(force => true)');
$node->safe_psql('postgres', 'CALL cleanup_run(force => true)');
is(sql('SELECT count(*) FROM cleanup_cleared k WHERE NOT EXISTS (SELECT FROM cleanup_runs r WHERE r.run_id = k.run_id)'), 0, 'nothing is remembered of runs that are forgotten');

$node->stop;
done_testing();
