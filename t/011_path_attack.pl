# Somebody with rights in the upload directory plays with names while runs go
# on: whatever he does, files outside are not his to delete.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use Fcntl qw(O_CREAT O_NONBLOCK O_NOFOLLOW O_WRONLY);
use File::Path qw(make_path);
use POSIX qw(_exit mkfifo);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep time);

# So long, and then until what is to be proven has happened, but no longer than the patience of all tests.
my $seconds = 12;
my $patience = $ENV{PG_TEST_TIMEOUT_DEFAULT} || 180;

my $node = new_server('attack', conf => "audio_cleanup.orphaned_file_retention_hours = 0\nlog_statement = none\n");
my $dir = upload_dir($node);
my $canary = $node->basedir . '/canary';
make_schema($node);

# ---- what must not change ----

my @names = ('a.mp3', 'b.mp3', 'sub/a.mp3', 'sub/b.mp3', 'sub/deep/a.mp3');
foreach my $name (@names)
{
	put_file($canary, $name);
	put_file("$canary/linked", $name =~ s{/}{_}gr);
}
my $before = visible_files($canary);
my %wanted = map { $_ => put_file($dir, $_) } 'wanted.mp3', 'deep/er/wanted.mp3';
add_rows($node, keys %wanted);
$node->safe_psql('postgres', 'SELECT cleanup_all()');
ok(wait_for_drain($node), 'the directory is claimed');

# ---- the attacker ----

# Never by a symlink into the canary, and never waiting at a fifo.
sub make_bait
{
	my ($path) = @_;
	sysopen(my $handle, $path, O_WRONLY | O_CREAT | O_NONBLOCK | O_NOFOLLOW) or return 0;
	syswrite $handle, 'bait' unless -s $handle;
	close $handle;
	return 1;
}

# One trick at random; nothing of it has to succeed.  He does no harm to the
# canary himself: where a symlink leads there, all he does is to take it away.
sub play
{
	my ($who) = @_;
	my $top = "$dir/top$who" . int rand 2;
	my $sub = "$top/sub";
	my $file = "$sub/" . ('a.mp3', 'b.mp3')[ rand 2 ];

	if (-l $top || -l $sub)
	{
		my $link = -l $top ? $top : $sub;
		return if rand() < 0.7;
		unlink $link;
		rename "$link.away", $link;
		return;
	}
	eval { make_path($sub); };
	-e "$sub/$_" || make_bait("$sub/$_.$$") && rename "$sub/$_.$$", "$sub/$_"
	  foreach 'a.mp3', 'b.mp3', map { "bait$_.mp3" } 1 .. 8;

	my @tricks = (
		# a directory becomes a symlink to one outside
		sub { rename $sub, "$sub.away"; symlink "$canary/sub", $sub; },
		sub { rename $top, "$top.away"; symlink $canary, $top; },
		# a file becomes a symlink, a fifo, a directory, another file
		sub { symlink "$canary/a.mp3", "$file.new"; rename "$file.new", $file; },
		sub { unlink $file; mkfifo($file, 0600); },
		sub { unlink $file; mkdir $file; },
		sub { rmdir $file; },
		sub { make_bait("$file.new"); rename "$file.new", $file; },
		# hard links to what is outside
		sub { link "$canary/linked/a.mp3", $file; },
		sub { unlink $file; link "$canary/linked/b.mp3", $file; },
		# parents change their names
		sub { rename $sub, "$top/other"; rename "$top/other", $sub; },
		sub { rename $top, "$dir/elsewhere$who"; rename "$dir/elsewhere$who", $top; },
		# the way out by the trash
		sub { symlink $canary, "$dir/.audio_cleanup/trash"; },
		sub { rename "$dir/.audio_cleanup/trash", "$dir/.audio_cleanup/gone$who"; symlink $canary, "$dir/.audio_cleanup/trash"; },
		sub { unlink "$dir/.audio_cleanup/trash" if -l "$dir/.audio_cleanup/trash"; });
	$tricks[ rand @tricks ]->();
	return;
}

my $begin = time;
my $until = $begin + $seconds;
my $over = $node->basedir . '/over';
my @attackers;
foreach my $i (1 .. 2)
{
	my $pid = fork;
	die "could not fork: $!" unless defined $pid;
	if (!$pid)
	{
		srand($i);
		alarm $patience * 4;
		my $tricks = 0;
		no warnings;
		while (!-e $over)
		{
			play($i);
			$tricks++;
			usleep(rand 2000);
		}
		_exit($tricks > 100 ? 0 : 1);
	}
	push @attackers, $pid;
}

# ---- the runs ----

my %runs = (succeeded => 0, refused => 0, hung => 0);
my %errors;

# Enough has happened to prove something, or it never will.
sub enough
{
	return 1 if time > $begin + $patience;
	return time >= $until && $runs{succeeded} > 20 &&
	  $node->safe_psql('postgres', q{SELECT count(*) > 20 FROM cleanup_files WHERE state = 'deleted'}) eq 't';
}

while (!enough())
{
	my $timed_out = 0;
	my ($rc, $stdout, $stderr) = $node->psql('postgres',
		(rand() < 0.7 ? 'SELECT cleanup_all(force => true)' : 'CALL cleanup_run(force => true)'),
		timeout => $patience, timed_out => \$timed_out);
	$runs{ $timed_out ? 'hung' : $rc ? 'refused' : 'succeeded' }++;
	$errors{$1}++ while ($stderr // '') =~ /ERROR:  (.*)/g;
}
append_to_file($over, '');
foreach my $pid (@attackers)
{
	waitpid $pid, 0;
	is($?, 0, 'an attacker has played more than a hundred tricks');
}
note("runs: $_ $runs{$_}") foreach sort keys %runs;
note("error: $_ ($errors{$_})") foreach sort keys %errors;

cmp_ok($runs{succeeded}, '>', 20, 'many runs went on meanwhile');
is($runs{hung}, 0, 'none of them hung');
is_deeply(visible_files($canary), $before, 'no file outside was changed, removed or added');
is_deeply([ sort keys %{ trashed_files($canary) } ], [], 'nothing was captured there');
ok(!-e "$canary/.audio_cleanup" && !glob("$canary/[0-9]*"), 'nor any folder made');
is_deeply({ map { $_ => read_file("$dir/$_") } keys %wanted }, \%wanted, 'what is wanted is in its place');
cmp_ok($node->safe_psql('postgres', q{SELECT count(*) FROM cleanup_files WHERE state = 'deleted'}), '>', 20,
	'and bait was deleted');

# ---- when he has gone ----

unlink "$dir/.audio_cleanup/trash" if -l "$dir/.audio_cleanup/trash";
my ($rc, $stdout, $stderr) = $node->psql('postgres', 'CALL cleanup_run(force => true)');
is($rc, 0, 'then all goes its usual way');
is($node->safe_psql('postgres', q{SELECT count(*) FROM cleanup_files WHERE state IN ('pending')}), 0, 'no row is stuck');
is($node->safe_psql('postgres', q{SELECT count(*) FROM (SELECT 1 FROM cleanup_files
	WHERE state = 'deleted' GROUP BY run_id, file HAVING count(*) > 1) t(i)}) // '', 0, 'no file was deleted twice');
is_deeply(visible_files($canary), $before, 'outside all is as it was');

$node->stop;
is(log_lines($node, qr/PANIC:|signal \d+|TRAP:/), '', 'no process has died');
done_testing();
