# Somebody fills the upload directory with folders, and no file is among them: a
# walk through them can be cancelled, and a shutdown does not wait for it.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use File::Temp qw(tempdir);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

# in memory, where folders are made and removed quickly
my $dir = tempdir('audio_cleanup.XXXXXX', (-w '/dev/shm' ? (DIR => '/dev/shm') : (TMPDIR => 1)), CLEANUP => 1);
my $node = new_server('folders');
make_schema($node);
$node->safe_psql('postgres', "ALTER DATABASE postgres SET audio_cleanup.upload_dir = '$dir'");
add_rows($node, put_files($dir, 'wanted.mp3'));

# duration(SQL): seconds, and what psql says
sub duration
{
	my ($sql) = @_;
	my $began = time;
	my (undef, undef, $stderr) = $node->psql('postgres', $sql);
	return (time - $began, $stderr);
}

# in a thousand folders each a hundred
mkdir "$dir/f" or die $!;
foreach my $i (0 .. 999)
{
	mkdir "$dir/f/$i" or die $!;
	mkdir "$dir/f/$i/$_" or die $! foreach 0 .. 99;
}
my ($whole, $error) = duration('SELECT cleanup_status()');
is($error, '', "a look takes $whole seconds");
my $ms = int(1000 * $whole / 10);
my ($cut, $why) = duration("SET statement_timeout = $ms; SELECT cleanup_status()");
like($why, qr/ERROR:  canceling statement due to statement timeout/, 'it can be cut short');
cmp_ok($cut, '<', $whole / 2, '... at once');

$node->stop;
done_testing();
