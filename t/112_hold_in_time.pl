# A hold is valid from its COMMIT on: it is committed before the files that are
# to be destroyed are read, or after they are gone, and never in between.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

# without a worker, the next call destroys what a call has captured
my $node = new_server('hold_in_time', conf => <<'END');
max_worker_processes = 0
max_prepared_transactions = 2
audio_cleanup.max_delete_percent = 100
audio_cleanup.writer_wait = 100ms
END
my $dir = upload_dir($node);
make_schema($node);
add_rows($node, put_files($dir, 'wanted.mp3'));

my $waiting = q{SELECT count(*) FROM pg_locks WHERE NOT granted AND classid = 'pg_extension'::regclass};
my $round = 0;

sub is_trashed
{
	my ($file) = @_;
	return scalar grep { $_ eq $file } keys %{ trashed_files($dir) };
}

sub captured_file
{
	my $file = 'orphan' . $round++ . '.mp3';

	put_files($dir, $file);
	$node->psql('postgres', 'SELECT cleanup_all()');
	is(is_trashed($file), 1, "$file is in the trash");
	return $file;
}

# ---- the files are read, and then somebody makes a hold ----

foreach my $end ('COMMIT', 'ROLLBACK')
{
	my $file = captured_file();
	my $cleaner = $node->background_psql('postgres', on_error_stop => 0);
	my $holder = $node->background_psql('postgres', on_error_stop => 0);

	$cleaner->query('BEGIN');
	$cleaner->query('SELECT cleanup_all()');
	$holder->query_until(qr/asked/, "\\echo asked\nSELECT cleanup_hold('$file', 'in time');\n");
	ok(wait_until(sub { $node->safe_psql('postgres', $waiting) == 1 }), "$end: the hold waits");
	is($node->safe_psql('postgres', "SELECT count(*) FROM cleanup_holds WHERE file = '$file'"), 0, "$end: and is not made yet");
	$cleaner->query($end);
	ok(wait_until(sub { $node->safe_psql('postgres', "SELECT count(*) FROM cleanup_holds WHERE file = '$file'") == 1 }),
		"$end: then the hold is made");
	$holder->query('SELECT 1');
	like($holder->{stderr}, qr/NOTICE:.*there is no file "\Q$file\E"/, "$end: and says that the file is not there");
	is(is_trashed($file), $end eq 'COMMIT' ? 0 : 1, "$end: it is " . ($end eq 'COMMIT' ? 'gone' : 'in the trash'));
	$_->quit foreach $cleaner, $holder;
	next if $end eq 'COMMIT';
	$node->psql('postgres', 'CALL cleanup_run()');
	ok(exists visible_files($dir)->{$file}, "$end: a held file comes back");
}

# ---- a purge and a hold in one transaction ----

{
	put_files($dir, 'backup.mp3');
	$node->safe_psql('postgres', q{SET audio_cleanup.backup_retention_days = 1; SELECT cleanup_all()});
	$node->safe_psql('postgres', 'CALL cleanup_run()');
	$node->safe_psql('postgres', q{UPDATE cleanup_files SET due_at = condemned_at WHERE file = 'backup.mp3'});
	my ($rc, $stdout, $stderr) = $node->psql('postgres', q{BEGIN; SELECT cleanup_purge_backups(); SELECT cleanup_hold('backup.mp3'); COMMIT});
	like($stderr, qr/the commit of this transaction will purge the backup of file "backup\.mp3"/, 'a hold after the purge is refused');
	is(is_trashed('backup.mp3'), 1, 'and the backup stays');
	$node->psql('postgres', q{BEGIN; SELECT cleanup_hold('backup.mp3'); SELECT cleanup_purge_backups(); COMMIT});
	$node->psql('postgres', 'CALL cleanup_run()');
	ok(exists visible_files($dir)->{'backup.mp3'}, 'before the purge, it brings the file back');
}

# ---- somebody makes a hold, and then the files are to be destroyed ----

foreach my $way ('open', 'prepared')
{
	my $file = captured_file();
	my $holder = $node->background_psql('postgres');

	$holder->query("BEGIN; SELECT cleanup_hold('$file', 'in time')");
	$holder->query("PREPARE TRANSACTION 'held'") if $way eq 'prepared';
	my ($rc, $stdout, $stderr) = $node->psql('postgres', 'CALL cleanup_run()');
	like($stderr, qr/writes to "cleanup_holds"/, "$way: a run says for whom it has waited");
	is(is_trashed($file), 1, "$way: the file is not destroyed");
	$holder->query($way eq 'prepared' ? "COMMIT PREPARED 'held'" : 'COMMIT');
	$node->psql('postgres', 'CALL cleanup_run()');
	ok(exists visible_files($dir)->{$file}, "$way: it is back after the COMMIT");
	$holder->quit;
}

# ---- who cleans and holds in one transaction does not wait for himself ----

my $file = captured_file();
my ($rc) = $node->psql('postgres', "BEGIN; SELECT cleanup_hold('other.mp3'); SELECT cleanup_all(); SELECT cleanup_hold('third.mp3'); COMMIT");
is($rc, 0, 'a transaction cleans and holds');
is(is_trashed($file), 0, 'and the file of the earlier run is gone');
is($node->safe_psql('postgres', "SELECT count(*) FROM cleanup_holds WHERE file IN ('other.mp3', 'third.mp3')"), 2, 'both holds are made');
$node->stop;
done_testing();
