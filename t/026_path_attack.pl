# For a minute somebody who owns the upload directory does what he can while
# runs of every kind go on: directories become symlinks to the outside, files
# become symlinks, FIFOs and hard links, parents change their names.  Canaries
# outside keep their content, inode and mtime; nothing hangs.
#
# Alone: the attackers take all of the processor that they can get.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use Fcntl qw(O_CREAT O_EXCL O_NOFOLLOW O_NONBLOCK O_RDONLY O_WRONLY);
use File::Find qw(find);
use POSIX qw(_exit mkfifo);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

# So long, and then until what is to be proven has happened, but no longer than the patience of all tests.
my $seconds = $ENV{PATH_ATTACK_SECONDS} || 60;
my $patience = $seconds + ($ENV{PG_TEST_TIMEOUT_DEFAULT} || 180);
my $often = 2;
my $much = 50;

my $node = new_server('path_attack', conf => <<'END');
audio_cleanup.orphaned_file_retention_hours = 0
log_statement = none
statement_timeout = '100s'
END
my $dir = upload_dir($node);
my $outside = $node->basedir . '/outside';
make_schema($node);

# ---- canaries ----

my @below = ('a.mp3', 'b.mp3', 'sub/a.mp3', 'sub/b.mp3', 'sub/deep/a.mp3', 'sub/deep/b.mp3');
put_file($outside, $_) foreach @below, map { "linked/$_.mp3" } 1 .. 4;
# directories that look like those of a trash, for one that is led astray
put_file($outside, "trash/$_/top0/sub/a.mp3") foreach 1 .. 5;

# path => content, inode, mtime; anything that is new shows too
sub outside
{
	my %seen;
	find({ no_chdir => 1, wanted => sub {
		my @stat = lstat $_;
		my $path = substr $_, length $outside;
		return if $path eq '';
		$seen{$path} = -d _ ? 'directory ' . $stat[1] : join ' ', $stat[1], $stat[9], $stat[7], read_file($_);
	} }, $outside);
	return \%seen;
}

my $canaries = outside();
is(scalar keys %$canaries, 15 + 4 + 5 * 3, 'the canaries are in their places');
my %wanted = map { $_ => put_file($dir, $_) } 'wanted.mp3', 'safe/deep/wanted.mp3', 'safe/2024/05/wanted.mp3';
add_rows($node, keys %wanted);
put_files($dir, 'orphan.mp3');
$node->safe_psql('postgres', 'SELECT cleanup_all()');
ok(wait_for_drain($node), 'the directory is claimed');

# ---- the attacker ----

# He and the server are one OS user here, so he must take care himself not to
# touch what is outside: he enters a directory, looks that it is not one of
# them, and uses names without a slash.
my %forbidden = map { $_ => 1 } map { join ':', (stat)[0, 1] } $outside, map { "$outside$_" }
  grep { $canaries->{$_} =~ /^directory/ } keys %$canaries;

# Do it in that directory; true if it was done.
sub in
{
	my ($path, $trick) = @_;
	my $done = chdir($path) && !$forbidden{ join ':', (stat '.')[0, 1] } && $trick->();
	chdir '/';
	return $done;
}

sub lay
{
	my ($name) = @_;
	sysopen(my $handle, $name, O_WRONLY | O_CREAT | O_EXCL) or return 0;
	return syswrite $handle, 'bait';
}

my $attic = $node->basedir . '/attic';
my $n = 0;
mkdir $attic or die $!;

# What an earlier trick has left is carried to the attic; false if it cannot be.
sub clear
{
	my ($name) = @_;
	return 1 unless -l $name || -e _;
	return rename $name, "$attic/$$." . $n++;
}

# Each is called with a parent, a directory, the path of one with files, and the name of a file.
my %tricks = (
	'directory to symlink' => sub { my ($top) = @_; in($top, sub { clear('sub.away') && rename('sub', 'sub.away') && symlink "$outside/sub", 'sub' }) },
	'symlink to directory' => sub { my ($top) = @_; in($top, sub { -l 'sub' && unlink('sub') && rename 'sub.away', 'sub' }) },
	'parent to symlink' => sub { my $top = 'top' . int rand 3; in($dir, sub { clear("$top.away") && rename($top, "$top.away") && symlink $outside, $top }) },
	'symlink to parent' => sub { my $top = 'top' . int rand 3; in($dir, sub { -l $top && unlink($top) && rename "$top.away", $top }) },
	'deep directory to symlink' => sub { my ($top, $sub) = @_; in($sub, sub { clear('deep.away') && rename('deep', 'deep.away') && symlink '../../../outside/sub/deep', 'deep' }) },
	'symlink to deep directory' => sub { my ($top, $sub) = @_; in($sub, sub { -l 'deep' && unlink('deep') && rename 'deep.away', 'deep' }) },
	'file to symlink' => sub { my ($top, $sub, $leaf, $file) = @_; in($leaf, sub { clear("$file.new") && symlink("$outside/a.mp3", "$file.new") && rename "$file.new", $file }) },
	'file to symlink to wanted' => sub { my ($top, $sub, $leaf, $file) = @_; in($leaf, sub { clear("$file.new") && symlink("$dir/wanted.mp3", "$file.new") && rename "$file.new", $file }) },
	'file to FIFO' => sub { my ($top, $sub, $leaf, $file) = @_; in($leaf, sub { clear("$file.new") && mkfifo("$file.new", 0600) && rename "$file.new", $file }) },
	'file to directory' => sub { my ($top, $sub, $leaf, $file) = @_; in($leaf, sub { clear($file) && mkdir $file }) },
	'directory to file' => sub { my ($top, $sub, $leaf, $file) = @_; in($leaf, sub { -d $file && clear($file) && lay($file) }) },
	'file to another file' => sub { my ($top, $sub, $leaf, $file) = @_; in($leaf, sub { clear("$file.new") && lay("$file.new") && rename "$file.new", $file }) },
	'file to hard link to a canary' => sub { my ($top, $sub, $leaf, $file) = @_;
		in($leaf, sub { clear("$file.new") && link("$outside/linked/" . (1 + int rand 4) . '.mp3', "$file.new") && rename "$file.new", $file }) },
	'new hard link to a canary' => sub { my ($top, $sub, $leaf) = @_; in($leaf, sub { link "$outside/linked/" . (1 + int rand 4) . '.mp3', 'link.mp3' }) },
	'new hard link to wanted' => sub { my ($top, $sub, $leaf) = @_; in($leaf, sub { link "$dir/safe/deep/wanted.mp3", 'same.mp3' }) },
	'times' => sub { my ($top, $sub, $leaf, $file) = @_;
		in($leaf, sub { my $handle; sysopen($handle, $file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK) && -f $handle && (stat _)[3] == 1 && utime 1, 1, $handle }) },
	'directory renamed and back' => sub { my ($top) = @_; in($top, sub { clear("other$$") && rename('sub', "other$$") && rename "other$$", 'sub' }) },
	'parent renamed and back' => sub { my $top = 'top' . int rand 3; in($dir, sub { clear("else$$") && rename($top, "else$$") && rename "else$$", $top }) },
	'parents exchanged' => sub { in($dir, sub { clear("else$$") && rename('top0', "else$$") && rename('top1', 'top0') && rename "else$$", 'top1' }) },
	'directory moved out and in' => sub { my ($top) = @_; in($top, sub { clear("../../moved$$") && rename('sub', "../../moved$$") && rename "../../moved$$", 'sub' }) },
	'upload directory to symlink' => sub { in($node->basedir, sub { rename('uploads', 'true') && symlink('true', 'uploads') && unlink('uploads') && rename 'true', 'uploads' }) },
	'upload directory to one outside' => sub { in($node->basedir, sub { rename('uploads', 'true') && symlink('outside', 'uploads') && unlink('uploads') && rename 'true', 'uploads' }) },
	'trash to symlink' => sub { $n++; in("$dir/.audio_cleanup", sub { rename('trash', "gone$$.$n") && symlink "$outside/trash", 'trash' }) },
	'trash to FIFO' => sub { in("$dir/.audio_cleanup", sub { mkfifo('trash', 0600) }) },
	'run of the trash to symlink' => sub { $n++; in("$dir/.audio_cleanup/trash", sub { my ($run) = glob '[0-9]*'; $run && rename($run, "gone$$.$n") && symlink "$outside/sub", $run }) },
	'trash back' => sub {
		in("$dir/.audio_cleanup/trash", sub { unlink grep { -l } glob '*' });
		in("$dir/.audio_cleanup", sub { (-l 'trash' || -p _) && unlink 'trash' }) });
my @names = sort keys %tricks;

sub play
{
	my ($trick) = @_;
	my $top = "$dir/top" . int rand 3;
	my $sub = "$top/sub";
	my @leaves = ($top, $sub, "$sub/deep");

	# the directories and some bait, if they are not there
	in($dir, sub { mkdir substr $top, 1 + length $dir; });
	in($top, sub { mkdir 'sub'; });
	in($sub, sub { mkdir 'deep'; });
	foreach my $leaf (@leaves)
	{
		in($leaf, sub { lay($_) foreach 'a.mp3', 'b.mp3'; });
	}
	return $tricks{$trick}->($top, $sub, $leaves[ rand @leaves ], ('a.mp3', 'b.mp3')[ rand 2 ]);
}

my $begin = time;
my $over = $node->basedir . '/over';
my %attackers;
pipe my $reader, my $writer or die $!;
foreach my $seed (1, 2)
{
	my $pid = fork;
	die "could not fork: $!" unless defined $pid;
	if (!$pid)
	{
		my %played;
		no warnings;
		close $reader;
		srand $seed;
		eval {
			while (!-e $over)
			{
				my $trick = $names[ rand @names ];
				$played{$trick}++ if play($trick);
			}
			1;
		} or do { print STDERR $@; _exit(1); };
		syswrite $writer, join '', map { "$played{$_} $_\n" } sort keys %played;
		_exit(0);
	}
	$attackers{$pid} = 1;
}
close $writer;

# ---- the runs ----

my @calls = ('SELECT cleanup_all(force => true)', 'SELECT cleanup_all(force => true)', 'CALL cleanup_run(force => true)',
	'CALL cleanup_run(force => true)', 'SELECT cleanup_orphaned_files(true)', 'SELECT cleanup_status()',
	'BEGIN; SELECT cleanup_all(force => true); ROLLBACK', 'SELECT count(*) FROM cleanup_check()',
	q{SELECT cleanup_explain('top1/sub/a.mp3')});
my (%succeeded, %errors, %timed_out);
my $changed = 0;
my @counted = grep { !/cleanup_explain|check/ } @calls;

# Enough has happened to prove something, or it never will.
sub enough
{
	my $passed = time - $begin;
	return 1 if $passed > $patience;
	return 0 if $passed < $seconds || grep { ($succeeded{$_} // 0) < $often } @counted;
	return $node->safe_psql('postgres', qq{SELECT count(*) >= $much FROM cleanup_files WHERE state = 'deleted'}) eq 't';
}

while (!enough())
{
	my $call = $calls[ rand @calls ];
	my $hung = 0;
	my ($rc, $stdout, $stderr) = $node->psql('postgres', $call, timeout => 200, timed_out => \$hung);

	$succeeded{$call}++ if !$rc && !$hung;
	$timed_out{$call}++ if $hung || ($stderr // '') =~ /statement timeout/;
	$errors{ $1 =~ s/"[^"]*"/"..."/gr }++ while ($stderr // '') =~ /ERROR:  (.*)/g;
	$changed++ unless $changed || keys %{ outside() } == keys %$canaries;
}
append_to_file($over, '');
my $played = do { local $/; <$reader> };
foreach my $pid (keys %attackers)
{
	waitpid $pid, 0;
	is($?, 0, 'an attacker came to his end');
}
note("$succeeded{$_} times $_") foreach sort keys %succeeded;
note("$errors{$_} times error: $_") foreach sort keys %errors;
note($played);

# ---- what has become of it ----

my %played;
$played{$2} += $1 while $played =~ /^(\d+) (.*)$/mg;
cmp_ok($played{$_} // 0, '>', 0, "was played: $_") foreach @names;
cmp_ok($succeeded{$_} // 0, '>=', $often, "meanwhile went on: $_") foreach @counted;
is_deeply(\%timed_out, {}, 'no call hung');
is($changed, 0, 'at no time was a file missing outside, or too many there');
is_deeply(outside(), $canaries, 'outside, every file has its content, inode and mtime');
is_deeply({ map { $_ => read_file("$dir/$_") } keys %wanted }, \%wanted, 'what is wanted is in its place');
cmp_ok($node->safe_psql('postgres', q{SELECT count(*) FROM cleanup_files WHERE state = 'deleted'}), '>=', $much, 'much bait was deleted');
is($node->safe_psql('postgres', q{SELECT count(*) FROM cleanup_files WHERE file ~ 'wanted' OR file !~ '^(top|else|orphan)'}), 0, 'and nothing was condemned but bait');

# ---- when he has gone ----

play('trash back');
foreach my $top (glob "$dir/top*")
{
	unlink $top if -l $top;
}
my ($rc, $stdout, $stderr) = $node->psql('postgres', 'CALL cleanup_run(force => true)');
is($rc, 0, 'then a run goes its usual way') or diag($stderr);
($rc, $stdout, $stderr) = $node->psql('postgres', 'CALL cleanup_run(force => true)');
is($rc, 0, 'and the next');
is($node->safe_psql('postgres', q{SELECT count(*) FROM cleanup_files WHERE state = 'pending'}), 0, 'no row is stuck');
is_deeply(outside(), $canaries, 'outside all is as it was');
is($node->safe_psql('postgres', 'SELECT pg_postmaster_start_time() < now() - make_interval(secs => ' . int($seconds) . ')'), 't', 'the server is the one that was started');

$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC:|TRAP:|signal \d+|terminating any other/, 'and none of its processes has died');
done_testing();
