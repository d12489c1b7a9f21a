package query

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/x/embedlog"
)

// A graph's definition can change: the new one is computed from the beginning, in topics of its own, while what was kept by the old one stays, and takes
// its place when it has come as far. Each definition that was started is a generation of the graph. Which one serves is said
// by the last record of <graph>-generation:
//
//	serving ──(1) building ──(2) fenced: where the old one ended ──(3) serving is the new one, the old one's topics are obsolete ──(4) they are deleted
//
// (1) comes before the old tasks' transactional ids are taken over, so that whoever runs the old definition and begins again sees it and stops. (2) has
// the positions that the old one committed last: sinks that both have leave out what comes of records before. After a crash in between a step
// is done again.

// generations is that record.
type generations struct {
	Serving  generation `json:"serving"`
	Building *building  `json:"building,omitempty"`
	Obsolete []string   `json:"obsolete,omitempty"`
}

// generation is a definition and where it keeps what.
type generation struct {
	Number     int      `json:"number"`
	Definition string   `json:"definition"`
	Tasks      []int    `json:"tasks"` // of each stage
	Topics     []string `json:"topics"`
}

// building is a generation that does not serve yet.
type building struct {
	generation
	Fenced bool          `json:"fenced,omitempty"`
	Ends   []sourceEnd   `json:"ends,omitempty"` // where the old one has read up to
	Over   []*generation `json:"over,omitempty"` // that were built before and never served
}

type sourceEnd struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
}

// base is what the names of a generation's topics and transactional ids begin with.
func (g *Graph) base(number int) string {
	if number <= 1 {
		return g.name
	}
	return fmt.Sprintf("%s.gen%d", g.name, number)
}

func (g *Graph) generationName() string { return g.name + "-generation" }

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
	}
	return last, nil
}

func (g *Graph) writeGenerations(ctx context.Context, s *generations) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	top, err := g.db.Topic(g.generationName())
	if err == nil {
		_, err = top.Produce(ctx, embedlog.Record{Key: []byte("generations"), Value: b})
	}
	return err
}

// now is the graph as it is planned, as a generation.
func (g *Graph) now(number int) generation {
	n := generation{Number: number, Definition: g.definition}
	g.kept = g.base(number)
	n.Topics = append(n.Topics, g.progressName())
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

// chooseGeneration finds out which generation the definition is, and begins a new one if it is allowed to.
func (g *Graph) chooseGeneration(ctx context.Context) error {
	if _, err := g.db.EnsureTopic(ctx, g.generationName(), &embedlog.TopicConfig{Cleanup: embedlog.Compact, Durability: embedlog.Durable}); err != nil {
		return err
	}
	g.rebuilt, g.mute, g.muted = nil, nil, nil
	s, err := g.generations(ctx)
	if err != nil {
		return err
	}
	if s == nil {
		s = &generations{Serving: g.now(1)}
		g.number = 1
		return g.writeGenerations(ctx, s)
	}
	if err := g.tidyGenerations(ctx, s); err != nil {
		return err
	}
	now := g.now(s.Serving.Number)
	switch {
	case s.Building == nil && now.same(&s.Serving):
		g.number = s.Serving.Number
		return nil
	case !g.opts.Rebuild && s.Building == nil:
		return g.supersededBy(&s.Serving)
	case !g.opts.Rebuild && !now.same(&s.Building.generation):
		return g.supersededBy(&s.Building.generation)
	case s.Building == nil || !now.same(&s.Building.generation):
		number := s.Serving.Number + 1
		var over []*generation
		if s.Building != nil { // its sinks may be further than those of the one that serves
			number = s.Building.Number + 1
			over = append(s.Building.Over, &s.Building.generation)
		}
		s.Building = &building{generation: g.now(number), Over: over}
		if err := g.writeGenerations(ctx, s); err != nil {
			return err
		}
	}
	g.number = s.Building.Number
	g.kept = g.base(g.number)
	return g.fence(ctx, s)
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
	if !s.Building.Fenced {
		ends := map[place]int64{}
		for _, old := range append([]*generation{&s.Serving}, s.Building.Over...) {
			if err := g.endOf(ctx, old, ends); err != nil {
				return err
			}
		}
		for at, end := range ends {
			s.Building.Ends = append(s.Building.Ends, sourceEnd{at.topic, at.partition, end})
		}
		s.Building.Fenced = true
		if err := g.writeGenerations(ctx, s); err != nil {
			return err
		}
	}
	g.mute = map[place]int64{}
	for _, e := range s.Building.Ends {
		g.mute[place{e.Topic, e.Partition}] = e.Offset
	}
	g.muted = map[string]bool{}
	for _, old := range append([]*generation{&s.Serving}, s.Building.Over...) {
		for _, name := range old.sinks() {
			g.muted[name] = true
		}
	}
	for _, o := range g.outputs {
		if o.kind == "sink" && g.muted[o.name] && (len(s.Serving.Tasks) > 1 || len(g.stages) > 1) {
			return fmt.Errorf("%w (a graph with repartitions whose sink %s goes on cannot be rebuilt: it is not known what the sink has)", g.supersededBy(&s.Serving), o.name)
		}
	}
	g.rebuilt = make(chan struct{})
	return nil
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

// endOf takes over the ids of a generation's tasks, and adds what they committed last.
func (g *Graph) endOf(ctx context.Context, n *generation, ends map[place]int64) error {
	for index, tasks := range n.Tasks {
		for i := range tasks {
			t := &task{stage: &stage{index: index}, index: i}
			_, err := g.db.Transactor(ctx, embedlog.TxnOptions{ID: txnID(g.base(n.Number), t.id()), Timeout: txnTimeout})
			if err != nil {
				return err
			}
		}
	}
	top, err := g.db.Topic(g.base(n.Number) + "-progress")
	if errors.Is(err, embedlog.ErrUnknownTopic) {
		return nil // it was never made
	}
	if err != nil {
		return err
	}
	last := map[string]*progress{}
	for rec, err := range top.Scan(ctx, &embedlog.ScanOptions{Linearizable: true}) {
		if err != nil {
			return err
		}
		p := new(progress)
		if err := json.Unmarshal(rec.Value, p); err != nil {
			return fmt.Errorf("progress of %s: %w", g.base(n.Number), err)
		}
		last[string(rec.Key)] = p
	}
	for _, p := range last {
		for _, at := range p.Positions {
			if src := g.sources[at.Topic]; src != nil && src.ID().String() == at.ID {
				ends[place{at.Topic, at.Partition}] = max(ends[place{at.Topic, at.Partition}], at.Offset)
			}
		}
	}
	return nil
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
	return g.writeGenerations(ctx, s)
}

// current says, when a task has its transactional id, whether its generation may commit.
func (g *Graph) current(ctx context.Context) error {
	s, err := g.generations(ctx)
	if err != nil || s == nil {
		return err
	}
	switch {
	case s.Building != nil && s.Building.Number == g.number:
		return nil
	case s.Building != nil:
		return g.supersededBy(&s.Building.generation)
	case s.Serving.Number != g.number:
		return g.supersededBy(&s.Serving)
	}
	return nil
}

// buildingKey is a context's key: reads with it do not wait until the graph is rebuilt.
type buildingKey struct{}

func whileBuilding(ctx context.Context) context.Context {
	return context.WithValue(ctx, buildingKey{}, true)
}

// awaitRebuilt waits until the graph's generation serves.
func (g *Graph) awaitRebuilt(ctx context.Context) error {
	if g.rebuilt == nil || ctx.Value(buildingKey{}) != nil {
		return nil
	}
	select {
	case <-g.rebuilt:
		return nil
	case <-g.ctx.Done():
		return &StoppedError{g.name, ErrClosed}
	case <-ctx.Done():
		return ctx.Err()
	}
}

// switchOver waits until the new generation has committed what is acknowledged, and has it serve: what sinks leave out is not known any more then.
func (g *Graph) switchOver(ctx context.Context) {
	pause := firstPause
	for ctx.Err() == nil {
		var err error
		for i := 0; i < len(g.slots) && err == nil; i++ {
			_, err = g.settle(whileBuilding(ctx), i, true)
		}
		if err == nil {
			err = g.switched(ctx)
		}
		if err == nil {
			close(g.rebuilt)
			return
		}
		if stopped := (*StoppedError)(nil); errors.As(err, &stopped) {
			close(g.rebuilt) // reads say why
			return
		}
		if g.opts.Logger != nil {
			g.opts.Logger.Warn("a view graph that was rebuilt does not serve yet", "graph", g.name, "err", err)
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, lastPause)
		case <-ctx.Done():
		}
	}
}

func (g *Graph) switched(ctx context.Context) error {
	s, err := g.generations(ctx)
	if err != nil {
		return err
	}
	if s.Building != nil && s.Building.Number == g.number {
		s.Obsolete = append(s.Obsolete, s.Serving.Topics...)
		for _, o := range s.Building.Over {
			s.Obsolete = append(s.Obsolete, o.Topics...)
		}
		s.Serving, s.Building = s.Building.generation, nil
		if err := g.writeGenerations(ctx, s); err != nil {
			return err
		}
	}
	return g.tidyGenerations(ctx, s)
}

// mutes says whether what comes of a record is left out by sinks that an older generation had: it has appended that.
func (g *Graph) mutes(at place, offset int64) bool { return g.mute != nil && offset < g.mute[at] }
