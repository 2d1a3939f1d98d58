# No background worker can be had: the files leave the directory all the same,
# the caller is told, and the next calls do what the worker would have done.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('no_worker', conf => "max_worker_processes = 0\n");
my $dir = upload_dir($node);
make_schema($node);

my %wanted = map { $_ => put_file($dir, $_) } map { "wanted$_.mp3" } 1 .. 3;
my %unwanted = map { $_ => put_file($dir, $_) } map { "orphan$_.mp3" } 1 .. 4;
my %files = (wanted => \%wanted, unwanted => \%unwanted);
add_rows($node, keys %wanted);

my ($rc, $stdout, $stderr) = $node->psql('postgres', 'SELECT cleanup_all()');
is($rc, 0, 'the run succeeds');
like($stderr, qr/WARNING:  no background worker is free/, 'it warns');
like($stderr, qr/HINT:.*max_worker_processes/, 'and says what to do');
is_deeply(visible_files($dir), \%wanted, 'the files are out of the directory');
is(scalar keys %{ trashed_files($dir) }, 4, 'they are in the trash');
is_deeply(violations($node, $dir, \%files), [], 'and every one is accounted for');

$node->psql('postgres', 'SELECT cleanup_all()');
is_deeply(trashed_files($dir), {}, 'the next call gives their space back');
is_deeply(violations($node, $dir, \%files), [], 'every file is accounted for');

$node->psql('postgres', 'SELECT cleanup_all()');
is_deeply(violations($node, $dir, { %files, final => 1 }), [], 'the one after that has all recorded');
is($node->safe_psql('postgres', 'SELECT state, count(*), sum(freed) > 0 FROM cleanup_files GROUP BY state'),
	'deleted|4|t', 'with the space that was freed');

# ---- a call that is rolled back has drained nothing ----

%unwanted = map { $_ => put_file($dir, $_) } map { "second$_.mp3" } 1 .. 4;
$node->psql('postgres', 'SELECT cleanup_all()');
$node->psql('postgres', 'BEGIN; SELECT cleanup_all(); ROLLBACK');
is(scalar keys %{ trashed_files($dir) }, 4, 'a call that is rolled back destroys nothing');
is_deeply(violations($node, $dir, \%files), [], 'every file is accounted for');

# ---- cleanup_run() needs no worker ----

%unwanted = (%unwanted, map { $_ => put_file($dir, $_) } map { "third$_.mp3" } 1 .. 4);
($rc, $stdout, $stderr) = $node->psql('postgres', 'CALL cleanup_run()');
is($stderr, '', 'cleanup_run() does not warn');
is_deeply(violations($node, $dir, { %files, final => 1 }), [], 'and leaves nothing undone, of earlier runs either');
is_deeply(visible_files($dir), \%wanted, 'what is wanted is there');

# ---- who began earlier knows what is due all the same ----

%unwanted = map { $_ => put_file($dir, $_) } map { "fourth$_.mp3" } 1 .. 4;
my $early = begin_session($node, 'SELECT now()');
$node->psql('postgres', 'SELECT cleanup_all()');
$early->query('SELECT cleanup_all(); COMMIT;');
$early->quit;
is_deeply(trashed_files($dir), {}, 'a transaction that began before the run finds its files due');
$node->psql('postgres', 'CALL cleanup_run()');
is_deeply(violations($node, $dir, { %files, unwanted => \%unwanted, final => 1 }), [], 'all is well');
is($node->safe_psql('postgres', q{
	SELECT count(*) FROM cleanup_runs r WHERE r.deleted <>
	(SELECT count(*) FROM cleanup_files f WHERE f.run_id = r.run_id AND f.state = 'deleted')}), 0,
	'the figures of the runs are right');

# ---- ten thousand at a time ----

put_files($dir, map { sprintf 'many/%05d.mp3', $_ } 1 .. 10_100);
$node->psql('postgres', 'SELECT cleanup_all(force => true)');
is(scalar keys %{ visible_files("$dir/many") }, 100, 'of very many files, what is beyond ten thousand is left for later');
$node->psql('postgres', 'CALL cleanup_run()');
is_deeply(violations($node, $dir, { wanted => \%wanted, final => 1 }), [], 'and dealt with by the next call');
is_deeply(visible_files($dir), \%wanted, 'only what is wanted is left');

$node->stop;
done_testing();
