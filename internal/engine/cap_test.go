package engine

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

func capped(limit int64) func(*Options) {
	return func(o *Options) { o.MaxBytes, o.MaintenanceInterval = limit, -1 }
}

func mustTopicWith(t *testing.T, e *Engine, name string, partitions int, settings string) *Topic {
	t.Helper()
	topic, err := e.CreateTopic(ctx, TopicSpec{Name: name, Partitions: partitions, Settings: fields(settings)})
	if err != nil {
		t.Fatal(err)
	}
	return topic
}

func keyValue(key string, size int) []log.Record {
	return []log.Record{{Timestamp: 1000, Key: []byte(key), Value: bytes.Repeat([]byte("x"), size)}}
}

// fillUp appends until there is no room, and returns the error and how many went in.
func fillUp(t *testing.T, p *Partition, size int, o *partition.AppendOptions) (int, error) {
	t.Helper()
	for n := 0; ; n++ {
		if _, err := p.Append(ctx, keyValue(fmt.Sprint(n), size), o); err != nil {
			if !errors.Is(err, log.ErrNoSpace) || errors.Is(err, log.ErrStorageFailed) {
				t.Fatal(err)
			}
			return n, err
		}
		if n > 1<<20 {
			t.Fatal("it never gets full")
		}
	}
}

// allocated is what all files take, by asking the file system, and by the logs' own
// count.
func allocated(t *testing.T, e *Engine, fsys vfs.FS) (files, logs int64) {
	t.Helper()
	var walk func(dir string) int64
	walk = func(dir string) (n int64) {
		list, err := fsys.List(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return 0 // a topic was deleted meanwhile
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, info := range list {
			if info.Dir {
				n += walk(path.Join(dir, info.Name))
			}
			n += info.Allocated
		}
		return n
	}
	files = walk(".")
	logs = e.meta.part.Log().AllocatedBytes()
	for _, topic := range e.Topics() {
		for _, p := range topic.Partitions() {
			logs += p.Log().AllocatedBytes()
		}
	}
	return files, logs
}

func wantBelow(t *testing.T, e *Engine, fsys vfs.FS, limit int64, what string) {
	t.Helper()
	files, logs := allocated(t, e, fsys)
	if used := e.MaintenanceStats().UsedBytes; files > limit || logs > limit || used > limit {
		t.Fatalf("%s: the files take %d bytes, the logs count %d, the cap %d, of %d", what, files, logs, used, limit)
	}
}

// Whatever is done, no more is taken than the cap says, and topics that allow it
// take appends for ever.
func TestCapHoldsAtEveryMoment(t *testing.T) {
	for seed := range uint64(testcount.N(8)) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 3))
			limit := int64(MinMaxBytes + rng.IntN(3<<20))
			mem := vfs.NewMem()
			e := openEngine(t, mem, capped(limit))
			var topics []*Topic
			made, refused := 0, 0
			levels := []string{"durable", "interval", "os"}
			for range 900 {
				switch op := rng.IntN(100); {
				case op < 2 && len(topics) < 6 || len(topics) == 0:
					settings := "embedlog.durability=" + levels[rng.IntN(3)]
					switch rng.IntN(4) {
					case 0:
						settings += ";retention.ms=-1" // nothing of it may go
					case 1:
						settings += ";cleanup.policy=compact,delete"
					case 2:
						settings += ";cleanup.policy=compact;min.cleanable.dirty.ratio=0.01"
					}
					made++
					topic, err := e.CreateTopic(ctx, TopicSpec{Name: fmt.Sprint("t", made), Partitions: 1 + rng.IntN(3), Settings: fields(settings)})
					if err == nil {
						topics = append(topics, topic)
					} else if !errors.Is(err, log.ErrNoSpace) {
						t.Fatal(err)
					} else if len(topics) == 0 {
						e.Tick(ctx) // removes the files of deleted topics
						if used := e.MaintenanceStats().UsedBytes; used > MinMaxBytes/2 {
							files, _ := allocated(t, e, mem)
							t.Fatalf("without a topic %d bytes are used, the files take %d", used, files)
						}
					}
				case op < 4:
					i := rng.IntN(len(topics))
					if err := e.DeleteTopic(ctx, topics[i].Name()); err != nil {
						t.Fatal(err)
					}
					topics = append(topics[:i], topics[i+1:]...)
				case op < 8:
					e.Tick(ctx)
				case op < 9:
					if err := e.Close(); err != nil {
						t.Fatal(err)
					}
					e = openEngine(t, mem, capped(limit))
					for i := range topics {
						topics[i], _ = e.Topic(topics[i].Name())
					}
				default:
					topic := topics[rng.IntN(len(topics))]
					p := topic.Partitions()[rng.IntN(len(topic.Partitions()))]
					size := []int{10, 1000, 30_000, 200_000}[rng.IntN(4)]
					_, err := p.Append(ctx, keyValue(fmt.Sprint(rng.IntN(20)), size), nil)
					if err != nil && !errors.Is(err, log.ErrNoSpace) {
						t.Fatal(err)
					}
					if err != nil {
						refused++
						if p, s := e.cap.oldest(nil), topic.Settings(); p != nil && s.Evicts() {
							t.Fatalf("refused while %s could have made room: %v", p, err)
						}
					}
				}
				wantBelow(t, e, mem, limit, "after an operation")
			}
			s := e.MaintenanceStats()
			t.Logf("%d topics, %d appends refused, %d segments evicted, %d compactions", made, refused, s.EvictedSegments, s.Compactions)
		})
	}
}

// The oldest data goes first, closed segments before those that are written to, and
// only of topics that allow it.
func TestCapEvictsTheOldest(t *testing.T) {
	mem := vfs.NewMem()
	e := openEngine(t, mem, capped(MinMaxBytes))
	kept := mustTopicWith(t, e, "kept", 1, "retention.ms=-1").Partitions()[0]
	compacted := mustTopicWith(t, e, "compacted", 1, "cleanup.policy=compact").Partitions()[0]
	idle := mustTopicWith(t, e, "idle", 1, "").Partitions()[0]
	busy := mustTopicWith(t, e, "busy", 1, "").Partitions()[0]
	put := func(p *Partition, timestamp int64, n int) {
		t.Helper()
		for range n {
			r := keyValue("k", 30_000)
			r[0].Timestamp = timestamp
			if _, err := p.Append(ctx, r, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	put(kept, 1, 10)
	put(compacted, 1, 10)
	put(idle, 5, 20) // four closed segments and an active one
	put(busy, 9, 500)
	if kept.LogStart() != 0 || compacted.LogStart() != 0 {
		t.Errorf("kept starts at %d, compacted at %d: nothing of them may go", kept.LogStart(), compacted.LogStart())
	}
	if idle.LogStart() == 0 || busy.LogStart() == 0 {
		t.Errorf("idle starts at %d, busy at %d: both must have made room", idle.LogStart(), busy.LogStart())
	}
	if end := idle.LogEnd(); idle.LogStart() == end {
		t.Errorf("the active segment of idle went while busy had closed ones")
	}
	s := e.MaintenanceStats()
	if s.EvictedSegments < 10 || s.EvictedBytes < 10*64<<10 || s.RefusedAppends != 0 || s.MaxBytes != MinMaxBytes || s.UsedBytes > s.MaxBytes {
		t.Errorf("stats %+v", s)
	}
	wantBelow(t, e, mem, MinMaxBytes, "in the end")
}

// Many idle partitions whose data all lies in active segments make room, too.
func TestCapEvictsActiveSegments(t *testing.T) {
	mem := vfs.NewMem()
	e := openEngine(t, mem, capped(MinMaxBytes))
	topic := mustTopicWith(t, e, "wide", 40, "segment.bytes=1048576")
	for i := range 400 {
		p := topic.Partitions()[i%40]
		if _, err := p.Append(ctx, keyValue("k", 40_000), nil); err != nil {
			t.Fatalf("append %d: %v", i, err)
		}
	}
	// Not by the logs' count: a log counts a spare segment as soon as it begins to lay it.
	if files, _ := allocated(t, e, mem); files > MinMaxBytes || e.MaintenanceStats().UsedBytes > MinMaxBytes {
		t.Errorf("the files take %d bytes of %d", files, MinMaxBytes)
	}
}

// Nothing may go: appends end with an error that names the cap, internal topics and
// deletion go on, and all heals by itself.
func TestCapReached(t *testing.T) {
	mem := vfs.NewMem()
	e := openEngine(t, mem, capped(MinMaxBytes))
	kept := mustTopicWith(t, e, "kept", 2, "retention.ms=-1")
	internal, err := e.InternalTopic(ctx, "__state", nil)
	if err != nil {
		t.Fatal(err)
	}
	p := kept.Partitions()[0]
	for id := range int64(100) {
		txn := &partition.AppendOptions{Producer: &partition.Producer{ID: id, Transactional: true}}
		if _, err := p.Append(ctx, keyValue("txn", 10), txn); err != nil {
			t.Fatal(err)
		}
	}
	n, full := fillUp(t, p, 10_000, nil)
	var quota *vfs.QuotaError
	if !errors.As(full, &quota) || !strings.Contains(full.Error(), "append kept/0") || !strings.Contains(full.Error(), fmt.Sprintf("MaxBytes %d", MinMaxBytes)) {
		t.Errorf("error %v names neither partition nor cap", full)
	}
	if int64(n)*10_000 < MinMaxBytes*2/3 {
		t.Errorf("%d records of 10 kB fit under a cap of %d", n, MinMaxBytes)
	}
	if s := e.MaintenanceStats(); s.RefusedAppends != 1 || s.EvictedSegments != 0 {
		t.Errorf("stats %+v", s)
	}
	wantBelow(t, e, mem, MinMaxBytes, "full")
	if _, err := e.CreateTopic(ctx, TopicSpec{Name: "more", Partitions: 200}); !errors.Is(err, log.ErrNoSpace) {
		t.Errorf("create a topic of 200 partitions: %v", err)
	}
	for i := range 100 {
		if _, err := internal.Partitions()[0].Append(ctx, keyValue("k", 100), &partition.AppendOptions{Internal: true}); err != nil {
			t.Fatalf("internal append %d: %v", i, err)
		}
	}
	for id := range int64(100) {
		if _, err := p.EndTransaction(ctx, id, 0, id%2 == 0, 1, false); err != nil {
			t.Fatalf("end transaction %d: %v", id, err)
		}
	}
	wantBelow(t, e, mem, MinMaxBytes, "with all transactions ended")
	if err := e.AlterTopic(ctx, "kept", map[string]string{"max.message.bytes": "2000000"}, nil); err != nil {
		t.Errorf("alter: %v", err)
	}
	if got := e.MaintenanceStats(); got.UsedBytes > MinMaxBytes {
		t.Errorf("used %d", got.UsedBytes)
	}

	// More room, and less again.
	if err := e.SetMaxBytes(2 * MinMaxBytes); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Append(ctx, keyValue("k", 10_000), nil); err != nil {
		t.Fatalf("append under a higher cap: %v", err)
	}
	fillUp(t, p, 10_000, nil)
	wantBelow(t, e, mem, 2*MinMaxBytes, "full again")
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e = openEngine(t, mem, capped(MinMaxBytes)) // far above the cap
	again, err := e.Topic("kept")
	if err != nil {
		t.Fatal(err)
	}
	p = again.Partitions()[0]
	if _, err := p.Append(ctx, keyValue("k", 10_000), nil); !errors.Is(err, log.ErrNoSpace) {
		t.Fatalf("append above the cap: %v", err)
	}
	if _, err := p.DeleteRecords(ctx, p.HighWatermark()); err != nil {
		t.Fatalf("delete records above the cap: %v", err)
	}
	if _, err := p.Append(ctx, keyValue("k", 10_000), nil); err != nil {
		t.Fatalf("append after deletion: %v", err)
	}
	wantBelow(t, e, mem, MinMaxBytes, "after deletion")
	fillUp(t, p, 10_000, nil)
	if err := e.DeleteTopic(ctx, "kept"); err != nil {
		t.Fatal(err)
	}
	e.Tick(ctx)
	if used := e.MaintenanceStats().UsedBytes; used > 1<<20 {
		t.Errorf("with the topic gone %d bytes are used", used)
	}
}

// However long nothing else has room, an internal topic whose keys come again goes
// on: it is compacted in what is kept back for it.
func TestCapInternalTopicsGoOn(t *testing.T) {
	mem := vfs.NewMem()
	e := openEngine(t, mem, capped(MinMaxBytes))
	internal, err := e.InternalTopic(ctx, "__state", map[string]string{"cleanup.policy": "compact"})
	if err != nil {
		t.Fatal(err)
	}
	state := internal.Partitions()[0]
	fillUp(t, mustTopicWith(t, e, "kept", 1, "retention.ms=-1").Partitions()[0], 10_000, nil)
	for i := range testcount.N(20_000) {
		if _, err := state.Append(ctx, keyValue(fmt.Sprint(i%100), 100), &partition.AppendOptions{Internal: true}); err != nil {
			t.Fatalf("internal append %d: %v", i, err)
		}
		if i%100 == 0 {
			wantBelow(t, e, mem, MinMaxBytes, fmt.Sprint("append ", i))
		}
	}
	if s := e.MaintenanceStats(); s.Compactions == 0 || s.Failures != 0 {
		t.Errorf("stats %+v", s)
	}
}

// A topic that lets go of its data when it is altered makes room at once.
func TestCapFollowsSettings(t *testing.T) {
	e := openEngine(t, vfs.NewMem(), capped(MinMaxBytes))
	p := mustTopicWith(t, e, "kept", 1, "retention.ms=-1").Partitions()[0]
	fillUp(t, p, 10_000, nil)
	if err := e.AlterTopic(ctx, "kept", map[string]string{"embedlog.evict": "true"}, nil); err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		if _, err := p.Append(ctx, keyValue("k", 10_000), nil); err != nil {
			t.Fatal(err)
		}
	}
}

// Many at once: nobody is refused, nobody waits for ever, and the bound holds.
func TestCapConcurrently(t *testing.T) {
	mem := vfs.NewMem()
	e := openEngine(t, mem, func(o *Options) { o.MaxBytes = 2 * MinMaxBytes })
	topic := mustTopicWith(t, e, "busy", 4, "embedlog.durability=os")
	mustTopicWith(t, e, "compacted", 2, "cleanup.policy=compact")
	watching := make(chan struct{})
	var watcher, writers sync.WaitGroup
	watcher.Go(func() {
		for {
			select {
			case <-watching:
				return
			default:
				if used := e.MaintenanceStats().UsedBytes; used > 2*MinMaxBytes {
					t.Errorf("%d bytes are taken of %d", used, 2*MinMaxBytes)
					return
				}
				e.Tick(ctx)
			}
		}
	})
	for i := range 8 {
		writers.Go(func() {
			for j := range testcount.N(300) {
				p := topic.Partitions()[(i+j)%4]
				if _, err := p.Append(ctx, keyValue("k", 20_000), nil); err != nil {
					t.Error(err)
					return
				}
				if j%10 == 0 {
					if _, err := p.Fetch(ctx, partition.FetchRequest{Offset: p.LogStart()}); err != nil && !errors.Is(err, partition.ErrOffsetOutOfRange) {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	writers.Wait()
	close(watching)
	watcher.Wait()
	wantBelow(t, e, mem, 2*MinMaxBytes, "in the end")
}

// On a real disk the files take what the cap counts, and no more.
func TestCapOnDisk(t *testing.T) {
	dir := t.TempDir()
	const limit = 16 << 20
	e, err := Open(dir, &Options{MaxBytes: limit, MaintenanceInterval: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	osfs, err := vfs.OS(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer osfs.Close()
	kept := mustTopicWith(t, e, "kept", 2, "retention.ms=-1;embedlog.durability=os")
	busy := mustTopicWith(t, e, "busy", 3, "embedlog.durability=os")
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range 1500 {
		p := busy.Partitions()[rng.IntN(3)]
		if i%10 == 0 {
			p = kept.Partitions()[rng.IntN(2)]
		}
		if _, err := p.Append(ctx, keyValue("k", rng.IntN(60_000)), nil); err != nil {
			t.Fatal(err)
		}
		if i%50 == 0 {
			wantBelow(t, e, osfs, limit, fmt.Sprint("append ", i))
		}
	}
	if e.MaintenanceStats().EvictedSegments == 0 {
		t.Error("nothing was evicted")
	}
	// By another way of asking, as du does.
	var size int64
	if err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		size += info.Size()
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if used := e.MaintenanceStats().UsedBytes; size > used || used > limit || size < used/2 {
		t.Errorf("the files are %d bytes long, the cap counts %d of %d", size, used, limit)
	}
}

// A disk that is really full is not made up for by deleting: appends fail, deletion
// and what is internal go on, and with room all is as before.
func TestCapOnAFullDisk(t *testing.T) {
	mem := vfs.NewMem()
	e := openEngine(t, mem, capped(64<<20))
	topic := mustTopicWith(t, e, "busy", 1, "segment.bytes=65536")
	p := topic.Partitions()[0]
	internal, err := e.InternalTopic(ctx, "__state", nil)
	if err != nil {
		t.Fatal(err)
	}
	commit := func() error {
		_, err := internal.Partitions()[0].Append(ctx, keyValue("k", 100), &partition.AppendOptions{Internal: true})
		return err
	}
	if err := commit(); err != nil {
		t.Fatal(err)
	}
	mem.SetCapacity(4 << 20)
	n, full := fillUp(t, p, 10_000, nil)
	var quota *vfs.QuotaError
	if errors.As(full, &quota) || p.LogStart() != 0 || n == 0 || strings.Contains(full.Error(), "MaxBytes") {
		t.Errorf("%d records, log start %d, error %v: the disk is full, not the cap", n, p.LogStart(), full)
	}
	e.Tick(ctx)
	if _, err := p.Append(ctx, keyValue("k", 10_000), nil); !errors.Is(err, log.ErrNoSpace) {
		t.Errorf("append on a full disk: %v", err)
	}
	for i := range 50 {
		if err := commit(); err != nil {
			t.Fatalf("internal append %d on a full disk: %v", i, err)
		}
	}
	if _, err := p.DeleteRecords(ctx, int64(n/2)); err != nil {
		t.Errorf("delete records on a full disk: %v", err)
	}
	if _, err := p.Append(ctx, keyValue("k", 10_000), nil); err != nil {
		t.Errorf("append after deletion: %v", err)
	}
	fillUp(t, p, 10_000, nil)
	if err := e.DeleteTopic(ctx, "busy"); err != nil {
		t.Errorf("delete a topic on a full disk: %v", err)
	}
	e.Tick(ctx)
	p = mustTopic(t, e, "again", 1).Partitions()[0]
	fillUp(t, p, 10_000, nil)
	mem.SetCapacity(8 << 20)
	if _, err := p.Append(ctx, keyValue("k", 10_000), nil); err != nil {
		t.Errorf("append with room: %v", err)
	}
}

// embedlog.max.bytes bounds one partition, which lets go of its oldest data if it may.
func TestPartitionCap(t *testing.T) {
	e := openEngine(t, vfs.NewMem())
	const limit = 2 << 20
	evicts := mustTopicWith(t, e, "evicts", 1, "embedlog.max.bytes=2097152").Partitions()[0]
	for range 500 {
		if _, err := evicts.Append(ctx, keyValue("k", 20_000), nil); err != nil {
			t.Fatal(err)
		}
		if got := evicts.Log().AllocatedBytes(); got > limit {
			t.Fatalf("%d bytes are taken of %d", got, limit)
		}
	}
	keeps := mustTopicWith(t, e, "keeps", 1, "embedlog.max.bytes=2097152;retention.ms=-1").Partitions()[0]
	n, err := fillUp(t, keeps, 20_000, nil)
	var full *log.CapError
	if !errors.As(err, &full) || full.Limit != limit || n < limit/2/20_000 || keeps.LogStart() != 0 {
		t.Errorf("%d records, then %v", n, err)
	}
	if _, err := evicts.Append(ctx, keyValue("k", 1_000_000), nil); err != nil {
		t.Errorf("half of the cap at once: %v", err)
	}
}

func TestMaxBytesTooSmall(t *testing.T) {
	for _, limit := range []int64{-1, 1, MinMaxBytes - 1} {
		if _, err := Open("db", &Options{FS: vfs.NewMem(), MaxBytes: limit}); err == nil || !strings.Contains(err.Error(), "MaxBytes") {
			t.Errorf("MaxBytes %d: %v", limit, err)
		}
	}
	e := openEngine(t, vfs.NewMem())
	if err := e.SetMaxBytes(1 << 30); err == nil {
		t.Error("a cap was set that the database was not opened with")
	}
}
