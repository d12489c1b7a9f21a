package engine

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
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
	secret := e.fakeSecret()
	// It is made for users that there are, too, so that it takes as long.
	f := chooseForm(secret, name, v.forms[m])
	fake := scram.Fake(m, secret, name, f.iterations, f.saltBytes)
	if c := v.users[name][m]; c != nil {
		return c, true
	}
	return fake, false
}

// CheckPassword says whether the user has that password. It takes 1 to 20 ms, and as
// long for a user that there is not.
func (e *Engine) CheckPassword(name, password string) bool {
	v := e.meta.security.Load()
	c, has := v.users[name]
	m := scram.SHA512
	if has && c[m] == nil || !has && fraction(e.fakeSecret(), "mechanism", name) < v.only256 {
		m = scram.SHA256
	}
	cred, known := e.Credential(name, m)
	return cred.Verify(password) && known
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

// formCount is how many users have credentials of a form.
type formCount struct {
	saltForm
	users int
}

// maxForms is how many forms users that there are not may have: a form of less users
// than that tells that there is one. Users of one program have one or two.
const maxForms = 8

// summarize finds what users look like whose credentials nobody knows yet: those that
// there are not look like those that there are, each form as often as it is there.
func (v *securityView) summarize() {
	only256 := 0
	for m := scram.SHA256; m <= scram.SHA512; m++ {
		count := make(map[saltForm]int)
		for _, list := range v.users {
			c := list[m]
			if c == nil {
				continue
			}
			if m == scram.SHA256 && list[scram.SHA512] == nil {
				only256++
			}
			count[saltForm{c.Iterations, len(c.Salt)}]++
		}
		forms := make([]formCount, 0, len(count))
		for f, n := range count {
			forms = append(forms, formCount{f, n})
		}
		slices.SortFunc(forms, func(a, b formCount) int {
			return cmp.Or(cmp.Compare(b.users, a.users), cmp.Compare(b.iterations, a.iterations), cmp.Compare(b.saltBytes, a.saltBytes))
		})
		if len(forms) == 0 {
			forms = append(forms, formCount{saltForm{scram.DefaultIterations, scram.SaltBytes}, 1})
		}
		v.forms[m] = forms[:min(len(forms), maxForms)]
	}
	v.only256 = 0
	if len(v.users) > 0 {
		v.only256 = float64(only256) / float64(len(v.users))
	}
}

// chooseForm chooses a form for a user that there is not, each in proportion to its
// users. It is the same one each time, and when users come and go it changes for few
// names only: a form that changes without anybody changing a password would tell, too.
// (Weighted rendezvous hashing)
func chooseForm(secret []byte, name string, forms []formCount) saltForm {
	best, least := 0, math.Inf(1)
	for i := range forms {
		f := &forms[i]
		what := fmt.Sprintf("form %d %d", f.iterations, f.saltBytes)
		if score := -math.Log(fraction(secret, what, name)) / float64(f.users); score < least {
			best, least = i, score
		}
	}
	return forms[best].saltForm
}

// fraction is a number above 0 and below 1 that nobody can tell who does not know the
// secret.
func fraction(secret []byte, what, name string) float64 {
	h := hmac.New(sha256.New, secret)
	h.Write([]byte(what + " " + name))
	return (float64(binary.BigEndian.Uint64(h.Sum(nil))>>11) + 0.5) / (1 << 53)
}
