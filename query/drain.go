package query

import (
	"context"
	"fmt"
	"slices"
)

// settleStages waits until each stage has applied and committed what those before it have. Nobody reads sources meanwhile.
func (g *Graph) settleStages(ctx context.Context) error {
	ctx = whileBuilding(ctx)
	for _, s := range g.stages {
		for i := range s.tasks {
			t, err := g.local(ctx, s.first+i)
			if err != nil {
				return err
			}
			for _, rep := range s.reads {
				err := t.follow(ctx, rep, func(ctx context.Context, slot int) (int64, error) { return g.settle(ctx, slot, false) })
				if err != nil {
					return err
				}
			}
			if _, err := t.settleCommit(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// drain has a graph end where each stage has what those before it have read, and all have read equally far: then it is known what its sinks have, and another
// definition can go on with them. Where it cannot, the graph can still be started again. Release is called when the tasks have ended.
func (g *Graph) drain() (release func()) {
	if len(g.stages) < 2 || g.firstSink() == "" || g.clustered() || g.stopped() != nil || !g.open() {
		return func() {}
	}
	ctx, cancel := context.WithTimeout(whileBuilding(context.Background()), closePatience)
	defer cancel()
	for i := range g.slots {
		s := &g.slots[i]
		s.mu.Lock()
		restored := s.task != nil
		s.mu.Unlock()
		if !restored {
			return func() {} // it has nothing that is not committed
		}
	}
	_, release, err := g.cut(ctx)
	if err == nil {
		return release
	}
	if g.opts.Logger != nil {
		g.opts.Logger.Warn("a view graph ends before its repartitions are empty", "graph", g.name, "err", err)
	}
	return func() {}
}

// settleSinks finds out whether it is known what sinks have that go on. Where there are repartitions, rows on their way through them may have reached
// the sinks or not: so there must be none, and all stages must have read equally far, unless they go on as they are.
func (g *Graph) settleSinks(s *generations, older []*generation, end *ending) error {
	sink, several := "", len(g.stages) > 1
	for _, o := range g.outputs {
		if o.kind == "sink" && g.muted[o.name] {
			sink = o.name
		}
	}
	for _, n := range older {
		several = several || len(n.Tasks) > 1 && !n.Mute
	}
	if sink == "" || !several || len(end.at) == 0 {
		return nil
	}
	if g.clustered() {
		return &SinkError{Graph: g.name, Sink: sink, Reason: "there are repartitions, and the tasks are on several nodes"}
	}
	s.Building.Whole = true
	if len(end.pending) > 0 {
		return &SinkError{Graph: g.name, Sink: sink, Reason: fmt.Sprintf("the old definition ended while rows were on their way through %s", end.pending[0])}
	}
	if g.is(&s.Serving) && len(older) == 1 {
		return nil
	}
	all := map[stagePlace]int64{}
	read := map[string]bool{}
	for at, offset := range end.at {
		any := stagePlace{anyStage, at.place}
		if was, ok := all[any]; ok && was != offset {
			return &SinkError{Graph: g.name, Sink: sink, Reason: fmt.Sprintf("the old definition ended when its stages had read %s/%d differently far", at.topic, at.partition)}
		}
		all[any], read[at.topic] = offset, true
	}
	for name := range g.sources {
		if !read[name] {
			return &SinkError{Graph: g.name, Sink: sink, Reason: fmt.Sprintf("the graph has repartitions, and reads %s, which the old definition did not", name)}
		}
	}
	end.at = all
	return nil
}

// pendingOf are the repartitions whose rows were not all applied, by what the tasks of each stage have committed.
func (g *Graph) pendingOf(last map[string]*progress, tasks []int) (topics []string) {
	for stage := 1; stage < len(tasks) && len(last) > 0; stage++ {
		for i := range tasks[stage] {
			if last[progressKey(stage, i)] == nil { // it has not applied a commit yet, which each of those before it writes to all
				topics = append(topics, g.name+"'s repartitions")
			}
		}
	}
	for _, p := range last {
		for _, at := range p.Positions {
			for i, u := range at.From {
				before := last[progressKey(at.Writer, i)]
				if u != nil && before != nil && u.Commit != before.Commit {
					topics = append(topics, at.Topic)
				}
			}
		}
	}
	slices.Sort(topics)
	return slices.Compact(topics)
}
