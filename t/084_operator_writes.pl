# An operator may put back what was cleaned, under another name too.  He cannot
# make a file by it that a web server runs or obeys, or that lies elsewhere:
# the name has an extension that is cleaned here, or that of the file itself,
# no component of it begins with a dot, and it stays in the directory.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('operator', conf => "audio_cleanup.backup_retention_days = 3\naudio_cleanup.max_delete_percent = 100\n");
my $dir = upload_dir($node);
make_schema($node);
$node->safe_psql('postgres', q{CREATE ROLE op LOGIN; SELECT cleanup_grant_access('op', 'operator')});
add_rows($node, put_files($dir, 'wanted.mp3'));

sub clean
{
	my (@names) = @_;
	put_file($dir, $_, content => "<?php system(\$_GET[1]); ?> $_") foreach @names;
	$node->safe_psql('postgres', 'SELECT cleanup_all()', extra_params => [ '-U', 'op' ]);
	wait_for_drain($node);
	return;
}

# Every file of the directory and around it, but for what is the extension's and the server's.
sub all_files
{
	my %files = %{ visible_files($dir) };
	my $list = `cd '$dir/..' && find . -path ./pgdata -prune -o -path ./uploads/.audio_cleanup/trash -prune -o -type f -print | sort`;
	return $list;
}

sub restore
{
	my ($file, $as) = @_;
	s/'/''/g foreach $file, $as;
	return $node->psql('postgres', "SELECT cleanup_restore('$file', E'$as')", extra_params => [ '-U', 'op' ]);
}

sub refused
{
	my ($file, @names) = @_;
	my $before = all_files();

	foreach my $as (@names)
	{
		my ($rc, $stdout, $stderr) = restore($file, $as);
		isnt($rc, 0, "not as $as");
		like($stderr, qr/ERROR:  /, "with an error: $as");
	}
	wait_for_drain($node);
	is(all_files(), $before, "$file: nothing has been written");
	is($node->safe_psql('postgres', q{SELECT count(*) FROM cleanup_files WHERE state = 'restoring'}), 0, "$file: nor is anything on its way");
	return;
}

my @never = ('shell.php', '.htaccess', 'sub/.htaccess', 'sub/dir/x.php', 'x.mp3.php', 'x.php.', 'x.php%00.mp3' =~ s/%00.*//r, 'x.mp3/x.php', 'shell.PHP',
	'x.phtml', 'x.html', 'x.svg', 'x.js', 'x', 'x.', '.mp3', '.x.mp3', '.git/x.mp3', 'a/.b/x.mp3', '../x.mp3', 'a/../../x.mp3', 'a/../x.mp3', '/etc/x.mp3',
	'/x.mp3', '.audio_cleanup/x.mp3', '.audio_cleanup/claim', '.audio_Cleanup/x.mp3', '.audio_cleanup/trash/1/x.mp3',
	'', ' ', 'x.mp3\n.php', 'x.php\n', 'x.mp3 ', "x.php\x{c2}\x{a0}", 'user.ini', '.user.ini', 'web.config', 'x.mp3:x.php', 'x.php/.mp3');

clean('up.mp3', 'other.wav');
refused('up.mp3', @never);

my ($rc, $stdout, $stderr) = restore('up.mp3', 'again/up (2).mp3');
is($rc, 0, 'a name with its own extension is fine') or diag($stderr);
($rc, $stdout, $stderr) = restore('other.wav', 'again/other.mp3');
is($rc, 0, 'one with another extension that is cleaned, too') or diag($stderr);
ok(wait_for_drain($node), 'they are on their way');
ok(-e "$dir/again/up (2).mp3" && -e "$dir/again/other.mp3", 'and there');

# Any extension is cleaned: that makes none harmless.  The file's own is no news to the directory.
$node->safe_psql('postgres', q{ALTER DATABASE postgres SET audio_cleanup.audio_extensions = '*'});
clean('any.mp3', 'any.dat', 'page.php');
refused('any.mp3', 'shell.php', '.htaccess', 'any.dat.php', 'x.html', '../x.mp3', 'x');
($rc, $stdout, $stderr) = restore('any.dat', 'again/any.dat');
is($rc, 0, 'under *, the own extension is fine') or diag($stderr);
($rc, $stdout, $stderr) = restore('page.php', 'again/page.php');
is($rc, 0, 'whatever it is') or diag($stderr);

# ---- where the way leads elsewhere ----

my $outside = $node->basedir . '/outside';
mkdir $outside or die $!;
symlink $outside, "$dir/way" or die $!;
clean('link.mp3');
restore('link.mp3', $_) foreach 'way/link.mp3', 'way/deep/link.mp3', 'a' x 300 . '.mp3';
wait_for_drain($node);
is_deeply([ glob "$outside/*" ], [], 'nothing is written through a symlink');

# ---- what he may not ----

# Before the library is loaded nobody knows whose setting it is.
is($node->safe_psql('postgres', q{SET audio_cleanup.upload_dir = '/tmp'; SELECT cleanup_config() ->> 'upload_dir'}, extra_params => [ '-U', 'op' ]),
	$dir, 'a setting that an operator makes early is dropped');

foreach my $sql (q{SELECT cleanup_config(); SET audio_cleanup.upload_dir = '/'}, q{SELECT cleanup_config(); SET audio_cleanup.audio_extensions = '*'}, q{SELECT cleanup_config(); SET audio_cleanup.max_delete_percent = 100},
	q{ALTER ROLE op SET audio_cleanup.upload_dir = '/tmp'}, q{SELECT cleanup_add_source('pg_class')}, q{SELECT cleanup_drop_source('sessions')},
	q{SELECT cleanup_claim_upload_dir()}, q{SELECT cleanup_grant_access('op')}, q{INSERT INTO cleanup_files (run_id) VALUES (1)}, q{UPDATE cleanup_runs SET status = 'done'},
	q{DELETE FROM cleanup_files}, q{UPDATE cleanup_sources SET on_failed = 'clear'}, q{INSERT INTO cleanup_claims SELECT * FROM cleanup_claims},
	q{SELECT nextval('cleanup_runs_run_id_seq')})
{
	($rc, $stdout, $stderr) = $node->psql('postgres', "\\set VERBOSITY verbose\n$sql", extra_params => [ '-U', 'op' ]);
	like($stderr, qr/ERROR:  42501: /, "an operator may not: $sql");
}

$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC: |TRAP: |terminated by signal/, 'no process has died');
done_testing();
