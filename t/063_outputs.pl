# What README.md and docs/ print below a block of SQL is what the program
# prints: each block is run here, in an application whose files are made to
# measure.  Moments, sizes of disks and the name of the upload directory are
# not compared.  The documents as they are printed now are left in
# tmp_check/documents; script/docs --write takes them from there.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use Mail;
use File::Path qw(make_path remove_tree);
use PostgreSQL::Test::Utils;
use Test::More;

my $root = "$FindBin::RealBin/..";
my $node = new_server('outputs', conf => "shared_preload_libraries = 'audio_cleanup'\n");
my $dir = upload_dir($node);
my $shown_dir = '/srv/app/uploads/audio';
my $printed = "$PostgreSQL::Test::Utils::tmp_check/documents";

# ---- the application ----

# A file that takes so many bytes on the disk.
sub put_bytes
{
	my ($name, $bytes, $hours) = @_;
	put_file($dir, $name, content => 'x' x $bytes, hours => $hours // 480);
	return;
}

sub app { return $node->safe_psql('app', $_[0]); }

# A new database, with nothing in it but the table, and an empty directory.
sub fresh_app
{
	my ($rows) = @_;

	change_settings($node, 'audio_cleanup.databases' => '', 'audio_cleanup.debug_clock_offset' => 0);
	$node->safe_psql('postgres', $_) foreach 'DROP DATABASE IF EXISTS app WITH (FORCE)', 'CREATE DATABASE app';
	remove_tree($dir);
	make_path($dir);
	make_schema($node, 'app');
	app("TRUNCATE sessions; INSERT INTO sessions (audio_url, status, updated_at) $rows");
	return;
}

sub id { return sprintf '5e551014-0000-4000-8000-%012d', $_[0]; }

# Those of script/demo that matter here; what goes takes as much space as there.
sub demo_app
{
	my %gone = (id(8) . '.wav' => 96044, id(8) . '_processed.mp3' => 60000, id(12) . '.mp3' => 60000,
		id(77) . '.wav' => 96044, id(77) . '_processed.mp3' => 60000, id(78) . '.mp3' => 59524,
		'archive/2025/first talk.mp3' => 60000, 'upload 4711 (copy).wav' => 64044);

	fresh_app(q{SELECT '', '', now() LIMIT 0});
	app('SELECT cleanup_drop_source(\'sessions\'); ALTER TABLE sessions ALTER id DROP DEFAULT');
	app(sprintf q{INSERT INTO sessions (id, audio_url, status, updated_at)
		VALUES ('%s', 'uploads/audio/%s', '%s', now() AT TIME ZONE 'UTC' - interval '%d days')}, id($_->[0]), id($_->[1]) . $_->[2], $_->[3], $_->[4])
	  foreach [ 1, 1, '.wav', 'pending', 0 ], [ 4, 4, '.mp3', 'transcribed', 3 ], [ 6, 6, '.mp3', 'processed', 40 ],
		[ 8, 8, '.wav', 'failed', 10 ], [ 9, 9, '.mp3', 'failed', 12 ], [ 10, 9, '.mp3', 'transcribed', 11 ],
		[ 11, 11, '.wav', 'failed', 2 ], [ 12, 12, '.mp3', 'failed', 30 ];
	put_bytes($_, $gone{$_}) foreach keys %gone;
	put_bytes($_, 1000) foreach map({ id($_) . '.mp3' } 4, 6, 9), map({ id($_) . '.wav' } 1, 11);
	put_bytes('upload 4712.wav', 1000, 3);
	return;
}

sub undo_app
{
	fresh_app(q{SELECT 'wanted.mp3', 'processed', now()});
	put_bytes('wanted.mp3', 1000);
	put_bytes('2026/05/memo.wav', 192080);
	put_bytes('upload 4715.wav', 128080);
	app('ALTER SEQUENCE cleanup_runs_run_id_seq RESTART 5');
	return;
}

# Three runs, the first of them two days ago; the second is refused, because the table is empty.
my $notification;

sub watched_app
{
	fresh_app(q{SELECT '/uploads/s' || n || '.mp3', CASE WHEN n IN (7, 8) THEN 'failed' ELSE 'processed' END,
		now() - interval '9 days' FROM generate_series(1, 40) n});
	put_bytes("s$_.mp3", $_ == 7 || $_ == 8 ? 300000 : 1000) foreach grep { $_ != 11 } 1 .. 40;
	put_bytes("first $_.mp3", 1700000) foreach 1 .. 7;
	app('CALL cleanup_run()');
	wait_for_drain($node, 'app');
	app("UPDATE cleanup_runs SET started_at = started_at - interval '2 days', finished_at = finished_at - interval '2 days'");
	app("UPDATE cleanup_files SET condemned_at = condemned_at - interval '2 days', finished_at = finished_at - interval '2 days'");
	put_bytes("second $_.mp3", 900000) foreach 1 .. 2;
	app('CREATE TABLE aside AS SELECT * FROM sessions; TRUNCATE sessions');
	$node->psql('app', 'CALL cleanup_run()');
	app('INSERT INTO sessions SELECT * FROM aside; DROP TABLE aside');
	$notification = psql("LISTEN audio_cleanup;\nCALL cleanup_run();\n");
	wait_for_drain($node, 'app');
	# a night that is far away from this hour
	change_settings($node, 'audio_cleanup.databases' => 'app', 'audio_cleanup.cleanup_schedule_hour' => ((gmtime)[2] + 12) % 24);
	$node->poll_query_until('app', q{SELECT next_run IS NOT NULL FROM cleanup_next_run()});
	return;
}

sub mail_app
{
	my $password = "$dir/../password";

	fresh_app(q{SELECT 'wanted.mp3', 'processed', now()});
	append_to_file($password, "secret\n");
	chmod 0644, $password;
	app("ALTER DATABASE app SET audio_cleanup.$_") foreach q{smtp_url = 'smtp://mail.example.com:587'}, q{smtp_user = 'audio_cleanup'},
	  q{mail_from = 'postgres@db1.example.com'}, q{mail_to = 'dba@example.com'}, "smtp_password_file = '$password'";
	return;
}

# Two nights; before the second one the table is emptied.
sub night_app
{
	fresh_app(q{SELECT n || '.mp3', 'processed', now() FROM generate_series(1, 420) n});
	put_bytes("$_.mp3", 10) foreach 1 .. 420;
	put_bytes("orphan $_.mp3", 10) foreach 1 .. 412;
	change_settings($node, 'audio_cleanup.cleanup_schedule_hour' => 3);
	set_schedule_clock($node, '2026-11-24 02:50:00', 'audio_cleanup.databases' => 'app');
	launcher_says($node, 'sleeping until 2026-11-24 03:00:00+00');
	let_day_pass($node, '2026-11-24');
	wait_for_drain($node, 'app');
	app('TRUNCATE sessions');
	unlink map { "$dir/$_.mp3" } 41 .. 420;
	let_day_pass($node, '2026-11-25');
	return;
}

# The mail about a run of which two files could not be removed.
sub check_mail
{
	my ($document) = @_;
	my ($shown) = $document =~ /^```\n(From: .*?)^```/ms;
	my $server = start_mail_server();

	fresh_app(q{SELECT n || '.mp3', 'processed', now() FROM generate_series(1, 420) n});
	put_bytes("$_.mp3", 10) foreach 1 .. 420;
	put_bytes("orphan $_.mp3", 10) foreach 1 .. 412;
	put_bytes("archive/2025/$_ talk.mp3", 10) foreach qw(first second);
	chmod 0555, "$dir/archive/2025";
	app("ALTER DATABASE app SET audio_cleanup.$_") foreach "smtp_url = 'smtp://localhost:$server->{port}'", q{smtp_tls = off},
	  q{mail_from = 'postgres@db1.example.com'}, q{mail_to = 'dba@example.com, boss@example.com'}, q{mail_on = 'problems'};
	app('CALL cleanup_run()');
	my ($mail) = wait_for_mails($server, 1);
	chmod 0755, "$dir/archive/2025";
	my $found = join '', map({ "$_: " . (header($mail, $_) =~ s/\s+/ /gr) . "\n" } qw(From To Subject)), "\n", $mail->{parts}{'text/plain'};
	is(comparable_mail($found), comparable_mail($shown), 'docs/mail.md: the mail');
	stop_mail_server($server);
	return;
}

# Without the server's name, the space freed and the duration.
sub comparable_mail
{
	my ($text) = @_;
	$text =~ s/\boutputs\b/db1/g;
	$text =~ s/\b[\d.]+ [KMG]?i?B\b/SPACE/g;
	$text =~ s/^(Duration).*/$1/mg;
	return comparable($text);
}

# ---- the blocks that are run, in their order; undef: only its columns are compared, by 062_documents.pl ----

my %scenes = (
	'README.md' => [ \&demo_app, sub { }, sub { } ],
	'undo.md' => [ \&undo_app, sub { put_bytes('upload 4715.wav', 10, 0) }, sub { }, sub { } ],
	'watching.md' => [ undef, \&watched_app, sub { }, sub { } ],
	'mail.md' => [ \&mail_app ],
	'night.md' => [ \&night_app ]);

# What psql prints, messages included.
sub psql
{
	my ($sql, @options) = @_;
	my $output = '';

	IPC::Run::run([ 'psql', '-X', '-q', '-P', 'footer=off', '-P', 'pager=off', @options, '-d', $node->connstr('app'), '-f', '-' ],
		'<', \$sql, '>', \$output, '2>&1');
	$output =~ s/^psql:<stdin>:\d+: ([A-Z]+: .*\n)/$1\n/mg;
	return $output =~ s/[ \t]+$//mgr;
}

# The tables and other paragraphs that a block prints; a statement waits for the workers of the one before it.
sub paragraphs
{
	my ($block) = @_;
	my @paragraphs;

	$block =~ s/--.*$//mg;
	$block =~ s/^\\.*$//mg;
	$block =~ s/'\Q$shown_dir\E'/'$dir'/g;
	foreach my $statement (grep { /\S/ } split /;\s*(?:\n|$)/, $block)
	{
		push @paragraphs, grep { /\S/ } split /\n\n+/, psql("$statement;\n", $statement =~ /jsonb_pretty/ ? '-At' : ());
		wait_for_drain($node, 'app') if $statement =~ /cleanup_(all|restore)\(/;
	}
	return map { s/\s*$/\n/r } @paragraphs;
}

# A table again, with the directory that the documents speak of.
sub show_directory
{
	my ($paragraph) = @_;
	return $paragraph unless $paragraph =~ /\Q$dir\E/;
	$paragraph =~ s/\Q$dir\E/$shown_dir/g;
	return $paragraph unless $paragraph =~ /^.*\n-[-+]*\n/;

	my @rows = map { [ split /\|/ ] } grep { !/^-[-+]*$/ } split /\n/, $paragraph;
	my ($head, @rest) = @rows;
	my $last = $#$head;
	my ($width) = sort { $b <=> $a } map { length($_->[$last] =~ s/\s+$//r) } @rest;
	my ($name) = $head->[$last] =~ /(\S+)/;
	my $left = int(($width + 1 - length $name) / 2);
	$head->[$last] = ' ' x $left . $name;
	my $line = join '+', map({ '-' x length $head->[$_] } 0 .. $last - 1), '-' x ($width + 1);
	return join "\n", join('|', @$head), $line, map({ join('|', @$_) =~ s/\s+$//r } @rest), '';
}

# What tells one paragraph from another: the columns of a table, or the first word.
sub kind
{
	my ($paragraph) = @_;
	return $paragraph =~ /^(.*)\n-[-+]*\n/ ? $1 =~ s/\s+/ /gr =~ s/^ | $//gr : $paragraph =~ /^\s*(\S+)/ ? $1 : '';
}

sub comparable
{
	my ($text) = @_;
	$text =~ s/\Q$dir\E/$shown_dir/g;
	$text =~ s/\b20\d\d-\d\d-\d\d\b/DAY/g;
	$text =~ s/\b\d\d:\d\d:\d\d(?:\.\d+)?(?:[+-]\d\d)?/TIME/g;
	$text =~ s/\bPID \d+/PID/g;
	$text =~ s/\b\d{9,}(?:\.\d+)?\b/MANY/g;
	$text =~ s/\b\d\.\d{4,}\b/SECONDS/g;
	$text =~ s/-{2,}/--/g;
	$text =~ s/ *\n */\n/g;
	return $text =~ s/ +/ /gr =~ s/^ | $//gr;
}

# ---- main ----

make_path($printed);
foreach my $path ('README.md', map { s{^\Q$root/\E}{}r } sort glob("$root/docs/*.md"))
{
	my $name = $path =~ s{.*/}{}r;
	my $text = slurp_file("$root/$path");
	my @scenes = @{ $scenes{$name} // [] };
	my $expected = @scenes;
	my $new = '';
	my $done = 0;

	while ($text =~ /\G(.*?^```sql\n((?:(?!```)[^\n]*\n)*)```\n```\n)((?:(?!```)[^\n]*\n)*)/msgc)
	{
		my ($before, $block, $output) = ($1, $2, $3);
		my $scene = shift @scenes;
		my @paragraphs;

		$new .= $before;
		if (defined $scene)
		{
			$scene->();
			my %printed = map { kind($_) => show_directory($_) } paragraphs($block);
			foreach my $shown (split /\n\n+/, $output)
			{
				my $found = $printed{ kind($shown) } // '';
				my $same = is(comparable($found), comparable($shown =~ s/\n*$/\n/r), "$path: " . ($block =~ /^(.*)/)[0]);
				push @paragraphs, $same ? $shown =~ s/\n*$/\n/r : $found;
			}
			$output = join "\n", @paragraphs;
		}
		$new .= $output;
		$done++;
	}
	is($done, $expected, "$path: each output has its scene");
	$new .= substr $text, pos($text) // 0;
	check_mail($text) if $name eq 'mail.md';
	if (defined $notification && $text =~ /^(Asynchronous notification.*)$/m)
	{
		my $shown = $1;
		my ($found) = $notification =~ /^(Asynchronous notification.*)$/m;
		is(comparable($found // 'nothing'), comparable($shown), "$path: the notification");
	}
	append_to_file("$printed/" . ($path =~ s{/}{+}r), $new);
}

# the line about a run in the server log, whatever its figures
my ($shown_line) = slurp_file("$root/docs/reference.md") =~ /^LOG:  (.*)$/m;
my ($found_line) = slurp_file($node->logfile) =~ /LOG:  (cleanup run .*)$/m;
is($found_line =~ s/[\d.]+/N/gr, $shown_line =~ s/[\d.]+/N/gr, 'docs/reference.md: the line about a run');

done_testing();
