-- The ids under which providers keep answers that a later request may name, and whose call each was.
CREATE TABLE answers (
    id      TEXT PRIMARY KEY,
    hold_id TEXT NOT NULL REFERENCES holds (id)
) WITHOUT ROWID, STRICT;
