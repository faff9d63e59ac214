-- One row for an account with all its units, where there was a counter for each. `concurrency` is calls in flight.

CREATE TABLE balances (
    key                 TEXT PRIMARY KEY,
    settled_tokens      INTEGER NOT NULL CHECK (settled_tokens >= 0),
    settled_usd         INTEGER NOT NULL CHECK (settled_usd >= 0),
    settled_requests    INTEGER NOT NULL CHECK (settled_requests >= 0),
    settled_concurrency INTEGER NOT NULL CHECK (settled_concurrency = 0),
    held_tokens         INTEGER NOT NULL CHECK (held_tokens >= 0),
    held_usd            INTEGER NOT NULL CHECK (held_usd >= 0),
    held_requests       INTEGER NOT NULL CHECK (held_requests >= 0),
    held_concurrency    INTEGER NOT NULL CHECK (held_concurrency >= 0),
    suspect_tokens      INTEGER NOT NULL CHECK (suspect_tokens >= 0),
    suspect_usd         INTEGER NOT NULL CHECK (suspect_usd >= 0),
    suspect_requests    INTEGER NOT NULL CHECK (suspect_requests >= 0),
    suspect_concurrency INTEGER NOT NULL CHECK (suspect_concurrency = 0),
    ends_ms             INTEGER
) WITHOUT ROWID, STRICT;

-- A counter's name was its account's, a bar, and its unit, with or without ".lent" or ".borrowed". An account's name
-- ends with a bracket, and so has no bar after that.
CREATE TEMP VIEW named AS
SELECT iif(of LIKE '%.%', account || '|' || substr(of, instr(of, '.') + 1), account) AS key,
       iif(of LIKE '%.%', substr(of, 1, instr(of, '.') - 1), of) AS unit, settled, held, suspect, ends_ms
FROM (
    SELECT substr(key, 1, length(rtrim(key, 'abcdefghijklmnopqrstuvwxyz.')) - 1) AS account,
           substr(key, length(rtrim(key, 'abcdefghijklmnopqrstuvwxyz.')) + 1) AS of,
           settled, held, suspect, ends_ms
    FROM counters
);

INSERT INTO balances
SELECT key,
       sum(iif(unit = 'tokens', settled, 0)), sum(iif(unit = 'usd', settled, 0)),
       sum(iif(unit = 'requests', settled, 0)), 0,
       sum(iif(unit = 'tokens', held, 0)), sum(iif(unit = 'usd', held, 0)),
       sum(iif(unit = 'requests', held, 0)), sum(iif(unit = 'concurrency', held, 0)),
       sum(iif(unit = 'tokens', suspect, 0)), sum(iif(unit = 'usd', suspect, 0)),
       sum(iif(unit = 'requests', suspect, 0)), 0,
       max(ends_ms)
FROM named GROUP BY key;

DROP VIEW named;
DROP TABLE counters;
CREATE INDEX balances_over ON balances (ends_ms) WHERE ends_ms IS NOT NULL;

-- The same of what went before the rows that are there.
CREATE TABLE settled_before (
    key      TEXT PRIMARY KEY,
    tokens   INTEGER NOT NULL,
    usd      INTEGER NOT NULL,
    requests INTEGER NOT NULL
) WITHOUT ROWID, STRICT;

INSERT INTO settled_before
SELECT iif(of LIKE '%.%', account || '|' || substr(of, instr(of, '.') + 1), account) AS name,
       sum(iif(of LIKE 'tokens%', settled, 0)), sum(iif(of LIKE 'usd%', settled, 0)),
       sum(iif(of LIKE 'requests%', settled, 0))
FROM (
    SELECT substr(key, 1, length(rtrim(key, 'abcdefghijklmnopqrstuvwxyz.')) - 1) AS account,
           substr(key, length(rtrim(key, 'abcdefghijklmnopqrstuvwxyz.')) + 1) AS of, settled
    FROM snapshot
) GROUP BY name;

DROP TABLE snapshot;
ALTER TABLE settled_before RENAME TO snapshot;

-- A shape was [[counter, unit, release, ends_ms], …]; now [[account, units or null for all, ends_ms], …].
UPDATE shapes SET body = (
    SELECT json_group_array(json_array(name, json(units), ends_ms)) FROM (
        SELECT name, json_group_array(unit) AS units, max(ends_ms) AS ends_ms, min(place) AS first FROM (
            SELECT iif(of LIKE '%.%', account || '|' || substr(of, instr(of, '.') + 1), account) AS name,
                   unit, ends_ms, place
            FROM (
                SELECT substr(counter, 1, length(rtrim(counter, 'abcdefghijklmnopqrstuvwxyz.')) - 1) AS account,
                       substr(counter, length(rtrim(counter, 'abcdefghijklmnopqrstuvwxyz.')) + 1) AS of,
                       unit, ends_ms, place
                FROM (
                    SELECT json_extract(value, '$[0]') AS counter, json_extract(value, '$[1]') AS unit,
                           json_extract(value, '$[3]') AS ends_ms, key AS place
                    FROM json_each(shapes.body)
                )
            )
        ) GROUP BY name ORDER BY first
    )
);
