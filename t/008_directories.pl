# An upload directory that is not one, or cannot be read or written: each its
# own error, and nothing is touched.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('directories');
our $dir = upload_dir($node);
make_schema($node);
add_rows($node, 'wanted.mp3');

my $base = $node->basedir . '/places';
mkdir $base or die $!;

sub set_directory
{
	my ($path) = @_;
	$node->safe_psql('postgres', "ALTER DATABASE postgres SET audio_cleanup.upload_dir = '$path'");
	return;
}

# A dry run reports what a real run raises, and both leave everything alone.
sub refused
{
	my ($name, $path, $state, $message, $hint) = @_;
	my ($rc, $stdout, $stderr, $answer, $before);

	set_directory($path);
	$before = -d $dir ? visible_files($dir) : {};
	foreach my $statement ('SELECT cleanup_all(force => true)', 'SELECT cleanup_orphaned_files()',
		'SELECT cleanup_failed_sessions()', 'CALL cleanup_run()')
	{
		($rc, $stdout, $stderr) = $node->psql('postgres', "\\set VERBOSITY verbose\n$statement");
		isnt($rc, 0, "$name: $statement is refused");
		like($stderr, qr/ERROR:  $state: .*$message/, "$name: with its own error");
		like($stderr, qr/HINT:  .*$hint/, "$name: and a hint");
	}
	$answer = sql_json($node, 'SELECT cleanup_status()');
	ok(!$answer->{success}, "$name: cleanup_status() answers, without success");
	like($answer->{potential_cleanup}{errors}[0] // '', $message, "$name: with the same error");
	is($answer->{potential_cleanup}{orphaned_files_count}, 0, "$name: and no orphans");
	isnt($node->safe_psql('postgres', q{SELECT count(*) FROM cleanup_check() WHERE status = 'error'}), 0,
		"$name: cleanup_check() finds it");
	is_deeply(-d $dir ? visible_files($dir) : {}, $before, "$name: nothing was touched");
	is($node->safe_psql('postgres', q{SELECT count(*) FROM cleanup_runs WHERE status <> 'blocked' OR message IS NULL OR files > 0}), 0,
		"$name: on record is only that it was refused");
	return;
}

$dir = "$base/dir";
put_file($dir, 'wanted.mp3');
put_file($dir, 'orphan.mp3');
put_file($dir, 'sub/orphan.mp3');

refused('missing', "$base/missing", '58P01', qr/upload directory "\Q$base\E\/missing" does not exist/, 'upload_dir');
append_to_file("$base/file", "I am a file\n");
refused('a file', "$base/file", '42809', qr/upload directory "\Q$base\E\/file" is not a directory/, 'upload_dir');
symlink "$base/nowhere", "$base/dangling" or die $!;
refused('a dangling link', "$base/dangling", '58P01', qr/does not exist/, 'upload_dir');

chmod 0000, $dir or die $!;
{
	# what is in it cannot be looked at now
	local $dir = "$base/none";
	refused('unreadable', "$base/dir", '42501', qr/could not open upload directory "\Q$base\E\/dir": Permission denied/, 'permission');
}
chmod 0555, $dir or die $!;
refused('not writable', $dir, '42501', qr/could not write to upload directory "\Q$dir\E": Permission denied/, 'permission');
chmod 0755, $dir or die $!;

chmod 0000, "$dir/sub" or die $!;
{
	local $dir = "$base/none";
	refused('unreadable subdirectory', "$base/dir", '42501', qr/could not open directory "\Q$base\E\/dir\/sub": Permission denied/, 'permission');
}
chmod 0755, "$dir/sub" or die $!;

chmod 0000, $base or die $!;
{
	local $dir = $node->basedir . '/none';
	refused('unreachable', "$base/dir", '42501', qr/Permission denied/, 'permission');
}
chmod 0755, $base or die $!;

my $data = $node->data_dir;
refused('the data directory', $data, '22023', qr/not a place to clean/, 'upload_dir');
refused("PostgreSQL's own", "$data/base", '22023', qr/not a place to clean/, 'upload_dir');
refused('the root', '/', '22023', qr/not a place to clean/, 'upload_dir');
refused('above the data directory', $node->basedir, '22023', qr/not a place to clean/, 'upload_dir');
symlink "$data/pg_wal", "$base/wal" or die $!;
refused('a link to PostgreSQL', "$base/wal", '22023', qr/not a place to clean/, 'upload_dir');

# ---- what works ----

symlink $dir, "$base/link" or die $!;
set_directory("$base/link");
$node->safe_psql('postgres', 'SELECT cleanup_all()');
ok(wait_for_drain($node), 'a link to a directory will do');
is_deeply([ keys %{ visible_files($dir) } ], ['wanted.mp3'], 'the orphans are gone');
ok(-l "$base/link", 'the link is still one');

# below the data directory, by a relative path
put_file("$data/uploads/audio", $_) foreach 'wanted.mp3', 'orphan.mp3';
set_directory('uploads/audio');
$node->safe_psql('postgres', 'SELECT cleanup_all()');
ok(wait_for_drain($node), 'so will a relative path');
is_deeply([ keys %{ visible_files("$data/uploads/audio") } ], ['wanted.mp3'], 'it is one of the data directory');

# it goes away between commit and drain: said, and finished when it is back
$node->safe_psql('postgres', 'ALTER DATABASE postgres SET audio_cleanup.backup_retention_days = 1');
put_file("$data/uploads/audio", 'backup.mp3');
$node->safe_psql('postgres', 'CALL cleanup_run()');
is($node->safe_psql('postgres', q{SELECT state FROM cleanup_files WHERE file = 'backup.mp3'}), 'trashed', 'a backup');
rename "$data/uploads/audio", "$data/uploads/elsewhere" or die $!;
$node->safe_psql('postgres', 'UPDATE cleanup_files SET due_at = now()');
set_directory($dir);
my ($rc, $stdout, $stderr) = $node->psql('postgres', 'CALL cleanup_run()');
is($rc, 0, 'another directory is not held up by one that is gone');
like($stderr, qr/WARNING:  run \d+ is left unfinished/, 'but it is said');
is($node->safe_psql('postgres', q{SELECT state FROM cleanup_files WHERE file = 'backup.mp3'}), 'trashed', 'nothing is claimed to be deleted');
rename "$data/uploads/elsewhere", "$data/uploads/audio" or die $!;
$node->safe_psql('postgres', 'CALL cleanup_run()');
is($node->safe_psql('postgres', q{SELECT state FROM cleanup_files WHERE file = 'backup.mp3'}), 'deleted', 'when it is back it is finished');
is_deeply(trashed_files("$data/uploads/audio"), {}, 'on disk too');

$node->stop;
is(log_lines($node, qr/PANIC:|signal \d+/), '', 'no process has died');
done_testing();
