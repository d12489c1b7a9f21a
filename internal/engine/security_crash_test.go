package engine

import (
	"errors"
	"fmt"
	"testing"

	"github.com/x/embedlog/internal/acl"
	"github.com/x/embedlog/internal/scram"
	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// securityStep is one change, and what it makes of the state.
type securityStep struct {
	name string
	do   func(e *Engine) error
	then func(n *naiveSecurity)
}

func securitySteps() []securityStep {
	aclOf := func(name string) acl.ACL {
		return acl.ACL{Resource: acl.ResourceTopic, Name: name, Principal: "User:a", Operation: acl.OpRead}.WithDefaults()
	}
	user := func(name, salt string, ms ...scram.Mechanism) securityStep {
		var set []*scram.Credential
		for _, m := range ms {
			set = append(set, testCredential(m, salt))
		}
		return securityStep{"user " + name, func(e *Engine) error { return e.AlterUser(ctx, name, set) }, func(n *naiveSecurity) {
			for _, m := range ms {
				n.users[name+" "+m.String()] = "na" + salt
			}
		}}
	}
	create := func(names ...string) securityStep {
		var list []acl.ACL
		for _, name := range names {
			list = append(list, aclOf(name))
		}
		return securityStep{fmt.Sprint("create ACLs ", names), func(e *Engine) error { return e.CreateACLs(ctx, list) }, func(n *naiveSecurity) {
			for _, a := range list {
				n.acls[a.String()] = ""
			}
		}}
	}
	remove := func(name string) securityStep {
		return securityStep{"delete ACL " + name, func(e *Engine) error {
			_, err := e.DeleteACLs(ctx, acl.Filter{Name: &name})
			return err
		}, func(n *naiveSecurity) { delete(n.acls, aclOf(name).String()) }}
	}
	entity := QuotaEntity{User: "a", DefaultClientID: true}
	quota := func(value float64, unset ...string) securityStep {
		return securityStep{fmt.Sprint("quota ", value), func(e *Engine) error {
			return e.AlterQuota(ctx, entity, map[string]float64{QuotaProducerByteRate: value}, unset...)
		}, func(n *naiveSecurity) {
			n.quotas[entity.String()+" "+QuotaProducerByteRate] = fmt.Sprint(value)
		}}
	}
	return []securityStep{
		user("a", "1", scram.SHA256, scram.SHA512), create("x", "y"), quota(5), user("a", "2", scram.SHA512), remove("x"),
		{"delete user a", func(e *Engine) error { return e.DeleteUser(ctx, "a") }, func(n *naiveSecurity) { clear(n.users) }},
		user("b", "3", scram.SHA256), create("x"), quota(7), remove("y"), user("a", "4", scram.SHA256),
	}
}

func securityText(e *Engine) string { return e.meta.security.Load().text() }

// Every change of users, ACLs and quotas is there whole or not at all, wherever the
// power goes, and what was acknowledged stays. Snapshots are written in between.
func TestSecurityCrashAtEveryOperation(t *testing.T) {
	alone(t)
	snapshots := 0
	for k := 0; ; k++ {
		mem := vfs.NewMem(vfs.CrashAt(k), vfs.CrashByte(k%700))
		before, after := newNaiveSecurity(), newNaiveSecurity()
		done := "open"
		e, err := Open("db", &Options{FS: mem, MaintenanceInterval: -1})
		for _, s := range securitySteps() {
			if err != nil {
				break
			}
			done = s.name
			s.then(after)
			if err = s.do(e); err == nil {
				s.then(before)
			}
		}
		if e != nil {
			if e.meta.part.LogStart() > 0 {
				snapshots++
			}
			e.Close()
		}
		if err == nil && !mem.Crashed() {
			if k < 50 || snapshots < 5 {
				t.Fatalf("the script needs %d operations only, and writes a snapshot in %d runs", k, snapshots)
			}
			return
		}
		if err != nil && !errors.Is(err, vfs.ErrCrashed) && !errors.Is(err, log.ErrClosed) {
			t.Fatalf("k=%d: %s failed with %v", k, done, err)
		}
		states := []*vfs.Mem{mem.AfterCrash(vfs.KeepNone), mem.AfterCrash(vfs.KeepAll), mem.AfterKill()}
		for i := range testcount.N(3) {
			states = append(states, mem.AfterCrash(vfs.Random(uint64(k*10+i))))
		}
		for i, fs := range states {
			e, err := Open("db", &Options{FS: fs, MaintenanceInterval: -1})
			if err != nil {
				t.Fatalf("k=%d, state %d, in %s: %v\n%s", k, i, done, err, tree(fs))
			}
			got := securityText(e)
			if got != before.text() && got != after.text() {
				t.Fatalf("k=%d, state %d, in %s:\ngot  %s\nwant %s\nor   %s", k, i, done, got, before.text(), after.text())
			}
			if err := e.AlterUser(ctx, "z", []*scram.Credential{testCredential(scram.SHA256, "z")}); err != nil {
				t.Fatalf("k=%d, state %d: afterwards: %v", k, i, err)
			}
			e.Close()
		}
	}
}

// The same for an operation of the file system that fails: the step fails, and can be
// made again, at once or after a reopen.
func TestSecurityErrorAtEveryOperation(t *testing.T) {
	alone(t)
	failures := 0
	for k := 0; ; k++ {
		mem := vfs.NewMem()
		fault := vfs.NewFault(mem, vfs.Rule{Op: vfs.OpAny, Skip: k, Effect: vfs.Fail(nil)})
		reopen := func() *Engine {
			e, err := Open("db", &Options{FS: mem.AfterKill(), MaintenanceInterval: -1})
			if err != nil {
				t.Fatalf("k=%d: open again: %v", k, err)
			}
			return e
		}
		want := newNaiveSecurity()
		e, err := Open("db", &Options{FS: fault, MaintenanceInterval: -1})
		if err != nil {
			e = reopen()
		}
		for _, s := range securitySteps() {
			if err := s.do(e); err != nil {
				failures++
				e.Close()
				e = reopen()
				if securityText(e) == want.text() { // it did not take effect
					if err := s.do(e); err != nil {
						t.Fatalf("k=%d, %s again: %v", k, s.name, err)
					}
				}
			}
			s.then(want)
			if got := securityText(e); got != want.text() {
				t.Fatalf("k=%d, after %s:\ngot  %s\nwant %s", k, s.name, got, want.text())
			}
		}
		e.Close()
		if fault.Hits() == 0 {
			if k < 50 || failures < 10 {
				t.Fatalf("only %d operations, %d of which made a step fail", k, failures)
			}
			return
		}
	}
}
