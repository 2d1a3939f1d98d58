--
-- A row is read as it is stored: whatever became of its table since, and in whatever way the scan runs
--
\i test/fixture.sql
SET audio_cleanup.max_delete_percent = 100;
CREATE FUNCTION t.orphans() RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(n, ' ') FROM jsonb_array_elements_text(cleanup_status() #> '{potential_cleanup,orphaned_files_deleted}') n
$$;
SELECT t.file(n || '.mp3') FROM unnest('{added,by_default,changed,child,cut,failed,first,hidden,kept,large,other,part,second}'::text[]) n;

-- columns that were dropped, and one that was added with a default, which rows of before do not hold
CREATE TABLE t.plain (gone text, id int PRIMARY KEY, url text, gone_too uuid, status text, updated_at timestamptz);
ALTER TABLE t.plain DROP COLUMN gone, DROP COLUMN gone_too;
INSERT INTO t.plain VALUES (1, 'first.mp3', 'done', now());
ALTER TABLE t.plain ADD COLUMN extra text DEFAULT 'by_default.mp3';
INSERT INTO t.plain VALUES (2, 'second.mp3', 'done', now(), 'added.mp3'), (3, NULL, NULL, NULL, NULL),
	(4, 'failed.mp3', 'failed', now() - interval '30 days', NULL);
INSERT INTO t.plain SELECT 5, string_agg(md5(i::text), ' ') || ' large.mp3' FROM generate_series(1, 5000) i;
SELECT pg_column_size(url) < length(url) OR pg_column_size(url) > 8000 AS large FROM t.plain WHERE id = 5;
SELECT cleanup_add_source('t.plain', '{url,extra}', 'id', 'status', '{failed}', 'updated_at');
SELECT t.orphans();
SELECT cleanup_status() #> '{potential_cleanup,failed_sessions_cleaned}' AS failed;

-- children and partitions have their columns in another order
CREATE TABLE t.parent (id int, url text);
CREATE TABLE t.child (url text, id int);
ALTER TABLE t.child INHERIT t.parent;
INSERT INTO t.child VALUES ('child.mp3', 1);
SELECT cleanup_add_source('t.parent', '{url}');
CREATE TABLE t.whole (id int, url text) PARTITION BY LIST (id);
CREATE TABLE t.part (url text, gone int, id int);
ALTER TABLE t.part DROP COLUMN gone;
ALTER TABLE t.whole ATTACH PARTITION t.part FOR VALUES IN (1);
INSERT INTO t.whole VALUES (1, 'part.mp3');
SELECT cleanup_add_source('t.whole', '{url}');
SELECT t.orphans();

-- views: with a condition, with a computed column, and with neither
CREATE TABLE t.base (id int, url text);
INSERT INTO t.base VALUES (1, 'kept.mp3'), (2, 'hidden.mp3');
CREATE VIEW t.some AS SELECT url FROM t.base WHERE id = 1;
CREATE VIEW t.computed AS SELECT replace('cut.wav', 'wav', 'mp3') AS url FROM t.base;
CREATE VIEW t.same AS SELECT url AS name, id FROM t.parent;
SELECT cleanup_add_source('t.some', '{url}'), cleanup_add_source('t.computed', '{url}'), cleanup_add_source('t.same', '{name}');
SELECT t.orphans();

-- a row that was updated and one that was deleted are what they are now
UPDATE t.base SET url = 'changed.mp3' WHERE id = 1;
DELETE FROM t.plain WHERE id = 1;
SELECT t.orphans();
SELECT cleanup_all() #> '{result,orphaned_files_count}' AS deleted;
SELECT t.wait_for_quiet();
SELECT string_agg(n, ' ' ORDER BY n) FROM t.lines('ls') n;
