package engine

import "github.com/x/embedlog/internal/acl"

// explainSecurity shows commands about users, ACLs and quotas. Salts and keys are
// left out: they are of use to nobody but who wants to guess passwords.
func explainSecurity(c *command) (any, bool) {
	switch c.kind {
	case alterUserCommand:
		f := explainUser(&c.users[0])
		remove := []string{}
		for _, m := range c.mechanisms {
			remove = append(remove, m.String())
		}
		f["type"], f["remove"] = "alter user", remove
		return f, true
	case createACLsCommand:
		return explained{"type": "create ACLs", "acls": explainACLs(c.acls)}, true
	case deleteACLsCommand:
		return explained{"type": "delete ACLs", "acls": explainACLs(c.acls)}, true
	case alterQuotaCommand:
		f := explainQuota(&c.quotas[0])
		f["type"], f["unset"] = "alter quota", c.unset
		return f, true
	case securitySnapshotCommand:
		users, quotas := []explained{}, []explained{}
		for i := range c.users {
			users = append(users, explainUser(&c.users[i]))
		}
		for i := range c.quotas {
			quotas = append(quotas, explainQuota(&c.quotas[i]))
		}
		return explained{"type": "snapshot of users", "last": c.flags&snapshotLast != 0, "users": users, "acls": explainACLs(c.acls), "quotas": quotas}, true
	}
	return nil, false
}

func explainUser(u *userMeta) explained {
	list := []explained{}
	for _, c := range u.credentials {
		if c != nil {
			list = append(list, explained{"mechanism": c.Mechanism.String(), "iterations": c.Iterations})
		}
	}
	return explained{"user": u.name, "credentials": list}
}

func explainACLs(list []*acl.ACL) []explained {
	out := make([]explained, 0, len(list))
	for _, a := range list {
		out = append(out, explained{
			"resource_type": a.Resource.String(), "pattern_type": a.Pattern.String(), "name": a.Name, "principal": a.Principal,
			"host": a.Host, "operation": a.Operation.String(), "permission": a.Permission.String(),
		})
	}
	return out
}

func explainQuota(q *Quota) explained {
	entity := explained{}
	for _, p := range q.Entity.parts() {
		switch {
		case p.isDefault:
			entity[p.kind] = nil
		case p.name != "":
			entity[p.kind] = p.name
		}
	}
	return explained{"entity": entity, "values": q.Values}
}
