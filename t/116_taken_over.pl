# Files that were condemned before a directory was taken over live, in whatever
# state their run is: condemned, captured, or captured and on record.  So do
# files that a machine has condemned whose clock is ahead.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

# without a worker, the next call goes on with the files of a call
my $node = new_server('taken_over', conf => <<'END');
max_worker_processes = 0
audio_cleanup.max_delete_percent = 100
audio_cleanup.writer_wait = 100ms
END
my $dir = upload_dir($node);
make_schema($node);
add_rows($node, put_files($dir, 'wanted.mp3'));

sub take_over
{
	unlink "$dir/.audio_cleanup/claim" or die "claim: $!\n";
	sql('SELECT cleanup_claim_upload_dir()');
	return;
}

# the claim is written and confirmed
sql($_) foreach 'SELECT cleanup_all()', 'CALL cleanup_run()';

foreach my $go_on ('CALL cleanup_run()', 'SELECT cleanup_all()')
{
	# captured by the commit: the run has not recorded that
	put_files($dir, 'captured.mp3');
	sql('SELECT cleanup_all()');
	ok(exists trashed_files($dir)->{'captured.mp3'}, "$go_on: a file is captured");
	take_over();
	sql($go_on) foreach 1 .. 2;
	ok(exists visible_files($dir)->{'captured.mp3'}, "$go_on: and comes back after a take-over");

	# recorded: only the last look is missing, because somebody writes
	put_files($dir, 'recorded.mp3');
	my $writer = $node->background_psql('postgres');
	sql(q{UPDATE cleanup_claims SET grace_from = NULL});
	sql('SELECT cleanup_all()');
	$writer->query_safe(q{BEGIN; INSERT INTO sessions (audio_url, status) VALUES ('other.mp3', 'processed')});
	$node->psql('postgres', 'CALL cleanup_run()');
	is(sql(q{SELECT count(*) FROM cleanup_files f JOIN cleanup_runs r USING (run_id)
		WHERE f.file = 'recorded.mp3' AND f.state = 'pending' AND f.file_id <= r.captured_up_to}), 1, "$go_on: a captured file is on record");
	take_over();
	end_session($writer, 'ROLLBACK');
	sql($go_on) foreach 1 .. 2;
	ok(exists visible_files($dir)->{'recorded.mp3'}, "$go_on: and comes back after a take-over, too");
	is(sql(q{SELECT string_agg(DISTINCT error, ' ') FROM cleanup_files WHERE file IN ('captured.mp3', 'recorded.mp3')}),
		'the directory was taken over after it was condemned', "$go_on: the history says why");
	is(sql(q{SELECT count(*) FROM cleanup_files WHERE state = 'deleted' AND file IN ('captured.mp3', 'recorded.mp3')}), 0, "$go_on: none was deleted");
	sql('DELETE FROM cleanup_files WHERE state NOT IN (\'pending\', \'trashed\', \'restoring\')', q{UPDATE cleanup_claims SET grace_from = NULL});
	unlink "$dir/captured.mp3", "$dir/recorded.mp3";
}

# ---- the machine that has condemned them was ahead of the one that takes over ----

$node->stop;
my $ahead = start_with_clock($node);
foreach my $go_on ('CALL cleanup_run()', 'SELECT cleanup_all()')
{
	put_files($dir, 'ahead.mp3');
	set_clock($ahead, 200, 0);
	sql('SELECT cleanup_all()');
	ok(exists trashed_files($dir)->{'ahead.mp3'}, "$go_on: a file is captured by a clock that is ahead");
	set_clock($ahead, 0, 0);
	take_over();
	set_clock($ahead, 250, 0);
	sql($go_on) foreach 1 .. 2;
	ok(exists visible_files($dir)->{'ahead.mp3'}, "$go_on: and comes back after a take-over");
	set_clock($ahead, 0, 0);
	sql('DELETE FROM cleanup_files WHERE state NOT IN (\'pending\', \'trashed\', \'restoring\')', q{UPDATE cleanup_claims SET grace_from = NULL});
	unlink "$dir/ahead.mp3";
}

done_testing();
