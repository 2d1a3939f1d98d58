# A bucket that is younger than its database: after a point-in-time recovery, and in the hands of a stranger, the
# manifests tell which files the lost runs have put into the trash.  They go back.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use Bucket;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $gateway = start_gateway();
my $proxy = start_proxy($gateway);
my $credentials = PostgreSQL::Test::Utils::tempdir_short() . '/credentials';
my $conf = bucket_conf('s3://audio/up', $proxy->{endpoint}, $credentials) . <<'END';
audio_cleanup.file_age = 'newest'
audio_cleanup.backup_retention_days = 3
audio_cleanup.max_delete_percent = 100
END

write_credentials($gateway, $credentials);
make_bucket($gateway, 'audio');
my $node = new_server('primary', init => [ has_archiving => 1, allows_streaming => 1 ], conf => $conf);

sub put { return put_objects($gateway, 'audio/up', @_) }
sub versions { return versions_of($gateway, 'audio', 'up/') }
sub visible { return keys_of($gateway, 'audio', 'up/') }

# A run, whose number it returns.
sub clean
{
	my ($server) = @_;
	$server->safe_psql('postgres', 'CALL cleanup_run()');
	return $server->safe_psql('postgres', 'SELECT max(run_id) FROM cleanup_runs');
}

# The runs that have manifests, with the number of objects and versions of each: "run:number ..."
sub manifests
{
	my $page = expect(s3($gateway, 'GET', 'audio', query => { versions => '', prefix => 'up/.audio_cleanup/trash/' }))->{content};
	my %found;
	$found{$_}++ foreach $page =~ m{<Key>up/\.audio_cleanup/trash/(\d+)/\d{12}-[0-9a-f]{16}</Key>}g;
	return join ' ', map { "$_:$found{$_}" } sort { $a <=> $b } keys %found;
}

# The worker removes them when the rows are settled.
sub manifests_become
{
	my ($expected, $name) = @_;
	ok(wait_until(sub { manifests() eq $expected }), $name) or diag manifests();
	return;
}

sub rows
{
	my ($server, $condition) = @_;
	return $server->safe_psql('postgres', "SELECT run_id, file, reason, state FROM cleanup_files WHERE $condition ORDER BY run_id, file");
}

make_schema($node);
put('wanted.mp3', 'early/known.mp3');
add_rows($node, 'wanted.mp3');
my $known = clean($node);
is(manifests(), "$known:1", 'a run writes down what it captures');
my ($name) = expect(s3($gateway, 'GET', 'audio', query => { 'list-type' => 2, prefix => "up/.audio_cleanup/trash/$known/" }))->{content} =~ m{<Key>(.*?)</Key>};
my $manifest = s3($gateway, 'GET', "audio/$name")->{content};
my $version = versions()->{'early/known.mp3'}[1][0];
like($manifest, qr{<Key>early%2Fknown\.mp3</Key><VersionId>\Q$version\E</VersionId>}, 'with its name and its version');
unlike($manifest, qr/wanted/, 'and nothing else');
$node->backup('base');


# ---- without a manifest nothing is captured

put('unwritten.mp3');
set_rule($proxy, match => '^PUT /audio/up/\.audio_cleanup/trash/', do => 'refuse', code => 403, error => 'AccessDenied');
$node->psql('postgres', 'CALL cleanup_run()');
clear_rules($proxy);
ok((grep { $_ eq 'unwritten.mp3' } @{ visible() }), 'what cannot be written down stays');
like($node->safe_psql('postgres', "SELECT state || ': ' || error FROM cleanup_files WHERE file = 'unwritten.mp3'"),
	qr/^failed: could not write manifest: .*AccessDenied/, 'and its row says why');
put_object($gateway, 'audio/up/unwritten.mp3', 'wanted by now');
add_rows($node, 'unwritten.mp3');

# nor is it, if the worker dies between the manifest and the first marker
put('unmarked.mp3');
set_rule($proxy, match => '^DELETE /audio/up/unmarked\.mp3$', do => 'hold');
$node->safe_psql('postgres', 'SELECT cleanup_all()');
ok(is_held($proxy), 'the worker is held between the manifest and the marker');
my $unmarked = $node->safe_psql('postgres', 'SELECT max(run_id) FROM cleanup_runs');
is(manifests(), "$known:1 $unmarked:1", 'the manifest is there');
is_deeply([ map { $_->[1] } @{ versions()->{'unmarked.mp3'} } ], [31], 'and the marker is not');
release($proxy);
ok(wait_for_drain($node), 'the run is over');
$node->safe_psql('postgres', "SELECT cleanup_restore($unmarked)");
ok(wait_for_drain($node), 'it is restored');
manifests_become("$known:1", 'when nothing of a run is in the trash any more, its manifest goes');
add_rows($node, 'unmarked.mp3');


# ---- recovery to before some runs

$node->safe_psql('postgres', q{SELECT pg_create_restore_point('before')});
put('lost/a.mp3', "lost/new\nline.mp3", 'taken.mp3', map { "lost/many/$_.mp3" } 1 .. 30);
my $before = versions();
my $lost = clean($node);
put('taken.mp3', 'late.mp3');
add_rows($node, 'taken.mp3');
my $late_version = versions()->{'late.mp3'}[0][0];
my $lost2 = clean($node);
$node->safe_psql('postgres', "ALTER SYSTEM SET audio_cleanup.backup_retention_days = 0; SELECT pg_reload_conf(); SELECT pg_sleep(0.3)");
put('gone.mp3');
my $gone = clean($node);
is(versions()->{'gone.mp3'}, undef, 'one run deletes for good');
is(manifests(), "$known:1 $lost:1 $lost2:1", 'and leaves no manifest');
$node->safe_psql('postgres', 'SELECT pg_switch_wal()');
$node->stop;

my $recovered = PostgreSQL::Test::Cluster->new('recovered');
$recovered->init_from_backup($node, 'base', has_restoring => 1, standby => 0);
$recovered->append_conf('postgresql.conf', "recovery_target_name = 'before'\nrecovery_target_action = 'promote'\n");
$recovered->start;
ok($recovered->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()'), 'recovered');
is($recovered->safe_psql('postgres', "SELECT count(*) FROM cleanup_runs WHERE run_id IN ($lost, $lost2, $gone)"), '0', 'the later runs are not known');
like(sql_error($recovered, 'SELECT cleanup_all()'), qr/timeline|recovered to a point in time/, 'a run is refused on the new timeline');
is_deeply([ grep { m{^lost/|^late} } @{ visible() } ], [], 'nothing has moved');

# rolled back
$recovered->safe_psql('postgres', 'BEGIN; SELECT cleanup_claim_upload_dir(); ROLLBACK');
is(manifests(), "$known:1 $lost:1 $lost2:1", 'a take-over that is rolled back loses nothing');

# What cannot be read is not passed over: the take-over fails, and is undone.  Else the runs would be known, and nothing
# would look for their files again.
foreach my $case (
	[ "^GET /audio/up/\\.audio_cleanup/trash/$lost/\\d", 'a manifest that cannot be read' ],
	[ '^GET /audio/\?encoding-type=url&key-marker=', 'files whose versions cannot be listed' ],
	[ "^GET /audio/up/\\.audio_cleanup/trash/$lost/\\d", 'a manifest that is said not to be there, by a page of a proxy', do => 'page', code => 404 ],
	[ '^GET /audio/\?.*list-type=2.*trash%2F$', 'a trash that cannot be listed' ])
{
	my ($match, $what, %rule) = @$case;

	set_rule($proxy, match => $match, do => 'refuse', code => 403, error => 'AccessDenied', %rule);
	like(sql_error($recovered, 'SELECT cleanup_claim_upload_dir()'), qr/could not list .*HTTP status 40[34]/, "$what is an error");
	cmp_ok(-s "$proxy->{rules}/used" // 0, '>', 0, '... which has happened');
	clear_rules($proxy);
	is($recovered->safe_psql('postgres', "SELECT count(*) FROM cleanup_runs WHERE run_id IN ($lost, $lost2)"), '0', '... and the runs stay unknown');
	is(manifests(), "$known:1 $lost:1 $lost2:1", '... with all that the bucket tells of them');
}

$recovered->safe_psql('postgres', 'SELECT cleanup_claim_upload_dir()');
ok(wait_for_drain($recovered), 'taken over');
my $after = versions();
is_deeply({ map { $_ => $after->{$_} } grep { m{^lost/} } keys %$after }, { map { $_ => $before->{$_} } grep { m{^lost/} } keys %$before },
	'what a lost run has cleaned is back: the same versions, without a marker');
is($after->{'late.mp3'}[0][0], $late_version, 'and what another one has');
is(s3($gateway, 'GET', 'audio/up/taken.mp3')->{status}, 200, 'a name that was taken');
is_deeply([ map { $_->[1] } @{ $after->{'taken.mp3'} } ], [ 28, 'marker', 28 ], 'is not overwritten');
is(rows($recovered, "file = 'taken.mp3' AND run_id = $lost"), "$lost|taken.mp3|unknown|trashed", 'its file stays a backup, of which there is a row');
is($recovered->safe_psql('postgres', "SELECT string_agg(DISTINCT run_id || ' ' || reason || ' ' || state, ', ') FROM cleanup_files WHERE file ~ '^lost|^late'"),
	"$lost unknown restored, $lost2 unknown restored", 'each file has a row, of the run that was lost');
is($recovered->safe_psql('postgres', "SELECT string_agg(DISTINCT status, ' ') FROM cleanup_runs WHERE run_id IN ($lost, $lost2)"), 'interrupted', 'and the runs have one');
manifests_become("$known:1 $lost:1", 'the manifest of what is all back is gone');
$recovered->safe_psql('postgres', q{SELECT cleanup_restore('taken.mp3', 'taken too.mp3')});
ok(wait_for_drain($recovered), 'under another name it can be restored');
is(s3($gateway, 'GET', 'audio/up/taken too.mp3')->{content}, "audio of audio/up/taken.mp3\n", 'it is there');
manifests_become("$known:1", 'then that manifest is gone, too');

# the next runs
add_rows($recovered, 'late.mp3');
put('next.mp3');
$recovered->safe_psql('postgres', 'UPDATE cleanup_claims SET grace_from = NULL');
my $next = clean($recovered);
cmp_ok($next, '>', $lost2, 'a number is not given away twice');
ok((grep { $_ eq 'late.mp3' } @{ visible() }), 'what is wanted is let alone');
is((grep { /^$next:/ } split / /, manifests()), 1, 'a run goes on writing manifests');
$recovered->safe_psql('postgres', q{UPDATE cleanup_files SET due_at = now() WHERE state = 'trashed'; SELECT cleanup_purge_backups()});
ok(wait_for_drain($recovered), 'all backups are purged');
manifests_become('', 'with their manifests');

# a manifest that could not be removed is met by the next run
put('once.mp3');
$recovered->safe_psql('postgres', 'ALTER SYSTEM SET audio_cleanup.backup_retention_days = 0; SELECT pg_reload_conf(); SELECT pg_sleep(0.3)');
set_rule($proxy, match => '^DELETE /audio/up/\.audio_cleanup/trash/', do => 'refuse', code => 403, error => 'AccessDenied');
my $once = clean($recovered);
clear_rules($proxy);
is(manifests(), "$once:1", 'a manifest that could not be removed');
put('twice.mp3');
clean($recovered);
manifests_become('', 'goes before the next run');


# ---- what the application has deleted itself

put('app.mp3');
my $page = expect(s3($gateway, 'GET', 'audio', query => { versions => '', prefix => 'up/app.mp3' }))->{content};
my ($entry) = $page =~ m{<Version>(.*?)</Version>}s;
my %of = map { $_ => $entry =~ m{<$_>(.*?)</$_>} } qw(VersionId ETag Size LastModified);
my $body = '<ListVersionsResult><EncodingType>url</EncodingType><Version><Key>app.mp3</Key>' . join('', map { "<$_>$of{$_}</$_>" } sort keys %of)
  . '</Version></ListVersionsResult>';
expect(s3($gateway, 'DELETE', 'audio/up/app.mp3'));
put('other.mp3');
# two hours before the marker, and as much behind it; the next run has the next number
my $number = 1000;
foreach my $time (time - 7200, time + 7200)
{
	put_object($gateway, sprintf("audio/up/.audio_cleanup/trash/$number/%012d-0123456789abcdef", $time), $body);
	$number += 1000;
	clean($recovered);
	is_deeply([ map { $_->[1] } @{ versions()->{'app.mp3'} } ], [ 'marker', 26 ], 'a marker of another time is none of ours');
}
put_object($gateway, sprintf('audio/up/.audio_cleanup/trash/3000/%012d-0123456789abcdef', time - 60), 'no manifest');
put_object($gateway, sprintf('audio/up/.audio_cleanup/trash/3001/%012d-0123456789abcdef', time - 60), $body =~ s/\Q$of{VersionId}\E/another/r);
clean($recovered);
is_deeply([ map { $_->[1] } @{ versions()->{'app.mp3'} } ], [ 'marker', 26 ], 'nor is one above another version, or one that no manifest names');
add_rows($recovered, 'app.mp3');
put_object($gateway, sprintf('audio/up/.audio_cleanup/trash/5000/%012d-0123456789abcdef', time - 60), $body);
set_rule($proxy, match => '^GET /audio/up/\.audio_cleanup/trash/5000/', do => 'refuse', code => 403, error => 'AccessDenied');
my ($status, undef, $warning) = $recovered->psql('postgres', 'CALL cleanup_run()');
clear_rules($proxy);
is($status, 0, 'a manifest that cannot be read stops no run');
like($warning, qr/WARNING:  files of run 5000, which this database does not know, were not put back\nDETAIL:  could not list .*AccessDenied/, 'but there is a warning');
like($warning, qr/WARNING:  files of run 3000, which .*\nDETAIL:  could not list .*cannot be read/, 'so it is with an object that is no manifest');
is($recovered->safe_psql('postgres', 'SELECT count(*) FROM cleanup_runs WHERE run_id IN (3000, 5000)'), '0', 'these runs stay unknown, so that the next run tries again');
clean($recovered);
is_deeply([ map { $_->[1] } @{ versions()->{'app.mp3'} } ], [26], 'but of the minutes after a manifest it is, also before a run');
is(rows($recovered, "file = 'app.mp3'"), '5000|app.mp3|unknown|restored', 'and has a row');
expect(s3($gateway, 'DELETE', "audio/up/.audio_cleanup/trash/$_->[0]", query => { versionId => $_->[1] }))
  foreach map { my $key = $_; map { [ $key, $_->[0] ] } @{ versions_of($gateway, 'audio', 'up/.audio_cleanup/trash/')->{$key} } }
  keys %{ versions_of($gateway, 'audio', 'up/.audio_cleanup/trash/') };


# ---- a stranger, whose run has the same number

$recovered->safe_psql('postgres', 'ALTER SYSTEM SET audio_cleanup.backup_retention_days = 3; SELECT pg_reload_conf(); SELECT pg_sleep(0.3)');
put('theirs.mp3');
my $theirs = clean($recovered);
is(manifests(), "$theirs:1", 'a run of the owner');
$recovered->stop;
my $stranger = new_server('stranger', conf => $conf . "audio_cleanup.orphaned_file_retention_hours = 0\n");
make_schema($stranger);
make_bucket($gateway, 'own');
put_objects($gateway, 'own', 'wanted.mp3', 'theirs.mp3');
add_rows($stranger, 'wanted.mp3');
$stranger->safe_psql('postgres', "ALTER SYSTEM SET audio_cleanup.upload_dir = 's3://own'; SELECT pg_reload_conf(); SELECT setval('cleanup_runs_run_id_seq', $theirs, false)");
is(clean($stranger), $theirs, 'the number of the run is that of the other one');
$stranger->safe_psql('postgres', "ALTER SYSTEM SET audio_cleanup.upload_dir = 's3://audio/up'; SELECT pg_reload_conf(); SELECT pg_sleep(0.3)");
$stranger->safe_psql('postgres', 'SELECT cleanup_claim_upload_dir()');
ok(wait_for_drain($stranger), 'taken over by a stranger');
ok((grep { $_ eq 'theirs.mp3' } @{ visible() }), 'the file of that run is back');
is(rows($stranger, "reason = 'unknown'"), ($theirs + 1) . '|theirs.mp3|unknown|restored', 'with a number of its own');
manifests_become('', 'and its manifest is gone');
is_deeply([ map { $_->[1] } @{ versions_of($gateway, 'own', '')->{'theirs.mp3'} } ], [ 'marker', 24 ], 'its own backup is not touched')
  or diag explain versions_of($gateway, 'own', '');

is(log_lines($_, qr/PANIC:|TRAP:|terminated by signal/), '', $_->name . ': no process has died') foreach $node, $recovered, $stranger;
done_testing();
