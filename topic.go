package embedlog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/x/embedlog/internal/engine"
)

// TopicID tells topics apart that had one name after another.
type TopicID = engine.TopicID

// Topic is a handle of one topic. It stays the topic's when settings or partitions
// change; when the topic is deleted its calls fail with ErrUnknownTopic, also when
// another one of that name is created. All methods may be called from several
// goroutines.
type Topic struct {
	db     *DB
	name   string
	id     TopicID
	seen   atomic.Pointer[topicView]
	sticky sticky
}

// topicView is what the engine had for the topic at a version of its metadata.
type topicView struct {
	version uint64
	topic   *engine.Topic
}

func (db *DB) handle(top *engine.Topic) *Topic {
	t := &Topic{db: db, name: top.Name(), id: top.ID()}
	t.sticky.sent.Store(rand.Uint64() >> 2) // handles do not all begin with partition 0
	return t
}

// current is the topic as it is now. It costs two loads as long as no topic changes.
func (t *Topic) current() (*engine.Topic, error) {
	version := t.db.version.Load() // before the topic: what comes between is looked at again
	if v := t.seen.Load(); v != nil && v.version == version {
		return v.topic, nil
	}
	top, err := t.db.engine.TopicByID(t.id)
	if t.db.engine.Closed() { // which has its topics all the same
		return nil, ErrClosed
	}
	if err != nil {
		return nil, t.named(err)
	}
	t.seen.Store(&topicView{version, top})
	return top, nil
}

// writable is current for who writes or deletes records: in an internal topic only
// the engine does, since one record that it does not understand there would stop
// every group.
func (t *Topic) writable() (*engine.Topic, error) {
	top, err := t.current()
	if err != nil {
		return nil, err
	}
	return top, checkWritable(top)
}

func checkWritable(top *engine.Topic) error {
	if top.Internal() {
		return &InvalidTopicError{Name: top.Name(), Reason: "it is internal: only the database itself writes to it"}
	}
	return nil
}

// EngineTopic is what the other packages of this module build on, see DB.Engine.
func (t *Topic) EngineTopic() (*engine.Topic, error) { return t.current() }

// named puts the name, which the caller knows, into an error that has only the id.
func (t *Topic) named(err error) error {
	if unknown := new(UnknownTopicError); errors.As(err, &unknown) && unknown.Name == "" {
		return &UnknownTopicError{Name: t.name, ID: t.id, Deleted: true}
	}
	return err
}

// CreateTopic makes a topic; nil is the defaults. It is there, on the disk, when
// the call returns. A *TopicExistsError says that the name is taken,
// *InvalidTopicError that it cannot be one, *InvalidSettingError, joined, what is
// wrong with the settings.
func (db *DB) CreateTopic(ctx context.Context, name string, c *TopicConfig) (*Topic, error) {
	top, err := db.createTopic(ctx, name, c)
	if err != nil {
		return nil, err
	}
	return db.handle(top), nil
}

func (db *DB) createTopic(ctx context.Context, name string, c *TopicConfig) (*engine.Topic, error) {
	settings, bad := c.settings()
	if len(bad) > 0 {
		if _, err := engine.ParseSettings(settings, nil); err != nil {
			bad = append(bad, err)
		}
		return nil, fmt.Errorf("create topic %s: %w", name, errors.Join(bad...))
	}
	n := db.partitions
	if c != nil && c.Partitions > 0 {
		n = c.Partitions
	}
	spec := engine.TopicSpec{Name: name, Partitions: n, Settings: settings}
	if c != nil {
		spec.ReplicationFactor = c.ReplicationFactor
	}
	return db.engine.CreateTopic(ctx, spec)
}

// EnsureTopic returns the topic of that name, and makes it where there is none. A
// topic that is there is not changed: when it differs from what c names, the error
// is a *TopicDiffersError. What c does not name does not count.
func (db *DB) EnsureTopic(ctx context.Context, name string, c *TopicConfig) (*Topic, error) {
	if db.isClosed() {
		return nil, fmt.Errorf("ensure topic %s: %w", name, ErrClosed)
	}
	top, err := db.engine.FindTopic(ctx, name)
	if errors.Is(err, ErrUnknownTopic) {
		if top, err = db.createTopic(ctx, name, c); err == nil {
			return db.handle(top), nil
		}
		if errors.Is(err, ErrTopicExists) { // somebody else was faster, or it is a collision
			if found, e := db.engine.FindTopic(ctx, name); e == nil {
				top, err = found, nil
			}
		}
	}
	if err == nil {
		if err = differs(top, c); err != nil {
			err = fmt.Errorf("ensure topic %s: %w", name, err)
		}
	}
	if err != nil {
		return nil, err
	}
	return db.handle(top), nil
}

// differs compares what c names with what the topic has.
func differs(top *engine.Topic, c *TopicConfig) error {
	want, bad := c.settings()
	parsed, err := engine.ParseSettings(want, nil)
	if err != nil || len(bad) > 0 {
		return errors.Join(append(bad, err)...)
	}
	e := &TopicDiffersError{Topic: top.Name()}
	if n := len(top.Partitions()); c != nil && c.Partitions > 0 && c.Partitions != n {
		e.Differences = append(e.Differences, SettingDifference{"partitions", strconv.Itoa(c.Partitions), strconv.Itoa(n)})
	}
	if n := top.ReplicationFactor(); c != nil && c.ReplicationFactor > 0 && c.ReplicationFactor != n {
		e.Differences = append(e.Differences, SettingDifference{"replication.factor", strconv.Itoa(c.ReplicationFactor), strconv.Itoa(n)})
	}
	have := top.Settings()
	for _, name := range slices.Sorted(maps.Keys(want)) {
		w, _ := parsed.Get(name)
		if h, _ := have.Get(name); h != w {
			e.Differences = append(e.Differences, SettingDifference{name, w, h})
		}
	}
	if len(e.Differences) > 0 {
		return e
	}
	return nil
}

// TopicDiffersError says in what a topic that is there differs from what
// EnsureTopic was asked for. Topic.Alter and Topic.AddPartitions change it.
type TopicDiffersError struct {
	Topic       string
	Differences []SettingDifference
}

// SettingDifference is one setting, or "partitions".
type SettingDifference struct{ Name, Want, Have string }

func (e *TopicDiffersError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "topic %s is there and differs", e.Topic)
	for _, d := range e.Differences {
		fmt.Fprintf(&b, "; %s is %s, not %s", d.Name, d.Have, d.Want)
	}
	return b.String()
}

// Is matches ErrTopicDiffers.
func (e *TopicDiffersError) Is(target error) bool { return target == ErrTopicDiffers }

// Topic returns a handle of the topic of that name. With Options.AutoCreateTopics
// one that is not there is made; otherwise that is an *UnknownTopicError.
func (db *DB) Topic(name string) (*Topic, error) {
	top, err := db.topic(context.Background(), name)
	if err != nil {
		return nil, fmt.Errorf("open topic %s: %w", name, err)
	}
	return db.handle(top), nil
}

// topic finds a topic by name and makes it where the options say so.
func (db *DB) topic(ctx context.Context, name string) (*engine.Topic, error) {
	if db.isClosed() {
		return nil, ErrClosed
	}
	top, err := db.engine.FindTopic(ctx, name)
	if err != nil && db.autoCreate && errors.Is(err, ErrUnknownTopic) {
		top, err = db.createTopic(ctx, name, nil)
		if errors.Is(err, ErrTopicExists) {
			return db.engine.FindTopic(ctx, name)
		}
	}
	return top, err
}

// DeleteTopic deletes the topic and all its records. It is gone when the call
// returns, also after a crash; its files go in the background.
func (db *DB) DeleteTopic(ctx context.Context, name string) error {
	return db.engine.DeleteTopic(ctx, name)
}

// Name is the topic's name.
func (t *Topic) Name() string { return t.name }

// DB is the database that the topic belongs to.
func (t *Topic) DB() *DB { return t.db }

// ID is the topic's id.
func (t *Topic) ID() TopicID { return t.id }

// Partitions is how many partitions the topic has now: they are numbered from 0.
// It is 0 when the topic is gone.
func (t *Topic) Partitions() int {
	top, err := t.current()
	if err != nil {
		return 0
	}
	return len(top.Partitions())
}

// Leader is the node that leads a partition, as far as this node knows; -1 where nobody is known to. Alone it is this node.
func (t *Topic) Leader(partition int32) (node int32, err error) {
	top, err := t.current()
	if err != nil {
		return -1, fmt.Errorf("leader of %s/%d: %w", t.name, partition, err)
	}
	p, err := top.Partition(partition)
	if err != nil {
		return -1, fmt.Errorf("leader of %s/%d: %w", t.name, partition, err)
	}
	node, _ = p.Leader()
	return node, nil
}

// Alter sets settings, by Kafka's names, and takes others back to their defaults.
// Appends that are under way keep the old ones.
func (t *Topic) Alter(ctx context.Context, set map[string]string, unset ...string) error {
	return t.changed("alter topic", t.db.engine.AlterTopicByID(ctx, t.id, set, unset))
}

// changed is the error of a change that was asked for by the id.
func (t *Topic) changed(what string, err error) error {
	if named := t.named(err); named != err {
		return fmt.Errorf("%s %s: %w", what, t.name, named)
	}
	return err
}

// AddPartitions gives the topic more partitions, so that it has total. Records
// stay where they are: a key may have another partition from now on.
func (t *Topic) AddPartitions(ctx context.Context, total int) error {
	return t.changed("add partitions to topic", t.db.engine.AddPartitionsByID(ctx, t.id, total))
}

// DeleteRecords deletes the records of a partition below an offset, for ever; -1
// is all there are. It returns the log start offset. The room is given free in
// the background.
func (t *Topic) DeleteRecords(ctx context.Context, partition int32, before int64) (logStart int64, err error) {
	top, err := t.writable()
	if err != nil {
		return 0, fmt.Errorf("delete records of %s/%d: %w", t.name, partition, err)
	}
	p, err := top.Partition(partition)
	if err != nil {
		return 0, fmt.Errorf("delete records of %s/%d: %w", t.name, partition, err)
	}
	return p.DeleteRecords(ctx, before)
}

// eachPartition calls f for every partition and joins what goes wrong. What is
// deleted meanwhile does not count.
func (db *DB) eachPartition(ctx context.Context, what string, f func(*engine.Partition) error) error {
	if db.isClosed() {
		return fmt.Errorf("%s: %w", what, ErrClosed)
	}
	var bad []error
	for _, top := range db.engine.Topics() {
		for _, p := range top.Partitions() {
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("%s: %w", what, errors.Join(append(bad, err)...))
			}
			if p.Elsewhere() {
				continue // other nodes have it
			}
			if err := f(p); err != nil && !errors.Is(err, ErrUnknownTopic) {
				bad = append(bad, err)
			}
		}
	}
	return errors.Join(bad...)
}
