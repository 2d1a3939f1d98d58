# Two databases, and the directory of one lies in the directory of the other: each would delete what only the other one
# refers to.  Whoever comes second is refused.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use File::Path qw(make_path remove_tree);
use JSON::PP qw(decode_json);
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('one_owner', conf => "audio_cleanup.max_delete_percent = 100\n");
my $dir = upload_dir($node);
my $inner = "$dir/tenants/one";
make_schema($node);
put_files($dir, 'wanted.mp3', 'orphan.mp3', 'tenants/one/theirs.mp3', 'tenants/one/gone.mp3', 'tenants/two/gone.mp3');
add_rows($node, 'wanted.mp3');
$node->safe_psql('postgres', 'CREATE DATABASE one');
$node->safe_psql('postgres', "ALTER DATABASE one SET audio_cleanup.upload_dir = '$inner'");
make_schema($node, 'one');
$node->safe_psql('one', q{INSERT INTO sessions (audio_url) VALUES ('theirs.mp3')});

my @real = ('SELECT cleanup_all()', 'SELECT cleanup_all(force => true)', 'CALL cleanup_run(force => true)');

# Nothing is deleted, and the reason is told, with this first line and this detail.
sub refused
{
	my ($database, $name, $message, $detail, @statements) = @_;
	my $before = visible_files($dir);
	my $answer;

	foreach my $statement (@statements)
	{
		my (undef, undef, $stderr) = $node->psql($database, "\\set VERBOSITY verbose\n$statement");
		like($stderr, qr/ERROR:  55006: $message\nDETAIL:  $detail\nHINT:  Let one database clean the whole/, "$name: $statement");
	}
	$answer = decode_json($node->safe_psql($database, 'SELECT cleanup_status()'));
	is_deeply($answer->{blocked_by}, ['claim'], "$name: cleanup_status() tells of it");
	is($node->safe_psql($database, q{SELECT status, hint ~ 'remove its folder' FROM cleanup_check() WHERE check_name = 'claim' AND status <> 'ok'}),
		'error|t', "$name: so does cleanup_check()");
	ok(wait_for_drain($node, $database), "$name: nothing is under way");
	is_deeply(visible_files($dir), $before, "$name: no file was touched");
	return;
}

sub cleaned
{
	my ($database, $statement, $name, @left) = @_;
	$node->safe_psql($database, $statement);
	ok(wait_for_drain($node, $database), "$name: the run ends");
	is(join(' ', sort keys %{ visible_files($dir) }), join(' ', sort @left), "$name: what is left");
	return;
}

# ---- the inner one was first ----

cleaned('one', 'SELECT cleanup_all()', 'the inner one', qw(orphan.mp3 wanted.mp3 tenants/one/theirs.mp3 tenants/two/gone.mp3));
refused('postgres', 'the outer one', qr/upload directory "\Q$dir\E" contains the upload directory of another database/,
	qr/Database "one" \(OID \d+\) of this cluster, or a copy of it, has claimed "\Q$inner\E"\./, @real);
ok(!-e "$dir/.audio_cleanup/claim", 'the outer one has claimed nothing');
is($node->safe_psql('postgres', 'SELECT count(*) FROM cleanup_missing_files()'), 1, 'what deletes nothing does not mind');

# ---- what the other one cannot be asked for is in doubt ----

my $claim = read_file("$inner/.audio_cleanup/claim");
open my $file, '>', "$inner/.audio_cleanup/claim" or die;
print $file 'garbage';
close $file;
refused('postgres', 'garbage', qr/upload directory "\Q$dir\E" contains the upload directory of another database/,
	qr/"\Q$inner\E" has a claim that cannot be read\./, @real);
foreach my $mode (0, 0777)
{
	chmod $mode, "$inner/.audio_cleanup" or die;
	refused('postgres', 'its folder is not ours alone', qr/upload directory "\Q$dir\E" contains the upload directory of another database/,
		qr/"\Q$inner\E" has a claim that cannot be read\./, $real[0]);
}
chmod 0700, "$inner/.audio_cleanup" or die;
open $file, '>', "$inner/.audio_cleanup/claim" or die;
print $file $claim =~ s/^(system_identifier=)\d+/${1}42/mr;
close $file;
refused('postgres', 'another cluster', qr/upload directory "\Q$dir\E" contains the upload directory of another database/,
	qr/Database "one" of another cluster \(system identifier 42\) has claimed "\Q$inner\E"\./, @real);

# ---- a folder without a claim is no obstacle; then the outer one was first ----

unlink "$inner/.audio_cleanup/claim" or die;
put_file($dir, 'tenants/one/theirs.mp3', hours => 0);
cleaned('postgres', 'SELECT cleanup_all()', 'the outer one', qw(wanted.mp3 tenants/one/theirs.mp3));
put_files($dir, 'tenants/one/gone.mp3', 'tenants/one/theirs.mp3');
$node->safe_psql('one', 'DELETE FROM cleanup_claims');
refused('one', 'the inner one', qr/upload directory "\Q$inner\E" lies in the upload directory of another database/,
	qr/Database "postgres" \(OID \d+\) of this cluster, or a copy of it, has claimed "\Q$dir\E"\./, @real, 'SELECT cleanup_claim_upload_dir()');
$node->safe_psql('postgres', "ALTER DATABASE one SET audio_cleanup.upload_dir = '$dir/link'");
symlink $inner, "$dir/link" or die;
refused('one', 'the inner one, by a symlink', qr/upload directory "\Q$dir\E\/link" lies in the upload directory of another database/,
	qr/Database "postgres" .* has claimed "\Q$dir\E"\./, @real);

# ---- nor are backups kept where another one cleans ----

make_path("$dir-two", "$dir/backups");
chmod 0700, "$dir/backups" or die;
put_file("$dir-two", 'gone.mp3');
like(sql_error($node, "ALTER DATABASE one SET audio_cleanup.upload_dir = '$dir-two'; ALTER DATABASE one SET audio_cleanup.backup_dir = '$dir/backups'"),
	qr/^$/, 'backups in the directory of another database');
(undef, undef, my $stderr) = $node->psql('one', "\\set VERBOSITY verbose\nSET audio_cleanup.backup_retention_days = 7; SELECT cleanup_all(force => true)");
like($stderr, qr/ERROR:  55006: backup directory "\Q$dir\E\/backups" lies in the upload directory of another database\nDETAIL:  Database "postgres" /, 'are refused');
is_deeply([ keys %{ visible_files("$dir-two") } ], ['gone.mp3'], 'and nothing is deleted');
$node->safe_psql('postgres', 'ALTER DATABASE one RESET audio_cleanup.backup_dir');
rmdir "$dir/backups" or die;

# ---- beside is not below ----

make_path("$dir-two");
put_file("$dir-two", 'gone.mp3');
$node->safe_psql('postgres', "ALTER DATABASE one SET audio_cleanup.upload_dir = '$dir-two'");
$node->safe_psql('one', 'SELECT cleanup_all(force => true)');
ok(wait_for_drain($node, 'one'), 'the one beside is cleaned');
is_deeply(visible_files("$dir-two"), {}, 'a name that begins alike is no directory above');

# ---- one database may clean a part of its own, and the whole again ----

put_files($dir, 'tenants/two/gone.mp3', 'orphan.mp3');
unlink "$dir/tenants/one/theirs.mp3" or die;
cleaned('postgres', "SET audio_cleanup.upload_dir = '$dir/tenants/two'; SELECT cleanup_all(force => true)", 'a part',
	qw(orphan.mp3 wanted.mp3 tenants/one/gone.mp3));
cleaned('postgres', 'SELECT cleanup_all()', 'the whole', 'wanted.mp3');

remove_tree("$dir-two");
$node->stop;
done_testing();
