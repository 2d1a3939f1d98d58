# What trackers of similar tools report about files, rows and operators: the
# comment of each situation says where it was reported.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('reports_of_files', conf => "audio_cleanup.max_delete_percent = 100\n");
my $dir = upload_dir($node);
my $wanted = claim_directory($node, map { "keep$_.mp3" } 1 .. 3);

sub explain_file { return sql_json($node, "SELECT cleanup_explain('$_[0]')") }
sub last_row { return sql("SELECT state, error FROM cleanup_files WHERE file = '$_[0]' ORDER BY file_id DESC LIMIT 1") }

# ---- a file that is used again: stored by its checksum, it is there already (distribution/distribution#3045, odoo/odoo#224833) ----

foreach my $touch (0, 1)
{
	my $file = "sha$touch.mp3";
	my $session;

	put_file($dir, $file);
	$session = begin_session($node, 'SELECT cleanup_all()');
	utime undef, undef, "$dir/$file" if $touch;
	add_rows($node, $file);
	end_session($session);
	ok(wait_for_drain($node), "$file: used again after it was condemned");
	ok(-e "$dir/$file", '... it is there');
	is(last_row($file), $touch ? 'skipped|it was replaced or changed' : 'restored|it is referred to again', $touch ? '... it has never left its place' : '... again');
}
put_file($dir, 'late.mp3');
sql('SELECT cleanup_all()');
ok(wait_for_drain($node), 'a file is deleted');
is(utime(undef, undef, "$dir/late.mp3"), 0, '... utime() tells the application that it has to upload it');

# ---- a symbolic link: a row that names the link keeps the file of that name, and no other one (StuffAnThings/qbit_manage#1349, Maintainerr/Maintainerr#3377) ----

put_files($dir, 'blobs/one.mp3', 'blobs/two.mp3');
mkdir "$dir/2024" or die $!;
symlink "../blobs/$_.mp3", "$dir/2024/$_.mp3" or die $! foreach qw(one two);
symlink 'nowhere.mp3', "$dir/dangling.mp3" or die $!;
put_file($dir, 'blobs/three.mp3');
symlink '../blobs/three.mp3', "$dir/2024/drei.mp3" or die $!;
add_rows($node, '2024/one.mp3', '2024/two.mp3', 'blobs/two.mp3', '2024/drei.mp3');
is_deeply(sql_json($node, 'SELECT cleanup_all(true)')->{result}{orphaned_files_deleted}, ['blobs/three.mp3'], 'a row that names a symlink keeps the file of that name');
like(sql(q{SELECT e FROM cleanup_missing_files(), unnest(examples) e WHERE e LIKE '2024/one%'}), qr/^2024\/one\.mp3 \(not looked into: symlinks are not followed\)/, '... and cleanup_missing_files() says why');
unlink map { "$dir/blobs/$_.mp3" } qw(one three);

# ---- times: of the future (Sonarr/Sonarr#8840, navidrome/navidrome#499), of 1970 (nextcloud/server#49627) ----

put_file($dir, 'future.mp3', hours => -24 * 365 * 20);
is(explain_file('future.mp3')->{reason}, 'no row refers to it, but its date is in the future', 'a date of the future keeps a file, and cleanup_explain() says so');
put_file($dir, 'y1970.mp3', hours => time / 3600);
is(explain_file('y1970.mp3')->{verdict}, 'condemned', 'by its mtime a file of 1970 is old');
is(sql_json($node, q{SET audio_cleanup.file_age = 'newest'; SELECT cleanup_explain('y1970.mp3')})->{verdict}, 'kept', '... by the newest of its times it is of today');
unlink "$dir/future.mp3", "$dir/y1970.mp3";

# ---- space: a preview and a run say the same (sourcefrog/conserve#158, clearlinux/swupd-client#1263) ----

open my $sparse, '>', "$dir/sparse.mp3" or die $!;
truncate $sparse, 50_000_000;
close $sparse;
utime 1, 1, "$dir/sparse.mp3";
put_file($dir, 'large.mp3', content => 'x' x 3_000_000);
link "$dir/keep1.mp3", "$dir/linked.mp3" or die $!;
my ($preview, $run) = map { sql_json($node, "SELECT cleanup_all($_)")->{result} } 'true', 'false';
ok(wait_for_drain($node), 'a run');
is($preview->{total_space_freed_mb}, '2.86', 'a file with holes, or with another name, frees no space');
is($run->{$_}, $preview->{$_}, "... $_ is what the preview said") foreach qw(total_space_freed_mb orphaned_files_count);
is(sql('SELECT round(bytes / 1048576.0, 2) FROM cleanup_runs ORDER BY run_id DESC LIMIT 1'), '2.86', '... and what the history says');

# ---- a failed session whose file is uploaded again under its name (DumbWareio/DumbDrop#81): docs/references.md ----

put_file($dir, 'again.mp3', hours => 0);
sql(q{INSERT INTO sessions (audio_url, status, updated_at) VALUES ('again.mp3', 'failed', now() - interval '30 days')});
is(explain_file('again.mp3')->{verdict}, 'condemned', 'what counts is when the session failed');
sql(q{UPDATE sessions SET status = 'pending' WHERE audio_url = 'again.mp3'});
is(explain_file('again.mp3')->{verdict}, 'kept', '... so the status is written first');

# ---- a partition that somebody has locked, as while it is loaded anew: the source must not be forgotten for that ----

sql(q{CREATE TABLE parts (id int, audio_url text) PARTITION BY RANGE (id)}, q{CREATE TABLE part PARTITION OF parts FOR VALUES FROM (0) TO (9)},
	q{SELECT cleanup_add_source('parts', '{audio_url}')});
my $locker = begin_session($node, 'TRUNCATE part');
my $error = sql_error($node, q{SET audio_cleanup.writer_wait = '200ms'; SELECT cleanup_all()});
like($error, qr/ERROR:  55P03: could not read source public\.parts: .*\nHINT:  Somebody has locked it\. Try again/s, 'the hint is to try again');
unlike($error, qr/cleanup_drop_source/, '... and not to forget it');
end_session($locker, 'ROLLBACK');
sql(q{SELECT cleanup_drop_source('parts')});

# ---- one table is restored, as pg_restore --clean --table does it: the old one has a number only, by which it is forgotten ----

sql('CREATE TABLE songs (audio_url text)', q{SELECT cleanup_add_source('songs')}, 'DROP TABLE songs', 'CREATE TABLE songs (audio_url text)');
($error) = sql_error($node, 'SELECT cleanup_all()');
like($error, qr/ERROR:  42P01: source with OID \d+ no longer exists\n.*DETAIL:  public\.songs was dropped/, 'a table that was restored is another one');
my ($forget) = $error =~ /(SELECT cleanup_drop_source\(\d+\))/;
sql(q{SELECT cleanup_add_source('songs')}, $forget);
ok(sql_json($node, 'SELECT cleanup_all(true)')->{success}, '... and the message says how the old one is forgotten');
sql(q{SELECT cleanup_drop_source('songs')});

# ---- settings that cannot be used: a unit, a misspelled name (apache/pulsar#16082, OpenCTI-Platform/opencti#8230) ----

put_file($dir, 'orphan.mp3');
foreach my $case ([ 'DATABASE postgres', 'backup_retention_days', q{'30 days'} ], [ 'ROLE ALL', 'orphaned_file_retention_hours', q{'30d'} ],
	[ 'DATABASE postgres', 'orphan_retention_hours', 720 ], [ 'ROLE ALL IN DATABASE postgres', 'upload_dir', q{'gs://bucket/audio'} ])
{
	my ($whose, $setting, $value) = @$case;

	# a session that has not loaded the library accepts anything
	sql("ALTER $whose SET audio_cleanup.$setting = $value");
	like(sql_error($node, 'CALL cleanup_run()'), qr/ERROR:  22023: parameter "audio_cleanup\.$setting" cannot be set as it is/, "$setting = $value: a run is refused");
	is(sql_json($node, 'SELECT cleanup_all(true)')->{blocked_by}[0], 'settings', '... a preview says so');
	is(sql(q{SELECT count(*) > 0 FROM cleanup_check() WHERE check_name = 'settings' AND status = 'error'}), 't', '... and so does cleanup_check()');
	ok(-e "$dir/orphan.mp3", '... nothing is deleted');
	sql("ALTER $whose RESET audio_cleanup.$setting");
}
sql(q{ALTER DATABASE postgres SET audio_cleanup.orphaned_file_retention_hours = 720});
is(sql_json($node, 'SELECT cleanup_all(true)')->{result}{orphaned_files_count}, 0, 'a setting that can be used is used');

# ---- backups keep their days (nextcloud/server#10862) ----

sql(q{ALTER DATABASE postgres RESET audio_cleanup.orphaned_file_retention_hours}, q{ALTER DATABASE postgres SET audio_cleanup.backup_retention_days = 30});
sql('SELECT cleanup_all()');
ok(wait_for_drain($node), 'a file is kept as backup');
sql(q{ALTER DATABASE postgres SET audio_cleanup.backup_retention_days = 0});
is(sql_json($node, 'SELECT cleanup_purge_backups()')->{result}{backups_count}, 0, 'another number of days is for later runs');
is(sql(q{SELECT file, expires_at > now() + interval '29 days' FROM cleanup_backups}), 'orphan.mp3|t', '... the backup stays');

is_deeply({ map { $_ => visible_files($dir)->{$_} } keys %$wanted }, $wanted, 'no wanted file was touched');
$node->stop;
is(log_lines($node, qr/PANIC:|TRAP:|signal \d+/), '', 'no process has died');
done_testing();
