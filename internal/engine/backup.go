package engine

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"sync/atomic"
	"time"

	"github.com/x/embedlog/internal/backup"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// A backup is of one moment, the cut. What it shows fits together because of the
// order in which the logs are cut while the ends of transactions and changes of
// topics wait:
//
//	__consumer_offsets    no position lies past the data, which is cut later;
//	__share_group_state   nor does a record that a share group is done with
//	data                  of a transaction all markers are there, or none
//	__transaction_state   knows every epoch that the data has, and each decision
//	metadata              has given away every producer id that the data has
//
// Appends go on between two of them, so each log is cut where it happens to be. A
// transaction that is open then is aborted when the copy is opened, and one that was
// decided is completed, as after a crash.
//
// After the cut everything goes on while files are copied. Compaction of what is not
// copied yet waits: it could drop a record for the sake of a later one that is not in
// the copy. Retention does not: what it deletes is not in the backup.

// BackupOptions say how to write a backup. Nil is all defaults.
type BackupOptions = backup.Options

// BackupProgress is how far a backup, or a restore, has come.
type BackupProgress = backup.Progress

// BackupReport says what a backup consists of.
type BackupReport struct {
	backup.Report
	// Pause is for how long the ends of transactions and changes of topics waited.
	Pause time.Duration
}

// freeCuts is how often a backup starts again because a topic was deleted; then
// changes of topics wait until it is through.
const freeCuts = 3

// Backup makes dst hold a backup of the database as it is now, and returns when it
// is durable and was read back. An earlier one in dst is replaced when that is so,
// and what has not changed since is reused. When it fails, another call goes on with
// what is there.
func (e *Engine) Backup(ctx context.Context, dst vfs.FS, o *BackupOptions) (BackupReport, error) {
	if err := e.closedError(); err != nil {
		return BackupReport{}, fmt.Errorf("backup: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.life, cancel)()
	for try := 1; ; try++ {
		report, err := e.backup(ctx, dst, o, try > freeCuts)
		if err == nil {
			return report, nil
		}
		if cerr := e.closedError(); cerr != nil {
			return report, fmt.Errorf("backup: %w", cerr)
		}
		// A topic was deleted between the cut and the copy: the next cut is without it.
		if errors.Is(err, log.ErrClosed) && try <= freeCuts {
			continue
		}
		return report, fmt.Errorf("backup: %w", err)
	}
}

// backup takes a cut and copies it. With still, topics do not change meanwhile.
func (e *Engine) backup(ctx context.Context, dst vfs.FS, o *BackupOptions, still bool) (BackupReport, error) {
	var report BackupReport
	if err := e.hasAll(); err != nil {
		return report, err
	}
	// Most of what is not synced is synced before anybody has to wait for it.
	parts := e.allPartitions()
	errs := make([]error, len(parts))
	parallel(len(parts), func(i int) { errs[i] = parts[i].Sync(ctx) })
	if err := firstError(errs); err != nil && !errors.Is(err, log.ErrClosed) {
		return report, err
	}
	src := new(backup.Source)
	defer func() { // those that were not copied
		for i := range src.Logs {
			src.Logs[i].Release()
		}
	}()
	var err error
	e.txns.holdEnds(func() {
		began := time.Now()
		if err = e.beginAdmin(ctx); err != nil {
			return
		}
		if err = e.cut(ctx, src); err != nil || !still {
			e.endAdmin()
		}
		report.Pause = time.Since(began)
	})
	if err != nil {
		return report, err
	}
	if still {
		defer e.endAdmin()
	}
	report.Report, err = backup.Write(ctx, dst, src, o)
	return report, err
}

func (e *Engine) allPartitions() (parts []*Partition) {
	for _, t := range e.Topics() {
		for _, p := range t.partitions {
			if !p.elsewhere {
				parts = append(parts, p)
			}
		}
	}
	return parts
}

// cut captures every log. The ends of transactions wait, and topics do not change.
func (e *Engine) cut(ctx context.Context, src *backup.Source) error {
	id := e.identityNow()
	src.Head = backup.Head{TakenMillis: e.now().UnixMilli(), Cluster: id.cluster.String(), Directory: id.directory.String()}
	src.Files = append(src.Files, backup.File{Path: formatName, Data: id.encode()})
	var offsets, data, state []*Partition
	for _, t := range e.Topics() {
		f := topicFile{id: t.meta.id, name: t.meta.name, made: t.meta.partitions, making: t.meta.partitions}
		src.Files = append(src.Files, backup.File{Path: path.Join(topicDir(t.meta.id), topicFileName), Data: f.encode()})
		switch t.meta.name {
		case offsetsTopicName, shareTopicName:
			offsets = append(offsets, t.partitions...)
		case txnTopicName:
			state = append(state, t.partitions...)
		default:
			data = append(data, t.partitions...)
		}
	}
	for _, parts := range [][]*Partition{offsets, data, state} {
		if err := e.bringUp(ctx, parts); err != nil {
			return err
		}
		if err := captureAll(ctx, parts, src); err != nil {
			return err
		}
	}
	// First in the list: it is copied first, and may write snapshots again.
	meta, err := e.meta.capture()
	if err != nil {
		return err
	}
	src.Logs = append([]backup.Log{*meta}, src.Logs...)
	return nil
}

func captureAll(ctx context.Context, parts []*Partition, src *backup.Source) error {
	logs := make([]backup.Log, len(parts))
	errs := make([]error, len(parts))
	parallel(len(parts), func(i int) {
		p := parts[i]
		if errs[i] = ctx.Err(); errs[i] != nil {
			return
		}
		if errs[i] = p.Err(); errs[i] != nil {
			errs[i] = fmt.Errorf("%s: %w", p, errs[i])
			return
		}
		l := backup.Log{Path: partitionDir(p.topicID, int(p.id)), Name: p.String(), Release: p.Log().Hold()}
		if l.Capture, errs[i] = capture(p.Partition, p.repl != nil); errs[i] != nil {
			l.Release()
			errs[i] = fmt.Errorf("%s: %w", p, errs[i])
			return
		}
		logs[i] = l
	})
	for i := range logs {
		if logs[i].Capture != nil {
			src.Logs = append(src.Logs, logs[i])
		}
	}
	return firstError(errs)
}

// capture captures the metadata, and holds its snapshots back: they delete the
// commands before them, and those are what the cut consists of.
func (m *metaLog) capture() (*backup.Log, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, err := capture(m.part, m.group != nil)
	if err != nil {
		return nil, fmt.Errorf("metadata: %w", err)
	}
	m.held++
	var released atomic.Bool
	return &backup.Log{Path: metaName, Name: "metadata", Capture: c, Release: func() {
		if released.CompareAndSwap(false, true) {
			m.mu.Lock()
			m.held--
			m.mu.Unlock()
		}
	}}, nil
}

// restoringName marks a directory that is being restored into: until it is gone no
// database is opened or made there.
const restoringName = "RESTORING"

// NotEmptyError is a directory that something should be restored into and that
// holds something.
type NotEmptyError struct {
	Dir   string
	Found string // a name in it
}

func (e *NotEmptyError) Error() string {
	if e.Found == restoringName {
		return fmt.Sprintf("%s holds a restore that was stopped: remove what is in it, and restore again", e.Dir)
	}
	return fmt.Sprintf("%s is not empty: it holds %q", e.Dir, e.Found)
}

// Is matches ErrNotEmpty.
func (e *NotEmptyError) Is(target error) bool { return target == ErrNotEmpty }

// ErrNotEmpty is matched by *NotEmptyError. Nothing was changed.
var ErrNotEmpty = backup.ErrNotEmpty

// Restore makes a database of the backup in src in dst, which must be empty. The
// backup is verified before, and what was written afterwards. The database is of the
// same cluster, and a directory of its own. Of a backup of a node it is one that is used alone: see backup_node.go.
// dir names dst in messages.
func Restore(ctx context.Context, src, dst vfs.FS, dir string, o *BackupOptions) (*backup.Manifest, error) {
	infos, err := dst.List(".")
	if err != nil {
		return nil, err
	}
	for _, info := range infos {
		if !strings.HasPrefix(info.Name, ".") && info.Name != "lost+found" { // the system's
			return nil, &NotEmptyError{Dir: dir, Found: info.Name}
		}
	}
	// Read before anything is written: a backup that cannot be restored changes nothing.
	m, err := backup.Verify(ctx, src, o)
	if err != nil {
		return m, err
	}
	b, err := backup.ReadFile(src, m, formatName)
	if err != nil {
		return m, err
	}
	id, err := decodeIdentity(b)
	if err != nil {
		return m, damaged(formatName, err)
	}
	id.directory = newID()
	node := id.node
	if node != 0 {
		id.node, id.cluster = 0, newID() // see backup_node.go
	}
	if err := replaceFile(dst, ".", restoringName, []byte("A backup is being restored into this directory.\n")); err != nil {
		return m, err
	}
	for _, name := range []string{metaName, topicsName} {
		if err := dst.Mkdir(name); err != nil {
			return m, err
		}
	}
	if err := backup.Restore(ctx, src, dst, m, o, func(name string) bool { return name == formatName }); err != nil {
		return m, err
	}
	if node != 0 {
		if err := leaveCluster(dst); err != nil {
			return m, fmt.Errorf("the metadata of node %d: %w", node, err)
		}
	}
	if err := replaceFile(dst, ".", formatName, id.encode()); err != nil {
		return m, err
	}
	if err := removeFile(dst, restoringName); err != nil {
		return m, err
	}
	return m, dst.SyncDir(".")
}
