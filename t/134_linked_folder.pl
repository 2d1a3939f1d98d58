# A folder was moved, and a symlink or a bind mount leads from its former place to the
# new one: rows refer to its files by the way that still works for the application.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('linked_folder');
my $dir = upload_dir($node);
make_schema($node);
put_files($dir, 'wanted.mp3', 'archive/y2023/abc.mp3', 'archive/y2023/deep/def.mp3', 'archive/y2023/orphan.mp3');
symlink 'archive/y2023', "$dir/2023" or die $!;
add_rows($node, 'wanted.mp3', '2023/abc.mp3', 'https://cdn.example.org/u/2023/deep/def.mp3?x=1');
foreach my $call ('SELECT cleanup_all()', 'CALL cleanup_run()')
{
	put_file($dir, 'archive/y2023/orphan.mp3');
	sql($call);
	ok(wait_for_drain($node), "$call: is done");
	is_deeply([ sort keys %{ visible_files($dir) } ], [qw(archive/y2023/abc.mp3 archive/y2023/deep/def.mp3 wanted.mp3)],
		"$call: what is referred to by the symlink stays, and an orphan goes");
}

# a failed session does not take what a row needs by the symlink
$node->safe_psql('postgres', q{INSERT INTO sessions (audio_url, status, updated_at) VALUES ('archive/y2023/abc.mp3', 'failed', '2024-01-01')});
sql('SELECT cleanup_all()');
ok(wait_for_drain($node), 'a run with a failed session is done');
ok(-e "$dir/archive/y2023/abc.mp3", 'what is referred to by the symlink stays');

# without the symlink, folders must be those of the file
unlink "$dir/2023" or die $!;
sql('SELECT cleanup_all()');
ok(wait_for_drain($node), 'a run without the symlink is done');
is_deeply([ keys %{ visible_files($dir) } ], ['wanted.mp3'], 'and takes what no row refers to any more');

$node->stop;

# ---- a bind mount, which the shim pretends ----

my $number = $node->basedir . '/mounted';
append_to_file($number, '');
{
	local $ENV{LD_PRELOAD} = build_shim('statx_shim');
	local $ENV{SUBVOLUME} = $number;
	$node->start;
}
put_files($dir, 'archive/y2023/abc.mp3', 'archive/y2023/orphan.mp3');
mkdir "$dir/mounted" or die $!;
append_to_file($number, (stat "$dir/mounted")[1] . "\n");
sql('DELETE FROM sessions');
add_rows($node, 'wanted.mp3', 'mounted/abc.mp3');
sql('SELECT cleanup_all()');
ok(wait_for_drain($node), 'a run with a mount is done');
is_deeply([ sort keys %{ visible_files($dir) } ], [qw(archive/y2023/abc.mp3 wanted.mp3)], 'what is referred to by the mount stays');

$node->stop;
done_testing();
