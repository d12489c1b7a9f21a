package kafka

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	embedlog "github.com/x/embedlog"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// dialWire connects to a server as a network client does.
func dialWire(t testing.TB, s *Server) *raw {
	t.Helper()
	nc, err := net.Dial("tcp", s.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(30 * time.Second))
	return &raw{t: t, c: nc}
}

// ask returns the answer to a request of that version.
func ask[R kmsg.Response](w *raw, q kmsg.Request, version int16) R {
	w.t.Helper()
	q.SetVersion(version)
	return do[R](w, q)
}

// newest is ask with the highest version that is served.
func newest[R kmsg.Response](w *raw, q kmsg.Request) R {
	w.t.Helper()
	return ask[R](w, q, apiOf(q.Key()).max)
}

// denying allows everything but what it lists, as "8 2 orders": operation, resource, name.
type denying struct {
	mu    sync.Mutex
	deny  map[string]bool
	asked []string
}

func (d *denying) Authorize(_ context.Context, p Principal, host string, op Operation, resource ResourceType, name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	what := fmt.Sprintf("%d %d %s", op, resource, name)
	d.asked = append(d.asked, what)
	return !d.deny[what]
}

// AuthorizeAny allows: nothing here is denied for all names.
func (d *denying) AuthorizeAny(context.Context, Principal, string, Operation, ResourceType) bool {
	return true
}

func denied(list ...any) *denying {
	d := &denying{deny: make(map[string]bool)}
	for i := 0; i < len(list); i += 3 {
		d.deny[fmt.Sprintf("%d %d %s", list[i], list[i+1], list[i+2])] = true
	}
	return d
}

// said is a message that may be nil.
func said(message *string) string {
	if message == nil {
		return ""
	}
	return *message
}

func wantCode(t testing.TB, what string, got int16, message *string, want int16, words string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: code %d (%s), want %d", what, got, said(message), want)
	}
	if !strings.Contains(said(message), words) {
		t.Errorf("%s: message %q, want %q in it", what, said(message), words)
	}
}

// openAdmin is a database with the topics of a list like "orders/3 payments/1", served.
func openAdmin(t testing.TB, topics string, o Options, options *embedlog.Options) (*embedlog.DB, *raw) {
	t.Helper()
	db := openMemory(t, options)
	for _, item := range strings.Fields(topics) {
		name, n, _ := strings.Cut(item, "/")
		var partitions int
		fmt.Sscan(n, &partitions)
		if _, err := db.CreateTopic(t.Context(), name, &embedlog.TopicConfig{Partitions: partitions}); err != nil {
			t.Fatal(err)
		}
	}
	return db, dialWire(t, serve(t, db, o))
}

// A request whose answer would take more memory than a connection may have is not
// answered, and changes nothing.
func TestAnswersAreBounded(t *testing.T) {
	o := Options{Limits: Limits{FrameBytes: 1 << 20, ConnectionMemoryBytes: 1 << 20}}
	many := make([]int32, 4000)
	names := make([]string, 4000)
	for i := range names {
		names[i] = fmt.Sprint("t", i)
	}
	for _, q := range []kmsg.Request{
		func() kmsg.Request {
			q := kmsg.NewPtrElectLeadersRequest()
			q.Topics = append(q.Topics, kmsg.ElectLeadersRequestTopic{Topic: "orders", Partitions: many})
			return q
		}(),
		func() kmsg.Request {
			q := describe(kmsg.ConfigResourceTypeBroker, "1")
			for range 200 {
				q.Resources = append(q.Resources, q.Resources[0])
			}
			return q
		}(),
		func() kmsg.Request {
			q := kmsg.NewPtrCreateTopicsRequest()
			for _, name := range names {
				q.Topics = append(q.Topics, newTopic(name, 1, 1))
			}
			return q
		}(),
		deleteNames(names...),
		func() kmsg.Request {
			q := kmsg.NewPtrDescribeShareGroupOffsetsRequest()
			g := kmsg.NewDescribeShareGroupOffsetsRequestGroup()
			g.GroupID, g.Topics = "q", append(g.Topics, kmsg.DescribeShareGroupOffsetsRequestGroupTopic{Topic: "orders", Partitions: many})
			q.Groups = append(q.Groups, g)
			return q
		}(),
	} {
		db, w := openAdmin(t, "orders/1 t1/1", o, nil)
		q.SetVersion(apiOf(q.Key()).max)
		w.send(q)
		w.gone()
		if names := topicNames(db); len(names) != 2 {
			t.Errorf("%s changed something: topics %v", kmsg.NameForKey(q.Key()), names)
		}
	}
}
