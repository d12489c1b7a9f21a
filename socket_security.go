package embedlog

import (
	"context"
	"errors"
	"fmt"

	"github.com/x/embedlog/internal/acl"
	"github.com/x/embedlog/internal/sock"
)

func (s *session) users(context.Context, none) ([]sock.User, error) {
	list := []sock.User{}
	for _, u := range s.db.Users() {
		list = append(list, showUser(u))
	}
	return list, nil
}

func showUser(u User) sock.User {
	shown := sock.User{User: u.Name, Credentials: []sock.Credential{}}
	for _, c := range u.Credentials {
		shown.Credentials = append(shown.Credentials, sock.Credential{Mechanism: c.Mechanism.String(), Iterations: c.Iterations})
	}
	return shown
}

func (s *session) setUser(ctx context.Context, q sock.SetUser) (sock.User, error) {
	_, has := s.db.engine.User(q.User)
	switch {
	case has && !q.Exists:
		return sock.User{}, &sock.Error{Code: sock.CodeUserExists, Message: fmt.Sprintf("user %q exists", q.User)}
	case !has && q.Exists:
		return sock.User{}, &UnknownUserError{Name: q.User}
	}
	if err := s.db.SetUser(ctx, q.User, q.Password); err != nil {
		return sock.User{}, err
	}
	u, _ := s.db.engine.User(q.User)
	return showUser(u), nil
}

func (s *session) deleteUser(ctx context.Context, q sock.UserName) (none, error) {
	return none{}, s.db.DeleteUser(ctx, q.User)
}

func (s *session) acls(_ context.Context, q sock.ACL) ([]sock.ACL, error) {
	f, err := readFilter(q)
	if err != nil {
		return nil, err
	}
	return showACLs(s.db.ACLs(f)), nil
}

func (s *session) createACLs(ctx context.Context, q []sock.ACL) ([]sock.ACL, error) {
	var list []ACL
	for _, x := range q {
		w, err := readWords(x)
		if err != nil {
			return nil, err
		}
		list = append(list, ACL{
			Resource: w.resource, Pattern: w.pattern, Name: x.Name, Principal: x.Principal, Host: x.Host,
			Operation: w.operation, Permission: w.permission,
		}.WithDefaults())
	}
	if err := s.db.CreateACLs(ctx, list...); err != nil {
		return nil, err
	}
	return showACLs(list), nil
}

func (s *session) deleteACLs(ctx context.Context, q sock.ACL) ([]sock.ACL, error) {
	f, err := readFilter(q)
	if err != nil {
		return nil, err
	}
	deleted, err := s.db.DeleteACLs(ctx, f)
	if err != nil {
		return nil, err
	}
	return showACLs(deleted), nil
}

func showACLs(list []ACL) []sock.ACL {
	shown := []sock.ACL{}
	for _, a := range list {
		shown = append(shown, sock.ACL{
			ResourceType: a.Resource.String(), PatternType: a.Pattern.String(), Name: a.Name, Principal: a.Principal,
			Host: a.Host, Operation: a.Operation.String(), Permission: a.Permission.String(),
		})
	}
	return shown
}

// aclWords are the words of an ACL; zero is one that was empty.
type aclWords struct {
	resource   ResourceType
	pattern    PatternType
	operation  Operation
	permission Permission
}

func readWords(x sock.ACL) (w aclWords, err error) {
	var errs [4]error
	if x.ResourceType != "" {
		w.resource, errs[0] = acl.ParseResourceType(x.ResourceType)
	}
	if x.PatternType != "" {
		w.pattern, errs[1] = acl.ParsePatternType(x.PatternType)
	}
	if x.Operation != "" {
		w.operation, errs[2] = acl.ParseOperation(x.Operation)
	}
	if x.Permission != "" {
		w.permission, errs[3] = acl.ParsePermission(x.Permission)
	}
	if err := errors.Join(errs[:]...); err != nil {
		return w, &sock.Error{Code: sock.CodeInvalid, Message: err.Error()}
	}
	return w, nil
}

func readFilter(x sock.ACL) (f ACLFilter, err error) {
	w, err := readWords(x)
	f = ACLFilter{Resource: w.resource, Pattern: w.pattern, Operation: w.operation, Permission: w.permission}
	for _, p := range []struct {
		from string
		to   **string
	}{{x.Name, &f.Name}, {x.Principal, &f.Principal}, {x.Host, &f.Host}} {
		if p.from != "" {
			*p.to = &p.from
		}
	}
	return f, err
}
