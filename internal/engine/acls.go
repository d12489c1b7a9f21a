package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/x/embedlog/internal/acl"
)

// ErrInvalidACL is matched by *InvalidACLError. Nothing was changed.
var ErrInvalidACL = errors.New("embedlog: invalid ACL")

// InvalidACLError is an ACL that there cannot be.
type InvalidACLError struct {
	ACL    acl.ACL
	Reason string
}

func (e *InvalidACLError) Error() string {
	return fmt.Sprintf("ACL of %.64q for %.64q: %s", e.ACL.Principal, e.ACL.Name, e.Reason)
}

// Is matches ErrInvalidACL.
func (e *InvalidACLError) Is(target error) bool { return target == ErrInvalidACL }

// CheckACL says why there can be no such ACL: an *InvalidACLError. What is zero counts
// as acl.ACL.WithDefaults makes it.
func CheckACL(a acl.ACL) error {
	a = a.WithDefaults()
	if why := a.Reason(); why != "" {
		return &InvalidACLError{ACL: a, Reason: why}
	}
	return nil
}

// CreateACLs adds ACLs; those that are there stay. They are in force, and on the disk,
// when it returns nil. An *InvalidACLError, joined, says what is wrong with which;
// then none was added. More than about a thousand at once are added by the thousand,
// so that after another error a part may be there.
func (e *Engine) CreateACLs(ctx context.Context, acls []acl.ACL) error {
	list := make([]*acl.ACL, 0, len(acls))
	var bad []error
	for _, a := range acls {
		a = a.WithDefaults()
		bad = append(bad, CheckACL(a))
		list = append(list, &a)
	}
	if err := errors.Join(bad...); err != nil {
		return fmt.Errorf("create ACLs: %w", err)
	}
	set := e.ACLSet()
	list = slices.DeleteFunc(list, set.Has)
	if err := e.changeACLs(ctx, createACLsCommand, list); err != nil {
		return fmt.Errorf("create ACLs: %w", err)
	}
	return nil
}

// changeACLs does a command over ACLs, in parts that fit one each.
func (e *Engine) changeACLs(ctx context.Context, kind commandKind, list []*acl.ACL) error {
	slices.SortFunc(list, (*acl.ACL).Compare)
	list = slices.CompactFunc(list, func(a, b *acl.ACL) bool { return *a == *b })
	for len(list) > 0 {
		n, size := 0, 0
		for n < len(list) && size < snapshotPartBytes/2 {
			size += list[n].Bytes()
			n++
		}
		if err := e.changeSecurity(ctx, &command{kind: kind, acls: list[:n]}); err != nil {
			return err
		}
		list = list[n:]
	}
	return e.closedError()
}

// DeleteACLs takes away the ACLs that any of the filters chooses, and returns them, by
// filter and in order; one that several choose is there for each of them. After an
// error a part may be gone.
func (e *Engine) DeleteACLs(ctx context.Context, filters ...acl.Filter) ([][]acl.ACL, error) {
	set := e.ACLSet()
	deleted := make([][]acl.ACL, len(filters))
	var all []*acl.ACL
	for i := range filters {
		found := set.Match(&filters[i])
		all = append(all, found...)
		deleted[i] = values(found)
	}
	if err := e.changeACLs(ctx, deleteACLsCommand, all); err != nil {
		return nil, fmt.Errorf("delete ACLs: %w", err)
	}
	return deleted, nil
}

// ACLs are those that the filter chooses, in order.
func (e *Engine) ACLs(filter acl.Filter) []acl.ACL { return values(e.ACLSet().Match(&filter)) }

func values(list []*acl.ACL) []acl.ACL {
	out := make([]acl.ACL, len(list))
	for i, a := range list {
		out[i] = *a
	}
	return out
}

// ACLSet is all ACLs as they are now. It must not be changed. It takes no lock.
func (e *Engine) ACLSet() *acl.Set { return e.meta.security.Load().acls }
