package embedlog_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/x/embedlog"
)

func TestRepairOfADirectory(t *testing.T) {
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "db")
	if _, err := embedlog.Repair(ctx, dir, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of a directory that is not there: %v", err)
	}
	db, err := embedlog.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	topic, err := db.CreateTopic(ctx, "orders", nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if _, err := topic.Produce(ctx, embedlog.Record{Value: []byte("value")}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := embedlog.Repair(ctx, dir, nil); !errors.Is(err, embedlog.ErrLocked) {
		t.Errorf("of an open database: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	segments, err := filepath.Glob(filepath.Join(dir, "topics", "*", "0", "*.log"))
	if err != nil || len(segments) != 1 {
		t.Fatal(segments, err)
	}
	b, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	b[128+48+70] ^= 0x40 // in the first record
	if err := os.WriteFile(segments[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	dry, err := embedlog.Repair(ctx, dir, &embedlog.RepairOptions{DryRun: true})
	if err != nil || len(dry.Damaged) != 1 || dry.File != "" {
		t.Errorf("%+v, %v", dry, err)
	}
	done, err := embedlog.Repair(ctx, dir, nil)
	if err != nil || len(done.Damaged) != 1 || done.Damaged[0].Name != "orders/0" || !strings.Contains(done.String(), "orders/0") {
		t.Fatalf("%+v, %v", done, err)
	}
	if _, err := os.Stat(filepath.Join(dir, done.File)); err != nil {
		t.Error(err)
	}
	db, err = embedlog.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if topic, err = db.Topic("orders"); err != nil {
		t.Fatal(err)
	}
	n := 0
	for rec, err := range topic.Scan(ctx, nil) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; rec.Offset != int64(n) {
			t.Errorf("record %d has offset %d", n, rec.Offset)
		}
	}
	if n != 4 {
		t.Errorf("%d records left, want 4", n)
	}
}
