package query

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/views"
)

// A graph's definition can change: the new one is computed from the beginning, in topics of its own, while what was kept by the old one stays, and takes
// its place when it has come as far. Each definition that was started is a generation of the graph. Which one serves is said
// by the last record of <graph>-generation:
//
//	serving ──(0) beside ──(1) building ──(2) fenced: where the old one ended ──(3) serving is the new one, the old one's topics are obsolete ──(4) they are deleted
//
// (0) is of a rebuild alone, whose definition is the one that serves: the old one goes on, and the new one reads no further than what the old one has
// committed. (1) comes before the old tasks' transactional ids are taken over, so that whoever runs the old definition and begins again sees it and stops.
// (2) has the positions that the old one committed last: sinks that both have leave out what comes of records before. After a crash in between a step
// is done again. Every record is written by who has read the one before it (ProduceAt), so that nodes that take steps at once do not undo them.

// generations is that record.
type generations struct {
	Serving  generation `json:"serving"`
	Building *building  `json:"building,omitempty"`
	// Requested is a rebuild that was asked for where nobody computes the graph. The next start begins it.
	Requested bool     `json:"requested,omitempty"`
	Last      int      `json:"last,omitempty"` // the highest number that a generation has had
	Obsolete  []string `json:"obsolete,omitempty"`

	next int64 // the offset of the record that follows
}

// generation is a definition and where it keeps what.
type generation struct {
	Number     int      `json:"number"`
	Definition string   `json:"definition"`
	Tasks      []int    `json:"tasks"` // of each stage
	Topics     []string `json:"topics"`
	Mute       bool     `json:"mute,omitempty"` // it has appended nothing to sinks
}

// building is a generation that does not serve yet.
type building struct {
	generation
	Beside bool          `json:"beside,omitempty"` // the old one goes on
	Fenced bool          `json:"fenced,omitempty"`
	Ends   []sourceEnd   `json:"ends,omitempty"`  // where the old one has read up to
	Whole  bool          `json:"whole,omitempty"` // sinks append nothing before it serves, and it reads no further than Ends until then
	Over   []*generation `json:"over,omitempty"`  // that were built before and never served
}

type sourceEnd struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
	Stage     int    `json:"stage,omitempty"` // that has read so far
}

// base is what the names of a generation's topics and transactional ids begin with.
func (g *Graph) base(number int) string {
	if number <= 1 {
		return g.name
	}
	return fmt.Sprintf("%s.gen%d", g.name, number)
}

func (g *Graph) generationName() string { return g.name + views.GenerationSuffix }

// generations is the last record; nil where there is none.
func (g *Graph) generations(ctx context.Context) (*generations, error) {
	top, err := g.db.Topic(g.generationName())
	if err != nil {
		return nil, err
	}
	var last *generations
	for rec, err := range top.Scan(ctx, &embedlog.ScanOptions{Linearizable: true}) {
		if err != nil {
			return nil, err
		}
		last = new(generations)
		if err := json.Unmarshal(rec.Value, last); err != nil {
			return nil, fmt.Errorf("generations of %s: %w", g.name, err)
		}
		last.next = rec.Offset + 1
	}
	return last, nil
}

// writeGenerations writes the record behind the one that s was read from. It fails with embedlog.ErrUnexpectedOffset when another one is there.
func (g *Graph) writeGenerations(ctx context.Context, s *generations) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	top, err := g.db.Topic(g.generationName())
	if err != nil {
		return err
	}
	pos, err := top.ProduceAt(ctx, 0, s.next, embedlog.Record{Key: []byte("generations"), Value: b})
	if err == nil {
		s.next = pos[0].Offset + 1
	}
	return err
}

// now is the graph as it is planned, as a generation.
func (g *Graph) now(number int) generation {
	n := generation{Number: number, Definition: g.definition}
	g.kept = g.base(number)
	n.Topics = append(n.Topics, g.progressName()) // the first one: see occupied
	for _, s := range g.stages {
		n.Tasks = append(n.Tasks, s.tasks)
		for _, k := range g.newTask(s.first).stores {
			n.Topics = append(n.Topics, g.changelogName(k.label()))
		}
		for _, r := range s.writes {
			n.Topics = append(n.Topics, g.repName(r))
		}
	}
	return n
}

func (a *generation) same(b *generation) bool {
	return a.Definition == b.Definition && slices.Equal(a.Tasks, b.Tasks)
}

// is says whether a generation is of the graph's definition.
func (g *Graph) is(n *generation) bool {
	tasks := make([]int, 0, len(g.stages))
	for _, s := range g.stages {
		tasks = append(tasks, s.tasks)
	}
	return n.Definition == g.definition && slices.Equal(n.Tasks, tasks)
}

// chooseGeneration finds out which generation the definition is, and begins a new one if it is allowed to.
func (g *Graph) chooseGeneration(ctx context.Context) error {
	if _, err := g.db.EnsureTopic(ctx, g.generationName(), &embedlog.TopicConfig{Cleanup: embedlog.Compact, Durability: embedlog.Durable}); err != nil {
		return err
	}
	for {
		err := g.choose(ctx)
		if !errors.Is(err, embedlog.ErrUnexpectedOffset) { // another node has written meanwhile
			return err
		}
	}
}

func (g *Graph) choose(ctx context.Context) error {
	g.rebuilt, g.muted, g.fenced = nil, nil, false
	g.bound.Store(nil)
	s, err := g.generations(ctx)
	if err != nil {
		return err
	}
	if s == nil {
		s = &generations{Serving: g.now(1), Last: 1}
		if err := g.occupied(&s.Serving); err != nil {
			if again, e := g.generations(ctx); e != nil || again != nil { // another node was first
				return cmp.Or(e, embedlog.ErrUnexpectedOffset)
			}
			return err
		}
		g.number = 1
		return g.writeGenerations(ctx, s)
	}
	if err := g.tidyGenerations(ctx, s); err != nil {
		return err
	}
	now := g.now(s.Serving.Number)
	switch b := s.Building; {
	case now.same(&s.Serving) && (b == nil || b.Beside && now.same(&b.generation)):
		g.number = s.Serving.Number // a rebuild goes on beside it
		return nil
	case b == nil && !g.opts.Rebuild:
		return g.supersededBy(&s.Serving)
	case b != nil && !g.opts.Rebuild && !now.same(&b.generation):
		return g.supersededBy(&b.generation)
	case b == nil || b.Beside || !now.same(&b.generation):
		s.Requested = false // it is computed anew in any case
		g.beginGeneration(s)
		if err := g.writeGenerations(ctx, s); err != nil {
			return err
		}
	}
	g.number = s.Building.Number
	g.kept = g.base(g.number)
	err = g.fence(ctx, s)
	if unknown := (*SinkError)(nil); errors.As(err, &unknown) && s.Requested && s.Building == nil {
		return g.choose(ctx) // what serves goes on, and is rebuilt from the beginning
	}
	return err
}

// beginGeneration has the graph's definition be the one that is built.
func (g *Graph) beginGeneration(s *generations) {
	number := max(s.Serving.Number, s.Last) + 1
	var over []*generation
	if b := s.Building; b != nil { // its sinks may be further than those of the one that serves
		number = max(number, b.Number+1)
		b.Mute = !b.Fenced || b.Whole
		over = append(b.Over, &b.generation)
	}
	now := g.now(number)
	for g.occupied(&now) != nil {
		number++
		now = g.now(number)
	}
	s.Last = number
	s.Building = &building{generation: now, Over: over}
}

// supersededBy says that the definition is not the one that is kept.
func (g *Graph) supersededBy(other *generation) error {
	was, now := 0, 0
	for _, n := range other.Tasks {
		was += n
	}
	for _, s := range g.stages {
		now += s.tasks
	}
	return &DefinitionError{Graph: g.name, Was: other.Definition, Now: g.definition, WasTasks: was, Tasks: now}
}

// fence has those who compute older generations commit nothing any more, and notes where they ended.
func (g *Graph) fence(ctx context.Context, s *generations) error {
	b := s.Building
	older := append([]*generation{&s.Serving}, b.Over...)
	if g.muted == nil {
		g.muted = sinksOf(older)
	}
	if !b.Fenced {
		kept := &ending{at: map[stagePlace]int64{}, commits: map[string]int64{}}
		for _, old := range older {
			if err := g.endOf(ctx, old, kept); err != nil {
				return err
			}
		}
		if err := g.settleSinks(s, older, kept); err != nil {
			if !slices.ContainsFunc(b.Over, func(o *generation) bool { return !o.Mute }) { // as if it had not begun: the old definition may be started again
				s.Building, s.Requested = nil, g.is(&s.Serving)
				for _, o := range append(b.Over, &b.generation) {
					s.Obsolete = append(s.Obsolete, o.Topics...)
				}
				err = errors.Join(err, g.writeGenerations(ctx, s))
			}
			return err
		}
		for at, end := range kept.at {
			b.Ends = append(b.Ends, sourceEnd{at.topic, at.partition, end, at.stage})
		}
		b.Beside, b.Fenced = false, true
		if err := g.writeGenerations(ctx, s); err != nil {
			return err
		}
	}
	g.fenced = true
	g.setBound(boundOf(b))
	if g.rebuilt == nil {
		g.rebuilt = make(chan struct{})
	}
	return nil
}

// sinksOf are the topics that definitions append to.
func sinksOf(list []*generation) map[string]bool {
	all := map[string]bool{}
	for _, n := range list {
		for _, name := range n.sinks() {
			all[name] = true
		}
	}
	return all
}

// sinks are the topics that a definition appends to.
func (n *generation) sinks() (names []string) {
	for line := range strings.Lines(n.Definition) {
		if rest, ok := strings.CutPrefix(line, "sink "); ok {
			name, _, _ := strings.Cut(rest, " <- ")
			names = append(names, name)
		}
	}
	return names
}

// stagePlace is a partition of a source as one of the stages reads it.
type stagePlace struct {
	stage int
	place
}

// ending is what older generations have committed last.
type ending struct {
	at      map[stagePlace]int64
	commits map[string]int64 // by task
	pending []string         // repartitions whose rows were not all applied
}

// endOf takes over the ids of a generation's tasks, and adds what they committed last.
func (g *Graph) endOf(ctx context.Context, n *generation, end *ending) error {
	for index, tasks := range n.Tasks {
		for i := range tasks {
			t := &task{stage: &stage{index: index}, index: i}
			_, err := g.db.Transactor(ctx, embedlog.TxnOptions{ID: txnID(g.base(n.Number), t.id()), Timeout: txnTimeout})
			if err != nil {
				return err
			}
		}
	}
	if n.Mute {
		return nil
	}
	last, err := g.progressOf(ctx, g.base(n.Number))
	if err != nil {
		return err
	}
	for key, p := range last {
		for _, at := range p.Positions {
			if src := g.sources[at.Topic]; src != nil && src.ID().String() == at.ID {
				where := stagePlace{stageOfKey(key), place{at.Topic, at.Partition}}
				end.at[where] = max(end.at[where], at.Offset)
			}
		}
	}
	end.pending = append(end.pending, g.pendingOf(last, n.Tasks)...)
	return nil
}

// progressOf is the last progress of each task of a generation.
func (g *Graph) progressOf(ctx context.Context, base string) (map[string]*progress, error) {
	last := map[string]*progress{}
	top, err := g.db.Topic(base + views.ProgressSuffix)
	if errors.Is(err, embedlog.ErrUnknownTopic) {
		return last, nil // it was never made
	}
	if err != nil {
		return nil, err
	}
	for rec, err := range top.Scan(ctx, &embedlog.ScanOptions{Linearizable: true}) {
		if err != nil {
			return nil, err
		}
		p := new(progress)
		if err := json.Unmarshal(rec.Value, p); err != nil {
			return nil, fmt.Errorf("progress of %s: %w", base, err)
		}
		last[string(rec.Key)] = p
	}
	return last, nil
}

// progressKey is the key of the progress of a stage's task.
func progressKey(stage, index int) string {
	if stage == 0 {
		return fmt.Sprint("task ", index)
	}
	return fmt.Sprintf("task %d-%d", stage, index)
}

// stageOfKey is the stage whose task has a key.
func stageOfKey(key string) int {
	if stage, _, ok := strings.Cut(strings.TrimPrefix(key, "task "), "-"); ok {
		n, _ := strconv.Atoi(stage) // it is as progressKey makes it
		return n
	}
	return 0
}

// tidyGenerations deletes the topics of generations that do not serve any more.
func (g *Graph) tidyGenerations(ctx context.Context, s *generations) error {
	if len(s.Obsolete) == 0 {
		return nil
	}
	for _, name := range s.Obsolete {
		if err := g.db.DeleteTopic(ctx, name); err != nil && !errors.Is(err, embedlog.ErrUnknownTopic) {
			return fmt.Errorf("delete what an older definition kept: %w", err)
		}
	}
	s.Obsolete = nil
	if err := g.writeGenerations(ctx, s); err != nil {
		return err
	}
	g.removeState()
	return nil
}

// errRetired ends a task whose generation another one takes the place of, in this program, too.
var errRetired = errors.New("query: another generation of the graph is about to serve")

// current says, when a task has its transactional id, whether its generation may commit.
func (g *Graph) current(ctx context.Context) error {
	s, err := g.generations(ctx)
	if err != nil || s == nil {
		return err
	}
	other := &s.Serving
	switch b := s.Building; {
	case b != nil && b.Number == g.number, b != nil && b.Beside && s.Serving.Number == g.number, b == nil && s.Serving.Number == g.number:
		return nil
	case b != nil:
		other = &b.generation
	}
	if g.is(other) {
		return errRetired
	}
	return g.supersededBy(other)
}
