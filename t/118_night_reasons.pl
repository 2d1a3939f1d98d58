# A night that fails has its reason on record, also where backups are kept:
# these are compared with the rows before anything else is done, and those that
# have expired are work that earlier runs have left.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use Errno qw(EIO);
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('reasons', start => 0, conf => <<'END');
shared_preload_libraries = 'audio_cleanup'
audio_cleanup.timezone = 'UTC'
audio_cleanup.databases = 'postgres'
audio_cleanup.backup_retention_days = 7
audio_cleanup.source_timeout = '2s'
END
my $dir = upload_dir($node);
my $day = 1;

set_schedule_clock($node, '2027-03-01 02:50:00');
start_with_faults($node);
make_schema($node);
add_rows($node, put_files($dir, 'wanted.mp3'));
# a view of the owner's, which is good at first
$node->safe_psql('postgres', q{
	CREATE TABLE numbers (n int);
	CREATE VIEW source AS SELECT n AS id, n::text AS file_name FROM numbers;
	SELECT cleanup_add_source('source');
	INSERT INTO numbers VALUES (0)});

sub view_is
{
	my ($name) = @_;
	$node->safe_psql('postgres', 'CREATE OR REPLACE VIEW source AS SELECT n AS id, '
		  . { good => 'n::text', broken => '(1 / n)::text', slow => "CASE WHEN pg_sleep(100000) IS NULL THEN '' END" }->{$name}
		  . ' AS file_name FROM numbers');
	return;
}

# Backups, which expire in that many days; 0: they are due since they were condemned, as files that nobody backs up.
sub keep_files
{
	my ($days, @names) = @_;

	view_is('good');
	put_files($dir, @names);
	$node->safe_psql('postgres', 'CALL cleanup_run()');
	ok(wait_for_drain($node), "kept: @names");
	$node->safe_psql('postgres', q{UPDATE cleanup_files SET due_at = condemned_at WHERE state = 'trashed'}) if $days == 0;
	return;
}

# Status and message of the run of the next night.
sub night
{
	my ($name) = @_;
	my $date = sprintf '2027-03-%02d', $day++;

	ok(let_day_pass($node, $date), "$name: the night comes");
	return $node->safe_psql('postgres', "SELECT status, message FROM cleanup_runs WHERE scheduled_for = '$date'");
}

sub states
{
	return $node->safe_psql('postgres', q{SELECT string_agg(file || ' ' || state, ', ' ORDER BY file) FROM cleanup_files});
}

my %reason = (broken => qr/^failed\|division by zero/, slow => qr/^interrupted\|gave up reading source public\.source/);
my $listener = $node->background_psql('postgres');

foreach my $view ('broken', 'slow')
{
	foreach my $days (7, 0)
	{
		my $name = "$view view, a file that is due in $days days";
		my $file = "$view$days.mp3";
		my $heard;

		keep_files($days, $file);
		view_is($view);
		put_files($dir, 'orphan.mp3');
		$listener->query_safe('LISTEN audio_cleanup');
		like(night($name), $reason{$view}, "$name: the reason is on record");
		$heard = $listener->query_safe('SELECT 1; UNLISTEN audio_cleanup');
		like($heard, qr/Asynchronous notification "audio_cleanup" with payload ".*"trigger": "schedule"/, "$name: who listens hears of it");
		is($node->safe_psql('postgres', q{SELECT count(*) FROM cleanup_runs WHERE status IN ('running', 'pending')}), 0,
			"$name: no run is left");
		like(states(), qr/\b$file trashed/, "$name: the file is still there");
		ok(-e "$dir/orphan.mp3" && -e "$dir/wanted.mp3", "$name: nothing was deleted");

		view_is('good');
		like(night("$name, mended"), qr/^done\|$/, "$name: when the view is good again, all is done");
		like(states(), $days > 0 ? qr/\b$file trashed/ : qr/\b$file deleted/, "$name: what was due is gone");
		$node->safe_psql('postgres', 'UPDATE cleanup_files SET due_at = condemned_at WHERE due_at > now()');
		$node->safe_psql('postgres', 'CALL cleanup_run()');
		ok(wait_for_drain($node), "$name: it is drained");
	}
}
$listener->quit;

# ---- an error that is not of a statement, while earlier work is carried out ----

keep_files(0, 'due.mp3');
set_fault($node, 'fsync errno 0 ' . EIO);
like(night('the disk fails'), qr/^failed\|could not fsync below upload directory/, 'the disk fails: the reason is on record');
clear_fault($node);
$node->safe_psql('postgres', 'CALL cleanup_run()');
ok(wait_for_drain($node), 'then all is finished');
like(states(), qr/\bdue\.mp3 deleted/, '... and what was due is gone');

# Nobody can record it for a caller, who is told.  But the worker finishes his run, whatever becomes of the one before: each
# of its files fails once.
$node->safe_psql('postgres', q{ALTER DATABASE postgres SET audio_cleanup.batch_size = 1});
keep_files(0, map { "due$_.mp3" } 1 .. 6);
set_fault($node, 'fsync errno 0 ' . EIO);
my $position = log_position($node);
my ($rc, $stdout, $stderr) = $node->psql('postgres', 'CALL cleanup_run()');
like($stderr, qr/ERROR:  could not fsync below upload directory/, 'a caller is told');
ok($node->poll_query_until('postgres', q{SELECT status = 'interrupted' FROM cleanup_runs ORDER BY run_id DESC LIMIT 1}),
	'the worker finishes his run while the disk still fails');
cmp_ok(scalar(() = log_since($node, $position) =~ /ERROR:  could not fsync below upload directory/g), '>=', 2,
	'... although the run before has failed for the worker, too');
clear_fault($node);
$node->safe_psql('postgres', 'CALL cleanup_run()');
ok(wait_for_drain($node), 'then all is finished');
like(states(), qr/\bdue1\.mp3 deleted.*\bdue6\.mp3 deleted/, '... and what was due is gone');

$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC:|TRAP:|signal \d+/, 'no process has died');
done_testing();
