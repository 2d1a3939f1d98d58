# In a background worker, the built-in schedule's or somebody else's, nobody
# looks at a preview: a column that is not registered, and a percentage in a
# small directory, stop a run there that somebody who calls may make.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('unattended', start => 0, conf => <<'END');
shared_preload_libraries = 'audio_cleanup'
audio_cleanup.timezone = 'UTC'
audio_cleanup.databases = 'postgres'
END
set_schedule_clock($node, '2027-03-01 02:50:00');
$node->start;
make_schema($node);
my $dir = upload_dir($node);
my $day = 1;

# Returns status and message of the run of the next night.
sub night
{
	set_schedule_clock($node, sprintf('2027-03-%02d 02:59:58', $day));
	$node->reload;
	ok(wait_until(sub { $node->safe_psql('postgres', sprintf(q{SELECT count(*) FROM cleanup_runs
		WHERE scheduled_for = '2027-03-%02d' AND status <> 'running' AND (status <> 'pending')}, $day)) }), 'the night comes');
	return $node->safe_psql('postgres', sprintf(q{SELECT status, message FROM cleanup_runs WHERE scheduled_for = '2027-03-%02d'}, $day++));
}

# ---- a column that nobody registered ----

put_files($dir, 'wanted.mp3', 'noted.mp3');
add_rows($node, 'wanted.mp3');
$node->safe_psql('postgres', q{
	CREATE ROLE viewer;
	SELECT cleanup_grant_access('viewer');
	CREATE SCHEMA private;
	CREATE TABLE private.memos (memo text);
	INSERT INTO private.memos VALUES ('noted.mp3')});
my $position = log_position($node);
like(night(), qr/^blocked\|a column that is not registered holds names/, 'a column that nobody registered stops a night');
ok(-e "$dir/noted.mp3", 'nothing was deleted');
unlike($node->safe_psql('postgres', 'SET ROLE viewer; SELECT message FROM cleanup_runs'), qr/memo/,
	'the history does not name the column to those who may not know of it');
like(log_since($node, $position), qr/private\.memos\.memo/, 'the log does');

# who calls has been told
my $answer = sql_json($node, 'SELECT cleanup_all(true)');
ok($answer->{success}, 'for somebody who calls it is advice');
like(sql_json($node, 'SELECT cleanup_status()')->{warnings}[0], qr/private\.memos\.memo/, '... that names it');

# pg_cron calls by a connection of that name
$answer = sql_json($node, q{SET application_name = 'pg_cron'; SELECT cleanup_all(true)});
is($answer->{blocked_by}[0] // $answer->{blocked_by}, 'unregistered', 'a connection of pg_cron is stopped, too');

# the two ways out
$node->safe_psql('postgres', q{SELECT cleanup_add_source('private.memos', '{memo}')});
like(night(), qr/^done/, 'a registered column protects its files');
ok(-e "$dir/noted.mp3", '... and they are there');
$node->safe_psql('postgres', q{SELECT cleanup_drop_source('private.memos')});
like(night(), qr/^blocked/, 'once more');
$node->safe_psql('postgres', q{ALTER DATABASE postgres SET audio_cleanup.search_unregistered = off});
like(night(), qr/^done/, 'without the search there is no such brake');
ok(!-e "$dir/noted.mp3" && -e "$dir/wanted.mp3", 'the orphan is gone');

# ---- a small directory ----

put_files($dir, map { "orphan$_.mp3" } 1 .. 8);
like(night(), qr/^done/, 'below ten files a percentage says nothing');
put_files($dir, map { "orphan$_.mp3" } 1 .. 9);
like(night(), qr/^blocked\|more than 50 percent/, 'from ten files on it stops a night');
is(scalar keys %{ visible_files($dir) }, 10, 'nothing was deleted');
$answer = sql_json($node, 'SELECT cleanup_all()');
is($answer->{result}{orphaned_files_count}, 9, 'somebody who calls may go on');

# ---- an error that is about none of the condemned files ----

put_files($dir, 'bad.mp3', 'orphan.mp3');
$node->safe_psql('postgres', q{
	CREATE TABLE bad (id int PRIMARY KEY, audio_url text, status text, updated_at timestamp);
	INSERT INTO bad VALUES (1, 'bad.mp3', 'failed', '2024-01-01');
	CREATE FUNCTION objects() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''secret of row %'', old.id; END';
	CREATE TRIGGER objects BEFORE UPDATE ON bad FOR EACH ROW EXECUTE FUNCTION objects();
	SELECT cleanup_add_source('bad', on_failed => 'clear')});
$position = log_position($node);
like(night(), qr/^failed\|the failed sessions of source public\.bad are left alone, because they cannot be cleared: error P0001/,
	'a night that could not clear a source has failed');
unlike($node->safe_psql('postgres', 'SELECT message FROM cleanup_runs'), qr/secret/, 'the history does not tell what the code says');
like(log_since($node, $position), qr/LOG:  error in a cleanup run: the failed sessions of source public\.bad .*secret of row 1/, 'the log does');
is($node->safe_psql('postgres', q{SELECT status, errors, other_errors, deleted FROM cleanup_runs ORDER BY run_id DESC LIMIT 1}), 'failed|0|1|1',
	'all else is done');
is($node->safe_psql('postgres', q{SELECT value FROM cleanup_metrics WHERE name = 'audio_cleanup_last_run_status' AND labels ->> 'status' = 'failed'}), 1,
	'the figures say so');
ok(-e "$dir/bad.mp3" && !-e "$dir/orphan.mp3", 'only the file of the session stays');
$node->safe_psql('postgres', 'DROP TRIGGER objects ON bad');
like(night(), qr/^done\|$/, 'when that is mended all is done');
ok(!-e "$dir/bad.mp3", 'of which the file is gone');

# ---- the owner of the database gives its sessions to another role ----

$node->safe_psql('postgres', q{CREATE ROLE dba; CREATE ROLE bob; SELECT cleanup_grant_access('bob'); ALTER DATABASE postgres OWNER TO dba});
set_schedule_clock($node, sprintf '2027-03-%02d 02:59:50', $day);
$node->psql('template1', q{SET SESSION AUTHORIZATION dba; ALTER DATABASE postgres SET session_authorization = 'bob'});
ok(wait_until(sub { $node->safe_psql('postgres', sprintf(q{SELECT count(*) FROM cleanup_runs WHERE scheduled_for = '2027-03-%02d'
	AND status NOT IN ('running', 'pending')}, $day)) }), 'the night comes');
is($node->safe_psql('postgres', sprintf(q{SELECT requested_by = (SELECT rolname FROM pg_roles WHERE oid = 10) FROM cleanup_runs
	WHERE scheduled_for = '2027-03-%02d'}, $day)), 't', 'the history does not say that the other role has asked for it');
$node->safe_psql('template1', 'ALTER DATABASE postgres RESET session_authorization');

$node->stop;
done_testing();
