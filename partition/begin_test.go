package partition

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// begin begins a batch of one record in a line. sequence -1 is no producer.
func begin(t testing.TB, p *Partition, line *Line, sequence int32, value string, lead func(func())) Begun {
	t.Helper()
	b, err := p.BeginBatch(lineBatch(t, sequence, value), nil, line, lead)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func lineBatch(t testing.TB, sequence int32, value string) []byte {
	t.Helper()
	h := log.BatchHeader{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}
	if sequence >= 0 {
		h.ProducerID, h.ProducerEpoch, h.BaseSequence = 7, 0, sequence
	}
	b, err := log.AppendBatch(nil, &h, record(value))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Appends that are begun while another writes are written in their order, as one
// group, and each has its own outcome.
func TestBeginShares(t *testing.T) {
	fault := vfs.NewFault(vfs.NewMem())
	p := openTest(t, fault, Config{})
	mustAppend(t, p, nil, "first")
	syncs := 0
	fault.OnOp(func(op vfs.Op, name string) {
		if op == vfs.OpDatasync {
			syncs++
		}
	})
	var line Line
	var wg sync.WaitGroup
	p.log.Lock()
	var all []Begun
	for i := range 5 {
		all = append(all, begin(t, p, &line, int32(i), fmt.Sprint(i), wg.Go))
	}
	p.log.Unlock()
	for i := range all {
		<-all[i].Done()
		if res, err := all[i].Finish(); err != nil || res.BaseOffset != int64(i+1) {
			t.Errorf("append %d: %+v, %v", i, res, err)
		}
	}
	wg.Wait()
	if got, want := readAll(t, p, ReadUncommitted), []string{"first", "0", "1", "2", "3", "4"}; !slices.Equal(got, want) {
		t.Errorf("records %v, want %v", got, want)
	}
	if syncs != 1 {
		t.Errorf("%d syncs for one group", syncs)
	}
}

// What was begun behind one that fails has no effect, in the same group and in later
// ones, until nothing of the line is under way. Other lines go on.
func TestBeginBehindAFailure(t *testing.T) {
	p := openTest(t, vfs.NewMem(), Config{})
	var line, other Line
	var wg sync.WaitGroup
	finish := func(b Begun) error {
		<-b.Done()
		_, err := b.Finish()
		return err
	}
	p.log.Lock()
	good := begin(t, p, &line, 0, "0", wg.Go)
	bad := begin(t, p, &line, 5, "out of order", wg.Go)
	behind := begin(t, p, &line, 1, "1", wg.Go)
	beside := begin(t, p, &other, -1, "other", wg.Go)
	p.log.Unlock()
	if err := finish(good); err != nil {
		t.Errorf("the one before: %v", err)
	}
	wg.Wait()
	later := begin(t, p, &line, -1, "later", wg.Go) // the line is broken still: its caller does not know
	wg.Wait()
	if err := finish(bad); !errors.Is(err, ErrOutOfOrderSequence) {
		t.Errorf("the bad one: %v", err)
	}
	for i, b := range []Begun{behind, later} {
		if err := finish(b); !errors.Is(err, ErrLineBroken) {
			t.Errorf("behind it, %d: %v", i, err)
		}
	}
	if err := finish(beside); err != nil {
		t.Errorf("another line: %v", err)
	}
	if err := finish(begin(t, p, &line, 1, "1 again", wg.Go)); err != nil {
		t.Errorf("after all have ended: %v", err)
	}
	if got, want := readAll(t, p, ReadUncommitted), []string{"0", "other", "1 again"}; !slices.Equal(got, want) {
		t.Errorf("records %v, want %v", got, want)
	}
}

// One that is left before its turn has no effect, also when it was to write for the
// others; what is behind it goes on, as after an answer.
func TestBeginLeave(t *testing.T) {
	for leaves := range 3 {
		t.Run(fmt.Sprint("caller=", leaves), func(t *testing.T) {
			p := openTest(t, vfs.NewMem(), Config{})
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			var line Line
			var wg sync.WaitGroup
			p.log.Lock()
			var all []Begun
			for i := range 3 {
				all = append(all, begin(t, p, &line, -1, fmt.Sprint(i), wg.Go))
			}
			if _, err := all[leaves].Leave(ctx); err != context.Canceled {
				t.Errorf("who left got %v", err)
			}
			p.log.Unlock()
			var want []string
			for i := range all {
				if i == leaves {
					continue
				}
				want = append(want, fmt.Sprint(i))
				<-all[i].Done()
				if _, err := all[i].Finish(); err != nil {
					t.Errorf("append %d: %v", i, err)
				}
			}
			wg.Wait()
			if got := readAll(t, p, ReadUncommitted); !slices.Equal(got, want) {
				t.Errorf("records %v, want %v", got, want)
			}
		})
	}
}

// Whatever fails and whoever leaves, a line whose caller does what the Kafka listener
// does has in the log what succeeded, in its order: nothing passes what was sent before it.
func TestBeginKeepsOrder(t *testing.T) {
	for range testcount.N(60) {
		seed := rand.Uint64()
		runLines(t, seed)
	}
}

func runLines(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 3))
	fault := vfs.NewFault(vfs.NewMem())
	p := openTest(t, fault, Config{Log: log.Config{Level: log.Level(rnd.IntN(3)), SegmentBytes: 4 << 10}})
	var mu sync.Mutex
	want := map[string]bool{} // of the values that were sent, whether they were acknowledged
	var lines sync.WaitGroup
	for l := range 3 {
		lineRnd := rand.New(rand.NewPCG(seed, uint64(10+l)))
		lines.Go(func() {
			var line Line
			var wg sync.WaitGroup
			defer wg.Wait()
			type one struct {
				value string
				batch []byte
				begun Begun
			}
			var under []one
			end := func() {
				x := under[0]
				under = under[1:]
				var res Result
				var err error
				if lineRnd.IntN(8) == 0 {
					ctx, cancel := context.WithCancel(context.Background())
					cancel()
					res, err = x.begun.Leave(ctx)
				} else {
					<-x.begun.Done()
					res, err = x.begun.Finish()
				}
				for try := 0; errors.Is(err, ErrLineBroken) || try < 2 && errors.Is(err, log.ErrNoSpace); try++ {
					res, err = p.AppendBatch(context.Background(), x.batch, nil)
				}
				if errors.Is(err, ErrUnknownOutcome) {
					return
				}
				mu.Lock()
				want[x.value] = err == nil
				mu.Unlock()
				if err != nil && !errors.Is(err, log.ErrNoSpace) && err != context.Canceled {
					t.Errorf("seed %d: %s: %v", seed, x.value, err)
				}
				_ = res
			}
			for i := range 40 {
				x := one{value: fmt.Sprintf("%d-%03d", l, i)}
				x.batch = lineBatch(t, -1, x.value)
				var err error
				if x.begun, err = p.BeginBatch(x.batch, nil, &line, wg.Go); err != nil {
					t.Errorf("seed %d: begin: %v", seed, err)
					return
				}
				under = append(under, x)
				for len(under) > lineRnd.IntN(5) {
					end()
				}
				if lineRnd.IntN(20) == 0 {
					fault.Add(vfs.Rule{Op: vfs.OpWrite, Glob: "*.log", Skip: lineRnd.IntN(3), Effect: vfs.Full(lineRnd.IntN(50))})
				}
			}
			for len(under) > 0 {
				end()
			}
		})
	}
	lines.Wait()
	last := map[byte]string{}
	seen := map[string]bool{}
	for _, v := range readAll(t, p, ReadUncommitted) {
		if v <= last[v[0]] || seen[v] {
			t.Fatalf("seed %d: %s comes behind %s", seed, v, last[v[0]])
		}
		last[v[0]], seen[v] = v, true
	}
	for v, ok := range want {
		if seen[v] != ok {
			t.Errorf("seed %d: %s: acknowledged %t, in the log %t", seed, v, ok, seen[v])
		}
	}
}
