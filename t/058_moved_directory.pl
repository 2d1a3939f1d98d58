# What is recorded belongs to the claim, and not to the name that the upload
# directory had: it may be moved, reached by a symlink, or copied to another
# disk, where every file has another inode.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('moved', conf => <<'END');
audio_cleanup.backup_retention_days = 3
audio_cleanup.max_delete_percent = 100
max_prepared_transactions = 5
END
my $dir = upload_dir($node);
my $here = $dir;
my $round = 0;
my %all;

make_schema($node);
add_rows($node, 'wanted.mp3');
$all{'wanted.mp3'} = put_file($here, 'wanted.mp3');

# From now on the directory is called that.
sub call_it
{
	my ($name) = @_;

	$node->safe_psql('postgres', "ALTER SYSTEM SET audio_cleanup.upload_dir = '$name'");
	$node->reload;
	$node->poll_query_until('postgres', "SELECT current_setting('audio_cleanup.upload_dir') = '$name'") or die;
	return;
}

# Three files of a new folder, in the trash.
sub back_up
{
	my @names = map { 'r' . ($round + 1) . "/$_.mp3" } 1 .. 3;

	$round++;
	$all{$_} = put_file($here, $_) foreach @names;
	sql('SELECT cleanup_all()');
	ok(wait_for_drain($node), "round $round: backed up");
	is(scalar(grep { trashed_files($here)->{$_} } @names), 3, '... three files');
	return @names;
}

sub all_is_well
{
	my ($name, %more) = @_;
	my $drained = wait_for_drain($node);

	is_deeply($drained ? undo_violations($node, $here, { files => \%all, final => 1, %more }) : ['not drained'], [], $name);
	return;
}

sub state_of
{
	my ($file) = @_;
	return sql("SELECT string_agg(state, ' ' ORDER BY file_id) FROM cleanup_files WHERE file = '$file'");
}

# ---- moved ----

my ($first, $second, $third) = back_up();
rename $dir, "$dir.moved" or die;
$here = "$dir.moved";
call_it($here);
is(sql("SELECT cleanup_restore('$first') #>> '{result,error_count}'"), '0', 'moved: a file is restored');
all_is_well('moved: it is back');
ok(-f "$here/$first", '... in its place');
is(sql("SELECT count(*) FROM cleanup_backups WHERE path LIKE '$here/.audio_cleanup/%'"), '2',
	'the view says where the others are');
is(sql("SELECT count(*) FROM cleanup_backups WHERE (pg_stat_file(path)).size = size"), '2', '... and they are there');
is(sql("SELECT cleanup_explain('$second') ->> 'backup' IS NOT NULL"), 't', 'cleanup_explain knows of them')
  if sql("SELECT cleanup_explain('$second') ? 'backup'") eq 't';

# ---- a restored file keeps its grace, whatever the directory is called ----

symlink $here, "$dir.link" or die;
call_it("$dir.link");
sql('SELECT cleanup_all()');
all_is_well('by a symlink: a run');
ok(-f "$here/$first", '... leaves alone what was restored');

# ---- a backup that is needed again is put back ----

add_rows($node, $second);
sql('SELECT cleanup_all()');
all_is_well('by a symlink: healed');
ok(-f "$here/$second", '... what a row refers to');
call_it("$dir.link/");
is(sql("SELECT cleanup_restore(run_id) #>> '{result,files_count}' FROM cleanup_files WHERE file = '$third'"), '1',
	'by a slash at its end: the run is undone');
all_is_well('the rest is back');

# ---- another disk, under another name than the one that is known ----

mkdir "$dir.empty" or die;
unlink "$dir.link" or die;
symlink "$dir.empty", "$dir.link" or die;
put_file("$dir.empty", 'fresh.mp3');
like(($node->psql('postgres', 'SELECT cleanup_all(force => true)'))[2], qr/the claim is gone/,
	'an empty disk where the directory was seen last is refused');
unlink "$dir.link" or die;
symlink "$dir.empty", "$dir.other" or die;
symlink $here, "$dir.link" or die;
call_it("$dir.link");

# ---- a disk that was copied ----

($first, $second, $third) = back_up();
my @pending = map { "prepared/$_.mp3" } 1 .. 2;
$all{$_} = put_file($here, $_) foreach @pending;
sql('BEGIN', 'SELECT cleanup_all()', "PREPARE TRANSACTION 'copied'");
system_or_bail('sh', '-c', "cp -a '$here' '$dir.copy' && rm -r '$here'");
$here = "$dir.copy";
call_it($here);
sql("COMMIT PREPARED 'copied'");
is(sql("SELECT cleanup_restore('$first') #>> '{result,error_count}'"), '0', 'copied: a file is restored');
all_is_well('copied: it is back, and what was pending is looked at again');
ok(-f "$here/$first", '... in its place');
is(join(' ', map { state_of($_) } @pending), 'skipped skipped', 'a file that was not captured yet is not the same by its size and time');
ok(-f "$here/$_", "$_ is there") foreach @pending;

# and expires
sql("UPDATE cleanup_files SET due_at = condemned_at WHERE file = '$second' AND state = 'trashed'");
is(sql("SELECT cleanup_purge_backups() #>> '{result,backups_count}'"), '1', 'copied: a backup expires');
delete $all{$second};
all_is_well('copied: purged');
is(state_of($second), 'deleted', 'its row says deleted');
ok(!trashed_files($here)->{$second}, '... and so it is');
is(sql("SELECT cleanup_restore('$third') #>> '{result,error_count}'"), '0', 'the last is restored');
all_is_well('it is back');
ok(!-e "$here/.audio_cleanup/trash", 'the trash is empty');

# a disk whose archive has cut the times to seconds
($first, $second, $third) = back_up();
system_or_bail('sh', '-c', "cd '$here' && find .audio_cleanup/trash -type f | while read f; do t=\$(stat -c %Y \"\$f\"); cp \"\$f\" \"\$f.new\"; touch -d \@\$t \"\$f.new\"; mv \"\$f.new\" \"\$f\"; done");
is(sql("SELECT cleanup_restore(max(run_id)) #>> '{result,error_count}' FROM cleanup_files WHERE file = '$first'"), '0',
	'seconds: all are restored');
all_is_well('seconds: they are back');

# ---- rolled back: nothing has happened to files ----

my $now = sub { return [ sort map { chomp; $_ } `cd '$here' && find . ! -name claim -printf '%P %i %y\\n'` ] };
mkdir "$here/.audio_cleanup/trash" or die;
mkdir "$here/.audio_cleanup/trash/4711" or die;
chmod 0700, "$here/.audio_cleanup/trash", "$here/.audio_cleanup/trash/4711";
$all{'stray.mp3'} = put_file("$here/.audio_cleanup/trash/4711", 'stray.mp3');
my $before = $now->();
sql('BEGIN', 'SELECT cleanup_all()', 'ROLLBACK');
is_deeply($now->(), $before, 'a run that is rolled back leaves a stray where it was');
sql('SELECT cleanup_all()');
all_is_well('a run that commits puts it back');
ok(-f "$here/stray.mp3", '... with its commit');

# ---- claimed anew, the database keeps what is its own ----

($first, $second, $third) = back_up();
unlink "$here/.audio_cleanup/claim" or die;
like(($node->psql('postgres', "SELECT cleanup_restore('$first')"))[2], qr/the claim is gone/, 'without its claim nothing is restored');
sql('SELECT cleanup_claim_upload_dir()');
is(sql("SELECT cleanup_restore('$first') #>> '{result,error_count}'"), '0', 'after it was claimed anew it is');
all_is_well('claimed anew');
is(sql('SELECT count(DISTINCT claim) FROM cleanup_runs WHERE claim IS NOT NULL'), '1', 'all runs belong to the new claim');

# ---- a backup directory that was moved ----

sub keep_backups_in
{
	my ($name) = @_;
	$node->append_conf('postgresql.conf', "audio_cleanup.backup_dir = '$name'\n");
	$node->reload;
	return $node->poll_query_until('postgres', "SELECT current_setting('audio_cleanup.backup_dir') = '$name'");
}

mkdir "$dir.backups", 0700 or die;
keep_backups_in("$dir.backups");
my $content = put_file($here, 'elsewhere.mp3');
sql('UPDATE cleanup_claims SET grace_from = NULL');
sql('SELECT cleanup_all()');
ok(wait_for_drain($node), 'a backup in another directory');
ok(!-e "$here/elsewhere.mp3", '... is made');
rename "$dir.backups", "$dir.moved_backups" or die;
keep_backups_in("$dir.moved_backups");
is(sql("SELECT cleanup_restore('elsewhere.mp3') #>> '{result,error_count}'"), '0', '... and restored from where that is now');
ok(wait_for_drain($node), '... recorded');
is(read_file("$here/elsewhere.mp3"), $content, '... whole');

$node->stop;
done_testing();
