# Undo.pm: what the attacks on undo share.
#
# A server that keeps backups, files that are in the trash of one run, and a
# check that none of them is lost.  A round is one of those runs; its files are
# below r<round>/.

package Undo;

use strict;
use warnings;

use AudioCleanup;
use Exporter qw(import);
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw($node $dir $round %all start_round_one back_up in_trash states drained refused end_of_rounds);

our ($node, $dir, %all);
our $round = 0;

sub start_round_one
{
	my ($name) = @_;

	$node = new_server($name, start => 0, conf => <<'END');
audio_cleanup.backup_retention_days = 3
audio_cleanup.max_delete_percent = 100
audio_cleanup.writer_wait = '2s'
max_prepared_transactions = 5
END
	$dir = upload_dir($node);
	start_with_faults($node);
	claim_directory($node, 'wanted.mp3');
	return;
}

# Names of files that are in the trash of the last run, with its number.
sub back_up
{
	my ($n) = @_;
	my @names;

	$round++;
	foreach my $i (1 .. $n // 2)
	{
		push @names, my $name = "r$round/$i.mp3";
		$all{$name} = put_file($dir, $name);
	}
	sql('SELECT cleanup_all()');
	wait_for_drain($node) or die 'no drain';
	states() eq 'trashed|' . ($n // 2) or die states();
	return (sql('SELECT max(run_id) FROM cleanup_runs'), @names);
}

# Files of this round.
sub in_trash
{
	return [ sort grep { m{^r$round/} } keys %{ trashed_files($dir) } ];
}

sub states
{
	return sql("SELECT state, count(*) FROM cleanup_files WHERE file LIKE 'r$round/%' GROUP BY 1 ORDER BY 1");
}

sub drained
{
	my ($name, %options) = @_;
	sql('SELECT cleanup_purge_backups()');
	ok(wait_for_drain($node), "$name: drained");
	is_deeply(undo_violations($node, $dir,
			{ files => { map { ($_ => $all{$_}) } grep { m{^r$round/} } keys %all }, final => 1, %options }), [], "$name: nothing is lost");
	return;
}

sub refused
{
	my ($name, $statement, $message) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', $statement);
	isnt($rc, 0, "$name: refused");
	like($err, $message, "$name: and says why");
	return;
}

sub end_of_rounds
{
	$node->stop;
	is(log_lines($node, qr/PANIC:|TRAP:|signal 11|signal 6/), '', 'nothing but what we killed has died');
	done_testing();
	return;
}

1;
