# Every way to copy a database, and the copy let loose on the directory of the
# original: it is refused until somebody says that the directory is its own.
# Nor does it carry out what the original had condemned.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use JSON::PP qw(decode_json);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = new_server('primary', init => [ allows_streaming => 1, has_archiving => 1 ],
	conf => "max_prepared_transactions = 5\n");
my $dir = upload_dir($primary);
my $port = $primary->port;
make_schema($primary);
put_files($dir, 'wanted.mp3', 'orphan1.mp3');
add_rows($primary, 'wanted.mp3');
$primary->safe_psql('postgres', 'SELECT cleanup_all()');
ok(wait_for_drain($primary), 'the primary has claimed the directory');
is_deeply([ keys %{ visible_files($dir) } ], ['wanted.mp3'], 'and cleans it');
my $claim = read_file("$dir/.audio_cleanup/claim");

# Condemned and committed, but not carried out: COMMIT PREPARED does not touch files.
sub condemn
{
	my ($file) = @_;
	put_file($dir, $file);
	$primary->safe_psql('postgres', "BEGIN; SELECT cleanup_all(); PREPARE TRANSACTION '$file';");
	$primary->safe_psql('postgres', "COMMIT PREPARED '$file'");
	return;
}

sub pending
{
	my ($node, $database) = @_;
	return $node->safe_psql($database || 'postgres',
		q{SELECT string_agg(file, ' ' ORDER BY file) FROM cleanup_files WHERE state = 'pending'});
}

sub no_worker
{
	my ($node) = @_;
	return $node->poll_query_until('postgres',
		q{SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'audio_cleanup drain')});
}

# It deletes nothing, force or not, and says why.
sub refused
{
	my ($node, $name, $detail, $database) = @_;
	my $before = visible_files($dir);
	my $trash = trashed_files($dir);
	my $pending;

	$database ||= 'postgres';
	$pending = pending($node, $database);
	is($node->safe_psql($database, q{SELECT cleanup_config() ->> 'upload_dir'}), $dir, "$name: it points at the same directory");
	foreach my $statement ('SELECT cleanup_all(force => true)', 'CALL cleanup_run(force => true)')
	{
		my ($rc, $stdout, $stderr) = $node->psql($database,
			"\\set VERBOSITY verbose\nSET audio_cleanup.orphaned_file_retention_hours = 0;\n$statement");
		isnt($rc, 0, "$name: $statement is refused");
		like($stderr, qr/ERROR:  55006: upload directory "\Q$dir\E" does not belong to this database\n/, "$name: for want of a claim");
		like($stderr, qr/DETAIL:  $detail/, "$name: and says why");
		like($stderr, qr/WARNING: .*run \d+ is left unfinished/, "$name: it leaves alone what was condemned")
		  if $pending ne '';
	}
	my $answer = decode_json($node->safe_psql($database, 'SELECT cleanup_status()'));
	ok(!$answer->{success}, "$name: cleanup_status() tells of it");
	is_deeply($answer->{blocked_by}, ['claim'], "$name: by its name");
	ok(no_worker($node), "$name: no worker is busy");
	is(pending($node, $database), $pending, "$name: what was pending still is");
	is_deeply(visible_files($dir), $before, "$name: no file was touched");
	is_deeply(trashed_files($dir), $trash, "$name: nor captured");
	is(read_file("$dir/.audio_cleanup/claim"), $claim, "$name: nor the claim");
	return;
}

sub clone
{
	my ($name, $backup, %options) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init_from_backup($primary, $backup, %options);
	$node->append_conf('postgresql.conf', 'archive_mode = off');
	return $node;
}

# ---- what the copies are made of ----

# condemned before the copies are made; then wanted again, of which the past knows nothing
condemn('past.mp3');
$primary->backup('early');
$primary->safe_psql('postgres', q{SELECT pg_create_restore_point('before_run')});
add_rows($primary, 'past.mp3', 'late.mp3');
put_file($dir, 'late.mp3');
put_file($dir, 'orphan2.mp3');
$primary->safe_psql('postgres', 'SELECT cleanup_all()');
ok(wait_for_drain($primary), 'a run after the point in time');
is_deeply([ sort keys %{ visible_files($dir) } ], [ 'late.mp3', 'past.mp3', 'wanted.mp3' ], 'it lets live what is wanted again');
condemn('pending.mp3');
is(pending($primary), 'pending.mp3', 'a file is condemned, and waits');
$primary->backup('late');
# what is recovered to a point in time finds it in the archive, however late the archiver is
my $last_segment = $primary->safe_psql('postgres', q{SELECT pg_walfile_name(pg_create_restore_point('end'))});
$primary->safe_psql('postgres', 'SELECT pg_switch_wal()');
ok($primary->poll_query_until('postgres', "SELECT last_archived_wal >= '$last_segment' FROM pg_stat_archiver"), 'all is archived');

# ---- pg_dump | psql ----

my $dump = "$PostgreSQL::Test::Utils::tmp_check/clones.sql";
$primary->command_ok([ 'pg_dump', '-h', $primary->host, '-p', $port, '-f', $dump, 'postgres' ], 'pg_dump');
$primary->safe_psql('postgres', 'CREATE DATABASE restored');
$primary->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-h', $primary->host, '-p', $port, '-f', $dump, 'restored' ],
	'restored into a second database');
is(pending($primary, 'restored'), 'pending.mp3', 'its ledger came with it');
refused($primary, 'a dump in the same cluster', qr/Database "postgres" \(OID \d+\) of this cluster has claimed it\./, 'restored');
$primary->safe_psql('postgres', 'DROP DATABASE restored');

my $other = new_server('other', conf => "audio_cleanup.upload_dir = '$dir'\n");
$other->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-h', $other->host, '-p', $other->port, '-f', $dump, 'postgres' ],
	'restored into another cluster');
is(pending($other), 'pending.mp3', 'its ledger came with it');
refused($other, 'a dump in another cluster', qr/Database "postgres" of another cluster \(system identifier \d+\) has claimed it\./);
$other->stop;

# ---- CREATE DATABASE ... TEMPLATE ----

$primary->safe_psql('template1', 'CREATE DATABASE twin TEMPLATE postgres');
is($primary->safe_psql('twin', 'SELECT count(*) FROM cleanup_claims'), 1, 'a template copy has the UUID');
is(pending($primary, 'twin'), 'pending.mp3', 'and the ledger');
refused($primary, 'a template copy', qr/Database "postgres" \(OID \d+\) of this cluster has claimed it\./, 'twin');
$primary->safe_psql('postgres', 'DROP DATABASE twin');

# ---- a base backup, just started: the same timeline ----

my $started = clone('started', 'late');
$started->start;
is($started->safe_psql('postgres', 'SELECT timeline_id FROM pg_control_checkpoint()'), 1, 'a base backup that is just started is on the old timeline');
is(pending($started), 'pending.mp3', 'and has the ledger');
refused($started, 'a base backup', qr/The data directory "[^"]+" is a copy of the one that claimed it\./);
$started->stop;

# ---- a point in time before the run ----

my $recovered = clone('recovered', 'early', has_restoring => 1, standby => 0);
$recovered->append_conf('postgresql.conf', "recovery_target_name = 'before_run'\nrecovery_target_action = 'promote'\n");
$recovered->start;
ok($recovered->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()'), 'recovered to before the run');
is($recovered->safe_psql('postgres', 'SELECT string_agg(audio_url, $$ $$) FROM sessions'), 'wanted.mp3', 'it knows nothing of the later rows');
is(pending($recovered), 'past.mp3', 'and in its ledger a file is condemned that later was wanted again');
refused($recovered, 'point-in-time recovery', qr/It was claimed on timeline 1, and the server is on timeline 2: it was promoted, or recovered to a point in time\./);

# ---- a standby, promoted while the primary lives ----

my $standby = clone('standby', 'late', has_streaming => 1);
$standby->start;
$primary->wait_for_catchup($standby);
is_deeply(decode_json($standby->safe_psql('postgres', 'SELECT cleanup_all(true)'))->{blocked_by}, ['recovery'],
	'a standby may look, and is told of nothing but that it is one');
$standby->promote;
is(pending($standby), 'pending.mp3', 'a promoted standby has the ledger');
refused($standby, 'a promoted standby', qr/It was claimed on timeline 1, and the server is on timeline 2: it was promoted, or recovered to a point in time\./);

# ---- the original meanwhile ----

is_deeply([ sort keys %{ visible_files($dir) } ], [ 'late.mp3', 'past.mp3', 'pending.mp3', 'wanted.mp3' ], 'after all of them every file is there');
ok(decode_json($primary->safe_psql('postgres', 'SELECT cleanup_all(true)'))->{success}, 'the directory still is the primary\'s');

# ---- a copy of the stopped data directory ----

$primary->stop;
$primary->backup_fs_cold('cold');
my $copy = clone('copy', 'cold');
$copy->start;
is(pending($copy), 'pending.mp3', 'a file-level copy has the ledger');
refused($copy, 'a file-level copy', qr/The data directory "[^"]+" is a copy of the one that claimed it\./);
$copy->stop;

# ---- failover: the primary stays down, and the standby is told so ----

my $before = visible_files($dir);
refused($standby, 'after a failover', qr/It was claimed on timeline 1/);
$standby->safe_psql('postgres', 'SELECT cleanup_claim_upload_dir()');
$claim = read_file("$dir/.audio_cleanup/claim");
put_file($dir, 'orphan3.mp3');
is(decode_json($standby->safe_psql('postgres', 'SELECT cleanup_all()'))->{result}{orphaned_files_count}, 0, 'claimed, it runs, patiently');
ok(no_worker($standby), 'no worker is busy');
is_deeply(visible_files($dir), { %$before, 'orphan3.mp3' => read_file("$dir/orphan3.mp3") },
	'what was there before is no orphan yet, though it had been condemned');
$standby->safe_psql('postgres', q{UPDATE cleanup_claims SET grace_from = now() - interval '25 hours'});
$standby->safe_psql('postgres', 'SELECT cleanup_all()');
ok(wait_for_drain($standby), 'a day later it does');
is_deeply([ sort keys %{ visible_files($dir) } ], [ 'late.mp3', 'past.mp3', 'wanted.mp3' ], 'what is to be done');

# the old primary comes back: now it is the stranger
$primary->start;
refused($primary, 'the old primary', qr/The data directory|It was claimed on timeline 2, and the server is on timeline 1/);
$standby->stop;
$primary->stop;

# ---- and the server of the past is told so: what it had condemned gets its grace, too ----

$before = visible_files($dir);
$recovered->safe_psql('postgres', 'SELECT cleanup_claim_upload_dir()');
is(decode_json($recovered->safe_psql('postgres', 'SELECT cleanup_all()'))->{result}{orphaned_files_count}, 0, 'claimed after a recovery, it runs, patiently');
ok(no_worker($recovered), 'no worker is busy');
is_deeply(visible_files($dir), $before, 'nothing goes that was there before');
$recovered->stop;

unlike(slurp_file($_->logfile), qr/PANIC:|TRAP:|signal \d+/, $_->name . ': no process has died')
  foreach $primary, $other, $started, $recovered, $standby, $copy;
done_testing();
