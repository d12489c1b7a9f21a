package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// What a node of a cluster has on its disk follows the metadata: bring makes one topic
// agree with it, whatever is there, and is called again after a crash or a failure.
//
//	command applied -> topics/<id>, topic file, partitions of this node, synced -> Run
//	topic deleted   -> partitions closed -> files removed -> "gone" to the leader
//
// A directory is made after the command that needs it, so one that the metadata does
// not know was never needed, is deleted, or is strange; which of these it is, is known
// when all commands that an earlier run had applied are applied again (caughtUp).

// replicasOf are the nodes that partition n is assigned to.
func (t *topicMeta) replicasOf(n int) assignment {
	if n < len(t.replicas) {
		return t.replicas[n]
	}
	return assignment{}
}

// applied makes a command so on this node. It is called by the goroutine that applies.
func (e *Engine) applied(c *command, change SecurityChange) {
	if change != (SecurityChange{}) {
		e.securityWatchers.call(change)
	}
	switch c.kind {
	case registerNodeCommand, removeNodeCommand, drainNodeCommand:
		e.nodesChanged()
		// After a crash of all nodes each has to know where the others are before it can hear
		// that this was committed.
		if err := e.meta.part.Checkpoint(); err != nil {
			e.logger.Warn("where the nodes are is not durable", "error", err)
		}
		if !e.meta.group.done {
			return
		}
		// The first one has all topics.
		e.bringAll(func(t *topicMeta, seen *Topic) bool { return seen == nil || len(seen.meta.replicas) != len(t.replicas) })
		e.replicas.look()
		e.watchers.call()
		return
	}
	if !e.meta.group.done {
		return // caughtUp brings it all
	}
	switch c.kind {
	case createTopicCommand, createReplicatedCommand, alterTopicCommand, addPartitionsCommand, addReplicatedCommand, assignCommand, deleteTopicCommand:
		e.bring(c.topic.id)
	case snapshotCommand, securitySnapshotCommand, clusterSnapshotCommand:
		if c.flags&snapshotLast != 0 {
			e.nodesChanged()
			e.bringAll(func(t *topicMeta, seen *Topic) bool { return seen == nil || !sameTopic(seen.meta, t) })
		}
	}
	e.replicas.look()
}

// caughtUp is called once, when all that an earlier run had applied is applied again.
func (e *Engine) caughtUp() {
	e.replicas.caught.Store(true)
	e.bringAll(nil)
	if err := e.sweep(); err != nil {
		e.logger.Warn("topic directories not looked at", "error", err)
	}
	e.replicas.look()
}

// nodesChanged publishes the addresses of the nodes, and who may ask what.
func (e *Engine) nodesChanged() {
	peers := make(map[int32]string)
	var r *standings
	e.meta.view(func(m *metadata) {
		for id, n := range m.nodes {
			peers[id] = n.address
		}
		r = m.standings()
	})
	e.peers.Store(&peers)
	e.standings.Store(r)
	if w, ok := e.cluster.(NodesWatcher); ok {
		w.NodesChanged()
	}
}

func sameTopic(a, b *topicMeta) bool {
	return a == b || string(a.appendTo(nil)) == string(b.appendTo(nil)) &&
		slices.EqualFunc(a.replicas, b.replicas, func(x, y assignment) bool { return x.epoch == y.epoch && slices.Equal(x.nodes, y.nodes) }) // what moves is looked up, not published
}

// bringAll brings all topics, those alone for which wants is true where it is not nil.
func (e *Engine) bringAll(wants func(t *topicMeta, seen *Topic) bool) {
	var ids []TopicID
	seen := e.view.Load()
	e.meta.view(func(m *metadata) {
		for _, t := range inOrder(m.byID) {
			if wants == nil || wants(t, seen.byID[t.id]) {
				ids = append(ids, t.id)
			}
		}
		for id := range seen.byID {
			if m.byID[id] == nil {
				ids = append(ids, id)
			}
		}
	})
	for _, id := range ids {
		e.bring(id)
	}
}

// bring makes what this node has of a topic agree with the metadata. What could not be
// done is noted, and tried again by the replicas' goroutine.
func (e *Engine) bring(id TopicID) {
	e.admin <- struct{}{} // nobody holds it for long, and a backup not while it copies
	defer e.endAdmin()
	if e.life.Err() != nil {
		return
	}
	if err := e.bringTopic(id); err != nil {
		e.logger.Warn("a topic's replicas are not all there; tried again", "topic_id", id.String(), "error", err)
		e.replicas.again(id)
	}
}

// bringTopic is bring with the right to change topics.
func (e *Engine) bringTopic(id TopicID) error {
	var meta *topicMeta
	ours := false // a directory that is not the one that is registered has no part in anything
	e.meta.view(func(m *metadata) {
		meta = m.byID[id]
		self := m.nodes[e.identity.node]
		ours = self != nil && self.directory == e.identity.directory
	})
	old := e.view.Load().byID[id]
	if meta == nil {
		if old != nil {
			e.retireTopic(old)
		}
		return nil
	}
	if other := e.view.Load().byName[meta.name]; other != nil && other.meta.id != id {
		e.retireTopic(other) // it was deleted, in commands that a snapshot stands for
	}
	t := &Topic{meta: meta, partitions: make([]*Partition, meta.partitions)}
	var err error
	if t.settings, err = e.parseSettings(meta.settings, meta.internal); err != nil {
		return err
	}
	var missing, there []int
	if old == nil || len(old.partitions) < len(t.partitions) {
		// What lies here of an earlier run takes part until its group has let it go.
		if there, err = e.partitionsThere(meta); err != nil {
			return err
		}
	}
	for n := range t.partitions {
		var has *Partition
		if old != nil && n < len(old.partitions) {
			has = old.partitions[n]
		}
		mine := meta.replicasOf(n)
		switch {
		case has != nil && has.repl != nil, has != nil && !(ours && mine.has(e.identity.node)) && has.elsewhere:
			t.partitions[n] = has
		case ours && (mine.has(e.identity.node) || slices.Contains(there, n)):
			missing = append(missing, n)
		default:
			t.partitions[n] = e.elsewhere(t, n)
		}
	}
	err = e.makeReplicas(t, missing)
	if old != nil && !sameSettings(old.meta, meta) {
		config := e.partitionConfig(t.settings, meta.internal)
		for _, p := range t.partitions {
			if p.repl == nil {
				continue
			}
			if err := p.SetConfig(config); err != nil {
				e.logger.Warn("settings not in force", "partition", p.String(), "error", err)
			}
		}
	}
	if old == nil || old.meta != meta || len(missing) > 0 {
		e.publish(old, t)
	}
	return err
}

func sameSettings(a, b *topicMeta) bool {
	return string(appendMap(nil, a.settings)) == string(appendMap(nil, b.settings))
}

// elsewhere is a partition whose replicas are other nodes'.
func (e *Engine) elsewhere(t *Topic, n int) *Partition {
	leader, epoch := e.replicas.hint(LogID{t.meta.id, int32(n)})
	p := e.newPartition(t, n, partition.Elsewhere(leader, epoch, e.addressOf(leader)), nil)
	p.elsewhere, p.hintLeader, p.hintEpoch = true, leader, epoch
	return p
}

func (e *Engine) addressOf(node int32) string {
	if peers := e.peers.Load(); peers != nil {
		return (*peers)[node]
	}
	return ""
}

// makeReplicas makes partitions of a topic that are this node's, durable, opens them,
// and takes part in their groups. One that fails answers with the reason.
func (e *Engine) makeReplicas(t *Topic, list []int) error {
	if len(list) == 0 {
		return nil
	}
	dir := topicDir(t.meta.id)
	err := e.ensureTopicDir(t.meta)
	errs := make([]error, len(list))
	parallel(len(list), func(i int) {
		if errs[i] = err; err == nil {
			errs[i] = e.fs.Mkdir(partitionDir(t.meta.id, list[i]))
		}
		t.partitions[list[i]], errs[i] = e.openReplica(t, list[i], errs[i])
	})
	if err == nil {
		// Before anything is promised for them.
		err = e.fs.SyncDir(dir)
	}
	// Together: what their groups make durable at one time shares its syncs.
	parallel(len(list), func(i int) {
		n := list[i]
		p := t.partitions[n]
		if p.repl == nil {
			return
		}
		if errs[i] = err; err == nil {
			errs[i] = e.runReplica(p)
		}
		if errs[i] != nil {
			p.stop()
			p.Partition.CloseFor(errs[i])
			t.partitions[n] = e.newPartition(t, n, partition.Failed(errs[i]), nil)
		}
		if errors.Is(errs[i], ErrReplicaLost) {
			e.logger.Error("partition is not replicated", "topic", t.meta.name, "partition", n, "error", errs[i])
			errs[i] = nil // it would be the same again: see refetch
		}
	})
	return firstError(errs)
}

// ensureTopicDir makes the directory of a topic, durable, with a file that says what it is.
func (e *Engine) ensureTopicDir(meta *topicMeta) error {
	want := topicFile{id: meta.id, name: meta.name, made: meta.partitions, making: meta.partitions}
	file, err := readTopicFile(e.fs, meta.id)
	if err != nil {
		return err
	}
	if file == nil {
		return makeTopicDir(e.fs, &want)
	}
	if *file == want {
		return nil
	}
	return want.write(e.fs)
}

// openReplica opens partition n with its replicator. With failed, or when it cannot be
// opened, it is a partition that says so.
func (e *Engine) openReplica(t *Topic, n int, failed error) (*Partition, error) {
	if failed != nil {
		return e.newPartition(t, n, partition.Failed(failed), nil), failed
	}
	var initial []int32
	if a := t.meta.replicasOf(n); a.epoch == 1 && a.has(e.identity.node) {
		initial = a.nodes // whoever is assigned later waits for the leader
	} else if a.epoch == 0 {
		initial = []int32{e.identity.node} // it was made alone, and this is the first node
	}
	options, space := e.partitionOptions(t, n, false)
	repl := e.cluster.Log(LogID{t.meta.id, int32(n)}, initial)
	options.Replicator = repl
	p, err := partition.Open("", options)
	if err != nil {
		repl.Stop() // peers are to hear that nobody is here
		e.logger.Error("partition does not open", "topic", t.meta.name, "partition", n, "error", err)
		if errors.Is(err, log.ErrCorrupt) || errors.Is(err, log.ErrNewerFormat) {
			return e.newPartition(t, n, partition.Failed(err), nil), nil // it would be the same again
		}
		return e.newPartition(t, n, partition.Failed(err), nil), err
	}
	made := e.newPartition(t, n, p, space)
	made.repl = repl
	return made, nil
}

// runReplica takes part in a partition's group.
func (e *Engine) runReplica(p *Partition) error {
	p.unwatch = p.repl.Watch(func() { e.replicas.leaderMoved(p) })
	if err := p.repl.Run(p.Partition); err != nil {
		return fmt.Errorf("replicate %s: %w", p, err)
	}
	return nil
}

// stop leaves the partition's group.
func (p *Partition) stop() {
	if p.repl == nil {
		return
	}
	if p.unwatch != nil {
		p.unwatch()
	}
	p.repl.Stop()
}

// retireTopic closes what this node has of a topic that was deleted.
func (e *Engine) retireTopic(t *Topic) {
	defer e.replicas.forget(t)
	e.publish(t, nil)
	parallel(len(t.partitions), func(i int) {
		p := t.partitions[i]
		p.stop()
		if err := p.retire(); err != nil {
			e.logger.Warn("partition of a deleted topic did not close", "partition", p.String(), "error", err)
		}
	})
}

// openReplicas opens what is there of the topics that the metadata knows as far as it is
// known to be committed. Nothing is made or removed.
func (e *Engine) openReplicas() error {
	if _, err := e.fs.List(topicsName); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = damaged(topicsName, errors.New("the directory is missing"))
		}
		return err
	}
	v := &topicView{byName: make(map[string]*Topic), byID: make(map[TopicID]*Topic)}
	var parts []*Partition
	for _, meta := range inOrder(e.meta.state.byID) { // nobody else is here yet
		t := &Topic{meta: meta, partitions: make([]*Partition, meta.partitions)}
		var err error
		if t.settings, err = e.parseSettings(meta.settings, meta.internal); err != nil {
			return fmt.Errorf("topic %s: %w", meta.name, err)
		}
		v.byName[meta.name], v.byID[meta.id] = t, t
		there, err := e.partitionsThere(meta)
		if err != nil {
			return err
		}
		parallel(meta.partitions, func(n int) {
			if !slices.Contains(there, n) {
				t.partitions[n] = e.elsewhere(t, n)
				return
			}
			var err error
			if t.partitions[n], err = e.openReplica(t, n, nil); err != nil {
				e.replicas.again(meta.id)
			}
		})
		parts = append(parts, t.partitions...)
	}
	e.view.Store(v)
	parallel(len(parts), func(i int) {
		p := parts[i]
		if p.repl == nil {
			return
		}
		if err := e.runReplica(p); err != nil {
			e.logger.Error("partition is not replicated", "partition", p.String(), "error", err)
			p.stop()
			p.Partition.CloseFor(err)
		}
	})
	return nil
}

// partitionsThere are the numbers of the partitions that have a directory here.
func (e *Engine) partitionsThere(meta *topicMeta) (there []int, err error) {
	infos, err := e.fs.List(topicDir(meta.id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, info := range infos {
		if n, ok := parsePartitionName(info.Name); ok && info.Dir && n < meta.partitions {
			there = append(there, n)
		}
	}
	return there, err
}

// sweep looks for directories that the metadata does not know, and moves them aside.
func (e *Engine) sweep() error {
	infos, err := e.fs.List(topicsName)
	if err != nil {
		return err
	}
	for _, info := range infos {
		id, err := ParseTopicID(info.Name)
		if err != nil || !info.Dir {
			continue
		}
		var meta *topicMeta
		known := false
		e.meta.view(func(m *metadata) {
			meta = m.byID[id]
			known = meta != nil || m.deleting[id] != nil
		})
		switch {
		case !known:
			err = e.strange(id)
		case meta != nil:
			err = e.sweepTopic(meta)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) sweepTopic(meta *topicMeta) error {
	dir := topicDir(meta.id)
	infos, err := e.fs.List(dir)
	if err != nil {
		return err
	}
	for _, info := range infos {
		if info.Name == topicFileName+tmpSuffix {
			if err := removeFile(e.fs, dir+"/"+info.Name); err != nil {
				return err
			}
		}
		if strings.HasSuffix(info.Name, goneSuffix) && info.Dir {
			if err := removePartitionDir(e.life, e.fs, dir+"/"+info.Name); err != nil {
				return err
			}
		}
		if n, ok := parsePartitionName(info.Name); !ok || !info.Dir || n < meta.partitions {
			continue
		}
		as, err := setAside(e.fs, dir, info.Name)
		if err != nil {
			return err
		}
		e.logger.Warn("partition that the metadata does not know: moved aside", "topic", meta.name, "directory", dir+"/"+as)
	}
	return nil
}

// goneTopics are deleted topics that this node may have files of.
func (e *Engine) goneTopics() (list []*topicMeta) {
	e.meta.view(func(m *metadata) {
		if len(m.deleting) == 0 {
			return
		}
		for _, t := range inOrder(m.deleting) {
			if slices.Contains(t.waiting, e.identity.node) {
				list = append(list, t)
			}
		}
	})
	return list
}

// removeGone removes the files of deleted topics, and says so to whoever leads the
// metadata. It fails when some are left.
func (e *Engine) removeGone(ctx context.Context) error {
	var errs []error
	for _, t := range e.goneTopics() {
		gone, err := e.removeGoneFiles(ctx, t)
		if err == nil && !gone {
			continue // who closes it has us look again
		}
		if err == nil {
			ctx, cancel := context.WithTimeout(ctx, peerTimeout)
			err = e.tellLeader(ctx, &command{kind: topicGoneCommand, topic: topicMeta{id: t.id}, node: nodeMeta{id: e.identity.node}})
			cancel()
		}
		if err != nil && !errors.Is(err, ErrUnknownTopic) { // it was heard before
			errs = append(errs, fmt.Errorf("topic %s: %w", t.name, err))
		}
	}
	return errors.Join(errs...)
}

// removeGoneFiles removes the files of a deleted topic, unless its partitions are open still:
// the metadata says that it is deleted before whoever applies that has the right to change
// topics, and an engine that is closed meanwhile closes them itself. What writes to a partition
// must not find its files gone, and take that for a disk that fails.
func (e *Engine) removeGoneFiles(ctx context.Context, t *topicMeta) (gone bool, err error) {
	if err := e.beginAdmin(ctx); err != nil {
		return false, err
	}
	defer e.endAdmin()
	if e.view.Load().byID[t.id] != nil {
		return false, nil
	}
	there, err := e.partitionsThere(t)
	if err == nil {
		err = removeTopicDir(ctx, e.fs, t.id)
	}
	for _, n := range there {
		if err == nil {
			err = e.forget(LogID{t.id, int32(n)}, true)
		}
	}
	return err == nil, err
}
