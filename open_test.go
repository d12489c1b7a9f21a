package embedlog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// openMemory is a database for one test.
func openMemory(t testing.TB, o *Options) *DB {
	t.Helper()
	db, err := OpenMemory(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func makeTopic(t testing.TB, db *DB, name string, c *TopicConfig) *Topic {
	t.Helper()
	topic, err := db.EnsureTopic(context.Background(), name, c)
	if err != nil {
		t.Fatal(err)
	}
	return topic
}

// readAll is what a scan finds, as partition@offset=value.
func readAll(t testing.TB, topic *Topic, o *ScanOptions) []string {
	t.Helper()
	var list []string
	for rec, err := range topic.Scan(context.Background(), o) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, fmt.Sprintf("%d@%d=%s", rec.Partition, rec.Offset, rec.Value))
	}
	return list
}

// What was produced is there after the directory was opened again.
func TestOpenAgain(t *testing.T) {
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "new", "data")
	for round := range 3 {
		db, err := Open(dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		topic := makeTopic(t, db, "orders", &TopicConfig{Partitions: 2})
		pos, err := topic.ProduceTo(ctx, 1, Record{Value: fmt.Append(nil, round)})
		if err != nil || len(pos) != 1 || pos[0] != (Position{Topic: "orders", Partition: 1, Offset: int64(round)}) {
			t.Fatalf("round %d: %+v, %v", round, pos, err)
		}
		want := []string{"1@0=0", "1@1=1", "1@2=2"}[:round+1]
		if got := readAll(t, topic, nil); strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("round %d: %v, want %v", round, got, want)
		}
		for range 2 {
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestOpenBadInput(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	other := filepath.Join(dir, "other")
	newer := filepath.Join(dir, "newer")
	held := filepath.Join(dir, "held")
	for _, err := range []error{
		os.WriteFile(file, []byte("x"), 0o600), os.Mkdir(other, 0o700), os.WriteFile(filepath.Join(other, "photo.jpg"), nil, 0o600),
		os.Mkdir(newer, 0o700),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	db, err := Open(newer, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	raiseFormat(t, filepath.Join(newer, "FORMAT"))
	holder, err := Open(held, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	for _, row := range []struct {
		name, dir string
		o         *Options
		is        error
		says      []string
	}{
		{"no directory", "", nil, nil, []string{"no directory"}},
		{"a file", file, nil, nil, []string{file}},
		{"something else's directory", other, nil, ErrWrongDirectory, []string{other, "photo.jpg"}},
		{"a newer format", newer, nil, ErrNewerFormat, []string{newer}},
		{"locked", held, nil, ErrLocked, []string{held, fmt.Sprint(os.Getpid())}},
		{"locked for longer than we wait", held, &Options{LockTimeout: time.Millisecond}, ErrLocked, []string{held}},
		{"bad options", filepath.Join(dir, "never made"), &Options{
			LockTimeout: -1, OpenFiles: -1, MaxBytes: -1, Durability: 9, SyncInterval: time.Microsecond,
			GroupInitialDelay: 1000 * time.Hour, GroupMinSessionTimeout: -1, GroupMaxSize: -1,
			TopicDefaults: TopicConfig{Partitions: -1, MaxRecordBytes: -1, Settings: map[string]string{"retention.mss": "1"}},
		}, ErrInvalidSetting, []string{
			"LockTimeout", "OpenFiles", "MaxBytes", "embedlog.durability", "embedlog.sync.interval.ms", "partitions", "max.message.bytes", "retention.mss",
			"GroupInitialDelay", "GroupMinSessionTimeout", "GroupMaxSize",
		}},
		{"sessions that nobody can have", filepath.Join(dir, "never made"), &Options{GroupMinSessionTimeout: 2 * time.Minute, GroupMaxSessionTimeout: time.Minute},
			ErrInvalidSetting, []string{"GroupMaxSessionTimeout", "2m0s"}},
		{"sessions shorter than the least", filepath.Join(dir, "never made"), &Options{GroupMaxSessionTimeout: time.Second}, ErrInvalidSetting, []string{"GroupMaxSessionTimeout", "6s"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			db, err := Open(row.dir, row.o)
			if err == nil {
				db.Close()
				t.Fatal("it opened")
			}
			checkError(t, err, row.is, row.says...)
		})
	}
	if _, err := os.Stat(filepath.Join(dir, "never made")); !os.IsNotExist(err) {
		t.Errorf("bad options left a directory: %v", err)
	}
}

// checkError wants an error that matches is and says all of these.
func checkError(t *testing.T, err, is error, says ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want one that matches %v", is)
		return
	}
	if is != nil && !errors.Is(err, is) {
		t.Errorf("%q does not match %v", err, is)
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("%q does not say %q", err, s)
		}
	}
}

// raiseFormat makes a FORMAT file say that a newer version wrote it.
func raiseFormat(t *testing.T, name string) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	newer := strings.Replace(string(b), "format 1\n", "format 99\n", 1)
	if newer == string(b) {
		t.Fatalf("no format line in %q", b)
	}
	if err := os.WriteFile(name, []byte(newer), 0o600); err != nil {
		t.Fatal(err)
	}
}
