-- Whose a call's output ceiling was. Of the calls until now it is known only where a budget lowered it.

ALTER TABLE holds ADD COLUMN ceiling_ours INTEGER NOT NULL DEFAULT 0 CHECK (ceiling_ours IN (0, 1));
UPDATE holds SET ceiling_ours = 1 WHERE 0 < x AND x < x_want;
