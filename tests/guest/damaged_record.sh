#!/bin/bash
# Damaged records are refused by reason and the machine runs on, to the same output.
. "$(dirname "$0")/lib.sh"
need_guests
run_guest 686 "$tmp/good" --cache "$tmp/cache.db" || fail "first boot: exit status $?"
python3 - "$tmp/cache.db" <<'P' || fail "the cache could not be damaged"
# Turns over one byte in the middle of every third record's largest column, whatever its name is.
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
cols = [r[1] for r in db.execute("pragma table_info(record)")]
rows = db.execute("select rowid, * from record limit 1").fetchone()[1:]
blob = max((c for c, v in zip(cols, rows) if isinstance(v, bytes)), key=lambda c: len(rows[cols.index(c)]))
n = 0
for rowid, v in db.execute(f"select rowid, {blob} from record where rowid % 3 = 0").fetchall():
    b = bytearray(v)
    b[len(b) // 2] ^= 0x55
    db.execute(f"update record set {blob} = ? where rowid = ?", (bytes(b), rowid))
    n += 1
db.commit()
print(n, "records damaged")
sys.exit(n < 10)
P
run_guest 686 "$tmp/bad" --cache "$tmp/cache.db" --cache-readonly --stats=json --stats-to "$tmp/bad.json" ||
    fail "boot with damaged records: exit status $?: $(tail -n 1 "$tmp/bad.err")"
diff <(script_lines "$tmp/good") <(script_lines "$tmp/bad") || fail "the script's output differs"
refused=$(json "$tmp/bad.json" 'd["counters"]["page_miss_refused"]')
echo "$refused pages refused"
[ "${refused:-0}" -gt 0 ] || fail "no page was counted as refused"
expect_status 4 "verify names the damage" "$VERSO" cache verify --cache "$tmp/cache.db"
finish
