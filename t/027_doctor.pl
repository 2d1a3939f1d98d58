# cleanup_check(): each trouble is named in words that a DBA understands, with
# a hint that tells him what to do; and where there is none, nothing is.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('doctor', conf => "max_prepared_transactions = 5\naudio_cleanup.file_age = 'newest'\n");
my $dir = upload_dir($node);
make_schema($node);
add_rows($node, put_files($dir, map { "wanted$_.mp3" } 1 .. 12));
put_files($dir, 'orphan.mp3');
$node->safe_psql('postgres', q{SET audio_cleanup.file_age = 'mtime'; SELECT cleanup_all()});
ok(wait_for_drain($node), 'the directory is claimed');

# name => [ [status, detail, hint], ... ]
sub examine
{
	my ($sql, $database) = @_;
	my %found;
	my $rows = JSON::PP::decode_json($node->safe_psql($database || 'postgres',
		($sql || '') . q{ SELECT coalesce(json_agg(c), '[]') FROM cleanup_check() c}));
	push @{ $found{ $_->{check_name} } }, [ @{$_}{qw(status detail hint)} ] foreach @$rows;
	return \%found;
}

# One row of this name says so; every other row is what it is without the trouble.
sub finds
{
	my ($name, $found, $check, $status, $detail, $hint) = @_;
	my @rows = grep { $_->[0] eq $status && $_->[1] =~ $detail } @{ $found->{$check} || [] };

	is(scalar @rows, 1, "$name: $check says so, once") or diag(explain($found));
	like($rows[0] ? $rows[0][2] // '' : '', $hint, "$name: with a hint");
	foreach my $other (grep { $_ ne $check } sort keys %$found)
	{
		is(scalar(grep { $_->[0] ne 'ok' } @{ $found->{$other} }), 0, "$name: $other is not to blame") or diag(explain($found->{$other}));
	}
	# whatever it finds to be an error stops a run
	my $blocked = sql_json($node, "SELECT cleanup_all(true)")->{blocked_by};
	return $blocked;
}

# ---- all is well ----

my $healthy = examine();
is_deeply([ grep { $_->[0] ne 'ok' } map { @$_ } values %$healthy ], [], 'where all is well nothing is found') or diag(explain($healthy));
is_deeply([ sort keys %$healthy ], [qw(claim mail outstanding preload references schedule source source_references upload_dir workers)], 'and it tells what was looked at');
like($healthy->{upload_dir}[0][1], qr/^"\Q$dir\E" can be read and written$/, 'the directory');
like($healthy->{claim}[0][1], qr/belongs to this database/, 'its claim');
like($healthy->{references}[0][1], qr/^12 of 12 audio files are referred to by 12 rows; a run would delete 0$/, 'the references');
is(scalar(grep { defined $_->[2] } map { @$_ } values %$healthy), 0, 'without idle hints');

# ---- the directory ----

rename $dir, "$dir.away" or die $!;
finds('missing', examine(), 'upload_dir', 'error', qr/upload directory "\Q$dir\E" does not exist/, qr/Create the directory, or mount its disk, or correct audio_cleanup\.upload_dir/);
append_to_file($dir, 'x');
finds('a file', examine(), 'upload_dir', 'error', qr/"\Q$dir\E" is not a directory/, qr/correct audio_cleanup\.upload_dir/);
unlink $dir or die $!;
mkdir $dir or die $!;
finds('another disk', examine(), 'claim', 'error', qr/the claim is gone: another disk may be mounted there, or none/, qr/cleanup_claim_upload_dir/);
rmdir $dir or die $!;
rename "$dir.away", $dir or die $!;
chmod 0555, $dir or die $!;
finds('not writable', examine(), 'upload_dir', 'error', qr/could not write to upload directory "\Q$dir\E": Permission denied/, qr/operating system user of the server needs read, write and search permission/);
chmod 0755, $dir or die $!;
mkdir "$dir/closed" or die $!;
chmod 0, "$dir/closed" or die $!;
finds('a subdirectory that cannot be read', examine(), 'upload_dir', 'error', qr/could not open directory "\Q$dir\E\/closed": Permission denied/, qr/permission/);
chmod 0755, "$dir/closed" or die $!;
rmdir "$dir/closed" or die $!;
finds('the data directory', examine(q{SET audio_cleanup.upload_dir = '.';}), 'upload_dir', 'error', qr/is not a place to clean.*contains the data directory/, qr/nothing but uploads/);

# ---- the claim ----

$node->safe_psql('postgres', 'CREATE DATABASE other');
make_schema($node, 'other');
finds('a foreign claim', examine('', 'other'), 'claim', 'error', qr/does not belong to this database.*Database "postgres" \(OID \d+\) of this cluster has claimed it/, qr/SELECT cleanup_claim_upload_dir\(\)/);

# ---- the sources ----

$node->safe_psql('postgres', q{CREATE TABLE gone (audio_url text); SELECT cleanup_add_source('gone'); DROP TABLE gone});
finds('a dropped source', examine(), 'source', 'error', qr/source with OID \d+ no longer exists.*dropped after it was registered/, qr/cleanup_add_source\(\).*cleanup_drop_source\(\)/);
is_deeply(sql_json($node, 'SELECT cleanup_all(true)')->{blocked_by}, ['source'], 'it stops a run');
# and the hint leads out of it
my $oid = $node->safe_psql('postgres', q{SELECT source::oid FROM cleanup_sources WHERE source <> 'sessions'::regclass});
$node->safe_psql('postgres', "SELECT cleanup_drop_source('$oid')");
is_deeply(examine(), $healthy, 'forgotten, it is no trouble any more');

# a source that somebody holds is one finding, and does not keep others waiting
$node->safe_psql('postgres', q{CREATE TABLE held (audio_url text); INSERT INTO held VALUES ('held.mp3'); SELECT cleanup_add_source('held');
	CREATE TABLE later (audio_url text); INSERT INTO later VALUES ('later.mp3'); SELECT cleanup_add_source('later'); ALTER TABLE later RENAME audio_url TO url});
my $holder = begin_session($node, 'LOCK TABLE held IN ACCESS EXCLUSIVE MODE');
my $is_held = q{SELECT count(*) FROM pg_locks WHERE relation = 'held'::regclass AND mode = 'AccessExclusiveLock' AND granted};
my $beside = examine(q{SET audio_cleanup.writer_wait = '300ms';});
is(scalar(grep { $_->[1] =~ /lock on "held"/ } @{ $beside->{source} }), 1, 'a locked source is one finding') or diag(explain($beside));
is(scalar(grep { $_->[1] =~ /column "audio_url" of source public\.later/ } @{ $beside->{source} }), 1, 'the source behind it is looked at');
ok(scalar(keys %$beside) > 4, 'and so is all the rest');
is($node->safe_psql('postgres', $is_held), '1', 'while the lock is still held');
my ($explain_rc, $explained, $explain_error) = $node->psql('postgres', q{SET audio_cleanup.writer_wait = '300ms'; SELECT cleanup_explain('orphan.mp3')});
is($node->safe_psql('postgres', $is_held), '1', 'cleanup_explain() gives up while the lock is held, too');
like($explained . $explain_error, qr/lock on "held"/, 'and names the table');
end_session($holder, 'ROLLBACK');
$node->safe_psql('postgres', q{SELECT cleanup_drop_source('held'); SELECT cleanup_drop_source('later'); DROP TABLE held, later});
is_deeply(examine(), $healthy, 'unlocked, there is no trouble any more');

$node->safe_psql('postgres', 'ALTER TABLE sessions RENAME audio_url TO url');
finds('a renamed column', examine(), 'source', 'error', qr/column "audio_url" of source public\.sessions does not exist/, qr/cleanup_add_source\(\)/);
$node->safe_psql('postgres', 'ALTER TABLE sessions RENAME url TO audio_url');
finds('no source', examine('', 'other') && do {
	my $saved = $node->safe_psql('postgres', q{SELECT cleanup_drop_source('sessions')}); examine(); },
	'no_source', 'error', qr/no source is registered.*every file would look like an orphan/, qr/SELECT cleanup_add_source\('sessions'\)/);
$node->safe_psql('postgres', q{SELECT cleanup_add_source('sessions')});

# ---- the references ----

$node->safe_psql('postgres', q{UPDATE sessions SET audio_url = 'else' || audio_url});
my $found = examine();
my ($row) = grep { $_->[0] eq 'warning' } @{ $found->{references} || [] };
like($row ? $row->[1] : '', qr/^0 of 12 audio files are referred to by 12 rows; a run would delete \d+$/, 'references that match nothing: the figures');
like($row ? $row->[2] : '', qr/Check that the registered columns hold the names of these files; cleanup_explain/, 'and a hint');
# the files are young by their ctime; seen by their mtime a run would take them all
$found = examine(q{SET audio_cleanup.file_age = 'mtime';});
is_deeply([ map { $_->[0] } @{ $found->{nothing_referenced} || [] } ], ['error'], 'it is an error as soon as a run would be stopped by it');
like($found->{nothing_referenced}[0][2] // '', qr/force => true/, 'with a hint how to get past it');
like($found->{nothing_referenced}[0][1] // '', qr/12 of 12 files would be deleted; 0 are referred to by 12 rows/, 'and the figures');
$node->safe_psql('postgres', q{BEGIN; TRUNCATE sessions; COMMIT});
$found = examine(q{SET audio_cleanup.file_age = 'mtime';});
is_deeply([ map { $_->[0] } @{ $found->{empty_sources} || [] } ], ['error'], 'so are sources that are all empty');
like($found->{empty_sources}[0][1] // '', qr/every registered source is empty/, 'in plain words');
add_rows($node, map { "wanted$_.mp3" } 1 .. 12);
put_files($dir, map { "many$_.mp3" } 1 .. 100);
$found = examine(q{SET audio_cleanup.file_age = 'mtime';});
is_deeply([ map { $_->[0] } @{ $found->{max_delete_percent} || [] } ], ['error'], 'and a run that would delete too much');
like($found->{max_delete_percent}[0][1] // '', qr/more than 50 percent of the files would be deleted.*100 of 112 files/, 'with the figures');
like($found->{max_delete_percent}[0][2] // '', qr/force => true, or raise audio_cleanup\.max_delete_percent/, 'and how to get past it');
$node->safe_psql('postgres', q{SET audio_cleanup.file_age = 'mtime'; CALL cleanup_run(force => true)});
is_deeply(examine(), $healthy, 'which does help');

# a name that cannot be judged
append_to_file("$dir/caf\xE9.mp3", 'x');
finds('an unreadable name', examine(), 'file', 'warning', qr/file name "caf\\xE9\.mp3" is not valid in encoding "UTF8"; the file is left alone/, qr/Rename or remove the file by hand/);
unlink "$dir/caf\xE9.mp3" or die $!;

# ---- the settings ----

finds('retention 0', examine(q{SET audio_cleanup.orphaned_file_retention_hours = 0;}), 'settings', 'warning',
	qr/orphaned_file_retention_hours is 0: a file is an orphan as soon as it is uploaded/, qr/Leave the application the time/);
finds('mtime', examine(q{SET audio_cleanup.file_age = 'mtime';}), 'settings', 'warning', qr/file_age is mtime/, qr/The default, newest/);

# ---- a forgotten column ----

put_files($dir, 'attached.mp3');
$node->safe_psql('postgres', q{ALTER DATABASE postgres SET audio_cleanup.file_age = 'mtime'; CREATE TABLE notes (attachment text); INSERT INTO notes VALUES ('attached.mp3')});
$found = examine();
delete $found->{settings};
finds('a forgotten column', $found, 'unregistered', 'warning', qr/^column public\.notes\.attachment holds 1 of the 1 sampled names$/, qr/register it with cleanup_add_source\(\)/);
$node->safe_psql('postgres', q{SELECT cleanup_add_source('notes', '{attachment}')});
$found = examine();
is($found->{unregistered}, undef, 'the hint leads out of it');
$node->safe_psql('postgres', q{SELECT cleanup_drop_source('notes'); DROP TABLE notes});

# ---- rows that do not drain ----

$node->safe_psql('postgres', q{BEGIN; SELECT cleanup_all(); PREPARE TRANSACTION 'p'});
$node->safe_psql('postgres', q{COMMIT PREPARED 'p'});
is($node->safe_psql('postgres', q{SELECT string_agg(state, ' ') FROM cleanup_files WHERE file = 'attached.mp3'}), 'pending', 'a file is condemned');
is($node->safe_psql('postgres', q{SELECT status FROM cleanup_check() WHERE check_name = 'outstanding'}), 'ok', 'for a minute that is nothing to worry about');
$node->safe_psql('postgres', q{ALTER DATABASE postgres RESET audio_cleanup.file_age; UPDATE cleanup_files SET condemned_at = now() - interval '2 minutes' WHERE state = 'pending'});
finds('pending rows', examine(), 'outstanding', 'warning', qr/^1 files are still to be captured or restored and 0 to be deleted since more than a minute$/, qr/next run takes them up.*server log/);
$node->safe_psql('postgres', 'CALL cleanup_run()');
is_deeply(examine(), $healthy, 'the next run takes them up');

# ---- no worker ----

$node->append_conf('postgresql.conf', 'max_worker_processes = 0');
$node->restart;
finds('no workers', examine(), 'workers', 'warning', qr/max_worker_processes is 0/, qr/Raise max_worker_processes/);

# ---- who may ask, and where ----

$node->safe_psql('postgres', q{CREATE ROLE looker; CREATE ROLE nobody; SELECT cleanup_grant_access('looker')});
cmp_ok($node->safe_psql('postgres', q{SET ROLE looker; SELECT count(*) FROM cleanup_check()}), '>', 4, 'a viewer may ask the doctor');
my ($rc, $stdout, $stderr) = $node->psql('postgres', q{SET ROLE nobody; SELECT cleanup_check()});
like($stderr, qr/permission denied for function cleanup_check/, 'nobody else');
is(scalar(grep { $_->[0] eq 'error' } map { @$_ } values %{ examine('BEGIN READ ONLY;') }), 0, 'he works in a read-only transaction');

$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC:|TRAP:|signal \d+/, 'no process has died');
done_testing();
