package kafka

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	embedlog "github.com/x/embedlog"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// sink is a connection that takes everything and counts it.
type sink struct {
	net.Conn
	n int64
}

func (s *sink) Write(b []byte) (int, error)      { s.n += int64(len(b)); return len(b), nil }
func (s *sink) SetWriteDeadline(time.Time) error { return nil }
func (s *sink) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// handler is a connection without a socket: requests go in as frames, answers are
// counted. What it measures is all that lies between the two system calls.
func handler(b *testing.B, db *embedlog.DB) (*conn, *sink) {
	out := &sink{}
	c := newConn(pipeServer(b, db, Options{}), &listener{advertise: endpoint{"127.0.0.1", 9092}}, out)
	c.auth = known(Anonymous)
	c.open.Store(true)
	return c, out
}

// frameOf is a request as the handler gets it.
func frameOf(q kmsg.Request) []byte {
	return kmsg.NewRequestFormatter(kmsg.FormatterClientID("bench")).AppendRequest(nil, q, 1)[4:]
}

func benchTopic(b *testing.B, partitions int) (*embedlog.DB, *embedlog.Topic) {
	db := openMemory(b, &embedlog.Options{Durability: embedlog.OS, MaintenanceInterval: -1})
	return db, createTopic(b, db, "orders", &embedlog.TopicConfig{Partitions: partitions, MaxRecordBytes: 2 << 20, SegmentBytes: 8 << 20, RetentionBytes: 16 << 20})
}

func BenchmarkProduce(b *testing.B) {
	for _, size := range []int{100, 10_000, 1_000_000} {
		for _, partitions := range []int{1, 8} {
			b.Run(fmt.Sprintf("bytes=%d/partitions=%d", size, partitions), func(b *testing.B) {
				db, topic := benchTopic(b, partitions)
				c, _ := handler(b, db)
				q := kmsg.NewPtrProduceRequest()
				q.Version, q.Acks, q.TimeoutMillis = 13, -1, 10_000
				for i := range partitions {
					addProduce(q, topic, int32(i), batch(b, plain(), strings.Repeat("x", size)))
				}
				request := frameOf(q)
				b.SetBytes(int64(size * partitions))
				b.ReportAllocs()
				n := 0
				for b.Loop() {
					if _, err := c.serve(asFrame(request)); err != nil {
						b.Fatal(err)
					}
					if n += len(request); n > 64<<20 { // what is in memory stays bounded
						b.StopTimer()
						top, _ := topic.EngineTopic()
						for _, p := range top.Partitions() {
							if _, err := p.DeleteRecords(b.Context(), -1); err != nil {
								b.Fatal(err)
							}
						}
						db.Engine().Tick(b.Context())
						n = 0
						b.StartTimer()
					}
				}
			})
		}
	}
}

func BenchmarkFetch(b *testing.B) {
	for _, row := range []struct{ size, batches int }{{100, 1}, {100, 100}, {10_000, 100}, {1_000_000, 1}, {0, 0}} {
		b.Run(fmt.Sprintf("bytes=%d/batches=%d", row.size, row.batches), func(b *testing.B) {
			db, topic := benchTopic(b, 1)
			for range row.batches {
				mustAppend(b, topic, 0, batch(b, plain(), strings.Repeat("x", row.size)))
			}
			c, out := handler(b, db)
			q := fetchRequest(13, topic, 0, 0)
			q.MaxBytes, q.Topics[0].Partitions[0].PartitionMaxBytes = 2<<20, 2<<20
			request := frameOf(q)
			b.SetBytes(int64(row.size * row.batches))
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				n++
				if _, err := c.serve(asFrame(request)); err != nil {
					b.Fatal(err)
				}
			}
			if out.n < int64(n*row.size*row.batches) {
				b.Fatalf("%d bytes came out", out.n)
			}
		})
	}
}

// asFrame is a frame that nothing is reserved for.
func asFrame(b []byte) (f frame) {
	f.bytes = b
	return f
}
