# What a failed session takes with it, and what it does not.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('failed');
my $dir = upload_dir($node);
make_schema($node);
my %wanted = ('keep.mp3' => put_file($dir, 'keep.mp3'));
add_rows($node, 'keep.mp3');

sub add_failed
{
	my ($file, $days) = @_;
	$node->safe_psql('postgres', qq{
		INSERT INTO sessions (audio_url, status, updated_at)
		VALUES ('$file', 'failed', (now() AT TIME ZONE 'UTC') - interval '$days days')});
	return;
}

# ---- a reference with a directory names that file, and not its namesake at the top ----

put_file($dir, 'archive/recording.mp3');
$wanted{'recording.mp3'} = put_file($dir, 'recording.mp3', hours => 0);
add_failed('archive/recording.mp3', 30);
$node->safe_psql('postgres', 'SELECT cleanup_all(force => true)');
ok(wait_for_drain($node), 'a run is done');
is_deeply(visible_files($dir), \%wanted, 'a failed session does not take an upload of this minute with it');

# ---- the run's own retention holds to the end ----

put_file($dir, 'yesterday.mp3');
add_failed('yesterday.mp3', 2);
$node->safe_psql('postgres', q{SET audio_cleanup.failed_session_retention_days = 1; SELECT cleanup_all(force => true)});
ok(wait_for_drain($node), 'a run with another retention is done');
is($node->safe_psql('postgres', q{SELECT state FROM cleanup_files WHERE file = 'yesterday.mp3'}), 'deleted',
	'the drain judges by the settings of the run');
is_deeply(visible_files($dir), \%wanted, 'and the file is gone');

$node->stop;
done_testing();
