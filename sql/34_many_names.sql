--
-- More names than there is memory for are matched just as well
--
\i test/fixture.sql
SELECT cleanup_add_source('sessions');

-- 800 files below 60 folders have 122 keys each: a megabyte has room for most of these, and so for none
SELECT repeat('d/', 60) AS deep \gset
SELECT t.sh(format('mkdir -p %1$s && cd %1$s && for i in $(seq 101 900); do echo $i > take$i.mp3; done && touch -d "48 hours ago" *', :'deep'));
-- the names of 2000 others alone take more than 64 kilobytes
SELECT t.sh('for i in $(seq 2000); do echo > $i-is-a-name-that-is-long-enough.mp3; done && touch -d "48 hours ago" *-name-*');
INSERT INTO sessions (id, session_date, status, audio_url)
SELECT t.id(i), now(), 'processed', i || '-is-a-name-that-is-long-enough.mp3' FROM generate_series(1, 50) i;
SELECT t.sh('for i in 1 2 3; do mkdir $i && echo $i > $i/recording.mp3 && touch -d "48 hours ago" $i/recording.mp3; done');
INSERT INTO sessions (id, session_date, status, audio_url, audio_filename)
SELECT t.id(i), now(), 'processed', CASE WHEN i <= 400 THEN :'deep' || 'take' || i || '.mp3' WHEN i <= 500 THEN 'https://example.com/d/d/take' || i || '.mp3?x=1' END,
	CASE WHEN i > 500 THEN 'take' || i END
FROM generate_series(101, 600) i;
SELECT t.session(601, 'failed', 8, :'deep' || 'take601.mp3'), t.session(602, 'failed', 8, :'deep' || 'take602.mp3');
SELECT t.session(603, 'processed', 1, 'take602.mp3'), t.session(604, 'processed', 1, '2/recording.mp3');
SELECT cleanup_hold(:'deep' || 'take700.mp3');

SET audio_cleanup.max_delete_percent = 100;
SELECT cleanup_status() -> 'potential_cleanup' AS roomy \gset
SELECT r -> 'orphaned_files_count' AS orphans, r -> 'failed_sessions_cleaned' AS failed, r -> 'errors' AS errors
FROM (SELECT :'roomy'::jsonb) s(r);

SET maintenance_work_mem = '1MB';
SET work_mem = '64kB';
SET audio_cleanup.report_limit = 5;
SELECT jsonb_path_query_array(:'roomy', '$.orphaned_files_deleted[0 to 4]') = cleanup_status() #> '{potential_cleanup,orphaned_files_deleted}' AS first_five;
RESET audio_cleanup.report_limit;
SELECT cleanup_status() -> 'potential_cleanup' AS narrow \gset
SELECT :'narrow'::jsonb = :'roomy'::jsonb AS same;
SELECT cleanup_all() -> 'result' AS narrow \gset
SELECT :'narrow'::jsonb - 'dry_run' = :'roomy'::jsonb - 'dry_run' AS as_previewed;
SELECT t.wait_for_quiet();
SELECT count(*) FILTER (WHERE n ~ 'take') AS takes, string_agg(n, ' ') FILTER (WHERE n ~ 'recording') AS recordings, bool_or(n ~ 'take700') AS held
FROM t.lines('find . -type f ! -path "./.audio_cleanup/*" -printf "%P\n"') n;

-- The keys of names are no secret.  The first of these two was made so that as a reference of the first source its key is mistaken
-- for that of the other one in the second source, if what is compared is a sum of key and source: a reference would be lost
CREATE TABLE bait (file text);
CREATE TABLE wanted (file text);
INSERT INTO bait VALUES ('joolmjmjlijlkinlklmkkmlm.mp3');
INSERT INTO wanted VALUES ('victim.mp3');
SELECT cleanup_drop_source('sessions');
SELECT cleanup_add_source('bait');
SELECT cleanup_add_source('wanted');
SELECT cleanup_add_source('sessions');
SELECT t.sh('for i in victim joolmjmjlijlkinlklmkkmlm; do echo $i > $i.mp3 && touch -d "48 hours ago" $i.mp3; done');
SELECT cleanup_status() -> 'potential_cleanup' -> 'orphaned_files_deleted' AS orphans;
