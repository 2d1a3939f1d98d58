# The audio of a failed session is uploaded again under its name while a run is about
# to commit.  The new file stays, and the session, which was cleared, refers to it.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('uploaded_again', conf => <<'END');
audio_cleanup.max_delete_percent = 100
audio_cleanup.writer_wait = '20s'
END
my $dir = upload_dir($node);
make_schema($node);
put_files($dir, 'wanted.mp3');
add_rows($node, 'wanted.mp3');
sql(q{CREATE TABLE talks (id int PRIMARY KEY, audio_url text, audio_filename text, status text, updated_at timestamp);
	SELECT cleanup_add_source('talks', on_failed => 'clear')}, 'SELECT cleanup_all()');
ok(wait_for_drain($node), 'the directory is claimed');

sub fail_session
{
	my ($id, @files) = @_;
	sql(sprintf q{INSERT INTO talks VALUES (%d, %s, 'failed', '2024-01-01')}, $id, join ', ', map { defined ? "'$_'" : 'NULL' } @files[ 0, 1 ]);
	return;
}

sub columns
{
	my ($id) = @_;
	return sql("SELECT concat_ws(' ', audio_url, audio_filename) FROM talks WHERE id = $id");
}

sub state_of
{
	my ($file) = @_;
	return sql("SELECT state || coalesce(': ' || error, '') FROM cleanup_files WHERE file = '$file' ORDER BY file_id DESC LIMIT 1");
}

# ---- while the transaction of a run is open ----

foreach my $days (0, 3)
{
	sql("ALTER DATABASE postgres SET audio_cleanup.backup_retention_days = $days");
	put_files($dir, 'first.mp3', 'other.mp3', 'alone.mp3', 'later.mp3');
	fail_session(1, 'first.mp3', 'other.mp3');
	fail_session(2, 'first.mp3');
	fail_session(3, 'alone.mp3');
	fail_session(4, 'later.mp3');

	my $run = begin_session($node, 'SELECT cleanup_all()');
	my $first = put_file($dir, 'first.mp3', content => "the first again\n", hours => 0);
	my $later = put_file($dir, 'later.mp3', content => "later again\n", hours => 0);
	end_session($run);
	ok(wait_for_drain($node), "$days days: the run is done");
	is(visible_files($dir)->{'first.mp3'}, $first, "$days days: what was uploaded in between stays");
	ok(!-e "$dir/other.mp3" && !-e "$dir/alone.mp3", "$days days: and the others go");
	is(state_of('first.mp3'), 'skipped: it was replaced or changed', "$days days: its row says so");
	is(columns(1), 'first.mp3', "$days days: its session refers to it");
	is(columns(2), 'first.mp3', "$days days: and so does another one");
	is(columns(3), '', "$days days: a session whose file has gone is cleared");
	is(columns(4), 'later.mp3', "$days days: each session is looked at");
	sql(q{UPDATE talks SET status = 'processing' WHERE id IN (1, 2, 4)});
	put_file($dir, $_, content => "days have passed\n") foreach 'first.mp3', 'later.mp3';
	sql('CALL cleanup_run()');
	ok(wait_for_drain($node), "$days days: the next run is done");
	ok(-e "$dir/first.mp3" && -e "$dir/later.mp3", "$days days: and takes no file of a session that is tried again");
	is(sql(q{SELECT count(*) FROM cleanup_cleared WHERE session_id = '3'}), $days > 0 ? 1 : 0, "$days days: what can come back is remembered");
	sql('DELETE FROM talks');
	unlink "$dir/first.mp3", "$dir/later.mp3";
}

# ---- somebody has the row locked for longer than a run waits ----

{
	fail_session(5, 'locked.mp3');
	put_files($dir, 'locked.mp3');
	sql(q{ALTER DATABASE postgres SET audio_cleanup.writer_wait = '300ms'});

	my $run = begin_session($node, 'SELECT cleanup_all()');
	my $locked = put_file($dir, 'locked.mp3', content => "again\n", hours => 0);
	my $writer = $node->background_psql('postgres');

	# the writer queues up behind the run, and has the row when the worker wants it
	$writer->query_until(qr/asked/, "BEGIN;\n\\echo asked\nSELECT FROM talks WHERE id = 5 FOR UPDATE;\n");
	ok(wait_until(sub { sql(q{SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ 'FOR UPDATE'}) > 0 }), 'somebody waits for the row');
	end_session($run);
	ok(wait_until(sub { state_of('locked.mp3') =~ /^skipped/ }), 'the file stays');
	ok(wait_for_drain($node), 'the run ends without the row');
	like(slurp_file($node->logfile), qr/WARNING:  column audio_url of source public\.talks was not restored: .*lock/, 'and says so');
	end_session($writer);
	is(sql(q{SELECT cleanup_restore((SELECT max(run_id) FROM cleanup_runs)) -> 'result' -> 'sessions_restored'}), '["5"]', 'one call gives it back later');
	is(columns(5), 'locked.mp3', 'really');
	is(visible_files($dir)->{'locked.mp3'}, $locked, 'the file is as it was');
	sql('ALTER DATABASE postgres RESET audio_cleanup.writer_wait');
}

# ---- the directory is taken over: what was condemned before lives, and is referred to ----

{
	fail_session(6, 'lives.mp3');
	my $lives = put_file($dir, 'lives.mp3');

	sql('ALTER DATABASE postgres SET audio_cleanup.backup_retention_days = 0', 'ALTER SYSTEM SET max_worker_processes = 0');
	$node->restart;
	sql('SELECT cleanup_all()');
	is(columns(6), '', 'a session is cleared');
	unlink "$dir/.audio_cleanup/claim" or die "claim: $!\n";
	sql('SELECT cleanup_claim_upload_dir()');
	sql(q{UPDATE talks SET status = 'processing' WHERE id = 6});
	sql('CALL cleanup_run()') foreach 1 .. 2;
	is(visible_files($dir)->{'lives.mp3'}, $lives, 'after a take-over its file lives');
	is(columns(6), 'lives.mp3', 'and the session refers to it');
}

$node->stop;
done_testing();
