package embedlog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/x/embedlog/internal/backup"
	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/internal/vfs"
)

// BackupProgress is how far a backup or a restore has come.
type BackupProgress struct {
	Stage       string // "copy", "verify" or "restore"
	Done, Total int64  // bytes of this stage
	File        string // what is being worked on, as it is called in the database's directory
}

// BackupOptions say how to write a backup. Nil is all defaults.
type BackupOptions struct {
	// Progress is called now and then, from the goroutine of Backup. It must be quick.
	Progress func(BackupProgress)
	// VerifyNew reads back what this backup has written, and not what it found there
	// from earlier ones.
	VerifyNew bool
}

// BackupReport says what a backup consists of.
type BackupReport struct {
	Dir                string
	Taken              time.Time // the moment that it shows
	Partitions         int
	Files, ReusedFiles int   // all of them, and those that were there already
	Bytes, ReusedBytes int64 // the same in bytes
	// Trimmed are partitions, as topic/number, of which retention deleted something
	// before it was copied: it is not in the backup.
	Trimmed []string
	// Pause is for how long the ends of transactions and changes of topics waited.
	// Records were taken all the time.
	Pause time.Duration
}

// RestoreOptions say how to restore. Nil is all defaults.
type RestoreOptions struct {
	Progress func(BackupProgress) // as in BackupOptions
}

// RestoreReport says what was restored.
type RestoreReport struct {
	Dir        string
	Taken      time.Time // the moment that the backup shows
	Partitions int
	Files      int
	Bytes      int64
}

var (
	// ErrNotEmpty says that a directory to restore into holds something, which
	// *NotEmptyError names, or that one to back up into holds something that is no
	// backup. Nothing was changed.
	ErrNotEmpty = engine.ErrNotEmpty
	// ErrNoBackup says that a directory holds no complete backup.
	ErrNoBackup = backup.ErrIncomplete
)

// NotEmptyError names what lies in a directory that should be empty.
type NotEmptyError = engine.NotEmptyError

// Backup writes a copy of the database as it is at one moment into dir, while
// everything goes on, and reads it back before it counts. In the copy no committed
// position lies past its partition's end, and a transaction is there as a whole or
// not at all; one that is open at that moment is not.
//
// dir is made if need be; one that holds something else than a backup is refused
// with ErrNotEmpty. A complete backup there is replaced when the new one is
// complete, and not before; what has not changed since is not copied again. After
// an error, a kill or a power cut the earlier one still counts, and the next Backup
// into dir goes on with what is there. A node of a cluster needs a replica of each partition. See docs/backup.md.
func (db *DB) Backup(ctx context.Context, dir string, o *BackupOptions) (BackupReport, error) {
	report := BackupReport{Dir: dir}
	if err := db.outside(dir); err != nil {
		return report, fmt.Errorf("backup: %w", err)
	}
	fs, err := vfs.OS(dir)
	if err != nil {
		return report, fmt.Errorf("backup: %w", err)
	}
	defer fs.Close()
	return db.BackupFS(ctx, fs, dir, o)
}

// outside refuses a directory within the database's own.
func (db *DB) outside(dir string) error {
	own, err := filepath.Abs(db.engine.Info().Dir)
	if err != nil {
		return err
	}
	dest, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if rel, err := filepath.Rel(own, dest); err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator)) {
		return fmt.Errorf("%s lies within the database's directory %s", dir, own)
	}
	return nil
}

// BackupFS is Backup into a file system of this module's, for its tests. dir names
// it in messages.
func (db *DB) BackupFS(ctx context.Context, fs vfs.FS, dir string, o *BackupOptions) (BackupReport, error) {
	report := BackupReport{Dir: dir}
	var options engine.BackupOptions
	if o != nil {
		options.Progress, options.VerifyNew = reportTo(o.Progress), o.VerifyNew
	}
	r, err := db.engine.Backup(ctx, fs, &options)
	if m := r.Manifest; m != nil {
		report.Taken = time.UnixMilli(m.TakenMillis)
		report.Partitions = max(len(m.Logs)-1, 0) // the metadata is none
	}
	report.Files, report.Bytes, report.ReusedFiles, report.ReusedBytes = r.Files, r.Bytes, r.ReusedFiles, r.ReusedBytes
	report.Trimmed, report.Pause = r.Trimmed, r.Pause
	if err != nil {
		return report, fmt.Errorf("into %s: %w", dir, err)
	}
	return report, nil
}

func reportTo(f func(BackupProgress)) func(backup.Progress) {
	if f == nil {
		return nil
	}
	return func(p backup.Progress) { f(BackupProgress{Stage: p.Stage, Done: p.Done, Total: p.Total, File: p.Path}) }
}

// VerifyBackup reads the backup in dir from end to end, without changing it: every
// checksum, and that each partition opens and ends where it was cut. It fails with
// ErrNoBackup when there is no complete one, and with a *CorruptionError that names
// the file when something is wrong.
func VerifyBackup(ctx context.Context, dir string, o *RestoreOptions) (RestoreReport, error) {
	src, err := existing(dir)
	if err != nil {
		return RestoreReport{}, fmt.Errorf("verify backup: %w", err)
	}
	defer src.Close()
	m, err := backup.Verify(ctx, src, restoreOptions(o))
	report := restoreReport(dir, m)
	if err != nil {
		return report, fmt.Errorf("verify backup %s: %w", dir, err)
	}
	return report, nil
}

// Restore makes a database of the backup in backupDir in dir, which must be absent
// or empty. The backup is verified before anything is written, and what was written
// afterwards. The database belongs to the same cluster, and its directory has an id
// of its own; a backup that a node made is restored as a database that is used alone, of a cluster of its own. A restore that was stopped leaves a directory that no database can be
// opened in: remove it and restore again.
func Restore(ctx context.Context, backupDir, dir string, o *RestoreOptions) (RestoreReport, error) {
	src, err := existing(backupDir)
	if err != nil {
		return RestoreReport{}, fmt.Errorf("restore: %w", err)
	}
	defer src.Close()
	dst, err := vfs.OS(dir)
	if err != nil {
		return RestoreReport{}, fmt.Errorf("restore: %w", err)
	}
	defer dst.Close()
	m, err := engine.Restore(ctx, src, dst, dir, restoreOptions(o))
	report := restoreReport(dir, m)
	if err != nil {
		return report, fmt.Errorf("restore %s from %s: %w", dir, backupDir, err)
	}
	return report, nil
}

// existing opens a directory, and makes none.
func existing(dir string) (vfs.FS, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, &os.PathError{Op: "open", Path: dir, Err: errors.New("not a directory")}
	}
	return vfs.OS(dir)
}

func restoreOptions(o *RestoreOptions) *engine.BackupOptions {
	if o == nil {
		return nil
	}
	return &engine.BackupOptions{Progress: reportTo(o.Progress)}
}

func restoreReport(dir string, m *backup.Manifest) RestoreReport {
	report := RestoreReport{Dir: dir}
	if m != nil {
		report.Taken = time.UnixMilli(m.TakenMillis)
		report.Partitions, report.Files, report.Bytes = max(len(m.Logs)-1, 0), len(m.Entries), m.Bytes()
	}
	return report
}
