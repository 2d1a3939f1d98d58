# Uploads to a bucket that were begun and never completed: they are counted,
# and ended when that is asked for, if they are old and nothing comes any more.

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
my ($node, $credentials) = start_bucket($gateway, 'bucket_uploads', proxy => $proxy);
put_object($gateway, 'audio/up/wanted.mp3');

sub set { return set_setting($node, @_) }

sub under_way { return uploads_of($gateway, 'audio', 'up/') }
sub upload { return begin_upload($gateway, "audio/up/$_[0]", 'x' x 1000) }
sub status { return sql_json($node, 'SELECT cleanup_status()') }
sub rows_of { return sql("SELECT state || coalesce(': ' || error, '') FROM cleanup_files WHERE file = '$_[0]' ORDER BY file_id") }

# What the gateway tells of an upload was months ago: when it was begun, and unless it still grows, when its parts came.
sub make_old
{
	my ($name, %options) = @_;

	rewrite($proxy, [ "(<Upload>(?:(?!</Upload>).)*?<Key>up(?:%2F|/)$name</Key>(?:(?!</Upload>).)*?<Initiated>)[^<]*", '\g<1>2026-01-02T03:04:05.000Z' ],
		$options{grows} ? () : [ '(<Part>(?:(?!</Part>).)*?<LastModified>)[^<]*', '\g<1>2026-01-02T03:04:06.000Z' ]);
	return;
}


# ---- they are counted

is(status()->{unfinished_uploads}, 0, 'at first there is none');
my $id = upload('old.mp3');
upload($_) foreach 'young.mp3', 'folder/young+%20.wav', 'notes.txt', '.hidden.mp3', 'double//slash.mp3';
begin_upload($gateway, 'audio/elsewhere.mp3');
is(status()->{unfinished_uploads}, 3, 'those of audio files below the prefix are counted, as a walk would see them');
is(status()->{uploads_ended}, undef, 'none would be ended by default');
is(sql("SELECT value FROM cleanup_metrics WHERE name = 'audio_cleanup_unfinished_uploads'"), '3', 'monitoring is told, too');
is(sql("SELECT status || ' ' || (detail ~ '^3 uploads') || ' ' || (hint ~ 's3_abort_uploads') FROM cleanup_check() WHERE check_name = 'uploads'"),
	'ok true true', 'and cleanup_check()');
make_old('old.mp3');
is(sql("SELECT status FROM cleanup_check() WHERE check_name = 'uploads'"), 'warning', 'which warns of old ones');
sql('CALL cleanup_run()');
is_deeply(under_way(), [ sort '.hidden.mp3', 'double//slash.mp3', 'folder/young+%20.wav', 'notes.txt', 'old.mp3', 'young.mp3' ],
	'a run ends none by default');


# ---- and ended when they are old

like(sql_error($node, "LOAD 'audio_cleanup'; SET audio_cleanup.s3_abort_uploads_after_days = 0"), qr/under way would be ended/, 'at once is too soon');
set('s3_abort_uploads_after_days', 7);
rewrite($proxy);
is(sql_json($node, 'CALL cleanup_run()')->{uploads_ended}, 0, 'by the time of the gateway none is old');
is(scalar @{ under_way() }, 6, 'so all stay');

make_old('old.mp3');
my $answer = sql_json($node, 'SELECT cleanup_all(dry_run => true)');
is("$answer->{unfinished_uploads} $answer->{uploads_ended} $answer->{result}{orphaned_files_count}", '3 1 0', 'a dry run says how many would be ended');
is(join(' ', sort keys %{ $answer->{result} }), 'dry_run error_count errors failed_sessions_cleaned failed_sessions_count orphaned_files_count orphaned_files_deleted total_space_freed_mb',
	'beside the result, which has its eight keys');
$node->psql('postgres', 'BEGIN; SELECT cleanup_all(); ROLLBACK');
is(sql('SELECT cleanup_failed_sessions()') && scalar @{ under_way() }, 6, 'a rollback ends none, and failed sessions are another matter');

$answer = sql_json($node, 'SELECT cleanup_all()');
is("$answer->{uploads_ended} $answer->{pending}", '1 1', 'a real run says so, and leaves it to the worker');
ok(wait_for_drain($node), 'which is done with it');
is_deeply(under_way(), [ sort '.hidden.mp3', 'double//slash.mp3', 'folder/young+%20.wav', 'notes.txt', 'young.mp3' ], 'the old one is ended, and no other');
is(sql("SELECT concat_ws(' ', file, upload_id, reason, state, size, freed, modified_at AT TIME ZONE 'UTC') FROM cleanup_files WHERE upload_id IS NOT NULL"),
	"old.mp3 $id unfinished_upload deleted 1000 1000 2026-01-02 03:04:05", 'the history has key, id, age, end and bytes');
is(sql("SELECT concat_ws(' ', status, files, deleted, orphaned_files, bytes) FROM cleanup_runs ORDER BY run_id DESC LIMIT 1"), 'done 1 1 0 1000', 'and the run');
is(sql("SELECT value FROM cleanup_metrics WHERE name = 'audio_cleanup_files_deleted_total' AND labels = '{\"reason\": \"unfinished_upload\"}'"), '1', 'and the counters');
like(sql('SELECT cleanup_restore((SELECT max(run_id) FROM cleanup_runs))'), qr/"files_count": 0/, 'there is nothing to restore of it');

upload('again.mp3');
make_old('again.mp3');
$answer = sql_json($node, 'CALL cleanup_run()');
is("$answer->{uploads_ended} $answer->{result}{orphaned_files_count} $answer->{result}{error_count}", '1 0 0', 'cleanup_run() ends it itself');
is(rows_of('again.mp3'), 'deleted', 'and has a row');


# ---- what is alive

upload('grows.mp3');
make_old('grows.mp3', grows => 1);
is(sql_json($node, 'CALL cleanup_run()')->{uploads_ended}, 0, 'an upload that still grows');
is(rows_of('grows.mp3'), 'skipped: parts of it still come', 'is let alone');
ok((grep { $_ eq 'grows.mp3' } @{ under_way() }), 'and is under way');

sql("SELECT cleanup_hold('grows.mp3')");
make_old('grows.mp3');
is(sql_json($node, 'CALL cleanup_run()')->{uploads_ended}, 0, 'so is one whose name is held');
sql("SELECT cleanup_release('grows.mp3')");
is(sql_json($node, 'CALL cleanup_run()')->{uploads_ended}, 1, 'until it is released');

# completed before the run's transaction is committed
$id = upload('done.mp3');
make_old('done.mp3');
my $session = $node->background_psql('postgres');
$session->query_safe('BEGIN');
$session->query_safe('SELECT cleanup_all()');
add_rows($node, 'done.mp3');
complete_upload($gateway, 'audio/up/done.mp3', $id);
end_session($session);
ok(wait_for_drain($node), 'an upload that is completed before the worker comes');
is(rows_of('done.mp3'), 'skipped: it is not under way any more: it was completed, or ended', 'is no upload any more');
is(length s3($gateway, 'GET', 'audio/up/done.mp3')->{content}, 1000, 'and its file is there');


# ---- trouble

upload('lost.mp3');
make_old('lost.mp3');
set_rule($proxy, match => '^GET .*uploads=', do => 'refuse');
like(join(' ', @{ sql_json($node, 'SELECT cleanup_all(dry_run => true)')->{result}{errors} }), qr/could not list the uploads that were not completed: .*503/,
	'where they are to be ended, it is an error that they cannot be listed');
set_rule($proxy, match => '^DELETE .*uploadId=', do => 'cut', times => 3);
is(sql_json($node, 'CALL cleanup_run()')->{result}{error_count}, 1, 'the server is asked to end one, and the connection is cut');
like(rows_of('lost.mp3'), qr/^failed: could not end upload: /, 'that is recorded');
set_rule($proxy, match => '^DELETE .*uploadId=', do => 'cut_after', times => 3);
is(sql_json($node, 'CALL cleanup_run()')->{uploads_ended}, 1, 'the next run tries again, and this time the answer is lost');
is(rows_of('lost.mp3'), 'deleted', 'but not what has happened; and there is one row of it');
ok(!(grep { $_ eq 'lost.mp3' } @{ under_way() }), 'it is ended');
clear_rules($proxy);

# the page of a proxy does not tell that there is no such upload
upload('page.mp3');
make_old('page.mp3');
foreach my $method ('GET', 'DELETE')
{
	set_rule($proxy, match => "^$method .*uploadId=", do => 'page', code => 404);
	is(sql_json($node, 'CALL cleanup_run()')->{uploads_ended}, 0, "a status 404 without a code in answer to $method");
	like(rows_of('page.mp3'), qr/^failed: could not (?:list parts of|end) upload: HTTP status 404$/, '... does not tell that an upload is over');
}
clear_rules($proxy);
is(sql_json($node, 'CALL cleanup_run()')->{uploads_ended}, 1, 'the next run ends it');
is(rows_of('page.mp3'), 'deleted', '... in the same row');

# a worker is killed
my $n = 0;
foreach my $case ([ '^GET .*uploadId=', 'hold', 'before an upload is ended', 'deleted' ],
	[ '^DELETE .*uploadId=', 'hold_after', 'when it is ended', 'skipped: it is not under way any more: it was completed, or ended' ])
{
	my ($match, $do, $when, $outcome) = @$case;
	my $name = 'k' . ++$n . '.mp3';

	upload($name);
	make_old($name);
	set_rule($proxy, match => $match, do => $do);
	sql('SELECT cleanup_all()');
	ok(is_held($proxy), "the worker is held $when");
	kill_worker($node, $proxy);
	sql('CALL cleanup_run()');
	ok(wait_for_drain($node), 'the next run goes on');
	ok(!(grep { $_ eq $name } @{ under_way() }), 'the upload is ended');
	is(rows_of($name), $outcome, 'and has a row');
}

# a user that may do all but this
my $other = add_user($gateway, 'other');
my @rights = qw(ListBucket ListBucketVersions GetBucketVersioning ListBucketMultipartUploads ListMultipartUploadParts
  GetObject GetObjectVersion PutObject DeleteObject DeleteObjectVersion);
let_user($gateway, 'other', @rights);
write_credentials($other, $credentials);
upload('rights.mp3');
make_old('rights.mp3');
is(sql_json($node, 'CALL cleanup_run()')->{result}{error_count}, 1, 'without the right to end uploads');
like(rows_of('rights.mp3'), qr/^failed: could not end upload: HTTP status 403, AccessDenied/, 'the row says what is missing');
let_user($gateway, 'other', @rights, 'AbortMultipartUpload');
is(sql_json($node, 'CALL cleanup_run()')->{uploads_ended}, 1, 'with it, the next run ends it');
is(rows_of('rights.mp3'), 'deleted', 'in the same row');
write_credentials($gateway, $credentials);

# whose bucket is it?
upload('theirs.mp3');
make_old('theirs.mp3');
$node->safe_psql('postgres', 'CREATE DATABASE other');
make_schema($node, 'other');
$node->safe_psql('other', "INSERT INTO sessions (audio_url) VALUES ('wanted.mp3')");
my ($status, $out, $error) = $node->psql('other', 'SELECT cleanup_all()');
like($error, qr/does not belong to this database/, 'another database has no say');
set_rule($proxy, match => '^DELETE .*uploadId=', do => 'hold');
sql('SELECT cleanup_all()');
ok(is_held($proxy), 'a worker is about to end an upload');
$node->safe_psql('other', 'SELECT cleanup_claim_upload_dir()');
release($proxy);
upload('taken.mp3');
make_old('taken.mp3');
is($node->safe_psql('other', 'SELECT cleanup_all(dry_run => true)') =~ m{"uploads_ended": 0}, 1, 'for the new owner, uploads are as young as its claim');
like(sql_error($node, 'SELECT cleanup_all()'), qr/does not belong to this database/, 'and the old one ends none');
ok((grep { $_ eq 'taken.mp3' } @{ under_way() }), 'it stays');
sql('SELECT cleanup_claim_upload_dir()');
rewrite($proxy);


# ---- more than a page

my $before = status()->{unfinished_uploads};
begin_upload($gateway, sprintf 'audio/up/many/%04d.mp3', $_) foreach 1 .. 1005;
begin_upload($gateway, 'audio/up/many/0001.mp3') foreach 1 .. 3;
is(status()->{unfinished_uploads}, $before + 1008, 'more than a page of them is counted, several of a name too');

done_testing();
