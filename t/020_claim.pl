# Whose directory is this?  The first database that cleans in it; any other is
# refused until it takes the directory over, and then begins with patience.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('claim', start => 0, conf => "max_prepared_transactions = 5\n");
my $dir = upload_dir($node);
my $private = "$dir/.audio_cleanup";
start_with_faults($node);
make_schema($node);
add_rows($node, 'wanted.mp3');
put_files($dir, 'wanted.mp3', 'orphan.mp3');

sub claim
{
	return read_file("$private/claim");
}

sub write_claim
{
	open my $file, '>:raw', "$private/claim" or die "could not write the claim: $!";
	print $file $_[0];
	close $file or die "could not write the claim: $!";
	return;
}

sub names
{
	return join ' ', sort keys %{ visible_files($dir) };
}

sub json
{
	my ($database, $sql) = @_;
	return JSON::PP::decode_json($node->safe_psql($database, $sql));
}

# No call deletes anything, force or not; dry runs say why.
sub refused
{
	my ($database, $name, $detail) = @_;
	my $before = visible_files($dir);
	my $claim = claim();

	foreach my $statement ('SELECT cleanup_all()', 'SELECT cleanup_all(force => true)',
		'SELECT cleanup_orphaned_files(force => true)', 'SELECT cleanup_failed_sessions(force => true)',
		'CALL cleanup_run(force => true)')
	{
		my ($rc, $stdout, $stderr) = $node->psql($database, "\\set VERBOSITY verbose\n$statement");
		isnt($rc, 0, "$name: $statement is refused");
		like($stderr, qr/ERROR:  55006: upload directory "\Q$dir\E" does not belong to this database\n/, "$name: with its own error");
		like($stderr, qr/DETAIL:  $detail/, "$name: which says why");
		like($stderr, qr/HINT:  .*SELECT cleanup_claim_upload_dir\(\);/, "$name: and what to do");
	}
	foreach my $statement ('cleanup_all(dry_run => true)', 'cleanup_all(dry_run => true, force => true)',
		'cleanup_orphaned_files(true)', 'cleanup_failed_sessions(true)', 'cleanup_status()')
	{
		my $answer = json($database, "SELECT $statement");
		my $result = $answer->{result} || $answer->{potential_cleanup};
		ok(!$answer->{success}, "$name: $statement has no success");
		is_deeply($answer->{blocked_by}, ['claim'], "$name: it is blocked by the claim");
		like($result->{errors}[0], qr/does not belong to this database.*$detail/, "$name: and says why");
		is($result->{error_count}, 1, "$name: one error");
		is($result->{orphaned_files_count}, 0, "$name: it names no file");
	}
	is($node->safe_psql($database, q{SELECT status, detail ~ 'does not belong', hint ~ 'cleanup_claim_upload_dir'
		FROM cleanup_check() WHERE check_name = 'claim'}), 'error|t|t', "$name: cleanup_check() finds it");
	is_deeply(visible_files($dir), $before, "$name: no file was touched");
	is(claim(), $claim, "$name: nor the claim");
	return;
}

# ---- nobody has claimed it ----

is($node->safe_psql('postgres', q{SELECT status, detail ~ 'nobody has claimed' FROM cleanup_check() WHERE check_name = 'claim'}),
	'ok|t', 'at first the directory is nobody\'s');
ok(sql_json($node, 'SELECT cleanup_all(dry_run => true)')->{success}, 'a dry run does not mind');
ok(!-e $private, 'and claims nothing');

foreach my $statement ('SELECT cleanup_all()', 'SELECT cleanup_claim_upload_dir()',
	'SELECT cleanup_claim_upload_dir(); SELECT cleanup_all()')
{
	$node->safe_psql('postgres', "BEGIN; $statement; ROLLBACK;");
	ok(!-e $private, "$statement, rolled back, leaves no claim");
	$node->safe_psql('postgres', "BEGIN; SAVEPOINT s; $statement; ROLLBACK TO s; COMMIT;");
	ok(!-e $private, "$statement, rolled back to a savepoint, neither");
	is($node->safe_psql('postgres', 'SELECT count(*) FROM cleanup_claims'), 0, 'nor its twin');
}
is(names(), 'orphan.mp3 wanted.mp3', 'nor is a file touched');

# ---- the first run ----

$node->safe_psql('postgres', 'SELECT cleanup_all()');
like(claim(), qr/^system_identifier=(\d+)$/m, 'the first run that commits claims the directory');
my ($system) = claim() =~ /^system_identifier=(\d+)$/m;
is($system, $node->safe_psql('postgres', 'SELECT system_identifier FROM pg_control_system()'), 'in the name of this cluster');
my ($oid) = claim() =~ /^database=(\d+)$/m;
is($oid, $node->safe_psql('postgres', 'SELECT oid FROM pg_database WHERE datname = current_database()'), 'of this database');
my ($uuid) = claim() =~ /^uuid=(\S+)$/m;
is($uuid, $node->safe_psql('postgres', 'SELECT uuid FROM cleanup_claims'), 'with a UUID that has its twin in the database');
is((stat $private)[2] & 0777, 0700, 'nobody else can reach it');
is(names(), 'wanted.mp3', 'and it has done its work');
ok(wait_for_drain($node), 'to the end');
is($node->safe_psql('postgres', 'SELECT confirmed, grace_from IS NULL FROM cleanup_claims'), 't|t',
	'the claim has been seen, and each file keeps its own age');

my $first_claim = claim();
put_file($dir, 'again.mp3');
$node->safe_psql('postgres', 'CALL cleanup_run()');
is(claim(), $first_claim, 'later runs leave the claim as it is');
is(names(), 'wanted.mp3', 'and work');
my ($rc, $stdout, $stderr) = $node->psql('postgres', 'SELECT cleanup_claim_upload_dir()');
like($stderr, qr/NOTICE:  .*belongs to this database already/, 'to claim what one has is not an error');
is(claim(), $first_claim, 'and changes nothing');

# ---- a second database ----

put_file($dir, 'orphan.mp3');
$node->safe_psql('postgres', 'CREATE DATABASE other');
make_schema($node, 'other');
$node->safe_psql('other', q{INSERT INTO sessions (audio_url) VALUES ('wanted.mp3')});
my $owner = qr/Database "postgres" \(OID $oid\) of this cluster has claimed it\./;
refused('other', 'a second database', $owner);

# the name in the claim may come from anybody who may write there, and gets into the history
{
	write_claim(claim() =~ s/^database_name=.*/database_name=a\xff\e[1mb/mr);
	$node->psql('other', 'CALL cleanup_run()');
	is($node->safe_psql('other', 'SELECT message FROM cleanup_runs ORDER BY run_id DESC LIMIT 1') =~ /Database "(.*?)"/ ? $1 : '', 'a??[1mb',
		'what cannot be shown of a name is left out');
	write_claim(claim() =~ s/^uuid=.*/uuid=\xff/mr);
	($rc, $stdout, $stderr) = $node->psql('other', 'SELECT cleanup_all(force => true)');
	isnt($rc, 0, 'a UUID that is none is no claim of ours');
	write_claim($first_claim);
}

# who may take it over
$node->safe_psql('other', q{
	CREATE ROLE looker; CREATE ROLE operator; CREATE ROLE nobody;
	SELECT cleanup_grant_access('looker'), cleanup_grant_access('operator', 'operator')});
foreach my $role ('looker', 'operator', 'nobody')
{
	($rc, $stdout, $stderr) = $node->psql('other', "\\set VERBOSITY verbose\nSET ROLE $role; SELECT cleanup_claim_upload_dir();");
	isnt($rc, 0, "$role may not claim the directory");
	like($stderr, qr/ERROR:  42501: permission denied/, 'it is a matter of privileges');
	($rc, $stdout, $stderr) = $node->psql('other', "\\set VERBOSITY verbose\nSET ROLE $role; INSERT INTO cleanup_claims VALUES ('$uuid', '$dir');");
	like($stderr, qr/ERROR:  42501: permission denied/, 'nor by the table');
}
is(claim(), $first_claim, 'the claim is as it was');

# rolled back
foreach my $statement ('BEGIN; SELECT cleanup_claim_upload_dir(); ROLLBACK;',
	'BEGIN; SAVEPOINT s; SELECT cleanup_claim_upload_dir(); ROLLBACK TO s; COMMIT;',
	'BEGIN; SELECT cleanup_claim_upload_dir(); SELECT 1/0; COMMIT;',
	q{BEGIN; SELECT cleanup_claim_upload_dir(); PREPARE TRANSACTION 'p'; ROLLBACK PREPARED 'p';})
{
	$node->psql('other', $statement, on_error_stop => 0);
	is(claim(), $first_claim, "$statement the old claim stands");
	is($node->safe_psql('other', 'SELECT count(*) FROM cleanup_claims'), 0, 'and no twin is left');
}
refused('other', 'a take-over that was rolled back', $owner);
ok(sql_json($node, 'SELECT cleanup_all(true)')->{success}, 'the owner is still the owner');

# a preparation is no take-over: nothing is written, and it does not pass for one
$node->safe_psql('other', q{BEGIN; SELECT cleanup_claim_upload_dir(); PREPARE TRANSACTION 'p';});
is(claim(), $first_claim, 'nor does PREPARE TRANSACTION write it');
$node->safe_psql('other', q{COMMIT PREPARED 'p'});
is(claim(), $first_claim, 'nor COMMIT PREPARED: it must be done again');
refused('other', 'a prepared take-over', $owner);

# with a run in the same transaction: either way, nothing that was there before may go
$node->psql('other', 'BEGIN; SELECT cleanup_claim_upload_dir(); SELECT cleanup_all(); COMMIT;', on_error_stop => 0);
is(names(), 'orphan.mp3 wanted.mp3', 'a take-over and a run in one transaction delete nothing');

# ---- taken over ----

my $position = log_position($node);
$node->safe_psql('other', 'SELECT cleanup_claim_upload_dir()');
my ($new_oid) = claim() =~ /^database=(\d+)$/m;
is($new_oid, $node->safe_psql('other', 'SELECT oid FROM pg_database WHERE datname = current_database()'), 'other has taken it over');
refused('postgres', 'the former owner', qr/Database "other" \(OID $new_oid\) of this cluster has claimed it\./);

my $hours = 'SET audio_cleanup.orphaned_file_retention_hours =';
foreach my $call ('SELECT cleanup_all(force => true)', 'CALL cleanup_run(force => true)')
{
	is(json('other', "$hours 1; $call")->{result}{orphaned_files_count}, 0,
		"$call: a file that was there before is no orphan yet, whatever its own age");
	is(names(), 'orphan.mp3 wanted.mp3', 'it stays');
}
is($node->safe_psql('other', q{SELECT grace_from > now() - interval '10 minutes' AND grace_from < now() FROM cleanup_claims}), 't',
	'its age begins with the take-over');
$node->safe_psql('other', q{UPDATE cleanup_claims SET grace_from = now() - interval '59 minutes'});
is(json('other', "$hours 1; SELECT cleanup_all(true)")->{result}{orphaned_files_count}, 0, 'nor after 59 minutes of one hour');
$node->safe_psql('other', q{UPDATE cleanup_claims SET grace_from = now() - interval '61 minutes'});
is(json('other', "$hours 1; SELECT cleanup_all(true)")->{result}{orphaned_files_count}, 1, 'after 61 it is one');
$node->safe_psql('other', q{UPDATE cleanup_claims SET grace_from = now()});
is(json('other', "$hours 0; SELECT cleanup_all()")->{result}{orphaned_files_count}, 1, 'without retention it is one at once');
is(names(), 'wanted.mp3', 'and goes');
ok(wait_for_drain($node, 'other'), 'to the end');

# ---- the claim is gone: an unmounted disk ----

put_file($dir, 'orphan.mp3');
$first_claim = claim();
rename $dir, "$dir.disk" or die $!;
mkdir $dir or die $!;
put_files($dir, 'under_the_mount.mp3');
refused('other', 'no disk', qr/This database has claimed it before, but the claim is gone: another disk may be mounted there, or none\./);
ok(!-e $private, 'no claim is made there');
unlink "$dir/under_the_mount.mp3" or die $!;
rmdir $dir or die $!;
rename "$dir.disk", $dir or die $!;
is(json('other', "$hours 0; SELECT cleanup_all(true)")->{result}{orphaned_files_count}, 1, 'with the disk back all is well');

# the disk of somebody else, who has claimed it: neither is that ours
{
	my $disk = claim();
	(my $else = $disk) =~ s/^uuid=.*$/uuid=12345678-1234-4123-8123-123456789abc/m;
	append_to_file("$private/new", $else);
	rename "$private/new", "$private/claim" or die $!;
	refused('other', 'a claim without a twin', qr/The database was restored from a dump, or the extension was created anew, since it was claimed\./);
	append_to_file("$private/new", $disk);
	rename "$private/new", "$private/claim" or die $!;
}

# ---- the directory has another name, and the claim is gone ----

{
	my ($was, $moved) = ($dir, "$dir.moved");

	rename $private, "$dir.claim" or die $!;
	rename $dir, $moved or die $!;
	($dir, $private) = ($moved, "$moved/.audio_cleanup");
	$node->safe_psql('postgres', "ALTER DATABASE other SET audio_cleanup.upload_dir = '$moved'");
	refused('other', 'moved without its claim',
		qr/This database has claimed "\Q$was\E" before, and that claim is not there any more: the directory may have been moved without it\./);
	ok(!-e $private, 'no claim is made there');

	# where the former directory still is what it was, this one is a further one
	mkdir $was or die $!;
	rename "$was.claim", "$was/.audio_cleanup" or die $!;
	ok(json('other', "$hours 0; SELECT cleanup_all(true)")->{success}, 'a second directory of the database is nobody\'s');
	rename "$was/.audio_cleanup", $private or die $!;
	rmdir $was or die $!;
	ok(json('other', "$hours 0; SELECT cleanup_all(true)")->{success}, 'a directory that has moved with its claim is known');

	rename $moved, $was or die $!;
	($dir, $private) = ($was, "$was/.audio_cleanup");
	$node->safe_psql('postgres', 'ALTER DATABASE other RESET audio_cleanup.upload_dir');
}

# ---- .audio_cleanup is planted ----

my $elsewhere = $node->basedir . '/elsewhere';
rename $private, $elsewhere or die $!;
my %planted = (
	'a symlink to a genuine one' => [ sub { symlink $elsewhere, $private }, sub { unlink $private } ],
	'a dangling symlink' => [ sub { symlink "$elsewhere/none", $private }, sub { unlink $private } ],
	'a file' => [ sub { append_to_file($private, 'x'); -f $private }, sub { unlink $private } ],
	'a group-writable directory' => [ sub { rename($elsewhere, $private) && chmod 0770, $private },
		sub { chmod(0700, $private) && rename $private, $elsewhere } ],
	'a directory writable to all' => [ sub { rename($elsewhere, $private) && chmod 0707, $private },
		sub { chmod(0700, $private) && rename $private, $elsewhere } ]);
foreach my $name (sort keys %planted)
{
	my ($plant, $remove) = @{ $planted{$name} };
	my $before = visible_files($dir);
	my $there = read_file("$elsewhere/claim");

	ok($plant->(), "$name in the place of .audio_cleanup");
	foreach my $statement ('SELECT cleanup_all(force => true)', 'CALL cleanup_run(force => true)', 'SELECT cleanup_claim_upload_dir()')
	{
		($rc, $stdout, $stderr) = $node->psql('other', "\\set VERBOSITY verbose\n$hours 0; $statement");
		isnt($rc, 0, "$name: $statement is refused");
		like($stderr, qr/ERROR:  58030: could not .* in upload directory "\Q$dir\E": .*HINT:  .*\.audio_cleanup/s, "$name: with an error and a hint");
	}
	is_deeply(json('other', "$hours 0; SELECT cleanup_all(true)")->{blocked_by}, ['claim'], "$name: a dry run says so");
	is_deeply(visible_files($dir), $before, "$name: nothing was touched");
	ok($remove->(), "$name: removed");
	is(read_file("$elsewhere/claim"), $there, "$name: the claim is as it was");
}
rename $elsewhere, $private or die $!;
is(json('other', "$hours 0; SELECT cleanup_all()")->{result}{orphaned_files_count}, 1, 'with the true one it works');
ok(wait_for_drain($node, 'other'), 'to the end');

# ---- a crash between COMMIT and the writing of the claim ----

foreach my $case (
	[ 'before the private directory is made', 'mkdirat kill 1 0 .audio_cleanup', 0 ],
	[ 'before the claim gets its name', 'renameat2 kill 1 0 claim.new', 0 ],
	[ 'after the claim got its name', 'renameat2 killafter 1 0 claim.new', 1 ])
{
	my ($when, $fault, $written) = @$case;
	my %files = (wanted => { 'wanted.mp3' => read_file("$dir/wanted.mp3") });

	$node->safe_psql('postgres', 'DROP EXTENSION audio_cleanup; DROP TABLE sessions');
	File::Path::remove_tree($private);
	make_schema($node);
	add_rows($node, 'wanted.mp3');
	$files{unwanted}{$_} = put_file($dir, $_) foreach 'a.mp3', 'b/c.mp3';
	set_fault($node, $fault);
	my $position = log_position($node);
	($rc, $stdout, $stderr) = $node->psql('postgres', 'SELECT cleanup_all()');
	isnt($rc, 0, "$when: the server crashes");
	ok(comes_back_after($node, $position), "$when: and comes back");
	is(fault_fired($node), 1, "$when: it was then");
	ok($written ? -e "$private/claim" : !-e "$private/claim", "$when: the claim is " . ($written ? '' : 'not ') . 'written');
	is($node->safe_psql('postgres', 'SELECT count(*), bool_or(confirmed) FROM cleanup_claims'), '1|f', "$when: its twin is");
	is($node->safe_psql('postgres', q{SELECT count(*) FROM cleanup_files WHERE state = 'pending'}), 2, "$when: and the files are condemned");
	is_deeply(violations($node, $dir, \%files), [], "$when: every file is accounted for");
	is(names(), 'a.mp3 b/c.mp3 wanted.mp3', "$when: none was touched");

	$node->safe_psql('postgres', 'SELECT cleanup_all()');
	ok(wait_for_drain($node), "$when: the next run finishes");
	like(claim() // '', qr/^uuid=/m, "$when: with its claim in place");
	is_deeply(violations($node, $dir, { %files, final => 1 }), [], "$when: all is well");
	is(names(), 'wanted.mp3', "$when: what was condemned is gone");
	ok(!-e "$private/claim.new", "$when: nothing is left over");
}

# a claim and a run in one transaction, where it is nobody's
$node->safe_psql('postgres', 'DROP EXTENSION audio_cleanup; DROP TABLE sessions');
File::Path::remove_tree($private);
make_schema($node);
add_rows($node, 'wanted.mp3');
put_file($dir, 'orphan.mp3');
$node->safe_psql('postgres', 'BEGIN; SELECT cleanup_claim_upload_dir(); SELECT cleanup_all(); COMMIT;');
is(names(), 'wanted.mp3', 'claimed and cleaned in one transaction');
ok(wait_for_drain($node), 'to the end');
is($node->safe_psql('postgres', 'SELECT count(*) FROM cleanup_claims'), 1, 'with one claim');

# ---- the claim is seen even where there was nothing to delete ----

foreach my $first ('SELECT cleanup_all()', 'CALL cleanup_run()', 'SELECT cleanup_claim_upload_dir()')
{
	$node->safe_psql('postgres', 'DROP EXTENSION audio_cleanup; DROP TABLE sessions');
	File::Path::remove_tree($private);
	make_schema($node);
	add_rows($node, 'wanted.mp3');
	$node->safe_psql('postgres', $first);
	ok($node->poll_query_until('postgres', 'SELECT bool_and(confirmed) FROM cleanup_claims'), 'the claim was seen by a worker');
	rename $dir, "$dir.disk" or die $!;
	mkdir $dir or die $!;
	put_files($dir, 'under_the_mount.mp3');
	($rc, $stdout, $stderr) = $node->psql('postgres', 'SELECT cleanup_all(force => true)');
	isnt($rc, 0, "the disk is gone after $first that deleted nothing: refused");
	like($stderr, qr/the claim is gone: another disk may be mounted there, or none/, 'and why');
	is(names(), 'under_the_mount.mp3', 'nothing is deleted');
	File::Path::remove_tree($dir);
	rename "$dir.disk", $dir or die $!;
}

# ---- two at once, in a directory that is nobody's ----

$node->safe_psql($_, 'DROP EXTENSION audio_cleanup; DROP TABLE sessions') foreach 'postgres', 'other';
File::Path::remove_tree($private);
make_schema($node, $_) foreach 'postgres', 'other';
$node->safe_psql($_, q{INSERT INTO sessions (audio_url) VALUES ('wanted.mp3')}) foreach 'postgres', 'other';
$node->safe_psql('other', q{INSERT INTO sessions (audio_url) VALUES ('of_other.mp3')});
put_files($dir, 'of_other.mp3');
my $slow = begin_session($node, 'SELECT cleanup_all()');
$node->safe_psql('other', 'SELECT cleanup_all()');
$first_claim = claim();
end_session($slow);
is(claim(), $first_claim, 'of two first runs the one that commits first has the directory');
is(names(), 'of_other.mp3 wanted.mp3', 'the other one touches nothing, though it has committed');
$node->psql('postgres', 'SELECT cleanup_all(force => true)');
ok($node->poll_query_until('postgres', q{SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'audio_cleanup drain')}), 'no worker is busy');
is(names(), 'of_other.mp3 wanted.mp3', 'nor does it later');
is($node->safe_psql('postgres', q{SELECT string_agg(state, ' ') FROM cleanup_files}), 'pending', 'what it condemned stays condemned only');

$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC:|TRAP:/, 'no process has died of itself');
done_testing();
