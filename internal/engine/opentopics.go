package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// openers is how many goroutines open, make and close partitions at once: most of
// the time goes by waiting for the disk. Tests that count operations make it 1.
var openers = 16

// parallel calls f for each number below n, from a few goroutines.
func parallel(n int, f func(i int)) {
	var next atomic.Int64
	var running sync.WaitGroup
	for range min(n, openers) {
		running.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				f(i)
			}
		})
	}
	running.Wait()
}

func firstError(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// partitionOptions are what partition n of t is opened with, and the room that it has.
func (e *Engine) partitionOptions(t *Topic, n int, mustExist bool) (*partition.Options, *space) {
	class := vfs.QuotaOrdinary
	if t.meta.internal {
		class = vfs.QuotaInternal
	}
	fsys, space := e.cap.view(e.fs, class)
	var onSync func(time.Duration, error)
	if hook := e.hooks.OnFsync; hook != nil {
		topic, id := t.meta.name, int32(n)
		onSync = func(took time.Duration, err error) { hook(topic, id, took, err) }
	}
	return &partition.Options{
		OnSync: onSync,
		FS:     vfs.Sub(fsys, partitionDir(t.meta.id, n)), Files: e.files, NoLock: true, MustExist: mustExist,
		Logger: e.logger, Now: e.now, Config: e.partitionConfig(t.settings, t.meta.internal),
	}, space
}

// What is kept on the disk for when it is full: a partition's own checkpoint, without
// which nothing of it could be deleted, and the ends of transactions; for internal
// topics also what they append until there is room.
const (
	reserveBytes         = 16 << 10
	internalReserveBytes = 128 << 10
)

// partitionConfig is what the settings of a topic say. Internal topics do not follow
// the database's defaults, but their segments have to fit its cap: only closed ones
// can be compacted.
func (e *Engine) partitionConfig(s Settings, internal bool) partition.Config {
	c := s.Partition()
	c.Log.ReserveBytes = reserveBytes
	if internal {
		c.Log.ReserveBytes = internalReserveBytes
	}
	if internal {
		c.Log.SegmentBytes = min(c.Log.SegmentBytes, e.internalSegment())
	}
	return c
}

// internalSegmentBytes is the size of an internal topic's segments: only closed ones
// are compacted, and all of it is read when the database is opened.
const internalSegmentBytes = 16 << 20

// internalSegment is what of it fits the database's cap: compaction has to do with
// what is kept back for it.
func (e *Engine) internalSegment() int64 {
	limit, _ := e.cap.use()
	if limit == 0 {
		return internalSegmentBytes
	}
	return clamp(capSpare(limit)/8, 32<<10, internalSegmentBytes)
}

// openTopics makes the directories agree with the metadata, and opens the
// partitions. That one of them is damaged is no error here.
func (e *Engine) openTopics() error {
	infos, err := e.fs.List(topicsName)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = damaged(topicsName, errors.New("the directory is missing"))
		}
		return err
	}
	state := e.meta.state // nobody else is here yet
	for _, info := range infos {
		id, err := ParseTopicID(info.Name)
		if err != nil || !info.Dir || state.byID[id] != nil || state.deleting[id] != nil {
			continue
		}
		if err := e.strange(id); err != nil {
			return err
		}
	}
	v := &topicView{byName: make(map[string]*Topic), byID: make(map[TopicID]*Topic)}
	var parts []**Partition
	var of []*Topic
	for _, meta := range inOrder(state.byID) {
		t := &Topic{meta: meta, partitions: make([]*Partition, meta.partitions)}
		if t.settings, err = e.parseSettings(meta.settings, meta.internal); err != nil {
			return fmt.Errorf("topic %s: %w", meta.name, err)
		}
		v.byName[meta.name], v.byID[meta.id] = t, t
		for i := range t.partitions {
			parts, of = append(parts, &t.partitions[i]), append(of, t)
		}
	}
	topics := slices.Collect(valuesOf(v.byID))
	parallel(len(topics), func(i int) {
		if err := e.tidyTopicDir(topics[i].meta); err != nil {
			e.logger.Warn("topic directory not tidied", "topic", topics[i].meta.name, "error", err)
		}
	})
	first := make(map[*Topic]int, len(topics))
	for i := len(of) - 1; i >= 0; i-- {
		first[of[i]] = i
	}
	parallel(len(parts), func(i int) {
		t := of[i]
		*parts[i] = e.openPartition(t, i-first[t])
	})
	e.view.Store(v)
	return nil
}

func valuesOf(m map[TopicID]*Topic) func(func(*Topic) bool) {
	return func(yield func(*Topic) bool) {
		for _, t := range m {
			if !yield(t) {
				return
			}
		}
	}
}

// openPartition opens a partition that exists. One that cannot be opened answers
// everything with the reason.
func (e *Engine) openPartition(t *Topic, n int) *Partition {
	options, space := e.partitionOptions(t, n, true)
	p, err := partition.Open("", options)
	if errors.Is(err, fs.ErrNotExist) {
		err = damaged(partitionDir(t.meta.id, n), errors.New("the directory is missing"))
	}
	if err != nil {
		e.logger.Error("partition does not open", "topic", t.meta.name, "partition", n, "error", err)
		p = partition.Failed(err)
	}
	if p.Err() == nil && !p.Recovered().Clean {
		// What was acknowledged may be gone: at a weak level, and at Durable what an
		// undecided local transaction wrote (AppendOptions.Unsynced). Consumers who have read
		// it find out by the leader epoch of their position: see Groups.checkLost.
		if err := p.BeginEpoch(); err != nil {
			e.logger.Warn("a new leader epoch is not durable", "topic", t.meta.name, "partition", n, "error", err)
		}
	}
	return e.newPartition(t, n, p, space)
}

// strange deals with a directory of a topic that the metadata does not know.
func (e *Engine) strange(id TopicID) error {
	file, err := readTopicFile(e.fs, id)
	if err != nil {
		return err
	}
	if file != nil && file.made == 0 {
		// It was being made, and nobody was told that it is there.
		return removeTopicDir(context.Background(), e.fs, id)
	}
	infos, err := e.fs.List(topicDir(id))
	if err != nil {
		return err
	}
	if file == nil && !slices.ContainsFunc(infos, func(i vfs.Info) bool { return i.Dir }) {
		// A creation or a removal got no further: partitions lie beside a file only.
		return removeTopicDir(context.Background(), e.fs, id)
	}
	as, err := setAside(e.fs, topicsName, id.String())
	if err != nil {
		return err
	}
	name := ""
	if file != nil {
		name = file.name
	}
	e.logger.Warn("topic directory that the metadata does not know: moved aside", "topic", name, "directory", topicsName+"/"+as)
	return nil
}

// tidyTopicDir removes partitions that were never acknowledged from a topic's
// directory, sets those aside that the metadata does not know, and makes the topic
// file say what is. Nobody else changes topics meanwhile.
func (e *Engine) tidyTopicDir(meta *topicMeta) error {
	dir := topicDir(meta.id)
	infos, err := e.fs.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // each of its partitions says that it is missing
	}
	if err != nil {
		return err
	}
	file, err := readTopicFile(e.fs, meta.id)
	if err != nil {
		return err
	}
	removed := false
	for _, info := range infos {
		if info.Name == topicFileName+tmpSuffix {
			if err := removeFile(e.fs, dir+"/"+info.Name); err != nil {
				return err
			}
		}
		n, ok := parsePartitionName(info.Name)
		if !ok || !info.Dir || n < meta.partitions {
			continue
		}
		if file != nil && n >= file.made && n < file.making {
			if err := removePartitionDir(context.Background(), e.fs, dir+"/"+info.Name); err != nil {
				return err
			}
			removed = true
			continue
		}
		as, err := setAside(e.fs, dir, info.Name)
		if err != nil {
			return err
		}
		e.logger.Warn("partition that the metadata does not know: moved aside", "topic", meta.name, "directory", dir+"/"+as)
	}
	want := topicFile{id: meta.id, name: meta.name, made: meta.partitions, making: meta.partitions}
	if file != nil && *file == want {
		return nil
	}
	if removed {
		// While they could come back the file has to say what they are.
		if err := e.fs.SyncDir(dir); err != nil {
			return err
		}
	}
	return want.write(e.fs)
}

// closeTopics closes all partitions.
func (e *Engine) closeTopics() []error {
	var parts []*Partition
	for _, t := range e.view.Load().byID {
		parts = append(parts, t.partitions...)
	}
	errs := make([]error, len(parts))
	parallel(len(parts), func(i int) {
		if parts[i] == nil {
			return
		}
		parts[i].stop()
		if err := parts[i].Partition.Close(); err != nil && !errors.Is(err, log.ErrClosed) {
			errs[i] = fmt.Errorf("%s: %w", parts[i], err)
		}
	})
	return errs
}
