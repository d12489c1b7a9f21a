package engine_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/internal/testcount"
)

// modelTopic is a topic as one would say it.
type modelTopic struct {
	partitions, factor int
	retention          string
	replicas           map[int][]int32 // of partitions that were reassigned
	counts             []int           // of replicas of each partition
}

// grow adds partitions with as many replicas as the topic wants.
func (m *modelTopic) grow(total int) {
	m.partitions = total
	for len(m.counts) < total {
		m.counts = append(m.counts, m.factor)
	}
}

// chosen is a partition whose replicas were chosen by hand. The topic wants as many as all partitions have, and where they
// differ no more than that.
func (m *modelTopic) chosen(n int, nodes []int32) {
	m.replicas[n], m.counts[n] = nodes, len(nodes)
	if m.factor = min(m.factor, len(nodes)); slices.Min(m.counts) == slices.Max(m.counts) {
		m.factor = len(nodes)
	}
}

// Random changes at whoever leads, while leaders move and nodes are closed and opened:
// all nodes agree with each other and with a map.
func TestRandomChangesInACluster(t *testing.T) {
	OneAtATime(t, 400)
	for seed := range uint64(testcount.N(40)) {
		synctest.Test(t, func(t *testing.T) {
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("seed %d", seed)
				}
			})
			randomChanges(t, rand.New(rand.NewPCG(seed, 7)))
		})
	}
}

func randomChanges(t *testing.T, r *rand.Rand) {
	p := newPeers(t, 3)
	p.quiet = true
	model := map[string]*modelTopic{}
	names := []string{"a", "b", "c", "d"}
	for step := range 60 {
		lead := p.leader()
		if lead == nil {
			t.Fatalf("step %d: nobody leads", step)
		}
		name := names[r.IntN(len(names))]
		has := model[name]
		var err, want error
		what := ""
		switch op := r.IntN(12); op {
		case 0, 1, 2:
			partitions := 1 + r.IntN(4)
			m := &modelTopic{factor: 1 + r.IntN(3), retention: "604800000", replicas: map[int][]int32{}}
			m.grow(partitions)
			what = fmt.Sprintf("create %s %+v", name, m)
			_, err = lead.CreateTopic(ctx, TopicSpec{Name: name, Partitions: m.partitions, ReplicationFactor: m.factor})
			if has != nil {
				want = ErrTopicExists
			} else {
				model[name] = m
			}
		case 3, 4:
			what = "delete " + name
			err = lead.DeleteTopic(ctx, name)
			delete(model, name)
		case 5:
			value := fmt.Sprint(r.IntN(1000))
			what = "alter " + name
			err = lead.AlterTopic(ctx, name, map[string]string{"retention.ms": value}, nil)
			if has != nil {
				has.retention = value
			}
		case 6:
			total := 1 + r.IntN(6)
			what = fmt.Sprint("add partitions ", name, total)
			err = lead.AddPartitions(ctx, name, total)
			if has != nil && total <= has.partitions {
				want = ErrInvalidTopic
			} else if has != nil {
				has.grow(total)
			}
		case 7, 8:
			n := r.IntN(4)
			var nodes []int32
			for _, i := range r.Perm(3)[:1+r.IntN(3)] {
				nodes = append(nodes, int32(i+1))
			}
			what = fmt.Sprint("reassign ", name, n, nodes)
			err = lead.Reassign(ctx, name, int32(n), nodes)
			if has != nil && n >= has.partitions {
				want = ErrUnknownPartition
			} else if has != nil {
				has.chosen(n, nodes)
			}
		case 9:
			factor := 1 + r.IntN(4)
			what = fmt.Sprint("factor of ", name, factor)
			err = lead.SetReplicationFactor(ctx, name, factor)
			if has != nil && factor > 3 {
				want = ErrInvalidReplicationFactor
			} else if has != nil {
				has.factor, has.replicas, has.counts = factor, map[int][]int32{}, nil
				has.grow(has.partitions)
			}
		case 10:
			if to := int32(1 + r.IntN(3)); p.open[to] != nil {
				if err := p.net.Elect(meta, to); err != nil {
					t.Fatal(err)
				}
			}
			continue
		default:
			id := int32(1 + r.IntN(3))
			if p.open[id] == nil {
				p.start(id)
			} else if len(p.open) > 1 {
				p.stop(id)
			}
			continue
		}
		if has == nil && want == nil && !strings.HasPrefix(what, "create") {
			want = ErrUnknownTopic
		}
		if !errors.Is(err, want) || want == nil && err != nil {
			t.Fatalf("step %d: %s: got %v, want %v", step, what, err, want)
		}
		if other := p.open[lead.NodeID()%3+1]; other != nil && other != lead {
			// The leader answers for a follower, too.
			if err := other.DeleteTopic(ctx, "no-such-topic"); !errors.Is(err, ErrUnknownTopic) {
				t.Fatalf("step %d: at a follower: %v", step, err)
			}
		}
		if r.IntN(10) == 0 {
			time.Sleep(time.Duration(r.IntN(3000)) * time.Millisecond)
		}
		checkModel(t, step, lead, model)
	}
	for _, id := range []int32{1, 2, 3} {
		if p.open[id] == nil {
			p.start(id)
		}
	}
	p.until("all is as assigned", func() bool {
		for id, e := range p.open {
			if e.SyncMetadata(ctx) != nil || len(e.Info().Deleting) > 0 {
				return false
			}
			infos, err := p.files[id].List("topics")
			if err != nil || len(infos) > len(model) {
				return false
			}
			for _, top := range e.Topics() {
				var want []string
				for _, part := range top.Partitions() {
					if slices.Contains(top.Replicas(part.ID()), id) {
						want = append(want, fmt.Sprint(part.ID()))
					}
				}
				if !slices.Equal(p.dirs(id, top.ID()), want) {
					return false
				}
			}
		}
		return true
	})
	p.agree()
	checkModel(t, 60, p.leader(), model)
}

func checkModel(t *testing.T, step int, e *Engine, model map[string]*modelTopic) {
	t.Helper()
	var names []string
	for _, top := range e.Topics() {
		names = append(names, top.Name())
		m := model[top.Name()]
		if m == nil {
			t.Fatalf("step %d: there is %s", step, top.Name())
		}
		retention, _ := top.Settings().Get("retention.ms")
		if len(top.Partitions()) != m.partitions || retention != m.retention || top.ReplicationFactor() != m.factor {
			t.Fatalf("step %d: %s has %d partitions, retention %s, factor %d; want %+v", step, top.Name(), len(top.Partitions()), retention, top.ReplicationFactor(), m)
		}
		for n := range top.Partitions() {
			got := top.Replicas(int32(n))
			if want, ok := m.replicas[n]; ok && !slices.Equal(got, want) || !ok && len(got) != m.counts[n] {
				t.Fatalf("step %d: %s/%d is on %v; want %v of %d", step, top.Name(), n, got, want, m.counts[n])
			}
		}
	}
	if want := slices.Sorted(maps.Keys(model)); !slices.Equal(names, want) {
		t.Fatalf("step %d: topics %v; want %v", step, names, want)
	}
}
