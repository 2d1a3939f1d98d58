# Ages are told by two clocks, the server's and that of the file system.  Where
# they differ by more than five minutes, no file is old.  The file systems that
# have a clock of their own, as NFS, SMB and FUSE, have no files without a name
# (kopia/kopia#2402, NixOS/nix#14832).

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

# The shim shifts what statx() says, as a file server's clock would, or the clock of the process, by the seconds that a
# file tells.
my $node = new_server('clock', start => 0);
my $dir = upload_dir($node);
my %clock = (files => $node->basedir . '/clock_of_files', server => $node->basedir . '/clock_of_server');
my $no_nameless = $node->basedir . '/no_nameless';
{
	local $ENV{LD_PRELOAD} = build_shim('statx_shim');
	local $ENV{CLOCK_OF_FILES} = $clock{files};
	local $ENV{CLOCK_OF_SERVER} = $clock{server};
	local $ENV{NO_NAMELESS} = $no_nameless;
	$node->start;
}
make_schema($node);
add_rows($node, put_files($dir, 'wanted.mp3'));

sub set_clock
{
	my ($whose, $seconds) = @_;
	unlink values %clock;
	append_to_file($clock{$whose}, "$seconds\n");
	return;
}

my %says = (files => 1, server => -1);
foreach my $whose (sort keys %clock)
{
	foreach my $seconds (-86400 * 365, -3600, -310, 310, 3600)
	{
		my $name = "the clock of the $whose is off by $seconds seconds";
		my $before;

		set_clock($whose, $seconds);
		put_files($dir, 'orphan.mp3');
		$before = visible_files($dir);
		foreach my $statement ('SELECT cleanup_all(force => true)', 'SELECT cleanup_orphaned_files()',
			'SELECT cleanup_failed_sessions()', 'CALL cleanup_run(force => true)')
		{
			my ($rc, $stdout, $stderr) = $node->psql('postgres', "\\set VERBOSITY verbose\n$statement");
			my ($skew) = $stderr =~ /DETAIL:  It differs from the server's by (-?\d+) seconds\./;

			isnt($rc, 0, "$name: $statement is refused");
			like($stderr, qr/ERROR:  55000: the clock of the upload directory's file system cannot be trusted\n.*HINT:  Synchronize the clocks/s,
				"$name: for that reason");
			cmp_ok(abs(($skew // 1e9) - $seconds * $says{$whose}), '<=', 2, "$name: it says by how much");
		}
		my $answer = sql_json($node, 'SELECT cleanup_all(true)');
		ok(!$answer->{success}, "$name: a dry run has no success");
		is_deeply($answer->{blocked_by}, ['clock'], "$name: it names the brake");
		is($answer->{result}{orphaned_files_count}, 0, "$name: and no file");
		is($node->safe_psql('postgres', q{SELECT status FROM cleanup_check() WHERE check_name = 'clock'}), 'error', "$name: cleanup_check() finds it");
		is_deeply(visible_files($dir), $before, "$name: nothing is deleted");
	}
	foreach my $seconds (-240, 0, 240)
	{
		set_clock($whose, $seconds);
		put_files($dir, 'orphan.mp3');
		ok(sql_json($node, 'SELECT cleanup_all(true)')->{success}, "$seconds seconds of the $whose are forgiven by a dry run");
		ok(!defined sql_json($node, 'CALL cleanup_run()')->{blocked_by}, 'and by a real one');
		# by a clock that is behind, what was changed a moment ago is changed in the future
		if ($whose eq 'server' && $seconds < 0)
		{
			set_clock($whose, 0);
			$node->safe_psql('postgres', 'CALL cleanup_run()');
		}
		ok(!-e "$dir/orphan.mp3", 'which deletes');
		ok(-e "$dir/wanted.mp3", 'what is to be deleted');
	}
}

# ---- a file system without nameless files ----

append_to_file($no_nameless, "1\n");
foreach my $left (0, 1)
{
	# a killed process has left the file by which the time was asked
	append_to_file("$dir/.audio_cleanup.clock.17", 'x') if $left;
	set_clock('files', -86400);
	put_files($dir, 'orphan.mp3');
	is_deeply(sql_json($node, 'SELECT cleanup_all(true)')->{blocked_by}, ['clock'], 'its clock is asked by a file that has a name');
	like(sql_error($node, 'CALL cleanup_run()'), qr/ERROR:  55000: the clock .* cannot be trusted/, 'also by a real run');
	set_clock('files', 0);
	ok(sql_json($node, 'SELECT cleanup_all(true)')->{success}, 'a right one is right');
	is(join(' ', grep { !/\.17$/ } glob "$dir/.audio_cleanup.clock*"), '', 'the file is gone');
}
unlink $no_nameless;

# it is no policy: a read-only transaction cannot ask, and deletes nothing either
set_clock('files', 3600);
put_files($dir, 'orphan.mp3');
is(sql_json($node, 'BEGIN READ ONLY; SELECT cleanup_all(true)')->{blocked_by}[0], 'read_only', 'a read-only preview still works');
ok(-e "$dir/orphan.mp3", 'and touches nothing');

$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC:|TRAP:|signal \d+/, 'no process has died');
done_testing();
