package engine

import (
	"slices"
	"sync"
)

// SecurityChange says what a change of users or ACLs has changed.
type SecurityChange struct {
	// UserGone is a user that was deleted; empty if none was.
	UserGone string
	// ACLs says that ACLs came or went.
	ACLs bool
}

// securityWatchers are those who want to know of it.
type securityWatchers struct {
	mu   sync.Mutex
	list []*func(SecurityChange)
}

// OnSecurity calls f after each change of users and ACLs, when it is in force, until
// cancel is called; it may be called once more while that runs. It is called by who
// made the change, so f must be quick, and must not change users or ACLs.
func (e *Engine) OnSecurity(f func(SecurityChange)) (cancel func()) {
	w := &e.securityWatchers
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = append(slices.Clip(w.list), &f)
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.list = slices.DeleteFunc(slices.Clone(w.list), func(g *func(SecurityChange)) bool { return g == &f })
	}
}

func (w *securityWatchers) call(c SecurityChange) {
	w.mu.Lock()
	list := w.list
	w.mu.Unlock()
	for _, f := range list {
		(*f)(c)
	}
}

// securityChange is what watchers hear of a command that was applied.
func (s *security) securityChange(c *command) (change SecurityChange) {
	switch c.kind {
	case createACLsCommand, deleteACLsCommand:
		change.ACLs = true
	case alterUserCommand:
		if name := c.users[0].name; len(s.users[name].user(name).Credentials) == 0 {
			change.UserGone = name
		}
	}
	return change
}
