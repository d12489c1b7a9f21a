package embedlog_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/x/embedlog"
)

func TestBackupRestoreOfDirectories(t *testing.T) {
	ctx := context.Background()
	dir, copyDir, again := filepath.Join(t.TempDir(), "db"), filepath.Join(t.TempDir(), "backup"), filepath.Join(t.TempDir(), "again")
	db, err := embedlog.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	topic, err := db.CreateTopic(ctx, "orders", &embedlog.TopicConfig{Partitions: 3})
	if err != nil {
		t.Fatal(err)
	}
	produce := func(n int) {
		for i := range n {
			if _, err := topic.Produce(ctx, embedlog.Record{Key: fmt.Append(nil, i), Value: fmt.Append(nil, "v", i)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	count := func(dir string) (n int) {
		db, err := embedlog.Open(dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		topic, err := db.Topic("orders")
		if err != nil {
			t.Fatal(err)
		}
		for _, err := range topic.Scan(ctx, nil) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		if r, err := db.Verify(ctx); err != nil || !r.OK() {
			t.Errorf("%v, %v", r.Problems, err)
		}
		return n
	}
	produce(100)
	stages := make(map[string]bool)
	report, err := db.Backup(ctx, copyDir, &embedlog.BackupOptions{Progress: func(p embedlog.BackupProgress) { stages[p.Stage] = true }})
	if err != nil {
		t.Fatal(err)
	}
	if report.Partitions != 3 || report.Bytes == 0 || report.ReusedFiles != 0 || report.Taken.IsZero() || !stages["copy"] || !stages["verify"] {
		t.Errorf("%+v, %v", report, stages)
	}
	produce(50)
	if r, err := embedlog.Restore(ctx, copyDir, again, nil); err != nil || r.Partitions != 3 || r.Files != report.Files {
		t.Fatalf("%+v, %v", r, err)
	}
	if n := count(again); n != 100 {
		t.Errorf("%d records restored, want 100", n)
	}
	if report, err = db.Backup(ctx, copyDir, nil); err != nil || report.ReusedBytes == 0 {
		t.Fatalf("%+v, %v", report, err)
	}
	if _, err := embedlog.Restore(ctx, copyDir, again, nil); !errors.Is(err, embedlog.ErrNotEmpty) {
		t.Errorf("onto another database: %v", err)
	}
	if _, err := embedlog.VerifyBackup(ctx, copyDir, nil); err != nil {
		t.Error(err)
	}
	third := filepath.Join(t.TempDir(), "third")
	if _, err := embedlog.Restore(ctx, copyDir, third, nil); err != nil {
		t.Fatal(err)
	}
	if n := count(third); n != 150 {
		t.Errorf("%d records restored, want 150", n)
	}

	if _, err := db.Backup(ctx, filepath.Join(dir, "backup"), nil); err == nil || !strings.Contains(err.Error(), "within the database") {
		t.Errorf("into itself: %v", err)
	}
	if _, err := embedlog.Restore(ctx, t.TempDir(), filepath.Join(t.TempDir(), "x"), nil); !errors.Is(err, embedlog.ErrNoBackup) {
		t.Errorf("of an empty directory: %v", err)
	}
	missing := filepath.Join(t.TempDir(), "missing")
	if _, err := embedlog.VerifyBackup(ctx, missing, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of none: %v", err)
	}
	if _, err := os.Stat(missing); err == nil {
		t.Error("a directory was made by looking for it")
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Backup(ctx, copyDir, nil); !errors.Is(err, embedlog.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}
