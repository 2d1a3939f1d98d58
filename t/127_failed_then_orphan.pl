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

sub sql { return $node->safe_psql('postgres', join ';', @_); }

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

# what is remembered of sessions is forgotten with the history
sql('DELETE FROM talks', q{UPDATE cleanup_runs SET finished_at = now() - interval '2000 days', started_at = now() - interval '2000 days'},
	q{UPDATE cleanup_files SET finished_at = now() - interval '2000 days', state = 'deleted' WHERE state <> 'deleted'});
$node->safe_psql('postgres', 'CALL cleanup_run()');
$node->safe_psql('postgres', 'CALL cleanup_run()');
is(sql('SELECT count(*) FROM cleanup_cleared k WHERE NOT EXISTS (SELECT FROM cleanup_runs r WHERE r.run_id = k.run_id)'), 0, 'nothing is remembered of runs that are forgotten');

$node->stop;
done_testing();
