package kafka

import (
	"fmt"

	"github.com/x/embedlog/internal/engine"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// AlterClientQuotas, versions 0 and 1. What is asked of one entity is done as a
// whole. (KIP-546, KIP-612)

func init() { register(0, 1, alterClientQuotas) }

func alterClientQuotas(r *request, q *kmsg.AlterClientQuotasRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.AlterClientQuotasResponse)
	allowed := r.authorize(OpAlterConfigs, ResourceCluster, ClusterName)
	for i := range q.Entries {
		x := &q.Entries[i]
		e := kmsg.NewAlterClientQuotasResponseEntry()
		for _, p := range x.Entity {
			y := kmsg.NewAlterClientQuotasResponseEntryEntity()
			y.Type, y.Name = p.Type, p.Name
			e.Entity = append(e.Entity, y)
		}
		if !allowed {
			e.ErrorCode = codeClusterAuthorizationFailed
		} else {
			err := r.alterQuota(x, q.ValidateOnly)
			e.ErrorCode, e.ErrorMessage = codeOf(err), errorText(err)
		}
		resp.Entries = append(resp.Entries, e)
	}
	return resp, nil
}

func (r *request) alterQuota(x *kmsg.AlterClientQuotasRequestEntry, validateOnly bool) error {
	entity, err := entityOf(x.Entity)
	if err != nil {
		return err
	}
	// Of several changes of one quota the last one counts.
	set := make(map[string]float64)
	unset := make(map[string]bool)
	for _, op := range x.Ops {
		delete(set, op.Key)
		delete(unset, op.Key)
		if op.Remove {
			unset[op.Key] = true
		} else {
			set[op.Key] = op.Value
		}
	}
	var names []string
	for name := range unset {
		names = append(names, name)
	}
	if err := engine.CheckQuota(entity, set, names); err != nil || validateOnly {
		return err
	}
	return r.engine.AlterQuota(r.life, entity, set, names...)
}

// entityOf reads an entity.
func entityOf(parts []kmsg.AlterClientQuotasRequestEntryEntity) (e engine.QuotaEntity, err error) {
	refuse := func(format string, args ...any) (engine.QuotaEntity, error) {
		return e, &engine.InvalidQuotaError{Entity: e, Reason: fmt.Sprintf(format, args...)}
	}
	seen := make(map[string]bool)
	for _, p := range parts {
		if seen[p.Type] {
			return refuse("entity type %.64q is there twice", p.Type)
		}
		seen[p.Type] = true
		name, isDefault := "", p.Name == nil
		if !isDefault {
			if name = *p.Name; name == "" {
				return refuse("a name is empty")
			}
		}
		switch p.Type {
		case quotaUser:
			e.User, e.DefaultUser = name, isDefault
		case quotaClientID:
			e.ClientID, e.DefaultClientID = name, isDefault
		case quotaIP:
			e.IP, e.DefaultIP = name, isDefault
		default:
			return refuse("there is no entity type %.64q", p.Type)
		}
	}
	return e, nil
}
