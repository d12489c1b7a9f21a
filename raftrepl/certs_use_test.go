package raftrepl

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Files of certificates are read again when they have changed and hold together; until then a node goes on with
// what it had.
func TestCertificatesAreReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		ca, err := NewCA("shop")
		if err != nil {
			t.Fatal(err)
		}
		files := TLS{CAFile: filepath.Join(dir, "ca"), CertFile: filepath.Join(dir, "cert"), KeyFile: filepath.Join(dir, "key")}
		written := time.Unix(1_000_000_000, 0) // each time another one, however coarse the disk's clock is
		write := func(name string, text []byte) {
			t.Helper()
			written = written.Add(time.Second)
			if err := os.WriteFile(name, text, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(name, written, written); err != nil {
				t.Fatal(err)
			}
		}
		issue := func(node int32) (cert, key []byte) {
			t.Helper()
			cert, key, err := ca.Issue(node)
			if err != nil {
				t.Fatal(err)
			}
			return cert, key
		}
		cert, key := issue(1)
		write(files.CAFile, ca.CertPEM())
		write(files.CertFile, cert)
		write(files.KeyFile, key)
		c := Config{Node: 1, Cluster: "shop", Listen: "127.0.0.1:0", Advertise: "127.0.0.1:1", TLS: files}
		p, err := c.validate()
		if err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		p.logger = slog.New(slog.NewTextHandler(&log, nil))
		used := func() string { return p.current().Certificates[0].Leaf.SerialNumber.String() }
		first, firstEnds := used(), p.ends

		time.Sleep(24 * time.Hour)
		newer, newerKey := issue(1)
		write(files.CertFile, newer)
		if used() != first || !strings.Contains(log.String(), "are not used") {
			t.Fatalf("with a key of another certificate: %s, before %s; log %s", used(), first, &log)
		}
		log.Reset()
		if used(); log.Len() > 0 {
			t.Errorf("the same is logged again: %s", &log)
		}
		write(files.KeyFile, newerKey)
		second := used()
		if second == first || !p.ends.After(firstEnds) {
			t.Fatalf("the newer certificate is not used: ends %v, before %v", p.ends, firstEnds)
		}
		others, othersKey := issue(2)
		write(files.CertFile, others)
		write(files.KeyFile, othersKey)
		if used() != second || !strings.Contains(log.String(), "it is of node 2, this is node 1") {
			t.Errorf("another node's certificate: %s, log %s", used(), &log)
		}
		if err := os.Remove(files.CertFile); err != nil {
			t.Fatal(err)
		}
		if used() != second {
			t.Error("a file that is away is not waited for")
		}

		// At a start one that has ended is refused, and the words say when it did.
		write(files.CertFile, newer)
		write(files.KeyFile, newerKey)
		time.Sleep(nodeLifetime + time.Hour)
		c = Config{Node: 1, Cluster: "shop", Listen: "127.0.0.1:0", Advertise: "127.0.0.1:1", TLS: files}
		if _, err := c.validate(); err == nil || !strings.Contains(err.Error(), "certificate: it ended on "+day(p.ends)) {
			t.Errorf("a certificate that has ended: %v", err)
		}
	})
}

func TestCertificateEndsSoon(t *testing.T) {
	now := time.Date(2030, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, row := range []struct {
		ends time.Time
		want string
	}{
		{time.Time{}, ""},
		{now.Add(certificateNear + time.Second), ""},
		{now.Add(7*24*time.Hour + time.Hour), "ends on 2030-03-08, in 7 days"},
		{now.Add(-time.Hour), "ended on 2030-03-01: no new connection is made with it"},
	} {
		if got := endsSoon(row.ends, now); got != row.want {
			t.Errorf("%v: %q, want %q", row.ends, got, row.want)
		}
	}
}
