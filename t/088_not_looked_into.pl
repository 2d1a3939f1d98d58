# What lies behind a symlink, on another file system or in another subvolume is
# not looked into, cleanup_explain() and cleanup_missing_files() say why, and
# no run takes it.  A file system that is mounted read-only is called that.
#
# Needs: a small file system, which script/test mounts.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use File::Basename qw(dirname);
use PostgreSQL::Test::Utils;
use Test::More;

my $disk = $ENV{AUDIO_CLEANUP_SMALL_DISK};
my $node = new_server('elsewhere', start => 0);
my $dir = $disk ? dirname($disk) : upload_dir($node);
my $number = $node->basedir . '/subvolume';
{
	local $ENV{LD_PRELOAD} = build_shim('statx_shim');
	local $ENV{SUBVOLUME} = $number;
	$node->append_conf('postgresql.conf', "audio_cleanup.upload_dir = '$dir'\n");
	$node->start;
}
make_schema($node);

my %reason = (linked => 'symlinks are not followed', subvolume => 'it is in another subvolume of the file system');
$reason{small_disk} = 'another file system is mounted there' if $disk;
my @places = sort keys %reason;

put_files($dir, 'wanted.mp3', 'real/orphan.mp3', map { "$_/there.mp3" } grep { $_ ne 'linked' } @places);
symlink 'real', "$dir/linked" or die $!;
put_file($dir, 'linked/there.mp3');
append_to_file($number, (stat "$dir/subvolume")[1] . "\n");
add_rows($node, 'wanted.mp3');

foreach my $place (@places)
{
	my $answer = sql_json($node, "SELECT cleanup_explain('$place/there.mp3')");

	is($answer->{verdict}, 'kept', "$place: a file in it is kept");
	is($answer->{reason}, qq{"$place" is not looked into: $reason{$place}}, "$place: and why");
}
is(sql_json($node, q{SELECT cleanup_explain('real/orphan.mp3')})->{verdict}, 'condemned', 'a plain folder is looked into');

# ---- a row that refers to it ----

add_rows($node, map { "$_/none.mp3" } 'real', @places);
is($node->safe_psql('postgres', q{SELECT missing FROM cleanup_missing_files()}), 1 + @places, 'files in such places are missing');
foreach my $place (@places)
{
	$node->safe_psql('postgres', 'DELETE FROM sessions');
	add_rows($node, "https://cdn.example.org/u/$place/none.mp3");
	is($node->safe_psql('postgres', 'SELECT examples[1] FROM cleanup_missing_files()'),
		"https://cdn.example.org/u/$place/none.mp3 (not looked into: $reason{$place})", "$place: the example says why");
}
$node->safe_psql('postgres', 'DELETE FROM sessions');
add_rows($node, 'real/none.mp3', 'wanted.mp3');
is($node->safe_psql('postgres', 'SELECT examples FROM cleanup_missing_files()'), '{real/none.mp3}', 'in a plain folder there is nothing to say');

# ---- a run takes nothing of it ----

is(sql_json($node, 'SELECT cleanup_all()')->{result}{orphaned_files_count}, 2, 'a run takes what it has looked at');
ok(wait_for_drain($node), 'to its end');
ok(!-e "$dir/real/orphan.mp3" && !-e "$dir/real/there.mp3", 'which is the plain folder, that the symlink leads to');
ok(-e "$dir/$_/there.mp3", "$_: the file is there") foreach grep { $_ ne 'linked' } @places;

# ---- read-only ----

SKIP:
{
	skip 'mounting a file system is not permitted here', 8 unless $disk;

	my $read_only = "$disk.read_only/uploads";
	put_files($disk, 'uploads/wanted.mp3', 'uploads/orphan.mp3');
	my $set = "SET audio_cleanup.upload_dir = '$read_only'";
	foreach my $call ('SELECT cleanup_all()', 'CALL cleanup_run()', 'SELECT cleanup_claim_upload_dir()')
	{
		my ($rc, $stdout, $stderr) = $node->psql('postgres', "\\set VERBOSITY verbose\n$set;\n$call");
		like($stderr, qr/ERROR:  42501: could not write to upload directory "\Q$read_only\E": Read-only file system\n.*HINT:  Its file system is mounted read-only/s,
			"$call: a read-only file system is called that");
	}
	my $answer = sql_json($node, "$set; SELECT cleanup_all(true)");
	is_deeply($answer->{blocked_by}, ['upload_dir'], 'a preview names the brake');
	like($answer->{result}{errors}[0], qr/Read-only file system/, 'and why');
	like($node->safe_psql('postgres', "$set; SELECT hint FROM cleanup_check() WHERE check_name = 'upload_dir'"),
		qr/mounted read-only/, 'and so does cleanup_check()');
	ok(-e "$disk/uploads/orphan.mp3", 'nothing was touched');
	is(sql_json($node, q{SELECT cleanup_explain('small_disk.read_only/uploads/wanted.mp3')})->{reason},
		'"small_disk.read_only" is not looked into: another file system is mounted there', 'a file on it is not looked into');
}

$node->stop;
is(log_lines($node, qr/PANIC:|TRAP:|signal \d+/), '', 'no process has died');
done_testing();
