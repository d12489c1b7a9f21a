package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// Topic is a topic as it was when it was asked for: its settings and its number of
// partitions do not change. Its partitions are live.
type Topic struct {
	meta       *topicMeta
	settings   Settings
	partitions []*Partition
}

// Name is the topic's name.
func (t *Topic) Name() string { return t.meta.name }

// ID is what the topic is, whatever its name.
func (t *Topic) ID() TopicID { return t.meta.id }

// Internal says that the engine keeps it for itself.
func (t *Topic) Internal() bool { return t.meta.internal }

// ReplicationFactor is how many replicas its partitions are to have: 1 alone.
func (t *Topic) ReplicationFactor() int { return max(t.meta.factor, 1) }

// Replicas are the nodes that partition n is assigned to, the preferred leader first;
// nil alone. The caller does not change the slice.
func (t *Topic) Replicas(n int32) []int32 { return t.meta.replicasOf(int(n)).nodes }

// Settings are the topic's settings.
func (t *Topic) Settings() Settings { return t.settings }

// Partitions are the topic's partitions, by number. The caller does not change the slice.
func (t *Topic) Partitions() []*Partition { return t.partitions }

// Partition is the partition with that number, or an *UnknownPartitionError.
func (t *Topic) Partition(n int32) (*Partition, error) {
	if n < 0 || int(n) >= len(t.partitions) {
		return nil, &UnknownPartitionError{Topic: t.meta.name, Partition: n, Partitions: len(t.partitions)}
	}
	return t.partitions[n], nil
}

// topicView is what readers see of the topics: it is replaced, never changed.
type topicView struct {
	byName map[string]*Topic
	byID   map[TopicID]*Topic
}

// TopicSpec describes a topic to be made.
type TopicSpec struct {
	Name       string
	Partitions int               // 0 means 1
	Settings   map[string]string // under Kafka's names, as text
	// ReplicationFactor is how many replicas each partition has in a cluster. Zero means
	// Options.ReplicationFactor. Alone, 1 is all there can be.
	ReplicationFactor int
	// Replicas are the nodes of each partition, chosen by the caller; nil leaves it to the
	// engine. Partitions and ReplicationFactor are then 0, or what it says.
	Replicas [][]int32
}

// Topic returns the topic of that name, or an *UnknownTopicError. It takes no lock.
func (e *Engine) Topic(name string) (*Topic, error) {
	if t := e.view.Load().byName[name]; t != nil {
		return t, nil
	}
	if err := e.closedError(); err != nil {
		return nil, err
	}
	return nil, &UnknownTopicError{Name: name}
}

// TopicByID returns the topic with that id, or an *UnknownTopicError. It takes no lock.
func (e *Engine) TopicByID(id TopicID) (*Topic, error) {
	if t := e.view.Load().byID[id]; t != nil {
		return t, nil
	}
	if err := e.closedError(); err != nil {
		return nil, err
	}
	return nil, &UnknownTopicError{ID: id}
}

// Topics are all topics, internal ones too, by name.
func (e *Engine) Topics() []*Topic {
	return slices.SortedFunc(maps.Values(e.view.Load().byName), func(a, b *Topic) int {
		return strings.Compare(a.meta.name, b.meta.name)
	})
}

// publish replaces what readers see, and tells the watchers. A nil add only
// removes. Admin.
func (e *Engine) publish(remove, add *Topic) {
	old := e.view.Load()
	v := &topicView{byName: maps.Clone(old.byName), byID: maps.Clone(old.byID)}
	if remove != nil {
		delete(v.byName, remove.meta.name)
		delete(v.byID, remove.meta.id)
	}
	if add != nil {
		v.byName[add.meta.name], v.byID[add.meta.id] = add, add
	}
	e.view.Store(v)
	e.watchers.call()
}

// CreateTopic makes a topic: when it returns nil the topic is there after any
// crash. It fails with a *TopicExistsError, an *InvalidTopicError for its name or
// number of partitions, and an *InvalidSettingError for each bad setting, joined.
func (e *Engine) CreateTopic(ctx context.Context, spec TopicSpec) (*Topic, error) {
	if err := checkUserTopic(spec.Name); err != nil {
		return nil, fmt.Errorf("create topic: %w", err)
	}
	t, err := e.createTopic(ctx, spec, false)
	if err != nil {
		return nil, fmt.Errorf("create topic %s: %w", spec.Name, err)
	}
	return t, nil
}

// InternalTopic returns an internal topic, and makes it if there is none: always
// Durable, whatever the database's defaults are.
func (e *Engine) InternalTopic(ctx context.Context, name string, settings map[string]string) (*Topic, error) {
	if t := e.view.Load().byName[name]; t != nil {
		return t, nil
	}
	if !strings.HasPrefix(name, internalPrefix) {
		return nil, fmt.Errorf("create topic: %w", &InvalidTopicError{Name: name, Reason: `names of internal topics begin with "__"`})
	}
	spec := TopicSpec{Name: name, Partitions: e.internalPartitions, Settings: maps.Clone(settings)}
	if spec.Settings == nil {
		spec.Settings = make(map[string]string)
	}
	spec.Settings[settingDurability] = log.Durable.String()
	t, err := e.createTopic(ctx, spec, true)
	if errors.Is(err, ErrTopicExists) {
		return e.Topic(name) // somebody else was faster
	}
	if err != nil {
		return nil, fmt.Errorf("create topic %s: %w", name, err)
	}
	return t, nil
}

// parseSettings parses the settings of a topic. The database's defaults are for its
// users' topics.
func (e *Engine) parseSettings(m map[string]string, internal bool) (Settings, error) {
	if internal {
		return ParseSettings(m, map[string]string{settingSegmentBytes: strconv.FormatInt(e.internalSegment(), 10)})
	}
	return ParseSettings(m, e.defaults)
}

// newTopic is the topic that a spec asks for, checked as far as it can be by itself.
func (e *Engine) newTopic(spec TopicSpec, internal bool) (*Topic, error) {
	meta := &topicMeta{id: newID(), name: spec.Name, partitions: spec.Partitions, internal: internal, settings: maps.Clone(spec.Settings)}
	if spec.Partitions == 0 {
		meta.partitions = 1
	}
	settings, serr := e.parseSettings(meta.settings, internal)
	if err := errors.Join(checkTopicName(meta.name), checkPartitions(meta.name, meta.partitions), serr, checkSettingsSize(meta.name, meta.settings)); err != nil {
		return nil, err
	}
	return &Topic{meta: meta, settings: settings}, nil
}

func (e *Engine) createTopic(ctx context.Context, spec TopicSpec, internal bool) (*Topic, error) {
	t, err := e.newTopic(spec, internal)
	if err != nil {
		return nil, err
	}
	meta := t.meta
	c, err := e.beginCreation(ctx, t, spec)
	if err != nil {
		return nil, err
	}
	defer e.endChange()
	if e.cluster != nil {
		if _, err := e.meta.do(ctx, c); err != nil {
			return nil, err
		}
		return e.TopicByID(meta.id) // it was made as the command was applied
	}
	if err := e.meta.holds(c); err != nil {
		return nil, err
	}
	file := &topicFile{id: meta.id, name: meta.name, making: meta.partitions}
	if err := makeTopicDir(e.fs, file); err != nil {
		return nil, errors.Join(err, e.unmakeTopic(meta.id))
	}
	parts, err := e.makePartitions(ctx, t, 0, meta.partitions)
	if err == nil {
		_, err = e.meta.do(ctx, c)
	}
	if err != nil {
		closeAll(parts)
		if !undecided(err) {
			err = errors.Join(err, e.unmakeTopic(meta.id))
		}
		return nil, err
	}
	t.partitions = parts
	// It exists. That the file says so is for people, and the next open mends it.
	file.made = meta.partitions
	if err := file.write(e.fs); err != nil {
		e.logger.Warn("topic file not written", "topic", meta.name, "id", meta.id.String(), "error", err)
	}
	e.publish(nil, t)
	return t, nil
}

// undecided says that a command may be in the log, so that what it is about must stay.
func undecided(err error) bool {
	return errors.Is(err, partition.ErrUnknownOutcome) || errors.Is(err, log.ErrStorageFailed)
}

// unmakeTopic removes what a creation that failed has left. What cannot be removed
// now is removed by the next open.
func (e *Engine) unmakeTopic(id TopicID) error {
	if err := removeTopicDir(context.Background(), e.fs, id); err != nil {
		return fmt.Errorf("and what was made could not be removed: %w", err)
	}
	return nil
}

// makePartitions makes the directories of partitions from to end-1 of a topic whose
// file says that they are being made, and opens them, durable.
func (e *Engine) makePartitions(ctx context.Context, t *Topic, from, end int) ([]*Partition, error) {
	parts := make([]*Partition, end-from)
	errs := make([]error, len(parts))
	parallel(len(parts), func(i int) {
		if errs[i] = ctx.Err(); errs[i] != nil {
			return
		}
		dir := partitionDir(t.meta.id, from+i)
		if errs[i] = e.fs.Mkdir(dir); errs[i] != nil {
			return
		}
		options, space := e.partitionOptions(t, from+i, false)
		p, err := partition.Open("", options)
		if err != nil {
			errs[i] = err
			return
		}
		parts[i] = e.newPartition(t, from+i, p, space)
	})
	err := firstError(errs)
	if err == nil {
		err = e.fs.SyncDir(topicDir(t.meta.id)) // before the command that needs them
	}
	return parts, err
}

func (e *Engine) newPartition(t *Topic, n int, p *partition.Partition, s *space) *Partition {
	return &Partition{Partition: p, engine: e, topic: t.meta.name, topicID: t.meta.id, id: int32(n), space: s}
}

// closeAll closes partitions; nil ones were not opened.
func closeAll(parts []*Partition) {
	parallel(len(parts), func(i int) {
		if parts[i] != nil {
			parts[i].Partition.Close()
		}
	})
}

// change runs f, which changes a topic, alone among those who change topics. The
// topic is looked up then, by its id where that is not zero: the id's topic is the
// one that the caller has seen, whatever has the name by now. The error says what was
// tried on which topic.
func (e *Engine) change(ctx context.Context, what, name string, id TopicID, f func(*Topic) error) error {
	find := func() (*Topic, error) { return e.FindTopic(ctx, name) }
	called := name
	if !id.IsZero() {
		find = func() (*Topic, error) {
			return surely(ctx, e, func() (*Topic, error) { return e.TopicByID(id) })
		}
		called = id.String()
		if t := e.view.Load().byID[id]; t != nil {
			called = t.meta.name
		}
	}
	err := e.beginChange(ctx)
	if err == nil {
		defer e.endChange()
		var t *Topic
		if t, err = find(); err == nil {
			err = f(t)
		}
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", what, called, err)
	}
	return nil
}

// AlterTopic changes settings of a live topic: set gives them values, unset makes
// them what the database's defaults say.
func (e *Engine) AlterTopic(ctx context.Context, name string, set map[string]string, unset []string) error {
	return e.change(ctx, "alter topic", name, TopicID{}, func(t *Topic) error { return e.alterTopic(ctx, t, set, unset) })
}

// AlterTopicByID is AlterTopic of the topic with that id, and of no other one that
// has its name: it fails with an *UnknownTopicError when the topic was deleted.
func (e *Engine) AlterTopicByID(ctx context.Context, id TopicID, set map[string]string, unset []string) error {
	return e.change(ctx, "alter topic", "", id, func(t *Topic) error { return e.alterTopic(ctx, t, set, unset) })
}

// alteration is a change of a topic's settings that holds.
type alteration struct {
	command  *command
	meta     topicMeta // as it is to be
	settings Settings
}

func (e *Engine) alteration(t *Topic, set map[string]string, unset []string) (*alteration, error) {
	c := &command{kind: alterTopicCommand, topic: topicMeta{id: t.meta.id}, set: maps.Clone(set), unset: slices.Compact(slices.Sorted(slices.Values(unset)))}
	if err := checkAlter(t, c); err != nil {
		return nil, err
	}
	a := &alteration{command: c, meta: *t.meta}
	a.meta.settings = altered(a.meta.settings, c.set, c.unset)
	var err error
	a.settings, err = e.parseSettings(a.meta.settings, a.meta.internal)
	return a, err
}

// alterTopic is AlterTopic within change.
func (e *Engine) alterTopic(ctx context.Context, t *Topic, set map[string]string, unset []string) error {
	a, err := e.alteration(t, set, unset)
	if err != nil {
		return err
	}
	if _, err := e.meta.do(ctx, a.command); err != nil || e.cluster != nil {
		return err
	}
	config := e.partitionConfig(a.settings, a.meta.internal)
	for _, p := range t.partitions {
		if err := p.SetConfig(config); err != nil {
			// The topic is altered. A partition that failed has its settings when it is opened again.
			e.logger.Warn("settings not in force", "partition", p.String(), "error", err)
		}
	}
	e.publish(t, &Topic{meta: &a.meta, settings: a.settings, partitions: t.partitions})
	return nil
}

// checkAlter refuses what would break an internal topic, and names that make no sense.
func checkAlter(t *Topic, c *command) error {
	var bad []error
	for _, name := range c.unset {
		if _, both := c.set[name]; both {
			bad = append(bad, &InvalidSettingError{Name: name, Value: c.set[name], Reason: "is to be set and unset at once"})
		}
		if findSetting(name) == nil {
			bad = append(bad, &InvalidSettingError{Name: name, Reason: unknownReason(name)})
		}
	}
	if t.meta.internal {
		for _, name := range fixedWhenInternal {
			if value, ok := c.set[name]; ok || slices.Contains(c.unset, name) {
				bad = append(bad, &InvalidSettingError{Name: name, Value: value, Reason: "cannot be changed on an internal topic"})
			}
		}
	}
	return errors.Join(bad...)
}

// AddPartitions makes the topic have total partitions. Their number only grows, and
// a key may belong to another partition afterwards.
func (e *Engine) AddPartitions(ctx context.Context, name string, total int) error {
	return e.change(ctx, "add partitions to topic", name, TopicID{}, func(t *Topic) error { return e.addPartitions(ctx, t, total, nil) })
}

// AddPartitionsByID is AddPartitions to the topic with that id: see AlterTopicByID. In a cluster the caller
// may choose the nodes of each partition that is added, as many as the topic has replicas; without, the engine does.
func (e *Engine) AddPartitionsByID(ctx context.Context, id TopicID, total int, replicas ...[]int32) error {
	return e.change(ctx, "add partitions to topic", "", id, func(t *Topic) error { return e.addPartitions(ctx, t, total, replicas) })
}

// addition is the command that gives a topic more partitions, if it may have them.
func (e *Engine) addition(t *Topic, total int, replicas [][]int32) (*command, error) {
	if t.meta.internal {
		return nil, &InvalidTopicError{Name: t.meta.name, Reason: "the partitions of an internal topic cannot be changed: what is in them is found by their number"}
	}
	c := &command{kind: addPartitionsCommand, topic: topicMeta{id: t.meta.id}, total: total}
	if err := e.meta.holds(c); err != nil || e.cluster == nil {
		return c, err
	}
	return e.replicatedAddition(t, total, replicas)
}

// addPartitions is AddPartitions within change.
func (e *Engine) addPartitions(ctx context.Context, t *Topic, total int, replicas [][]int32) error {
	name := t.meta.name
	c, err := e.addition(t, total, replicas)
	if err != nil {
		return err
	}
	if e.cluster != nil {
		_, err := e.meta.do(ctx, c)
		return err
	}
	// What an attempt that failed has left is in the way.
	if err := e.tidyTopicDir(t.meta); err != nil {
		return err
	}
	file := &topicFile{id: t.meta.id, name: name, made: t.meta.partitions, making: total}
	if err := file.write(e.fs); err != nil {
		return err
	}
	parts, err := e.makePartitions(ctx, t, t.meta.partitions, total)
	if err == nil {
		_, err = e.meta.do(ctx, c)
	}
	if err != nil {
		closeAll(parts)
		if !undecided(err) {
			err = errors.Join(err, e.tidyTopicDir(t.meta))
		}
		return err
	}
	file.made = total
	if err := file.write(e.fs); err != nil {
		e.logger.Warn("topic file not written", "topic", name, "id", t.meta.id.String(), "error", err)
	}
	meta := *t.meta
	meta.partitions = total
	e.publish(t, &Topic{meta: &meta, settings: t.settings, partitions: append(slices.Clip(t.partitions), parts...)})
	return nil
}

// DeleteTopic deletes a topic: when it returns nil it is gone after any crash, its
// name is free, and its readers have been woken. Its files go in the background.
func (e *Engine) DeleteTopic(ctx context.Context, name string) error {
	return e.change(ctx, "delete topic", name, TopicID{}, func(t *Topic) error { return e.deleteTopic(ctx, t) })
}

// DeleteTopicByID is DeleteTopic of the topic with that id: see AlterTopicByID.
func (e *Engine) DeleteTopicByID(ctx context.Context, id TopicID) error {
	return e.change(ctx, "delete topic", "", id, func(t *Topic) error { return e.deleteTopic(ctx, t) })
}

// deleteTopic is DeleteTopic within change.
func (e *Engine) deleteTopic(ctx context.Context, t *Topic) error {
	if t.meta.internal {
		return &InvalidTopicError{Name: t.meta.name, Reason: "an internal topic cannot be deleted"}
	}
	if e.cluster != nil {
		_, err := e.meta.do(ctx, &command{kind: deleteTopicCommand, topic: topicMeta{id: t.meta.id}})
		return err
	}
	// Its files stay until its partitions are closed: an append that is under way must
	// not find them gone, and take that for a disk that fails.
	e.retiring.Store(t.meta.id, nil)
	defer e.wake()
	defer e.retiring.Delete(t.meta.id)
	if _, err := e.meta.do(ctx, &command{kind: deleteTopicCommand, topic: topicMeta{id: t.meta.id}}); err != nil {
		return err
	}
	e.publish(t, nil)
	parallel(len(t.partitions), func(i int) {
		if err := t.partitions[i].retire(); err != nil {
			e.logger.Warn("partition of a deleted topic did not close", "partition", t.partitions[i].String(), "error", err)
		}
	})
	return nil
}
