# Under a pace files go one after the other, with rests between them: never many at once.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use Test::More;
use Time::HiRes qw(time);

my $node = new_server('even_pace', conf => "audio_cleanup.max_delete_percent = 100\naudio_cleanup.files_per_second = 40\n");
my $dir = upload_dir($node);
my %wanted = %{ claim_directory($node, 'keep.mp3') };
my $n = 100;

put_file($dir, "orphan$_.mp3") foreach 1 .. $n;

# a portion of 20 files has half a second, three quarters of it between its files
my $since = time;
sql('SELECT cleanup_all(force => true)');
is_deeply([ glob "$dir/orphan*" ], [], 'all files are in the trash');
is_deeply(deleted_early($dir, files => $n, since => $since, until => $n, per_second => 40, at_once => 10),
	[], '... and are deleted, no more of them than the pace allows until then');
ok(wait_for_drain($node), 'the run is over');
is(sql('SELECT max(deleted) FROM cleanup_runs'), $n, '... and has deleted them');
is_deeply([ sort keys %{ visible_files($dir) } ], [ sort keys %wanted ], 'nothing else has gone');

# a caller who wants the directory meanwhile gets it
put_file($dir, "more$_.mp3") foreach 1 .. $n;
sql('SELECT cleanup_all(force => true)');
put_file($dir, 'next.mp3');
ok(wait_until(sub { sql(q{SELECT cleanup_all(force => true) ->> 'success'}) eq 'true' }), 'another call succeeds');
ok(wait_for_drain($node), 'both runs come to their ends');
is_deeply([ sort keys %{ visible_files($dir) } ], [ sort keys %wanted ], '... and nothing else has gone');
done_testing();
