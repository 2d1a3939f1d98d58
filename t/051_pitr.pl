# Point-in-time recovery, failover, and a directory taken over from a stranger:
# the files are younger than the database, which does not know of runs that
# have put some of them into the trash.  They go back.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my %conf = (conf => <<'END');
audio_cleanup.backup_retention_days = 3
audio_cleanup.max_delete_percent = 100
END
my $node = new_server('primary', init => [ has_archiving => 1, allows_streaming => 1 ], %conf);
my $dir = upload_dir($node);
my %content;

sub put
{
	$content{$_} = put_file($dir, $_) foreach @_;
	return;
}

sub clean
{
	my ($server, $dir) = @_;
	$server->safe_psql('postgres', 'SELECT cleanup_all()');
	wait_for_drain($server) or die 'no drain';
	return $server->safe_psql('postgres', 'SELECT max(run_id) FROM cleanup_runs');
}

sub is_back
{
	my ($name, @files) = @_;
	is_deeply({ map { ($_ => read_file("$dir/$_")) } @files }, { map { ($_ => $content{$_}) } @files }, $name);
	return;
}

sub rows
{
	my ($server, $condition) = @_;
	return $server->safe_psql('postgres',
		"SELECT run_id, file, reason, state FROM cleanup_files WHERE $condition ORDER BY run_id, file");
}

make_schema($node);
put('wanted.mp3', 'early/known.mp3');
add_rows($node, 'wanted.mp3');
my $known = clean($node);
is(rows($node, 'true'), "$known|early/known.mp3|orphan|trashed", 'a run of which a backup of the server knows');
$node->backup('base');

# ---- recovery to before a run ----

put('wanted2.mp3');
add_rows($node, 'wanted2.mp3');
$node->safe_psql('postgres', q{SELECT pg_create_restore_point('before')});
# referred to at that time, and cleaned later
put('lost/a.mp3', 'lost/b.mp3', 'taken.mp3');
my $lost = clean($node);
put_file($dir, 'taken.mp3', content => 'a new recording', hours => 0);
put('late.mp3');
my $lost2 = clean($node);
$node->safe_psql('postgres', "SELECT cleanup_restore('early/known.mp3')");
wait_for_drain($node);
is_back('restored on the timeline that will end', 'early/known.mp3');
$node->safe_psql('postgres', 'SELECT pg_switch_wal()');
$node->stop;

my $recovered = PostgreSQL::Test::Cluster->new('recovered');
$recovered->init_from_backup($node, 'base', has_restoring => 1, standby => 0);
$recovered->append_conf('postgresql.conf', "recovery_target_name = 'before'\nrecovery_target_action = 'promote'\n");
$recovered->start;
ok($recovered->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()'), 'recovered');
is($recovered->safe_psql('postgres', 'SELECT max(run_id) FROM cleanup_runs'), $known, 'the later runs are not known');

my ($rc, $out, $err) = $recovered->psql('postgres', 'SELECT cleanup_all()');
isnt($rc, 0, 'a run is refused');
like($err, qr/another timeline|recovered to a point in time/, 'on the new timeline');
($rc, $out, $err) = $recovered->psql('postgres', 'SELECT cleanup_purge_backups()');
isnt($rc, 0, 'so is a purge');
is_deeply([ sort keys %{ trashed_files($dir) } ], [ 'late.mp3', 'lost/a.mp3', 'lost/b.mp3', 'taken.mp3' ], 'nothing has moved');

# what cannot be read is not passed over: else the run would be known, and nothing would look for its files again
chmod 0000, "$dir/.audio_cleanup/trash/$lost/lost" or die "could not close a folder: $!";
($rc, $out, $err) = $recovered->psql('postgres', 'SELECT cleanup_claim_upload_dir()');
like($err, qr{ERROR:  could not open directory "\.audio_cleanup/trash/$lost/lost": Permission denied}, 'a folder of the trash that cannot be read is an error');
is($recovered->safe_psql('postgres', 'SELECT max(run_id) FROM cleanup_runs'), $known, 'and the runs stay unknown');
chmod 0700, "$dir/.audio_cleanup/trash/$lost/lost";
is_deeply([ sort keys %{ trashed_files($dir) } ], [ 'late.mp3', 'lost/a.mp3', 'lost/b.mp3', 'taken.mp3' ], 'nothing has moved');
chmod 0000, "$dir/.audio_cleanup/trash" or die "could not close the trash: $!";
($rc, $out, $err) = $recovered->psql('postgres', 'SELECT cleanup_claim_upload_dir()');
like($err, qr{ERROR:  could not list the trash of upload directory ".*": Permission denied}, 'nor is a trash that cannot be read taken for an empty one');
chmod 0700, "$dir/.audio_cleanup/trash";

my $position = log_position($recovered);
$recovered->safe_psql('postgres', 'SELECT cleanup_claim_upload_dir()');
ok(wait_for_drain($recovered), 'taken over');
is_back('what the lost runs have cleaned is back', 'lost/a.mp3', 'lost/b.mp3', 'late.mp3');
is(read_file("$dir/taken.mp3"), 'a new recording', 'a name that was taken is not overwritten');
is_deeply(trashed_files($dir), { 'taken.mp3' => [$lost] }, 'its file stays a backup');
is(rows($recovered, "run_id > $known AND file ~ 'taken'"), "$lost|taken.mp3|unknown|trashed", 'of which there is a row');
is(rows($recovered, "run_id > $known AND state = 'restored'"),
	"$lost|lost/a.mp3|unknown|restored\n$lost|lost/b.mp3|unknown|restored\n$lost2|late.mp3|unknown|restored",
	'each file has a row, of the run that was lost');
is($recovered->safe_psql('postgres', "SELECT string_agg(DISTINCT status, ' ') FROM cleanup_runs WHERE run_id > $known"),
	'interrupted', 'and the runs have one');
like(log_since($recovered, $position), qr{WARNING:  put file "lost/a.mp3" back: it was in the trash of run $lost,},
	'the server log tells of it');
like(log_since($recovered, $position), qr{WARNING:  could not put file "taken.mp3" back}, 'of what could not be put back, too');
is(sql_json($recovered, q{SELECT cleanup_restore('taken.mp3', 'taken too.mp3')})->{result}{files_count}, 1,
	'under another name it can be restored');
ok(wait_for_drain($recovered), 'restored');
is(read_file("$dir/taken too.mp3"), $content{'taken.mp3'}, 'it is there');
ok(!-e "$dir/.audio_cleanup/trash", 'the trash is empty');

# the row says trashed, and the file was restored on the timeline that ended
is_back('the other one is where it was', 'early/known.mp3');
is(rows($recovered, "run_id = $known"), "$known|early/known.mp3|orphan|trashed", 'though its row is of an earlier time');
$recovered->safe_psql('postgres', q{UPDATE cleanup_files SET due_at = now() WHERE state = 'trashed'});
$recovered->safe_psql('postgres', 'SELECT cleanup_purge_backups()');
ok(wait_for_drain($recovered), 'even when it is due');
is_back('it is not deleted', 'early/known.mp3');
is(rows($recovered, "run_id = $known"), "$known|early/known.mp3|orphan|restored", 'but let live');

# the next run
put_file($dir, 'old orphan.mp3');
my $next = clean($recovered, $dir);
cmp_ok($next, '>', $lost2, 'a number is not given away twice');
is_back('the next run lets all of them live', 'wanted.mp3', 'wanted2.mp3', 'lost/a.mp3', 'lost/b.mp3', 'late.mp3', 'early/known.mp3');

# before a run there is a warning, and the next run tries again
my $unread = $next + 1000;
my $trash = "$dir/.audio_cleanup/trash";
my $closed = "$trash/$unread/closed";
mkdir $trash or die "could not make a folder: $!";
chmod 0770, $trash or die "could not open a folder: $!";
($rc, $out, $err) = $recovered->psql('postgres', 'SELECT cleanup_all()');
is($rc, 0, 'a trash into which others may write stops no run');
like($err, qr{WARNING:  could not list the trash of upload directory ".*": Operation not permitted\n.*\nHINT:  .* only this user may write there},
	'but there is a warning, which says why');
chmod 0700, $trash or die "could not close a folder: $!";
mkdir "$trash/$unread", 0700 or die "could not make a folder: $!";
put_file($closed, 'x.mp3', content => 'of a lost run');
chmod 0000, $closed or die "could not close a folder: $!";
($rc, $out, $err) = $recovered->psql('postgres', 'SELECT cleanup_all()');
is($rc, 0, 'a folder of the trash that cannot be read stops no run');
like($err, qr{WARNING:  files of run $unread, which this database does not know, were not put back\nDETAIL:  could not open directory "\.audio_cleanup/trash/$unread/closed": Permission denied},
	'but there is a warning');
ok(wait_for_drain($recovered), 'the run is over');
is(rows($recovered, "run_id = $unread"), '', 'nothing is recorded');
is($recovered->safe_psql('postgres', "SELECT count(*) FROM cleanup_runs WHERE run_id = $unread"), '0', 'so the lost run stays unknown');
chmod 0700, $closed;
clean($recovered);
is(read_file("$dir/closed/x.mp3"), 'of a lost run', 'and the next run puts its file back');
is(rows($recovered, "run_id = $unread"), "$unread|closed/x.mp3|unknown|restored", 'with a row');

# ---- failover to a standby that has not got the last run ----

$recovered->backup('for standby');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($recovered, 'for standby', has_streaming => 1);
$standby->append_conf('postgresql.conf', "recovery_target_name = ''\nrestore_command = ''\n");
$standby->start;
$recovered->wait_for_catchup($standby);
$standby->stop;
$recovered->safe_psql('postgres', 'ALTER SYSTEM SET audio_cleanup.file_age = mtime; SELECT pg_reload_conf();'
	. q{UPDATE cleanup_claims SET grace_from = NULL; UPDATE cleanup_files SET finished_at = finished_at - interval '3 days'});
my $last = clean($recovered);
is(rows($recovered, "run_id = $last AND state = 'trashed'") =~ tr/\n// + 1, scalar keys %{ trashed_files($dir) },
	'the primary cleans once more');
ok(-e "$dir/.audio_cleanup/trash/$last/lost/a.mp3", 'a file is in the trash');
$recovered->stop('immediate');
$standby->start;
$standby->promote;
is($standby->safe_psql('postgres', "SELECT count(*) FROM cleanup_runs WHERE run_id = $last"), '0', 'a run that the standby has not seen');
$standby->safe_psql('postgres', 'SELECT cleanup_claim_upload_dir()');
ok(wait_for_drain($standby), 'the standby has taken over');
is_back('its files are back', 'wanted.mp3', 'wanted2.mp3', 'lost/a.mp3', 'lost/b.mp3', 'late.mp3', 'early/known.mp3');
is_deeply(trashed_files($dir), {}, 'all of them');
cmp_ok($standby->safe_psql('postgres', q{SELECT nextval('cleanup_runs_run_id_seq')}), '>', $last, 'its number is taken');

# something for the stranger to find
$standby->safe_psql('postgres', 'ALTER SYSTEM SET audio_cleanup.file_age = mtime; SELECT pg_reload_conf();'
	. q{UPDATE cleanup_claims SET grace_from = NULL; UPDATE cleanup_files SET finished_at = finished_at - interval '3 days'});
my $theirs = clean($standby);
ok(-e "$dir/.audio_cleanup/trash/$theirs/lost/a.mp3", 'the standby cleans');
put_file($dir, 'lost/b.mp3', content => 'a new recording', hours => 0);
$standby->stop;

# ---- a stranger, whose runs have the same numbers ----

my $stranger = new_server('stranger', %conf);
my $own = upload_dir($stranger);
make_schema($stranger);
put_file($own, 'wanted.mp3', content => 'own');
add_rows($stranger, 'wanted.mp3', 'late.mp3');
$stranger->safe_psql('postgres', "SELECT setval('cleanup_runs_run_id_seq', $theirs, false)");
put_file($own, $_, content => "own $_") foreach 'lost/a.mp3', 'lost/b.mp3';
is(clean($stranger), $theirs, 'the number of the run is that of the other one');
is_deeply(trashed_files($own), { 'lost/a.mp3' => [$theirs], 'lost/b.mp3' => [$theirs] }, 'and the names of its files');
$stranger->safe_psql('postgres', "ALTER SYSTEM SET audio_cleanup.upload_dir = '$dir'; SELECT pg_reload_conf()");

# rolled back
$stranger->safe_psql('postgres', 'BEGIN; SELECT cleanup_claim_upload_dir(); ROLLBACK;');
is(rows($stranger, "run_id <> $theirs"), '', 'a take-over that is rolled back leaves no rows');
like(read_file("$dir/.audio_cleanup/claim"), qr/^database=/m, 'nor a claim');
is(scalar(grep { my $f = $_; defined read_file("$dir/$f") && read_file("$dir/$f") eq $content{$f} || trashed_files($dir)->{$f} }
	  'lost/a.mp3', 'lost/b.mp3', 'late.mp3', 'early/known.mp3'), 4, 'no file is lost');

$stranger->safe_psql('postgres', 'SELECT cleanup_claim_upload_dir()');
ok(wait_for_drain($stranger), 'taken over by a stranger');
is_back('its trash was emptied', 'lost/a.mp3', 'late.mp3', 'early/known.mp3');
is(read_file("$dir/lost/b.mp3"), 'a new recording', 'but for a name that was taken');
is_deeply([ keys %{ trashed_files($dir) } ], ['lost/b.mp3'], 'which is kept');
is(sql_json($stranger, q{SELECT cleanup_restore('lost/b.mp3', 'lost/b2.mp3')})->{result}{files_count}, 1, 'and can be restored');
ok(wait_for_drain($stranger), 'restored');
is(read_file("$dir/lost/b2.mp3"), $content{'lost/b.mp3'}, 'it is there');
is(rows($stranger, "run_id = $theirs"), "$theirs|lost/a.mp3|orphan|trashed\n$theirs|lost/b.mp3|orphan|trashed", 'its own backups are not meant');
is_deeply(trashed_files($own), { 'lost/a.mp3' => [$theirs], 'lost/b.mp3' => [$theirs] }, 'nor touched');

$stranger->stop;
is(log_lines($_, qr/PANIC:|TRAP:|terminated by signal/), '', $_->name . ': no process has died') foreach $node, $recovered, $standby, $stranger;
done_testing();
