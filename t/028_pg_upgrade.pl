# After pg_upgrade the cluster is another one, and the database is not: a run
# is refused, says what to do, and after that everything is as it was.  With
# OLD_BINDIR the old cluster is one of another version: script/test-upgrade.

use strict;
use warnings;

use Cwd qw(getcwd);
use File::Find qw(find);
use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $bindir = `pg_config --bindir`;
chomp $bindir;
plan skip_all => 'pg_upgrade is not installed: not permitted here' unless -x "$bindir/pg_upgrade";

my $old_bindir = $ENV{OLD_BINDIR} || $bindir;
my $conf = <<'END';
shared_preload_libraries = 'audio_cleanup'
audio_cleanup.backup_retention_days = 3
audio_cleanup.databases = 'postgres'
audio_cleanup.timezone = 'UTC'
END
my $init = [ extra => ['--data-checksums'] ];    # the versions differ in the default
my $reason = $ENV{OLD_BINDIR} && why_plain_upgrade_fails();
plan skip_all => "pg_upgrade fails without the extension, too: $reason" if $reason;

my $old = new_server('old', conf => $conf, init => $init, install_path => $old_bindir =~ s{/bin$}{}r);
my $dir = upload_dir($old);
my %all = map { $_ => put_file($dir, $_) } qw(wanted.mp3 a.mp3 b.mp3 held.mp3);

make_schema($old);
add_rows($old, 'wanted.mp3');
$old->safe_psql('postgres', "SELECT cleanup_hold('held.mp3', 'evidence'); SELECT cleanup_all()");
ok(wait_for_drain($old), 'the old cluster has made a run');
is(scalar keys %{ trashed_files($dir) }, 2, '... and has two backups');
my $claim = $old->safe_psql('postgres', 'SELECT uuid FROM cleanup_claims');
my $history = 'SELECT r.*, f.* FROM cleanup_runs r JOIN cleanup_files f USING (run_id) ORDER BY file_id';
my $before = $old->safe_psql('postgres', $history);
$old->stop;

my $new = new_server('new', start => 0, init => $init, conf => "${conf}audio_cleanup.upload_dir = '$dir'\n");
ok(upgrade($old, $new), 'pg_upgrade');
$new->start;

is($new->safe_psql('postgres', 'SELECT uuid FROM cleanup_claims'), $claim, 'the twin of the claim has come along');
is($new->safe_psql('postgres', $history), $before, '... and the history');
is($new->safe_psql('postgres', 'SELECT file FROM cleanup_holds'), 'held.mp3', '... and what is held');
my $fresh = put_file($dir, 'c.mp3');
my ($rc, undef, $stderr) = $new->psql('postgres', 'SELECT cleanup_all()');
isnt($rc, 0, 'a run is refused');
like($stderr, qr/in another cluster \(system identifier \d+\).*pg_upgrade/, '... it says what has happened');
like($stderr, qr/HINT:.*old cluster.*SELECT cleanup_claim_upload_dir\(\)/, '... and what to do');
like($stderr, shown_error('pg_upgrade'), '... as docs/operations.md shows it');
like($new->safe_psql('postgres', q{SELECT detail || hint FROM cleanup_check() WHERE check_name = 'claim'}),
	qr/pg_upgrade.*cleanup_claim_upload_dir/s, 'so does the doctor');
is_deeply([ sort keys %{ trashed_files($dir) } ], [ 'a.mp3', 'b.mp3' ], 'nothing has moved');

$new->safe_psql('postgres', 'SELECT cleanup_claim_upload_dir()');
ok(wait_for_drain($new), 'it is claimed');
is($new->safe_psql('postgres', "SELECT cleanup_restore('a.mp3') #>> '{result,error_count}'"), '0', 'a backup of before is restored');
ok(wait_for_drain($new), '... in the background');
is(visible_files($dir)->{'a.mp3'}, $all{'a.mp3'}, '... whole');
$new->safe_psql('postgres', 'SELECT cleanup_all()');
ok(wait_for_drain($new), 'a run succeeds');
is(visible_files($dir)->{'c.mp3'}, $fresh, '... and what was there has a new grace period');
ok(exists visible_files($dir)->{'held.mp3'}, '... and what is held stays');
set_schedule_clock($new, '2040-06-01 02:50:00');
ok(let_day_pass($new, '2040-06-01', 3), 'a night comes');
ok(wait_until(sub { grep { /^schedule 2040-06-01/ } @{ runs($new) } }), '... and the schedule has its run');
ok(wait_for_drain($new), '... to the end');
is_deeply(undo_violations($new, $dir, { files => \%all, final => 1 }), [], 'all files are accounted for');

# who was left behind is not served any more
$old->start;
like(($old->psql('postgres', 'SELECT cleanup_all()'))[2], qr/has claimed it/, 'the old cluster is refused');
$old->stop;
$new->stop;
done_testing();

# Runs pg_upgrade, which writes into the folder that it is called in.
sub upgrade
{
	my ($from, $to) = @_;
	my $here = getcwd();

	chdir $PostgreSQL::Test::Utils::tmp_check or die;
	my $ok = run_log([ "$bindir/pg_upgrade", '-d', $from->data_dir, '-D', $to->data_dir, '-b', $old_bindir, '-B', $bindir,
			'-s', $to->host, '-p', $from->port, '-P', $to->port ]);
	chdir $here or die;
	return $ok;
}

# Upgrades a cluster that has one table and no extension.  Returns what the new server says if that fails, otherwise ''.
sub why_plain_upgrade_fails
{
	my $from = PostgreSQL::Test::Cluster->new('plain_old', install_path => $old_bindir =~ s{/bin$}{}r);
	my $to = PostgreSQL::Test::Cluster->new('plain_new');
	my $error;

	$from->init(@$init);
	$to->init(@$init);
	$from->start;
	$from->safe_psql('postgres', 'CREATE TABLE plain (id int)');
	$from->stop;
	return '' if upgrade($from, $to);
	find(sub { $error //= $1 if /^pg_upgrade_dump_.*\.log$/ && slurp_file($_) =~ /ERROR: +(.*)/ },
		$to->data_dir . '/pg_upgrade_output.d');
	return $error // 'the servers do not say why';
}
