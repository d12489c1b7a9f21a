package sock

import (
	"encoding/json"
	"time"
)

// ViewsRequest asks for graphs of views: one by its name, or all that run in the program. (OpViews)
type ViewsRequest struct {
	Graph string `json:"graph,omitempty"`
}

// ViewGraph is a graph of views. (OpViews' reply, embedlog view describe)
type ViewGraph struct {
	Graph string    `json:"graph"`
	State ViewState `json:"state"`
	// Generation is how often it was computed from the beginning; Rebuilding is the generation that is being computed beside it, or will be.
	Generation int          `json:"generation,omitempty"`
	Rebuilding *ViewRebuild `json:"rebuilding,omitempty"`
	Error      string       `json:"error,omitempty"` // why it has stopped
	// Definition is the graph in words, an operator a line.
	Definition string     `json:"definition"`
	Tasks      int        `json:"tasks"`
	Views      []ViewInfo `json:"views"`
	// Sinks are the topics that it appends to.
	Sinks     []string       `json:"sinks,omitempty"`
	Positions []ViewPosition `json:"positions"`
	// Topics are those that it keeps for itself: changelogs, and its progress.
	Topics []string `json:"topics,omitempty"`
	// Of one that runs, since it was started.
	Records     int64 `json:"records"`
	Late        int64 `json:"late"`
	NoKey       int64 `json:"no_key"`
	DeadLetters int64 `json:"dead_letters"`
	Restarts    int64 `json:"restarts"`
}

// ViewRebuild is a rebuild of a graph. (OpViewRebuild's reply, whose request is a ViewsRequest)
type ViewRebuild struct {
	// Generation is 0 where nobody computes the graph here: whoever starts it next begins.
	Generation int `json:"generation"`
	// Records is how many were read, Left how many are left, -1 where that is not known.
	Records int64  `json:"records"`
	Left    int64  `json:"left"`
	Error   string `json:"error,omitempty"` // why the last one came to nothing
}

// ViewState is how a graph is.
type ViewState string

const (
	ViewRunning    ViewState = "running"
	ViewRestoring  ViewState = "restoring"  // its rows are being read; who asks for them waits
	ViewRebuilding ViewState = "rebuilding" // nothing can be shown until it has been computed anew; who asks waits
	ViewStopped    ViewState = "stopped"    // something went wrong for good
	ViewStored     ViewState = "stored"     // nobody computes it now: it is as of its last commit
)

// ViewInfo is a view of a graph.
type ViewInfo struct {
	View string `json:"view"`
	// Rows is how many it has now, -1 where that is not known.
	Rows int64 `json:"rows"`
	// KeyType and ValueType are what bytes are: string, bytes, int64, json, or empty for what only the program knows.
	KeyType   string `json:"key_type"`
	ValueType string `json:"value_type"`
	// Changelog is the topic that its rows are kept in.
	Changelog string   `json:"changelog"`
	Indexes   []string `json:"indexes,omitempty"`
}

// ViewPosition is how far a graph has read a partition.
type ViewPosition struct {
	Topic      string `json:"topic"`
	Partition  int32  `json:"partition"`
	Position   int64  `json:"position"`
	LastStable int64  `json:"last_stable_offset"` // -1 is not known
	Lag        int64  `json:"lag"`                // records; -1 is not known
	// BehindMS is how long ago the first record that was not read was produced; -1 is not known.
	BehindMS int64 `json:"behind_ms"`
}

// ViewName names a view of a graph.
type ViewName struct {
	Graph string `json:"graph"`
	View  string `json:"view"`
}

// ViewKey is a key: its bytes, or what it is in JSON.
type ViewKey struct {
	Bytes []byte          `json:"bytes,omitempty"`
	JSON  json.RawMessage `json:"json,omitempty"`
}

// ViewGet asks for the row of a key. (OpViewGet, whose reply is a list of one ViewRow, or of none)
type ViewGet struct {
	ViewName
	Key ViewKey `json:"key"`
	// Now does not wait for what was acknowledged before.
	Now bool `json:"now,omitempty"`
	// At is a version, as in ViewRow: the row is as it was then.
	At string `json:"at,omitempty"`
}

// ViewOpen opens the session's walk over a view, and closes the one before. Its rows come with OpViewRows. (OpViewOpen)
type ViewOpen struct {
	ViewName
	// Watch goes on with what changes after the rows that there are.
	Watch bool `json:"watch,omitempty"`
	// From and To bound the keys, half-open; Prefix is what their bytes begin with. Of a walk that does not watch.
	From   *ViewKey `json:"from,omitempty"`
	To     *ViewKey `json:"to,omitempty"`
	Prefix []byte   `json:"prefix,omitempty"`
	Now    bool     `json:"now,omitempty"`
	At     string   `json:"at,omitempty"` // as in ViewGet
}

// ViewPoll asks for the next rows of the walk. (OpViewRows)
type ViewPoll struct {
	MaxRows int           `json:"max_rows"`
	Wait    time.Duration `json:"wait"`
}

// ViewRows are some rows. (OpViewRows' reply)
type ViewRows struct {
	Rows []ViewRow `json:"rows"`
	Done bool      `json:"done,omitempty"` // there are no more
}

// ViewRow is a row, a row that was deleted, or a mark of progress, which has the version alone.
type ViewRow struct {
	Key     []byte `json:"key,omitempty"`
	Value   []byte `json:"value,omitempty"`
	Deleted bool   `json:"deleted,omitempty"`
	// KeyJSON and ValueJSON are what key and value are as JSON, where they can be that.
	KeyJSON   json.RawMessage `json:"key_json,omitempty"`
	ValueJSON json.RawMessage `json:"value_json,omitempty"`
	// Version says that everything up to it was given: topic/partition@offset, with spaces between.
	Version string `json:"version,omitempty"`
}
