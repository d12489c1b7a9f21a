package engine

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// metadata is the state machine: what topics there are. It changes by apply only,
// which depends on nothing but the state and the command.
type metadata struct {
	byName   map[string]*topicMeta
	byID     map[TopicID]*topicMeta
	alike    map[string]string // alikeName of each topic's name, to the name
	deleting map[TopicID]*topicMeta
	nextID   int64 // the next producer id that is given to nobody
	nodes    map[int32]*nodeMeta
	removed  []removed // directories of nodes that were removed, the last ones, in order
	security security
	// bytes is about what the topics take in a snapshot.
	bytes int
	// parts is the snapshot that is being read, until its last part comes. A command
	// of another kind ends it: whoever wrote it did not get to the end.
	parts *metadata
}

func newMetadata() *metadata {
	return &metadata{
		byName: make(map[string]*topicMeta), byID: make(map[TopicID]*topicMeta),
		alike: make(map[string]string), deleting: make(map[TopicID]*topicMeta),
		nodes: make(map[int32]*nodeMeta), security: newSecurity(),
	}
}

// alikeName is the same for names that differ in "." and "_" only: Kafka refuses
// two such topics, because its metrics could not tell them apart.
func alikeName(name string) string { return strings.ReplaceAll(name, ".", "_") }

const internalPrefix = "__"

// checkTopicName is Kafka's rule.
// CheckTopicName says what is wrong with the name of a topic: an *InvalidTopicError.
func CheckTopicName(name string) error { return checkTopicName(name) }

func checkTopicName(name string) error {
	refuse := func(reason string) error { return &InvalidTopicError{Name: name, Reason: reason} }
	switch {
	case name == "":
		return refuse("the name is empty")
	case name == "." || name == "..":
		return refuse(`the name must not be "." or ".."`)
	case len(name) > maxTopicName:
		return refuse(fmt.Sprintf("the name has %d characters, at most %d are allowed", len(name), maxTopicName))
	}
	for _, c := range []byte(name) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-') {
			return refuse(`only letters a to z and A to Z, digits, ".", "_" and "-" are allowed in a name`)
		}
	}
	return nil
}

func checkPartitions(name string, n int) error {
	if n < 1 || n > maxPartitions {
		return &InvalidTopicError{Name: name, Reason: fmt.Sprintf("%d partitions: want 1 to %d", n, maxPartitions)}
	}
	return nil
}

// checkSettingsSize keeps settings within what a command can carry.
func checkSettingsSize(name string, m map[string]string) error {
	size := 0
	for k, v := range m {
		size += len(k) + len(v)
		if len(k) > maxSettingName || len(v) > maxSettingValue {
			return &InvalidSettingError{Name: k, Value: v[:min(len(v), 40)], Reason: fmt.Sprintf("too long: at most %d bytes are allowed", maxSettingValue)}
		}
	}
	if len(m) > maxSettings || size > maxSettingsBytes {
		return &InvalidTopicError{Name: name, Reason: fmt.Sprintf("%d settings of %d bytes: at most %d of %d are allowed", len(m), size, maxSettings, maxSettingsBytes)}
	}
	return nil
}

// check says why the command does not hold; nil is that it does. It changes nothing.
func (m *metadata) check(c *command) error {
	switch c.kind {
	case createTopicCommand:
		return m.checkCreate(&c.topic)
	case alterTopicCommand:
		t, err := m.topic(c.topic.id)
		if err != nil {
			return err
		}
		return checkSettingsSize(t.name, altered(t.settings, c.set, c.unset))
	case addPartitionsCommand:
		t, err := m.topic(c.topic.id)
		if err != nil {
			return err
		}
		return checkGrows(t, c.total)
	case deleteTopicCommand:
		_, err := m.topic(c.topic.id)
		return err
	case topicDeletedCommand:
		if t := m.deleting[c.topic.id]; t == nil || len(t.waiting) > 0 {
			return &UnknownTopicError{ID: c.topic.id}
		}
	case allocateIDsCommand:
		if c.count < 1 || m.nextID > maxProducerID-int64(c.count) {
			return fmt.Errorf("allocate %d producer ids: %d are taken", c.count, m.nextID)
		}
	case snapshotCommand:
		return m.checkSnapshot(c)
	case securitySnapshotCommand:
		if m.parts == nil {
			return errNoFirstPart
		}
		return m.parts.security.checkSnapshotPart(c)
	default:
		if c.kind >= registerNodeCommand {
			return m.checkCluster(c)
		}
		return m.security.check(c)
	}
	return nil
}

// checkGrows says why a topic cannot have so many partitions.
func checkGrows(t *topicMeta, total int) error {
	if err := checkPartitions(t.name, total); err != nil {
		return err
	}
	if total <= t.partitions {
		return &InvalidTopicError{Name: t.name, Reason: fmt.Sprintf("it has %d partitions: their number can only grow, to %d it cannot", t.partitions, total)}
	}
	return nil
}

func (m *metadata) topic(id TopicID) (*topicMeta, error) {
	if t := m.byID[id]; t != nil {
		return t, nil
	}
	return nil, &UnknownTopicError{ID: id, Deleted: m.deleting[id] != nil}
}

func (m *metadata) checkCreate(t *topicMeta) error {
	if err := checkTopicName(t.name); err != nil {
		return err
	}
	if err := checkPartitions(t.name, t.partitions); err != nil {
		return err
	}
	if err := checkSettingsSize(t.name, t.settings); err != nil {
		return err
	}
	if has := m.byName[t.name]; has != nil {
		return &TopicExistsError{Name: t.name, ID: has.id}
	}
	if other, ok := m.alike[alikeName(t.name)]; ok {
		return &InvalidTopicError{Name: t.name, Reason: fmt.Sprintf(`topic %q has the same name but for "." and "_"`, other)}
	}
	if t.id.IsZero() || m.byID[t.id] != nil || m.deleting[t.id] != nil {
		return &InvalidTopicError{Name: t.name, Reason: "its id is in use"}
	}
	return nil
}

var errNoFirstPart = fmt.Errorf("%w: a snapshot without its first part", errCommand)

// checkSnapshot looks at one part: it must go on where the last one ended, and what
// it holds must hold together.
func (m *metadata) checkSnapshot(c *command) error {
	to := m.parts
	if c.flags&snapshotFirst != 0 {
		to = newMetadata()
	}
	if to == nil {
		return errNoFirstPart
	}
	// Within a part, too, a topic must not be there twice.
	seen := &metadata{byName: map[string]*topicMeta{}, byID: map[TopicID]*topicMeta{}, alike: map[string]string{}, deleting: map[TopicID]*topicMeta{}}
	for _, t := range c.topics {
		for _, s := range []*metadata{to, seen} {
			if err := s.checkCreate(t); err != nil {
				return fmt.Errorf("%w: snapshot: %w", errCommand, err)
			}
		}
		seen.add(t)
	}
	for _, t := range c.deleting {
		for _, s := range []*metadata{to, seen} {
			if t.id.IsZero() || s.byID[t.id] != nil || s.deleting[t.id] != nil {
				return fmt.Errorf("%w: snapshot: topic id %s is there twice", errCommand, t.id)
			}
		}
		seen.deleting[t.id] = t
	}
	return nil
}

// apply changes the state as the command says, and returns the first of the
// producer ids that it allocates. On an error the command does not hold, and
// nothing has changed but that a snapshot which was being read is given up.
func (m *metadata) apply(c *command) (firstID int64, err error) {
	if !c.continuesSnapshot() {
		m.parts = nil
	}
	if err := m.check(c); err != nil {
		m.parts = nil
		return 0, err
	}
	switch c.kind {
	case createTopicCommand:
		t := c.topic
		t.settings = maps.Clone(t.settings)
		m.add(&t)
	case alterTopicCommand:
		t := *m.byID[c.topic.id]
		m.remove(&t)
		t.settings = altered(t.settings, c.set, c.unset)
		m.add(&t)
	case addPartitionsCommand:
		t := *m.byID[c.topic.id]
		m.remove(&t)
		t.partitions = c.total
		m.add(&t)
	case deleteTopicCommand:
		t := m.byID[c.topic.id]
		m.remove(t)
		if len(m.nodes) > 0 {
			// Whoever has had a replica may have files of it.
			gone := *t
			gone.factor, gone.replicas, gone.before, gone.waiting = 0, nil, nil, m.nodeIDs()
			t = &gone
		}
		m.deleting[t.id] = t
		m.bytes += t.bytes()
	case topicDeletedCommand:
		m.bytes -= m.deleting[c.topic.id].bytes()
		delete(m.deleting, c.topic.id)
	case allocateIDsCommand:
		firstID = m.nextID
		m.nextID += int64(c.count)
	case snapshotCommand, securitySnapshotCommand, clusterSnapshotCommand:
		m.applySnapshot(c)
	default:
		if c.kind >= registerNodeCommand {
			m.applyCluster(c)
		} else {
			m.security.apply(c)
		}
	}
	return firstID, nil
}

// continuesSnapshot says that c is a part of a snapshot that has begun.
func (c *command) continuesSnapshot() bool {
	return c.kind == snapshotCommand && c.flags&snapshotFirst == 0 || c.kind == securitySnapshotCommand || c.kind == clusterSnapshotCommand
}

func (m *metadata) applySnapshot(c *command) {
	if c.kind == snapshotCommand && c.flags&snapshotFirst != 0 {
		m.parts = newMetadata()
	}
	to := m.parts
	switch c.kind {
	case securitySnapshotCommand:
		to.security.addSnapshotPart(c)
	case clusterSnapshotCommand:
		to.addClusterPart(c)
	default:
		to.nextID = c.nextID
	}
	for _, t := range c.topics {
		to.add(t)
	}
	for _, t := range c.deleting {
		to.deleting[t.id] = t
		to.bytes += t.bytes()
	}
	if c.flags&snapshotLast != 0 {
		*m = *to
		m.parts = nil
	}
}

func (m *metadata) add(t *topicMeta) {
	m.byName[t.name], m.byID[t.id], m.alike[alikeName(t.name)] = t, t, t.name
	m.bytes += t.bytes()
}

func (m *metadata) remove(t *topicMeta) {
	delete(m.byName, t.name)
	delete(m.byID, t.id)
	delete(m.alike, alikeName(t.name))
	m.bytes -= t.bytes()
}

// altered is settings after a change.
func altered(settings, set map[string]string, unset []string) map[string]string {
	out := make(map[string]string, len(settings)+len(set))
	maps.Copy(out, settings)
	for _, name := range unset {
		delete(out, name)
	}
	maps.Copy(out, set)
	return out
}

// bytes is about what a topic takes in a snapshot.
func (t *topicMeta) bytes() int {
	n := 32 + len(t.name)
	for name, value := range t.settings {
		n += 4 + len(name) + len(value)
	}
	for i := range t.replicas {
		n += t.replicas[i].bytes()
	}
	for _, nodes := range t.before {
		n += 24 + len(nodes)
	}
	return n + len(t.waiting)
}

// snapshot is the whole state as commands that replace it: as many parts as are
// needed for none to be large. Equal states give equal bytes.
func (m *metadata) snapshot() (parts []*command) {
	c := &command{kind: snapshotCommand, flags: snapshotFirst, nextID: m.nextID}
	size := 0
	place := func(t *topicMeta) {
		if size += t.bytes(); size > snapshotPartBytes {
			parts = append(parts, c)
			c, size = &command{kind: snapshotCommand, nextID: m.nextID}, t.bytes()
		}
	}
	for _, t := range inOrder(m.byID) {
		place(t)
		c.topics = append(c.topics, t)
	}
	for _, t := range inOrder(m.deleting) {
		place(t)
		c.deleting = append(c.deleting, t)
	}
	parts = append(parts, c)
	// Without users, ACLs and quotas the bytes are those that versions without them read.
	if !m.security.empty() {
		parts = append(parts, m.security.snapshot()...)
	}
	parts = append(parts, m.clusterSnapshot()...)
	parts[len(parts)-1].flags |= snapshotLast
	return parts
}

func inOrder(topics map[TopicID]*topicMeta) []*topicMeta {
	return slices.SortedFunc(maps.Values(topics), func(a, b *topicMeta) int { return strings.Compare(string(a.id[:]), string(b.id[:])) })
}

// replay is apply for a command that a log of ours holds: one that does not hold
// changes nothing, here as when it was written, but bytes that are no command are
// damage.
func (m *metadata) replay(b []byte) error {
	c, err := decodeCommand(b)
	if err != nil {
		return err
	}
	if _, err := m.apply(c); errors.Is(err, errCommand) {
		return err
	}
	return nil
}
