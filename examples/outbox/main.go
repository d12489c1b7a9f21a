// Command outbox moves changes of an application's SQLite database to a topic,
// each exactly once: the transactional outbox pattern.
//
//	go run ./examples/outbox
//
// The application writes its row and a row of the table "outbox" in one SQL
// transaction. The relay appends outbox rows to the topic "changes" in their order,
// with their number in a header, and deletes them afterwards. When it stops anywhere
// in between and starts again, it asks the topic which number came last and goes on
// behind it: nothing is missing, nothing is there twice.
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"

	_ "modernc.org/sqlite" // the driver

	"github.com/x/embedlog"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := start(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "outbox:", err)
		os.Exit(1)
	}
}

func start(ctx context.Context, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "embedlog-outbox-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	return run(ctx, out, dir)
}

const users = 500

// errStopped stands for anything that may end the relay half-way.
var errStopped = errors.New("the relay was stopped")

func run(ctx context.Context, out io.Writer, dir string) (err error) {
	app, err := sql.Open("sqlite", filepath.Join(dir, "app.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, app.Close()) }()
	if err := fillApp(ctx, app); err != nil {
		return err
	}
	fmt.Fprintf(out, "the application wrote %d users and as many outbox rows\n", users)

	db, err := embedlog.Open(filepath.Join(dir, "log"), nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	// One partition: the changes keep their order, and a call's records are all there or none is.
	topic, err := db.EnsureTopic(ctx, "changes", nil)
	if err != nil {
		return err
	}

	// The relay is stopped at every place that matters, and started again.
	for i, at := range []string{"after produce", "before delete", "after produce", "nowhere"} {
		moved, err := relay(ctx, app, topic, at)
		if err != nil && !errors.Is(err, errStopped) {
			return err
		}
		fmt.Fprintf(out, "relay %d moved %d changes, stopped: %s\n", i+1, moved, at)
	}
	return check(ctx, out, app, topic)
}

// fillApp does what the application does all day: its own rows and the outbox's together.
func fillApp(ctx context.Context, app *sql.DB) error {
	_, err := app.ExecContext(ctx, `
		CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
		CREATE TABLE outbox (id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, value TEXT NOT NULL);`)
	if err != nil {
		return err
	}
	tx, err := app.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // does nothing after a commit
	for i := 1; i <= users; i++ {
		name := fmt.Sprintf("user %d", i)
		if _, err := tx.ExecContext(ctx, `INSERT INTO users (id, name) VALUES (?, ?)`, i, name); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO outbox (key, value) VALUES (?, ?)`, i, name); err != nil {
			return err
		}
	}
	return tx.Commit()
}

const idHeader = "outbox-id"

// relay moves rows until there are none, or until it is stopped.
func relay(ctx context.Context, app *sql.DB, topic *embedlog.Topic, stopAt string) (moved int, err error) {
	last, err := lastID(ctx, topic)
	if err != nil {
		return 0, err
	}
	for {
		recs, ids, err := read(ctx, app, last)
		if err != nil || len(recs) == 0 {
			return moved, err
		}
		if _, err := topic.Produce(ctx, recs...); err != nil {
			return moved, err // start again: the topic says what arrived
		}
		last = ids[len(ids)-1]
		moved += len(recs)
		if stopAt == "after produce" {
			return moved, errStopped
		}
		if stopAt == "before delete" && moved > 100 {
			return moved, errStopped
		}
		if _, err := app.ExecContext(ctx, `DELETE FROM outbox WHERE id <= ?`, last); err != nil {
			return moved, err
		}
	}
}

// read returns the next rows as records.
func read(ctx context.Context, app *sql.DB, after int64) (recs []embedlog.Record, ids []int64, err error) {
	rows, err := app.QueryContext(ctx, `SELECT id, key, value FROM outbox WHERE id > ? ORDER BY id LIMIT 64`, after)
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		var key, value string
		if err := rows.Scan(&id, &key, &value); err != nil {
			return nil, nil, err
		}
		ids = append(ids, id)
		recs = append(recs, embedlog.Record{
			Key: []byte(key), Value: []byte(value),
			Headers: []embedlog.Header{{Key: idHeader, Value: strconv.AppendInt(nil, id, 10)}},
		})
	}
	return recs, ids, rows.Err()
}

// lastID is the number of the last row that the topic has.
func lastID(ctx context.Context, topic *embedlog.Topic) (int64, error) {
	ends, err := topic.ListOffsets(ctx, embedlog.Latest)
	if err != nil {
		return 0, err
	}
	if ends[0].Offset == 0 {
		return 0, nil
	}
	var last int64
	for rec, err := range topic.Scan(ctx, &embedlog.ScanOptions{From: embedlog.AtOffset(ends[0].Offset - 1)}) {
		if err != nil {
			return 0, err
		}
		if last, err = rowID(&rec); err != nil {
			return 0, err
		}
	}
	return last, nil
}

func rowID(rec *embedlog.Record) (int64, error) {
	text, ok := rec.Header(idHeader)
	if !ok {
		return 0, fmt.Errorf("the record at offset %d has no header %s", rec.Offset, idHeader)
	}
	return strconv.ParseInt(string(text), 10, 64)
}

// check compares the topic with the application's table.
func check(ctx context.Context, out io.Writer, app *sql.DB, topic *embedlog.Topic) error {
	want := int64(1)
	for rec, err := range topic.Scan(ctx, nil) {
		if err != nil {
			return err
		}
		id, err := rowID(&rec)
		if err != nil {
			return err
		}
		var name string
		if err := app.QueryRowContext(ctx, `SELECT name FROM users WHERE id = ?`, string(rec.Key)).Scan(&name); err != nil {
			return err
		}
		if id != want || name != string(rec.Value) {
			return fmt.Errorf("change %d (%q) where %d (%q) is due", id, rec.Value, want, name)
		}
		want++
	}
	if want != users+1 {
		return fmt.Errorf("the topic has %d changes, the application made %d", want-1, users)
	}
	fmt.Fprintf(out, "all %d changes are in the topic, in order, each once\n", users)
	return nil
}
