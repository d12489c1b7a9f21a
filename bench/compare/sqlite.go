package main

import (
	"context"
	"database/sql"
	"path/filepath"

	_ "modernc.org/sqlite" // the driver without cgo
)

type sqliteStore struct {
	db  *sql.DB
	one *sql.Stmt
}

func openSQLite(dir string, g guarantee) (store, error) {
	level := "OFF" // survives a kill: the kernel has the pages
	if g == machine {
		level = "FULL"
	}
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "log.db")+"?_pragma=journal_mode(WAL)&_pragma=synchronous("+level+")")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	if _, err := db.Exec(`CREATE TABLE IF NOT EXISTS log (offset INTEGER PRIMARY KEY, key BLOB, value BLOB)`); err != nil {
		return nil, err
	}
	one, err := db.Prepare(`INSERT INTO log (key, value) VALUES (?, ?)`)
	return &sqliteStore{db, one}, err
}

func (s *sqliteStore) Append(ctx context.Context, recs []record) error {
	if len(recs) == 1 {
		_, err := s.one.ExecContext(ctx, recs[0].key, recs[0].value)
		return err
	}
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	st := tx.StmtContext(ctx, s.one)
	for _, r := range recs {
		if _, err := st.ExecContext(ctx, r.key, r.value); err != nil {
			return err
		}
	}
	return tx.Commit()
}

func (s *sqliteStore) ReadAll(ctx context.Context) (int, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT key, value FROM log ORDER BY offset`)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	n := 0
	var k, v sql.RawBytes
	for rows.Next() {
		if err := rows.Scan(&k, &v); err != nil {
			return n, err
		}
		touch(v)
		n++
	}
	return n, rows.Err()
}

func (s *sqliteStore) Close() error {
	s.one.Close()
	return s.db.Close()
}
