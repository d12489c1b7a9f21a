package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// metaLog is the metadata and the log that it is made from.
type metaLog struct {
	part     *partition.Partition
	logger   *slog.Logger
	security atomic.Pointer[securityView]
	group    *metaGroup // nil alone

	mu    sync.Mutex // held from the check of a command until it is applied
	state *metadata
	since int // bytes of commands since the last snapshot
	held  int // backups that copy the log: no snapshot is written
}

const (
	metaSegmentBytes = 4 << 20
	// metaReserveBytes lets deletion, which is what helps, go on when the disk is full.
	metaReserveBytes = 256 << 10
	// A snapshot is written when the commands since the last one are more than
	// snapshotAfter and snapshotTimes the state.
	snapshotTimes = 4
)

// snapshotAfter is in bytes. Tests lower it.
var snapshotAfter = 1 << 20

// openMetaLog opens the log in meta/ and replays it, with a replicator up to the high
// watermark. Damage makes it fail with a
// *log.CorruptionError, a command of a newer version with log.ErrNewerFormat, and
// neither changes anything.
func openMetaLog(dir vfs.FS, mustExist bool, files *log.FileCache, logger *slog.Logger, now func() time.Time, replicator partition.Replicator) (m *metaLog, err error) {
	part, err := partition.Open("", &partition.Options{
		FS: dir, Files: files, NoLock: true, MustExist: mustExist, Logger: logger, Now: now, Replicator: replicator,
		Config: partition.Config{
			// A change is a few hundred bytes, and rare: zeros ahead of it would be most of
			// what a small database takes.
			Log:           log.Config{Level: log.Durable, NoZeroing: true, SegmentBytes: metaSegmentBytes, SegmentAge: -1, ReserveBytes: metaReserveBytes},
			MaxBatchBytes: 2 * maxCommandBytes,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("metadata: %w", err)
	}
	m = &metaLog{part: part, logger: logger, state: newMetadata()}
	err = m.replay()
	if damage := part.Recovered().Corruption; damage != nil {
		err = damage
	}
	if err != nil {
		part.Close()
		return nil, fmt.Errorf("metadata: %w", err)
	}
	m.security.Store(m.state.security.after(snapshotCommand, nil))
	return m, nil
}

func (m *metaLog) replay() error {
	r, err := m.part.ReadFrom(m.part.LogStart(), nil)
	if err != nil {
		return err
	}
	var records log.RecordReader
	for {
		batch, err := r.TryNext()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		for err = records.Reset(batch, 0); err == nil && records.Next(); {
			rec := records.Record()
			if err := m.state.replay(rec.Value); err != nil {
				if errors.Is(err, log.ErrNewerFormat) {
					return err
				}
				return &log.CorruptionError{File: metaName, End: -1, FirstOffset: rec.Offset, EndOffset: rec.Offset + 1, Cause: err}
			}
			m.since += len(rec.Value)
		}
		if err := errors.Join(err, records.Err()); err != nil {
			return err
		}
	}
}

// do makes a command so: checked, durable in the log, applied. It returns the first
// of the producer ids that the command allocates. An error that matches
// partition.ErrUnknownOutcome says that the next open will tell: the storage failed,
// and the log takes nothing more until then. Whatever happens to ctx then, the command is waited for:
// it would be in the log and not in the state.
func (m *metaLog) do(ctx context.Context, c *command) (firstID int64, err error) {
	firstID, _, err = m.change(ctx, c)
	return firstID, err
}

// change is do, which says also what became of users and ACLs by it.
func (m *metaLog) change(ctx context.Context, c *command) (firstID int64, change SecurityChange, err error) {
	if m.group != nil {
		// Whoever watches users and ACLs was told as it was applied, on every node.
		r, err := m.group.changeAnywhere(ctx, c)
		return r.firstID, SecurityChange{}, err
	}
	if err := ctx.Err(); err != nil {
		return 0, change, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.state.check(c); err != nil {
		return 0, change, err
	}
	b := c.encode()
	if _, err := m.append(context.Background(), b, anywhere); err != nil {
		return 0, change, err
	}
	firstID, err = m.state.apply(c)
	if err != nil {
		panic("engine: a command that was checked does not hold: " + err.Error())
	}
	change = m.state.security.securityChange(c)
	if c.kind.changesSecurity() {
		m.security.Store(m.state.security.after(c.kind, m.security.Load()))
	}
	m.since += len(b)
	if m.snapshotDue() {
		if err := m.snapshotLocked(); err != nil {
			// The commands are all there. It is tried again when as much has been added.
			m.logger.Warn("no metadata snapshot was written", "error", err)
		}
		m.since = 0
	}
	return firstID, change, nil
}

// snapshotDue is called with mu held.
func (m *metaLog) snapshotDue() bool {
	return m.held == 0 && m.since > snapshotAfter && m.since > snapshotTimes*(m.state.bytes+m.state.security.bytes)
}

// anywhere is for a command that may stand at any offset.
const anywhere = -1

func (m *metaLog) append(ctx context.Context, b []byte, expect int64) (at int64, err error) {
	o := &partition.AppendOptions{Internal: true, Expect: expect != anywhere, ExpectedOffset: max(expect, 0)}
	res, err := m.part.Append(ctx, []log.Record{{Timestamp: -1, Value: b}}, o)
	if err != nil {
		return 0, fmt.Errorf("metadata: %w", err)
	}
	return res.BaseOffset, nil
}

// snapshotLocked writes the state and lets go of what lies before it. After a crash
// anywhere in between, replay gives the same state: a snapshot counts when its last
// part is there, and the log start offset moves afterwards.
func (m *metaLog) snapshotLocked() error {
	l := m.part.Log()
	l.Lock()
	err := l.Roll() // whole segments are deleted only
	l.Unlock()
	if err != nil {
		return err
	}
	start := m.part.LogEnd()
	for _, c := range m.state.snapshot() {
		if _, err := m.append(context.Background(), c.encode(), anywhere); err != nil {
			return err
		}
	}
	_, err = m.part.DeleteRecords(context.Background(), start)
	return err
}

// holds says why a command would be refused now.
func (m *metaLog) holds(c *command) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.state.check(c); err != nil {
		return err
	}
	return m.part.Err()
}

func (m *metaLog) close() error {
	if m.group != nil {
		m.group.stop()
	}
	return m.part.Close()
}

// view calls f with the state, which f must not change or keep.
func (m *metaLog) view(f func(*metadata)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(m.state)
}
