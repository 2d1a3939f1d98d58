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

# each look at the trash: the times of its beginning and its end, and the files that are left
my @looks = ([ time, time, $n ]);
sql('SELECT cleanup_all(force => true)');
is_deeply([ glob "$dir/orphan*" ], [], 'all files are in the trash');

ok(wait_until(sub {
			my $before = time;
			my $left = keys %{ trashed_files($dir) };
			push @looks, [ $before, time, $left ];
			return $left == 0;
		}), '... and are deleted') or diag("$looks[-1][2] files are left");
ok(wait_for_drain($node), 'the run is over');
is(sql('SELECT max(deleted) FROM cleanup_runs'), $n, '... and has deleted them');

# A portion of 20 files has half a second, three quarters of it between its files.  On a busy machine files may be late,
# but none is early: what counts is the time since all were there.
my $began = (grep { $_->[2] == $n } @looks)[-1]->[0];
my @bursts;
foreach my $look (grep { $_->[2] < $n } @looks) {
	my ($gone, $seconds) = ($n - $look->[2], $look->[1] - $began);
	push @bursts, sprintf('%d files in %.3f s', $gone, $seconds) if $gone > 40 * 4 / 3 * $seconds + 10;
}
is_deeply(\@bursts, [], 'no more files than the pace allows until then');
is_deeply([ sort keys %{ visible_files($dir) } ], [ sort keys %wanted ], 'nothing else has gone');

# a caller who wants the directory meanwhile gets it
put_file($dir, "more$_.mp3") foreach 1 .. $n;
sql('SELECT cleanup_all(force => true)');
put_file($dir, 'next.mp3');
ok(wait_until(sub { sql(q{SELECT cleanup_all(force => true) ->> 'success'}) eq 'true' }), 'another call succeeds');
ok(wait_for_drain($node), 'both runs come to their ends');
is_deeply([ sort keys %{ visible_files($dir) } ], [ sort keys %wanted ], '... and nothing else has gone');
done_testing();
