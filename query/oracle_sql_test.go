package query

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"sync"
	"testing"

	_ "modernc.org/sqlite" // the driver
)

// The second oracle: SQLite answers a SELECT over the same records.

// sqlite is a database in memory that all cases share, one after the other.
type sqlite struct {
	conn *sql.Conn
	buf  bytes.Buffer
}

var openSQLite = sync.OnceValues(func() (*sqlite, error) {
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		return nil, err
	}
	conn, err := db.Conn(context.Background()) // each has a database of its own
	if err != nil {
		return nil, err
	}
	s := &sqlite{conn: conn}
	_, err = conn.ExecContext(context.Background(), `
CREATE TABLE log(seq INTEGER PRIMARY KEY, topic TEXT, k TEXT, v INTEGER, part INTEGER, ms INTEGER);
CREATE TABLE numbers(n INTEGER PRIMARY KEY);
WITH RECURSIVE c(n) AS (SELECT 0 UNION ALL SELECT n+1 FROM c WHERE n<99) INSERT INTO numbers SELECT n FROM c`)
	return s, err
})

func sqliteOf(t *testing.T) *sqlite {
	s, err := openSQLite()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// load has the table log hold rows: topic, key or nil, value or nil, partition, milliseconds.
func (s *sqlite) load(t *testing.T, rows [][5]any) {
	ctx := context.Background()
	s.buf.Reset()
	if err := json.NewEncoder(&s.buf).Encode(rows); err != nil {
		t.Fatal(err)
	}
	if _, err := s.conn.ExecContext(ctx, "DELETE FROM log"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.conn.ExecContext(ctx, "INSERT INTO log SELECT key,value->>0,value->>1,value->>2,value->>3,value->>4 FROM json_each(?)", s.buf.String()); err != nil {
		t.Fatal(err)
	}
}

// answer is the rows of a SELECT with a key and a number.
func (s *sqlite) answer(t *testing.T, query string, args ...any) map[string]int64 {
	rows, err := s.conn.QueryContext(context.Background(), query, args...)
	if err != nil {
		t.Fatalf("%v\n%s", err, query)
	}
	defer rows.Close()
	out := map[string]int64{}
	for rows.Next() {
		var k string
		var v int64
		if err := rows.Scan(&k, &v); err != nil {
			t.Fatalf("%v\n%s", err, query)
		}
		if _, twice := out[k]; twice {
			t.Fatalf("SQLite has two rows of key %q\n%s", k, query)
		}
		out[k] = v
	}
	if err := rows.Err(); err != nil {
		t.Fatalf("%v\n%s", err, query)
	}
	return out
}

// answers is the rows of a SELECT with a view's name, a key and a number.
func (s *sqlite) answers(t *testing.T, query string) map[string]map[string]int64 {
	rows, err := s.conn.QueryContext(context.Background(), query)
	if err != nil {
		t.Fatalf("%v\n%s", err, query)
	}
	defer rows.Close()
	out := map[string]map[string]int64{}
	for rows.Next() {
		var view, k string
		var v int64
		if err := rows.Scan(&view, &k, &v); err != nil {
			t.Fatalf("%v\n%s", err, query)
		}
		if out[view] == nil {
			out[view] = map[string]int64{}
		}
		if _, twice := out[view][k]; twice {
			t.Fatalf("SQLite has two rows of %s, key %q\n%s", view, k, query)
		}
		out[view][k] = v
	}
	if err := rows.Err(); err != nil {
		t.Fatalf("%v\n%s", err, query)
	}
	return out
}

// sqlRows are records as load takes them.
func sqlRows(log []record) [][5]any {
	rows := make([][5]any, len(log))
	for i, r := range log {
		rows[i] = [5]any{r.topic, nil, nil, r.partition, r.ms}
		if r.bad {
			rows[i][0] = badTopic + r.topic
		}
		if !r.null {
			rows[i][1] = r.key
		}
		if !r.tombstone && !r.bad {
			rows[i][2] = r.val
		}
	}
	return rows
}

// The table log is what was loaded, and SELECTs of it compute as Go does.
func TestSQLite(t *testing.T) {
	s := sqliteOf(t)
	s.load(t, [][5]any{{"a", "k", 7, 0, 1}, {"a", nil, -7, 1, 2}, {"b", "", nil, 2, 3}})
	for query, want := range map[string]string{
		"SELECT 'n',count(*) FROM log":                                          "map[n:3]",
		"SELECT coalesce(k,'none'),v%3 FROM log WHERE v IS NOT NULL":            "map[k:1 none:-1]",
		"SELECT k,seq*100+part*10+ms FROM log WHERE v IS NULL":                  "map[:223]",
		"SELECT topic,CAST(avg(v)*1000 AS INTEGER) FROM log GROUP BY topic":     "map[a:0]",
		"SELECT 'last',max(n) FROM numbers":                                     "map[last:99]",
		"SELECT typeof(k)||typeof(v),count(*) FROM log GROUP BY 1 HAVING seq=1": "map[nullinteger:1]",
	} {
		if query == "SELECT topic,CAST(avg(v)*1000 AS INTEGER) FROM log GROUP BY topic" {
			query += " HAVING topic='a'" // an average of nothing is NULL
		}
		if got := fmt.Sprint(s.answer(t, query)); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
}
