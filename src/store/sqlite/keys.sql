-- The data keys, each wrapped by every master key that may open this store: by one, but for the time in which that changes.
-- Entry 0 holds the keys of digests. A store of format 2 is given these tables when it is opened.

CREATE TABLE keyring (
  key_id INTEGER NOT NULL,
  master TEXT NOT NULL, -- which master key: a name, made from the key
  wrapped BLOB NOT NULL,
  created_at INTEGER NOT NULL,
  PRIMARY KEY (key_id, master)
) STRICT;

-- The key that seals; older ones only open what they sealed, a newer one waits until every process has it. The generation grows with
-- every change of the ring: whoever knows another one reads the ring again.
CREATE TABLE ring (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  generation INTEGER NOT NULL,
  active INTEGER NOT NULL
) STRICT;
