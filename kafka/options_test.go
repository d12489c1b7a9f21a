package kafka

import (
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	embedlog "github.com/x/embedlog"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Where a listener listens, and what is refused before anything does.
func TestListenerAddresses(t *testing.T) {
	certificates := []tls.Certificate{{}} // not looked at before somebody connects
	mutual := &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, Certificates: certificates}
	oneSided := &tls.Config{Certificates: certificates}
	for _, row := range []struct {
		listener Listener
		insecure bool
		bind     string // empty: refused
	}{
		{Listener{}, false, "127.0.0.1:9092"},
		{Listener{Address: "localhost"}, false, "localhost:9092"},
		{Listener{Address: "localhost:"}, false, "localhost:9092"},
		{Listener{Address: ":19092"}, false, "127.0.0.1:19092"},
		{Listener{Address: "127.0.0.1:0"}, false, "127.0.0.1:0"},
		{Listener{Address: "127.9.9.9:1"}, false, "127.9.9.9:1"},
		{Listener{Address: "::1"}, false, "[::1]:9092"},
		{Listener{Address: "[::1]:77"}, false, "[::1]:77"},
		{Listener{Address: "0.0.0.0:9092"}, false, ""},
		{Listener{Address: "[::]:9092"}, false, ""},
		{Listener{Address: "192.0.2.1"}, false, ""},
		{Listener{Address: "kafka.example:9092"}, false, ""},
		{Listener{Address: "localhost.example:9092"}, false, ""},
		{Listener{Address: "192.0.2.1:9092", TLS: oneSided}, false, ""},
		{Listener{Address: "192.0.2.1:9092", TLS: mutual}, false, "192.0.2.1:9092"},
		{Listener{Address: "192.0.2.1:9092"}, true, "192.0.2.1:9092"},
		{Listener{Address: "localhost:http"}, false, ""},
		{Listener{Address: "localhost:65536"}, false, ""},
		{Listener{Address: "localhost:1:2"}, false, ""},
		{Listener{Address: "localhost:1", Advertise: "a:b:c"}, false, ""},
	} {
		err := row.listener.check(0, row.insecure)
		if row.bind == "" {
			var bad *embedlog.InvalidSettingError
			if !errors.As(err, &bad) || !strings.HasPrefix(bad.Name, "Listeners[0].") {
				t.Errorf("%q: error %v, want it refused", row.listener.Address, err)
			}
			continue
		}
		if bind, _, bindErr := row.listener.bindAddress(); err != nil || bindErr != nil || bind != row.bind {
			t.Errorf("%q: binds %q, errors %v, %v; want %q", row.listener.Address, bind, err, bindErr, row.bind)
		}
	}
}

// Every bad option is reported, and nothing listens.
func TestServeRefuses(t *testing.T) {
	db := openMemory(t, nil)
	_, err := Serve(db, &Options{
		Listeners: []Listener{{Address: "127.0.0.1:0"}, {Address: "0.0.0.0:0"}},
		Limits:    Limits{FrameBytes: -1, IdleTimeout: -1, MemoryBytes: 5, FetchBytes: 1<<30 + 1},
	})
	for _, want := range []string{"Listeners[1].Address", "FrameBytes", "IdleTimeout", "FetchBytes"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v: want %s in it", err, want)
		}
	}
	if _, err := Serve(db, nil); err == nil || !errors.Is(err, embedlog.ErrInvalidSetting) {
		t.Errorf("no listeners: %v", err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if _, err := Serve(db, &Options{Listeners: []Listener{{Address: "127.0.0.1:0"}, {Address: taken.Addr().String()}}}); err == nil {
		t.Error("listens where somebody else does")
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Serve(db, &Options{Listeners: []Listener{{Address: "127.0.0.1:0"}}}); !errors.Is(err, embedlog.ErrClosed) {
		t.Errorf("a closed database: %v", err)
	}
}

// Clients are told to come back to what is advertised.
func TestAdvertise(t *testing.T) {
	for _, row := range []struct{ advertise, host string }{
		{"", "127.0.0.1"}, {"kafka.example:", "kafka.example"}, {"kafka.example:7777", "kafka.example"},
	} {
		db := openMemory(t, nil)
		s := serve(t, db, Options{Listeners: []Listener{{Address: "127.0.0.1:0", Advertise: row.advertise}}})
		c, err := net.Dial("tcp", s.Addrs()[0].String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		x := &raw{t: t, c: c}
		want := int32(s.Addrs()[0].(*net.TCPAddr).Port)
		if strings.HasSuffix(row.advertise, "7777") {
			want = 7777
		}
		m := do[*kmsg.MetadataResponse](x, kmsg.NewPtrMetadataRequest())
		if b := m.Brokers[0]; b.Host != row.host || b.Port != want {
			t.Errorf("%q: broker %s:%d, want %s:%d", row.advertise, b.Host, b.Port, row.host, want)
		}
		q := kmsg.NewPtrFindCoordinatorRequest()
		q.Version, q.CoordinatorKey = 2, "g"
		if f := do[*kmsg.FindCoordinatorResponse](x, q); f.Host != row.host || f.Port != want || f.NodeID != 1 {
			t.Errorf("%q: coordinator %+v", row.advertise, f)
		}
	}
}
