package kafka

import (
	"fmt"
	"maps"
	"slices"

	"github.com/x/embedlog/internal/engine"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeClientQuotas, versions 0 and 1: the quotas of entities that a filter
// chooses. (KIP-546, KIP-612)

func init() { register(0, 1, describeClientQuotas) }

func describeClientQuotas(r *request, q *kmsg.DescribeClientQuotasRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.DescribeClientQuotasResponse)
	if !r.authorize(OpDescribeConfigs, ResourceCluster, ClusterName) {
		resp.ErrorCode = codeClusterAuthorizationFailed
		return resp, nil
	}
	if resp.ErrorCode, resp.ErrorMessage = checkQuotaFilter(q); resp.ErrorCode != codeNone {
		return resp, nil
	}
	resp.Entries = []kmsg.DescribeClientQuotasResponseEntry{} // null stands for an error
	for _, quota := range r.engine.Quotas() {
		parts := quotaParts(quota.Entity)
		if !chosenQuota(q, parts) {
			continue
		}
		e := kmsg.NewDescribeClientQuotasResponseEntry()
		for _, p := range parts {
			x := kmsg.NewDescribeClientQuotasResponseEntryEntity()
			x.Type, x.Name = p.kind, p.name
			e.Entity = append(e.Entity, x)
		}
		for _, name := range slices.Sorted(maps.Keys(quota.Values)) {
			v := kmsg.NewDescribeClientQuotasResponseEntryValue()
			v.Key, v.Value = name, quota.Values[name]
			e.Values = append(e.Values, v)
		}
		resp.Entries = append(resp.Entries, e)
	}
	return resp, nil
}

// The kinds of parts that an entity has. (ClientQuotaEntity)
const (
	quotaUser     = "user"
	quotaClientID = "client-id"
	quotaIP       = "ip"
)

// quotaPart is a part of an entity; the default has no name.
type quotaPart struct {
	kind string
	name *string
}

func quotaParts(e engine.QuotaEntity) (parts []quotaPart) {
	for _, p := range []struct {
		kind, name string
		isDefault  bool
	}{{quotaUser, e.User, e.DefaultUser}, {quotaClientID, e.ClientID, e.DefaultClientID}, {quotaIP, e.IP, e.DefaultIP}} {
		switch {
		case p.isDefault:
			parts = append(parts, quotaPart{p.kind, nil})
		case p.name != "":
			parts = append(parts, quotaPart{p.kind, &p.name})
		}
	}
	return parts
}

// checkQuotaFilter says what is wrong with the filter.
func checkQuotaFilter(q *kmsg.DescribeClientQuotasRequest) (code int16, message *string) {
	seen := make(map[string]bool)
	for i := range q.Components {
		c := &q.Components[i]
		switch {
		case c.EntityType == "":
			return codeInvalidRequest, nullable("an entity type is empty")
		case c.EntityType != quotaUser && c.EntityType != quotaClientID && c.EntityType != quotaIP:
			return codeUnsupportedVersion, nullable(fmt.Sprintf("there is no entity type %.64q", c.EntityType))
		case seen[c.EntityType]:
			return codeInvalidRequest, nullable(fmt.Sprintf("entity type %s is there twice", c.EntityType))
		case c.MatchType < 0 || c.MatchType > 2 || (c.MatchType == 0) != (c.Match != nil):
			return codeInvalidRequest, nullable("a name belongs to an exact match, and to no other")
		}
		seen[c.EntityType] = true
	}
	if seen[quotaIP] && len(seen) > 1 {
		return codeInvalidRequest, nullable("an address has quotas of its own, not together with a user or client id")
	}
	return codeNone, nil
}

// chosenQuota says whether the filter chooses an entity. (ClientQuotasImage)
func chosenQuota(q *kmsg.DescribeClientQuotasRequest, parts []quotaPart) bool {
	if q.Strict && len(parts) != len(q.Components) {
		return false
	}
	for i := range q.Components {
		c := &q.Components[i]
		if !slices.ContainsFunc(parts, func(p quotaPart) bool {
			if p.kind != c.EntityType {
				return false
			}
			switch c.MatchType {
			case 0: // exactly
				return p.name != nil && *p.name == *c.Match
			case 1: // the default
				return p.name == nil
			}
			return true
		}) {
			return false
		}
	}
	return true
}
