# Somebody who has a file open, or knows another hard link to it, writes into it
# after it was captured: it is not the file that was condemned.  It comes back
# as it is, and is never left in the trash without a word.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

# without a worker, the next call goes on with the files of a call
my $node = new_server('changed_in_trash', conf => <<'END');
max_worker_processes = 0
audio_cleanup.max_delete_percent = 100
audio_cleanup.writer_wait = 100ms
END
my $dir = upload_dir($node);
make_schema($node);
add_rows($node, put_files($dir, 'wanted.mp3'));

sub state { return sql("SELECT state, error FROM cleanup_files WHERE file = '$_[0]' ORDER BY file_id DESC LIMIT 1"); }
sub content { return slurp_file("$dir/$_[0]"); }

sub is_back
{
	my ($file, $state, $how) = @_;

	ok(exists visible_files($dir)->{$file}, "$how: the file is back");
	ok(!exists trashed_files($dir)->{$file}, "$how: and not in the trash");
	like(content($file), qr/ and more$/, "$how: as it is now");
	is(state($file), $state, "$how: the row says so");
	is(sql(q{SELECT count(*) FROM cleanup_runs WHERE status NOT IN ('done', 'failed')}), 0, "$how: its run has ended");
	unlink "$dir/$file" or die "$file: $!\n";
	return;
}

# Each makes the file, and returns a handle that writes into it later.
my %ways = (
	'an open file' => sub {
		my ($file) = @_;
		put_files($dir, $file);
		open my $handle, '>>', "$dir/$file" or die "$file: $!\n";
		return $handle;
	},
	'a hard link' => sub {
		my ($file) = @_;
		my $link = $node->basedir . "/link.$file";
		put_files($dir, $file);
		link "$dir/$file", $link or die "$file: $!\n";
		# the second link has made the change time new; the age counts from the modification
		open my $handle, '>>', $link or die "$link: $!\n";
		return $handle;
	});

sub write_more
{
	my ($handle) = @_;

	print $handle ' and more' or die "write: $!\n";
	close $handle or die "close: $!\n";
	return;
}

sql(q{ALTER DATABASE postgres SET audio_cleanup.file_age = 'mtime'});
sql('CALL cleanup_run()');

my $number = 0;

# Cleans a file, writes into it, and returns its name.
sub clean_and_write
{
	my ($way, @more) = @_;
	my $file = 'f' . ++$number . '.mp3';
	my $handle = $ways{$way}->($file);

	sql('SELECT cleanup_all()');
	ok(exists trashed_files($dir)->{$file}, "$way: $file is captured");
	sql('CALL cleanup_run()') if @more;
	write_more($handle);
	return $file;
}

foreach my $way (sort keys %ways)
{
	# captured and on record, but not yet deleted, because somebody writes
	sql('ALTER DATABASE postgres SET audio_cleanup.backup_retention_days = 0');
	foreach my $row (0, 1)
	{
		my $file = 'f' . ++$number . '.mp3';
		my $handle = $ways{$way}->($file);
		my $writer = $node->background_psql('postgres');

		sql('SELECT cleanup_all()');
		$writer->query_safe(q{BEGIN; INSERT INTO sessions (audio_url, status) VALUES ('other.mp3', 'processing')});
		$node->psql('postgres', 'CALL cleanup_run()');
		is(state($file), 'pending|', "$way: $file is in the trash");
		write_more($handle);
		end_session($writer, 'ROLLBACK');
		add_rows($node, $file) if $row;
		sql('CALL cleanup_run()');
		is_back($file, $row ? 'restored|it is referred to again, and it was changed in the trash' : 'skipped|it was changed in the trash',
			"$way, without backup, " . ($row ? 'a row refers to it' : 'nobody needs it'));
	}

	# captured by the commit, and not yet on record; the name is taken
	foreach my $days (0, 3)
	{
		my ($file, $how) = ('f' . ++$number . '.mp3', "$way, $days days, the name was taken");
		my $handle = $ways{$way}->($file);

		sql("ALTER DATABASE postgres SET audio_cleanup.backup_retention_days = $days");
		sql('SELECT cleanup_all()');
		write_more($handle);
		put_file($dir, $file, content => 'a younger one', hours => 0);
		sql($_) foreach 'SELECT cleanup_all()', 'CALL cleanup_run()';
		like(state($file), qr/^trashed\|it was changed in the trash, but its name is taken; it lies in /, "$how: the row says where it is");
		is(content($file), 'a younger one', "$how: the other file stays");
		unlink "$dir/$file" or die "$file: $!\n";
		sql(q{UPDATE cleanup_files SET due_at = now() - interval '1 s' WHERE state = 'trashed'});
		sql('CALL cleanup_run()');
		is_back($file, 'skipped|it was changed in the trash', $how);
	}

	sql('ALTER DATABASE postgres SET audio_cleanup.backup_retention_days = 3');
	my $file = clean_and_write($way, 'recorded');
	is(sql("SELECT cleanup_restore('$file') -> 'result' -> 'files_restored'"), qq(["$file"]), "$way: a restore says that it is restored");
	sql('CALL cleanup_run()');
	is_back($file, 'restored|it was changed in the trash', "$way, restored");

	# put back by the commit, and written into before the next run records that
	if ((split ' ', `stat -c %W "$dir"`)[0] > 0)
	{
		my $handle = $ways{$way}->($file = 'f' . ++$number . '.mp3');
		sql('SELECT cleanup_all()');
		sql('CALL cleanup_run()');
		sql("SELECT cleanup_restore('$file')");
		write_more($handle);
		sql('CALL cleanup_run()');
		is_back($file, 'restored|', "$way, after it is back");
	}

	$file = clean_and_write($way, 'recorded');
	add_rows($node, $file);
	sql('CALL cleanup_run()') foreach 1 .. 2;
	is_back($file, 'restored|it is referred to again, and it was changed in the trash', "$way, a row refers to the backup");

	$file = clean_and_write($way, 'recorded');
	sql(q{UPDATE cleanup_files SET due_at = now() - interval '1 s' WHERE state = 'trashed'});
	sql('CALL cleanup_run()');
	is_back($file, 'skipped|it was changed in the trash', "$way, the backup has expired");

	# a name that is taken is left alone, until it is free
	$file = clean_and_write($way, 'recorded');
	put_file($dir, $file, content => 'another one');
	like(sql("SELECT cleanup_restore('$file') -> 'result' ->> 'errors'"), qr/the name ."\Q$file\E." is taken; the backup lies in/, "$way: the name is taken");
	is(state($file), 'trashed|', "$way: and it stays a backup");
	is(content($file), 'another one', "$way: and the other file stays as it is");
	unlink "$dir/$file" or die "$file: $!\n";
	sql("SELECT cleanup_restore('$file')");
	sql('CALL cleanup_run()');
	is_back($file, 'restored|it was changed in the trash', "$way, when the name is free");

	# a name that is taken when the backup expires; then another name is asked for
	$file = clean_and_write($way, 'recorded');
	put_file($dir, $file, content => 'another one');
	add_rows($node, $file);
	sql(q{UPDATE cleanup_files SET due_at = now() - interval '1 s' WHERE state = 'trashed'});
	sql('SELECT cleanup_purge_backups()', 'CALL cleanup_run()');
	like(state($file), qr/^trashed\|.*its name is taken/, "$way: a backup that has expired, and whose name is taken, stays");
	is(sql("SELECT cleanup_restore('$file', 'as_$file') ->> 'success'"), 'true', "$way: it is restored under another name");
	sql('CALL cleanup_run()');
	like(content("as_$file"), qr/ and more$/, "$way: and is there, as it is now");
	is(content($file), 'another one', "$way: and the other file stays as it is");
	unlink "$dir/$file", "$dir/as_$file";
}
# somebody goes on writing while it is put back: whatever a try meets, the file is not lost sight of
foreach (1 .. 20)
{
	my $file = 'f' . ++$number . '.mp3';
	my $handle = $ways{'an open file'}->($file);

	sql('SELECT cleanup_all()', 'CALL cleanup_run()');
	my $writer = fork // die "fork: $!\n";
	if ($writer == 0)
	{
		syswrite $handle, 'x' while 1;
	}
	sql("SELECT cleanup_restore('$file')");
	sql('CALL cleanup_run()');
	kill 'KILL', $writer;
	waitpid $writer, 0;
	if (!exists visible_files($dir)->{$file})
	{
		like(state($file), qr/^(trashed|restoring)\|/, "$file, written into all the time: it is still a backup");
		sql("SELECT cleanup_restore('$file')");
		sql('CALL cleanup_run()');
	}
	ok(exists visible_files($dir)->{$file}, "$file, written into all the time: it is back") or diag state($file);
	like(state($file), qr/^restored\|/, "$file, written into all the time: and its row says so");
	unlink "$dir/$file" or die "$file: $!\n";
}
is(sql(q{SELECT count(*) FROM cleanup_files WHERE state IN ('failed', 'trashed', 'pending', 'restoring')}), 0, 'nothing is left');

done_testing();
