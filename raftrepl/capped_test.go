package raftrepl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/simnet"
	"github.com/x/embedlog/internal/vfs"
)

// openCapped is three databases that are one cluster, and a topic that nothing is deleted of by itself.
func openCapped(t *testing.T, maxBytes map[int32]int64) (*dbCluster, *embedlog.Topic) {
	c := &dbCluster{t: t, net: simnet.New(), peers: map[int32]string{}, maxBytes: maxBytes, preferred: -1}
	for id := range int32(3) {
		c.peers[id+1] = simAddress(id + 1)
	}
	for id := range int32(3) {
		n := &dbNode{id: id + 1, disk: vfs.NewMem()}
		c.nodes = append(c.nodes, n)
		c.start(n)
	}
	var topic *embedlog.Topic
	c.until("the topic is made", func() (err error) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		topic, err = c.nodes[0].db.EnsureTopic(ctx, "kept", &embedlog.TopicConfig{ReplicationFactor: 3, Retention: -1})
		return err
	})
	return c, topic
}

// produce appends records of 20 KB until one fails, or there are so many, and returns how many were acknowledged.
func produceCapped(t *testing.T, topic *embedlog.Topic, most int) (n int, err error) {
	t.Helper()
	for n < most {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		_, err := topic.Produce(ctx, embedlog.Record{Value: make([]byte, 20_000)})
		cancel()
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// countAt is how many records a node reads.
func countAt(t *testing.T, n *dbNode) (count int, err error) {
	topic, err := n.db.Topic("kept")
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for _, err := range topic.Scan(ctx, &embedlog.ScanOptions{Linearizable: true}) {
		if err != nil {
			return count, err
		}
		count++
	}
	return count, nil
}

// The cap of each node's directory holds in a cluster: when those that could lead are at it, records are refused as
// by a full disk, and what was acknowledged is there; when some are deleted, records are taken again.
func TestCappedCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 8 << 20
		c, topic := openCapped(t, map[int32]int64{1: limit, 2: limit, 3: limit})
		defer c.close()
		n, err := produceCapped(t, topic, 1000)
		if !errors.Is(err, embedlog.ErrNoSpace) && !errors.Is(err, embedlog.ErrUnknownOutcome) || n < 100 || n > limit/20_000 {
			t.Fatalf("%d records, then %v", n, err)
		}
		c.until("it is refused for want of room", func() error {
			if _, err := produceCapped(t, topic, 1); !errors.Is(err, embedlog.ErrNoSpace) || !embedlog.IsRetriable(err) {
				return fmt.Errorf("got %v", err)
			}
			return nil
		})
		for _, node := range c.nodes {
			if used := node.db.Engine().MaintenanceStats().UsedBytes; used > limit {
				t.Errorf("node %d takes %d bytes of %d", node.id, used, limit)
			}
		}
		// The third may have no room for the last ones.
		c.until("all is read at two of three", func() (err error) {
			whole := 0
			for _, node := range c.nodes {
				got, failed := countAt(t, node)
				if failed == nil && got < n {
					failed = fmt.Errorf("node %d has %d records of %d", node.id, got, n)
				}
				if failed == nil {
					whole++
				}
				err = errors.Join(err, failed)
			}
			if whole > 1 {
				return nil
			}
			return err
		})
		c.until("records are deleted", func() error {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			_, err := topic.DeleteRecords(ctx, 0, int64(n-10))
			return err
		})
		more := 0
		c.until("records are taken again", func() error {
			got, err := produceCapped(t, topic, 50-more)
			more += got
			return err
		})
	})
}

// Followers that are at their cap do not acknowledge: without a majority nothing is; with it the one that is at its
// cap is behind, and catches up when it has room.
func TestCappedFollowers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 4 << 20
		c, topic := openCapped(t, map[int32]int64{2: limit, 3: limit})
		defer c.close()
		lead := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			for _, s := range c.nodes[0].db.Cluster().Status() {
				if s.Topic == "kept" && s.Leader == 1 {
					return nil
				}
			}
			return errors.Join(errors.New("another node leads"), c.nodes[0].db.Cluster().TransferLeadership(ctx, "kept", 0, 1))
		}
		c.until("node 1 leads", lead)
		const wanted = 2 * limit / 20_000
		n, err := produceCapped(t, topic, wanted)
		if err == nil || n < 50 {
			t.Fatalf("%d records were acknowledged that a majority has no room for: %v", n, err)
		}
		if err := c.nodes[1].db.Engine().SetMaxBytes(64 << 20); err == nil {
			t.Log("node 2 has room")
		} else {
			t.Fatal(err)
		}
		c.until("a majority has room", func() error {
			got, err := produceCapped(t, topic, wanted-n)
			n += got
			return err
		})
		if used := c.nodes[2].db.Engine().MaintenanceStats().UsedBytes; used > limit {
			t.Errorf("node 3 takes %d bytes of %d", used, limit)
		}
		c.until("node 3 is said to be behind", func() error {
			for _, s := range c.nodes[0].db.Cluster().AskStatus(t.Context()) {
				if s.Topic == "kept" && len(s.InSync) == 2 && s.Reason != "" {
					return nil
				}
			}
			return errors.New("nobody is behind")
		})
		if err := c.nodes[2].db.Engine().SetMaxBytes(64 << 20); err != nil {
			t.Fatal(err)
		}
		c.until("all are in sync", func() error {
			for _, s := range c.nodes[0].db.Cluster().AskStatus(t.Context()) {
				if s.Topic == "kept" && len(s.InSync) == 3 {
					return nil
				}
			}
			return errors.New("not yet")
		})
		c.until("node 3 has all", func() error {
			got, err := countAt(t, c.nodes[2])
			if err == nil && got < n {
				err = fmt.Errorf("%d records of %d", got, n)
			}
			return err
		})
	})
}

// A follower at its cap that is behind hears of what is deleted on the leader, though that comes behind what it has no room
// for: it deletes that, too, and catches up, by entries or, where the leader's are gone, by an install.
func TestCappedFollowerMakesRoom(t *testing.T) {
	for name, segment := range map[string]int64{"by entries": 0, "by an install": 256 << 10} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const limit = 4 << 20
				c, topic := openCapped(t, map[int32]int64{3: limit})
				defer c.close()
				soon := func() context.Context {
					ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
					t.Cleanup(cancel)
					return ctx
				}
				if segment > 0 {
					c.until("segments are small", func() error {
						return topic.Alter(soon(), map[string]string{"segment.bytes": fmt.Sprint(segment)})
					})
				}
				c.until("node 1 leads", func() error {
					for _, s := range c.nodes[0].db.Cluster().Status() {
						if s.Topic == "kept" && s.Leader == 1 {
							return nil
						}
					}
					return errors.Join(errors.New("another node leads"), c.nodes[0].db.Cluster().TransferLeadership(soon(), "kept", 0, 1))
				})
				const wanted, left = 300, 10 // 6 MB
				n := 0
				c.until("a majority has them", func() error {
					got, err := produceCapped(t, topic, wanted-n)
					n += got
					return err
				})
				behind := c.nodes[2].db.Engine()
				full, err := behind.Topic("kept")
				if err != nil {
					t.Fatal(err)
				}
				p := full.Partitions()[0]
				time.Sleep(time.Minute)
				if end := p.LogEnd(); end >= wanted || p.LogStart() > 0 {
					t.Fatalf("node 3 has %d to %d in %d bytes", p.LogStart(), end, limit)
				}
				end, err := topic.ListOffsets(soon(), embedlog.Latest)
				if err != nil {
					t.Fatal(err)
				}
				c.until("records are deleted", func() error {
					_, err := topic.DeleteRecords(soon(), 0, end[0].Offset-left)
					return err
				})
				time.Sleep(2 * time.Minute) // pauses of the replica and of its leader follow each other
				c.until("all are in sync", func() error {
					for _, s := range c.nodes[0].db.Cluster().AskStatus(soon()) {
						if s.Topic == "kept" && len(s.InSync) == 3 {
							return nil
						}
					}
					return fmt.Errorf("node 3 has %d to %d of %d", p.Current().LogStart(), p.Current().LogEnd(), end[0].Offset)
				})
				c.until("node 3 has what is left", func() error {
					got, err := countAt(t, c.nodes[2])
					if err == nil && got != left {
						err = fmt.Errorf("%d records of %d", got, left)
					}
					return err
				})
				if used := behind.MaintenanceStats().UsedBytes; used > limit {
					t.Errorf("node 3 takes %d bytes of %d", used, limit)
				}
			})
		})
	}
}

// What a node keeps of votes and starts counts as what its records take: what is said to be used is what is on the disk, of
// a file, too, that grows beside all others.
func TestVotesCountForTheCap(t *testing.T) {
	dir := t.TempDir()
	node, err := New(Config{Node: 1, Cluster: "one", Listen: "127.0.0.1:0", Advertise: "127.0.0.1:9", AllowInsecure: true, Peers: map[int32]string{1: "127.0.0.1:9"}})
	if err != nil {
		t.Fatal(err)
	}
	db, err := embedlog.Open(dir, &embedlog.Options{Replication: node, MaxBytes: 64 << 20, MaintenanceInterval: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	small, err := os.Stat(filepath.Join(dir, "raft.db"))
	if err != nil {
		t.Fatal(err)
	}
	groups := 0
	for grown := small; grown.Size() == small.Size(); groups++ {
		if groups == 1000 {
			t.Fatalf("raft.db has %d bytes after %d groups", small.Size(), groups)
		}
		if _, err := db.CreateTopic(ctx, fmt.Sprint("t", groups), &embedlog.TopicConfig{Partitions: 20}); err != nil {
			t.Fatal(err)
		}
		if grown, err = os.Stat(filepath.Join(dir, "raft.db")); err != nil {
			t.Fatal(err)
		}
	}
	taken := func() int64 {
		inner, err := vfs.OS(dir)
		if err != nil {
			t.Fatal(err)
		}
		q, err := vfs.NewQuota(inner, 0, 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		return q.Used()
	}
	// Elections write, too, for a while.
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		used := db.Engine().MaintenanceStats().UsedBytes
		if want := taken(); used == want {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("%d bytes are said to be used, %d are", used, want)
		}
	}
}
