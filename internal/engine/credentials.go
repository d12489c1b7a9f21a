package engine

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/x/embedlog/internal/scram"
)

var (
	// ErrUnknownUser is matched by *UnknownUserError.
	ErrUnknownUser = errors.New("embedlog: unknown user")
	// ErrInvalidUser is matched by *InvalidUserError. Nothing was changed.
	ErrInvalidUser = errors.New("embedlog: invalid user")
)

// UnknownUserError is a user that there is not, or that has no credential of a
// mechanism.
type UnknownUserError struct {
	Name      string
	Mechanism scram.Mechanism // zero: none of any
}

func (e *UnknownUserError) Error() string {
	if e.Mechanism == 0 {
		return fmt.Sprintf("user %q does not exist", e.Name)
	}
	return fmt.Sprintf("user %q has no credential for %s", e.Name, e.Mechanism)
}

// Is matches ErrUnknownUser.
func (e *UnknownUserError) Is(target error) bool { return target == ErrUnknownUser }

// InvalidUserError is a name, a password or a credential that no user can have.
type InvalidUserError struct {
	Name   string
	Reason string
}

func (e *InvalidUserError) Error() string { return fmt.Sprintf("user %.64q: %s", e.Name, e.Reason) }

// Is matches ErrInvalidUser.
func (e *InvalidUserError) Is(target error) bool { return target == ErrInvalidUser }

// CheckUserName says why there can be no user of that name: an *InvalidUserError.
func CheckUserName(name string) error {
	if name == "" || len(name) > maxUserName || !utf8.ValidString(name) || strings.ContainsRune(name, 0) {
		return &InvalidUserError{Name: name, Reason: fmt.Sprintf("a name is UTF-8 text of 1 to %d bytes without NUL", maxUserName)}
	}
	return nil
}

// User is a user and how he can prove who he is. It must not be changed.
type User struct {
	Name        string
	Credentials []*scram.Credential // by mechanism, at least one
}

// AlterUser gives a user credentials, one for each mechanism, and takes those of
// other mechanisms away; a user who has none left is gone. It is done as a whole, and
// on the disk, when it returns nil. It fails with an *InvalidUserError, joined, for
// what cannot be, and with an *UnknownUserError when there is nothing to take away.
func (e *Engine) AlterUser(ctx context.Context, name string, set []*scram.Credential, unset ...scram.Mechanism) error {
	bad := []error{CheckUserName(name)}
	u := userMeta{name: name}
	for _, c := range set {
		why := c.Reason()
		if why == "" && (u.credentials[c.Mechanism] != nil || slices.Contains(unset, c.Mechanism)) {
			why = fmt.Sprintf("%s is to be changed twice at once", c.Mechanism)
		}
		if why != "" {
			bad = append(bad, &InvalidUserError{Name: name, Reason: why})
			continue
		}
		mine := *c
		mine.Salt, mine.StoredKey, mine.ServerKey = slices.Clone(c.Salt), slices.Clone(c.StoredKey), slices.Clone(c.ServerKey)
		u.credentials[c.Mechanism] = &mine
	}
	unset = slices.Compact(slices.Sorted(slices.Values(unset)))
	for _, m := range unset {
		if !m.Known() {
			bad = append(bad, &InvalidUserError{Name: name, Reason: fmt.Sprintf("there is no SCRAM mechanism %d", m)})
		}
	}
	if len(set)+len(unset) == 0 {
		bad = append(bad, &InvalidUserError{Name: name, Reason: "nothing to change"})
	}
	if err := errors.Join(bad...); err != nil {
		return fmt.Errorf("alter user: %w", err)
	}
	if err := e.changeSecurity(ctx, &command{kind: alterUserCommand, users: []userMeta{u}, mechanisms: unset}); err != nil {
		return fmt.Errorf("alter user: %w", err)
	}
	return nil
}

// changeSecurity does a command about users, ACLs or quotas.
func (e *Engine) changeSecurity(ctx context.Context, c *command) error {
	if err := e.closedError(); err != nil {
		return err
	}
	_, change, err := e.meta.change(ctx, c)
	if err == nil && change != (SecurityChange{}) {
		e.securityWatchers.call(change)
	}
	return err
}

// DeleteUser takes all credentials of a user away. It fails with an
// *UnknownUserError when there is no such user.
func (e *Engine) DeleteUser(ctx context.Context, name string) error {
	u, ok := e.User(name)
	if !ok {
		if err := e.closedError(); err != nil {
			return fmt.Errorf("delete user: %w", err)
		}
		return fmt.Errorf("delete user: %w", &UnknownUserError{Name: name})
	}
	var all []scram.Mechanism
	for _, c := range u.Credentials {
		all = append(all, c.Mechanism)
	}
	return e.AlterUser(ctx, name, nil, all...)
}

func (c credentials) user(name string) User {
	u := User{Name: name}
	for _, cred := range c {
		if cred != nil {
			u.Credentials = append(u.Credentials, cred)
		}
	}
	return u
}

// User finds a user. It takes no lock.
func (e *Engine) User(name string) (u User, ok bool) {
	c, ok := e.meta.security.Load().users[name]
	return c.user(name), ok
}

// Users are all users, by name.
func (e *Engine) Users() []User {
	users := e.meta.security.Load().users
	list := make([]User, 0, len(users))
	for _, name := range slices.Sorted(maps.Keys(users)) {
		list = append(list, users[name].user(name))
	}
	return list
}

// Credential finds what a user's proof is checked with. Where there is none, known is
// false, and c is one that looks and costs the same and that nothing proves. It takes
// no lock. c must not be changed.
func (e *Engine) Credential(name string, m scram.Mechanism) (c *scram.Credential, known bool) {
	v := e.meta.security.Load()
	if c := v.users[name][m]; c != nil {
		return c, true
	}
	f := v.usual[m]
	return scram.Fake(m, e.fakeSecret(), name, f.iterations, f.saltBytes), false
}

// CheckPassword says whether the user has that password. It takes 1 to 20 ms, and as
// long for a user that there is not.
func (e *Engine) CheckPassword(name, password string) bool {
	v := e.meta.security.Load()
	m := scram.SHA512
	if c, has := v.users[name]; has && c[m] == nil || !has && v.mostly256 {
		m = scram.SHA256
	}
	c, known := e.Credential(name, m)
	return c.Verify(password) && known
}

// fakeSecret makes the salts of users that there are not. It is the same after a
// restart, as salts of users are; who can read it can read the directory, and there
// the names.
func (e *Engine) fakeSecret() []byte {
	h := hmac.New(sha256.New, e.identity.directory[:])
	h.Write([]byte("salts of users that there are not"))
	return h.Sum(nil)
}

// saltForm is what of a credential a client sees before it has proved anything.
type saltForm struct{ iterations, saltBytes int }

// summarize finds what users look like whose credentials nobody knows yet: those that
// there are not look like most of those that there are.
func (v *securityView) summarize() {
	alone := 0
	for m := scram.SHA256; m <= scram.SHA512; m++ {
		count := make(map[saltForm]int)
		best := saltForm{scram.DefaultIterations, scram.SaltBytes}
		for _, list := range v.users {
			c := list[m]
			if c == nil {
				continue
			}
			if m == scram.SHA256 && list[scram.SHA512] == nil {
				alone++
			}
			f := saltForm{c.Iterations, len(c.Salt)}
			count[f]++
			// Where two are as frequent the order of the map must not decide.
			if n := count[f]; n > count[best] || n == count[best] && (f.iterations > best.iterations || f.iterations == best.iterations && f.saltBytes > best.saltBytes) {
				best = f
			}
		}
		v.usual[m] = best
	}
	v.mostly256 = alone*2 > len(v.users)
}
