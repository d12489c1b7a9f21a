package engine

import (
	"slices"
	"sync"
)

// Info says what a database is.
type Info struct {
	Dir         string
	Format      int
	ClusterID   string
	DirectoryID string
	NodeID      int32
	Topics      []TopicInfo // by name
	// Deleting are topics that were deleted and whose files are still there, by name.
	Deleting []TopicInfo
}

// TopicInfo leads from a topic's name to its directory, topics/<id>.
type TopicInfo struct {
	Name       string
	ID         TopicID
	Partitions int
	Internal   bool
}

// Info returns what the database is.
func (e *Engine) Info() Info {
	i := Info{
		Dir: e.dir, Format: formatVersion, ClusterID: e.identityNow().cluster.String(),
		DirectoryID: e.identity.directory.String(), NodeID: e.identity.node,
	}
	for _, t := range e.Topics() {
		i.Topics = append(i.Topics, t.meta.info())
	}
	e.meta.view(func(m *metadata) {
		for _, t := range inOrder(m.deleting) {
			i.Deleting = append(i.Deleting, t.info())
		}
	})
	return i
}

func (t *topicMeta) info() TopicInfo {
	return TopicInfo{Name: t.name, ID: t.id, Partitions: t.partitions, Internal: t.internal}
}

// watchers are those who want to know when topics change.
type watchers struct {
	mu   sync.Mutex
	list []*func()
}

// OnMetadata calls f after each change of topics and partitions, until cancel is
// called; it may be called once more while that runs. f must be quick, and must
// not change topics.
func (e *Engine) OnMetadata(f func()) (cancel func()) {
	w := &e.watchers
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = append(slices.Clip(w.list), &f)
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.list = slices.DeleteFunc(slices.Clone(w.list), func(g *func()) bool { return g == &f })
	}
}

func (w *watchers) call() {
	w.mu.Lock()
	list := w.list
	w.mu.Unlock()
	for _, f := range list {
		(*f)()
	}
}
