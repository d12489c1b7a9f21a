package scram

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func b64(s string) []byte {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// fixed makes the credential of a password with a salt that is known.
func fixed(m Mechanism, password string, salt []byte, iterations int) *Credential {
	salted, err := Salted(m, password, iterations, salt)
	if err != nil {
		panic(err)
	}
	return FromSalted(m, iterations, salt, salted)
}

// The exchange of RFC 7677 section 3, byte for byte.
func TestExchangeOfTheRFC(t *testing.T) {
	c := fixed(SHA256, "pencil", b64("W22ZaJ0SNY7soEsUEjb6gQ=="), 4096)
	s := NewServer(SHA256, func(user string) (*Credential, bool) { return c, user == "user" })
	s.nonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
	for _, step := range []struct{ in, want string }{
		{"n,,n=user,r=rOprNGfwEbeRWgbNEkqO", "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"},
		{"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=", "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="},
	} {
		if s.Done() {
			t.Fatal("done too early")
		}
		got, err := s.Next([]byte(step.in))
		if err != nil || string(got) != step.want {
			t.Fatalf("%q: %q, %v, want %q", step.in, got, err, step.want)
		}
	}
	if !s.Done() || s.User() != "user" {
		t.Fatal("not done")
	}
	if _, err := s.Next([]byte("x")); !errors.Is(err, ErrFailed) || s.Done() {
		t.Fatal("goes on behind its end", err)
	}
}

// client is what a client of RFC 5802 answers.
func clientFinal(m Mechanism, password, header, bare, first, inFront string) string {
	f := strings.Split(first, ",")
	salt := b64(strings.TrimPrefix(f[1], "s="))
	var iterations int
	fmt.Sscanf(f[2], "i=%d", &iterations)
	salted, err := Salted(m, password, iterations, salt)
	if err != nil {
		panic(err)
	}
	key := m.hmac(salted, "Client Key")
	without := "c=" + base64.StdEncoding.EncodeToString([]byte(header)) + ",r=" + inFront + strings.TrimPrefix(f[0], "r=")
	signature := m.hmac(m.sum(key), bare+","+first+","+without)
	for i := range key {
		key[i] ^= signature[i]
	}
	return without + ",p=" + base64.StdEncoding.EncodeToString(key)
}

func TestServer(t *testing.T) {
	secret := []byte("secret")
	for _, m := range []Mechanism{SHA256, SHA512} {
		users := map[string]*Credential{}
		for _, u := range []string{"alice", "a,b=c", "żółw"} {
			c, err := New(m, "pw of "+u, MinIterations)
			if err != nil {
				t.Fatal(err)
			}
			if why := c.Reason(); why != "" {
				t.Fatal(why)
			}
			users[u] = c
		}
		find := func(user string) (*Credential, bool) {
			if c := users[user]; c != nil {
				return c, true
			}
			return Fake(m, secret, user, MinIterations, SaltBytes), false
		}
		for _, row := range []struct {
			name, header, bare, password string
			inFront                      string              // of the nonce in the last message
			change                       func(string) string // of the last message
			firstFails, finalFails       bool
		}{
			{name: "right", header: "n,,", bare: "n=alice,r=abc", password: "pw of alice"},
			{name: "the client could bind channels", header: "y,,", bare: "n=alice,r=abc", password: "pw of alice"},
			{name: "as itself", header: "n,a=alice,", bare: "n=alice,r=abc", password: "pw of alice"},
			{name: "an extension", header: "n,,", bare: "n=alice,r=abc,x=y", password: "pw of alice"},
			{name: "no token", header: "n,,", bare: "n=alice,r=abc,tokenauth=false", password: "pw of alice"},
			{name: "escaped", header: "n,,", bare: "n=a=2Cb=3Dc,r=abc", password: "pw of a,b=c"},
			{name: "not ASCII", header: "n,,", bare: "n=żółw,r=abc", password: "pw of żółw"},
			{name: "its nonce twice, as librdkafka", header: "n,,", bare: "n=alice,r=abc", password: "pw of alice", inFront: "abc"},
			{name: "its nonce three times", header: "n,,", bare: "n=alice,r=abc", password: "pw of alice", inFront: "abcabc", finalFails: true},
			{name: "something before the nonce", header: "n,,", bare: "n=alice,r=abc", password: "pw of alice", inFront: "x", finalFails: true},
			{name: "wrong password", header: "n,,", bare: "n=alice,r=abc", password: "pw of bob", finalFails: true},
			{name: "empty password", header: "n,,", bare: "n=alice,r=abc", password: "", finalFails: true},
			{name: "unknown user", header: "n,,", bare: "n=bob,r=abc", password: "pw of bob", finalFails: true},
			{name: "another nonce", header: "n,,", bare: "n=alice,r=abc", password: "pw of alice", change: func(s string) string { return strings.Replace(s, ",r=abc", ",r=abd", 1) }, finalFails: true},
			{name: "half the nonce", header: "n,,", bare: "n=alice,r=abc", password: "pw of alice", change: func(s string) string { return s[:strings.Index(s, ",r=abc")+6] + s[strings.Index(s, ",p="):] }, finalFails: true},
			{name: "another header", header: "n,,", bare: "n=alice,r=abc", password: "pw of alice", change: func(s string) string { return strings.Replace(s, "c=biws", "c=eSws", 1) }, finalFails: true},
			{name: "no proof", header: "n,,", bare: "n=alice,r=abc", password: "pw of alice", change: func(s string) string { return s[:strings.Index(s, ",p=")] }, finalFails: true},
			{name: "an empty proof", header: "n,,", bare: "n=alice,r=abc", password: "pw of alice", change: func(s string) string { return s[:strings.Index(s, ",p=")+3] }, finalFails: true},
			{name: "a short proof", header: "n,,", bare: "n=alice,r=abc", password: "pw of alice", change: func(s string) string { return s[:strings.Index(s, ",p=")] + ",p=AAAA" }, finalFails: true},
			{name: "a proof of zeros", header: "n,,", bare: "n=alice,r=abc", password: "pw of alice", change: func(s string) string {
				return s[:strings.Index(s, ",p=")] + ",p=" + base64.StdEncoding.EncodeToString(make([]byte, m.KeyBytes()))
			}, finalFails: true},
			{name: "as somebody else", header: "n,a=bob,", bare: "n=alice,r=abc", firstFails: true},
			{name: "channel binding", header: "p=tls-unique,,", bare: "n=alice,r=abc", firstFails: true},
			{name: "no header", header: "", bare: "n=alice,r=abc", firstFails: true},
			{name: "another header", header: "x,,", bare: "n=alice,r=abc", firstFails: true},
			{name: "no nonce", header: "n,,", bare: "n=alice", firstFails: true},
			{name: "an empty nonce", header: "n,,", bare: "n=alice,r=", firstFails: true},
			{name: "a nonce that is none", header: "n,,", bare: "n=alice,r=a b", firstFails: true},
			{name: "no name", header: "n,,", bare: "n=,r=abc", firstFails: true},
			{name: "an escape that is none", header: "n,,", bare: "n=a=2cb,r=abc", firstFails: true},
			{name: "an escape cut off", header: "n,,", bare: "n=a=2,r=abc", firstFails: true},
			{name: "a NUL", header: "n,,", bare: "n=a\x00b,r=abc", firstFails: true},
			{name: "a mandatory extension", header: "n,,", bare: "m=x,n=alice,r=abc", firstFails: true},
			{name: "a delegation token", header: "n,,", bare: "n=alice,r=abc,tokenauth=true", firstFails: true},
			{name: "too long", header: "n,,", bare: "n=alice,r=" + strings.Repeat("x", 5000), firstFails: true},
			{name: "no text", header: "n,,", bare: "n=al\xffice,r=abc", firstFails: true},
		} {
			s := NewServer(m, find)
			first, err := s.Next([]byte(row.header + row.bare))
			if (err != nil) != row.firstFails {
				t.Errorf("%s, %s: first message: %v", m, row.name, err)
			}
			if err != nil {
				if again, err := s.Next([]byte("n,,n=alice,r=abc")); err == nil {
					t.Errorf("%s, %s: answers %q after an error", m, row.name, again)
				}
				continue
			}
			final := clientFinal(m, row.password, row.header, row.bare, string(first), row.inFront)
			if row.change != nil {
				final = row.change(final)
			}
			answer, err := s.Next([]byte(final))
			if (err != nil) != row.finalFails || s.Done() == row.finalFails || err != nil && !errors.Is(err, ErrFailed) {
				t.Errorf("%s, %s: last message %q: %q, %v, done %t", m, row.name, final, answer, err, s.Done())
			}
		}
	}
}

// A fake cannot be told from others: it has their form, and stays the same.
func TestFake(t *testing.T) {
	for _, m := range []Mechanism{SHA256, SHA512} {
		a, again, b := Fake(m, []byte("s"), "alice", 5000, 70), Fake(m, []byte("s"), "alice", 5000, 70), Fake(m, []byte("s"), "bob", 5000, 70)
		if why := a.Reason(); why != "" || len(a.Salt) != 70 {
			t.Errorf("%s: %s", m, why)
		}
		if !bytes.Equal(a.Salt, again.Salt) || bytes.Equal(a.Salt, b.Salt) || bytes.Equal(a.Salt, Fake(m, []byte("t"), "alice", 5000, 70).Salt) {
			t.Errorf("%s: salts do not depend on secret and user alone", m)
		}
		if a.Verify("") || a.Verify("alice") {
			t.Errorf("%s: a password fits", m)
		}
	}
}

func TestVerify(t *testing.T) {
	c, err := New(SHA512, "pencil", MinIterations)
	if err != nil {
		t.Fatal(err)
	}
	if !c.Verify("pencil") || c.Verify("pencil ") || c.Verify("") {
		t.Error("Verify does not tell passwords apart")
	}
	d, err := New(SHA512, "pencil", MinIterations)
	if err != nil || bytes.Equal(c.Salt, d.Salt) || bytes.Equal(c.StoredKey, d.StoredKey) {
		t.Error("the same salt twice", err)
	}
}

func TestReason(t *testing.T) {
	for i, change := range []func(*Credential){
		func(c *Credential) { c.Mechanism = 0 }, func(c *Credential) { c.Mechanism = 3 }, func(c *Credential) { c.Iterations = MinIterations - 1 },
		func(c *Credential) { c.Iterations = MaxIterations + 1 }, func(c *Credential) { c.Salt = nil }, func(c *Credential) { c.Salt = make([]byte, 256) },
		func(c *Credential) { c.StoredKey = c.StoredKey[:20] }, func(c *Credential) { c.ServerKey = append(c.ServerKey, 0) },
	} {
		c := Fake(SHA256, nil, "a", MinIterations, 9)
		if change(c); c.Reason() == "" {
			t.Errorf("change %d passes", i)
		}
	}
	if m, err := ParseMechanism("scram-sha-512"); err != nil || m != SHA512 {
		t.Error(m, err)
	}
	if _, err := ParseMechanism("PLAIN"); err == nil {
		t.Error("PLAIN is none of SCRAM")
	}
}

// Whatever the client says: no panic, and nobody is let in who does not know the
// password.
func FuzzServer(f *testing.F) {
	f.Add([]byte("n,,n=alice,r=abc"), []byte("c=biws,r=abcX,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="))
	f.Add([]byte("y,a=alice,n=alice,r=abc,x=y"), []byte("c=biws,r=abcX,p="))
	f.Add([]byte("n,,n=a=2Cb=3Dc,r=~"), []byte(",p="))
	c := fixed(SHA256, "pencil", []byte("salt"), MinIterations)
	f.Fuzz(func(t *testing.T, first, final []byte) {
		s := NewServer(SHA256, func(user string) (*Credential, bool) { return c, user == "alice" })
		s.nonce = "X"
		a, err := s.Next(first)
		if (err == nil) != (a != nil) || s.Done() {
			t.Fatalf("%q: %q, %v", first, a, err)
		}
		if a, err := s.Next(final); err == nil || a != nil || s.Done() {
			t.Fatalf("%q, %q: let in", first, final)
		}
	})
}
