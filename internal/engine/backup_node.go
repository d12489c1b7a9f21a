package engine

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// A backup that a node of a cluster makes is not of the node: what it has promised others since could not be known to what is
// restored, so it must never speak for the node again. It is of the database, and is restored as one that is used alone, of a
// cluster id of its own; it can become the first node of another cluster then. So it needs all partitions, each up to what is
// committed, and each as one that is in no group.
//
//	offsets -> data as new as they -> transactions' states as new as that -> metadata
//
// The order is that of a database that is alone; between two of them this node's replicas catch up with what was
// acknowledged before, wherever that was. What is not held still are ends of transactions that other nodes coordinate: of one
// that ends while the logs are cut, some partitions may have the marker and others not.

// ElsewhereError is a partition that a node has no replica of, and needs for a backup.
type ElsewhereError struct {
	Partitions []string
	Nodes      []int32 // those that have all of these
}

func (e *ElsewhereError) Error() string {
	where := "no node has all of them: give this one replicas (`embedlog cluster set-replication-factor`, `reassign`)"
	if len(e.Nodes) > 0 {
		where = fmt.Sprintf("have node %d make the backup, or give this one replicas (`embedlog cluster set-replication-factor`, `reassign`)", e.Nodes[0])
	}
	return fmt.Sprintf("this node has no replica of %s, and a backup is of all partitions: %s", few(e.Partitions), where)
}

// hasAll is nil when this node has a replica of all partitions.
func (e *Engine) hasAll() error {
	if e.cluster == nil {
		return nil
	}
	missing := new(ElsewhereError)
	has := make(map[int32]int)
	all := 0
	for _, t := range e.Topics() {
		for n, p := range t.partitions {
			all++
			for _, node := range t.Replicas(int32(n)) {
				has[node]++
			}
			if p.repl == nil && p.elsewhere {
				missing.Partitions = append(missing.Partitions, p.String())
			}
		}
	}
	if len(missing.Partitions) == 0 {
		return nil
	}
	for node, n := range has {
		if n == all {
			missing.Nodes = append(missing.Nodes, node)
		}
	}
	slices.Sort(missing.Nodes)
	return missing
}

// bringUp returns when this node has what was acknowledged in partitions before the call, wherever that was.
func (e *Engine) bringUp(ctx context.Context, parts []*Partition) error {
	if e.cluster == nil {
		return nil
	}
	errs := make([]error, len(parts))
	parallel(len(parts), func(i int) { _, errs[i] = parts[i].ReadIndex(ctx) })
	return firstError(errs)
}

// capture captures a log, as one that is in no group.
func capture(p *partition.Partition, replicated bool) (*log.Capture, error) {
	if replicated {
		return p.CaptureAlone()
	}
	return p.Log().Capture()
}

// leaveCluster has restored metadata know of no nodes any more, and of no topic that came after the logs were cut.
func leaveCluster(dst vfs.FS) error {
	m, err := openMetaLog(vfs.Sub(dst, metaName), true, log.NewFileCache(0), slog.New(slog.DiscardHandler), time.Now, nil)
	if err != nil {
		return err
	}
	for _, t := range inOrder(m.state.byID) {
		there := 0
		for there < t.partitions {
			if _, err := dst.List(partitionDir(t.id, there)); err != nil {
				break
			}
			there++
		}
		alone := *t
		alone.partitions, alone.factor, alone.replicas = there, 0, nil
		m.state.remove(t)
		if there > 0 {
			m.state.add(&alone)
		}
	}
	for _, t := range inOrder(m.state.deleting) {
		alone := *t
		alone.factor, alone.replicas, alone.waiting = 0, nil, nil
		m.state.deleting[t.id] = &alone
	}
	m.state.nodes, m.state.removed = map[int32]*nodeMeta{}, nil
	err = m.snapshotLocked() // nobody else is here
	if closed := m.part.Close(); err == nil {
		err = closed
	}
	return err
}
