package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/acl"
	"github.com/x/embedlog/internal/scram"
	"github.com/x/embedlog/internal/sock"
)

func (k *kafkaDoor) users(ctx context.Context, _ none) ([]sock.User, error) {
	all, err := k.admin.DescribeUserSCRAMs(ctx)
	if err != nil {
		return nil, err
	}
	list := []sock.User{}
	for _, u := range all.Sorted() {
		if u.Err != nil {
			return nil, failed(u.Err, u.ErrMessage, "user %q", u.User)
		}
		list = append(list, scramUser(u))
	}
	return list, nil
}

func scramUser(u kadm.DescribedUserSCRAM) sock.User {
	shown := sock.User{User: u.User, Credentials: []sock.Credential{}}
	for _, c := range u.CredInfos {
		shown.Credentials = append(shown.Credentials, sock.Credential{Mechanism: c.Mechanism.String(), Iterations: int(c.Iterations)})
	}
	slices.SortFunc(shown.Credentials, func(a, b sock.Credential) int { return strings.Compare(a.Mechanism, b.Mechanism) })
	return shown
}

// user describes one user; it is not an error that there is none.
func (k *kafkaDoor) user(ctx context.Context, name string) (u kadm.DescribedUserSCRAM, has bool, err error) {
	all, err := k.admin.DescribeUserSCRAMs(ctx, name)
	if err != nil {
		return u, false, err
	}
	u = all[name]
	if errors.Is(u.Err, kerr.ResourceNotFound) {
		return u, false, nil
	}
	return u, u.Err == nil, failed(u.Err, u.ErrMessage, "user %q", name)
}

// setUser sends what recognises the password, not the password.
func (k *kafkaDoor) setUser(ctx context.Context, q sock.SetUser) (sock.User, error) {
	_, has, err := k.user(ctx, q.User)
	switch {
	case err != nil:
		return sock.User{}, err
	case has && !q.Exists:
		return sock.User{}, &sock.Error{Code: sock.CodeUserExists, Message: fmt.Sprintf("user %q exists", q.User)}
	case !has && q.Exists:
		return sock.User{}, unknownUser(q.User)
	}
	// Kafka takes a user once in a request.
	for _, m := range []kadm.ScramMechanism{kadm.ScramSha256, kadm.ScramSha512} {
		set := kadm.UpsertSCRAM{User: q.User, Mechanism: m, Iterations: scram.DefaultIterations, Password: q.Password}
		if err := k.alterUser(ctx, q.User, nil, []kadm.UpsertSCRAM{set}); err != nil {
			return sock.User{}, err
		}
	}
	u, _, err := k.user(ctx, q.User)
	u.User = q.User
	return scramUser(u), err
}

func (k *kafkaDoor) alterUser(ctx context.Context, name string, remove []kadm.DeleteSCRAM, set []kadm.UpsertSCRAM) error {
	done, err := k.admin.AlterUserSCRAMs(ctx, remove, set)
	if err != nil {
		return err
	}
	return failed(done[name].Err, done[name].ErrMessage, "user %q", name)
}

func unknownUser(name string) error {
	return &sock.Error{Code: sock.CodeUnknownUser, Message: (&embedlog.UnknownUserError{Name: name}).Error()}
}

func (k *kafkaDoor) deleteUser(ctx context.Context, q sock.UserName) (none, error) {
	u, has, err := k.user(ctx, q.User)
	switch {
	case err != nil:
		return none{}, err
	case !has:
		return none{}, unknownUser(q.User)
	}
	for _, c := range u.CredInfos {
		if err := k.alterUser(ctx, q.User, []kadm.DeleteSCRAM{{User: q.User, Mechanism: c.Mechanism}}, nil); err != nil {
			return none{}, err
		}
	}
	return none{}, nil
}

// aclWords are the words of an ACL in Kafka's numbers, which are those of package acl.
// Of a filter, what is empty is ANY.
type aclWords struct {
	resource   kmsg.ACLResourceType
	pattern    kmsg.ACLResourcePatternType
	operation  kmsg.ACLOperation
	permission kmsg.ACLPermissionType
}

func readWords(x sock.ACL) (w aclWords, err error) {
	w = aclWords{kmsg.ACLResourceTypeAny, kmsg.ACLResourcePatternTypeAny, kmsg.ACLOperationAny, kmsg.ACLPermissionTypeAny}
	var errs []error
	if x.ResourceType != "" {
		v, err := acl.ParseResourceType(x.ResourceType)
		w.resource, errs = kmsg.ACLResourceType(v), append(errs, err)
	}
	if x.PatternType != "" {
		v, err := acl.ParsePatternType(x.PatternType)
		w.pattern, errs = kmsg.ACLResourcePatternType(v), append(errs, err)
	}
	if x.Operation != "" {
		v, err := acl.ParseOperation(x.Operation)
		w.operation, errs = kmsg.ACLOperation(v), append(errs, err)
	}
	if x.Permission != "" {
		v, err := acl.ParsePermission(x.Permission)
		w.permission, errs = kmsg.ACLPermissionType(v), append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return w, &sock.Error{Code: sock.CodeInvalid, Message: err.Error()}
	}
	return w, nil
}

// showACL is an ACL of the protocol in words.
func showACL(resource kmsg.ACLResourceType, pattern kmsg.ACLResourcePatternType, name, principal, host string, o kmsg.ACLOperation, p kmsg.ACLPermissionType) sock.ACL {
	return sock.ACL{
		ResourceType: acl.ResourceType(resource).String(), PatternType: acl.PatternType(pattern).String(), Name: name, Principal: principal,
		Host: host, Operation: acl.Operation(o).String(), Permission: acl.Permission(p).String(),
	}
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func (k *kafkaDoor) acls(ctx context.Context, q sock.ACL) ([]sock.ACL, error) {
	w, err := readWords(q)
	if err != nil {
		return nil, err
	}
	req := kmsg.NewPtrDescribeACLsRequest()
	req.ResourceType, req.ResourcePatternType, req.Operation, req.PermissionType = w.resource, w.pattern, w.operation, w.permission
	req.ResourceName, req.Principal, req.Host = orNull(q.Name), orNull(q.Principal), orNull(q.Host)
	resp, err := req.RequestWith(ctx, k.cl)
	if err != nil {
		return nil, err
	}
	if err := aclError(resp.ErrorCode, resp.ErrorMessage, "list ACLs"); err != nil {
		return nil, err
	}
	list := []sock.ACL{}
	for _, r := range resp.Resources {
		for _, a := range r.ACLs {
			list = append(list, showACL(r.ResourceType, r.ResourcePatternType, r.ResourceName, a.Principal, a.Host, a.Operation, a.PermissionType))
		}
	}
	return list, nil
}

// aclError is an answer's error; what everybody is told alike is told by address.told.
func aclError(number int16, said *string, what string) error {
	err := kerr.ErrorForCode(number)
	if errors.Is(err, kerr.SecurityDisabled) || errors.Is(err, kerr.ClusterAuthorizationFailed) {
		return err
	}
	return failed(err, orEmpty(said), "%s", what)
}

func (k *kafkaDoor) createACLs(ctx context.Context, q []sock.ACL) ([]sock.ACL, error) {
	req := kmsg.NewPtrCreateACLsRequest()
	list := []sock.ACL{}
	for _, x := range q {
		if x.PatternType == "" {
			x.PatternType = "LITERAL"
		}
		if x.Host == "" {
			x.Host = acl.Wildcard
		}
		if x.Permission == "" {
			x.Permission = "ALLOW"
		}
		w, err := readWords(x)
		if err != nil {
			return nil, err
		}
		c := kmsg.NewCreateACLsRequestCreation()
		c.ResourceType, c.ResourcePatternType, c.Operation, c.PermissionType = w.resource, w.pattern, w.operation, w.permission
		c.ResourceName, c.Principal, c.Host = x.Name, x.Principal, x.Host
		req.Creations = append(req.Creations, c)
		list = append(list, showACL(w.resource, w.pattern, x.Name, x.Principal, x.Host, w.operation, w.permission))
	}
	resp, err := req.RequestWith(ctx, k.cl)
	if err != nil {
		return nil, err
	}
	for _, r := range resp.Results {
		if err := aclError(r.ErrorCode, r.ErrorMessage, "add an ACL"); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func (k *kafkaDoor) deleteACLs(ctx context.Context, q sock.ACL) ([]sock.ACL, error) {
	w, err := readWords(q)
	if err != nil {
		return nil, err
	}
	req := kmsg.NewPtrDeleteACLsRequest()
	f := kmsg.NewDeleteACLsRequestFilter()
	f.ResourceType, f.ResourcePatternType, f.Operation, f.PermissionType = w.resource, w.pattern, w.operation, w.permission
	f.ResourceName, f.Principal, f.Host = orNull(q.Name), orNull(q.Principal), orNull(q.Host)
	req.Filters = append(req.Filters, f)
	resp, err := req.RequestWith(ctx, k.cl)
	if err != nil {
		return nil, err
	}
	list := []sock.ACL{}
	for _, r := range resp.Results {
		if err := aclError(r.ErrorCode, r.ErrorMessage, "delete ACLs"); err != nil {
			return nil, err
		}
		for _, a := range r.MatchingACLs {
			if err := aclError(a.ErrorCode, a.ErrorMessage, "delete an ACL"); err != nil {
				return nil, err
			}
			list = append(list, showACL(a.ResourceType, a.ResourcePatternType, a.ResourceName, a.Principal, a.Host, a.Operation, a.PermissionType))
		}
	}
	return list, nil
}
