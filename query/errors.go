package query

import (
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/x/embedlog"
)

var (
	// ErrClosed says that the graph was closed, or its database.
	ErrClosed = embedlog.ErrClosed
	// ErrNotStarted says that the graph was not started yet.
	ErrNotStarted = errors.New("query: the graph is not started")
	// ErrStarted says that something was added to a graph that runs.
	ErrStarted = errors.New("query: the graph has been started")
	// ErrOtherGraph says that a snapshot is of another graph than the view.
	ErrOtherGraph = errors.New("query: the snapshot is of another graph")
	// ErrOtherNode says that another node of the cluster has the rows, and that the call needs them here: see Watch.
	ErrOtherNode = errors.New("query: another node has the rows")
	// ErrInterrupted says that a part of the graph began again from its last commit while the call waited for it. It may be called again.
	ErrInterrupted = errors.New("query: the view was restored meanwhile")
	// ErrGap is matched by *GapError.
	ErrGap = errors.New("query: records are missing")
	// ErrDefinition is matched by *DefinitionError.
	ErrDefinition = errors.New("query: the graph was started with another definition")
	// ErrState is matched by *StateError.
	ErrState = errors.New("query: the changelogs do not have what was committed")
	// ErrRebuilding says that the graph is being rebuilt already: see Graph.Rebuild.
	ErrRebuilding = errors.New("query: the graph is being rebuilt already")
	// ErrSink is matched by *SinkError.
	ErrSink = errors.New("query: it is not known what a sink's topic has")
	// ErrRunning says that a graph of this name runs on this database.
	ErrRunning = errors.New("query: a graph of this name runs already")
)

// StoppedError says why a graph has stopped. Its views answer no more calls, and what was committed is kept: the graph can be started again.
type StoppedError struct {
	Graph string
	Err   error
}

func (e *StoppedError) Error() string {
	return fmt.Sprintf("view graph %s has stopped: %v", e.Graph, e.Err)
}

// Unwrap is the reason.
func (e *StoppedError) Unwrap() error { return e.Err }

// GapError says that records of a source were deleted before the graph had read them, or were lost. Its views would be wrong without
// a sign. Graph.Rebuild, or a graph under another name, computes them from what is there.
type GapError struct {
	Graph string
	Reset embedlog.Reset
}

func (e *GapError) Error() string {
	return fmt.Sprintf("records %d to %d of %s/%d are missing (Graph.Rebuild computes the views from what is there): %v", e.Reset.From, e.Reset.To, e.Reset.Topic, e.Reset.Partition, e.Reset.Cause)
}

// Is matches ErrGap.
func (e *GapError) Is(target error) bool { return target == ErrGap }

// DefinitionError says that what is kept under the graph's name is of another definition, of another number of tasks, or of a topic that was deleted
// and made again. Options.Rebuild has another definition, or another number of tasks, take its place; Graph.Rebuild computes a graph anew from a topic that was
// made again; and a graph under another name begins anew.
type DefinitionError struct {
	Graph           string
	Was, Now        string
	WasTasks, Tasks int
	Topic           string // whose identity differs, if that is the reason
}

func (e *DefinitionError) Error() string {
	switch {
	case e.Topic != "":
		return fmt.Sprintf("view graph %s was computed from another topic %s than the one that is there, which was made later: Graph.Rebuild computes it anew, or start it under another name", e.Graph, e.Topic)
	case e.Was == e.Now && e.WasTasks == 0:
		return fmt.Sprintf("a topic of view graph %s is there with other settings than it has for %d tasks: start it under another name", e.Graph, e.Tasks)
	case e.Was == e.Now:
		return fmt.Sprintf("view graph %s was computed by %d tasks, now there are %d: its sources have another number of partitions, or Options.OneTask is another one; set Options.Rebuild to compute it anew, or start it under another name",
			e.Graph, e.WasTasks, e.Tasks)
	}
	return fmt.Sprintf("view graph %s was computed by another definition: set Options.Rebuild to compute it anew, or start it under another name.\nIt was:\n%s\nIt is:\n%s", e.Graph, e.Was, e.Now)
}

// Is matches ErrDefinition.
func (e *DefinitionError) Is(target error) bool { return target == ErrDefinition }

// MisplacedKeyError says that a record is not in the partition that its key belongs to, so that one key's records would be counted by several
// tasks. Options.OneTask has one task for all partitions.
type MisplacedKeyError struct {
	Graph    string
	Position embedlog.Position
	Key      []byte
}

func (e *MisplacedKeyError) Error() string {
	return fmt.Sprintf("key %q of %s/%d@%d does not belong to this partition: set Options.OneTask for graph %s",
		e.Key, e.Position.Topic, e.Position.Partition, e.Position.Offset, e.Graph)
}

// PanicError is a panic of a function that a view was given. It stops the graph, before what the function did counts.
type PanicError struct {
	Graph string
	Value any
	Stack []byte
}

func (e *PanicError) Error() string {
	return fmt.Sprintf("a function of view graph %s panicked: %v", e.Graph, e.Value)
}

// Unwrap is the value, where that is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

func panicked(graph string, value any) error {
	return &PanicError{Graph: graph, Value: value, Stack: debug.Stack()}
}

// SinkError says that a graph cannot be computed anew, because it is not known which rows a sink has appended to its topic that would go on: rows
// would be missing there, or twice. What the graph was stays as it was. A sink that appends to another topic begins with the first record.
type SinkError struct {
	Graph, Sink, Reason string
}

func (e *SinkError) Error() string {
	return fmt.Sprintf("view graph %s: it is not known what its sink has appended to %s, because %s: start what it was and close it (Graph.Close), or have the sink append to another topic",
		e.Graph, e.Sink, e.Reason)
}

// Is matches ErrSink.
func (e *SinkError) Is(target error) bool { return target == ErrSink }
