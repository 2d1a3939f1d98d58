# A folder is closed to the server while files that were in it are on their way.  What lies in the trash has a row
# that speaks of it, and goes back as soon as the folder is open again.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('closed_folder', conf => "max_worker_processes = 16\naudio_cleanup.writer_wait = '60s'\n");
my $dir = upload_dir($node);
claim_directory($node, 'keep.mp3');

sub states { return $node->safe_psql('postgres', "SELECT DISTINCT state FROM cleanup_files WHERE file = '$_[0]'"); }

# The file is condemned; another session begins to refer to it; it is captured; and its folder is closed before the
# last look finds that it is needed.
sub need_again
{
	my ($file, %options) = @_;
	my $session = $node->background_psql('postgres');
	my $writer = $node->background_psql('postgres');

	put_file($dir, $file);
	$session->query_safe('BEGIN; SELECT cleanup_all(force => true)');
	$writer->query_safe("BEGIN; INSERT INTO sessions (audio_url) VALUES ('$file')");
	end_session($session);
	ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity
		WHERE backend_type = 'audio_cleanup drain' AND wait_event = 'virtualxid'}), 'the last look waits for a writer');
	ok(!-e "$dir/$file", '... when the file has been captured');
	chmod 0, "$dir/sub" or die $!;
	end_session($writer);
	return;
}

foreach my $days (0, 7)
{
	my $file = "sub/again$days.mp3";

	$node->safe_psql('postgres', "ALTER DATABASE postgres SET audio_cleanup.backup_retention_days = $days");
	add_rows($node, put_files($dir, "sub/other$days.mp3"));
	need_again($file);
	ok($node->poll_query_until('postgres', q{SELECT NOT EXISTS (SELECT FROM pg_stat_activity
		WHERE backend_type = 'audio_cleanup drain')}), "backup of $days days: the drain has ended");
	chmod 0755, "$dir/sub" or die $!;
	is_deeply([ map { scalar @{ trashed_files($dir)->{$_} || [] } } $file ], [1], '... and could not put the file back');
	isnt(states($file), 'failed', '... its row is none that nobody looks at again');
	like(log_lines($node, qr/could not|left file/), qr/\Q$file\E.*Permission denied/, '... the log says why');
	$node->safe_psql('postgres', 'SELECT cleanup_all(force => true)');
	ok(wait_until(sub { -e "$dir/$file" }), '... with the next run it comes back');
	ok(wait_for_drain($node), '... and all is done');
	is(states($file), 'restored', '... and recorded');
}

# ---- two files that had one name ----

# The older one is in the trash, and its last look waits for a writer.  A newer one of the same name is condemned,
# and the writer refers to the name: it is the newer one that he has seen.
{
	my $file = 'twice.mp3';
	my $older = $node->background_psql('postgres');
	my $newer = $node->background_psql('postgres');
	my $writer = $node->background_psql('postgres');
	my $content;

	put_file($dir, $file, content => 'the older one');
	$older->query_safe('BEGIN; SELECT cleanup_all(force => true)');
	$writer->query_safe("BEGIN; INSERT INTO sessions (audio_url) VALUES ('$file')");
	$older->query_safe('COMMIT');
	ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity
		WHERE backend_type = 'audio_cleanup drain' AND wait_event = 'virtualxid'}), 'the last look of the older one waits');

	# the drain has let the other run begin: that is not its business, as long as its own directory is locked
	$content = put_file($dir, $file, content => 'the newer one');
	$node->safe_psql('postgres', q{INSERT INTO cleanup_runs (what, trigger, requested_by, status, upload_dir, settings, claim)
		SELECT what, trigger, requested_by, 'pending', upload_dir, settings, claim FROM cleanup_runs ORDER BY run_id DESC LIMIT 1});
	my ($inode, $size, $mtime, $ctime) = (stat "$dir/$file")[1, 7, 9, 10];
	my $run = $node->safe_psql('postgres', 'SELECT max(run_id) FROM cleanup_runs');
	$node->safe_psql('postgres', qq{INSERT INTO cleanup_files (run_id, file, reason, state, size, space, modified_at, due_at, inode, mtime_ns,
		ctime_ns, btime_ns) VALUES ($run, '$file', 'orphan', 'trashed', $size, $size, to_timestamp($mtime), now() + interval '7 days', $inode,
		${mtime}000000000, ${ctime}000000000, 0)});
	mkdir "$dir/.audio_cleanup/trash/$run", 0700 or die $!;
	rename "$dir/$file", "$dir/.audio_cleanup/trash/$run/$file" or die $!;
	$writer->query_safe('COMMIT');
	$_->quit foreach $older, $newer, $writer;
	$node->poll_query_until('postgres', q{SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'audio_cleanup drain')});
	isnt(read_file("$dir/$file"), 'the older one', 'the older of two files of a name does not take the place of the newer one');
	$node->safe_psql('postgres', 'SELECT cleanup_all(force => true)');
	ok(wait_until(sub { -e "$dir/$file" }), '... which that run, or the next one, puts back');
	is(read_file("$dir/$file"), $content, '... and no other');
	ok(wait_for_drain($node), '... and all is done');
}

# The older one is a backup.  The newer one has been captured, and its row still says pending, because the drain gave
# up waiting for a writer; when he has committed, a run looks which backups are needed.
{
	my $file = 'thrice.mp3';
	my $position;

	$node->safe_psql('postgres', q{ALTER DATABASE postgres SET audio_cleanup.backup_retention_days = 7;
		ALTER DATABASE postgres SET audio_cleanup.writer_wait = '100ms'});
	put_file($dir, $file, content => 'the older one');
	$node->safe_psql('postgres', 'SELECT cleanup_all(force => true)');
	ok(wait_for_drain($node), 'the older one is a backup');
	is(states($file), 'trashed', '... which its row says');

	my $cleaner = $node->background_psql('postgres');
	my $writer = $node->background_psql('postgres');
	my $content = put_file($dir, $file, content => 'the newer one');
	$position = log_position($node);
	$cleaner->query_safe('BEGIN; SELECT cleanup_all(force => true)');
	$writer->query_safe("BEGIN; INSERT INTO sessions (audio_url) VALUES ('$file')");
	$cleaner->query_safe('COMMIT');
	ok(wait_until(sub { log_since($node, $position) =~ /condemned files are left as they are/ }), 'the drain gives up waiting');
	ok(!-e "$dir/$file", '... for the newer one, which was captured');
	$writer->query_safe('COMMIT');
	$_->quit foreach $cleaner, $writer;
	$node->safe_psql('postgres', 'CALL cleanup_run(force => true)');
	ok(wait_until(sub { -e "$dir/$file" }), 'the name is needed, and a file comes back');
	is(read_file("$dir/$file"), $content, '... the newer one');
	ok(wait_for_drain($node), '... and all is done');
	is(read_file("$dir/$file"), $content, '... and it stays');
}

# The older one was due and is destroyed, but its process was killed before it could say so.  Then the name is needed
# again, while the newer one is in the trash.
foreach my $call ('SELECT cleanup_purge_backups()', 'CALL cleanup_run(force => true)')
{
	my $file = $call =~ /purge/ ? 'fourth.mp3' : 'fifth.mp3';
	my ($older, $content);

	foreach my $which ('older', 'newer')
	{
		$content = put_file($dir, $file, content => "the $which one of them");
		$node->safe_psql('postgres', 'SELECT cleanup_all(force => true)');
		ok(wait_for_drain($node), "$call: the $which one is a backup");
		$older //= $node->safe_psql('postgres', "SELECT run_id FROM cleanup_files WHERE file = '$file'");
	}
	unlink "$dir/.audio_cleanup/trash/$older/$file" or die $!;
	$node->safe_psql('postgres', "UPDATE cleanup_files SET due_at = now() WHERE run_id = $older");
	add_rows($node, $file);
	$node->safe_psql('postgres', $call) for 1 .. 2;
	ok(wait_until(sub { -e "$dir/$file" }), "$call: a file comes back");
	ok(wait_for_drain($node), "$call: and all is done");
	is(read_file("$dir/$file"), $content, "$call: it is the newer one");
	is($node->safe_psql('postgres', "SELECT state FROM cleanup_files WHERE file = '$file' ORDER BY run_id"), "deleted\nrestored",
		"$call: of the older one the row says that it is deleted");
}

$node->stop;
done_testing();
