# A drain records the states of files while it unlinks other files.  If it has
# to stop there, the unlinks that have begun are over before its locks are
# given back, and the next drain finds out what has happened to each file.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('under_way', conf => <<'END');
max_worker_processes = 0
audio_cleanup.max_delete_percent = 100
END
my $dir = upload_dir($node);
make_schema($node);
add_rows($node, put_files($dir, 'wanted.mp3'));

# Folders of many files, of few files, and of one file each: 4,000 files.
sub put_orphans
{
	put_files($dir, map { ("many/$_.mp3", 'few' . int($_ / 3) . "/$_.mp3", "one$_/$_.mp3") } 1000 .. 2332);
	put_files($dir, 'last.mp3');
	return;
}

my %ways = (
	cancelled => 'SELECT pg_cancel_backend($1)',
	terminated => 'SELECT pg_terminate_backend($1)',
	undisturbed => 'SELECT $1');

foreach my $way (sort keys %ways)
{
	put_orphans();
	sql('SELECT cleanup_all()');
	is(sql(q{SELECT count(*) FROM cleanup_files WHERE state = 'pending'}), 4000, "$way: so many files");
	my $locker = begin_session($node, q{SELECT FROM cleanup_files WHERE file_id = (SELECT min(file_id) + 500 FROM cleanup_files WHERE state = 'pending') FOR UPDATE});
	my $drain = $node->background_psql('postgres', on_error_stop => 0);
	my $pid = $drain->query('SELECT pg_backend_pid()');
	$drain->query_until(qr/asked/, "\\echo asked\nCALL cleanup_run();\n");
	ok(wait_until(sub { sql("SELECT count(*) FROM pg_stat_activity WHERE pid = $pid AND wait_event_type = 'Lock'") == 1 }),
		"$way: the drain waits for a row");
	cmp_ok(scalar keys %{ trashed_files($dir) }, '<', 4000, "$way: while it has unlinked files");
	(my $statement = $ways{$way}) =~ s/\$1/$pid/;
	sql($statement);
	ok(wait_until(sub { sql("SELECT count(*) FROM pg_stat_activity WHERE pid = $pid AND state = 'active'") == 0 }), "$way: it ends")
	  unless $way eq 'undisturbed';
	end_session($locker, 'ROLLBACK');
	eval { $drain->quit };
	sql('CALL cleanup_run()');
	is(sql(q{SELECT state || ' ' || count(*) FROM cleanup_files GROUP BY state}), 'deleted 4000', "$way: at last all are deleted");
	is(sql('SELECT sum(freed) FROM cleanup_files'), sql('SELECT sum(space) FROM cleanup_files'), "$way: and their space is counted");
	is_deeply([ keys %{ visible_files($dir) } ], ['wanted.mp3'], "$way: the wanted file stays");
	is_deeply(trashed_files($dir), {}, "$way: the trash is empty");
	sql('DELETE FROM cleanup_files');
}
unlike(slurp_file($node->logfile), qr/PANIC|signal 11|signal 6/, 'the server did not crash');

done_testing();
